"""A backup as a file: the tar archive that the engine's BACKUP writes, and the older ones an incremental one needs.

An archive knows itself and its base by UUID, so files may be renamed and moved, as long as a chain stays together in
one folder. Never here: writing archives, or a connection.
"""

import re
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from spendwatch.errors import ConfigError

_BASE_NAME = re.compile(r"Disk\((?:'|&apos;)backups(?:'|&apos;), (?:'|&apos;)([\w-]+\.tar)(?:'|&apos;)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """What an archive says of itself. made_at: when it was begun, by the engine's clock. base_name: under which name
    the engine expects the base; base_uuid: which archive that is; both None for a full backup."""

    path: Path
    uuid: str
    made_at: datetime
    base_uuid: str | None
    base_name: str | None


def read(path: Path) -> Archive:
    """Read the description inside an archive. Raises ConfigError when the file is no whole backup."""
    try:
        with tarfile.open(path) as tar:
            member = tar.extractfile(".backup")
            text = member.read().decode() if member is not None else ""
    except (OSError, tarfile.TarError, KeyError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"expected a backup made by `manage.py store backup` at {path}, found: {error}. Name a whole backup file."
        ) from None
    made_at = datetime.fromisoformat((_inside(text, "timestamp") or "1970-01-01 00:00:00") + "+00:00")
    base = _inside(text, "base_backup")
    named = None if base is None else _BASE_NAME.search(base)
    uuid = _inside(text, "uuid")
    if uuid is None or (base is not None and named is None):
        raise ConfigError(
            f"expected a backup made by `manage.py store backup` at {path}, found another kind of backup."
        )
    return Archive(
        path=path,
        uuid=uuid,
        made_at=made_at,
        base_uuid=_inside(text, "base_backup_uuid"),
        base_name=named[1] if named else None,
    )


def _inside(text: str, tag: str) -> str | None:
    found = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    return None if found is None else found[1]


def chain(path: Path, *more_folders: Path) -> list[Archive]:
    """The archive and all it leans on, newest first; bases are found beside it and in more_folders by their UUID.

    Raises ConfigError that names what is missing.
    """
    found = [read(path)]
    while found[-1].base_uuid is not None:
        wanted = found[-1].base_uuid
        for candidate in _archives(path.parent, *more_folders):
            if candidate.uuid == wanted:
                found.append(candidate)
                break
        else:
            raise ConfigError(
                f"expected the backup that {found[-1].path} continues (UUID {wanted}) beside it in {path.parent}, "
                "found none. An incremental backup is nothing without its base: put all files of the chain into one "
                "folder."
            )
    return found


def newest(place: Path) -> Path:
    """The file itself, or the newest backup of a folder. Raises ConfigError when there is none."""
    if not place.is_dir():
        return place
    archives = sorted(_archives(place), key=lambda archive: (archive.made_at, archive.path.stat().st_mtime_ns))
    if not archives:
        raise ConfigError(f"expected a backup (a .tar file) in {place}, found none.")
    return archives[-1].path


def _archives(*folders: Path) -> Iterator[Archive]:
    for folder in folders:
        for path in sorted(folder.glob("*.tar")):
            try:
                yield read(path)
            except ConfigError:
                continue  # some other tar file


def stage(archives: list[Archive], folder: Path) -> dict[str, str]:
    """Put archives where the engine reads them, under the names it expects: UUID of each -> its name in the folder.

    Links where the file system can, else copies. Raises OSError.
    """
    expected = {archive.base_uuid: archive.base_name for archive in archives if archive.base_uuid is not None}
    names = {}
    for archive in archives:
        name = names[archive.uuid] = expected.get(archive.uuid) or f"{archive.uuid}.tar"
        place(archive.path, folder / name)
    return names


def place(source: Path, target: Path) -> None:
    """Link or copy a file, whole or not at all. Raises OSError."""
    if target.exists():
        return
    try:
        target.hardlink_to(source)
    except OSError:
        part = target.with_name(target.name + ".part")
        try:
            with source.open("rb") as read, part.open("wb") as write:
                shutil.copyfileobj(read, write, 1 << 20)
            part.rename(target)
        finally:
            part.unlink(missing_ok=True)
