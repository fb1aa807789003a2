"""What a checkpoint says of the samples: stores of rows by split and kind of gradient, and influences."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from experiments.stages.encoders import Encoder
from experiments.stages.recipe import FeatureRecipe
from experiments.stages.together import stored_rows_together
from tarot.common import fingerprint, hash_tensors, resolve_device
from tarot.features import FeatureStore
from tarot.featurize import RowsOf, stored_rows
from tarot.gradients import (
    Activations,
    AdamGradients,
    Engine,
    GradientFeatures,
    Losses,
    Projection,
    RankOneAdamGradients,
    adam_features,
    to_device,
)
from tarot.influence import influence_scores
from tarot.workers import Workers
from tasks.common.cache import kept, read_tensors, write_tensors
from tasks.common.code import parts_of, source_hash
from tasks.task import (
    Batch,
    Checkpoint,
    CostsSamples,
    GivesEmbeddings,
    GivesErrorNorms,
    SharesModels,
    Split,
    Task,
    able,
)

RowMaker = GradientFeatures | AdamGradients | RankOneAdamGradients | Activations

log = logging.getLogger("tarot")


@dataclass(frozen=True, eq=False)
class Seen:
    """What a checkpoint says. stores: of rows, by split. influences: of the candidates, float64 [N], where they are
    asked for."""

    run: int
    learning_rate: float
    stores: Mapping[Split, FeatureStore]
    influences: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Surrogate:
    """The model of a task's checkpoints, which are looked at one after the other. It is built where something has to be
    computed, and once: a checkpoint is all of its state."""

    task: Task
    device: str

    @property
    def sharing(self) -> Callable[[nn.Module], None] | None:
        """What gives several processes parts of it."""
        return self.task.sharing() if isinstance(self.task, SharesModels) else None

    @cached_property
    def _model(self) -> nn.Module:
        model = self.task.model()
        if self.sharing is not None:
            self.sharing(model)
        return model.to(resolve_device(self.device))

    def at(self, checkpoint: Checkpoint) -> nn.Module:
        """In eval mode, as it was then. Whoever has been given it before has it no longer."""
        self._model.load_state_dict(dict(checkpoint.state))
        return self._model.eval()


@dataclass(frozen=True)
class Source:
    """What one checkpoint says of the samples."""

    task: Task
    checkpoint: Checkpoint
    recipe: FeatureRecipe
    projection: Projection

    def made_of(self, split: Split) -> dict[str, Any]:
        """All that determines the rows, but not how they were batched or where."""
        return {
            "code": self._code(split),
            "task": {**self._data_and_model(), "data": self.task.split_recipe(split)},
            "split": split,
            "ids": self._ids(split),
            "checkpoint": hash_tensors(self.checkpoint.state),
            "gradient": self.recipe.gradient or "embedding",
            "projection": asdict(self.projection) if self.recipe.gradient else None,
            "preconditioner": self.preconditioner(split),
            "columns": sorted(self.columns),
            "autocast": self.recipe.autocast,
            "on_nonfinite": self.recipe.on_nonfinite,
            "dtype": self.recipe.dtype,
        }

    def wanted(self, split: Split, cache: Path) -> RowsOf:
        """The store of a split, which is kept in `cache`."""
        ids = self.task.ids(split)
        made_of = self.made_of(split)
        return RowsOf(
            cache / "features" / f"{self.task.name}-{split}-{fingerprint(made_of)}",
            partial(self.rows, split),
            self.task.candidates() if split == "candidates" else self.task.targets(),
            made_of,
            ids,
            collate=self.task.collate,
            batch_size=self.recipe.batch_size,
            cost=self.task.cost if isinstance(self.task, CostsSamples) else None,
            extras=self.columns,
            dtype=self.recipe.dtype,
            on_nonfinite=self.recipe.on_nonfinite,
            workers=self.recipe.workers,
            description=f"{self.described(split)} of {len(ids)} {split}, {self.checkpoint.name}",
        )

    def influences(self, cache: Path, surrogate: Surrogate) -> np.ndarray:
        """Influence of every candidate on the mean loss of the targets, float64 [N]; computed once."""
        made_of = {
            "code": source_hash(*parts_of(self.task), influence_scores, alone=(__name__,)),
            "task": self._data_and_model(),
            "ids": [self._ids(split) for split in ("candidates", "targets")],
            "checkpoint": hash_tensors(self.checkpoint.state),
            "influence": dict(self.recipe.influence),
        }

        def make(path: Path) -> None:
            found = influence_scores(
                surrogate.at(self.checkpoint),
                self.task.losses,
                self.task.candidates(),
                self.task.targets(),
                collate=self.task.collate,
                **self.recipe.influence,
            )
            facts = {"damping": found.damping, "iterations": found.iterations, "residual": found.residual}
            log.info("influence at %s: %s", self.checkpoint.name, facts)
            write_tensors(path, {"scores": torch.from_numpy(found.scores)}, json.dumps(facts, default=str))

        path = cache / "influence" / f"{self.task.name}-{fingerprint(made_of)}.safetensors"
        return kept(path, make, read_tensors)[0]["scores"].numpy()

    def _data_and_model(self) -> dict[str, Any]:
        recipe = self.task.recipe()
        return {key: recipe[key] for key in ("name", "data", "model")}

    def _code(self, split: Split) -> str:
        """What computes the rows."""
        if self.recipe.gradient is None:
            maker: Any = Activations
        else:
            maker = adam_features if self.preconditioner(split) else GradientFeatures
        return source_hash(*parts_of(self.task), maker, stored_rows, alone=(__name__,))

    def _ids(self, split: Split) -> str:
        """Which samples, and in which order: rows go by number."""
        return fingerprint({"ids": list(self.task.ids(split))})

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

    def rows(self, split: Split, surrogate: Surrogate) -> RowMaker:
        """What makes the rows of a split."""
        model, mode = surrogate.at(self.checkpoint), self.recipe.preconditioner
        if self.recipe.gradient is None:
            return self._activations(model)
        if mode is None or split != "candidates":
            return GradientFeatures(model, self.quantity, self.projection, autocast=self.autocast)
        return adam_features(
            model,
            self.quantity,
            self.projection,
            self.checkpoint.optimizer_state,
            mode=mode,
            autocast=self.autocast,
        )

    def _activations(self, model: nn.Module) -> Activations:
        sample = to_device(self.task.collate([self.task.candidates()[0]]), next(model.parameters()).device)
        embeddings = able(self.task, GivesEmbeddings).embeddings
        with torch.no_grad():
            dim = embeddings(model, sample).shape[-1]
        return Activations(model, self.task.losses, embeddings, dim)

    @property
    def quantity(self) -> Losses:
        return self.task.losses if self.recipe.gradient == "loss" else self.task.measurements

    @property
    def autocast(self) -> torch.dtype | None:
        return None if self.recipe.autocast is None else getattr(torch, self.recipe.autocast)


def look(sources: Sequence[Source], cache: Path, surrogate: Surrogate, engine: Workers) -> list[Seen]:
    """What all of them say, kept in `cache`. The engine's workers make the rows, each with a surrogate of its own."""
    splits: tuple[Split, ...] = ("candidates", "targets")
    wanted = [source.wanted(split, cache) for source in sources for split in splits]
    setup = partial(Surrogate, surrogate.task, surrogate.device)
    made = stored_rows_together(wanted, setup) if surrogate.sharing else stored_rows(wanted, setup, engine)
    stores = iter(made)
    return [
        Seen(
            run=source.checkpoint.run,
            learning_rate=source.checkpoint.learning_rate,
            stores={split: next(stores) for split in splits},
            influences=source.influences(cache, surrogate) if source.recipe.scores == "influence" else None,
        )
        for source in sources
    ]


