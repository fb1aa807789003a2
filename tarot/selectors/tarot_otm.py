"""TAROT, OT-distance minimisation: layers of nearest candidates for as long as they bring held-out targets nearer."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tarot.common import Count, InputError, Natural, above, check_options, progress, within
from tarot.features import read_rows
from tarot.selection import Selection, SelectionProblem
from tarot.selectors.layer_judges import JUDGES, ROUNDING, Judge, judge_for
from tarot.selectors.options import described, random_generator
from tarot.space import Whitening, row_distances
from tarot.transport import Grown, dense
from tarot.workers import Local, Threads, stop_where_given_up

_SWALLOWED = 0.5  # a selection that is more of the pool than this is hardly one,
_SMALL_POOL = 100  # unless the pool is so small that a few targets' neighbours are half of it


@dataclass(frozen=True)
class TarotOTM:
    """The union over folds of the layers that bring the selection nearest to held-out targets (TAROT, Algorithm 2).

    It chooses its own size. The targets are split into K folds. For each, some of the targets add layers of their
    nearest candidates while the OT distance to the other targets does not rise above the least so far; the layers up to
    the least are kept (ledger L-10 to L-14, L-29).

    folds: K, at most the number of targets; 1 = select and evaluate on all targets.
    side: "rest" = all folds but one select, that one evaluates (the paper's algorithm box); "fold" = one fold selects,
    the rest evaluate (its text), which selects two to four times as many, farther from held-out targets.
    stop: "least" = as above; "paper" = compare with the layer before instead, and keep all before the stop.
    tolerance: the relative rise that stops, above -1; below 0, a layer must lower the distance by as much.
    min_cos: leave out neighbours of a smaller cosine similarity.
    judge: of the distance. "exact": the transport itself; "entropic": what potentials at epsilon 0.003 prove of it,
    which selects nearly the same in a tenth of the memory; "auto": exact where a fold's cost has up to about 2e7 pairs
    (4,000 targets and ten folds), else entropic. The selection's description says which of the two it was.
    Warns where more than half of the pool is selected, and it has at least 100 candidates.
    """

    features: ClassVar[str | None] = "wfd"
    whitening: ClassVar[Whitening] = "chosen"
    reference: ClassVar[bool] = False

    folds: Count = 10
    side: Literal["rest", "fold"] = "rest"
    stop: Literal["least", "paper"] = "least"
    seed: Natural = 0
    tolerance: Annotated[float, above(-1)] = 0.0
    min_cos: Annotated[float, within("[-1, 1]")] | None = None
    judge: Judge = "auto"

    def __post_init__(self) -> None:
        check_options(self)

    def select(self, problem: SelectionProblem) -> Selection:
        posed = problem.with_targets_in_order()
        sides = self._sides(posed)
        judge = judge_for(self.judge, posed.n, sides)
        distances = _Distances(posed, kept=judge == "exact")
        posed.neighbours(1)  # once, with all of the machine: every fold begins with them
        engine = posed.workers
        if isinstance(engine, Local):  # the network simplex and torch leave the GIL
            engine = Threads(min(len(sides), torch.get_num_threads()))
        with progress("layers of nearest candidates", None, "layers") as advance:
            grown = list(engine.map(_grown, sides, self, posed, distances, judge, _Layers(advance)))
        parts, curves = zip(*grown, strict=True)
        chosen = np.unique(np.concatenate(parts))
        if not len(chosen):
            raise InputError(f"no candidate is within min_cos {self.min_cos} of a target: nothing can be selected")
        _warn_if_swallowed(len(chosen), problem.n, curves)
        description = {**described(self), "judge": judge}
        return problem.selection(chosen, description, total=problem.n, curve={"ot_by_layer": list(curves)})

    def _sides(self, problem: SelectionProblem) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """(targets that select, targets that evaluate) of every fold, of a problem whose targets are in an order of
        their content."""
        everyone = random_generator(self.seed).permutation(len(problem.targets))
        folds = np.array_split(everyone, min(self.folds, len(everyone)))
        if len(folds) == 1:
            return [(everyone, everyone)]
        sides = [(np.sort(fold), np.sort(np.setdiff1d(everyone, fold))) for fold in folds]
        return sides if self.side == "fold" else [(rest, fold) for fold, rest in sides]

    def _grow(
        self,
        problem: SelectionProblem,
        distances: _Distances,
        judge: str,
        sel: NDArray[np.int64],
        ev: NDArray[np.int64],
        count_layer: _Layers,
    ) -> tuple[NDArray[np.int64], list[float]]:
        """The layers of `sel` that `stop` keeps, and the distance to `ev` after each that was tried."""
        judging, rounding = JUDGES[judge](len(ev), problem.place), ROUNDING[judge]
        chosen = np.empty(0, dtype=np.int64)
        reference, kept = np.inf, 0  # what the next layer is compared with, and how many candidates are kept
        curve: list[float] = []
        for layer in problem.layers(sel, min_cos=self.min_cos):
            distance = judging.distance_with(distances.between(layer, ev))
            curve.append(distance)
            count_layer()
            if distance > reference * (1 + self.tolerance + rounding):
                break
            chosen = np.concatenate([chosen, layer])
            if self.stop == "paper" or distance <= reference * (1 + rounding):
                kept = len(chosen)
                reference = distance if self.stop == "paper" else min(reference, distance)
        return chosen[:kept], curve


def _grown(
    side: tuple[NDArray[np.int64], NDArray[np.int64]],
    state: None,
    method: TarotOTM,
    problem: SelectionProblem,
    distances: _Distances,
    judge: str,
    count_layer: _Layers,
) -> tuple[NDArray[np.int64], list[float]]:
    return method._grow(problem, distances, judge, *side, count_layer)


class _Layers:
    """Counts layers for the bar of this process, and ends the work of a thread that nobody waits for."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance = advance

    def __reduce__(self) -> tuple[type[_Layers], tuple[Callable[[int], None]]]:
        return _Layers, (_uncounted,)

    def __call__(self) -> None:
        stop_where_given_up()
        self._advance(1)


def _uncounted(layers: int) -> None:
    pass


class _Distances:
    """Distances from candidates to targets. Where they are kept, those to all targets are computed when a candidate is
    first asked for: most layers of a fold are those of another, and a row is whitened whenever it is read. Where they
    would be too many, those alone are computed that are asked for."""

    def __init__(self, problem: SelectionProblem, kept: bool) -> None:
        self._problem, self._kept = problem, kept
        self._place = np.full(problem.n, -1)  # of each candidate's row in `_rows`
        self._rows = Grown(len(problem.targets), device=problem.place)
        self._targets = problem.targets.to(problem.place)
        self._lock = threading.Lock()

    def _read(self, candidates: NDArray[np.int64]) -> Tensor:
        return read_rows(self._problem.candidates, candidates, "candidates", self._problem.place)

    def __reduce__(self) -> tuple[type[_Distances], tuple[SelectionProblem, bool]]:
        return _Distances, (self._problem, self._kept)

    def between(self, candidates: NDArray[np.int64], targets: NDArray[np.int64]) -> Tensor:
        """Float32 [len(candidates), len(targets)], targets by position among the usable ones."""
        if not self._kept:
            return dense(self._problem.cost(candidates, targets))
        with self._lock:
            new = candidates[self._place[candidates] < 0]
            if len(new):
                self._place[new] = np.arange(len(new)) + len(self._rows.matrix)
                self._rows.add(row_distances(self._read(new), self._targets))
            matrix = self._rows.matrix
            rows, columns = (torch.from_numpy(at).to(matrix.device) for at in (self._place[candidates], targets))
            return matrix[rows[:, None], columns]


def _warn_if_swallowed(selected: int, n: int, curves: tuple[list[float], ...]) -> None:
    if selected <= _SWALLOWED * n or n < _SMALL_POOL:
        return
    fall = float(np.mean([1 - min(curve) / curve[0] if curve[0] else 0.0 for curve in curves]))
    warnings.warn(
        f"tarot_otm selected {selected} of {n} candidates: layer after layer brought held-out targets a little nearer "
        f"({fall:.1%} from the first to the best), as it does where candidates hardly differ in their distances. "
        "Give a size to tarot_fixed, or a negative tolerance",
        stacklevel=3,
    )
