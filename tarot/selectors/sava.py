"""SAVA: LAVA on pairs of batches, weighed by the transport between the batches (Kessler et al., Algorithm 1;
theory.md 6); and batch-wise LAVA, which weighs all batches alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray

from tarot.common import Natural, NonNegative, at_least
from tarot.selection import SelectionProblem
from tarot.selectors.hierarchical import BatchTransports, batch_transports, transport_batches
from tarot.selectors.labelled import LabelCosts, labelled_spaces
from tarot.selectors.options import random_generator
from tarot.selectors.ordered import ByValue
from tarot.space import Whitening


@dataclass(frozen=True)
class Sava(ByValue, LabelCosts):
    """Values a candidate of batch i by -sum_j P_ij / (N_i / N) cal_ij, P being the coupling of the batches.

    cal_ij is its calibrated gradient towards the j-th batch of targets. With one batch it is `Lava`. Needs
    candidate_labels and target_labels; options: `LabelCosts`, and
    batch_size: candidates and targets in a batch at most; all batches of a side are nearly equal. seed: of their random
    choice. batch_epsilon: regularisation of the coupling relative to its largest cost; 0 = exact.
    Time is linear in N M, memory is one pair of batches and N x (M / batch_size) float32. Several views: the mean of
    their values, on the same batches.
    """

    features: ClassVar[str | None] = "embedding"
    whitening: ClassVar[Whitening] = None
    reference: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ("candidate_labels", "target_labels")

    batch_size: Annotated[int, at_least(2)] = 1024
    batch_epsilon: NonNegative = 0.01
    seed: Natural = 0

    def values(self, problem: SelectionProblem) -> NDArray[np.float64]:
        """Float64 [N], higher = more valuable; they sum to zero in every batch."""
        values: NDArray[np.float64] = np.mean(
            [sava_values(s, self.batch_epsilon) for s in _solved(self, problem, "sava")], axis=0
        )
        return values


@dataclass(frozen=True)
class BatchwiseLava(ByValue, LabelCosts):
    """Values a candidate by -mean_j cal_ij: `Sava` without the transport between batches, the paper's naive baseline.

    Same options, less batch_epsilon. With variant "released" it is averaged as the released code does, too:
    (tanh(cal) + 1) / 2 divided by its sum over the batch of candidates.
    """

    features: ClassVar[str | None] = "embedding"
    whitening: ClassVar[Whitening] = None
    reference: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ("candidate_labels", "target_labels")

    batch_size: Annotated[int, at_least(2)] = 1024
    seed: Natural = 0

    def values(self, problem: SelectionProblem) -> NDArray[np.float64]:
        """Float64 [N], higher = more valuable."""
        average = released_batchwise_values if self.variant == "released" else batchwise_values
        values: NDArray[np.float64] = np.mean([average(s) for s in _solved(self, problem, "batchwise_lava")], axis=0)
        return values


def _solved(options: Sava | BatchwiseLava, problem: SelectionProblem, method: str) -> Iterator[BatchTransports]:
    """Every view's first level, one at a time."""
    generators = [random_generator(options.seed) for _ in problem.candidate_views]
    for generator, space in zip(generators, labelled_spaces(problem, options, method), strict=True):
        yield batch_transports(space, options.batch_size, generator)


def sava_values(solved: BatchTransports, batch_epsilon: float) -> NDArray[np.float64]:
    """-sum_j P_ij / (N_i / N) cal_ij, float64 [N]."""
    share = transport_batches(solved, batch_epsilon).coupling / solved.masses()[0][:, None]
    values = np.empty(solved.gradients.shape[1])
    for batch, weights in zip(solved.rows, share, strict=True):
        values[batch] = -weights @ solved.gradients[:, batch]
    return values * solved.unit


def batchwise_values(solved: BatchTransports) -> NDArray[np.float64]:
    """-mean_j cal_ij, float64 [N]."""
    mean: NDArray[np.float64] = solved.gradients.mean(axis=0, dtype=np.float64)
    return -mean * solved.unit


def released_batchwise_values(solved: BatchTransports) -> NDArray[np.float64]:
    """Minus the mean over j of (tanh(cal_ij) + 1) / 2 / its sum over batch i, float64 [N]."""
    values = np.empty(solved.gradients.shape[1])
    for batch in solved.rows:
        share = (np.tanh(solved.gradients[:, batch].astype(np.float64)) + 1) / 2
        values[batch] = -(share / share.sum(axis=1, keepdims=True)).mean(axis=0)
    return values
