"""LAVA: how the transport distance to the targets changes with the mass of each candidate (Just et al., 2023;
theory.md 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from tarot.common import InputError, memory_limit
from tarot.features import block_size
from tarot.selection import SelectionProblem
from tarot.selectors.hierarchical import labelled_gradient
from tarot.selectors.labelled import Box, LabelCosts, LabelledSpace, labelled_spaces
from tarot.selectors.ordered import ByValue
from tarot.space import Whitening

_SINGLE_RANGE = 200  # epsilons in the range of costs up to which Sinkhorn's iterations hold float32


@dataclass(frozen=True)
class Lava(ByValue, LabelCosts):
    """Values every candidate by its calibrated gradient of OT_epsilon, sign turned: higher = more valuable.

    Needs candidate_labels and target_labels; options: `LabelCosts`. The cost of all N x M pairs is held in memory
    (8 bytes a pair): where it does not fit, `Sava` is for. Several views: the mean of their values.
    """

    features: ClassVar[str | None] = "embedding"
    whitening: ClassVar[Whitening] = None
    reference: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ("candidate_labels", "target_labels")

    def values(self, problem: SelectionProblem) -> NDArray[np.float64]:
        """Minus the calibrated gradients, float64 [N]; they sum to zero. InputError where memory is too small."""
        _check_memory(problem.n, problem.m, 8)
        values: NDArray[np.float64] = np.mean(
            [_values(space) for space in labelled_spaces(problem, self, "lava")], axis=0
        )
        return values


def _values(space: LabelledSpace) -> NDArray[np.float64]:
    n, m = space.candidates.shape[0], len(space.targets)
    columns, cost = space.columns(np.arange(m)), torch.empty(n, m)
    box = Box.of(space.targets)
    for start, block in space.blocks(block_size(max(m, space.targets.shape[1]))):
        box = box.with_rows(block)
        rows = slice(start, start + len(block))
        cost[rows] = space.cost(block, space.candidate_labels[rows], columns)
    doubled = space.options.variant == "paper" and float(cost.max() - cost.min()) > _SINGLE_RANGE * space.epsilon
    if doubled:
        _check_memory(n, m, 20)  # solved in float64, beside the cost
    return -labelled_gradient(space, cost, space.candidate_labels, np.arange(m), box.diameter).calibrated * space.unit


def _check_memory(n: int, m: int, bytes_of_pair: int) -> None:
    needed, limit = n * m * bytes_of_pair, memory_limit() / 2
    if needed > limit:
        raise InputError(
            f"lava holds the costs of all {n} x {m} pairs, {needed / 1e9:.1f} GB, and half of the memory is "
            f"{limit / 1e9:.1f} GB: use sava, whose memory does not grow with the pairs"
        )
