"""Several matrices one below the other, read as they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tarot.features.arrays import Rows


class StackedRows:
    """The rows of matrices [n_1, d], [n_2, d], ... of one dtype, [n_1 + n_2 + ..., d]: by slices and indices from 0."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        self._parts = list(parts)
        self._starts = np.cumsum([0, *(part.shape[0] for part in parts)])
        self.shape: tuple[int, ...] = (int(self._starts[-1]), *parts[0].shape[1:])
        self.dtype: Any = parts[0].dtype

    def __getitem__(self, index: slice | NDArray[np.int64]) -> Any:
        wanted = np.arange(*index.indices(self.shape[0])) if isinstance(index, slice) else np.asarray(index)
        of = np.searchsorted(self._starts, wanted, side="right") - 1
        numbers = np.unique(of).tolist() or [0]
        read = [self._parts[number][wanted[of == number] - self._starts[number]] for number in numbers]
        back = np.argsort(np.argsort(of, kind="stable"))  # parts come one after the other, each in the order asked for
        if isinstance(read[0], Tensor):
            return torch.cat(read)[torch.from_numpy(back)]
        return np.concatenate(read)[back]
