"""Supervised prototypes: how far each candidate is from the centre of its cluster (Sorscher et al., 2022;
theory.md 7.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from tarot.common import Count, InputError, within
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
    candidates' unit-norm rows, which are read `epochs` times, each in another order, drawn of candidates by id, or by
    content where there are no ids. Several views: the mean of their distances.
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
    seed: Annotated[int, within("[0, 4294967295]")] = 0  # what k-means of scikit-learn takes

    def values(self, problem: SelectionProblem) -> NDArray[np.float64]:
        """Mean cosine distance to the own centroid over the views, float64 [N], in [0, 2]."""
        values: NDArray[np.float64] = np.mean(
            [self._distances(view, problem.candidate_order) for view in problem.candidate_views], axis=0
        )
        return values

    def _distances(self, rows: Rows, order: NDArray[np.int64]) -> NDArray[np.float64]:
        """order: of all candidates, in which they are drawn."""
        from sklearn.cluster import MiniBatchKMeans  # takes seconds to import

        generator = random_generator(self.seed)
        usable = np.concatenate([block.any(dim=1).numpy() for _, block in blocks(rows, name="candidates")])
        candidates = order[usable[order]]
        clusters = self._clusters(len(candidates))
        batch = self._batch(clusters)
        means = MiniBatchKMeans(clusters, random_state=self.seed, compute_labels=False, n_init=1, batch_size=batch)
        for _ in range(self.epochs):
            drawn = generator.permutation(candidates)
            for start in range(0, len(drawn), batch):
                means.partial_fit(unit_norm(read_rows(rows, drawn[start : start + batch], "candidates")).numpy())
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
