"""TSDS: sampling by regularised optimal transport to the targets (Liu et al., 2024; theory.md 4)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from tarot.common import Count, InputError, Natural, NonNegative, Positive, Share, at_least
from tarot.features import read_rows
from tarot.selection import Allowance, Selection, SelectionProblem, shares
from tarot.selectors.options import described, random_generator
from tarot.selectors.ordered import Ordered
from tarot.space import Whitening, nearest_of_many

_MAX_K, _KDE_K, _SHARE = 5000, 1000, 10  # the released defaults, both at most N // 10
_MANY = 16  # neighbours that are more than 1/16 of the pool are faster found by sorting all of it
KERNEL_VALUES = 1 << 21  # at a time: the passes after the matrix product then run in cache
_AT_ONCE = 1 << 16  # draws
_COARSE_SIGMA = 0.1  # from here on, float32's 4e-7 in a squared distance is below 4e-5 of the kernel's width


@dataclass(frozen=True)
class Tsds(Ordered):
    """A sample, with replacement, from the measure on the pool that is near the targets and spread out.

    The measure minimises (alpha / C) sum_ij gamma_ij d_ij + (1 - alpha) M max_ij rho_i gamma_ij over the couplings
    gamma of candidates and the M targets, where rho_i counts the near duplicates of candidate i: each target's share
    goes to its nearest candidates, none of which may take more than a cap, and duplicates share one cap. Distances
    are Euclidean between unit-norm rows (whitened only if the caller asks); several views: of their concatenation.

    size, ratio: the number of DRAWS (the size as an integer, or a fraction of N). A candidate drawn c times is selected
    once, with weight c, so fewer than `size` are selected. A caller's `total` is shared out in proportion to c.
    tokens: what all draws may cost together; it is drawn until the next would be too much. quota, cap: of the draws.
    Where targets have groups with weights, the measure is the mean of theirs with these weights.
    alpha: 1 = nearest candidate only, 0 = as spread out as the prefetched neighbours allow. C: scale of distances.
    kde: KNN-KDE; False: KNN-Uniform (rho = 1). sigma: radius of a near duplicate; 0 = rho is 1.
    max_k: neighbours prefetched per target, at least 2; None = 5000, or N // 10 where that is less. More than N (or
    than the usable candidates) is clamped, with a warning. kde_k: how many nearest prefetched candidates may count as
    duplicates; None = 1000, or N // 10.
    """

    features: ClassVar[str | None] = "embedding"
    whitening: ClassVar[Whitening] = None
    reference: ClassVar[bool] = False

    alpha: Share = 0.5
    C: Positive = 5.0
    kde: bool = True
    sigma: NonNegative = 0.75
    max_k: Annotated[int, at_least(2)] | None = None
    kde_k: Count | None = None
    seed: Natural = 0

    def values(self, problem: SelectionProblem) -> NDArray[np.float64]:
        """Each candidate's probability to be drawn, float64 [N], summing to 1."""
        k = self._prefetch(problem.n)
        if _MANY * k > problem.n:
            order = None if problem.candidate_ids is None else problem.candidate_order
            distance, index = nearest_of_many(problem.candidates, problem.targets, k, order)
        else:
            distance, index = (table[:, :k].numpy() for table in problem.neighbours(k))
        usable = int(np.isfinite(distance).sum(1).min())  # the same for every target: zero candidates are nobody's
        if usable < min(k, self.max_k or 0):
            warnings.warn(
                f"tsds: max_k {self.max_k} is clamped to the {usable} candidates with features other than zero",
                stacklevel=3,
            )
        if not usable:
            raise InputError("candidates: every row is zero, so none can be near the targets")
        distance, index = distance[:, :usable], index[:, :usable]
        rho = self._density(problem, index) if self.kde and self.sigma else None
        return tsds_probabilities(distance, index, rho, problem.n, self.alpha, self.C)

    def select(self, problem: SelectionProblem) -> Selection:
        budget, order = self.budget(), problem.candidate_order
        if budget.plain:
            draws = problem.budget(self.size, self.ratio)
            counts = random_generator(self.seed).multinomial(draws, self._measure(problem)[order])
        else:
            allowance = Allowance.of(problem, budget)  # what cannot be is refused before any work
            counts = self._draw(order, self._measure(problem)[order], allowance)
            allowance.check_spent(np.flatnonzero(counts))
        chosen = np.flatnonzero(counts)
        return problem.selection(order[chosen], described(self), weights=counts[chosen])

    def _measure(self, problem: SelectionProblem) -> NDArray[np.float64]:
        """The probability of every candidate to be drawn, float64 [N]."""
        if problem.group_weights is None:
            return self.values(problem)
        parts = [share * self.values(problem.of_group(group)) for group, share in shares(problem).items()]
        measure: NDArray[np.float64] = np.sum(parts, axis=0)
        return measure

    def _draw(self, order: NDArray[np.int64], measure: NDArray[np.float64], allowance: Allowance) -> NDArray[np.int64]:
        """How often each candidate of `order` is drawn, one after the other, before the next would be too much: int64
        [N]. measure: the probability of each, in that order."""
        generator, counts = random_generator(self.seed), np.zeros(len(order), dtype=np.int64)
        place = np.argsort(order)
        while not allowance.done:
            open_ones = np.where(allowance.may(order), measure, 0)
            if not open_ones.any():
                break
            spent = allowance.spent
            drawn = generator.choice(order, min(allowance.likely, _AT_ONCE), p=open_ones / open_ones.sum())
            taken = allowance.take(drawn)
            np.add.at(counts, place[taken], 1)
            if len(taken) == len(drawn) and allowance.spent == spent:  # what is left to draw costs nothing
                break
        return counts

    def _prefetch(self, n: int) -> int:
        if self.max_k is None:
            return min(n, _MAX_K, max(2, n // _SHARE))
        if self.max_k > n:
            warnings.warn(f"tsds: max_k {self.max_k} is clamped to the {n} candidates there are", stacklevel=4)
        return min(self.max_k, n)

    def _density(self, problem: SelectionProblem, index: NDArray[np.int64]) -> NDArray[np.float64]:
        """rho of every prefetched neighbour, float64 [M, K]; among the prefetched candidates only, as published."""
        prefetched, place = np.unique(index, return_inverse=True)
        k = min(_KDE_K, max(1, problem.n // _SHARE)) if self.kde_k is None else self.kde_k
        in_order = problem.ordered(prefetched)  # of sums of floats, which their order rounds
        density = kernel_density(read_rows(problem.candidates, in_order, "candidates"), self.sigma, k)
        density = density[np.argsort(in_order)]
        return density[place].reshape(index.shape)


def tsds_probabilities(
    distance: ArrayLike, index: ArrayLike, rho: ArrayLike | None, n: int, alpha: float, C: float
) -> NDArray[np.float64]:
    """The optimal measure on n candidates, float64 [n], from each target's K nearest.

    distance [M, K] ascending; index int [M, K]; rho [M, K] >= 1, or None = 1 (KNN-Uniform). The cap on rho gamma is
    1 / (M s). As s grows, target j's nearest k candidates are full once s reaches c_jk = sum_{l<=k} 1/rho_jl, and from
    there on lowering the cap sends their mass on to neighbour k + 1, at a cost_j = sum_{l<=k} (d_j,l+1 - d_jl) c_jl per
    unit. s is the smallest c_jk at which (alpha / C) sum_j cost_j >= (1 - alpha) M: found by bisection, because both
    sides are steps in s. Beyond a target's K-th neighbour there is none to send mass to, so s ends there at the latest
    (alpha = 0: there). What the full neighbours leave of a target's 1/M goes to the next, so the sum is 1 for any alpha
    (the released code gives targets whose nearest is not full more than 1/M).

    Time O(M K), memory 4 float64 [M, K].
    """
    d = np.asarray(distance, dtype=np.float64)
    m, k = d.shape
    share = np.ones_like(d) if rho is None else 1 / np.asarray(rho, dtype=np.float64)
    full = torch.from_numpy(np.cumsum(share, axis=1))
    cost = np.zeros((m, k + 1))  # column k: once k neighbours are full
    np.cumsum(np.diff(d, axis=1) * full[:, :-1].numpy(), axis=1, out=cost[:, 1:-1])
    cost[:, -1] = np.inf
    enough = (1 - alpha) * m * C / alpha if alpha > 0 else np.inf

    def filled(s: float) -> NDArray[np.int64]:
        counts: NDArray[np.int64] = torch.searchsorted(full, full.new_full((m, 1), s), right=True)[:, 0].numpy()
        return counts

    def stops(s: float) -> bool:
        return float(cost[np.arange(m), filled(s)].sum()) >= enough

    s = _least(stops, float(full[:, 0].min()), float(full[:, -1].min()))
    count = filled(s)
    width = min(k, int(count.max()) + 1)
    column = np.arange(width)
    mass = share[:, :width] / (m * s) * (column < count[:, None])
    rest = np.flatnonzero(count < k)  # a target with all its neighbours full has nothing left to give
    mass[rest, count[rest]] = np.maximum(0, 1 / m - mass[rest].sum(axis=1))
    total = np.bincount(np.asarray(index)[:, :width].ravel(), weights=mass.ravel(), minlength=n)
    probabilities: NDArray[np.float64] = total / total.sum()
    return probabilities


def kernel_density(rows: Tensor, sigma: float, k: int) -> NDArray[np.float64]:
    """rho_x = sum over the k nearest u of max(0, 1 - ||x - u||^2 / sigma^2), x itself among them: float64 [n], >= 1.

    rows float32 [n, d] of unit norm, all in memory. Exact: time O(n^2 d) in blocks of 2^21 kernel values.
    """
    n = len(rows)
    if sigma < _COARSE_SIGMA:
        rows = torch.nn.functional.normalize(rows.double())
    constant, slope = rows.new_full((1,), 1 - 2 / sigma**2), 2 / sigma**2  # ||x - u||^2 = 2 - 2 <x, u>
    density = np.empty(n)
    step = max(1, KERNEL_VALUES // n)
    for start in range(0, n, step):
        kernel = torch.addmm(constant, rows[start : start + step], rows.T, alpha=slope).clamp_(min=0, max=1)
        sums = kernel.sum(dim=1)
        if k < n:
            crowded = np.flatnonzero(np.count_nonzero(kernel.numpy(), axis=1) > k)
            if len(crowded):
                sums[crowded] = kernel[crowded].topk(k, dim=1, sorted=False).values.sum(dim=1)
        density[start : start + step] = sums.numpy()
    return np.maximum(density, 1)  # itself, whatever the rounding


def _least(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The least float64 in [low, high], both positive, at which `holds`, which then holds above and holds at high."""
    if holds(low):
        return low
    first, last = (int(np.float64(x).view(np.int64)) for x in (low, high))  # positive floats are ordered as their bits
    while last - first > 1:
        middle = (first + last) // 2
        if holds(float(np.int64(middle).view(np.float64))):
            last = middle
        else:
            first = middle
    return float(np.int64(last).view(np.float64))
