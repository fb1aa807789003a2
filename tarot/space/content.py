"""An order of rows by what they hold: the same wherever they stand, and however large their features are.

Whatever is drawn of rows, or decided between equals, is done in such an order, so that permuting a pool permutes what
is chosen from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tarot.features import Rows, block_size, blocks, read_rows

_DIRECTION_SEED = 0


def content_order(
    views: Sequence[Rows],
    name: str,
    which: NDArray[np.int64] | None = None,
    ties: Sequence[NDArray[np.int64]] = (),
) -> NDArray[np.int64]:
    """The positions `which` (int64 [k], None: all n) of rows [n, d] in an order of their content: int64 [k].

    views: the rows as several models see them. Rows stand in the order of where their directions lie along one that is
    drawn once and for all, those of one direction by length, those that are equal by `ties` (of k codes each, the first
    decides), and by position at last. Rounding, and so another scale, moves a row past its very neighbours in that
    order alone; a hash of its bits would send it anywhere.
    """
    along: float | NDArray[np.float64] = 0.0
    length: float | NDArray[np.float64] = 0.0
    for view, rows in enumerate(views):
        direction = _direction(rows.shape[1], view)
        parts = [_along(block, direction) for block in _read(rows, which, name)]
        along = along + np.concatenate([part[0] for part in parts])
        length = length + np.concatenate([part[1] for part in parts])
    order = np.lexsort([*reversed(ties), np.asarray(length), np.asarray(along)]).astype(np.int64, copy=False)
    return order if which is None else which[order]


def content_sample(rows: Rows, size: int, name: str) -> NDArray[np.int64]:
    """The positions of `size` rows drawn by content, or of all where there are no more, in an order that content
    decides, too, but at random: int64."""
    order = content_order([rows], name)
    drawn: NDArray[np.int64] = np.random.default_rng(0).permutation(order)[:size]
    return drawn


def _direction(d: int, view: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng([_DIRECTION_SEED, view]).normal(size=d))


def _read(rows: Rows, which: NDArray[np.int64] | None, name: str) -> Iterator[Tensor]:
    size = max(1, block_size(rows.shape[1]) // 4)  # looked at in float64, twice
    if which is None:
        yield from (block for _, block in blocks(rows, size, name))
        return
    for start in range(0, max(1, len(which)), size):
        yield read_rows(rows, which[start : start + size], name)


def _along(block: Tensor, direction: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each row of a float32 block [b, d]: its unit vector's product with `direction`, and the logarithm of its
    length; float64 [b]. A zero row is at 0, and shorter than all others."""
    rows = block.double()
    length = torch.linalg.vector_norm(rows, dim=1)
    along = (rows * direction).sum(dim=1) / length.where(length > 0, 1)
    return along.numpy(), length.clamp(min=1e-300).log().numpy()
