"""The stage that turns checkpoints into features: one store per checkpoint, split and kind of gradient, never twice."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tarot import InputError
from tarot.arrays import Rows, blocks
from tarot.fingerprint import fingerprint, hash_tensors
from tarot.gradients import GradientFeatures, gradient_rows
from tarot.projection import Projection
from tarot.store import FeatureStore, MeanRows
from tasks.common.training import resolve_device
from tasks.features.task import FeatureTask
from tasks.task import Checkpoint, Split, Task

log = logging.getLogger("tarot")
_VERSION = 1  # of what is computed; another one never mixes with stores of this one
_LARGEST_DIM = 4096


@dataclass(frozen=True)
class FeatureRecipe:
    """What a method wants to know of a sample; conf/features says what each option means."""

    kind: str
    gradient: Literal["loss", "measurement"]
    dim: int | None
    projection: str
    projection_seed: int
    aggregate: Literal["mean", "per_checkpoint"]
    whitening: Literal["cholesky", "zca"] | None
    regularization: float
    dtype: Literal["float32", "float16"]
    batch_size: int | Literal["auto"]
    autocast: Literal["bfloat16", "float16"] | None
    on_nonfinite: Literal["raise", "drop"]
    workers: int

    def __post_init__(self) -> None:
        allowed = {
            "gradient": ("loss", "measurement"),
            "aggregate": ("mean", "per_checkpoint"),
            "whitening": ("cholesky", "zca", None),
            "dtype": ("float32", "float16"),
            "autocast": (None, "bfloat16", "float16"),
            "on_nonfinite": ("raise", "drop"),
        }
        for option, values in allowed.items():
            if getattr(self, option) not in values:
                raise InputError(f"features.{option} must be one of {values}; it is {getattr(self, option)!r}")
        if self.dim is not None and self.dim < 1:
            raise InputError(f"features.dim must be positive, or null for the default; it is {self.dim}")

    def dim_for(self, n: int, m: int) -> int | None:
        """Total dimensions of the projection; by default no more than half as many as there are points."""
        if self.projection == "identity":
            return None
        return self.dim or max(1, min(_LARGEST_DIM, (n + m) // 2))


@dataclass(frozen=True, eq=False)
class Features:
    """What a selector is given, and what is to be said about it.

    candidates, targets: one matrix per view: per independently trained model, or per checkpoint.
    fingerprint: of everything that made them. runs: which training each view belongs to.
    residuals: [N] per view (TRAK's Q), where the task has them. excluded: parameter -> why it is left out.
    zero: rows without a gradient, by split, in the worst view. skipped: rows left out, by reason.
    """

    candidates: tuple[Rows, ...]
    targets: tuple[Rows, ...]
    fingerprint: str
    runs: tuple[int, ...] = ()
    residuals: tuple[np.ndarray, ...] | None = None
    excluded: dict[str, str] | None = None
    zero: dict[str, int] | None = None
    skipped: dict[str, int] | None = None

    @property
    def dim(self) -> int:
        return self.candidates[0].shape[1]

    def of_runs(self, count: int) -> Features:
        """The views of the first `count` independently trained models."""
        views = [view for view, run in enumerate(self.runs) if run in sorted(set(self.runs))[:count]]
        return replace(
            self,
            candidates=tuple(self.candidates[view] for view in views),
            targets=tuple(self.targets[view] for view in views),
            residuals=None if self.residuals is None else tuple(self.residuals[view] for view in views),
            runs=tuple(self.runs[view] for view in views),
        )

    def facts(self) -> dict[str, Any]:
        """What metrics.json says about features."""
        return {
            "dim": self.dim,
            "views": len(self.candidates),
            "excluded_parameters": self.excluded or {},
            "zero_gradients": self.zero or {},
            "skipped": self.skipped or {},
        }


def views_of(checkpoints: list[Checkpoint], aggregate: str) -> list[list[Checkpoint]]:
    """The checkpoints whose features are averaged: those of one run (their gradients are of nearly the same weights),
    or each alone. Features of independently trained models are never averaged; their similarities are."""
    if aggregate == "per_checkpoint":
        return [[checkpoint] for checkpoint in checkpoints]
    runs = dict.fromkeys(checkpoint.run for checkpoint in checkpoints)
    return [[c for c in checkpoints if c.run == run] for run in runs]


def gradient_features(
    task: Task, checkpoints: list[Checkpoint], recipe: FeatureRecipe, cache: Path, device: str
) -> Features:
    """The features of all candidates and targets: read from `cache`, computed where they are not there yet.

    Where features are averaged they share a projection; views are projected independently of one another.
    """
    groups = views_of(checkpoints, recipe.aggregate)
    dim = recipe.dim_for(len(task.ids("candidates")), len(task.ids("targets")))
    stores: dict[Split, list[list[FeatureStore]]] = {"candidates": [], "targets": []}
    for view, group in enumerate(groups):
        projection = Projection(recipe.projection, dim, view_seed(recipe.projection_seed, view))
        sources = [_Source(task, checkpoint, recipe, projection, resolve_device(device)) for checkpoint in group]
        for split, by_view in stores.items():
            by_view.append([source.store(split, cache) for source in sources])
    every = {split: [s for view in by_view for s in view] for split, by_view in stores.items()}
    zero = {split: max(store.manifest["zero_rows"] for store in of_split) for split, of_split in every.items()}
    _report_zero(zero, {split: len(task.ids(split)) for split in stores})
    averaged = {split: tuple(_mean(view) for view in by_view) for split, by_view in stores.items()}
    return Features(
        **averaged,
        fingerprint=fingerprint(
            {"stores": [s.manifest["fingerprint"] for s in every["candidates"] + every["targets"]]}
        ),
        runs=tuple(group[0].run for group in groups),
        residuals=tuple(np.mean([s.columns["residual"] for s in view], axis=0) for view in stores["candidates"]),
        excluded=every["candidates"][0].manifest["notes"]["excluded_parameters"],
        zero=zero,
        skipped=_skipped(every["candidates"] + every["targets"]),
    )


def view_seed(seed: int, view: int) -> int:
    """A projection seed per view; `seed + view` would give neighbouring runs the same projections."""
    return int(np.random.SeedSequence((seed, view)).generate_state(1)[0])


def _skipped(stores: list[FeatureStore]) -> dict[str, int]:
    """Rows that were left out, by reason."""
    dropped = sum(int(store.columns["dropped"].sum()) for store in stores if "dropped" in store.columns)
    return {"gradient not finite": dropped} if dropped else {}


def _mean(stores: list[FeatureStore]) -> Rows:
    return stores[0] if len(stores) == 1 else MeanRows(stores)


@dataclass(frozen=True)
class _Source:
    """Features of one checkpoint. The model is only built where a row has to be computed."""

    task: Task
    checkpoint: Checkpoint
    recipe: FeatureRecipe
    projection: Projection
    device: torch.device

    def made_of(self, split: Split) -> dict[str, Any]:
        """All that determines the rows, but not how they were batched or where."""
        task = self.task.recipe()
        return {
            "version": _VERSION,
            "task": {key: task[key] for key in ("name", "data", "model")},
            "split": split,
            "checkpoint": hash_tensors(self.checkpoint.state),
            "gradient": self.recipe.gradient,
            "projection": asdict(self.projection),
            "autocast": self.recipe.autocast,
            "on_nonfinite": self.recipe.on_nonfinite,
            "dtype": self.recipe.dtype,
        }

    def store(self, split: Split, cache: Path) -> FeatureStore:
        made_of = self.made_of(split)
        dataset = self.task.candidates() if split == "candidates" else self.task.targets()
        ids = self.task.ids(split)

        def compute(start: int, stop: int) -> dict[str, Tensor]:
            return gradient_rows(
                self.gradients,
                dataset,
                range(start, stop),
                collate=self.task.collate,
                batch_size=self.recipe.batch_size,
                extras={"residual": self.task.residuals},
                device=self.device,
                ids=ids,
                on_nonfinite=self.recipe.on_nonfinite,
                workers=self.recipe.workers,
            )

        path = cache / "features" / f"{self.task.name}-{split}-{fingerprint(made_of)}"
        if path.exists():  # whole: no need to build the model, nor to know its parameters
            return FeatureStore.open(path, made_of)
        return FeatureStore.build(
            path,
            recipe=made_of,
            ids=ids,
            dim=self.gradients.dim,
            compute=compute,
            dtype=self.recipe.dtype,
            columns=("residual", "dropped") if self.recipe.on_nonfinite == "drop" else ("residual",),
            notes=lambda: {
                "covered_parameters": dict(self.gradients.coverage.covered),
                "excluded_parameters": dict(self.gradients.coverage.excluded),
            },
            description=f"{self.recipe.gradient} gradients of {len(ids)} {split}, {self.checkpoint.name}",
        )

    @cached_property
    def gradients(self) -> GradientFeatures:
        model = self.task.model()
        model.load_state_dict(dict(self.checkpoint.state))
        quantity = self.task.losses if self.recipe.gradient == "loss" else self.task.measurements
        autocast = None if self.recipe.autocast is None else getattr(torch, self.recipe.autocast)
        return GradientFeatures(model.to(self.device).eval(), quantity, self.projection, autocast=autocast)


def given_features(task: FeatureTask) -> Features:
    """The user's own feature matrices."""
    candidates, targets = task.features()
    zero = {
        split: max(_zero_rows(rows, f"task.{split}") for rows in views)
        for split, views in (("candidates", candidates), ("targets", targets))
    }
    _report_zero(zero, {"candidates": candidates[0].shape[0], "targets": targets[0].shape[0]})
    return Features(tuple(candidates), tuple(targets), fingerprint(task.recipe()), zero=zero)


def _zero_rows(rows: Rows, name: str) -> int:
    return sum(int((~block.any(dim=1)).sum()) for _, block in blocks(rows, name=name))


def _report_zero(zero: dict[str, int], of: dict[str, int]) -> None:
    """A zero row is near to nothing. Some of them are said; raises InputError where there is nothing else."""
    for split, count in zero.items():
        if count == of[split]:
            raise InputError(f"{split}: every one of the {count} rows is zero (no gradient), so nothing can be near")
        if count:
            log.warning("warning: %d of %d %s are zero rows (no gradient) and left out", count, of[split], split)
