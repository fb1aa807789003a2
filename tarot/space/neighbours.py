"""Exact k nearest candidates of every target, by one streaming pass of matrix products over the candidates.

The product only screens: a similarity that does not beat its target's running k-th best is dropped by one comparison,
and after the first block few do. The distances of what remains are computed directly as ||x - y||, so near duplicates
keep their order and the result does not depend on how the pass was cut into blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tarot.common import InputError
from tarot.features import MatrixLike, Rows, as_rows, block_size, blocks, read_rows
from tarot.space.choice import Whitening, check_space, fit_space, resolved
from tarot.space.norm import AskedNorm
from tarot.space.whitening import WhitenedRows

BLOCK_SIMILARITIES = 1 << 23  # at most, per block: they are screened from cache
GATHER_BYTES = 4 << 20  # small: fresh memory costs more than the arithmetic done in it
NORM_TOLERANCE = 1e-6  # float32 rounding stays below; rows of a float16 store do not and are normalised again (L-16)


def nearest(
    candidates: MatrixLike,
    targets: MatrixLike,
    k: int = 100,
    whitening: Whitening | Literal["auto"] = "auto",
    regularization: float | None = None,
    norm: AskedNorm = "auto",
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Distances (float32 [M, k], ascending) and indices (int64 [M, k]) of each target's k nearest candidates.

    Distances are between unit-norm rows, sqrt(2 - 2 cos), after whitening as `tarot.select` describes it; "auto" is
    what it uses for `tarot_*`, None takes the rows as they are. Exact; ties go to the smaller index. Zero rows are
    nobody's neighbours: places that no usable candidate fills, and all places of a zero target, hold distance +inf and
    index -1.

    Raises InputError for a k outside 1..N and as `fit_whitener` does.
    """
    candidates, targets = as_rows(candidates, "candidates"), as_rows(targets, "targets")
    if not 1 <= k <= candidates.shape[0]:
        raise InputError(f"k must be between 1 and the number of candidates, {candidates.shape[0]}; it is {k!r}")
    asked = resolved(whitening, regularization)
    check_space(asked, regularization, norm)
    (mapping,) = fit_space([(candidates, targets)], asked, regularization, norm).maps
    white = WhitenedRows(targets, mapping, "targets")[:]
    distance, index = nearest_unit(WhitenedRows(candidates, mapping, "candidates"), white, k)
    return distance.numpy(), index.numpy()


@dataclass(frozen=True)
class Closest:
    """The nearest target of every candidate, filled in by a pass over the candidates.

    distance: float32 [N], +inf for a zero row. target: int64 [N], positions among the targets, -1 for a zero row. Of
    targets that are as near to a float32's rounding (1e-6 in a cosine), any.
    """

    distance: Tensor
    target: Tensor

    @classmethod
    def unknown(cls, n: int) -> Self:
        return cls(torch.full((n,), torch.inf), torch.full((n,), -1))

    def see(self, start: int, block: Tensor, targets: Tensor, similarity: Tensor) -> None:
        """Of a block of candidates [b, d] from `start` on: similarity [M, b], -inf where one of the two is zero."""
        best, target = similarity.max(dim=0)
        known = best > -torch.inf
        place = slice(start, start + len(block))
        exact = torch.linalg.vector_norm(block - targets[target], dim=1)
        self.distance[place] = exact.where(known, torch.inf)
        self.target[place] = target.where(known, -1)


