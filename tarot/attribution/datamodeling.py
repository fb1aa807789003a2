"""Linear datamodeling score (LDS; Park et al. 2023): do scores predict what models trained on subsets will do?

For subsets S_1..S_m of the candidates and the outputs y [m, M] of the models trained on them, an attribution tau
predicts g_lj = sum of tau_ij over i in S_l; LDS = mean over targets j of Spearman over l of (g_lj, y_lj). The subsets
should be of one size: a sum and a mean then rank alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tarot.common import InputError

_BLOCK = 4096  # candidates, or bootstrap resamples times targets / 1024, handled at once
_ROUNDING = 1e-12  # predictions that differ by less than this fraction of their terms' absolute sum are equal


@dataclass(frozen=True)
class LDS:
    """An LDS and its 95% interval; `float(lds)` is the mean over targets.

    per_target: float64 [M], NaN where the target was skipped; skipped: the reason, by target index.
    The interval is the percentile bootstrap over subset models and targets, both resampled with replacement: what to
    expect of other subsets and other targets of the same kind. resamples: the resampled means, float64 [bootstrap].
    """

    mean: float
    low: float
    high: float
    per_target: NDArray[np.float64]
    skipped: dict[int, str]
    resamples: NDArray[np.float64] = field(repr=False)

    def __float__(self) -> float:
        return self.mean

    def minus(self, other: LDS) -> tuple[float, float, float]:
        """The paired difference of two attributions: (mean, low, high), a 95% interval.

        Both must come from the same outputs and seed, so that their resamples are of the same subsets and targets.
        """
        if self.resamples.shape != other.resamples.shape or self.per_target.shape != other.per_target.shape:
            raise InputError("only LDS of the same outputs, with the same number of resamples, can be compared")
        return self.mean - other.mean, *_interval(self.resamples - other.resamples)


def lds(scores: ArrayLike, masks: ArrayLike, outputs: ArrayLike, *, bootstrap: int = 1000, seed: int = 0) -> LDS:
    """LDS of `scores` [N, M] against `outputs` [m, M] of models trained on the subsets `masks` (bool [m, N]).

    Ties get average ranks, as in `scipy.stats.spearmanr`. A target whose outputs or predictions are all equal has no
    rank correlation: it is skipped, with the reason. Raises InputError on shapes that do not fit, fewer than two
    subsets, masks that are not boolean, and numbers that are not finite. The bootstrap keeps the ranks of the full
    sample: about .01 from ranking each resample anew, and a hundred times faster.
    """
    scores, masks, outputs = _checked(scores, masks, outputs)
    if bootstrap < 1:
        raise InputError(f"bootstrap must be at least 1 resample; it is {bootstrap!r}")
    predictions, scale = _predictions(scores, masks)
    skipped = _skipped(predictions, scale, outputs)
    kept = np.setdiff1d(np.arange(outputs.shape[1]), list(skipped))
    per_target = np.full(outputs.shape[1], np.nan)
    if not len(kept):
        return LDS(np.nan, np.nan, np.nan, per_target, skipped, np.full(bootstrap, np.nan))
    g, y = _standard_ranks(predictions[:, kept]), _standard_ranks(outputs[:, kept])
    per_target[kept] = (g * y).mean(axis=0)
    resamples = _resampled_means(g, y, kept, outputs.shape[1], bootstrap, seed)
    return LDS(float(per_target[kept].mean()), *_interval(resamples), per_target, skipped, resamples)


@dataclass(frozen=True)
class Choice:
    """The options that did best on the held-back models, the LDS of each setting tried, and the scores they give."""

    options: dict[str, Any]
    tried: list[tuple[dict[str, Any], float]]
    scores: NDArray[np.floating] = field(repr=False)


def choose(
    estimator: Callable[..., NDArray[np.floating]],
    grid: Mapping[str, Sequence[Any]],
    masks: ArrayLike,
    outputs: ArrayLike,
) -> Choice:
    """The options in `grid` (name -> values) whose `estimator(**options)` scores [N, M] have the highest LDS.

    `masks` and `outputs` are of a few models *held back* for this: report the LDS on others, or the number is biased.
    Some 20 models find the ridge and beta of `tarot.tempered_scores` (docs/lds.md). Ties go to the
    setting listed first. Raises InputError where the grid is empty or no setting has an LDS.
    """
    settings = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    tried: list[tuple[dict[str, Any], float]] = []
    best = Choice({}, tried, np.empty(0))
    highest = -np.inf
    for options in settings:
        scores = estimator(**options)
        value = float(lds(scores, masks, outputs, bootstrap=1))
        tried.append((options, value))
        if value > highest:
            best, highest = Choice(options, tried, scores), value
    if not best.options:
        raise InputError("no setting of the grid gives an LDS on the held-back models")
    return best


def _checked(
    scores: ArrayLike, masks: ArrayLike, outputs: ArrayLike
) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.float64]]:
    arrays = {"scores": np.asarray(scores), "masks": np.asarray(masks), "outputs": np.asarray(outputs)}
    for name, array in arrays.items():
        if array.ndim != 2 or 0 in array.shape:
            raise InputError(f"{name} must be a non-empty matrix; its shape is {array.shape}")
        if array.dtype.kind not in "bfiu":
            raise InputError(f"{name} must hold real numbers; its dtype is {array.dtype}")
    scores, masks, outputs = arrays.values()
    if masks.dtype != bool:
        if not np.isin(masks, (0, 1)).all():
            raise InputError("masks must be boolean: row l marks the candidates that subset model l was trained on")
        masks = masks.astype(bool)
    (n, targets), (m, members), shape = scores.shape, masks.shape, outputs.shape
    if members != n:
        raise InputError(f"masks {masks.shape} mark {members} candidates, scores {scores.shape} hold {n}: must agree")
    if shape != (m, targets):
        raise InputError(f"outputs must be [subset models, targets] = {(m, targets)}; their shape is {shape}")
    if m < 2:
        raise InputError("LDS ranks subset models: it needs at least two")
    for name, array, row, column in (
        ("scores", scores, "candidate", "target"),
        ("outputs", outputs, "model", "target"),
    ):
        if not np.isfinite(array).all():
            i, j = np.argwhere(~np.isfinite(array))[0]
            raise InputError(f"{name} must be finite: {row} {i}, {column} {j} is {array[i, j]}")
    return scores, masks, outputs.astype(np.float64)


def _predictions(scores: NDArray[Any], masks: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Summed scores of each subset [m, M], and the sum of all absolute scores [M], in float64 by blocks."""
    predictions = np.zeros((len(masks), scores.shape[1]))
    scale = np.zeros(scores.shape[1])
    for start in range(0, len(scores), _BLOCK):
        block = scores[start : start + _BLOCK].astype(np.float64)
        predictions += masks[:, start : start + _BLOCK].astype(np.float64) @ block
        scale += np.abs(block).sum(axis=0)
    return predictions, scale


