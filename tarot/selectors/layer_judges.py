"""How far what `tarot_otm` has selected so far is from the targets that evaluate it, layer after layer.

Both judges keep the cost of what is selected, add a layer's rows to it in place, and start from the duals of the layer
before. Which of them it is decides nothing else. Costs are where the layers are computed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tarot.transport import Grown, HeldCost, proven, sinkhorn, solve_exact

Judge = Literal["auto", "exact", "entropic"]

EXACT_PAIRS = 20_000_000  # of a fold's cost: beyond, the network simplex takes seconds and gigabytes a layer
TYPICAL_LAYERS = 14  # that a fold tries
EPSILON = 0.003
PASSES = 300  # of an entropic judge: at most for a layer
ROUNDING = {"exact": 1e-9, "entropic": 2e-5}  # relative: distances that a judge takes for the same

_FARTHEST = 2.0  # that unit vectors can be from each other
_TOLERANCE = 0.01  # marginal error, of which a dual value feels the square
_SEED_PAIRS = 5_000_000  # of the first layer's cost, whose exact duals begin


class LayerJudge(Protocol):
    """Of one fold."""

    def distance_with(self, layer: Tensor) -> float:
        """The distance after these rows of the cost, float32 [k, m], have joined those before."""
        ...


class ExactJudge:
    """The transport distance itself, by the network simplex."""

    def __init__(self, targets: int, device: torch.device) -> None:
        self._cost = Grown(targets, device=device)
        self._g: NDArray[np.float64] | None = None

    def distance_with(self, layer: Tensor) -> float:
        self._cost.add(layer)
        plan = solve_exact(self._cost.matrix, g=self._g)
        self._g = plan.g
        return plan.value


class EntropicJudge:
    """What the entropic potentials at a small epsilon prove of the distance, on a cost in 16 bits.

    OT_eps itself, and the cost of its coupling, lie above the distance by more, and not by the same after each layer.
    """

    def __init__(self, targets: int, device: torch.device) -> None:
        self._cost = HeldCost(targets, _FARTHEST, device)
        self._g: NDArray[np.float64] | None = None

    def distance_with(self, layer: Tensor) -> float:
        self._cost.add(layer)
        if self._g is None:
            every = max(1, math.prod(self._cost.shape) // _SEED_PAIRS)
            self._g = solve_exact(self._cost.rows(every)).g
        found = sinkhorn(self._cost, EPSILON, g=self._g, tolerance=_TOLERANCE, max_iterations=PASSES, strict=False)
        self._g = found.g
        return proven(self._cost, found.g)


JUDGES: dict[str, type[ExactJudge] | type[EntropicJudge]] = {"exact": ExactJudge, "entropic": EntropicJudge}


def judge_for(asked: Judge, n: int, sides: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> str:
    """Which of the two; for "auto" by sizes alone, so that all machines and devices agree: exact where the layers that
    a fold typically tries make no more than EXACT_PAIRS pairs with the targets that evaluate them.

    n: candidates. sides: the targets that select, and those that evaluate, of every fold."""
    if asked != "auto":
        return asked
    pairs = max(min(n, TYPICAL_LAYERS * len(selecting)) * len(evaluating) for selecting, evaluating in sides)
    return "exact" if pairs <= EXACT_PAIRS else "entropic"
