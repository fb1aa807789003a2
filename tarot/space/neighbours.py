"""Exact k nearest candidates of every target, by one streaming pass of matrix products over the candidates.

The product only screens: a similarity that does not beat its target's running k-th best is dropped by one comparison,
and after the first block few do. The distances of what remains are computed directly as ||x - y||, so near duplicates
keep their order and the result does not depend on how the pass was cut into blocks. All is computed where the targets
are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tarot.common import CPU, InputError, products_in
from tarot.features import Rows, block_size, blocks, read_rows

BLOCK_SIMILARITIES = 1 << 23  # at most, per block: they are screened from cache
GATHER_BYTES = 4 << 20  # small: fresh memory costs more than the arithmetic done in it
_GROUP, _FEW_ROWS = 16, 256  # of rows whose maxima are looked for together; below, all at once is as fast
_ROUNDING = 1e-5  # of a similarity that is computed from a distance
NORM_TOLERANCE = 1e-6  # float32 rounding stays below; rows of a float16 store do not and are normalised again (L-16)


@dataclass(frozen=True)
class Closest:
    """The nearest target of every candidate, filled in by a pass over the candidates.

    distance: float32 [N], +inf for a zero row. target: int64 [N], positions among the targets, -1 for a zero row. Of
    targets that are as near to a float32's rounding (1e-6 in a cosine), any.
    """

    distance: Tensor
    target: Tensor

    @classmethod
    def unknown(cls, n: int, device: torch.device = CPU) -> Self:
        """device: where the targets are."""
        return cls(torch.full((n,), torch.inf, device=device), torch.full((n,), -1, device=device))

    def see(self, start: int, block: Tensor, targets: Tensor, similarity: Tensor) -> None:
        """Of a block of candidates [b, d] from `start` on: similarity [M, b], -inf where one of the two is zero."""
        best, target = _column_maxima(similarity)
        known = best > -torch.inf
        place = slice(start, start + len(block))
        step = _gathered(block.shape[1])
        pairs = zip(block.split(step), target.split(step), strict=True)
        exact = torch.cat([_lengths(rows - targets[near]) for rows, near in pairs])
        self.distance[place] = exact.where(known, torch.inf)
        self.target[place] = target.where(known, -1)


@dataclass(frozen=True)
class Screen:
    """A product of lower precision than float32's, where that is faster.

    product: of targets [M, d] and a block of candidates [b, d], both of unit norm: float32 [M, b], which the next call
    may write over. error: none of its
    similarities is off by more.
    """

    product: Callable[[Tensor, Tensor], Tensor]
    error: float


def tf32_screen(d: int) -> Screen:
    """By the tensor cores of a GPU: operands have eleven bits, so that |x^.y^ - x.y| <= 2 u + u^2 of unit vectors with
    u = 2^-11; partial sums of four products each are cut off at float32's."""
    unit = 2.0**-11
    return Screen(_tf32_product, 2 * unit + unit**2 + d / 4 * torch.finfo(torch.float32).eps)


def _tf32_product(targets: Tensor, block: Tensor) -> Tensor:
    with products_in("tf32", block.device):
        return targets @ block.T


def nearest_unit(
    candidates: Rows,
    targets: Tensor,
    k: int,
    block_similarities: int = BLOCK_SIMILARITIES,
    places: NDArray[np.int64] | None = None,
    closest: Closest | None = None,
    screen: Screen | None = None,
) -> tuple[Tensor, Tensor]:
    """Distances (float32 [M, k], ascending) and indices (int64 [M, k]) among rows of unit norm, in the CPU's memory.

    candidates [N, d], targets float32 [M, d]: unit norm, or zero = unusable. Candidates are read twice: all of them
    once in order, and the k M nearest again for their distances. Exact in float32, ties to the smaller place (int64
    [N], all different), which is the index where no places are given; only where more than k + 32 candidates lie within
    the product's rounding (1e-5) of a k-th best does the product's value decide which of those are compared. Unfilled
    places hold +inf and -1. Memory: O(block + M k), never N M. closest: told of every block on the way.
    screen: another product to look for them with. What it leaves out is farther than what is found, which is certified
    target by target; where it is not, the target is looked at again with a product in float32. So the result is the
    same. It may not be given with `closest`, which goes by the product.
    """
    if screen is None:
        plain = _float32_screen(targets.shape[1])
        return _nearest(candidates, targets, k, block_similarities, places, closest, plain)[:2]
    if closest is not None:
        raise ValueError("closest needs similarities in float32")
    distance, index, sure = _nearest(candidates, targets, k, block_similarities, places, None, screen)
    again = (~sure).nonzero()[:, 0]
    if len(again):
        exactly = nearest_unit(candidates, targets[again.to(targets.device)], k, block_similarities, places)
        distance[again], index[again] = exactly
    return distance, index


