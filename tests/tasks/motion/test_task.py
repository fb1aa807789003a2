"""The motion task: what its models see, what is made of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import tarot
from tarot import InputError
from tasks.common.training import Surrogate
from tasks.motion import Forecaster, LossWeights, MotionTask, Simulated
from tasks.motion.models.autobots import MINI_AUTOBOT, AutoBot
from tasks.motion.models.wayformer import MINI_WAYFORMER, Wayformer
from tasks.motion.pictures import title
from tasks.motion.task import ordered
from tasks.motion.training import MotionTraining
from tasks.motion.views.profile import MINI
from tests.tasks.motion.scenes import CANDIDATES, chosen
from tests.tasks.test_contract import small_task


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def task(cache_dir: Path) -> MotionTask:
    return small_task("motion", cache_dir)


def batch_of(task: MotionTask, count: int, split: str = "candidates"):
    return getattr(task, split)().batch(slice(0, count))


# --- models ----------------------------------------------------------------------------------------------------------


def test_autobot_selects_and_wayformer_learns(task):
    assert isinstance(task.model(), AutoBot) and isinstance(task.downstream(), Wayformer)
    trained = task.train(chosen([0, 3]), seed=0)
    assert isinstance(trained, Wayformer) and not trained.training
    task.downstream().load_state_dict(trained.state_dict())


def test_any_model_may_select_and_learn(cache_dir):
    task = small_task("motion", cache_dir, "select_with=wayformer", "learn_with=autobot")
    assert isinstance(task.model(), Wayformer) and isinstance(task.downstream(), AutoBot)
    losses = task.losses(task.model(), batch_of(task, 3))
    assert losses.shape == (3,) and torch.isfinite(losses).all()
    with pytest.raises(InputError, match="learn_with must be one of autobot, wayformer; it is 'trans'"):
        small_task("motion", cache_dir, "learn_with=trans")


def test_what_learns_is_no_part_of_what_selects(task, cache_dir):
    """Another downstream model finds the surrogate's checkpoints and features again, and not its own models."""
    other = small_task("motion", cache_dir, "learn_with=autobot", "train.steps=4")
    a, b = task.recipe(), other.recipe()
    assert all(a[key] == b[key] for key in ("name", "data", "model", "surrogate")) and a["train"] != b["train"]
    assert small_task("motion", cache_dir, "select_with=wayformer").recipe()["model"] != a["model"]
    assert "merge_targets" not in a["surrogate"]


def test_the_surrogate_learns_from_candidates_and_targets_and_the_other_from_what_is_chosen(task, monkeypatch):
    seen: list[tuple[int, list[int]]] = []
    fit = task.fit

    def spy(model, forecaster, training, samples, weights, *rest, **options):
        seen.append((len(samples), weights.tolist()))
        return fit(model, forecaster, training, samples, weights, *rest, **options)

    monkeypatch.setattr(task, "fit", spy)
    n, m = len(task.candidates()), len(task.targets())
    task.fit_surrogate(0, run=0, keep=Surrogate())
    task.train(SimpleNamespace(indices=np.array([1, 4]), weights=np.array([2, 1])), seed=0)
    task.train(chosen([]), seed=0)
    assert seen[0] == (n + m, [1] * (n + m))
    assert seen[1] == (n + m, [2 if i == 1 else int(i == 4) for i in range(n)] + [1] * m)
    assert seen[2] == (n + m, [0] * n + [1] * m)


def test_samples_are_the_same_ones_in_another_profile(cache_dir):
    """The model that learns sees more of the scene, of the same vehicles in the same order."""
    wide = replace(MINI, name="wide", agents=8, segments=30)
    data = Simulated(CANDIDATES, targets=4, validation=2, test=4, processes=1)
    options = {"surrogate_train": MotionTraining(steps=2, batch_size=4), "train": MotionTraining(steps=2, batch_size=4)}
    forecasters = {
        "autobot": Forecaster(MINI_AUTOBOT, MINI, LossWeights(1, 1, 1)),
        "wayformer": Forecaster(MINI_WAYFORMER, wide, LossWeights(0, 0, 1)),
    }
    task = MotionTask(
        name="motion", data=data, forecasters=forecasters, select_with="autobot", learn_with="wayformer",
        surrogate=Surrogate(), cache_dir=cache_dir, device="cpu", **options,
    )  # fmt: skip
    assert task.candidates()[0]["agents"].shape[0] == 6 and task.test()[0]["agents"].shape[0] == 8
    for split, samples in task._learning.items():
        assert samples.ids.tolist() == task.ids(split)
    assert task.evaluate(task.train(chosen([0, 1, 2]), seed=0))["min_ade"] > 0
    assert task.evaluate(task.model())["min_ade"] > 0, "the surrogate can be judged, too"
    far = replace(MINI, name="far", future=40)
    with pytest.raises(InputError, match="must see the same steps of the past and the future"):
        MotionTask(
            name="motion", data=data, select_with="autobot", learn_with="wayformer", cache_dir=cache_dir,
            forecasters={**forecasters, "wayformer": Forecaster(MINI_WAYFORMER, far, LossWeights(0, 0, 1))},
            surrogate=Surrogate(), device="cpu", **options,
        )  # fmt: skip


