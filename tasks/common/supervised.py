"""What tasks have in common that train a model on weighted samples: splits, recipes, checkpoints and training."""

from __future__ import annotations

import shutil
from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from torch import nn

from tarot import Selection
from tarot.common import Natural, checked, fingerprint, resolve_device
from tarot.gradients import Samples
from tarot.workers import team
from tasks.common.cache import cached_checkpoints
from tasks.common.code import parts_of, source_hash
from tasks.common.snapshots import Snapshots
from tasks.common.training import ONE_SURROGATE, Surrogate, Training, epoch_weights, seeded
from tasks.task import Checkpoint, Model, Split, Task

Made = TypeVar("Made", bound=nn.Module)
Result = TypeVar("Result")


class SupervisedTask(Task[Model]):
    """A subclass brings its splits, its model, what determines both, and how the model is fitted to samples.

    train: how the downstream model is trained. surrogate_train: how the surrogates are; None is as the former is.
    surrogate: how many of them there are. seed: of the splits and of the surrogates. device: auto is a GPU where there
    is one. Raises InputError for a seed below 0 and a device that is not there.
    """

    trains_together: ClassVar[bool] = False
    """Whether its trainings share out the rows of a step over the processes of a launcher (`tarot.workers.team`)."""

    @checked("task")
    def __init__(
        self,
        *,
        name: str,
        train: Training,
        surrogate_train: Training | None = None,
        surrogate: Surrogate = ONE_SURROGATE,
        cache_dir: str | Path = "cache",
        seed: Natural = 0,
        device: str = "auto",
    ) -> None:
        self.name = name
        self.training = train
        self.surrogate_training = train if surrogate_train is None else surrogate_train
        self.surrogate = surrogate
        self.cache_dir = Path(cache_dir)
        self.seed = seed
        self.device = resolve_device(device)

    # --- what a subclass brings --------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def splits(self) -> Mapping[Split, Samples]:
        """The samples of every split; looked at often, so made once."""

    @abstractmethod
    def data_recipe(self) -> dict[str, Any]:
        """What determines the splits, as plain data."""

    @abstractmethod
    def model_recipe(self) -> dict[str, Any]:
        """What determines the model of the surrogates, as plain data."""

    @abstractmethod
    def fit_surrogate(self, seed: int, *, run: int, keep: Surrogate) -> list[Checkpoint]:
        """Train one surrogate; the checkpoints that `keep` says, each of this run."""

    @abstractmethod
    def fit_downstream(self, weights: np.ndarray, seed: int) -> Model:
        """A model trained on each candidate, and then each target, as often as its weight says, int64 [N + M]."""

    # --- data --------------------------------------------------------------------------------------------------------

    def candidates(self) -> Any:
        return self.splits["candidates"]

    def targets(self) -> Any:
        return self.splits["targets"]

    def validation(self) -> Any:
        return self.splits["validation"]

    def test(self) -> Any:
        return self.splits["test"]

    def ids(self, split: Split) -> list[str]:
        """Those of a split that knows them by itself (`ids`, [n])."""
        named: Any = self.splits[split]
        return list(map(str, named.ids))

    # --- recipe ------------------------------------------------------------------------------------------------------

    def recipe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "data": self.data_recipe(),
            "model": self.model_recipe(),
            "surrogate": self.surrogate_recipe(),
            "train": self.train_recipe(),
        }

    def surrogate_recipe(self) -> dict[str, Any]:
        """What determines the checkpoints, beside the data and the model."""
        training = self.surrogate_training.recipe(of_surrogate=True)
        return {**self.surrogate.recipe(), **training, "seed": self.seed}

    def train_recipe(self) -> dict[str, Any]:
        """What determines the downstream model, beside all this and the selection."""
        return self.training.recipe()

    def surrogate_data(self) -> Any:
        """What determines the samples that surrogates are trained on, as plain data. Default: all of the data."""
        return self.data_recipe()

    # --- training ----------------------------------------------------------------------------------------------------

    def given_checkpoints(self) -> Callable[[], list[Checkpoint]] | None:
        """What reads checkpoints that were trained elsewhere, in the place of surrogates. Default: there are none."""
        return None

    def checkpoints(self) -> list[Checkpoint]:
        given = self.given_checkpoints()
        if given is not None:
            return given()
        path = self._checkpoints
        found = cached_checkpoints(path, self._train_surrogates)
        if (self.cache_dir / "trainings").exists():  # what was to be gone on from
            shutil.rmtree(self._trainings_of(path), ignore_errors=True)
        return found

    def surrogates(self) -> list[int]:
        path = self._checkpoints
        if path.exists() or self.given_checkpoints() is not None:
            return []
        return [run for run in range(self.surrogate.runs) if not self._part(path, run).exists()]

    def train_surrogate(self, run: int) -> None:
        path = self._checkpoints
        if not path.exists():
            self._trained(path, run)

    def snapshots(self, run: int) -> Snapshots:
        """Of a surrogate, which goes on from them where it was killed."""
        return Snapshots(self._trainings_of(self._checkpoints) / f"run{run}")

    @property
    def _checkpoints(self) -> Path:
        """The file of them all."""
        known = self.recipe()
        made_of = {key: known[key] for key in ("name", "model", "surrogate")}
        made_of |= {"data": self.surrogate_data(), "code": source_hash(*parts_of(self))}
        return self.cache_dir / "checkpoints" / f"{self.name}-{fingerprint(made_of)}.safetensors"

    def _trainings_of(self, path: Path) -> Path:
        """Where surrogates are that are being trained, for as long as that file is not there."""
        return self.cache_dir / "trainings" / path.stem

    def _part(self, path: Path, run: int) -> Path:
        """Where a surrogate that is trained waits for the others; the file of them all where there are none."""
        return path if self.surrogate.runs == 1 else self._trainings_of(path) / f"run{run}.safetensors"

    def _train_surrogates(self) -> list[Checkpoint]:
        if self.surrogate.runs == 1:
            return self._fitted(0)
        path = self._checkpoints
        return [one for run in range(self.surrogate.runs) for one in self._trained(path, run)]

    def _trained(self, path: Path, run: int) -> list[Checkpoint]:
        """The checkpoints of a surrogate. Of several processes that want it, one trains it and the others wait."""
        return cached_checkpoints(self._part(path, run), lambda: self._fitted(run))

    def _fitted(self, run: int) -> list[Checkpoint]:
        return self._by_all(self.fit_surrogate, 1000 * self.seed + run, run=run, keep=self.surrogate)

    def train(self, selection: Selection, seed: int) -> Model:
        n, m = len(self.candidates()), len(self.targets())
        return self._by_all(self.fit_downstream, epoch_weights(selection, n, m, self.training.merge_targets), seed)

    def _by_all(self, fit: Callable[..., Result], *args: Any, **options: Any) -> Result:
        """By all processes of a launcher, where the task's trainings can be shared out."""
        return team().call(fit, *args, **options) if self.trains_together else fit(*args, **options)

    def fresh(self, make: Callable[[], Made], seed: int) -> Made:
        """What `make` gives (`model` or `downstream`), on the device; its weights are decided by the seed."""
        with seeded(seed):
            return make().to(self.device)

    def surrogate_optimizer(self) -> str | None:
        return self.surrogate_training.optimizer

    def merges_targets(self) -> bool:
        return bool(self.training.merge_targets)
