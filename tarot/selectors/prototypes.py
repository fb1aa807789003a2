"""Supervised prototypes: how far each candidate is from the centre of its cluster (Sorscher et al., 2022;
theory.md 7.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from tarot.common import Count, InputError, Natural
from tarot.features import Rows, blocks, read_rows
from tarot.selection import SelectionProblem
from tarot.selectors.options import random_generator
from tarot.selectors.ordered import ByValue
from tarot.space import Whitening, unit_norm

_BATCH = 1024
_CANDIDATES_PER_CENTROID = 100


@dataclass(frozen=True)
class Prototypes(ByValue):
    """Cosine distance of each candidate to its own k-means centroid: the most prototypical are the least valuable.

    Uses neither labels nor targets. The clusters are those of mini-batch k-means (k-means++ on the first batch) on the
    candidates' unit-norm rows, which are read `epochs` times, each in another order: that of a seeded hash of their
    numbers, as good as random and the same however the pool is ordered. Several views: the mean of their distances.
    Zero rows belong to no cluster and have value 0, the lowest.

    centroids: None = one per 100 candidates, at least 2 (1 where there is one candidate). batch: rows per step; None =
    1024, or the number of centroids where that is more.
    """

    features: ClassVar[str | None] = "embedding"
    whitening: ClassVar[Whitening] = None
    reference: ClassVar[bool] = False

    centroids: Count | None = None
    batch: Count | None = None
    epochs: Count = 3
    seed: Natural = 0

    def values(self, problem: SelectionProblem) -> NDArray[np.float64]:
        """Mean cosine distance to the own centroid over the views, float64 [N], in [0, 2]."""
        values: NDArray[np.float64] = np.mean([self._distances(view) for view in problem.candidate_views], axis=0)
        return values

    def _distances(self, rows: Rows) -> NDArray[np.float64]:
        from sklearn.cluster import MiniBatchKMeans  # takes seconds to import

        generator = random_generator(self.seed)
        code, usable = _hashes(rows, generator)
        candidates = np.flatnonzero(usable)
        clusters = self._clusters(len(candidates))
        batch = self._batch(clusters)
        means = MiniBatchKMeans(clusters, random_state=self.seed, compute_labels=False, n_init=1, batch_size=batch)
        for _ in range(self.epochs):
            order = candidates[np.argsort(code[candidates] * _odd(generator, 1))]
            for start in range(0, len(order), batch):
                means.partial_fit(unit_norm(read_rows(rows, order[start : start + batch], "candidates")).numpy())
        centres = unit_norm(torch.from_numpy(means.cluster_centers_))
        values = np.zeros(rows.shape[0])
        for start, block in blocks(rows, name="candidates"):
            block = unit_norm(block)
            own = centres[torch.from_numpy(means.predict(block.numpy())).long()]
            cosine = (block.double() * own.double()).sum(dim=1).clamp(-1, 1)
            values[start : start + len(block)] = 1 - cosine.numpy()
        values[~usable] = 0
        return values

    def _clusters(self, usable: int) -> int:
        if not usable:
            raise InputError("candidates: every row is zero, so there is nothing to cluster")
        if self.centroids is None:
            return min(usable, max(2, usable // _CANDIDATES_PER_CENTROID))
        if self.centroids > usable:
            raise InputError(f"centroids is {self.centroids}, but only {usable} candidates have features to cluster")
        return self.centroids

    def _batch(self, clusters: int) -> int:
        if self.batch is None:
            return max(_BATCH, clusters)
        if self.batch < clusters:
            raise InputError(
                f"batch must hold at least one row per centroid, {clusters}, for k-means++; it is {self.batch}"
            )
        return self.batch


def _hashes(rows: Rows, generator: np.random.Generator) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """A hash of each unit-norm row's bits, uint64 [N] (sums with random odd factors, modulo 2^64), and which rows are
    not zero."""
    factors = _odd(generator, rows.shape[1])
    code, usable = np.empty(rows.shape[0], dtype=np.uint64), np.empty(rows.shape[0], dtype=bool)
    for start, block in blocks(rows, name="candidates"):
        here = slice(start, start + len(block))
        code[here] = unit_norm(block).numpy().view(np.uint32).astype(np.uint64) @ factors
        usable[here] = block.any(dim=1).numpy()
    return code, usable


def _odd(generator: np.random.Generator, count: int) -> NDArray[np.uint64]:
    return generator.integers(0, 2**64, count, dtype=np.uint64) | np.uint64(1)
