"""The figures of many calls: numbers, of each of which some calls may not know theirs."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collectors.otlp.bulk.octets import Index, Mask


@dataclass(slots=True)
class Figure:
    """One number of each call; 0 where it is not known."""

    values: NDArray[Any]
    known: Mask

    @classmethod
    def unknown(cls, count: int) -> "Figure":
        """Known of none."""
        return cls(np.zeros(count, np.int64), np.zeros(count, np.bool_))

    @classmethod
    def known_of(cls, count: int, rows: Index, values: NDArray[Any]) -> "Figure":
        """Known of these rows."""
        out = cls.unknown(count)
        out.values[rows] = values
        out.known[rows] = True
        return out

    def at(self, row: int) -> int | None:
        """One call's, None when it is not known."""
        return int(self.values[row]) if self.known[row] else None
