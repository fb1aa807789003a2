"""Looks for the subset of least OT distance, by capacity-constrained transport (ours; theory.md 10)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from tarot.common import InputError, Natural, Positive, check_options
from tarot.selection import Allowance, Budget, Selection, SelectionProblem
from tarot.selectors.options import Ratio, Size, described, random_generator
from tarot.selectors.smoothing import Smoothing, smoothed
from tarot.selectors.tarot_fixed import TarotFixed
from tarot.space import Whitening
from tarot.transport import Plan, dense, solve_exact

_NEIGHBOURS = 32  # of every target: the pool that swaps draw from
_GRID, _FOLDS = 10, 5  # sizes tried by size="auto", and folds of targets held out
_PAIRS = 20_000_000  # beyond this many member-outsider or member-target pairs, the relaxation's support stands


@dataclass(frozen=True)
class TarotExact:
    """S candidates of little OT distance to the targets, with a bound that no S candidates can go below.

    The relaxation in which every candidate may send at most 1/S is solved exactly; its support is the optimal subset
    where S is a multiple of M. Otherwise the S candidates that send most are improved: transport and candidates are
    optimised in turns, then the worst-priced members are swapped for the best-priced outsiders. Never above
    `tarot_fixed`, from which a second start is made.

    size: a count, or "auto": the smallest size on a grid of M/2 .. N/2 whose OT distance to held-out targets (5 folds)
    is within one standard error of the best. ratio: instead of size. tokens: instead of either, what the selected may
    cost together (`candidate_costs`): the size is that whose candidates cost no more, while those found for one more
    do. swaps: transport problems to spend on swaps.
    smoothing: average each target with so many others nearest to it before selecting, as in `TarotFixed`; with a size.
    """

    features: ClassVar[str | None] = "wfd"
    whitening: ClassVar[Whitening] = "chosen"
    reference: ClassVar[bool] = False

    size: Size | Literal["auto"] = None
    ratio: Ratio = None
    tokens: Positive | None = None
    swaps: Natural = 60
    smoothing: Smoothing = 0
    seed: Natural = 0

    def __post_init__(self) -> None:
        check_options(self)
        if self.size == "auto" and (self.ratio is not None or self.tokens is not None):
            raise InputError(
                f'size="auto" chooses the size itself: leave out {"ratio" if self.ratio is not None else "tokens"}'
            )
        if self.size == "auto" and self.smoothing != 0:
            raise InputError('smoothing needs a size: size="auto" chooses it by the targets as they are')

    def select(self, problem: SelectionProblem) -> Selection:
        if self.size == "auto":
            return self._choose_size(problem)
        given = problem.with_targets_in_order()
        if self.tokens is None:
            size = problem.budget(self.size, self.ratio)
            find = partial(best_subset, size=size)
        else:
            budget = Budget(self.size, self.ratio, self.tokens)
            Allowance.of(problem, budget)  # what cannot be is refused before any work
            find = partial(_best_within, budget=budget)
        seen, curve = smoothed(given, self.smoothing, self.seed, lambda posed: find(posed, swaps=0).indices)
        best = find(seen, swaps=self.swaps)
        own = seen is given  # otherwise what is known is of other targets
        return problem.selection(
            best.indices,
            described(self),
            total=problem.n,
            curve=curve,
            lower_bound=best.bound if own else None,
            ot_distance=best.distance if own else None,
        )

    def _choose_size(self, problem: SelectionProblem) -> Selection:
        """The smallest size within one standard error of the least held-out distance; then solved on all targets."""
        posed = problem.with_targets_in_order()
        n, m = posed.n, len(posed.targets)
        folds = np.array_split(random_generator(self.seed).permutation(m), min(_FOLDS, m))
        if len(folds) < 2:
            raise InputError('size="auto" holds targets out, so it needs at least 2 of them; give a size')
        sizes = np.unique(np.geomspace(max(1, m // 2), max(1, n // 2), _GRID).round().astype(int))
        held_out = np.empty((len(sizes), len(folds)))
        for column, fold in enumerate(folds):
            rest = posed.restricted(np.setdiff1d(np.arange(m), fold))
            for row, size in enumerate(sizes):
                chosen = best_subset(rest, int(size), swaps=0).indices
                held_out[row, column] = solve_exact(dense(posed.cost(chosen, fold))).value
        mean, error = held_out.mean(1), held_out.std(1, ddof=1) / np.sqrt(len(folds))
        best = int(mean.argmin())
        size = int(sizes[np.flatnonzero(mean <= mean[best] + error[best])[0]])
        best_of_all = best_subset(posed, size, self.swaps)
        curve = {"size": sizes.tolist(), "held_out": mean.tolist(), "standard_error": error.tolist(), "chosen": [size]}
        return problem.selection(
            best_of_all.indices,
            described(self),
            total=n,
            curve=curve,
            lower_bound=best_of_all.bound,
            ot_distance=best_of_all.distance,
        )


@dataclass(frozen=True)
class BestSubset:
    """indices: int64 [size], ascending. bound: no subset can be nearer. distance: its own, where it is known."""

    indices: NDArray[np.int64]
    bound: float
    distance: float | None = None


def best_subset(problem: SelectionProblem, size: int, swaps: int) -> BestSubset:
    """The best subset found, and the bound that no subset can beat.

    Where several subsets are as good, or several duals prove one, it is that to which the solvers come with candidates
    as `SelectionProblem.ordered` has them, and the problem's targets are in the order of their content.
    """
    relaxed = problem.capacity_plan(size, in_order=True)
    sends = problem.ordered(np.flatnonzero(relaxed.mass > 0))
    support = sends[np.argsort(-relaxed.mass[sends], kind="stable")[:size]]
    full = len(support) == size  # not so only where zero features are nearer to the targets than candidates
    integral = full and relaxed.exact and size % len(problem.targets) == 0
    if integral:  # each of the support sends all it may, so that the relaxed plan is its own
        return BestSubset(np.sort(support), relaxed.lower_bound, relaxed.value)
    if full and size * len(problem.targets) > _PAIRS:
        return BestSubset(np.sort(support), relaxed.lower_bound)
    starts = [TarotFixed(size=size).select(problem).indices] + ([support] if full else [])
    near = problem.neighbours(_NEIGHBOURS)[1][:, :_NEIGHBOURS].unique().numpy()
    pool = problem.ordered(np.unique(np.concatenate([near[near >= 0], np.flatnonzero(relaxed.mass > 0), *starts])))
    place = {candidate: position for position, candidate in enumerate(pool.tolist())}
    cost = problem.cost(pool)
    if not isinstance(cost, Tensor):
        return BestSubset(np.sort(starts[-1]), relaxed.lower_bound)
    swappable = _Pool(cost.cpu())
    members = [np.sort([place[candidate] for candidate in start.tolist()]) for start in starts]
    subsets = [_settle(swappable, _subset(swappable, start)) for start in members]
    best = _swap(swappable, min(subsets, key=lambda s: s.plan.value), swaps)
    return BestSubset(np.sort(pool[best.members]), relaxed.lower_bound)


def _best_within(problem: SelectionProblem, budget: Budget, swaps: int) -> BestSubset:
    """The best subset found of the size that the budget is enough for, while for one more it is not."""
    allowance = Allowance.of(problem, budget)
    everybody = np.arange(problem.n)
    usable = everybody[~problem.zero_rows(everybody)]
    if allowance.fits(usable):  # with candidates to spare, which is an error here as for all budgets
        allowance.check_spent(allowance.take(usable))
        return best_subset(problem, len(usable), swaps)
    best = best_subset(problem, 1, swaps)
    if not allowance.fits(best.indices):
        allowance.check_spent(allowance.take(best.indices))
    enough, too_much, step = 1, len(usable), 1
    size = min(allowance.likely, too_much - 1)
    while too_much - enough > 1:
        found = best_subset(problem, size, swaps)
        if allowance.fits(found.indices):
            enough, best = size, found
            size = enough + step
        else:
            too_much = size
            size = too_much - step
        step *= 2
        if not enough < size < too_much or (enough > 1 and too_much < len(usable)):
            size = (enough + too_much) // 2
    return best


@dataclass(frozen=True, eq=False)
class _Pool:
    """Candidates among which members are swapped: their cost float32 [n, m] to the targets."""

    cost: Tensor

    @cached_property
    def by_target(self) -> NDArray[np.float64]:
        """The cost [m, n], as a coupling is multiplied with it without a copy."""
        return np.ascontiguousarray(self.cost.double().numpy().T)

    def __len__(self) -> int:
        return len(self.cost)


@dataclass(frozen=True)
class _Subset:
    """Rows of the pool's cost, and the optimal transport from them to the targets."""

    members: NDArray[np.int64]
    plan: Plan


