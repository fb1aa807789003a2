"""TAROT, Fixed-Size: layers of nearest candidates up to a budget."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tarot.common import Natural
from tarot.features import blocks
from tarot.selection import Allowance, Budget, Price, Selection, SelectionProblem, layers_in_turns, shares
from tarot.selectors.options import described
from tarot.selectors.ordered import Ordered
from tarot.selectors.smoothing import Smoothing, smoothed
from tarot.space import Whitening
from tarot.transport import entropic_potentials


@dataclass(frozen=True)
class TarotFixed(Ordered):
    """Layers of nearest candidates up to a budget (TAROT, Algorithm 1).

    Layer k holds the k-th nearest candidate of every target. Layers enter whole while they fit; the first that does
    not is ranked by the dual potential of everything chosen so far plus that layer, lowest first (ledger L-06, L-08).

    size, ratio: how many of the N candidates, as a count in 1..N or a fraction in (0, 1]; give one, or tokens, what the
    selected may cost together. quota, cap: shares by source. Where targets have groups with weights, each has a budget
    of its own and layers of its own nearest candidates.
    exact: rank the last layer by one transport problem per candidate (Eq. 13) instead of one for all.
    smoothing: average each target with so many others nearest to it before selecting (ours; 0 = the paper), which
    serves held-out targets better; "auto": the number that does, by holding out fifths of the targets.
    seed: of the folds of "auto".
    """

    features: ClassVar[str | None] = "wfd"
    whitening: ClassVar[Whitening] = "chosen"
    reference: ClassVar[bool] = False

    exact: bool = False
    smoothing: Smoothing = 0
    seed: Natural = 0

    def values(self, problem: SelectionProblem) -> NDArray[np.float64]:
        """Minus the dual potential of every candidate in one transport of the whole pool to the targets, float64 [N]:
        Eq. 13 with all candidates as the layer; of mean zero. A zero gradient has the lowest value there is."""
        usable = np.flatnonzero(np.concatenate([rows.any(dim=1).numpy() for _, rows in blocks(problem.candidates)]))
        f = entropic_potentials(problem.cost(usable)).f
        values = np.full(problem.n, f.mean() - f.max())
        values[usable] = f.mean() - f
        return values

    def select(self, problem: SelectionProblem) -> Selection:
        budget = self.budget()
        Allowance.of(problem, budget)  # what cannot be is refused before any work
        given = problem.with_targets_in_order()
        seen, curve = smoothed(given, self.smoothing, self.seed, lambda posed: self._layers(posed, budget))
        return problem.selection(self._layers(seen, budget), described(self), total=problem.n, curve=curve)

    def _layers(self, problem: SelectionProblem, budget: Budget) -> NDArray[np.int64]:
        """What the budget is enough for, layer by layer."""

        def price(chosen: NDArray[np.int64], layer: NDArray[np.int64]) -> NDArray[np.float64]:
            return problem.marginal_cost(chosen, layer, exact=self.exact)

        if problem.group_weights is not None:
            by_group = {group: problem.layers(problem.group(group)) for group in shares(problem)}
            return layers_in_turns(problem, by_group, budget, price)
        allowance = Allowance.of(problem, budget)
        expect = problem.budget(self.size, self.ratio) if budget.plain else 0
        return filled(allowance, problem, problem.layers(expect=expect, likely=allowance.likely), price)


def filled(
    allowance: Allowance, problem: SelectionProblem, layers: Iterator[NDArray[np.int64]], price: Price
) -> NDArray[np.int64]:
    """What the allowance is enough for of layers, nearest first: whole ones, and of the first that does not fit those
    of the lowest price beside what is chosen. Raises InputError where they run out before."""
    chosen = np.empty(0, dtype=np.int64)
    for layer in layers:  # unseen candidates only
        layer = layer[allowance.may(layer)]
        if not allowance.fits(layer):
            layer = problem.ranked(-price(chosen, layer), layer)
        chosen = np.concatenate([chosen, allowance.take(layer)])
        if allowance.done:
            break
    allowance.check_spent(chosen)
    return chosen