def _float32_screen(d: int) -> Screen:
    held = torch.empty(0)

    def product(targets: Tensor, block: Tensor) -> Tensor:
        """Into the same memory each time: to ask for it anew costs a tenth of the product."""
        nonlocal held
        shape = len(targets), len(block)
        if held.numel() < math.prod(shape):
            held = torch.empty(math.prod(shape), device=block.device)
        with products_in("ieee", block.device):
            return torch.mm(targets, block.T, out=held[: math.prod(shape)].view(shape))

    return Screen(product, 2 * torch.finfo(torch.float32).eps * d**0.5)


def _nearest(
    candidates: Rows,
    targets: Tensor,
    k: int,
    block_similarities: int,
    places: NDArray[np.int64] | None,
    closest: Closest | None,
    screen: Screen,
) -> tuple[Tensor, Tensor, Tensor]:
    """Distances and indices [M, k], and of which targets they are certain whatever the screen's error: bool [M]."""
    d, m = candidates.shape[1], len(targets)
    if targets.shape[1] != d:
        raise InputError(f"candidates have {d} feature dimensions and targets {targets.shape[1]}: they must agree")
    targets, usable_targets = _normalised(targets)
    rounding = 2 * screen.error  # a k-th best may be one error too high, and a better one seem one too low
    device = targets.device
    found, threshold = _Found.nothing(device), torch.full((m, 1), -torch.inf, device=device)
    cut = torch.full((m,), -torch.inf, device=device)  # the most similar that was left out only for being one of many
    settled = 0  # how many were found when the thresholds were last raised
    rows = max(4 * k, min(block_similarities // m, block_size(d)))
    for start, block in blocks(candidates, rows, "candidates", device):
        block, usable = _normalised(block)
        similarity = screen.product(targets, block)
        if not usable.all():
            similarity[:, ~usable] = -torch.inf
        if closest is not None:
            seen = similarity if usable_targets.all() else similarity.masked_fill(~usable_targets[:, None], -torch.inf)
            closest.see(start, block, targets, seen)
        if start == 0 and k < len(block):
            threshold = similarity.topk(k, dim=1).values[:, -1:] - rounding
        found = found.add(similarity, threshold, start)
        if len(found.target) > 2 * settled + m:
            found, threshold, last = found.best(m, k, rounding)
            cut = cut.maximum(last)
            settled = len(found.target)
    found, _, last = found.best(m, k, rounding)
    cut = cut.maximum(last)
    distance, index = _by_distance(candidates, targets, found, k, places)
    distance[~usable_targets], index[~usable_targets] = torch.inf, -1
    least = 1 - distance[:, -1].square() / 2  # the similarity of the k-th nearest
    sure = (cut + screen.error < least - _ROUNDING) | (cut == -torch.inf) | ~usable_targets
    return distance.cpu(), index.cpu(), sure.cpu()


@dataclass(frozen=True)
class _Found:
    """Pairs that may be among the nearest, in the order found: target int64 [p], candidate int64 [p], similarity."""

    target: Tensor
    candidate: Tensor
    similarity: Tensor

    @classmethod
    def nothing(cls, device: torch.device) -> Self:
        nobody = torch.empty(0, dtype=torch.int64, device=device)
        return cls(nobody, nobody, torch.empty(0, device=device))

    def add(self, similarity: Tensor, threshold: Tensor, start: int) -> Self:
        """And the pairs of a block [M, b] that beat their target's threshold [M, 1]."""
        flat = _true_positions(similarity > threshold)
        target = flat // similarity.shape[1]
        return type(self)(
            torch.cat([self.target, target]),
            torch.cat([self.candidate, flat - target * similarity.shape[1] + start]),
            torch.cat([self.similarity, similarity.flatten()[flat]]),
        )

    def best(self, m: int, k: int, rounding: float) -> tuple[Self, Tensor, Tensor]:
        """The k most similar of each target and its near ties, sorted; what a later pair must beat, [M, 1]; and the
        similarity of the last one where there are as many as are kept, [M], -inf where not.

        Ties stay in the order found. At most 2 k + 32 are kept: a later pair must beat the last of so many.
        """
        # One integer sorts by target and falling similarity: 41 bits of 1 - similarity leave 22 bits for the target.
        code = (self.target << 41) + ((1 - self.similarity.double()).clamp(0, 2) * 2.0**39).long()
        order = code.sort(stable=True).indices
        target, similarity = self.target[order], self.similarity[order]
        count = target.bincount(minlength=m)
        first = count.cumsum(0) - count

        def at(place: int) -> Tensor:
            """Each target's similarity at this place, from 1; -inf where there are fewer."""
            if not len(similarity):
                return torch.full((m,), -torch.inf, device=count.device)
            value = similarity[(first + place - 1).clamp(max=len(similarity) - 1)]
            return value.where(count >= place, -torch.inf)

        last = at(2 * k + 32)
        threshold = (at(k) - rounding).maximum(last)
        rank = torch.arange(len(order), device=count.device) - first[target]
        keep = (rank < 2 * k + 32) & (similarity >= threshold[target])
        kept = type(self)(target[keep], self.candidate[order[keep]], similarity[keep])
        return kept, threshold[:, None], last


def _by_distance(
    candidates: Rows, targets: Tensor, found: _Found, k: int, places: NDArray[np.int64] | None
) -> tuple[Tensor, Tensor]:
    """The k pairs of smallest ||x - y|| of each target, [M, k]. `found` is sorted by target."""
    (m, d), pairs = targets.shape, len(found.target)
    device = targets.device
    pair_distance = torch.empty(pairs, device=device)
    by_candidate = found.candidate.argsort(stable=True)  # a candidate is read, and whitened, once for all its targets
    unique, counts = found.candidate[by_candidate].unique_consecutive(return_counts=True)
    ends, unique_rows = counts.cumsum(0).cpu(), unique.cpu().numpy()
    owners = torch.arange(len(unique), device=device).repeat_interleave(counts)
    step, gather = block_size(d), _gathered(d)
    for start in range(0, len(unique), step):
        stop = min(start + step, len(unique))
        rows, _ = _normalised(read_rows(candidates, unique_rows[start:stop], "candidates", device))
        here = slice(int(ends[start - 1]) if start else 0, int(ends[stop - 1]))
        for pair, row in zip(by_candidate[here].split(gather), owners[here].split(gather), strict=True):
            pair_distance[pair] = _lengths(rows[row - start] - targets[found.target[pair]])

    count = found.target.bincount(minlength=m)
    column = torch.arange(pairs, device=device) - (count.cumsum(0) - count)[found.target]
    width = max(k, int(count.max()))
    distance = torch.full((m, width), torch.inf, device=device)
    index = torch.full((m, width), -1, device=device)
    distance[found.target, column], index[found.target, column] = pair_distance, found.candidate
    by_place = (index if places is None else torch.from_numpy(places).to(device)[index]).argsort(dim=1)
    distance, order = distance.gather(1, by_place).sort(dim=1, stable=True)  # stable: ties by place
    return distance[:, :k], index.gather(1, by_place).gather(1, order)[:, :k]


def _column_maxima(values: Tensor) -> tuple[Tensor, Tensor]:
    """The largest value of each column of [m, b], and in which row it is: the maxima of groups of rows first, since
    torch looks for a place in a column four times as slowly as for its maximum."""
    m = len(values)
    if m < _FEW_ROWS:
        best, row = values.max(dim=0)
        return best, row
    whole = m - m % _GROUP
    tops = values[:whole].unflatten(0, (-1, _GROUP)).amax(dim=1)
    if whole < m:
        tops = torch.cat([tops, values[whole:].amax(dim=0, keepdim=True)])
    best, group = tops.max(dim=0)
    rows = (group * _GROUP + torch.arange(_GROUP, device=values.device)[:, None]).clamp_(max=m - 1)
    return best, rows[0] + values.gather(0, rows).argmax(dim=0)


def _true_positions(mask: Tensor) -> Tensor:
    """Where a mask is true, flattened: int64."""
    if mask.device == CPU:
        return torch.from_numpy(np.flatnonzero(mask.numpy()))  # 3x as fast as torch's nonzero
    return mask.flatten().nonzero()[:, 0]


def _gathered(d: int) -> int:
    """How many rows of d floats are gathered at a time."""
    return max(1, GATHER_BYTES // (4 * d))


def _lengths(rows: Tensor) -> Tensor:
    """float32 [b]. On a GPU the sums of two rows may go in different orders: in float64 equal rows are as long."""
    wide = None if rows.device == CPU else torch.float64
    length: Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=wide)
    return length.float()


def _normalised(block: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of `block` with those that are off unit norm brought to it; which are not zero (bool [b])."""
    norm = torch.linalg.vector_norm(block, dim=1, keepdim=True)
    usable = norm > 0
    off = usable & ((norm - 1).abs() > NORM_TOLERANCE)
    if off.any():
        block = block / norm.where(off, 1)
    return block, usable.squeeze(1)