def nearest_unit(
    candidates: Rows,
    targets: Tensor,
    k: int,
    block_similarities: int = BLOCK_SIMILARITIES,
    places: NDArray[np.int64] | None = None,
    closest: Closest | None = None,
) -> tuple[Tensor, Tensor]:
    """Distances (float32 [M, k], ascending) and indices (int64 [M, k]) among rows of unit norm.

    candidates [N, d], targets float32 [M, d]: unit norm, or zero = unusable. Candidates are read twice: all of them
    once in order, and the k M nearest again for their distances. Exact in float32, ties to the smaller place (int64
    [N], all different), which is the index where no places are given; only where more than k + 32 candidates lie within
    the product's rounding (1e-5) of a k-th best does the product's value decide which of those are compared. Unfilled
    places hold +inf and -1. Memory: O(block + M k), never N M. closest: told of every block on the way.
    """
    d, m = candidates.shape[1], len(targets)
    if targets.shape[1] != d:
        raise InputError(f"candidates have {d} feature dimensions and targets {targets.shape[1]}: they must agree")
    targets, usable_targets = _normalised(targets)
    rounding = 4 * torch.finfo(torch.float32).eps * d**0.5
    found, threshold = _Found.nothing(), torch.full((m, 1), -torch.inf)
    settled = 0  # how many were found when the thresholds were last raised
    rows = max(4 * k, min(block_similarities // m, block_size(d)))
    for start, block in blocks(candidates, rows, "candidates"):
        block, usable = _normalised(block)
        similarity = targets @ block.T
        if not usable.all():
            similarity[:, ~usable] = -torch.inf
        if closest is not None:
            seen = similarity if usable_targets.all() else similarity.masked_fill(~usable_targets[:, None], -torch.inf)
            closest.see(start, block, targets, seen)
        if start == 0 and k < len(block):
            threshold = similarity.topk(k, dim=1).values[:, -1:] - rounding
        found = found.add(similarity, threshold, start)
        if len(found.target) > 2 * settled + m:
            found, threshold = found.best(m, k, rounding)
            settled = len(found.target)
    found, _ = found.best(m, k, rounding)
    distance, index = _by_distance(candidates, targets, found, k, places)
    distance[~usable_targets], index[~usable_targets] = torch.inf, -1
    return distance, index


@dataclass(frozen=True)
class _Found:
    """Pairs that may be among the nearest, in the order found: target int64 [p], candidate int64 [p], similarity."""

    target: Tensor
    candidate: Tensor
    similarity: Tensor

    @classmethod
    def nothing(cls) -> Self:
        return cls(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), torch.empty(0))

    def add(self, similarity: Tensor, threshold: Tensor, start: int) -> Self:
        """And the pairs of a block [M, b] that beat their target's threshold [M, 1]."""
        flat = torch.from_numpy(np.flatnonzero((similarity > threshold).numpy()))  # 3x as fast as torch's nonzero
        target = flat // similarity.shape[1]
        return type(self)(
            torch.cat([self.target, target]),
            torch.cat([self.candidate, flat - target * similarity.shape[1] + start]),
            torch.cat([self.similarity, similarity.flatten()[flat]]),
        )

    def best(self, m: int, k: int, rounding: float) -> tuple[Self, Tensor]:
        """The k most similar of each target and its near ties, sorted; and what a later pair must beat, [M, 1].

        Ties stay in the order found. At most 2 k + 32 are kept: a later pair must beat the last of so many.
        """
        # One integer sorts by target and falling similarity: 41 bits of 1 - similarity leave 22 bits for the target.
        code = (self.target << 41) + ((1 - self.similarity.double()).clamp(0, 2) * 2.0**39).long()
        order = code.sort(stable=True).indices
        target, similarity = self.target[order], self.similarity[order]
        count = target.bincount(minlength=m)
        first = count.cumsum(0) - count
        threshold = torch.full((m,), -torch.inf)
        for place, slack in (k, rounding), (2 * k + 32, 0.0):
            full = count >= place
            threshold[full] = threshold[full].maximum(similarity[first[full] + place - 1] - slack)
        rank = torch.arange(len(order)) - first[target]
        keep = (rank < 2 * k + 32) & (similarity >= threshold[target])
        return type(self)(target[keep], self.candidate[order[keep]], similarity[keep]), threshold[:, None]


def _by_distance(
    candidates: Rows, targets: Tensor, found: _Found, k: int, places: NDArray[np.int64] | None
) -> tuple[Tensor, Tensor]:
    """The k pairs of smallest ||x - y|| of each target, [M, k]. `found` is sorted by target."""
    (m, d), pairs = targets.shape, len(found.target)
    pair_distance = torch.empty(pairs)
    by_candidate = found.candidate.argsort(stable=True)  # a candidate is read, and whitened, once for all its targets
    unique, counts = found.candidate[by_candidate].unique_consecutive(return_counts=True)
    ends, step, gather = counts.cumsum(0), block_size(d), max(1, GATHER_BYTES // (4 * d))
    for start in range(0, len(unique), step):
        chunk = slice(start, min(start + step, len(unique)))
        rows, _ = _normalised(read_rows(candidates, unique[chunk].numpy(), "candidates"))
        chosen = by_candidate[ends[start] - counts[start] : ends[chunk.stop - 1]]
        owner = torch.arange(len(rows)).repeat_interleave(counts[chunk])
        for pair, row in zip(chosen.split(gather), owner.split(gather), strict=True):
            pair_distance[pair] = torch.linalg.vector_norm(rows[row] - targets[found.target[pair]], dim=1)

    count = found.target.bincount(minlength=m)
    column = torch.arange(pairs) - (count.cumsum(0) - count)[found.target]
    width = max(k, int(count.max()))
    distance, index = torch.full((m, width), torch.inf), torch.full((m, width), -1)
    distance[found.target, column], index[found.target, column] = pair_distance, found.candidate
    by_place = (index if places is None else torch.from_numpy(places)[index]).argsort(dim=1)
    distance, order = distance.gather(1, by_place).sort(dim=1, stable=True)  # stable: ties by place
    return distance[:, :k], index.gather(1, by_place).gather(1, order)[:, :k]


def _normalised(block: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of `block` with those that are off unit norm brought to it; which are not zero (bool [b])."""
    norm = torch.linalg.vector_norm(block, dim=1, keepdim=True)
    usable = norm > 0
    off = usable & ((norm - 1).abs() > NORM_TOLERANCE)
    if off.any():
        block = block / norm.where(off, 1)
    return block, usable.squeeze(1)
