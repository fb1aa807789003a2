"""Selections on different features are measured in one space before their distances stand side by side."""

from __future__ import annotations

import csv
import json

import pytest

from tarot import Selection
from tests.experiments.running import SMALL, command


def distances(output):
    with open(output / "comparison.csv") as file:
        return {row["setting"]: row["ot_distance"] for row in csv.DictReader(file)}


def test_runs_on_different_features_are_compared_in_one_space(tmp_path):
    """All candidates are the same selection whatever they are looked at with."""
    what = ["selector=all", "features=wfd,embedding", "experiment.trainings=1", "experiment.arms=[]"]
    outcome = command(tmp_path, "-m", *SMALL, *what, "seed=0,1", name="sweep")
    assert outcome.code == 0, outcome.err
    own = {}
    for path in outcome.output.glob("*/metrics.json"):
        run = json.loads(path.read_text())
        own.setdefault(run["run"]["features"], []).append(run["selection"]["ot_distance"])
        assert Selection.load(path.parent / "selection.parquet").space is not None
    assert own["wfd"] != pytest.approx(own["embedding"], rel=0.01), "they were in different spaces"
    found = distances(outcome.output)
    assert float(found["wfd"]) == pytest.approx(sum(own["wfd"]) / 2, rel=1e-5)
    assert found["embedding"] == found["wfd"]
    page = (outcome.output / "comparison.html").read_text()
    assert "OT distances are in one space, whatever was selected in: wfd, " in page


def test_without_a_run_on_the_common_features_there_is_no_distance(tmp_path):
    what = ["selector=all", "features=gradients,embedding", "experiment.trainings=1", "experiment.arms=[]"]
    outcome = command(tmp_path, "-m", *SMALL, *what, name="sweep")
    assert outcome.code == 0, outcome.err
    assert "ot_distance" not in (outcome.output / "comparison.csv").read_text()
    assert "OT distances are left out" in (outcome.output / "comparison.html").read_text()
