"""TAROT, OT-distance minimisation: layers of nearest candidates for as long as they bring held-out targets nearer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from tarot.common import Count, InputError, Natural, NonNegative, check_options, progress, within
from tarot.selection import Selection, SelectionProblem
from tarot.selectors.contract import Whitening
from tarot.selectors.options import described, random_generator
from tarot.transport import Plan, dense, solve_exact


@dataclass(frozen=True)
class TarotOTM:
    """The union over folds of the layers that lower the OT distance to the other folds' targets (TAROT, Algorithm 2).

    It chooses its own size. Each of the K folds of targets adds layers of its nearest candidates while the exact OT
    distance to the targets of the other folds does not rise; the layer that raises it is left out (ledger L-10, L-14).

    folds: K, at most the number of targets; 1 = select and evaluate on all targets.
    side: "fold" = one fold selects, the rest evaluate (the paper's text); "rest" = the reverse (its algorithm box).
    tolerance: the relative rise that stops. min_cos: leave out neighbours of a smaller cosine similarity.
    """

    features: ClassVar[str | None] = "wfd"
    whitening: ClassVar[Whitening] = "chosen"
    reference: ClassVar[bool] = False

    folds: Count = 10
    side: Literal["fold", "rest"] = "fold"
    seed: Natural = 0
    tolerance: NonNegative = 1e-4
    min_cos: Annotated[float, within("[-1, 1]")] | None = None

    def __post_init__(self) -> None:
        check_options(self)

    def select(self, problem: SelectionProblem) -> Selection:
        sides = self._sides(len(problem.targets))
        stopped = threading.Event()  # an interrupt reaches this thread alone
        with progress("layers of nearest candidates", None, "layers") as advance:

            def count_layer() -> None:
                if stopped.is_set():
                    raise CancelledError
                advance(1)

            # The network simplex leaves the GIL.
            with ThreadPoolExecutor(min(len(sides), torch.get_num_threads())) as threads:
                try:
                    grown = list(threads.map(lambda side: self._grow(problem, side[0], side[1], count_layer), sides))
                except BaseException:
                    stopped.set()
                    raise
        parts, curves = zip(*grown, strict=True)
        chosen = np.unique(np.concatenate(parts))
        if not len(chosen):
            raise InputError(f"no candidate is within min_cos {self.min_cos} of a target: nothing can be selected")
        return problem.selection(chosen, described(self), total=problem.n, curve={"ot_by_layer": list(curves)})

    def _sides(self, m: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """(targets that select, targets that evaluate) of every fold."""
        everyone = random_generator(self.seed).permutation(m)
        folds = np.array_split(everyone, min(self.folds, m))
        if len(folds) == 1:
            return [(everyone, everyone)]
        sides = [(np.sort(fold), np.sort(np.setdiff1d(everyone, fold))) for fold in folds]
        return sides if self.side == "fold" else [(rest, fold) for fold, rest in sides]

    def _grow(
        self, problem: SelectionProblem, sel: NDArray[np.int64], ev: NDArray[np.int64], count_layer: Callable[[], None]
    ) -> tuple[NDArray[np.int64], list[float]]:
        """The layers of `sel` before the first that raises the distance to `ev`, and the distance after each."""
        chosen, cost = np.empty(0, dtype=np.int64), torch.empty(0, len(ev))
        best: Plan | None = None
        curve: list[float] = []
        for layer in problem.layers(sel, min_cos=self.min_cos):
            cost = torch.cat([cost, dense(problem.cost(layer, ev))])
            plan = solve_exact(cost, g=None if best is None else best.g)
            curve.append(plan.value)
            count_layer()
            if best is not None and plan.value > best.value * (1 + self.tolerance):
                break
            chosen, best = np.concatenate([chosen, layer]), plan
        return chosen, curve