def _subset(pool: _Pool, members: NDArray[np.int64], g: NDArray[np.float64] | None = None) -> _Subset:
    return _Subset(members, solve_exact(pool.cost[members], g=g))


def _settle(pool: _Pool, subset: _Subset) -> _Subset:
    """Optimise candidates and transport in turns until neither improves: given where each member's mass goes, the best
    distinct candidates to send it from are an assignment problem."""
    while len(subset.members) * len(pool) <= _PAIRS:
        price = subset.plan.coupling.tocsr() @ pool.by_target
        members = np.sort(linear_sum_assignment(price)[1])
        moved = _subset(pool, members, subset.plan.g)
        if moved.plan.value >= subset.plan.value * (1 - 1e-9):
            break
        subset = moved
    return subset


def _swap(pool: _Pool, subset: _Subset, trials: int) -> _Subset:
    """Swap the members of highest potential for the outsiders of lowest; fewer at a time where that does not help."""
    count = max(1, len(subset.members) // 4)
    for _ in range(trials):
        price = (pool.cost - pool.cost.new_tensor(subset.plan.g)).amin(1).double().numpy()  # min_j C_ij - g_j
        outside = np.setdiff1d(np.arange(len(pool)), subset.members)
        leave = subset.members[np.argsort(-price[subset.members], kind="stable")[:count]]
        enter = outside[np.argsort(price[outside], kind="stable")[: len(leave)]]
        if not len(enter):
            break
        members = np.union1d(np.setdiff1d(subset.members, leave[: len(enter)]), enter)
        swapped = _settle(pool, _subset(pool, members, subset.plan.g))
        if swapped.plan.value < subset.plan.value * (1 - 1e-9):
            subset = swapped
        elif count == 1:
            break
        else:
            count //= 2
    return subset
