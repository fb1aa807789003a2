"""What every task promises, tested on every configured task that has its data: a new one gets these for free."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch.utils.data import DataLoader

from tasks.classification.models import convnet
from tasks.common.training import WeightedSampler, epoch_weights
from tasks.task import Task
from tests.tasks.classification.stand_ins import write_cifar10, write_clothing1m
from tests.tasks.classification.stand_ins import write_folders as write_image_folders
from tests.tasks.configured import CONF, config_of, task_of
from tests.tasks.conformance import CHECKS, OF_DATA, Builder, selection
from tests.tasks.instruction.conversations import write_files
from tests.tasks.segmentation.scene_trees import write_folders

NO_MODEL = {"features"}
# Variants that read data in a way of their own, and what is checked of them. The class of segmentation/folders is
# segmentation's, and what it trains is the same: one training and one evaluation show that it can.
VARIANTS = {
    "classification/folders": (*OF_DATA, "losses_are_of_single_samples", "any_split_can_be_evaluated"),
    "instruction/files": tuple(CHECKS),
    "segmentation/folders": (
        *OF_DATA,
        "losses_are_of_single_samples",
        "any_split_can_be_evaluated",
        "a_sample_can_be_drawn",
    ),
}
# Overrides that make a task small enough for a test of seconds.
SMALL = {
    "classification/folders": "size=12 network=convnet-4 plain.targets=6 plain.validation=6 train.steps=4 "
    "train.batch_size=8",
    "cifar10": "train.steps=4 train.batch_size=8 width=4 "
    "rotated.candidates=60 rotated.targets=8 rotated.validation=8 rotated.test=20 "
    "corrupted.candidates=100 corrupted.targets=20 corrupted.validation=8 corrupted.test=20",
    "clothing1m": "size=32 targets=14 train.steps=2 train.batch_size=8 train.autocast=null "
    "encoder.steps=2 encoder.batch_size=8 encoder.autocast=null encoder.learning_rate=1e-3",
    "digits": "train.steps=20",
    "instruction": "data.candidates=40 data.targets=12 data.validation=3 data.test=6 data.general_rows=200 "
    "language.hidden=16 language.layers=1 language.intermediate=24 pretraining.steps=2 adapter.rank=2 train.steps=2 "
    "train.batch_size=4 surrogate.share=0.2 surrogate.train.epochs=2 surrogate.train.batch_size=4 evaluation.limit=2",
    "instruction/files": "language.path=${data_dir}/model adapter.rank=2 train.steps=2 train.batch_size=4 "
    "train.learning_rate=1e-3 surrogate.share=0.2 surrogate.train.epochs=2 surrogate.train.batch_size=4 "
    "surrogate.train.learning_rate=1e-3 evaluation.limit=2",
    "motion": "data.candidates={cand_highway:10,cand_roundabout:12,cand_crossing:12,cand_parking:6} data.targets=8 "
    "data.validation=4 data.test=12 data.processes=1 train.steps=3 train.batch_size=8 surrogate_train.steps=3 "
    "surrogate_train.batch_size=8",
    "segmentation": "data.candidates=32 data.targets=8 data.validation=2 data.test=4 data.height=24 data.width=40 "
    "train.steps=2 train.batch_size=4 train.validations=1 surrogate.checkpoints=1",
    "segmentation/folders": "data.height=24 data.width=40 architecture.backbone=small workers=1 "
    "train.steps=2 train.batch_size=4 train.validations=1 surrogate.checkpoints=1",
}


# What stands in for the data of tasks that embed none: written into a folder, in a layout that the task reads.
STAND_IN = {
    "classification/folders": write_image_folders,
    "cifar10": write_cifar10,
    "clothing1m": write_clothing1m,
    "segmentation/folders": write_folders,
    "instruction/files": write_files,
}


def options_of(name: str, *overrides: str) -> list[str]:
    """What makes the task small, and these, as overrides of a config."""
    return [f"++task.{override}" for override in (*SMALL.get(name, "").split(), *overrides)]


def small_task(name: str, cache_dir: Path, *overrides: str) -> Task:
    """The task as configured, at the size of a test."""
    data_dir = cache_dir / "data" / name
    if name in STAND_IN and not data_dir.exists():
        STAND_IN[name](data_dir)
    return task_of(name, data_dir, cache_dir, *SMALL.get(name, "").split(), *overrides)


def others_of(name: str) -> list[str]:
    """An override for each option of a task that is a number or a switch, by which it is another one; not for how it
    trains and judges, which makes no samples and no networks."""
    found = []

    def look(options: dict, path: str) -> None:
        for key, value in options.items():
            if isinstance(value, dict) and key not in ("train", "surrogate", "surrogate_train", "evaluation"):
                look(value, f"{path}{key}.")
            elif isinstance(value, bool):
                found.append(f"{path}{key}={str(not value).lower()}")
            elif isinstance(value, int | float) and key != "seed":
                found.append(f"{path}{key}={value + 1 if isinstance(value, int) else value / 2 or 0.1}")

    config = config_of(name, "data", Path("cache"), *SMALL.get(name, "").split())
    look(OmegaConf.to_container(config, resolve=True), "")
    return found


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def build(request: pytest.FixtureRequest, cache_dir: Path) -> Iterator[Builder]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "clothing1m":  # its network is no option, and has eleven million parameters
            patch.setattr(
                "tasks.classification.clothing1m.resnet18", lambda num_classes: convnet(num_classes, (8, 8), 3)
            )
        yield Builder(lambda *overrides: small_task(request.param, cache_dir, *overrides), others_of(request.param))


@pytest.mark.parametrize("variant", sorted(path.parent.name + "/" + path.stem for path in CONF.glob("task/*/*.yaml")))
def test_variants_of_a_task_compose(variant, tmp_path):
    of_users = ["language.path=somewhere"] if variant == "instruction/files" else []
    assert isinstance(task_of(variant, tmp_path, tmp_path, *of_users), Task)


TASKS = sorted({path.stem for path in CONF.glob("task/*.yaml")} - NO_MODEL)
PROMISES = [(name, check) for name in TASKS for check in CHECKS]
PROMISES += [(name, check) for name, checks in VARIANTS.items() for check in checks]


# of the module's scope: what is not all indirect is otherwise of a test's, and each would make its task anew
@pytest.mark.parametrize(("build", "check"), PROMISES, indirect=["build"], scope="module")
def test_a_task_keeps_its_word(build, check):
    CHECKS[check](build)


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
