"""The stage that turns checkpoints into features: one store per checkpoint, split and kind of gradient, never twice."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from experiments.stages.cache import made
from tarot import InputError
from tarot.common import Count, Natural, NonNegative, check_options, fingerprint, hash_tensors
from tarot.features import FeatureStore, MeanRows, Rows, blocks
from tarot.featurize import stored_rows
from tarot.gradients import (
    Activations,
    AdamGradients,
    GradientFeatures,
    Losses,
    Projection,
    ProjectionKind,
    RankOneAdamGradients,
    adam_features,
    resolve_device,
    to_device,
)
from tarot.influence import influence_scores
from tasks.features.task import FeatureTask
from tasks.task import Batch, Checkpoint, CostsSamples, GivesEmbeddings, GivesErrorNorms, Split, Task, able

RowMaker = GradientFeatures | AdamGradients | RankOneAdamGradients | Activations

log = logging.getLogger("tarot")
_VERSION = 2  # of what is computed; another one never mixes with stores of this one
_LARGEST_DIM = 4096


@dataclass(frozen=True)
class FeatureRecipe:
    """What a method wants to know of a sample; conf/features says what each option means."""

    kind: str
    gradient: Literal["loss", "measurement"] | None
    checkpoints: Literal["all", "first", "last"]
    preconditioner: Literal["adam", "adam_rank1", "adam_released"] | None
    scores: Literal["error_norm", "influence"] | None
    influence: Mapping[str, Any]
    dim: Count | None
    projection: ProjectionKind
    projection_seed: int
    aggregate: Literal["mean", "per_checkpoint"]
    whitening: Literal["cholesky", "zca"] | None
    regularization: NonNegative
    dtype: Literal["float32", "float16"]
    batch_size: Count | Literal["auto"]
    autocast: Literal["bfloat16", "float16"] | None
    on_nonfinite: Literal["raise", "drop"]
    workers: Natural

    def __post_init__(self) -> None:
        check_options(self, "features")

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
    residuals: [N] per view (TRAK's Q), where the task has them. scores: [N] per view, of what was measured on the model
    itself. learning_rates: of each view's checkpoints. excluded: parameter -> why it is left out.
    zero: rows without a gradient, by split, in the worst view. skipped: rows left out, by reason.
    """

    candidates: tuple[Rows, ...]
    targets: tuple[Rows, ...]
    fingerprint: str
    runs: tuple[int, ...] = ()
    residuals: tuple[np.ndarray, ...] | None = None
    scores: tuple[np.ndarray, ...] | None = None
    learning_rates: tuple[float, ...] | None = None
    excluded: dict[str, str] | None = None
    zero: dict[str, int] | None = None
    skipped: dict[str, int] | None = None

    @property
    def dim(self) -> int:
        return self.candidates[0].shape[1]

    def of_runs(self, count: int) -> Features:
        """The views of the first `count` independently trained models."""
        views = [view for view, run in enumerate(self.runs) if run in sorted(set(self.runs))[:count]]
        per_view = ("candidates", "targets", "runs", "residuals", "scores", "learning_rates")
        known = {name: getattr(self, name) for name in per_view if getattr(self, name) is not None}
        return replace(self, **{name: tuple(values[view] for view in views) for name, values in known.items()})

    def arguments(self) -> dict[str, Any]:
        """What `tarot.select` and `tarot.value` are given of them."""
        return {
            "candidates": list(self.candidates),
            "targets": list(self.targets),
            "candidate_residuals": None if self.residuals is None else list(self.residuals),
            "candidate_scores": None if self.scores is None else list(self.scores),
            "learning_rates": self.learning_rates,
        }

    def facts(self) -> dict[str, Any]:
        """What metrics.json says about features."""
        return {
            "dim": self.dim,
            "views": len(self.candidates),
            "excluded_parameters": self.excluded or {},
            "zero_gradients": self.zero or {},
            "skipped": self.skipped or {},
        }


def views_of(checkpoints: list[Checkpoint], aggregate: str, which: str = "all") -> list[list[Checkpoint]]:
    """The checkpoints whose features are averaged: those of one run (their gradients are of nearly the same weights),
    or each alone. Features of independently trained models are never averaged; their similarities are. which: all,
    or the first or last of every run."""
    kept = {"all": slice(None), "first": slice(1), "last": slice(-1, None)}[which]
    by_run = dict.fromkeys(checkpoint.run for checkpoint in checkpoints)
    groups = [[c for c in checkpoints if c.run == run][kept] for run in by_run]
    return [[c] for group in groups for c in group] if aggregate == "per_checkpoint" else groups


