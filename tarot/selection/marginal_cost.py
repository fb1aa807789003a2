"""What a further candidate costs beside those that are chosen already."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tarot.transport import blocks_of, dense, entropic_potentials, solve_exact

if TYPE_CHECKING:
    from tarot.selection.problem import SelectionProblem


def by_potentials(
    problem: SelectionProblem, chosen: NDArray[np.int64], layer: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The potential of each of `layer` in one entropic transport of chosen + layer: float64 [len(layer)]."""
    both = problem.ordered(np.concatenate([chosen, layer]))
    by_index = np.argsort(both)
    potentials: NDArray[np.float64] = entropic_potentials(problem.cost(both)).f[by_index]
    return potentials[np.searchsorted(both[by_index], layer)]


def by_transports(
    problem: SelectionProblem, chosen: NDArray[np.int64], layer: NDArray[np.int64]
) -> NDArray[np.float64]:
    """OT(uniform on chosen + z, targets) for every z of `layer` (Eq. 13): float64 [len(layer)]."""
    of_chosen = dense(problem.cost(chosen))
    costs = of_chosen.new_empty(len(chosen) + 1, of_chosen.shape[1])  # held whole; z is its last row
    costs[:-1] = of_chosen
    values = np.empty(len(layer))
    g: NDArray[np.float64] | None = None
    for start, block in blocks_of(problem.cost(layer)):
        for position, row in enumerate(block, start):
            costs[-1] = row
            plan = solve_exact(costs, g=g)
            values[position], g = plan.value, plan.g
    return values
