"""What finished runs left in their folders: read whole, or refused by a line that names the file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tarot import InputError
from tarot.common import check_fields, read_json, read_text

_RUN: dict[str, Any] = {
    **dict.fromkeys(("experiment", "task", "features", "selector"), str),
    "seed": int,
    **dict.fromkeys(("overrides", "not_applied"), Sequence[str]),
}
_COMPARED: dict[str, Any] = {
    "metrics": Mapping[str, float | None],
    "interval": str,
    "intervals": Mapping[str, tuple[float | None, float | None]],
}
_FACTS = dict.fromkeys(("size", "ratio", "precision", "ot_distance", "lower_bound"), float | None)
_SPACE: dict[str, Any] = {"chosen": bool, "whitening": str | None}


def read_metrics(path: Path) -> dict[str, Any]:
    """A run's metrics.json, in which null stands for a number that is not finite.

    Raises InputError where it is not what a run writes.
    """
    found = read_json(path)
    check_fields(str(path), found, {"run": Mapping[str, Any]})
    check_fields(f"{path}: run", found["run"], {"seed": int} | _there(_RUN, found["run"]))
    return dict(found)


def read_compared(path: Path) -> dict[str, Any]:
    """A run's metrics.json with all that a comparison needs; among `metrics`, null is NaN again. Raises InputError
    where it lacks some of it."""
    found = read_metrics(path)
    check_fields(str(path), found, _COMPARED | _there({"selection": Mapping[str, Any]}, found))
    check_fields(f"{path}: run", found["run"], _RUN)
    selection = found.get("selection", {})
    check_fields(f"{path}: selection", selection, _there(_FACTS, selection))
    if selection.get("space") is not None:
        check_fields(f"{path}: selection.space", selection["space"], _SPACE)
    return found | {"metrics": {name: math.nan if value is None else value for name, value in found["metrics"].items()}}


def read_config(path: Path) -> dict[str, Any]:
    """A run's config.yaml. Raises InputError where it is none."""
    try:
        found = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not YAML: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no configuration")
    return found


def _there(annotations: Mapping[str, Any], found: Any) -> dict[str, Any]:
    """Those of the fields that a mapping has."""
    return {name: wanted for name, wanted in annotations.items() if isinstance(found, Mapping) and name in found}