def test_samples_are_put_in_order_by_their_ids(task):
    samples = task.candidates()
    order = np.random.default_rng(0).permutation(len(samples))
    again = ordered(samples.take(order), samples.ids)
    assert again.ids.tolist() == samples.ids.tolist()
    assert torch.equal(again.batch()["agents"], samples.batch()["agents"])
    with pytest.raises(InputError, match="1 samples of one profile are none of another, such as"):
        ordered(samples.take(np.arange(1, len(samples))), samples.ids)


def test_what_is_selected_weighs_one_each(task):
    """The paper's section 4.3: that fewer samples and fewer steps do, weights would hide. Other tasks' selections weigh
    by their potentials."""
    rng = np.random.default_rng(0)
    rows = {"candidates": rng.normal(size=(40, 6)), "targets": rng.normal(size=(8, 6))}
    of_task = tarot.select(**rows, selector="tarot_fixed", size=9, total=task.total(), total_may_grow=True)
    assert of_task.weights.tolist() == [1] * 9
    assert tarot.select(**rows, selector="tarot_fixed", size=9).weights.tolist() != [1] * 9


def test_the_model_that_is_best_on_validation_is_given(cache_dir):
    """It is one of those that the training passes through, which shorter trainings give; the others are worse."""
    options = ["train.schedule=halving", "train.milestones=[]", "train.average=0.0", "train.learning_rate=0.05"]
    best = small_task("motion", cache_dir, *options, "train.steps=4", "train.choose=best", "train.validations=4")
    whole = chosen(range(10))
    found = best.train(whole, seed=0)
    through = [small_task("motion", cache_dir, *options, f"train.steps={n}").train(whole, seed=0) for n in range(1, 5)]
    worths = [best.evaluate(model, "validation")["brier_min_fde"] for model in through]
    assert best.evaluate(found, "validation")["brier_min_fde"] == min(worths) < worths[-1]
    assert best.evaluate(through[-1]) == small_task("motion", cache_dir, *options, "train.steps=4").evaluate(
        through[-1]
    )


def test_a_smaller_selection_has_shorter_epochs(cache_dir, monkeypatch):
    task = small_task("motion", cache_dir, "train.epochs=4", "train.merge_targets=false", "surrogate_train.epochs=1")
    steps = []

    def spy(model, loss, batches, training, **options):
        steps.append(training.steps)
        return []

    monkeypatch.setattr("tasks.motion.task.train", spy)
    task.train(chosen(range(24)), seed=0), task.train(chosen(range(4)), seed=0)
    task.fit_surrogate(0, run=0, keep=Surrogate())
    assert steps == [12, 2, 6], "of 24 and 4 samples, 8 a batch, and of all 40 and 8"
    task.subset_measurements(np.arange(40) < 20, 0)
    assert steps[3] == 2, "half of the 5 steps of all 40 candidates"


# --- results ---------------------------------------------------------------------------------------------------------


def test_metrics_are_means_over_the_test_agents_and_over_kinds_of_them(task):
    model = task.train(chosen(range(10)), seed=0)
    metrics, errors = task.evaluate(model), task.errors(model)
    assert list(metrics)[:3] == ["brier_min_fde", "min_ade", "miss_rate"]
    assert metrics["min_ade"] == pytest.approx(errors["min_ade"].mean())
    assert len(errors["min_ade"]) == len(task.test())
    assert {"min_fde", "nuscenes_min_ade_5"} <= set(metrics)
    for kind in ("dataset", "type", "difficulty"):
        shares = {name: value for name, value in metrics.items() if name.startswith(f"min_ade/{kind}=")}
        assert shares and min(shares.values()) <= metrics["min_ade"] <= max(shares.values())
    assert metrics["min_ade/dataset=target_test"] == pytest.approx(metrics["min_ade"])


def test_perfect_futures_have_no_error(task, monkeypatch):
    class Oracle(torch.nn.Module):
        def forward(self, batch):
            truth = batch["future"][:, None, :, :2].repeat(1, 6, 1, 1)
            return SimpleNamespace(trajectories=truth, probabilities=torch.full((len(truth), 6), 1 / 6))

    metrics = task.evaluate(Oracle())
    assert metrics["min_ade"] == metrics["miss_rate"] == metrics["min_fde"] == 0
    assert metrics["brier_min_fde"] == pytest.approx((5 / 6) ** 2)


def test_pictures_face_up_and_show_all_that_is_there(task):
    for sample in (task.candidates()[i] for i in range(0, len(task.candidates()), 7)):
        axes = Figure().subplots()
        task.draw(sample, axes)
        assert axes.get_title() == title(sample)
        lines = [line.get_xydata() for line in axes.get_lines()]
        assert len(lines) == int(sample["lanes_valid"].any(1).sum() + sample["agents_valid"].any(1).sum()) + 1
        assert len(axes.patches) == int(sample["agents_valid"].any(1).sum())
        future = sample["future"][sample["future_valid"]][:, :2].numpy()
        np.testing.assert_allclose(lines[-1][1:], np.stack([-future[:, 1], future[:, 0]], 1))
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        assert (left < -future[:, 1]).all() and (-future[:, 1] < right).all() and right - left == high - low


def test_predictions_and_the_truth_share_their_window_and_say_what_is_what(task):
    sample, limits = task.test()[0], []
    for model in (None, task.model(), task.downstream()):
        axes = Figure().subplots()
        task.draw_prediction(model, sample, axes)
        assert axes.get_legend_handles_labels()[1] == ["past", "truth"]
        limits.append((axes.get_xlim(), axes.get_ylim()))
    assert limits[0] == limits[1] == limits[2]