def gradient_features(
    task: Task, checkpoints: list[Checkpoint], recipe: FeatureRecipe, cache: Path, device: str
) -> Features:
    """The features of all candidates and targets: read from `cache`, computed where they are not there yet.

    Where features are averaged they share a projection; views are projected independently of one another.
    """
    groups = views_of(checkpoints, recipe.aggregate, recipe.checkpoints)
    if recipe.checkpoints == "first" and len(checkpoints) == len({c.run for c in checkpoints}):
        log.warning(
            "warning: features.checkpoints=first, and every run has one checkpoint, at its end: for one that is early "
            "ask for more (task.surrogate.checkpoints=4)"
        )
    dim = recipe.dim_for(len(task.ids("candidates")), len(task.ids("targets")))
    stores: dict[Split, list[list[FeatureStore]]] = {"candidates": [], "targets": []}
    for view, group in enumerate(groups):
        projection = Projection(recipe.projection, dim, view_seed(recipe.projection_seed, view))
        of_view: dict[Split, list[FeatureStore]] = {split: [] for split in stores}
        for checkpoint in group:
            source = _Source(task, checkpoint, recipe, projection, resolve_device(device))
            for split, of_split in of_view.items():
                of_split.append(source.store(split, cache))
            del source  # and its model: the next one may not fit beside it
        for split, by_view in stores.items():
            by_view.append(of_view[split])
    every = {split: [s for view in by_view for s in view] for split, by_view in stores.items()}
    zero = {split: max(store.manifest["zero_rows"] for store in of_split) for split, of_split in every.items()}
    _report_zero(zero, {split: len(task.ids(split)) for split in stores})
    learning_rates = tuple(float(np.mean([c.learning_rate for c in group])) for group in groups)
    averaged = {split: tuple(_mean(view) for view in by_view) for split, by_view in stores.items()}
    return Features(
        **averaged,
        fingerprint=fingerprint(
            {
                "stores": [s.manifest["fingerprint"] for s in every["candidates"] + every["targets"]],
                "influence": dict(recipe.influence) if recipe.scores == "influence" else None,
                "learning_rates": list(learning_rates),
            }
        ),
        runs=tuple(group[0].run for group in groups),
        residuals=_column("residual", stores["candidates"]),
        scores=_scores(task, groups, recipe, stores["candidates"], cache, device),
        learning_rates=learning_rates,
        excluded=every["candidates"][0].manifest["notes"]["excluded_parameters"],
        zero=zero,
        skipped=_skipped(every["candidates"] + every["targets"]),
    )


def _column(name: str, views: list[list[FeatureStore]]) -> tuple[np.ndarray, ...] | None:
    """A column of the stores, [N] per view: the mean over its checkpoints."""
    if name not in views[0][0].columns:
        return None
    return tuple(np.mean([store.columns[name] for store in view], axis=0) for view in views)


def _scores(
    task: Task,
    groups: list[list[Checkpoint]],
    recipe: FeatureRecipe,
    stores: list[list[FeatureStore]],
    cache: Path,
    device: str,
) -> tuple[np.ndarray, ...] | None:
    if recipe.scores != "influence":
        return _column("error_norm", stores)
    return tuple(np.mean([influences(task, c, recipe, cache, device) for c in group], axis=0) for group in groups)


def influences(task: Task, checkpoint: Checkpoint, recipe: FeatureRecipe, cache: Path, device: str) -> np.ndarray:
    """Influence of every candidate on the mean loss of the targets at a checkpoint, float64 [N]; computed once."""
    made_of = {
        "version": _VERSION,
        "task": _data_and_model(task),
        "ids": [_ids(task, split) for split in ("candidates", "targets")],
        "checkpoint": hash_tensors(checkpoint.state),
        "influence": dict(recipe.influence),
    }

    def make(path: Path) -> None:
        model = task.model()
        model.load_state_dict(dict(checkpoint.state))
        found = influence_scores(
            model.to(resolve_device(device)).eval(),
            task.losses,
            task.candidates(),
            task.targets(),
            collate=task.collate,
            **recipe.influence,
        )
        facts = {"damping": found.damping, "iterations": found.iterations, "residual": found.residual}
        log.info("influence at %s: %s", checkpoint.name, facts)
        save_file(
            {"scores": torch.from_numpy(found.scores)}, path, metadata={key: str(value) for key, value in facts.items()}
        )

    path = cache / "influence" / f"{task.name}-{fingerprint(made_of)}.safetensors"
    return load_file(made(path, make))["scores"].numpy()


def _data_and_model(task: Task) -> dict[str, Any]:
    recipe = task.recipe()
    return {key: recipe[key] for key in ("name", "data", "model")}