@dataclass(frozen=True)
class EncodedSource:
    """What an encoder says of the samples, which has learnt nothing of the task."""

    task: Task
    recipe: FeatureRecipe
    device: torch.device

    def seen(self, cache: Path, engine: Workers) -> Seen:
        """All of it, kept in `cache`. The engine's workers make the rows, each with an encoder of its own."""
        splits: tuple[Split, ...] = ("candidates", "targets")
        stores = stored_rows([self.wanted(split, cache) for split in splits], _nothing, engine)
        return Seen(run=0, learning_rate=1.0, stores=dict(zip(splits, stores, strict=True)), influences=None)

    def wanted(self, split: Split, cache: Path) -> RowsOf:
        """The store of a split, which is kept in `cache`."""
        ids, encoder = self.task.ids(split), self._encoder
        encoding = encoder.encoding(self.task, split, self.device)
        made_of = {
            "code": source_hash(type(encoder), *parts_of(self.task)),
            "task": {"name": self.task.name, "data": self.task.split_recipe(split)},
            "split": split,
            "ids": fingerprint({"ids": list(ids)}),
            "encoder": encoder.recipe(self.task, cache),
            "dtype": self.recipe.dtype,
            "on_nonfinite": self.recipe.on_nonfinite,
        }
        return RowsOf(
            cache / "features" / f"{self.task.name}-{split}-{fingerprint(made_of)}",
            partial(self.encoder, split),
            encoding.samples,
            made_of,
            ids,
            collate=encoding.collate,
            batch_size=self.recipe.batch_size,
            cost=encoding.cost,
            dtype=self.recipe.dtype,
            on_nonfinite=self.recipe.on_nonfinite,
            workers=self.recipe.workers,
            description=f"{self.recipe.kind} of {len(ids)} {split}",
        )

    def encoder(self, split: Split, state: None) -> Engine:
        """What makes the rows of a split."""
        return self._encoder.encoding(self.task, split, self.device).maker()

    @property
    def _encoder(self) -> Encoder:
        found = self.recipe.without_surrogates
        assert found is not None  # with surrogates there is a Source
        return found


def _nothing() -> None:
    pass
