"""`experiment=distillation`: what it says, what it leaves, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from experiments.distillation import DistillationExperiment
from experiments.distillation.arms import ARMS
from tarot import InputError, Synthesis
from tasks.classification import Student
from tasks.common.cache import load_arrays
from tests.experiments.running import changed, command

SMALL = (
    "experiment=distillation",
    "task=digits",
    "task.plain={candidates:90,validation:10,targets:10,test:50}",
    "task.network=convnet-4-6",
    "task.train.steps=30",
    "task.train.batch_size=30",
    "experiment.per_class=[2]",
    "experiment.seeds=1",
    "experiment.starts=1",
    "experiment.synthesis.iterations=4",
    "experiment.student.steps=3",
    "experiment.shown=2",
    "device=cpu",
)
EVERY = f"experiment.arms=[{','.join([*ARMS, 'all'])}]"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("distillation")


@pytest.fixture(scope="module")
def ran(folder):
    more = (EVERY, "experiment.students=[perceptron-8]", "experiment.export=true")
    return command(folder, *SMALL, *more, drawn="light")


def test_every_arm_has_an_accuracy_with_both_labels(ran):
    found = ran.metrics
    names = {f"accuracy/{arm}/{labels}/{m}" for arm in ARMS for labels in ("hard", "soft") for m in (2,)}
    names |= {f"accuracy/all/{labels}/all" for labels in ("hard", "soft")}
    assert names <= set(found["metrics"]) and all(0 <= found["metrics"][name] <= 1 for name in names)
    assert {name.replace("accuracy/", "accuracy/perceptron-8/") for name in names} <= set(found["metrics"])
    gain = found["improvement_over_random"]["wmdd/hard/2"][0]
    metrics = found["metrics"]
    assert gain == pytest.approx(metrics["accuracy/wmdd/hard/2"] - metrics["accuracy/random/hard/2"])
    behind = found["hard_label_recovery"]["wmdd/2"][0]
    assert behind == pytest.approx(metrics["accuracy/all/hard/all"] - metrics["accuracy/wmdd/hard/2"])
    assert found["distance"]["wasserstein_coreset"]["2"] < found["distance"]["random"]["2"]
    assert 0 < found["teacher"]["accuracy"] <= 1
    assert {"teacher", "features", "synthesis", "students"} <= set(found["seconds"])


def test_the_report_begins_with_the_best_arm_under_hard_labels(ran):
    page = (ran.output / "report.html").read_text()
    hard = {arm: ran.metrics["metrics"][f"accuracy/{arm}/hard/2"] for arm in ARMS}
    best = max(hard, key=hard.get)
    assert f"At 2 images per class and hard labels {best} is best: {hard[best]:.3f}" in page
    for name in ("images", "places", "accuracy", "distances", "curves"):
        assert (ran.output / "figures" / f"{name}.png").stat().st_size > 1000


def test_images_are_exported_as_folders(ran):
    assert {path.name for path in (ran.output / "images").iterdir()} == {f"{arm}-2" for arm in ARMS}
    assert len(list((ran.output / "images" / "wmdd-2").glob("*/*.png"))) == 20


def test_nothing_is_made_twice(ran, folder):
    def made():
        return {path: path.stat().st_mtime_ns for path in (folder / "cache").rglob("*") if path.is_file()}

    before = made()
    again = command(folder, *SMALL, EVERY, "experiment.students=[perceptron-8]", name="again")
    assert again.metrics["metrics"] == ran.metrics["metrics"] and made() == before


def test_a_chunk_that_is_damaged_is_made_again_to_the_same_bytes(ran, folder):
    chunks = sorted((folder / "cache" / "distillation").glob("digits-synthesis-*.npz"))
    before = load_arrays(chunks[0])
    chunks[0].write_bytes(b"")
    few = ("experiment.arms=[wmdd,wmdd_noise,wmdd_released,sre2l]", "experiment.labels=[hard]")
    assert command(folder, *SMALL, *few, name="mended").code == 0
    np.testing.assert_array_equal(load_arrays(chunks[0])["images"], before["images"])


def test_a_teacher_of_a_file_is_loaded_strictly(folder, tmp_path):
    torch.save({"0.weight": torch.zeros(2)}, tmp_path / "other.pt")
    found = command(folder, *SMALL, f"experiment.teacher={tmp_path / 'other.pt'}", name="teacher")
    assert found.code == 1 and "experiment.teacher" in found.err and "is of another network" in found.err


@pytest.mark.parametrize(
    "options, message",
    [
        ({"arms": ["wmdd", "dm"]}, r"experiment\.arms names 'dm'; there are random"),
        ({"arms": []}, "must each name one or more"),
        ({"labels": ["hard", "harder"]}, r"experiment\.labels"),
        ({"per_class": [1, 1]}, r"experiment\.per_class names a number twice"),
        ({"per_class": [0]}, r"experiment\.per_class"),
        ({"seeds": 0}, r"experiment\.seeds must be at least 1"),
    ],
)
def test_options_that_cannot_be_are_named(options, message):
    given = {"per_class": [1], "arms": ["random"], "synthesis": Synthesis(), "student": Student()}
    with pytest.raises(InputError, match=message):
        DistillationExperiment(**{**given, **options})


@pytest.mark.parametrize(
    "options, words",
    [
        (("experiment.per_class=[13]",), "13 are wanted of each class"),
        (("task.network=perceptron-8",), "has no BatchNorm layer"),
        (("experiment.students=[resnet1]",), "there is no network 'resnet1'"),
        (("task=motion",), "needs a ClassificationTask"),
    ],
)
def test_what_cannot_be_is_one_line(folder, options, words):
    kept = changed(SMALL, *options)
    if options == ("task=motion",):
        kept = [one for one in kept if not one.startswith("task.")]
    found = command(folder, *kept, name="refused")
    assert found.code == 1 and words in found.err, found.err
    assert len(found.err.strip().splitlines()) == 1