def _ids(task: Task, split: Split) -> str:
    """Which samples, and in which order: rows go by number."""
    return fingerprint({"ids": list(task.ids(split))})


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
        return {
            "version": _VERSION,
            "task": {**_data_and_model(self.task), "data": self.task.split_recipe(split)},
            "split": split,
            "ids": _ids(self.task, split),
            "checkpoint": hash_tensors(self.checkpoint.state),
            "gradient": self.recipe.gradient or "embedding",
            "projection": asdict(self.projection) if self.recipe.gradient else None,
            "preconditioner": self.preconditioner(split),
            "columns": sorted(self.columns),
            "autocast": self.recipe.autocast,
            "on_nonfinite": self.recipe.on_nonfinite,
            "dtype": self.recipe.dtype,
        }

    def store(self, split: Split, cache: Path) -> FeatureStore:
        ids = self.task.ids(split)
        made_of = self.made_of(split)
        return stored_rows(
            cache / "features" / f"{self.task.name}-{split}-{fingerprint(made_of)}",
            lambda: self.rows(split),
            self.task.candidates() if split == "candidates" else self.task.targets(),
            made_of=made_of,
            ids=ids,
            collate=self.task.collate,
            batch_size=self.recipe.batch_size,
            cost=self.task.cost if isinstance(self.task, CostsSamples) else None,
            extras=self.columns,
            device=self.device,
            dtype=self.recipe.dtype,
            on_nonfinite=self.recipe.on_nonfinite,
            workers=self.recipe.workers,
            description=f"{self.described(split)} of {len(ids)} {split}, {self.checkpoint.name}",
        )

    @property
    def columns(self) -> dict[str, Callable[[nn.Module, Batch], Tensor]]:
        """What is stored beside the features of a row."""
        if self.recipe.scores == "error_norm":
            return {"error_norm": able(self.task, GivesErrorNorms).error_norms}
        return {"residual": self.task.residuals} if self.recipe.gradient else {}

    def preconditioner(self, split: Split) -> list[str] | None:
        """LESS: candidates move the model by Adam's steps, targets say which way is down (theory.md 2)."""
        if self.recipe.preconditioner is None or split != "candidates":
            return None
        state = self.checkpoint.optimizer_state or {}  # its absence is an error of the engine's
        moments = {f"{name}.{key}": torch.as_tensor(v) for name, kept in state.items() for key, v in kept.items()}
        return [self.recipe.preconditioner, hash_tensors(moments)]

    def described(self, split: Split) -> str:
        if self.recipe.gradient is None:
            return "embeddings"
        return f"{'Adam-preconditioned ' if self.preconditioner(split) else ''}{self.recipe.gradient} gradients"

    def rows(self, split: Split) -> RowMaker:
        """What makes the rows of a split."""
        if self.recipe.gradient is None:
            return self.activations
        return self.preconditioned if self.preconditioner(split) else self.gradients

    @cached_property
    def model(self) -> nn.Module:
        model = self.task.model()
        model.load_state_dict(dict(self.checkpoint.state))
        return model.to(self.device).eval()

    @property
    def quantity(self) -> Losses:
        return self.task.losses if self.recipe.gradient == "loss" else self.task.measurements

    @property
    def autocast(self) -> torch.dtype | None:
        return None if self.recipe.autocast is None else getattr(torch, self.recipe.autocast)

    @cached_property
    def gradients(self) -> GradientFeatures:
        return GradientFeatures(self.model, self.quantity, self.projection, autocast=self.autocast)

    @cached_property
    def preconditioned(self) -> AdamGradients | RankOneAdamGradients:
        return adam_features(
            self.model,
            self.quantity,
            self.projection,
            self.checkpoint.optimizer_state,
            mode=self.recipe.preconditioner,
            autocast=self.autocast,
        )

    @cached_property
    def activations(self) -> Activations:
        sample = to_device(self.task.collate([self.task.candidates()[0]]), self.device)
        embeddings = able(self.task, GivesEmbeddings).embeddings
        with torch.no_grad():
            dim = embeddings(self.model, sample).shape[-1]
        return Activations(self.model, self.task.losses, embeddings, dim)


def given_features(task: FeatureTask) -> Features:
    """The user's own feature matrices."""
    candidates, targets = task.features()
    zero = {
        split: max(_zero_rows(rows, f"task.{split}") for rows in views)
        for split, views in (("candidates", candidates), ("targets", targets))
    }
    _report_zero(zero, {"candidates": candidates[0].shape[0], "targets": targets[0].shape[0]})
    recipe = fingerprint(task.recipe())
    return Features(tuple(candidates), tuple(targets), recipe, learning_rates=task.learning_rates, zero=zero)


def _zero_rows(rows: Rows, name: str) -> int:
    return sum(int((~block.any(dim=1)).sum()) for _, block in blocks(rows, name=name))


def _report_zero(zero: dict[str, int], of: dict[str, int]) -> None:
    """A zero row is near to nothing. Some of them are said; raises InputError where there is nothing else."""
    for split, count in zero.items():
        if count == of[split]:
            raise InputError(f"{split}: every one of the {count} rows is zero (no gradient), so nothing can be near")
        if count:
            log.warning("warning: %d of %d %s are zero rows (no gradient) and left out", count, of[split], split)
