"""Whether targets look like one another: would a selection for some of them find the others?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tarot.space.distance import distances


def agreement(candidates: Tensor, targets: Tensor) -> NDArray[np.float64]:
    """For each target the share of candidates that Fixed-Size selection for the *other* targets takes after it:
    float64 [M], .5 on average where targets are like any candidate, 1 where they are like each other alone.

    candidates: float32 [N, d]; targets: float32 [M, d], M >= 2. Layer k of the selection holds the k-th nearest
    candidate of every target (theory.md 0.3), so a row's place is the least, over the targets, of how many candidates
    are nearer to that target. Equal places count half. The mean is the area under the curve of finding targets among
    candidates. Targets are left out one at a time, which needs no folds and no order.
    """
    n, m = len(candidates), len(targets)
    to_candidates = distances(candidates, targets).numpy()
    ascending = np.sort(to_candidates, axis=0)
    among = distances(targets, targets).numpy()
    places = np.empty((n, m), dtype=np.int64)
    others = np.empty((m, m), dtype=np.int64)  # of target i among the candidates of target j
    for j in range(m):
        places[:, j] = np.searchsorted(ascending[:, j], to_candidates[:, j])
        others[:, j] = np.searchsorted(ascending[:, j], among[:, j])
    np.fill_diagonal(others, n + 1)
    place = others.min(axis=1)
    nearest = places.argmin(axis=1)
    least, second = np.partition(places, 1, axis=1)[:, :2].T
    found = np.empty(m)
    for j in range(m):
        of_candidates = np.where(nearest == j, second, least)
        found[j] = ((of_candidates > place[j]).sum() + 0.5 * (of_candidates == place[j]).sum()) / n
    return found