def _skipped(
    predictions: NDArray[np.float64], scale: NDArray[np.float64], outputs: NDArray[np.float64]
) -> dict[int, str]:
    reasons = {
        int(j): "all subsets have the same prediction"
        for j in np.flatnonzero(np.ptp(predictions, 0) <= _ROUNDING * scale)
    }
    return reasons | {int(j): "all subset models have the same output" for j in np.flatnonzero(np.ptp(outputs, 0) == 0)}


def _standard_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks of each column, ties averaged, with mean 0 and variance 1: their mean product is Spearman's correlation."""
    from scipy.stats import rankdata  # takes a second to import

    ranks: NDArray[np.float64] = rankdata(values, axis=0)
    ranks -= ranks.mean(axis=0)
    ranks /= ranks.std(axis=0)
    return ranks


def _resampled_means(
    g: NDArray[np.float64], y: NDArray[np.float64], kept: NDArray[np.int64], targets: int, bootstrap: int, seed: int
) -> NDArray[np.float64]:
    """Mean correlation in each resample of the subsets (rows) and targets (columns of g and y), float64 [bootstrap].

    A resample is a count per row and per target, so all correlations are five matrix products. Counts are drawn for
    all targets, skipped ones too, so that resamples of the same seed are of the same targets whatever was skipped.
    """
    rng = np.random.default_rng(seed)
    m, means = len(g), np.empty(bootstrap)
    step = max(1, _BLOCK * 1024 // (g.shape[1] + m))
    for start in range(0, bootstrap, step):
        b = min(step, bootstrap - start)
        rows = rng.multinomial(m, np.full(m, 1 / m), size=b) / m
        columns = rng.multinomial(targets, np.full(targets, 1 / targets), size=b)[:, kept]
        mean_g, mean_y = rows @ g, rows @ y
        variance = (rows @ g**2 - mean_g**2) * (rows @ y**2 - mean_y**2)
        defined = variance > _ROUNDING  # a resample of equal ranks alone has no correlation
        correlation = np.where(defined, rows @ (g * y) - mean_g * mean_y, 0) / np.sqrt(np.where(defined, variance, 1))
        weight = (columns * defined).sum(axis=1)
        means[start : start + b] = np.where(weight, (columns * correlation).sum(axis=1) / np.maximum(weight, 1), np.nan)
    return means


def _interval(resamples: NDArray[np.float64]) -> tuple[float, float]:
    if np.isnan(resamples).all():
        return np.nan, np.nan
    low, high = np.nanpercentile(resamples, [2.5, 97.5])
    return float(low), float(high)
