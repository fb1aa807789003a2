"""A budget that is shared out to groups of targets, which take candidates in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from tarot.selection.budget import Allowance, Budget
from tarot.selection.problem import SelectionProblem

Price = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]


def shares(problem: SelectionProblem) -> dict[str, float]:
    """What part of the budget each group of targets has, by its weight; they sum to 1."""
    weights = problem.group_weights or {}
    return {group: weight / sum(weights.values()) for group, weight in weights.items() if weight > 0}


def orders_in_turns(
    problem: SelectionProblem, orders: Mapping[str, NDArray[np.int64]], budget: Budget
) -> NDArray[np.int64]:
    """Candidates that groups take in turn from orders of their own, best first, int64. A candidate counts for whoever
    takes it first; those with zero features are passed over."""

    def one_by_one(ranked: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        for part in problem.usable_parts(ranked):
            yield from part[:, None]

    return layers_in_turns(problem, {group: one_by_one(ranked) for group, ranked in orders.items()}, budget)


def layers_in_turns(
    problem: SelectionProblem,
    layers: Mapping[str, Iterator[NDArray[np.int64]]],
    budget: Budget,
    price: Price | None = None,
) -> NDArray[np.int64]:
    """The same of layers. Of one that does not fit, those come first whose price beside what the group has is the
    lowest (None: as they stand). The group that has spent the smallest part of its own share is next.

    Raises InputError where a group runs out of candidates, or is given too little for one.
    """
    of_each = shares(problem)
    left = {group: Allowance.of(problem, budget, share) for group, share in of_each.items()}
    seen = np.zeros(problem.n, dtype=bool)
    chosen = {group: np.empty(0, dtype=np.int64) for group in of_each}
    while waiting := [group for group in of_each if not left[group].done]:
        group = min(waiting, key=lambda name: left[name].spent)
        allowance = left[group]
        layer = next(layers[group], None)
        if layer is None:
            break
        layer = layer[~seen[layer]]
        layer = layer[allowance.may(layer)]
        if price is not None and not allowance.fits(layer):
            layer = problem.ranked(-price(chosen[group], layer), layer)
        taken = allowance.take(layer)
        seen[taken] = True
        chosen[group] = np.concatenate([chosen[group], taken])
    for group, allowance in left.items():
        allowance.check_spent(chosen[group])
    return np.concatenate(list(chosen.values()))
