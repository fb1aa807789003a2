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
    candidate_labels: Any = None,
    target_labels: Any = None,
    target_groups: Any = None,
    candidate_ids: Any = None,
    candidate_tags: Any = None,
    candidate_residuals: Any = None,
    **options: Any,
) -> Selection:
    """Choose which candidates [N, d] to train on, and how often, to serve the targets [M, d].

    candidates, targets: NumPy arrays, memory maps, torch tensors, `FeatureStore`s; or a list of them, one per
    independently trained model, whose similarities are then averaged.
    selector: a name from `tarot.selectors.SELECTORS` with its `options`, or a selector object.
    whitening: "cholesky" or "zca" (the same distances), None (rows as they are), or "auto": Cholesky for `tarot_*`,
    none for the others. regularization: relative ridge of the whitening.
    total: what the weights sum to; None: N for `tarot_*`, one each for the others.
    candidate_labels [N], target_labels [M], target_groups [M], candidate_ids [N], candidate_tags [N],
    candidate_residuals [N] (one vector per model): for the methods that need them.

    Raises InputError (a ValueError) or TypeError with what was wrong with which argument.
    """
    selector = _selector(selector, options)
    views = _views(candidates, "candidates"), _views(targets, "targets")
    if len(views[0]) != len(views[1]):
        raise InputError(f"candidates come from {len(views[0])} models and targets from {len(views[1])}")
    for c, t in zip(*views, strict=True):
        if c.shape[1] != t.shape[1]:
            raise InputError(
                f"candidates have {c.shape[1]} dimensions and targets {t.shape[1]}; they must be features of one space"
            )
    n, m = views[0][0].shape[0], views[1][0].shape[0]
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
    return selector.select(
        SelectionProblem(
            *views,
            whitening=whitening,
            regularization=regularization,
            total=total,
            candidate_labels=_per_row(candidate_labels, n, "candidate_labels"),
            target_labels=_per_row(target_labels, m, "target_labels"),
            target_groups=_per_row(target_groups, m, "target_groups"),
            candidate_ids=ids,
            candidate_tags=_per_row(candidate_tags, n, "candidate_tags"),
            candidate_residuals=_residuals(candidate_residuals, len(views[0]), n),
        )
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


def _residuals(values: Any, models: int, n: int) -> tuple[np.ndarray, ...] | None:
    if values is None:
        return None
    several: Sequence[Any] = values if isinstance(values, list | tuple) and np.ndim(values[0]) == 1 else [values]
    if len(several) != models:
        raise InputError(f"candidate_residuals come from {len(several)} models and candidates from {models}")
    several = tuple(_per_row(v, n, "candidate_residuals") for v in several)
    for v in several:
        if v.dtype.kind not in "fiu":
            raise InputError(f"candidate_residuals must hold real numbers; their dtype is {v.dtype}")
    return tuple(v.astype(np.float64) for v in several)
