"""The candidates as a teacher sees them: features, statistics and barycenters of their classes, each computed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tarot.common import fingerprint, hash_tensors
from tarot.distillation import (
    ClassStatistics,
    Pixels,
    Survey,
    batches_of,
    class_barycenters,
    matched_images,
    surveyed,
)
from tarot.transport import Barycenter
from tarot.workers import LOCAL, Workers
from tasks.classification import ClassificationTask, LabelledImages
from tasks.common.cache import cached_arrays
from tasks.common.code import source_hash

BATCH = 256


@dataclass(frozen=True)
class Bytes:
    """Labelled images as an array of bytes that is read as asked for."""

    images: LabelledImages

    @cached_property
    def shape(self) -> tuple[int, ...]:
        return (len(self.images), *self.images.pixels([0]).shape[1:])

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.images.pixels(index)


@dataclass(frozen=True, eq=False)
class Pool:
    """task: whose candidates they are. teacher: in eval mode, on the task's device. weights, starts: of the
    barycenters. cache: where results are kept. engine: whose workers synthesise."""

    task: ClassificationTask
    teacher: nn.Module
    weights: Any
    starts: int | None
    cache: Path
    engine: Workers = LOCAL
    _barycenters: dict[tuple[int, int], list[Barycenter]] = field(default_factory=dict)

    @property
    def images(self) -> LabelledImages:
        return self.task.candidates()

    @property
    def names(self) -> tuple[str, ...]:
        return self.task.classes

    @cached_property
    def bytes(self) -> Bytes:
        return Bytes(self.images)

    @cached_property
    def labels(self) -> np.ndarray:
        return np.asarray(self.images.labels)

    @cached_property
    def pixels(self) -> Pixels:
        return Pixels(tuple(self.images.mean), tuple(self.images.std))

    @cached_property
    def made_of(self) -> dict[str, Any]:
        """What determines all that the teacher says of the candidates."""
        return {
            "code": source_hash(surveyed, class_barycenters, alone=(__name__,)),
            "teacher": hash_tensors(self.teacher.state_dict()),
            "data": self.task.recipe()["data"],
            "ids": fingerprint({"ids": self.task.ids("candidates")}),
        }

    def cached(self, folder: str, made_of: Mapping[str, Any], make: Any) -> dict[str, np.ndarray]:
        """Arrays that are made once."""
        return cached_arrays(self.cache / folder / f"{self.task.name}-{fingerprint(made_of)}.npz", make)

    @cached_property
    def survey(self) -> Survey:
        """Features and statistics per class of all candidates."""
        found = self.cached("distillation", {**self.made_of, "stage": "survey"}, self._surveyed)
        means, variances = (
            {name.partition(" ")[2]: torch.from_numpy(value) for name, value in found.items() if name.startswith(kind)}
            for kind in ("mean ", "variance ")
        )
        return Survey(found["features"], ClassStatistics(found["counts"], means, variances))

    def _surveyed(self) -> dict[str, np.ndarray]:
        batches = batches_of(self.bytes, self.labels, self.pixels, BATCH, self.task.device)
        found = surveyed(self.teacher, batches, self.names)
        statistics = found.statistics
        return {
            "features": found.features,
            "counts": statistics.counts,
            **{f"mean {name}": value.numpy() for name, value in statistics.means.items()},
            **{f"variance {name}": value.numpy() for name, value in statistics.variances.items()},
        }

    def barycenters(self, per_class: int, seed: int) -> list[Barycenter]:
        """Of each class's features."""
        known = self._barycenters.get((per_class, seed))
        if known is None:
            known = self._barycenters[per_class, seed] = self._quantised(per_class, seed)
        return known

    def _quantised(self, per_class: int, seed: int) -> list[Barycenter]:
        def make() -> dict[str, np.ndarray]:
            found = class_barycenters(self.survey, self.labels, per_class, self.weights, self.starts, seed)
            return {
                "positions": np.stack([one.positions for one in found]),
                "weights": np.stack([one.weights for one in found]),
                "facts": np.array([[one.cost, one.converged, one.iterations] for one in found]),
            }

        made_of = {**self.made_of, "barycenter": [per_class, self.weights, self.starts, seed]}
        kept = self.cached("distillation", made_of, make)
        return [
            Barycenter(positions, weights, float(cost), bool(converged), int(iterations))
            for positions, weights, (cost, converged, iterations) in zip(
                kept["positions"], kept["weights"], kept["facts"], strict=True
            )
        ]

    def matched(self, per_class: int, seed: int) -> np.ndarray:
        """The candidate that each atom is matched with, int64 [C, m]."""
        return matched_images(self.survey, self.labels, self.barycenters(per_class, seed))

    def features_of(self, images: np.ndarray) -> np.ndarray:
        """Of images uint8 [n, channels, H, W], float32 [n, d]."""
        alike = np.zeros(len(images), dtype=np.int64)
        return surveyed(self.teacher, batches_of(images, alike, self.pixels, BATCH, self.task.device), 1).features
