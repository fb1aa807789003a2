"""How much is selected: so many candidates or so many tokens, and how much of it from which source.

A selector that has an order takes candidates by it until the budget is spent. What does not fit any more closes the
part of the budget that it would have come out of: a selection is always the beginning of an order, with no small
candidates from far behind to fill it up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from tarot.common import InputError

if TYPE_CHECKING:
    from tarot.selection.problem import SelectionProblem

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Budget:
    """size, ratio, tokens: give one: a count, a share of the candidates, or what the selected may cost together, in the
    unit of `candidate_costs`. quota: source -> the share of the budget that is of it, no less and no more. cap: source
    -> the share of the budget that may at most be of it. Raises InputError where these contradict one another."""

    size: int | None = None
    ratio: float | None = None
    tokens: float | None = None
    quota: Mapping[str, float] | None = None
    cap: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        shares = dict(self.quota or {})
        if sum(shares.values()) > 1 + _ROUNDING:
            raise InputError(f"quota: the shares sum to {sum(shares.values()):g}, and there is no more than 1")
        both = sorted(set(shares) & set(self.cap or {}))
        if both:
            raise InputError(f"{both[0]} has a quota, which is a cap already: leave it out of cap")

    @property
    def plain(self) -> bool:
        """Whether it is a number of candidates and nothing else."""
        return self.tokens is None and not self.quota and not self.cap


class Allowance:
    """What is left of a budget, while candidates are taken by an order.

    total: of the budget. costs: of every candidate, float64 [N]. sources: of every candidate, [N], where budget speaks
    of them. name: of the budget, for errors.
    """

    def __init__(
        self, budget: Budget, total: float, costs: NDArray[np.float64], sources: NDArray[np.str_] | None, whole: bool
    ) -> None:
        self._costs, self._budget = costs, budget
        quota, cap = dict(budget.quota or {}), dict(budget.cap or {})
        given = _shares(quota, total, whole)
        self._purses = ["", *quota, *cap]  # the common one, those of quotas, those of caps
        self._left = np.array([total - sum(given.values()), *given.values(), *_caps(cap, total, whole)])
        self._full = np.maximum(self._left, _ROUNDING)
        self._open = self._left > _ROUNDING
        self._open[0] |= not quota  # of a quota of everything nothing is left for others
        self._draws = np.zeros((len(costs), len(self._purses)), dtype=bool)  # which purses a candidate is paid from
        self._draws[:, 0] = True
        for place, source in enumerate(self._purses[1:], 1):
            of_source = sources == source if sources is not None else np.zeros(len(costs), dtype=bool)
            if not of_source.any():
                known = "none" if sources is None else ", ".join(np.unique(sources).tolist())[:200]
                raise InputError(f"quota and cap: no candidate is of the source {source!r}; there are {known}")
            self._draws[of_source, place] = True
            self._draws[of_source, 0] = place > len(quota)
        self._required = np.arange(len(self._purses)) <= len(quota)

    @classmethod
    def of(cls, problem: SelectionProblem, budget: Budget, share: float = 1.0) -> Self:
        """A budget of a problem, or a share of it. Raises InputError where it asks for what is not known of the
        candidates, or for more than there are."""
        if budget.tokens is None:
            count = problem.budget(budget.size, budget.ratio)
            total, costs = float(np.floor(share * count + _ROUNDING)), np.ones(problem.n)
        else:
            if budget.size is not None or budget.ratio is not None:
                raise InputError("give one of size, ratio and tokens, not several")
            if problem.candidate_costs is None:
                raise InputError("a budget of tokens needs candidate_costs, what every candidate costs; there are none")
            total, costs = budget.tokens * share, problem.candidate_costs
        if (budget.quota or budget.cap) and problem.candidate_sources is None:
            raise InputError("quota and cap need candidate_sources, the source of every candidate; there are none")
        sources = None if problem.candidate_sources is None else problem.candidate_sources.astype(np.str_)
        return cls(budget, total, costs, sources, whole=budget.tokens is None)

    @property
    def done(self) -> bool:
        """Whether nothing more is to be taken. Caps that are not reached are none of it."""
        return not (self._open & self._required).any()

    @property
    def spent(self) -> float:
        """The share that is spent, in [0, 1]."""
        required = self._required
        return float(1 - self._left[required].sum() / self._full[required].sum()) if not self.done else 1.0

    @property
    def likely(self) -> int:
        """About how many candidates it is enough for."""
        return int(self._full[self._required].sum() / max(float(self._costs.mean()), _ROUNDING)) + 1

    def may(self, candidates: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these may still be taken, bool [n]."""
        closed: NDArray[np.bool_] = np.any(self._draws[candidates] & ~self._open, axis=1)
        return ~closed

    def fits(self, candidates: NDArray[np.int64]) -> bool:
        """Whether all of these can be taken."""
        need = self._costs[candidates] @ self._draws[candidates]
        return bool((need <= self._left + _ROUNDING)[self._draws[candidates].any(axis=0)].all())

    def take(self, ranked: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of these candidates, best first, those that the budget is enough for, in their order."""
        ranked = ranked[self.may(ranked)]
        if self.fits(ranked):
            self._left -= self._costs[ranked] @ self._draws[ranked]
            self._open &= self._left > _ROUNDING
            return ranked
        taken = []
        for candidate in ranked.tolist():
            purses = self._draws[candidate]
            if not self._open[purses].all():
                continue
            short = purses & (self._left + _ROUNDING < self._costs[candidate])
            if short.any():
                self._open[short] = False
                if self.done:
                    break
                continue
            self._left[purses] -= self._costs[candidate]
            self._open &= self._left > _ROUNDING
            taken.append(candidate)
        return np.array(taken, dtype=np.int64)

    def check_spent(self, chosen: NDArray[np.int64]) -> None:
        """Raises InputError where candidates ran out before the budget, or none was taken."""
        for place in np.flatnonzero(self._open & self._required).tolist():
            whose = f"the quota of {self._purses[place]}" if place else "the budget"
            beside = "" if place or not self._budget.cap else " beside what is capped"
            raise InputError(
                f"{whose} is {self._full[place]:g}, of which {self._left[place]:g} are left when all usable candidates"
                f"{beside} are taken: ask for less"
            )
        if not len(chosen):
            raise InputError(
                f"the budget of {self._full[0]:g} is less than its first candidate takes (the mean is "
                f"{self._costs.mean():g}): ask for more"
            )


def too_few(wanted: int, usable: int, of: int) -> InputError:
    """What is said where fewer candidates than wanted have features other than zero."""
    return InputError(
        f"{wanted} candidates are wanted, but only {usable} of {of} are usable: "
        "the features of the others are zero (a zero gradient teaches nothing)"
    )


def _shares(quota: Mapping[str, float], total: float, whole: bool) -> dict[str, float]:
    """What each source gets. Of a number of candidates whole ones: what rounding leaves of a quota of everything goes
    to the largest remainders."""
    exact = {source: share * total for source, share in quota.items()}
    if not whole:
        return exact
    found = {source: float(np.floor(part + _ROUNDING)) for source, part in exact.items()}
    if quota and abs(sum(quota.values()) - 1) < 1e-6:
        by_remainder = sorted(exact, key=lambda source: found[source] - exact[source])
        for source in by_remainder[: round(total - sum(found.values()))]:
            found[source] += 1
    return found


def _caps(cap: Mapping[str, float], total: float, whole: bool) -> list[float]:
    parts = [share * total for share in cap.values()]
    return [float(np.floor(part + _ROUNDING)) for part in parts] if whole else parts
