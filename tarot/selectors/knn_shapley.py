"""KNN-Shapley: the exact Shapley value of every candidate for a nearest-neighbour classifier of the targets
(Jia et al., 2019; theory.md 7.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tarot.common import Count, checked
from tarot.features import Rows
from tarot.selection import SelectionProblem
from tarot.selectors.ordered import ByValue
from tarot.space import MEMORY_BYTES, SORTED_AT_ONCE, Whitening, ascending, distance_blocks


@dataclass(frozen=True)
class KnnShapley(ByValue):
    """Shapley values of the utility v(S) = (1/k) sum over the min(k, |S|) nearest in S of [same label as the target].

    Needs candidate_labels and target_labels. Distances are Euclidean between the rows as they are; equal distances are
    ordered by id, or by content where there are no ids. Several views: the mean of their values. A k above N is allowed
    (and means all neighbours).
    """

    features: ClassVar[str | None] = "embedding"
    whitening: ClassVar[Whitening] = None
    reference: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ("candidate_labels", "target_labels")

    k: Count = 10

    def values(self, problem: SelectionProblem) -> NDArray[np.float64]:
        """Mean Shapley value over the targets, float64 [N]; they sum to the mean utility of the whole pool."""
        labels = problem.labels("knn_shapley")
        views = zip(problem.candidate_views, problem.target_views, strict=True)
        order = problem.candidate_order
        values: NDArray[np.float64] = np.mean([_streamed(c, t, *labels, self.k, order) for c, t in views], axis=0)
        return values


@checked()
def knn_shapley(
    distance: ArrayLike, candidate_labels: ArrayLike, target_labels: ArrayLike, k: Count
) -> NDArray[np.float64]:
    """Mean Shapley value over the targets, float64 [N], from distances [M, N] >= 0 (compared in float32).

    With a_1..a_N the matches in order of distance and w_i = min(k, i) / (i k), the recursion s_N = a_N w_N,
    s_i = s_{i+1} + (a_i - a_{i+1}) w_i sums up to s_i = a_i w_i - sum_{l>i} a_l (w_{l-1} - w_l).
    """
    distances = np.asarray(distance, dtype=np.float32)
    labels, wanted = np.asarray(candidate_labels), np.asarray(target_labels)
    m, n = distances.shape
    place = np.arange(1, n + 1)
    weight: NDArray[np.float64] = np.minimum(k, place) / (place * float(k))
    fall = np.append(0.0, weight[:-1] - weight[1:])
    values = np.zeros(n)
    step = max(1, SORTED_AT_ONCE // n)
    for start in range(0, m, step):
        rows = slice(start, min(start + step, m))
        order = ascending(distances[rows])
        match = labels[order] == wanted[rows, None]
        lost = match * fall  # what a match takes from every nearer candidate
        nearer = lost.sum(axis=1, keepdims=True) - np.cumsum(lost, axis=1)
        np.subtract(match * weight, nearer, out=nearer)
        for candidates, shares in zip(order, nearer, strict=True):
            values[candidates] += shares
    values /= m
    return values


def _streamed(
    candidates: Rows,
    targets: Rows,
    labels: NDArray[np.int64],
    wanted: NDArray[np.int64],
    k: int,
    order: NDArray[np.int64],
) -> NDArray[np.float64]:
    """`knn_shapley` of features, a block of targets at a time; ties in this order of candidates."""
    values = np.zeros(candidates.shape[0])
    for part, distance in distance_blocks(candidates, targets, MEMORY_BYTES):
        values[order] += knn_shapley(distance[:, order], labels[order], wanted[part], k) * len(distance)
    return values / targets.shape[0]
