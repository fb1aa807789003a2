"""`experiment=corruption`: its numbers follow from the values that it saves, and what is wrong is said in time."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

from experiments.corruption import figures as detection_figures
from experiments.corruption.pruning import Incremental, Prune, dropped, oracle_order
from experiments.report.statistics import Interval, mean_interval
from experiments.stages.features import Features, PartRows
from tarot import InputError
from tests.experiments.report.test_figures import Points, drawn
from tests.experiments.running import Outcome, changed, command

# as SMALL of the selection experiment: a run takes a few seconds
TINY = (
    "experiment=corruption",
    "task=digits",
    "task.corrupted.candidates=80",
    "task.corrupted.targets=20",
    "task.corrupted.validation=8",
    "task.corrupted.test=40",
    "task.hidden=[8]",
    "task.surrogate.runs=1",
    "task.surrogate.checkpoints=2",
    "task.train.steps=12",
    "features.dim=16",
    "features.batch_size=32",
    "device=cpu",
    "experiment.methods=[knn_shapley,el2n]",
    "experiment.kinds=[noisy_labels]",
    "experiment.seeds=1",
    "experiment.prune.fractions=[0,0.5]",
    "experiment.incremental.methods=[knn_shapley]",
    "experiment.incremental.parts=2",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corruption")


@pytest.fixture(scope="module")
def first(folder: Path) -> Outcome:
    return command(folder, *TINY, name="first")


def made(path: Path) -> dict[str, int]:
    """Every file below but locks, and when it was written."""
    return {
        str(file.relative_to(path)): file.stat().st_mtime_ns
        for file in path.rglob("*")
        if file.is_file() and file.suffix != ".lock"
    }


# --- what a run leaves -----------------------------------------------------------------------------------------------


def test_the_numbers_follow_from_the_saved_values(first):
    """By hand: the share of the corrupted among as many of lowest value, and the mean over all prefixes."""
    found = first.metrics["detection"]["noisy_labels"]
    table = pq.read_table(first.output / "values" / "noisy_labels-seed0.parquet").to_pydict()
    corrupted = np.array(table["tag"]) != "target"
    assert set(np.array(table["tag"])[corrupted]) == {"noisy_labels"} and 0 < corrupted.sum() < len(corrupted) == 80
    assert found["corrupted"] == found["random"]["rate"] == corrupted.mean()
    for name in ("knn_shapley", "el2n"):
        values = np.array(table[name])
        assert len(np.unique(values)) > 20
        # ties are taken in random order: the mean over both orders of the rows is right on average, as it is for pairs
        rates = []
        for t in range(len(values) + 1):
            edge = np.sort(values)[t - 1] if t else -np.inf
            below, at = values < edge, values == edge
            share = (t - below.sum()) / at.sum() if at.any() else 0
            rates.append((corrupted[below].sum() + share * corrupted[at].sum()) / corrupted.sum())
        assert found["methods"][name]["rate"]["values"] == [pytest.approx(rates[corrupted.sum()])]
        assert found["methods"][name]["area"]["values"] == [pytest.approx(np.mean(rates))]


def test_metrics_have_what_tables_say(first):
    metrics = first.metrics
    detected = metrics["detection"]["noisy_labels"]["methods"]
    assert metrics["metrics"]["rate/el2n"] == detected["el2n"]["rate"]["mean"]
    assert metrics["detection"]["noisy_labels"]["best"] in detected
    assert all(facts["seconds"]["mean"] > 0 for facts in detected.values())
    assert {"embedding", "el2n"} == set(metrics["recipes"])
    pruned = metrics["prune"]["accuracy"]["noisy_labels"]
    assert set(pruned) == {"knn_shapley", "el2n", "random", "oracle"}
    assert len({points[0]["mean"] for points in pruned.values()}) == 1, "where nothing is dropped all arms are one"
    parts = metrics["incremental"]["accuracy"]["noisy_labels"]
    assert set(parts) == {"knn_shapley", "random", "no pruning"} and all(len(points) == 2 for points in parts.values())
    assert parts["no pruning"][-1]["mean"] == pruned["random"][0]["mean"], "all candidates have arrived"
    assert {"checkpoints", "features", "value", "train"} <= set(metrics["seconds"])


def test_output_is_complete(first):
    names = {Path(name).parts[0] for name in made(first.output) if not name.startswith(".")}
    assert names == {"config.yaml", "metrics.json", "figures", "report.html", "run.log", "values"}
    figures = {path.stem for path in (first.output / "figures").glob("*.png")}
    assert figures == {"detection_curves", "detection_rates", "lowest", "prune", "incremental"}
    page = (first.output / "report.html").read_text()
    assert "at random" in page and "knn_shapley" in page and "{{" not in page


def test_an_interrupted_run_goes_on_from_the_cache(first, folder, monkeypatch):
    """Without one of the files of values, that alone is computed."""
    before = made(folder / "cache")
    gone = next((folder / "cache" / "values").glob("digits-el2n-*.parquet"))
    gone.unlink()
    calls = []
    value = __import__("tarot").value
    monkeypatch.setattr("tarot.value", lambda **given: calls.append(given["selector"]) or value(**given))
    again = command(folder, *TINY, name="again")
    assert [type(method).__name__ for method in calls] == ["El2n"]
    after = made(folder / "cache")
    assert {name for name in after if after[name] != before.get(name)} == {
        f"values/{gone.name}",
        f"values/.{gone.name}.sha256",
    }
    for metrics in (first.metrics, again.metrics):
        assert metrics["detection"]["noisy_labels"]["methods"]["el2n"]["rate"]["values"]
    strip = ("seconds", "run")
    found, same = ({k: v for k, v in one.items() if k not in strip} for one in (first.metrics, again.metrics))
    el2n = [one["detection"]["noisy_labels"]["methods"]["el2n"].pop("seconds") for one in (found, same)]
    assert found == same and len(el2n) == 2


@pytest.mark.slow
def test_every_kind_and_method_with_intervals(folder):
    everything = [o for o in TINY if not o.startswith(("experiment.methods", "experiment.kinds", "experiment.seeds"))]
    outcome = command(folder, *everything, "experiment.incremental.methods=[sava]", name="whole", drawn=True)
    detected = outcome.metrics["detection"]
    assert len(detected) == 4 and all(len(of_kind["methods"]) == 12 for of_kind in detected.values())
    rates = [facts["rate"] for of_kind in detected.values() for facts in of_kind["methods"].values()]
    assert all(len(rate["values"]) == 3 and rate["interval"][0] is not None for rate in rates)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["experiment.methods=[lavva]"], "experiment.methods names 'lavva'"),
        (["experiment.methods=[random]"], "experiment.methods names 'random'"),
        (["experiment.methods=[el2n,el2n]"], "twice"),
        (["experiment.kinds=[typos]"], "experiment.kinds names 'typos'"),
        (["experiment.options={knn_shapley:{neighbours:3}}"], "experiment.options.knn_shapley"),
        (["experiment.options={lava:{}}"], "experiment.options names 'lava'"),
        (["experiment.prune.methods=[lava]"], "experiment.prune.methods names 'lava'"),
        (["experiment.prune.fractions=[1.0]"], "experiment.prune.fractions"),
        (["experiment.incremental.parts=0"], "experiment.incremental.parts"),
        (["experiment.fraction=1.5"], "experiment.fraction"),
        (["experiment.seeds=0"], "experiment.seeds"),
        (
            [
                "experiment.methods=[less]",
                "experiment.incremental=null",
                "task.train.optimizer=sgd",
                "experiment.recipes.less.preconditioner=adam",
            ],
            "less with preconditioner=adam needs Adam",
        ),
        (["task=features"], "needs a DomainTask"),
        (["task=clothing1m"], "needs a DomainTask"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_trained(tmp_path, overrides, words):
    given = changed(TINY, *overrides)
    if overrides[0].startswith("task="):
        given = [o for o in given if not o.startswith(("task.", "features."))]
    outcome = command(tmp_path, *given)
    assert outcome.code == 1 and words in outcome.err and "Traceback" not in outcome.err
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("experiment.options={knn_shapley:{k:0}}", "knn_shapley: k must be"),
        ("experiment.incremental.parts=90", "experiment.incremental.parts=90"),
    ],
)
def test_what_refuses_is_named(first, folder, override, words):
    outcome = command(folder, *changed(TINY, override), name="refused")
    assert outcome.code == 1 and words in outcome.err and not (folder / "refused" / "metrics.json").exists()


# --- pieces ----------------------------------------------------------------------------------------------------------


def test_the_oracle_drops_what_is_corrupted_first():
    order, corrupted = np.array([3, 0, 2, 1]), np.array([True, False, False, True])
    assert oracle_order(order, corrupted).tolist() == [3, 0, 2, 1]
    assert oracle_order(order[::-1], corrupted).tolist() == [0, 3, 1, 2]


@pytest.mark.parametrize(("fraction", "n", "count"), [(0.3, 10, 3), (0.0, 7, 0), (0.5, 7, 3), (0.7, 10, 7)])
def test_a_fraction_is_a_whole_number_of_candidates(fraction, n, count):
    assert dropped(fraction, n) == count


class FakeCase:
    """Values fall with the index; the score of a training is the sum of what it was trained on."""

    kind, seed, n = "noisy_labels", 3, 10
    corrupted = np.arange(10) >= 7

    def __init__(self):
        self.valued, self.trained = [], []

    def value(self, name, candidates=None):
        chosen = np.arange(self.n) if candidates is None else candidates
        self.valued.append(chosen.tolist())
        return SimpleNamespace(values=-chosen.astype(float))

    def scores(self, kept, advance):
        for candidates in kept:
            self.trained.append(sorted(candidates.tolist()))
            advance(1)
        return [float(len(candidates)) for candidates in kept]


def test_pruning_drops_the_lowest_values():
    case, steps = FakeCase(), []
    scores = Prune(["noisy_labels"], ["lava"], [0, 0.3]).run(case, steps.append)
    assert scores == {"lava": [10, 7], "random": [10, 7], "oracle": [10, 7]} and len(steps) == 6
    assert case.trained[1] == list(range(7)) == case.trained[5], "here the corrupted have the lowest values"


def test_parts_add_up_and_are_valued_as_a_whole():
    case, steps = FakeCase(), []
    how = Incremental(["noisy_labels"], ["sava"], parts=3, prune=0.5)
    scores = how.run(case, steps.append)
    assert how.sizes(10) == [3, 7, 10] and len(steps) == how.trainings == 9
    assert scores["no pruning"] == [3, 7, 10] and scores["sava"] == scores["random"] == [2, 4, 5]
    first, second, third = (set(valued) for valued in case.valued)
    assert first < second < third and len(first) == 3
    assert set(case.trained[0]) == set(sorted(first)[:2]), "the lowest value has the largest index"
    with pytest.raises(InputError, match="more than the 2"):
        how.sizes(2)


def test_a_part_of_the_features_is_its_rows():
    rng = np.random.default_rng(0)
    c, t = rng.normal(size=(9, 3)), rng.normal(size=(4, 3))
    whole = Features((c,), (t,), "abc", residuals=(np.arange(9.0),), scores=(-np.arange(9.0),))
    some = np.array([1, 4, 8])
    few = whole.part(some)
    assert isinstance(few.candidates[0], PartRows) and few.candidates[0].shape == (3, 3)
    np.testing.assert_array_equal(few.candidates[0][:], c[some])
    np.testing.assert_array_equal(few.candidates[0][np.array([2, 0])], c[[8, 1]])
    assert few.residuals[0].tolist() == [1, 4, 8] and few.scores[0].tolist() == [-1, -4, -8]
    assert few.fingerprint != whole.fingerprint != whole.part(some[:2]).fingerprint


# --- figures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kinds", "seeds"), [(1, 1), (3, 3)])
def test_figures_of_few_and_many(kinds, seeds):
    rng = np.random.default_rng(0)
    names = [f"kind_{i}" for i in range(kinds)]
    methods = ["lava", "a method of tomorrow"]
    runs = {k: {m: np.sort(rng.random((seeds, 31)), axis=1) for m in methods} for k in names}
    rates = {k: {m: mean_interval(runs[k][m][:, 10]) for m in methods} for k in names}
    themes = ("light", "dark") if seeds == 1 else ("light",)
    share = dict.fromkeys(names, 0.3)
    drawn(detection_figures.detection_curves(runs, share, methods, "How."), themes=themes)
    drawn(detection_figures.detection_dots(rates, rates, share, methods, "How."), themes=themes)
    points = {k: {m: [Interval(0.5), Interval(0.4, 0.3, 0.5)] for m in methods} for k in names}
    drawn(detection_figures.lines("prune", "Title", "Caption.", points, [0, 10], ("x", "y")), themes=themes)
    drawn(
        detection_figures.lines("prune", "Title", "Caption.", {"a": {"b": [Interval(0.5)]}}, [0], ("x", "y")),
        themes=themes,
    )
    strip = detection_figures.Strip(Points(5, 3), "lava", np.arange(5))
    drawn(detection_figures.strips(dict.fromkeys(names, strip)), themes=themes)


def test_metrics_are_plain_data(first):
    assert json.loads((first.output / "metrics.json").read_text())["detection"]
