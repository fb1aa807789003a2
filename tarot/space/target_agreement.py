"""Whether targets agree on candidates: do they find one another, and do halves of them select the same?

Fixed-Size selection takes candidates layer by layer: layer k holds the k-th nearest candidate of every target
(theory.md 0.3). So a row's place is the least, over the targets, of how many candidates are nearer to that target.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tarot.space.distance import distances

HALVINGS = 10
SHARE = 0.2  # of the candidates, that each half of the targets selects


def agreement(candidates: Tensor, targets: Tensor) -> NDArray[np.float64]:
    """For each target the share of candidates that Fixed-Size selection for the *other* targets takes after it:
    float64 [M], .5 on average where targets are like any candidate, 1 where they are like each other alone.

    candidates: float32 [N, d]; targets: float32 [M, d], M >= 2. Equal places count half. The mean is the area under the
    curve of finding targets among candidates. Targets are left out one at a time, which needs no folds and no order.
    """
    n, m = len(candidates), len(targets)
    places, ascending = _places(candidates, targets)
    among = distances(targets, targets).numpy()
    others = np.stack([np.searchsorted(ascending[:, j], among[:, j]) for j in range(m)], axis=1)
    np.fill_diagonal(others, n + 1)
    place = others.min(axis=1)
    nearest = places.argmin(axis=1)
    least, second = np.partition(places, 1, axis=1)[:, :2].T
    found = np.empty(m)
    for j in range(m):
        of_candidates = np.where(nearest == j, second, least)
        found[j] = ((of_candidates > place[j]).sum() + 0.5 * (of_candidates == place[j]).sum()) / n
    return found


def repetition(candidates: Tensor, targets: Tensor) -> float:
    """How much two selections have in common, of a fifth of the candidates each, for one half of the targets and for
    the other: 2 |A and B| / (|A| + |B|), the mean over ten ways to halve them; 1 where they are the same.

    candidates: float32 [N, d]; targets: float32 [M, d], M >= 2. Halves are drawn by the order of the targets. Layers
    are taken whole.
    """
    n, m = len(candidates), len(targets)
    places, _ = _places(candidates, targets)
    generator = np.random.default_rng(0)
    common = []
    for _ in range(HALVINGS):
        order = generator.permutation(m)
        taken = []
        for half in (order[: m // 2], order[m // 2 : 2 * (m // 2)]):
            place = places[:, half].min(axis=1)
            last = np.partition(place, int(SHARE * (n - 1)))[int(SHARE * (n - 1))]
            taken.append(place <= last)
        both = taken[0] & taken[1]
        common.append(2 * both.sum() / (taken[0].sum() + taken[1].sum()))
    return float(np.mean(common))


def _places(candidates: Tensor, targets: Tensor) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """How many candidates are nearer to each target than each candidate is, int64 [N, M]; the distances of all
    candidates to each target, ascending, float32 [N, M]."""
    to_candidates = distances(candidates, targets).numpy()
    ascending: NDArray[np.float32] = np.sort(to_candidates, axis=0)
    columns = [np.searchsorted(ascending[:, j], to_candidates[:, j]) for j in range(len(targets))]
    return np.stack(columns, axis=1), ascending
