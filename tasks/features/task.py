"""The user's own feature matrices: a selection and its report, without a model to train."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tarot import InputError
from tarot.common import NonNegative, checked, files_below
from tarot.features import Rows, common_ids, existing_paths, open_features, read_vector
from tasks.common.contents import hash_named
from tasks.task import Split, TaskData

Paths = str | Path | Sequence[str | Path]


class FeatureTask(TaskData):
    """candidates, targets: files of features [N, d] and [M, d] (.npy, .npz, .safetensors, .pt, .parquet, a feature
    store, a TRAK run, a bergson index), or a list of them: one per checkpoint or independently trained model, in the
    same order.

    labels, ids (by default those in the files, where a store or a parquet table has them), costs, sources: of the
    candidates; target_labels, groups: of the targets, whose target_weights say in
    which proportion a selection is shared out to them. Each is a .npy vector or a text file with one
    value per line. learning_rates: one per file of candidates, where they are of checkpoints (LESS, TracIn). cache_dir:
    where hashes of files are remembered. Raises InputError where a file is missing or a vector's length is not that of
    its matrix.
    """

    has_model = False

    @checked("task")
    def __init__(
        self,
        *,
        name: str,
        candidates: Paths | None,
        targets: Paths | None,
        labels: str | Path | None = None,
        target_labels: str | Path | None = None,
        ids: str | Path | None = None,
        groups: str | Path | None = None,
        costs: str | Path | None = None,
        sources: str | Path | None = None,
        target_weights: Mapping[str | int, NonNegative] | None = None,
        learning_rates: Sequence[float] | None = None,
        cache_dir: str | Path = "cache",
    ) -> None:
        if not candidates or not targets:
            raise InputError(
                "task.candidates and task.targets must name files of features: "
                ".npy, .npz, .safetensors, .pt, .parquet or a feature store"
            )
        self.name = name
        self.cache_dir = Path(cache_dir)
        self.paths = {
            "candidates": existing_paths(candidates, "task.candidates"),
            "targets": existing_paths(targets, "task.targets"),
        }
        if len(self.paths["candidates"]) != len(self.paths["targets"]):
            raise InputError("task.candidates and task.targets must list as many files each: one per model")
        if learning_rates is not None and len(learning_rates) != len(self.paths["candidates"]):
            raise InputError(
                f"task.learning_rates must be one per file of task.candidates, {len(self.paths['candidates'])}; there "
                f"are {len(learning_rates)}"
            )
        self.learning_rates = None if learning_rates is None else tuple(learning_rates)
        self.rows = {split: [open_features(path) for path in paths] for split, paths in self.paths.items()}
        sizes = {split: rows[0].shape[0] for split, rows in self.rows.items()}
        self.vectors = {
            "labels": read_vector(labels, "task.labels", sizes["candidates"]),
            "target_labels": read_vector(target_labels, "task.target_labels", sizes["targets"]),
            "ids": read_vector(ids, "task.ids", sizes["candidates"]),
            "groups": read_vector(groups, "task.groups", sizes["targets"]),
            "costs": read_vector(costs, "task.costs", sizes["candidates"]),
            "sources": read_vector(sources, "task.sources", sizes["candidates"]),
        }
        own = {"candidates": self.vectors["ids"]}
        self.names = {split: _names(rows, own.get(split), f"task.{split}") for split, rows in self.rows.items()}
        self.weights = None if target_weights is None else {str(name): w for name, w in target_weights.items()}
        given = {"labels": labels, "target_labels": target_labels, "ids": ids, "groups": groups}
        given |= {"costs": costs, "sources": sources}
        self.files = self.paths | {role: [Path(path)] for role, path in given.items() if path is not None}

    def features(self) -> tuple[list[Rows], list[Rows]]:
        """Candidates and targets, one matrix of each per model: what `tarot.select` takes."""
        return self.rows["candidates"], self.rows["targets"]

    def ids(self, split: Split) -> list[str]:
        if split not in self.rows:
            return []
        names = self.names[split]
        return [f"{split}-{i}" for i in range(self.rows[split][0].shape[0])] if names is None else names

    def total(self) -> None:
        """The selector's own choice: what is trained on the selection is not known here."""

    def labels(self, split: Split = "candidates") -> np.ndarray | None:
        return self.vectors["labels" if split == "candidates" else "target_labels"]

    def target_groups(self) -> np.ndarray | None:
        return self.vectors["groups"]

    def target_weights(self) -> Mapping[str, float] | None:
        return self.weights

    def candidate_sources(self) -> np.ndarray | None:
        return self.vectors["sources"]

    def candidate_costs(self) -> np.ndarray | None:
        costs = self.vectors["costs"]
        try:
            return None if costs is None else costs.astype(np.float64)
        except ValueError as error:
            raise InputError(f"task.costs must hold numbers: {error}") from error

    def recipe(self) -> dict[str, Any]:
        """Files are known by what is in them."""
        files = {role: [_content(path, self.cache_dir) for path in paths] for role, paths in self.files.items()}
        return {"name": self.name, "data": {"files": files, "learning_rates": self.learning_rates}}


def _names(rows: Sequence[Rows], given: np.ndarray | None, where: str) -> list[str] | None:
    """Of the samples that these matrices are of: those that are given, or that one of them knows."""
    ids = common_ids(rows, where) if given is None else given
    if ids is None:
        return None
    names: list[str] = ids.astype(str).tolist()
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"{where}: ids must be unique; {twice[0]!r} stands {names.count(twice[0])} times")
    return names


def _content(path: Path, cache: Path) -> str:
    """What is in a file, or in all files of a folder. The manifest of a store has the checksums of the others."""
    if not path.is_dir():
        return hash_named({"": path}, cache)
    manifest = path / "manifest.json"
    inside = [manifest] if manifest.is_file() else files_below(path)
    return hash_named({file.relative_to(path).as_posix(): file for file in inside}, cache)
