"""Aligned matrices averaged as they are read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tarot.common import InputError
from tarot.features.arrays import Rows, read_block, read_rows
from tarot.features.row_names import common_ids


class MeanRows:
    """The mean of aligned rows: features of the checkpoints of one run, averaged before anything else (ledger L-04).

    ids: the rows' names, [n], where the parts have names, which must be the same."""

    dtype = np.dtype("float32")

    def __init__(self, parts: Sequence[Rows], name: str = "features") -> None:
        if not parts:
            raise InputError(f"{name}: there is nothing to average")
        shapes = {tuple(part.shape) for part in parts}
        if len(shapes) > 1:
            raise InputError(f"{name}: checkpoints to average must have one shape; theirs are {sorted(shapes)}")
        self.parts, self.name, self.shape = tuple(parts), name, shapes.pop()
        self.ids = common_ids(self.parts, name)

    def __getitem__(self, index: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        """float32 [k, d] for a slice or an int64 array of row numbers."""
        if isinstance(index, slice):
            start, stop, step = index.indices(self.shape[0])
            if step != 1:
                return self[np.arange(start, stop, step)]
            blocks = (read_block(part, start, max(start, stop), self.name) for part in self.parts)
        else:
            blocks = (read_rows(part, index, self.name) for part in self.parts)
        total = next(blocks).clone()  # a block may be a view of what the caller owns
        for block in blocks:
            total += block
        return (total / len(self.parts)).numpy()
