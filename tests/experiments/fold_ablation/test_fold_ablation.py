"""`experiment=fold_ablation`: its numbers follow from selections and models of their own, and errors come in time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.fold_ablation import report as fold_report
from experiments.fold_ablation.report import Folds
from experiments.report.statistics import mean_interval
from tests.experiments.report.test_figures import drawn
from tests.experiments.running import SMALL, Outcome, changed, command

SEEDS = 3
BASE = [option for option in SMALL if not option.startswith("experiment")]
TINY = (*BASE, "experiment=fold_ablation", f"experiment.seeds={SEEDS}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("folds")


@pytest.fixture(scope="module")
def first(folder: Path) -> Outcome:
    return command(folder, *TINY, name="first", drawn=("folds",))


def test_only_those_folds_are_tried_that_there_are_targets_for(first):
    found = first.metrics["folds"]
    assert list(found) == ["1", "2", "5"], "digits has 7 targets here"
    assert first.metrics["metric"] == first.metrics["headline"] == "accuracy"
    for by_split in found.values():
        for split in ("test", "targets"):
            score = by_split[split]
            assert len(score["values"]) == SEEDS and score["mean"] == pytest.approx(np.mean(score["values"]))
            assert score["interval"] == pytest.approx([*mean_interval(score["values"]).__dict__.values()][1:3])
    differences = [np.subtract(found[k]["test"]["values"], found["1"]["test"]["values"]) for k in ("2", "5")]
    for k, pairs in zip(("2", "5"), differences, strict=True):
        assert found[k]["minus_reference"]["test"][0] == pytest.approx(pairs.mean())


def test_an_arm_is_what_a_run_of_its_own_finds(first, folder):
    models = set((folder / "cache" / "models").glob("*.safetensors"))
    for i in range(2):
        options = ["experiment.arms=[]", "experiment.trainings=1", "selector.folds=2", f"seed={i}"]
        alone = command(folder, *BASE, *options, name=f"alone{i}").metrics
        found = first.metrics["folds"]["2"]
        assert found["test"]["values"][i] == pytest.approx(alone["metrics"]["accuracy"])
        for fact in ("size", "ratio", "ot_distance", "precision"):
            assert found["selection"][fact]["values"][i] == pytest.approx(alone["selection"][fact])
    assert set((folder / "cache" / "models").glob("*.safetensors")) == models, "nothing was trained again"


def test_output_is_complete(first):
    assert (first.output / "figures" / "folds.png").stat().st_size > 0
    page = (first.output / "report.html").read_text()
    assert "accuracy, target set" in page and "targets are trained on, too" in page and "Higher is better" in page


def test_what_can_be_mended_is_said_before_anything_is_trained(tmp_path):
    for options, message in {
        ("experiment.folds=[1,8]",): "experiment.folds: 8 folds need as many targets, and digits has 7",
        ("experiment.folds=[0]",): "experiment.folds[0] must be at least 1; it is 0",
        ("experiment.folds=[2,2]",): "each once",
        ("experiment.seeds=0",): "experiment.seeds must be at least 1; it is 0",
        ("selector=random",): "experiment=fold_ablation is about the folds of selector=tarot_otm; random has none",
    }.items():
        said = command(tmp_path, *changed(TINY, *options))
        assert said.code == 1 and message in said.err and said.err.count("\n") == 1, said.err
    assert not (tmp_path / "cache" / "checkpoints").exists()


def test_one_model_has_no_interval(tmp_path):
    metrics = command(tmp_path, *changed(TINY, "experiment.seeds=1", "experiment.folds=[1,3]")).metrics
    assert set(metrics["folds"]["1"]) == {"test", "targets", "minus_reference", "selection"}
    assert metrics["folds"]["1"]["test"]["interval"] == [None, None]


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_a_lower_metric_may_be_the_better_and_the_figure_is_drawn(seeds):
    rng = np.random.default_rng(0)
    found = Folds(
        metric="loss",
        headline="accuracy",
        lower_is_better=True,
        scores={split: {k: k + rng.random((seeds, 1)) for k in (1, 4, 10)} for split in ("test", "targets")},
        facts={name: {k: rng.random(seeds) for k in (1, 4, 10)} for name in ("size", "ratio", "ot_distance")},
        reference=10,
        merged=False,
        features=[],
    )
    assert found.best == 1 and "Lower is better" in found.direction
    assert "The task's headline, accuracy, is not known of its targets." in fold_report._caption(found)
    drawn(fold_report.by_folds(found))
    (row, *_), columns = fold_report._table(found).rows, fold_report._table(found).columns
    assert len(row) == len(columns)
