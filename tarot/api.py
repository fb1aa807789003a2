"""`tarot.select`: arrays in, a Selection out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tarot.arrays import InputError, Rows, as_rows
from tarot.problem import SelectionProblem
from tarot.selection import Selection
from tarot.selectors import SELECTORS, Selector

_WHITENINGS = ("auto", "cholesky", "zca", None)


def select(
    candidates: Any,
    targets: Any,
    selector: str | Selector,
    *,
    whitening: str | None = "auto",
    regularization: float = 1e-3,
    total: int | None = None,
    total_may_grow: bool = False,
    candidate_labels: Any = None,
    target_labels: Any = None,
    target_groups: Any = None,
    candidate_ids: Any = None,
    candidate_tags: Any = None,
    candidate_residuals: Any = None,
    candidate_scores: Any = None,
    learning_rates: Any = None,
    **options: Any,
) -> Selection:
    """Choose which candidates [N, d] to train on, and how often, to serve the targets [M, d].

    candidates, targets: NumPy arrays, memory maps, torch tensors, `FeatureStore`s; or a list of them, one per
    checkpoint or independently trained model, whose similarities are then averaged.
    selector: a name from `tarot.selectors.SELECTORS` with its `options`, or a selector object.
    whitening: "cholesky" or "zca" (the same distances), None (rows as they are), or "auto": Cholesky for `tarot_*`,
    none for the others. Methods that compare rows in their own way (`less`, `dsdm`, `tracin`, `lava`, `sava`,
    `batchwise_lava`, `knn_shapley`, `prototypes`) value them as they are; for them it shapes the reported distances
    alone. regularization: relative ridge of the whitening.
    total: what the weights sum to; None: N for `tarot_*`, sampling counts for `tsds`, one each for the others.
    total_may_grow: where the selection is larger than `total`, one each, instead of an error.
    candidate_labels [N], target_labels [M], target_groups [M] (subtasks), candidate_ids [N], candidate_tags [N],
    candidate_residuals [N] (TRAK's Q) and candidate_scores [N] (`el2n`: error norms; `influence`: influences), one
    vector per model, learning_rates (`less`, `tracin`: one per checkpoint): for the methods that need them.

    Raises InputError (a ValueError) or TypeError with what was wrong with which argument.
    """
    selector = _selector(selector, options)
    return selector.select(
        _problem(
            selector,
            candidates,
            targets,
            whitening=whitening,
            regularization=regularization,
            total=total,
            total_may_grow=total_may_grow,
            candidate_labels=candidate_labels,
            target_labels=target_labels,
            target_groups=target_groups,
            candidate_ids=candidate_ids,
            candidate_tags=candidate_tags,
            candidate_residuals=candidate_residuals,
            candidate_scores=candidate_scores,
            learning_rates=learning_rates,
        )
    )


def value(
    candidates: Any,
    targets: Any,
    method: str | Selector,
    *,
    whitening: str | None = "auto",
    regularization: float = 1e-3,
    candidate_labels: Any = None,
    target_labels: Any = None,
    target_groups: Any = None,
    candidate_residuals: Any = None,
    candidate_scores: Any = None,
    learning_rates: Any = None,
    **options: Any,
) -> np.ndarray:
    """What every candidate is worth to the targets: float64 [N], HIGHER = more valuable.

    The arguments are those of `select`. Methods that choose a set without valuing its members (`random`, `all`, ...)
    raise InputError.
    """
    method = _selector(method, options)
    if not hasattr(method, "values"):
        able = ", ".join(name for name, kind in sorted(SELECTORS.items()) if hasattr(kind, "values"))
        raise InputError(f"{type(method).__name__} gives candidates no values; these do: {able}")
    return method.values(
        _problem(
            method,
            candidates,
            targets,
            whitening=whitening,
            regularization=regularization,
            candidate_labels=candidate_labels,
            target_labels=target_labels,
            target_groups=target_groups,
            candidate_residuals=candidate_residuals,
            candidate_scores=candidate_scores,
            learning_rates=learning_rates,
        )
    )


def _problem(
    selector: Selector,
    candidates: Any,
    targets: Any,
    *,
    whitening: str | None,
    regularization: float,
    total: int | None = None,
    total_may_grow: bool = False,
    candidate_labels: Any = None,
    target_labels: Any = None,
    target_groups: Any = None,
    candidate_ids: Any = None,
    candidate_tags: Any = None,
    candidate_residuals: Any = None,
    candidate_scores: Any = None,
    learning_rates: Any = None,
) -> SelectionProblem:
    views = _views(candidates, "candidates"), _views(targets, "targets")
    if len(views[0]) != len(views[1]):
        raise InputError(f"candidates come from {len(views[0])} models and targets from {len(views[1])}")
    for c, t in zip(*views, strict=True):
        if c.shape[1] != t.shape[1]:
            raise InputError(
                f"candidates have {c.shape[1]} dimensions and targets {t.shape[1]}; they must be features of one space"
            )
    models, n, m = len(views[0]), views[0][0].shape[0], views[1][0].shape[0]
    if whitening not in _WHITENINGS:
        raise InputError(f"whitening must be one of {_WHITENINGS}; it is {whitening!r}")
    if whitening == "auto":
        whitening = "cholesky" if type(selector).__name__.startswith("Tarot") else None
    if total is not None and (isinstance(total, bool) or not isinstance(total, int | np.integer) or total < 1):
        raise InputError(f"total must be a positive integer; it is {total!r}")
    ids = _per_row(candidate_ids, n, "candidate_ids")
    if ids is not None and len(np.unique(ids)) < n:
        values, counts = np.unique(ids, return_counts=True)
        raise InputError(f"candidate_ids must be unique; {values[counts > 1][0].item()!r} stands {counts.max()} times")
    return SelectionProblem(
        *views,
        whitening=whitening,
        regularization=regularization,
        total=total,
        total_may_grow=total_may_grow,
        candidate_labels=_per_row(candidate_labels, n, "candidate_labels"),
        target_labels=_per_row(target_labels, m, "target_labels"),
        target_groups=_per_row(target_groups, m, "target_groups"),
        candidate_ids=ids,
        candidate_tags=_per_row(candidate_tags, n, "candidate_tags"),
        candidate_residuals=_numbers(candidate_residuals, models, n, "candidate_residuals"),
        candidate_scores=_numbers(candidate_scores, models, n, "candidate_scores"),
        learning_rates=_rates(learning_rates, models),
    )


def _selector(selector: str | Selector, options: dict[str, Any]) -> Selector:
    if not isinstance(selector, str):
        if options:
            raise TypeError(f"options {sorted(options)} belong into the selector object {selector}")
        if isinstance(selector, type) or not isinstance(selector, Selector):
            raise TypeError(f"selector must be a name or have a `select` method; it is {selector!r}")
        return selector
    if selector not in SELECTORS:
        raise InputError(f"there is no selector {selector!r}; there are {', '.join(sorted(SELECTORS))}")
    try:
        return SELECTORS[selector](**options)
    except TypeError as error:
        raise TypeError(f"selector {selector!r}: {error}") from error


def _views(features: Any, name: str) -> tuple[Rows, ...]:
    """One matrix, or a list of matrices with the same rows (not a nested list of numbers)."""
    several = isinstance(features, list | tuple) and len(features) > 0 and len(getattr(features[0], "shape", ())) == 2
    if not several:
        return (as_rows(features, name),)
    views = tuple(as_rows(view, f"{name}[{i}]") for i, view in enumerate(features))
    rows = sorted({view.shape[0] for view in views})
    if len(rows) > 1:
        raise InputError(f"{name}: the models must have seen the same rows; they have {rows}")
    return views


def _per_row(values: Any, rows: int, name: str) -> np.ndarray | None:
    if values is None:
        return None
    values = np.asarray(values)
    if values.shape != (rows,):
        raise InputError(f"{name} must have one entry for each of the {rows} rows; its shape is {values.shape}")
    return values


def _numbers(values: Any, models: int, n: int, name: str) -> tuple[np.ndarray, ...] | None:
    """One vector of finite numbers [N] per model."""
    if values is None:
        return None
    listed = isinstance(values, list | tuple) and len(values) > 0 and np.ndim(values[0]) == 1
    several: Sequence[Any] = values if listed else [values]
    if len(several) != models:
        raise InputError(f"{name} come from {len(several)} models and candidates from {models}")
    several = tuple(_per_row(v, n, name) for v in several)
    for v in several:
        if v.dtype.kind not in "fiu":
            raise InputError(f"{name} must hold real numbers; their dtype is {v.dtype}")
        if not np.isfinite(v).all():
            row = int(np.flatnonzero(~np.isfinite(v))[0])
            raise InputError(f"{name} must be finite; that of candidate {row} is {v[row]}")
    return tuple(v.astype(np.float64) for v in several)


def _rates(values: Any, models: int) -> tuple[float, ...] | None:
    if values is None:
        return None
    try:
        rates = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"learning_rates must be numbers; they are {values!r}") from error
    if rates.shape != (models,):
        raise InputError(f"learning_rates must be one per model, [{models}]; their shape is {rates.shape}")
    if not (np.isfinite(rates).all() and (rates >= 0).all() and rates.any()):
        raise InputError(f"learning_rates must be finite, at least 0 and not all 0; they are {rates.tolist()}")
    return tuple(rates.tolist())
