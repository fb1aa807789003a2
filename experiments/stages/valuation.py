"""The stage that values candidates, whole or a part of them: one file for each method and what it saw."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import tarot
from experiments.stages.cache import made
from experiments.stages.features import FeatureRecipe, Features
from tarot import InputError
from tarot.common import fingerprint
from tarot.features import Rows
from tarot.selectors import Selector, described
from tasks.task import TaskData

_VERSION = 1  # of what is computed; another one never reads files of this one


@dataclass(frozen=True, eq=False)
class Valued:
    """values: float64 [n], higher = more valuable. seconds: that they took when they were computed, without the
    features."""

    values: np.ndarray
    seconds: float


@dataclass(frozen=True, eq=False)
class PartRows:
    """Some rows of a matrix, read when they are asked for."""

    rows: Rows
    indices: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.indices), *self.rows.shape[1:])

    @property
    def dtype(self) -> Any:
        return self.rows.dtype

    def __getitem__(self, index: Any) -> Any:
        return self.rows[self.indices[index]]


def part(features: Features, indices: np.ndarray) -> Features:
    """The same features with these candidates alone, int64 [n]."""

    def rows(vectors: tuple[np.ndarray, ...] | None) -> tuple[np.ndarray, ...] | None:
        return None if vectors is None else tuple(vector[indices] for vector in vectors)

    return replace(
        features,
        candidates=tuple(PartRows(view, indices) for view in features.candidates),
        residuals=rows(features.residuals),
        scores=rows(features.scores),
        fingerprint=fingerprint({"features": features.fingerprint, "candidates": indices.tolist()}),
    )


def value(
    task: TaskData,
    features: Features,
    recipe: FeatureRecipe,
    method: Selector,
    name: str,
    cache: Path,
    candidates: np.ndarray | None = None,
) -> Valued:
    """What `method` makes of the candidates (of these alone, int64 [n], where they are given).

    Raises InputError with the method's name where it refuses.
    """
    chosen = np.arange(len(task.ids("candidates"))) if candidates is None else candidates
    features = features if candidates is None else part(features, candidates)
    made_of = {
        "version": _VERSION,
        "features": features.fingerprint,
        "task": task.recipe()["data"],
        "method": described(method),
        "space": [recipe.whitening, recipe.regularization],
    }

    def make(path: Path) -> None:
        start = time.perf_counter()
        try:
            values = tarot.value(
                **features.arguments(),
                method=method,
                whitening=recipe.whitening,
                regularization=recipe.regularization,
                candidate_labels=_of(task.labels("candidates"), chosen),
                target_labels=task.labels("targets"),
                target_groups=task.target_groups(),
            )
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
        seconds = time.perf_counter() - start
        ids = np.asarray(task.ids("candidates"))[chosen]
        table = pa.table({"id": pa.array(ids.tolist()), "value": pa.array(values, pa.float64())})
        pq.write_table(table.replace_schema_metadata({"method": name, "seconds": f"{seconds:.4f}"}), path)

    path = made(cache / "values" / f"{task.name}-{name}-{fingerprint(made_of)}.parquet", make)
    table = pq.read_table(path)  # read back even where it was just made, so that a first run and a second see the same
    return Valued(table["value"].to_numpy(), float(table.schema.metadata[b"seconds"]))


def _of(labels: np.ndarray | None, chosen: np.ndarray) -> np.ndarray | None:
    return None if labels is None else labels[chosen]
