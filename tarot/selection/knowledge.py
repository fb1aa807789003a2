"""What a caller says about the rows of a problem, read and checked: features, and what is known of every row.

Each function gives the argument in the form that a `SelectionProblem` holds, or raises InputError with its name.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tarot.common import InputError
from tarot.features import Rows, as_rows, unmasked


def views(features: Any, name: str) -> tuple[Rows, ...]:
    """One matrix, or a list of matrices with the same rows (not a nested list of numbers)."""
    several = isinstance(features, list | tuple) and len(features) > 0 and len(getattr(features[0], "shape", ())) == 2
    if not several:
        return (as_rows(features, name),)
    found = tuple(as_rows(view, f"{name}[{i}]") for i, view in enumerate(features))
    rows = sorted({view.shape[0] for view in found})
    if len(rows) > 1:
        raise InputError(f"{name}: the models must have seen the same rows; they have {rows}")
    return found


def check_one_space(candidates: Sequence[Rows], targets: Sequence[Rows]) -> None:
    """Raises InputError unless both sides were seen by the same models."""
    if len(candidates) != len(targets):
        raise InputError(f"candidates come from {len(candidates)} models and targets from {len(targets)}")
    for c, t in zip(candidates, targets, strict=True):
        if c.shape[1] != t.shape[1]:
            raise InputError(
                f"candidates have {c.shape[1]} dimensions and targets {t.shape[1]}; they must be features of one space"
            )


@overload
def per_row(values: None, rows: int, name: str) -> None: ...
@overload
def per_row(values: ArrayLike, rows: int, name: str) -> NDArray[Any]: ...
def per_row(values: ArrayLike | None, rows: int, name: str) -> NDArray[Any] | None:
    """One entry for every row, [rows]."""
    if values is None:
        return None
    found = unmasked(values, name) if np.ma.isMaskedArray(values) else np.asarray(values)
    if found.shape != (rows,):
        raise InputError(f"{name} must have one entry for each of the {rows} rows; its shape is {found.shape}")
    return found


def unique_ids(values: ArrayLike | None, rows: int, name: str) -> NDArray[Any] | None:
    """A different one for every row, [rows]."""
    if values is None:
        return None
    ids = per_row(values, rows, name)
    try:
        different, counts = np.unique(ids, return_counts=True)
    except TypeError as error:
        raise InputError(f"{name} must be strings or integers; that of row 0 is {ids[0]!r}") from error
    if len(different) < rows:
        twice = different[counts > 1][0].item()
        raise InputError(f"{name} must be unique; {twice!r} stands {counts.max()} times")
    return ids


def numbers(values: Any, models: int, rows: int, name: str) -> tuple[NDArray[np.float64], ...] | None:
    """One vector of finite numbers per model, float64 [rows] each."""
    if values is None:
        return None
    listed = isinstance(values, list | tuple) and len(values) > 0 and np.ndim(values[0]) == 1
    several: Sequence[Any] = values if listed else [values]
    if len(several) != models:
        raise InputError(f"{name} come from {len(several)} models and candidates from {models}")
    vectors = [per_row(v, rows, name) for v in several]
    for v in vectors:
        if v.dtype.kind not in "fiu":
            raise InputError(f"{name} must hold real numbers; their dtype is {v.dtype}")
        if not np.isfinite(v).all():
            row = int(np.flatnonzero(~np.isfinite(v))[0])
            raise InputError(f"{name} must be finite; that of candidate {row} is {v[row]}")
    return tuple(v.astype(np.float64) for v in vectors)


def costs(values: Any, rows: int, name: str) -> NDArray[np.float64] | None:
    """One finite number of at least 0 per row, not all 0, float64 [rows]."""
    known = numbers(None if values is None else [values], 1, rows, name)
    if known is None:
        return None
    (found,) = known
    if (found < 0).any() or not found.any():
        raise InputError(f"{name} must be at least 0 and not all 0; the least is {found.min()}")
    return found


def weights(given: Mapping[Any, float] | None, groups: NDArray[Any] | None) -> dict[str, float] | None:
    """Every group of the targets, as text, has a weight of at least 0, one of them above, and nothing else has one."""
    if given is None:
        return None
    if groups is None:
        raise InputError("group_weights are of groups of the targets, and there are no target_groups")
    if not isinstance(given, Mapping):
        raise InputError(f'group_weights must be a mapping such as {{"math": 2, "code": 1}}; they are {given!r}')
    weights = {str(group): weight for group, weight in given.items()}
    there, named = set(np.unique(groups.astype(np.str_)).tolist()), set(weights)
    if there != named:
        wrong = sorted(there ^ named)[0]
        what = "has no weight" if wrong in there else f"is no group; there are {', '.join(sorted(there))}"
        raise InputError(f"group_weights: {wrong!r} {what}")
    for group, weight in weights.items():
        number = isinstance(weight, int | float | np.number) and not isinstance(weight, bool)
        if not (number and 0 <= weight < np.inf):
            raise InputError(f"group_weights: that of {group!r} must be a number of at least 0; it is {weight!r}")
    if not any(weights.values()):
        raise InputError("group_weights: one of them must be above 0")
    return {group: float(weight) for group, weight in weights.items()}


def rates(values: Any, models: int, name: str) -> tuple[float, ...] | None:
    """One weight per model, at least 0 and not all 0."""
    if values is None:
        return None
    try:
        found = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be numbers; they are {values!r}") from error
    if found.shape != (models,):
        raise InputError(f"{name} must be one per model, [{models}]; their shape is {found.shape}")
    if not (np.isfinite(found).all() and (found >= 0).all() and found.any()):
        raise InputError(f"{name} must be finite, at least 0 and not all 0; they are {found.tolist()}")
    return tuple(found.tolist())


def classes(labels: NDArray[Any], name: str) -> NDArray[Any]:
    """Labels that can be sorted: numbers or strings, none of them missing."""
    if labels.dtype == object and all(isinstance(label, str) for label in labels):
        labels = labels.astype(str)  # as pandas holds strings
    if labels.dtype.kind not in "biufUS":
        raise InputError(f"{name} must be all strings or all numbers; their dtype is {labels.dtype}")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        row = int(np.flatnonzero(~np.isfinite(labels))[0])
        raise InputError(f"{name}: the label of row {row} is {labels[row]}")
    return labels


def codes(
    candidate_labels: NDArray[Any] | None, target_labels: NDArray[Any] | None, method: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Classes of candidates int64 [N] and targets int64 [M], as codes of one index: see `SelectionProblem.labels`."""
    named: dict[str, NDArray[Any]] = {}
    for name, labels in ("candidate_labels", candidate_labels), ("target_labels", target_labels):
        if labels is None:
            raise InputError(f"{method} compares labelled samples and needs {name}; there are none")
        named[name] = labels
    both = [classes(labels, name) for name, labels in named.items()]
    kinds = [labels.dtype.kind for labels in both]
    if (kinds[0] in "US") != (kinds[1] in "US"):
        one, other = (f"{'text' if labels.dtype.kind in 'US' else 'numbers'}, such as {labels[0]!s}" for labels in both)
        raise InputError(f"candidate_labels are {one}, and target_labels {other}: give one type")
    n = len(both[0])
    found = np.unique(np.concatenate(both), return_inverse=True)[1].astype(np.int64)
    if not np.isin(found[:n], found[n:]).any():
        ours, theirs = (labels[0].item() for labels in both)
        warnings.warn(
            f"candidates and targets have no class in common (such as {ours!r} and {theirs!r}): are their labels "
            "spelled alike?",
            stacklevel=3,
        )
    return found[:n], found[n:]
