"""`experiment=lds`: of which tasks it can be asked, and the ablation of whitened feature distance."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.lds.experiment import ESTIMATORS, Seen
from tarot.attribution.scores import wfd_scores
from tests.experiments.running import SMALL, changed, command

WFD = [name for name in ESTIMATORS if name.startswith("wfd")]
MOTION = (
    "experiment=lds",
    "task=motion",
    "task.data.candidates={cand_target:16}",
    "task.data.targets=5",
    "task.data.validation=2",
    "task.data.test=2",
    "task.data.processes=1",
    "task.surrogate_train.steps=4",
    "task.surrogate_train.batch_size=8",
    "experiment.subsets=6",
    "experiment.held_back=3",
    "experiment.bootstrap=20",
    "experiment.ensembles=[1,2]",
    "experiment.workers=1",
    "features.dim=12",
    "device=cpu",
)


@pytest.fixture(scope="module")
def motion(tmp_path_factory):
    names = ",".join([*WFD, "gradcos", "trak_ridge"])
    return command(tmp_path_factory.mktemp("lds"), *MOTION, f"experiment.estimators=[{names}]", drawn=("lds",))


def test_motion_is_attributed(motion):
    found = motion.metrics["lds"]
    assert set(found) == {*WFD, "gradcos", "trak_ridge"}
    assert all(set(by_size) == {"1", "2"} and "reason" not in by_size["1"] for by_size in found.values())
    assert set(found["wfd_ridge"]["2"]["options"]) == {"regularization"} and not found["wfd"]["2"]["options"]
    assert (motion.output / "figures" / "lds.png").stat().st_size > 0
    page = (motion.output / "report.html").read_text()
    assert "wfd_unwhitened" in page and "neither centred nor whitened" in page


def test_the_root_that_whitens_makes_no_difference(motion):
    found = motion.metrics["lds"]
    for size in ("1", "2"):
        assert found["wfd"][size]["lds"] == pytest.approx(found["wfd_zca"][size]["lds"], abs=0.15)  # ranks of 6
    assert found["wfd"]["1"]["lds"] != found["wfd_neither"]["1"]["lds"]


def test_each_estimator_of_the_ablation_is_what_its_name_says():
    rng = np.random.default_rng(0)
    z, x = (rng.normal(size=(n, 4)).astype(np.float32) for n in (30, 5))
    seen = Seen(type("Views", (), {"candidates": [z], "targets": [x]})())
    options = {
        "wfd": {},
        "wfd_small_ridge": {"regularization": 1e-5},
        "wfd_zca": {"whitening": "zca"},
        "wfd_unwhitened": {"whitening": None},
        "wfd_unnormalised": {"normalise": False},
        "wfd_neither": {"whitening": None, "normalise": False},
    }
    assert set(options) == set(WFD) - {"wfd_ridge"}
    for name, expected in options.items():
        np.testing.assert_array_equal(ESTIMATORS[name].scores(seen), wfd_scores([z], [x], **expected))
    ridge = ESTIMATORS["wfd_ridge"]
    np.testing.assert_array_equal(ridge.scores(seen, regularization=0.3), wfd_scores([z], [x], regularization=0.3))
    assert set(ridge.grid) == {"regularization"}


def test_a_task_without_subset_models_is_refused_before_anything_is_trained(tmp_path):
    said = command(tmp_path, "experiment=lds", "task=segmentation", "device=cpu")
    assert said.code == 1 and said.err.count("\n") == 1
    assert "task segmentation trains no models of subsets: write its method subset_measurements" in said.err
    assert not (tmp_path / "cache").exists()


def test_digits_are_attributed_as_before(tmp_path):
    options = changed(
        [o for o in SMALL if not o.startswith(("task.rotated", "experiment"))], "task.plain.candidates=40",
        "task.plain.targets=6", "task.plain.test=10", "task.plain.validation=5", "experiment=lds",
        "experiment.subsets=6", "experiment.held_back=3", "experiment.bootstrap=20", "experiment.ensembles=[1]",
    )  # fmt: skip
    metrics = command(tmp_path, *options).metrics
    assert set(metrics["lds"]) == {
        "tempered", "tempered_default", "trak_best", "trak_ridge", "trak", "wfd", "gradcos", "graddot",
    }  # fmt: skip
