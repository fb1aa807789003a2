"""Some rows of a matrix, read as they are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tarot.features.arrays import Rows


@dataclass(frozen=True, eq=False)
class PartRows:
    """The rows of these indices, int64 [k], in their order."""

    rows: Rows
    indices: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.indices), *self.rows.shape[1:])

    @property
    def dtype(self) -> Any:
        return self.rows.dtype

    def __getitem__(self, index: Any) -> Any:
        return self.rows[self.indices[index]]
