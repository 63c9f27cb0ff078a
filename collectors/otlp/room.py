"""How many bytes all requests together may hold: who finds no room is told to come back, before memory runs out."""

import threading


class NoRoomError(Exception):
    """The requests under way hold all that may be held."""


class Room:
    """A number of bytes, shared by the event loop and the threads that read requests."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self.held = 0

    def take(self, size: int) -> None:
        """Hold more bytes. Raises NoRoomError; negative gives back."""
        with self._lock:
            if size > 0 and self.held + size > self._size:
                raise NoRoomError
            self.held += size


class Hold:
    """One request's share; given back at its end."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._size = 0

    def take(self, size: int) -> None:
        """Hold more bytes. Raises NoRoomError."""
        self._room.take(size)
        self._size += size

    def give_back(self) -> None:
        """Make room for others."""
        self._room.take(-self._size)
        self._size = 0
