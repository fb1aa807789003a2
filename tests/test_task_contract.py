"""What every task promises, tested on every configured task that has its data: a new one gets these for free."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from matplotlib.figure import Figure
from torch.utils.data import DataLoader

from experiments.stages import judges_targets
from tarot import InputError
from tasks.common.training import WeightedSampler, epoch_weights
from tasks.task import Task
from tests.tasks.conversations import write_conversations
from tests.tasks.scene_trees import write_folders
from tests.tasks.stand_ins import write_cifar10, write_clothing1m

CONF = Path(__file__).parents[1] / "conf"
SPLITS = ("candidates", "targets", "validation", "test")
NO_MODEL = {"features"}
VARIANTS = ["segmentation/folders", "instruction/files"]  # that read data in a way of their own
# Overrides that make a task small enough for a test of seconds.
SMALL = {
    "cifar10": "train.steps=4 width=4 rotated.candidates=60 rotated.targets=8 rotated.validation=8 rotated.test=20 "
    "corrupted.candidates=100 corrupted.targets=20 corrupted.validation=8 corrupted.test=20",
    "clothing1m": "size=32 targets=14 train.steps=2 train.batch_size=8 train.autocast=null "
    "encoder.steps=2 encoder.batch_size=8 encoder.autocast=null encoder.learning_rate=1e-3",
    "digits": "train.steps=20",
    "instruction": "data.candidates=40 data.targets=12 data.validation=3 data.test=6 data.general_rows=200 "
    "language.hidden=16 language.layers=1 language.intermediate=24 pretraining.steps=2 adapter.rank=2 train.steps=2 "
    "train.batch_size=4 surrogate.share=0.2 surrogate.train.epochs=2 surrogate.train.batch_size=4 evaluation.limit=2",
    "instruction/files": "language.hidden=16 language.layers=1 language.intermediate=24 pretraining.steps=2 "
    "pretraining.length=32 adapter.rank=2 train.steps=2 train.batch_size=4 surrogate.share=0.2 "
    "surrogate.train.epochs=2 surrogate.train.batch_size=4 evaluation.limit=2 vocabulary=300",
    "motion": "data.candidates={cand_highway:10,cand_roundabout:12,cand_crossing:12,cand_parking:6} data.targets=8 "
    "data.validation=4 data.test=12 data.processes=1 train.steps=3 train.batch_size=8 surrogate_train.steps=3 "
    "surrogate_train.batch_size=8",
    "segmentation": "data.candidates=40 data.targets=8 data.validation=2 data.test=4 data.height=24 data.width=40 "
    "train.steps=2 train.batch_size=4 train.validations=1 surrogate.checkpoints=1",
    "segmentation/folders": "data.height=24 data.width=40 architecture.backbone=mobilenet_v3_large workers=1 "
    "train.steps=2 train.batch_size=4 train.validations=1 surrogate.checkpoints=1",
}


# What stands in for the data of tasks that embed none: written into a folder, in a layout that the task reads.
STAND_IN = {
    "cifar10": write_cifar10,
    "clothing1m": write_clothing1m,
    "segmentation/folders": write_folders,
    "instruction/files": write_conversations,
}


def small_task(name: str, cache_dir: Path, *overrides: str) -> Task:
    """The task as configured, at the size of a test."""
    data_dir = cache_dir / "data" / name
    if name in STAND_IN and not data_dir.exists():
        STAND_IN[name](data_dir)
    keys = [f"++task.{override}" for override in (*SMALL.get(name, "").split(), *overrides)]
    common = [f"+data_dir={data_dir}", f"+cache_dir={cache_dir}", "+seed=0", "+device=cpu"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return instantiate(compose(overrides=[f"+task={name}", *common, *keys]).task)


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module", params=sorted({p.stem for p in CONF.glob("task/*.yaml")} - NO_MODEL) + VARIANTS)
def build(request: pytest.FixtureRequest, cache_dir: Path):
    """build(*overrides) -> the task; the same overrides give the same object. build.anew() -> another object."""
    build = cache(lambda *overrides: small_task(request.param, cache_dir, *overrides))
    build.anew = lambda: small_task(request.param, cache_dir)
    return build


@pytest.mark.parametrize("variant", sorted(path.parent.name + "/" + path.stem for path in CONF.glob("task/*/*.yaml")))
def test_variants_of_a_task_compose(variant, tmp_path):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(
            overrides=[f"+task={variant}", f"+data_dir={tmp_path}", f"+cache_dir={tmp_path}", "+seed=0", "+device=cpu"]
        )
    assert isinstance(instantiate(config.task), Task)


def selection(indices, weights=None) -> SimpleNamespace:
    indices = np.asarray(indices, dtype=np.int64)
    return SimpleNamespace(indices=indices, weights=np.ones(len(indices), np.int64) if weights is None else weights)


def batch_of(task: Task, indices, split: str = "candidates"):
    data = getattr(task, split)()
    return task.collate([data[int(i)] for i in indices])


def equal(a, b) -> bool:
    return all(torch.equal(torch.as_tensor(x), torch.as_tensor(y)) for x, y in zip(flatten(a), flatten(b), strict=True))


def flatten(sample) -> list:
    if isinstance(sample, dict):
        sample = list(sample.values())
    return [leaf for part in sample for leaf in flatten(part)] if isinstance(sample, list | tuple) else [sample]


def surrogate(task: Task) -> torch.nn.Module:
    model = task.model()
    model.load_state_dict(task.checkpoints()[-1].state)
    return model.eval()


# --- data ------------------------------------------------------------------------------------------------------------


def test_sample_i_is_always_sample_i(build):
    task, again = build(), build.anew()
    for split in SPLITS:
        data, other = getattr(task, split)(), getattr(again, split)()
        assert len(data) == len(other) > 0
        for i in (0, len(data) // 2, len(data) - 1):
            assert equal(data[i], data[i]) and equal(data[i], other[i])


def test_ids_are_unique_stable_and_of_one_split_alone(build):
    task, again = build(), build.anew()
    ids = {split: task.ids(split) for split in SPLITS}
    assert all(ids[split] == again.ids(split) for split in SPLITS)
    assert all(len(ids[split]) == len(getattr(task, split)()) for split in SPLITS)
    together = [name for split in SPLITS for name in ids[split]]
    assert len(set(together)) == len(together), "an id occurs twice"


def test_descriptions_are_aligned(build):
    task = build()
    n, m = len(task.candidates()), len(task.targets())
    assert task.labels() is None or len(task.labels()) == n
    assert task.labels("targets") is None or len(task.labels("targets")) == m
    assert task.target_groups() is None or len(task.target_groups()) == m
    tags = task.candidate_tags()
    assert tags is None or (len(tags) == n and "target" in tags)
    sources = task.candidate_sources()
    assert sources is None or (len(sources) == n and all(sources != ""))


def test_recipe_is_plain_data_and_tells_tasks_apart(build):
    recipe = build().recipe()
    assert json.loads(json.dumps(recipe)) == recipe
    assert {"data", "model", "surrogate", "train"} <= set(recipe)
    assert build("seed=1").recipe()["data"] != recipe["data"]


# --- model -----------------------------------------------------------------------------------------------------------


def test_losses_are_of_single_samples(build):
    task = build()
    model = surrogate(task)
    together = task.losses(model, batch_of(task, range(6)))
    assert together.shape == (6,) and together.requires_grad and torch.isfinite(together).all()
    for i in range(6):
        torch.testing.assert_close(task.losses(model, batch_of(task, [i]))[0], together[i], rtol=1e-4, atol=1e-5)
    reversed_ = task.losses(model, batch_of(task, range(5, -1, -1)))
    torch.testing.assert_close(reversed_.flip(0), together, rtol=1e-4, atol=1e-5)


def test_measurements_and_residuals_are_one_number_per_sample(build):
    task = build()
    model, batch = surrogate(task), batch_of(task, range(5), "targets")
    assert task.measurements(model, batch).shape == task.residuals(model, batch).shape == (5,)
    assert torch.isfinite(task.measurements(model, batch)).all() and (task.residuals(model, batch) >= 0).all()


def test_residuals_are_the_slope_of_the_loss(build):
    """d loss = -Q d measurement, along the gradient of the measurement."""
    task = build()
    model, batch = surrogate(task), batch_of(task, [0])
    parameters = [p for p in model.parameters() if p.requires_grad]
    d_loss = torch.autograd.grad(task.losses(model, batch).sum(), parameters, allow_unused=True)
    d_measurement = torch.autograd.grad(task.measurements(model, batch).sum(), parameters, allow_unused=True)
    residual = task.residuals(model, batch).item()
    for a, b in zip(d_loss, d_measurement, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, -residual * b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("split", ["candidates", "targets"])
@pytest.mark.parametrize("method", ["embeddings", "error_norms"])
def test_what_is_optional_is_of_single_samples_too(build, method, split):
    """A task that gives embeddings gives [B, d], of error norms [B]; one that gives none says so."""
    task = build()
    model, measure = surrogate(task), getattr(task, method)
    if getattr(type(task), method) is getattr(Task, method):
        with pytest.raises(InputError, match=f"task {task.name} gives no"):
            measure(model, batch_of(task, range(2), split))
        return
    together = measure(model, batch_of(task, range(6), split)).detach()
    assert together.ndim == (2 if method == "embeddings" else 1) and len(together) == 6
    assert torch.isfinite(together).all() and (together != together[0]).any()
    assert method == "embeddings" or (together >= 0).all()
    for i in range(6):
        alone = measure(model, batch_of(task, [i], split))[0]
        torch.testing.assert_close(alone, together[i], rtol=1e-4, atol=1e-5)
    assert not model.training and torch.equal(measure(model, batch_of(task, range(6), split)), together)
    assert not any(module._forward_pre_hooks for module in model.modules()), "a hook was left in the model"


def test_checkpoints_hold_parameters_and_buffers(build):
    task = build("surrogate.runs=2", "surrogate.checkpoints=2")
    model, checkpoints = task.model(), task.checkpoints()
    assert [checkpoint.run for checkpoint in checkpoints] == [0, 0, 1, 1]
    assert len({checkpoint.name for checkpoint in checkpoints}) == 4
    for checkpoint in checkpoints:
        assert set(checkpoint.state) == set(model.state_dict())
        assert checkpoint.learning_rate > 0
        if checkpoint.optimizer_state is not None:
            learnt = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
            assert set(checkpoint.optimizer_state) == learnt
    one, two = checkpoints[1].state, checkpoints[3].state
    assert any(not torch.equal(one[name], two[name]) for name in one), "independent runs gave the same model"


def test_checkpoints_are_cached(build):
    task = build()
    kept, again = task.checkpoints(), build.anew().checkpoints()
    assert [checkpoint.name for checkpoint in kept] == [checkpoint.name for checkpoint in again]
    assert all(torch.equal(kept[0].state[name], again[0].state[name]) for name in kept[0].state)


def test_training_follows_its_seed_and_nothing_else(build):
    task, chosen = build(), selection(range(0, 30, 3))
    one = task.train(chosen, seed=3).state_dict()
    torch.manual_seed(12345)
    np.random.seed(1)  # noqa: NPY002 - the global generator is what must not matter
    before = torch.get_rng_state()
    two, other = task.train(chosen, seed=3).state_dict(), task.train(chosen, seed=4).state_dict()
    assert torch.equal(before, torch.get_rng_state()), "training moved the global generator"
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_targets_alone_can_be_trained_on(build):
    task = build()
    metrics = task.evaluate(task.train(selection([]), seed=0))
    assert metrics and all(isinstance(value, float) for value in metrics.values())


def test_evaluation_sees_the_test_split_alone(build, monkeypatch):
    task = build()
    model = surrogate(task)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    expected = task.evaluate(model)

    def forbidden():
        raise AssertionError("evaluate looked at another split than test")

    for split in ("candidates", "targets", "validation"):
        monkeypatch.setattr(task, split, forbidden)
    assert task.evaluate(model) == expected
    assert all(torch.equal(model.state_dict()[name], state[name]) for name in state), "evaluate changed the model"


def test_targets_can_be_evaluated_alone(build, monkeypatch):
    task = build()
    if not judges_targets(task):
        pytest.skip("it is judged on test alone")
    model = surrogate(task)
    tested, found = task.evaluate(model), task.evaluate(model, split="targets")
    assert set(found) & set(tested) and all(isinstance(value, float) for value in found.values())
    assert found != tested and task.evaluate(model, split="test") == tested


def test_draw_draws(build):
    task = build()
    axes = Figure().subplots()
    task.draw(task.candidates()[0], axes)
    assert axes.images or axes.lines or axes.texts or axes.collections or axes.patches


# --- what all of them train with -------------------------------------------------------------------------------------


def test_an_epoch_repeats_each_sample_by_its_weight():
    weights = np.array([0, 3, 1, 0, 2])
    sampler = WeightedSampler(weights, seed=0)
    weights[:] = 1  # ledger L-19: what others do to their array is not our epoch
    epochs = [list(sampler) for _ in range(3)]
    for epoch in epochs:
        assert np.bincount(epoch, minlength=5).tolist() == [0, 3, 1, 0, 2] and len(sampler) == 6
    assert epochs[0] != epochs[1] or epochs[1] != epochs[2], "epochs are not shuffled anew"
    assert list(WeightedSampler(np.array([0, 3, 1, 0, 2]), seed=0)) == epochs[0]


def test_a_loader_of_few_visits_exactly_these():
    """Ledger L-20: N = 10, S = 3, with and without the targets behind them."""
    data = torch.arange(10 + 2)
    for merge, expected in ((False, [2, 5, 9]), ("one", [2, 5, 9, 10, 11])):
        weights = epoch_weights(selection([2, 5, 9]), 10, 2, merge)
        loader = DataLoader(data, batch_size=2, sampler=WeightedSampler(weights, seed=0))
        assert sorted(torch.cat(list(loader)).tolist()) == expected


def test_merged_targets_weigh_one_or_as_much_as_the_heaviest_candidate():
    chosen = selection([0, 2], weights=np.array([4, 1]))
    assert epoch_weights(chosen, 3, 2, False).tolist() == [4, 0, 1, 0, 0]
    assert epoch_weights(chosen, 3, 2, "one").tolist() == [4, 0, 1, 1, 1]
    assert epoch_weights(chosen, 3, 2, "max").tolist() == [4, 0, 1, 4, 4]
    assert epoch_weights(selection([]), 3, 2, False).tolist() == [0, 0, 0, 1, 1]
