"""Distances of runs on different features, all in one space: that of the features which most methods select by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import hydra

from experiments.frame.finished import read_config
from experiments.frame.methods import COMMON
from experiments.stages import Workbench
from tarot import Selection
from tarot.common import check_fields


def distances_in_one_space(runs: Iterable[dict[str, Any]]) -> tuple[str, dict[Path, float]]:
    """A name for the space, and the OT distance of each run's selection in it, by the run's folder.

    runs: their metrics, with "folder". Selections are measured by a run of the same task and seed whose features are
    the common ones, on the features that it left in its cache. Those that have no such run beside them, or that nothing
    is selected in, are left out.
    """
    groups: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    for run in runs:
        path = run["folder"] / "config.yaml"
        config = read_config(path)
        check_fields(str(path), config, {"task": Any, "features": Mapping[str, Any], "cache_dir": str, "device": str})
        if (run["folder"] / "selection.parquet").exists():
            groups.setdefault(repr(config["task"]), []).append((run["folder"], config))
    names: set[str] = set()
    found: dict[Path, float] = {}
    for group in groups.values():
        common = next((config for _, config in group if config["features"]["kind"] == COMMON), None)
        if common is None:
            continue
        bench = _bench(common)
        names.add(bench.problem().space.name)
        for folder, _ in group:
            selection = Selection.load(folder / "selection.parquet")
            if len(selection):
                found[folder] = bench.distance(selection)
    return f"{COMMON}, {' or '.join(sorted(names))}", found


def _bench(config: dict[str, Any]) -> Workbench[Any]:
    """That of a finished run."""
    return Workbench(
        hydra.utils.instantiate(config["task"]),
        hydra.utils.instantiate(config["features"], _convert_="all"),
        Path(cast("str", config["cache_dir"])),
        config["device"],
    )
