"""The conformance checks catch what they are for: an honest task passes all, and each way of breaking it fails one."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset, IterableDataset

from tasks.common.supervised import SupervisedTask
from tasks.common.training import Surrogate, Training, endless_batches, fit, seeded
from tasks.task import ONE_EACH
from tests.tasks.conformance import CHECKS, Builder

SIZES = {"candidates": 32, "targets": 8, "validation": 6, "test": 16}


@dataclass(frozen=True)
class Points(Dataset):
    """Two clouds in a plane."""

    points: torch.Tensor
    labels: torch.Tensor
    ids: list[str]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.points[index], self.labels[index]


class Honest(SupervisedTask):
    """With batch norm and dropout, and every optional ability: there is much to break."""

    @cached_property
    def splits(self) -> dict[str, Points]:
        return {split: self._points(number, split) for number, split in enumerate(SIZES)}

    def _points(self, number: int, split: str) -> Points:
        generator = torch.Generator().manual_seed(10 * self.seed + number)
        labels = torch.arange(SIZES[split]) % 2
        points = torch.randn(len(labels), 2, generator=generator) + 2 * labels[:, None]
        return Points(points, labels, [f"{split}-{i}" for i in range(len(labels))])

    def labels(self, split: str = "candidates") -> np.ndarray:
        return self.splits[split].labels.numpy()

    def candidate_tags(self) -> np.ndarray:
        return np.where(np.arange(SIZES["candidates"]) % 4 == 0, "target", "other")

    def total(self) -> int:
        return ONE_EACH

    def data_recipe(self) -> dict[str, Any]:
        return {"sizes": SIZES, "seed": self.seed}

    def model_recipe(self) -> dict[str, Any]:
        return {"hidden": 4}

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.3), nn.Linear(4, 2))

    def losses(self, model: nn.Module, batch: Any) -> torch.Tensor:
        return functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    def embeddings(self, model: nn.Module, batch: Any) -> torch.Tensor:
        return model[:-1](batch[0])

    def error_norms(self, model: nn.Module, batch: Any) -> torch.Tensor:
        return (model(batch[0]).softmax(1) - functional.one_hot(batch[1], 2)).norm(dim=1)

    def cost(self, sample: Any) -> float:
        return 2.0

    def fit_surrogate(self, seed: int, *, run: int, keep: Surrogate) -> list:
        weights = np.r_[np.ones(SIZES["candidates"], dtype=np.int64), np.zeros(SIZES["targets"], dtype=np.int64)]
        return self.fit(weights, seed, run=run, keep=keep)[1]

    def fit_downstream(self, weights: np.ndarray, seed: int) -> nn.Module:
        return self.fit(weights, seed)[0]

    def fit(self, weights: np.ndarray, seed: int, **options: Any) -> tuple[nn.Module, list]:
        points, labels = (
            torch.cat([getattr(self.splits[split], name) for split in ("candidates", "targets")])
            for name in ("points", "labels")
        )
        model = self.fresh(self.model, seed)
        batches = ((points[i], labels[i]) for i in endless_batches(weights, self.training.batch_size, seed))

        def loss(model: nn.Module, batch: Any) -> torch.Tensor:
            return functional.cross_entropy(model(batch[0]), batch[1])

        with seeded(seed):
            return model, fit(model, loss, batches, self.training, **options)

    def subset_measurements(self, mask: np.ndarray, seed: int) -> torch.Tensor:
        model = self.fit_downstream(np.r_[mask.astype(np.int64), np.zeros(SIZES["targets"], dtype=np.int64)], seed)
        with torch.no_grad():
            return self.measurements(model, self.targets()[:])

    def lower_is_better(self, metric: str) -> bool:
        return metric == "loss"

    def evaluate(self, model: nn.Module, split: str = "test") -> dict[str, float]:
        model.eval()
        with torch.no_grad():
            points, labels = self.samples(split)[:]
            logits = model(points)
        right = (logits.argmax(1) == labels).double().mean().item()
        return {"accuracy": right, "loss": functional.cross_entropy(logits, labels).item()}

    def draw(self, sample: Any, axes: Any) -> None:
        axes.scatter(*sample[0])

    def draw_prediction(self, model: nn.Module | None, sample: Any, axes: Any) -> None:
        shown = sample[1] if model is None else model.eval()(sample[0][None]).argmax()
        axes.scatter(*sample[0], color=f"C{int(shown)}")


def builder(kind: type[Honest], cache_dir: Path) -> Builder:
    def make(*overrides: str) -> Honest:
        given = dict(override.split("=") for override in overrides)
        runs, checkpoints = (int(given.get(f"surrogate.{name}", 1)) for name in ("runs", "checkpoints"))
        return kind(
            name="points",
            train=Training(steps=4, batch_size=8, learning_rate=0.05),
            surrogate=Surrogate(runs, checkpoints),
            cache_dir=cache_dir,
            seed=int(given.get("seed", 0)),
            device="cpu",
            **{name: json.loads(given[name]) for name in ("noise", "hidden") if name in given},
        )

    return Builder(make, ["noise=1.5", "hidden=5"] if issubclass(kind, Noisy) else [])


def test_an_honest_task_passes_every_check(tmp_path):
    honest = builder(Honest, tmp_path)
    for check in CHECKS.values():
        check(honest)


# --- broken tasks: (check that must catch it, what it must say, the task) --------------------------------------------

SABOTAGES: list[tuple[str, str, type[Honest]]] = []


def caught_by(check: str, why: str) -> Any:
    def keep(kind: type[Honest]) -> type[Honest]:
        SABOTAGES.append((check, why, kind))
        return kind

    return keep


@caught_by("sample_i_is_always_sample_i", "sample 0 of candidates is not always the same")
class AugmentsItsCandidates(Honest):
    def candidates(self):
        class Moved(Points):
            def __getitem__(self, index):
                return self.points[index] + torch.randn(2), self.labels[index]

        return Moved(**self.splits["candidates"].__dict__)


@caught_by("sample_i_is_always_sample_i", "candidates are not map-style")
class StreamsItsCandidates(Honest):
    def candidates(self):
        class Stream(IterableDataset):
            def __iter__(self):
                return iter([])

        return Stream()


@caught_by("sample_i_is_always_sample_i", "what is said of samples changes")
class ShufflesItsLabels(Honest):
    def labels(self, split="candidates"):
        return np.random.default_rng().permutation(super().labels(split))


@caught_by("ids_are_unique_stable_and_of_one_split_alone", "an id occurs twice")
class RepeatsAnId(Honest):
    def ids(self, split):
        return ["same", "same", *super().ids(split)[2:]]


@caught_by("ids_are_unique_stable_and_of_one_split_alone", "an id occurs twice")
class IsTestedOnItsTargets(Honest):
    @cached_property
    def splits(self):
        splits = super().splits
        return {**splits, "test": splits["targets"]}


@caught_by("ids_are_unique_stable_and_of_one_split_alone", "ids of candidates are not stable")
class NamesSamplesAnew(Honest):
    @cached_property
    def splits(self):
        splits = super().splits
        return {split: replace(data, ids=[uuid.uuid4().hex for _ in data.ids]) for split, data in splits.items()}


@caught_by("ids_are_unique_stable_and_of_one_split_alone", "there are not as many ids as candidates")
class ForgetsAnId(Honest):
    def ids(self, split):
        return super().ids(split)[1:]


@caught_by("ids_are_unique_stable_and_of_one_split_alone", "an id is no string")
class NumbersItsSamples(Honest):
    def ids(self, split):
        return list(range(SIZES[split]))


@caught_by("the_test_is_of_other_samples", "16 of 16 samples of test are samples of candidates")
class IsTestedOnItsCandidates(Honest):
    """Under other names."""

    def _points(self, number, split):
        points = super()._points(number, split)
        return replace(super()._points(0, "candidates"), ids=points.ids) if split == "test" else points


@caught_by("the_test_is_of_other_samples", "6 of 6 samples of test are samples of validation")
class ChoosesModelsByTheTest(Honest):
    def _points(self, number, split):
        points = super()._points(number, split)
        test = super()._points(list(SIZES).index("test"), "test")
        return replace(test, ids=points.ids) if split == "validation" else points


@caught_by("descriptions_are_aligned", "tags are not one for each candidate")
class TagsTooFew(Honest):
    def candidate_tags(self):
        return super().candidate_tags()[:-1]


@caught_by("descriptions_are_aligned", 'no candidate is tagged "target"')
class TagsInWordsOfItsOwn(Honest):
    def candidate_tags(self):
        return np.full(SIZES["candidates"], "good")


@caught_by("descriptions_are_aligned", "a label is no number")
class LacksLabels(Honest):
    def labels(self, split="candidates"):
        return np.where(np.arange(SIZES[split]) % 5, super().labels(split), np.nan)


@caught_by("descriptions_are_aligned", "labels are not one for each target")
class LabelsTargetsAsCandidates(Honest):
    def labels(self, split="candidates"):
        return super().labels("candidates")


@caught_by("the_total_of_weights_is_said", "weights cannot sum to 0.5")
class WantsAShareOfItsCandidates(Honest):
    def total(self):
        return 0.5


@caught_by("recipes_are_plain_data_and_tell_tasks_apart", "the recipe lacks {'train'}")
class LacksAPartOfItsRecipe(Honest):
    def recipe(self):
        recipe = super().recipe()
        del recipe["train"]
        return recipe


@caught_by("recipes_are_plain_data_and_tell_tasks_apart", "the data of another seed have the same recipe")
class ForgetsTheSeed(Honest):
    def data_recipe(self):
        return {"sizes": SIZES}


@caught_by("recipes_are_plain_data_and_tell_tasks_apart", "the recipe is not plain data")
class HasArraysInItsRecipe(Honest):
    def model_recipe(self):
        return {"hidden": np.int64(4)}


@caught_by("recipes_are_plain_data_and_tell_tasks_apart", "the same data elsewhere would be computed again")
class HasItsFolderInItsRecipe(Honest):
    def data_recipe(self):
        return {**super().data_recipe(), "folders": [str(self.cache_dir)]}


class Noisy(Honest):
    """With options of its own."""

    def __init__(self, *, noise: float = 0.0, hidden: int = 4, **options: Any) -> None:
        super().__init__(**options)
        self.noise, self.hidden = noise, hidden

    def _points(self, number, split):
        points = super()._points(number, split)
        return replace(points, points=points.points + self.noise)

    def model(self):
        return nn.Sequential(nn.Linear(2, self.hidden), nn.Linear(self.hidden, 2))


@caught_by("recipes_tell_options_apart", "noise=1.5 changes samples, and no recipe")
class ForgetsAnOptionOfItsData(Noisy):
    def model_recipe(self):
        return {"hidden": self.hidden}


@caught_by("recipes_tell_options_apart", "hidden=5 changes the network, and no recipe")
class ForgetsTheWidth(Noisy):
    def data_recipe(self):
        return {**super().data_recipe(), "noise": self.noise}


@caught_by("reading_leaves_global_generators_alone", "reading the data moved a global generator")
class DrawsSplitsFromTheGlobalGenerator(Honest):
    def _points(self, number, split):
        np.random.seed(number)  # noqa: NPY002 - a fault on purpose
        return super()._points(number, split)


@caught_by("models_are_fresh", "a model is given twice")
class GivesOneModelToAll(Honest):
    @cached_property
    def _model(self):
        return super().model()

    def model(self):
        return self._model


@caught_by("models_are_fresh", "weights do not follow torch's global generator")
class AlwaysBeginsAlike(Honest):
    def model(self):
        with seeded(7):
            return super().model()


@caught_by("losses_are_of_single_samples", "losses of 6 samples have the shape ()")
class AveragesLosses(Honest):
    def losses(self, model, batch):
        return super().losses(model, batch).mean()


@caught_by("losses_are_of_single_samples", "a loss depends on its batch")
class ComparesLossesInABatch(Honest):
    def losses(self, model, batch):
        losses = super().losses(model, batch)
        return losses - 0.5 * losses.mean()


@caught_by("losses_are_of_single_samples", "losses write into their batch")
class StandardisesItsBatch(Honest):
    def losses(self, model, batch):
        batch[0].div_(2)
        return super().losses(model, batch)


@caught_by("losses_are_of_single_samples", "a loss has no gradient, or is not finite")
class DetachesLosses(Honest):
    def losses(self, model, batch):
        return super().losses(model, batch).detach()


@caught_by("losses_are_of_single_samples", "losses are torch.bfloat16, which rounds them")
class RoundsLosses(Honest):
    def losses(self, model, batch):
        return super().losses(model, batch).bfloat16()


@caught_by("selection_never_sees_the_test_split", "selection looked at the test split")
class CentresLossesOnTheTest(Honest):
    """By the samples that it keeps, and not by `test()`."""

    def losses(self, model, batch):
        return super().losses(model, [batch[0] - self.splits["test"].points.mean(0), batch[1]])


@caught_by("selection_never_sees_the_test_split", "selection looked at the test split")
class TellsDuplicatesOfTheTestApart(Honest):
    def candidate_tags(self):
        return np.where(np.arange(SIZES["candidates"]) % 4 == 0, "target", str(len(self.splits["test"])))


@caught_by("selection_never_sees_the_test_split", "selection looked at the test split")
class SaysItsLabelsByTheTest(Honest):
    def labels(self, split="candidates"):
        return super().labels(split) + 0 * int(self.splits["test"][0][1])


@caught_by("measurements_and_residuals_are_one_number_per_sample", "a loss rises with its measurement")
class MeasuresUpsideDown(Honest):
    def measurements(self, model, batch):
        return self.losses(model, batch)

    def residuals(self, model, batch):
        return -torch.ones(len(batch[1]))


@caught_by("measurements_and_residuals_are_one_number_per_sample", "a measurement depends on its batch")
class MeasuresBatches(Honest):
    def measurements(self, model, batch):
        return -self.losses(model, batch) * len(batch[1])


@caught_by("residuals_are_the_slope_of_the_loss", "d loss is not -residual d measurement")
class HasResidualsOfAnotherMeasurement(Honest):
    def measurements(self, model, batch):
        return -3 * self.losses(model, batch)


@caught_by("embeddings_are_of_single_samples", "it depends on its batch")
class CentresEmbeddings(Honest):
    def embeddings(self, model, batch):
        embeddings = super().embeddings(model, batch)
        return embeddings - embeddings.mean(0)


@caught_by("error_norms_are_of_single_samples", "it has the shape (6, 2)")
class GivesErrorsForNorms(Honest):
    def error_norms(self, model, batch):
        return model(batch[0]).softmax(1) - functional.one_hot(batch[1], 2)


@caught_by("hidden_states_are_of_single_samples", "Tensor-likes are not close")
class PoolsWhatTheSurrogateHasLearnt(Honest):
    def pooled_states(self, model, batch, layers):
        return torch.cat([model[:2](batch[0]) for _ in layers], 1)


@caught_by("texts_are_one_for_each_sample", "texts of candidates: 1")
class TellsOneTextOfAll(Honest):
    def texts(self, split):
        return ["all there is"]


@caught_by("images_are_seen_on_one_scale", "from 0 to 255")
class ShowsBytes(Honest):
    def images(self, batch):
        return torch.linspace(0, 255, len(batch[0]) * 12).reshape(-1, 3, 2, 2)


@caught_by("a_sample_has_a_cost", "costs are [0.0")
class CostsNothing(Honest):
    def cost(self, sample):
        return 0.0


@caught_by("checkpoints_hold_parameters_and_buffers", "a checkpoint is not of the model's parameters and buffers")
class ForgetsBuffers(Honest):
    def fit_surrogate(self, seed, **options):
        learnt = dict(self.model().named_parameters())
        return [
            replace(one, state={name: value for name, value in one.state.items() if name in learnt})
            for one in super().fit_surrogate(seed, **options)
        ]


@caught_by("checkpoints_hold_parameters_and_buffers", "independent runs gave the same model")
class TrainsOneSurrogateTwice(Honest):
    def fit_surrogate(self, seed, **options):
        return super().fit_surrogate(0, **options)


@caught_by("checkpoints_hold_parameters_and_buffers", "the surrogate's training looked at the test split")
class FitsSurrogatesToTheTest(Honest):
    def fit_surrogate(self, seed, **options):
        self.splits["test"].points.mean()
        return super().fit_surrogate(seed, **options)


@caught_by("checkpoints_are_cached", "checkpoints are trained again")
class TrainsSurrogatesAgain(Honest):
    def checkpoints(self):
        return self.fit_surrogate(uuid.uuid4().int % 2**31, run=0, keep=Surrogate())


@caught_by("training_follows_its_seed_and_nothing_else", "another seed gave the same model")
class IgnoresTheSeed(Honest):
    def fit_downstream(self, weights, seed):
        return super().fit_downstream(weights, 0)


@caught_by("training_follows_its_seed_and_nothing_else", "training moved a global generator")
class SeedsTheGlobalGenerator(Honest):
    def fit_downstream(self, weights, seed):
        torch.manual_seed(seed)
        return super().fit_downstream(weights, seed)


@caught_by("training_follows_its_seed_and_nothing_else", "training looked at the test split")
class StopsByTheTest(Honest):
    def fit_downstream(self, weights, seed):
        model = super().fit_downstream(weights, seed)
        self.evaluate(model)
        return model


@caught_by("training_follows_its_seed_and_nothing_else", "training looked at the test split")
class StopsByTheTestItKeeps(Honest):
    def fit_downstream(self, weights, seed):
        model = super().fit_downstream(weights, seed)
        model.eval()(self.splits["test"].points)
        return model


@caught_by("training_follows_its_seed_and_nothing_else", "the same seed gave another model")
class TrainsFromTheGlobalGenerator(Honest):
    def fit_downstream(self, weights, seed):
        state = np.random.get_state()  # noqa: NPY002 - a fault on purpose, well hidden
        drawn = int(np.random.randint(1000))  # noqa: NPY002
        np.random.set_state(state)  # noqa: NPY002
        return super().fit_downstream(weights, seed + drawn)


@caught_by("training_follows_its_seed_and_nothing_else", "training wrote into the selection's weights")
class SpendsWeights(Honest):
    def train(self, selection, seed):
        model = super().train(selection, seed)
        selection.weights[:] = 0
        return model


@caught_by("training_follows_its_seed_and_nothing_else", "training wrote into samples")
class CentresItsCandidates(Honest):
    """In place: a second training finds nothing left to move, and so gives the same model."""

    def fit_downstream(self, weights, seed):
        points = self.splits["candidates"].points
        points -= points.mean(0)
        return super().fit_downstream(weights, seed)


@caught_by("training_follows_its_seed_and_nothing_else", "training left ['model.pt'] where it was called")
class KeepsItsModelHere(Honest):
    def fit_downstream(self, weights, seed):
        model = super().fit_downstream(weights, seed)
        torch.save(model.state_dict(), "model.pt")
        return model


@caught_by("training_follows_the_selection_and_its_weights", "weights do not matter")
class IgnoresWeights(Honest):
    def fit_downstream(self, weights, seed):
        return super().fit_downstream(np.minimum(weights, 1), seed)


@caught_by("training_follows_the_selection_and_its_weights", "how large a weight is does not matter")
class CapsItsWeights(Honest):
    def fit_downstream(self, weights, seed):
        return super().fit_downstream(np.minimum(weights, 2), seed)


@caught_by("training_follows_the_selection_and_its_weights", "what is selected does not matter")
class TrainsOnEverything(Honest):
    def fit_downstream(self, weights, seed):
        return super().fit_downstream(np.ones_like(weights), seed)


@caught_by("targets_alone_can_be_trained_on", "training leaves the model in train mode")
class LeavesTrainMode(Honest):
    def fit_downstream(self, weights, seed):
        return super().fit_downstream(weights, seed).train()


@caught_by("targets_alone_can_be_trained_on", "training leaves parameters without gradients")
class FreezesWhatItHasTrained(Honest):
    def fit_downstream(self, weights, seed):
        return super().fit_downstream(weights, seed).requires_grad_(False)


@caught_by("models_of_subsets_follow_their_mask", "another subset gave the same measurements")
class IgnoresTheMask(Honest):
    def subset_measurements(self, mask, seed):
        return super().subset_measurements(np.ones_like(mask), seed)


@caught_by("evaluation_depends_on_the_model_alone", "metric loss is nan")
class ReportsNaN(Honest):
    def evaluate(self, model, split="test"):
        return {**super().evaluate(model, split), "loss": float("nan")}


@caught_by("evaluation_depends_on_the_model_alone", "metric accuracy is a Tensor, not a float")
class ReportsTensors(Honest):
    def evaluate(self, model, split="test"):
        return {name: torch.tensor(value) for name, value in super().evaluate(model, split).items()}


@caught_by("evaluation_depends_on_the_model_alone", "evaluate moved a global generator")
class EvaluatesARandomPart(Honest):
    def evaluate(self, model, split="test"):
        return {**super().evaluate(model, split), "luck": torch.rand(()).item()}


@caught_by("evaluation_depends_on_the_model_alone", "evaluate is not always the same")
class EvaluatesByTheGlobalSeed(Honest):
    def evaluate(self, model, split="test"):
        state = torch.get_rng_state()
        luck = torch.rand(()).item()
        torch.set_rng_state(state)
        return {**super().evaluate(model, split), "luck": luck}


@caught_by("evaluation_depends_on_the_model_alone", "evaluate moved a global generator or changed a setting")
class LeavesGradientsOff(Honest):
    def evaluate(self, model, split="test"):
        found = super().evaluate(model, split)
        torch.set_grad_enabled(False)
        return found


@caught_by("evaluation_depends_on_the_model_alone", "evaluate leaves parameters without gradients")
class FreezesWhatItJudges(Honest):
    def evaluate(self, model, split="test"):
        return super().evaluate(model.requires_grad_(False), split)


@caught_by("evaluation_depends_on_the_model_alone", "evaluate judges the model in train mode")
class EvaluatesWithDropout(Honest):
    def evaluate(self, model, split="test"):
        state = {name: value.clone() for name, value in model.state_dict().items()}
        with seeded(0), torch.no_grad():
            right = (model.train()(self.samples(split)[:][0]).argmax(1) == self.samples(split)[:][1]).double().mean()
        model.load_state_dict(state)
        model.eval()
        return {"accuracy": right.item()}


@caught_by("evaluation_depends_on_the_model_alone", "evaluate leaves the model in train mode")
class TrainsOnAfterEvaluating(Honest):
    def evaluate(self, model, split="test"):
        found = super().evaluate(model, split)
        model.train()
        return found


@caught_by("evaluation_depends_on_the_model_alone", "evaluate changed the model")
class AdaptsToTheTest(Honest):
    def evaluate(self, model, split="test"):
        with torch.no_grad():
            model[1].train()(model[0](self.samples(split)[:][0]))
        return super().evaluate(model, split)


@caught_by("evaluation_sees_the_test_split_alone", "evaluate looked at another split than test")
class LooksAtItsTargets(Honest):
    def evaluate(self, model, split="test"):
        return {**super().evaluate(model, split), "targets": float(len(self.targets()))}


@caught_by("evaluation_sees_the_test_split_alone", "evaluate looked at another split than test")
class LooksAtTheTargetsItKeeps(Honest):
    def evaluate(self, model, split="test"):
        return {**super().evaluate(model, split), "targets": float(len(self.splits["targets"].ids))}


@caught_by("a_model_that_fits_better_is_judged_better", "of one that does not, and lower is said to be better")
class TakesAccuracyForALoss(Honest):
    def lower_is_better(self, metric):
        return True


@caught_by("a_model_that_fits_better_is_judged_better", "of one that does not, and higher is said to be better")
class ForgetsThatALossFalls(Honest):
    def lower_is_better(self, metric):
        return False


@caught_by("a_model_that_fits_better_is_judged_better", "no metric tells a model that fits from one that does not")
class CountsItsSamplesAlone(Honest):
    def evaluate(self, model, split="test"):
        return {"samples": float(len(self.samples(split)))}


@caught_by("any_split_can_be_evaluated", "targets are judged as test is")
class JudgesTestWhateverIsAsked(Honest):
    def evaluate(self, model, split="test"):
        return super().evaluate(model, "test")


@caught_by("a_sample_can_be_drawn", "draw draws nothing")
class DrawsNothing(Honest):
    def draw(self, sample, axes):
        axes.set_axis_off()


@caught_by("a_sample_can_be_drawn", "draw changes the sample")
class CentresWhatItDraws(Honest):
    def draw(self, sample, axes):
        sample[0].sub_(sample[0].mean())
        super().draw(sample, axes)


@caught_by("a_sample_can_be_drawn", "draw draws by pyplot's global state")
class TitlesByPyplot(Honest):
    def draw(self, sample, axes):
        super().draw(sample, axes)
        pyplot.title("a sample")


@caught_by("a_sample_can_be_drawn", "draw changes Matplotlib's settings for everybody")
class SetsAStyle(Honest):
    def draw(self, sample, axes):
        matplotlib.rcParams["axes.grid"] = True
        super().draw(sample, axes)


@caught_by("a_sample_can_be_drawn", "draw moved a global generator")
class DrawsWithNoise(Honest):
    def draw(self, sample, axes):
        axes.scatter(*(sample[0] + torch.randn(2)))


@caught_by("a_prediction_can_be_drawn", "draw_prediction draws by pyplot's global state")
class MakesAFigureOfItsOwn(Honest):
    def draw_prediction(self, model, sample, axes):
        super().draw_prediction(model, sample, axes)
        pyplot.figure()


@caught_by("a_prediction_can_be_drawn", "draw_prediction draws nothing")
class DrawsNoTruth(Honest):
    def draw_prediction(self, model, sample, axes):
        if model is not None:
            super().draw_prediction(model, sample, axes)


@pytest.mark.parametrize(("check", "why", "kind"), [pytest.param(*one, id=one[2].__name__) for one in SABOTAGES])
def test_a_sabotage_is_caught(check, why, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where some leave what they should not
    with pytest.raises(AssertionError) as caught, torch.enable_grad():  # which is as before afterwards
        CHECKS[check](builder(kind, tmp_path))
    assert why in str(caught.value), "it was caught for another reason"


def test_every_check_catches_something():
    assert {check for check, _, _ in SABOTAGES} == set(CHECKS)
