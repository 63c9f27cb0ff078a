"""Calls on their way into the store: objects, or rows of a table already.

The server's collector makes most calls into rows at once, thousands at a time; what is out of the ordinary stays an
object. Both are the same to whoever counts them, or has to take them one by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from spendwatch.calls import CostBasis, PricedCall
from spendwatch.clickhouse.table import Coded, Table


@dataclass(slots=True)
class Batch:
    """Some calls."""

    calls: list[PricedCall] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.calls) + sum(table.rows for table in self.tables)

    @classmethod
    def join(cls, batches: "Sequence[Batch]") -> Self:
        """All calls of these."""
        return cls(
            [call for batch in batches for call in batch.calls], [table for batch in batches for table in batch.tables]
        )

    @property
    def unpriced(self) -> int:
        """How many have no price."""
        found = sum(call.cost_basis is CostBasis.UNPRICED for call in self.calls)
        for table in self.tables:
            bases = table.columns["cost_basis"]
            assert isinstance(bases, Coded)  # noqa: S101  # by its type
            counts = np.bincount(bases.codes, minlength=len(bases.values))
            found += sum(
                int(count) for count, basis in zip(counts, bases.values, strict=True) if basis == CostBasis.UNPRICED
            )
        return found

    def objects(self) -> list[PricedCall]:
        """Each call as an object."""
        return [*self.calls, *(table.call(row) for table in self.tables for row in range(table.rows))]
