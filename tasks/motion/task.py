"""Motion prediction: where vehicles will be in the next seconds. A small model selects, a large one may learn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tarot import InputError
from tarot.common import checked
from tasks.common.supervised import SupervisedTask
from tasks.common.training import Surrogate, endless_batches, seeded
from tasks.motion import pictures
from tasks.motion.metrics import HEADLINE, errors, summary
from tasks.motion.models import Forecaster, MotionModel
from tasks.motion.sources import MotionData, Splits
from tasks.motion.submission import Forecast, challenged, demand_challenge, forecasts
from tasks.motion.training import MotionTraining, train
from tasks.motion.views import TYPES, Batch, MotionSamples, bucket
from tasks.task import ONE_EACH, Checkpoint, Split

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIRST = (HEADLINE, "min_ade", "miss_rate")  # of the metrics; these also for each kind of agent
_EVALUATED = 256  # samples at a time


class MotionTask(SupervisedTask[MotionModel]):
    """forecasters: models by name. select_with, learn_with: those whose gradients select, and that which is trained on
    the selection; each sees scenes in its own way, and samples are known by their ids.

    surrogate_train: how the former are trained, on all candidates and targets; on the candidates alone where
    surrogate_targets is false, as attribution wants it. train: how the latter is. Other options are
    `SupervisedTask`'s.
    """

    training: MotionTraining
    surrogate_training: MotionTraining

    @checked("task")
    def __init__(
        self,
        *,
        data: MotionData,
        forecasters: Mapping[str, Forecaster],
        select_with: str,
        learn_with: str,
        surrogate_targets: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        for option, wanted in (("select_with", select_with), ("learn_with", learn_with)):
            if wanted not in forecasters:
                raise InputError(f"task.{option} must be one of {', '.join(forecasters)}; it is {wanted!r}")
        self.data, self.surrogate_targets = data, surrogate_targets
        self.selects, self.learns = forecasters[select_with], forecasters[learn_with]
        a, b = self.selects.profile, self.learns.profile
        if (a.steps, a.horizon, a.stride) != (b.steps, b.horizon, b.stride):
            raise InputError(
                f"{select_with} and {learn_with} must see the same steps of the past and the future; their profiles "
                f"{a.name} and {b.name} have {a.steps} and {a.horizon}, and {b.steps} and {b.horizon}"
            )

    # --- data --------------------------------------------------------------------------------------------------------

    @cached_property
    def _selecting(self) -> Splits:
        return self.data.splits(self.seed, self.selects.profile, self.cache_dir / "motion")

    @cached_property
    def _learning(self) -> Splits:
        """The same samples, as the model sees them that learns."""
        if self.learns.profile.recipe() == self.selects.profile.recipe():
            return self._selecting
        seen = self.data.splits(self.seed, self.learns.profile, self.cache_dir / "motion")
        return {split: ordered(samples, self._selecting[split].ids) for split, samples in seen.items()}

    @property
    def splits(self) -> Splits:
        """As the model sees them that selects."""
        return self._selecting

    def validation(self) -> MotionSamples:
        return self._learning["validation"]

    def test(self) -> MotionSamples:
        return self._learning["test"]

    def account(self) -> dict[Split, dict[str, Any]]:
        """Of every split: how many agents are used, and what of its records is not, by reason."""
        return {
            split: {"used": len(samples), "left_out": dict(samples.skipped)} for split, samples in self.splits.items()
        }

    def candidate_tags(self) -> np.ndarray | None:
        return self._selecting["candidates"].tags if self.data.tagged else None

    def candidate_sources(self) -> np.ndarray:
        return self._selecting["candidates"].datasets

    def total(self) -> int:
        """The paper weighs what it selects by potentials in its other tasks, and not in this one."""
        return ONE_EACH

    @cached_property
    def _data_recipe(self) -> dict[str, Any]:
        return self.data.recipe(self.seed, self.cache_dir)

    def split_recipe(self, split: Split) -> dict[str, Any]:
        """Candidates, surrogates and features stay the same where only what is held out is another."""
        return {**self._data_recipe, "splits": {split: self._data_recipe["splits"][split]}}

    def data_recipe(self) -> dict[str, Any]:
        return self._data_recipe

    def model_recipe(self) -> dict[str, Any]:
        return self.selects.recipe()

    def surrogate_recipe(self) -> dict[str, Any]:
        recipe = super().surrogate_recipe()
        return recipe if self.surrogate_targets else {**recipe, "targets": False}

    def surrogate_data(self) -> list[dict[str, Any]]:
        learnt: tuple[Split, ...] = ("candidates", "targets") if self.surrogate_targets else ("candidates",)
        return [self.split_recipe(split) for split in learnt]

    def train_recipe(self) -> dict[str, Any]:
        return {**super().train_recipe(), "model": self.learns.recipe()}

    # --- model -------------------------------------------------------------------------------------------------------

    def model(self) -> MotionModel:
        return self.selects.build()

    def downstream(self) -> MotionModel:
        return self.learns.build()

    def losses(self, model: MotionModel, batch: Batch) -> Tensor:
        """Each sample's loss under the model that selects, [B]."""
        return self.selects.losses(model, batch)

    def embeddings(self, model: MotionModel, batch: Batch) -> Tensor:
        """What the last layer is given, averaged over all futures that it tells of, [B, width]."""
        return model.embeddings(batch)

    def fit_surrogate(self, seed: int, *, run: int, keep: Surrogate) -> list[Checkpoint]:
        samples = self.candidates()
        if self.surrogate_targets:
            samples = samples + self.targets()
        everyone = np.ones(len(samples), dtype=np.int64)
        model = self.fresh(self.model, seed)
        return self.fit(model, self.selects, self.surrogate_training, samples, everyone, seed, run=run, keep=keep)

    def subset_measurements(self, mask: np.ndarray, seed: int) -> Tensor:
        """Minus the targets' losses under a surrogate that was trained on these candidates alone."""
        whole = self.surrogate_training.of(len(mask))
        model = self.fresh(self.model, seed)
        training = replace(whole, steps=max(1, round(whole.steps * mask.mean())))
        self.fit(model, self.selects, training, self.candidates(), mask.astype(np.int64), seed)
        targets = self.targets()
        parts = (targets.batch(slice(i, i + _EVALUATED), self.device) for i in range(0, len(targets), _EVALUATED))
        with torch.no_grad():
            return torch.cat([self.measurements(model, batch) for batch in parts])

    def fit_downstream(self, weights: np.ndarray, seed: int) -> MotionModel:
        """The same number of steps for any selection, or of epochs. The average of its last weights, the best model on
        `validation`, or the last one, as `train` says."""
        model = self.fresh(self.downstream, seed)
        self.fit(model, self.learns, self.training, self._learnt_from, weights, seed, judge=self._judged)
        return model

    def _judged(self, model: MotionModel) -> float:
        return float(np.nanmean(self.errors(model, "validation")[HEADLINE]))

    @cached_property
    def _learnt_from(self) -> MotionSamples:
        return self._learning["candidates"] + self._learning["targets"]

    def fit(
        self,
        model: MotionModel,
        forecaster: Forecaster,
        training: MotionTraining,
        samples: MotionSamples,
        weights: np.ndarray,
        seed: int,
        **options: Any,
    ) -> list[Checkpoint]:
        def loss(model: MotionModel, batch: Batch) -> Tensor:
            with training.precision(self.device):
                return forecaster.losses(model, batch).mean()

        batches = (samples.batch(chosen, self.device) for chosen in endless_batches(weights, training.batch_size, seed))
        with seeded(seed):  # the seed decides what dropout drops, too
            return train(model, loss, batches, training.of(int(weights.sum())), **options)

    # --- results -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _predicted(self, model: MotionModel, samples: MotionSamples) -> Iterator[tuple[Tensor, Tensor, Batch]]:
        """(trajectories [B, K, F, 5], probabilities [B, K], batch) of all samples in their order."""
        model.eval()
        for start in range(0, len(samples), _EVALUATED):
            batch = samples.batch(slice(start, start + _EVALUATED), self.device)
            prediction = model(batch)
            yield prediction.trajectories.float(), prediction.probabilities.float(), batch

    def errors(self, model: MotionModel, split: Split = "test") -> dict[str, np.ndarray]:
        """Every measure of every agent of a split, in the order of its ids, float64 [n]: see `metrics.errors`."""
        hz = 1 / self.learns.profile.seconds
        parts = [
            errors(trajectories, probabilities, batch["future"], batch["future_valid"], hz)
            for trajectories, probabilities, batch in self._predicted(model, self._learning[split])
        ]
        return {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]}

    def evaluate(self, model: MotionModel, split: Split = "test") -> dict[str, float]:
        """Means over the agents of a split, lower is better: see `metrics`; the first ones also by dataset, type of
        trajectory and difficulty, such as "min_ade/type=left"."""
        found, samples = self.errors(model, split), self._learning[split]
        types = np.array([*TYPES, "unknown"])[samples.types]
        tags = {"dataset": samples.datasets, "type": types, "difficulty": bucket(samples.difficulty[:, 2])}
        order = [*FIRST, *(name for name in found if name not in FIRST)]
        means = summary(found)
        by_kind = summary({name: found[name] for name in FIRST}, tags)
        return {**{name: means[name] for name in order if name in means}, **by_kind}

    def lower_is_better(self, metric: str) -> bool:
        return True

    def challenged(self) -> list[tuple[str, str]]:
        """nuScenes's tokens of all agents of `validation` and `test`, instance and sample. Raises InputError where they
        are none of its prediction challenge, or cannot be placed on its maps, or where it does not take the futures of
        the model that learns: before one is trained for it."""
        profile = self.learns.profile
        demand_challenge(profile.horizon, 1 / profile.seconds, self.learns.architecture.modes)
        return challenged(self._held_out)

    def submission(self, model: MotionModel) -> list[Forecast]:
        """What nuScenes's prediction challenge wants of a model, for `submission.write_submission`: forecasts of
        `validation` and `test`. Errors as of `challenged`."""
        agents, (centre, heading, origin) = self.challenged(), self._held_out.frames
        parts = [(t.cpu().numpy(), p.cpu().numpy()) for t, p, _ in self._predicted(model, self._held_out)]
        trajectories, probabilities = (np.concatenate(part) for part in zip(*parts, strict=True))
        return forecasts(agents, trajectories, probabilities, centre + origin, heading, 1 / self.learns.profile.seconds)

    @cached_property
    def _held_out(self) -> MotionSamples:
        validation, test = self.validation(), self.test()
        return test if np.array_equal(validation.ids, test.ids) else validation + test

    def draw(self, sample: Batch, axes: Axes) -> None:
        """The scene from above: lanes, where vehicles came from, where the target goes."""
        pictures.draw(sample, axes)

    @torch.no_grad()
    def draw_prediction(self, model: MotionModel | None, sample: Batch, axes: Axes) -> None:
        """Predicted futures, the more probable the stronger, and the truth in dots; the truth alone without a model."""
        prediction = None
        if model is not None:
            prediction = model.eval()({key: value[None].to(self.device) for key, value in sample.items()})
        pictures.draw_prediction(prediction, sample, axes)


def ordered(samples: MotionSamples, ids: np.ndarray) -> MotionSamples:
    """The samples of these ids, in their order. Raises InputError where one is missing."""
    rows = {name: row for row, name in enumerate(samples.ids.tolist())}
    missing = [name for name in ids.tolist() if name not in rows]
    if missing:
        raise InputError(
            f"{len(missing)} samples of one profile are none of another, such as {missing[0]}: both models must "
            "forecast the same agents"
        )
    return samples.take(np.array([rows[name] for name in ids.tolist()], dtype=np.int64))
