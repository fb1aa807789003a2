"""Names of rows, which say of what sample each is: who has them, and that matrices of the same samples agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tarot.common import InputError
from tarot.features.arrays import Rows


@runtime_checkable
class Named(Protocol):
    """Rows that may know their names: ids [n], or None."""

    @property
    def ids(self) -> NDArray[Any] | None: ...


@dataclass(frozen=True, eq=False)
class NamedRows:
    """A matrix [n, d] in memory, and a name per row: ids [n], strings or integers."""

    rows: NDArray[Any]
    ids: NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.rows.shape

    @property
    def dtype(self) -> Any:
        return self.rows.dtype

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]


def row_ids(rows: Rows) -> NDArray[Any] | None:
    """The names of a matrix's rows, [n], where it has them, as a store does."""
    return rows.ids if isinstance(rows, Named) else None


def common_ids(matrices: Sequence[Rows], name: str) -> NDArray[Any] | None:
    """The names, [n], of the rows of matrices that are of the same samples, where one of them has names.

    name: of the argument, for errors. Raises InputError at the first row that is called otherwise in another.
    """
    known = [ids for ids in map(row_ids, matrices) if ids is not None]
    for other in known[1:]:
        different = np.flatnonzero(known[0] != other)
        if len(different):
            a, b = known[0][different[0]].item(), other[different[0]].item()
            raise InputError(
                f"{name}: row {different[0]} is {a!r} in one matrix and {b!r} in another: all must be of the same "
                "samples in the same order"
            )
    return known[0] if known else None
