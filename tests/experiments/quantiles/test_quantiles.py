"""`experiment=quantiles`: what is drawn from which bin, and what the curves say of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import hydra
import numpy as np
import pytest
from scipy.stats import spearmanr

import tarot
from experiments.quantiles import Quantiles
from experiments.quantiles.figures import by_bin
from experiments.quantiles.findings import RANDOM, ZERO, Bin, Curves
from experiments.report.findings import Outcome, Outcomes
from experiments.stages import Workbench
from tarot import InputError, Selection
from tarot.selectors import RoundRobin, Tsds
from tests.experiments.command.test_configs import composed
from tests.experiments.report.test_figures import Points, drawn
from tests.experiments.running import SMALL, command
from tests.experiments.running import Outcome as Command

BINS, SEEDS = 3, 2
BASE = [option for option in SMALL if not option.startswith("experiment")]
TINY = (
    *BASE,
    "experiment=quantiles",
    "experiment.representations=[embedding,embedding:local]",
    f"experiment.bins={BINS}",
    f"experiment.seeds={SEEDS}",
    "experiment.trainings=1",
    "experiment.metrics=[loss]",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quantiles")


@pytest.fixture(scope="module")
def first(folder: Path) -> Command:
    return command(folder, *TINY, name="first", drawn="light")


@pytest.fixture(scope="module")
def bench(folder: Path, first: Command) -> Workbench:
    """The first repetition's, on one of its representations."""
    config = composed(*BASE, "features=embedding", f"cache_dir={folder / 'cache'}", "task.train.merge_targets=false")
    made = (hydra.utils.instantiate(config[key], _convert_="all") for key in ("task", "features"))
    return Workbench(*made, folder / "cache", "cpu")


def test_every_bin_and_line_has_its_models(first):
    metrics = first.metrics
    assert set(metrics["curves"]) == {"embedding", "embedding:local"} and metrics["size"] == 10
    assert all(len(curve) == BINS for curve in metrics["curves"].values())
    assert set(metrics["lines"]) == {"untrained", "random"} and metrics["order"] == "round_robin"
    values = [point["loss"]["values"] for curve in metrics["curves"].values() for point in curve]
    assert all(len(of_seed) == SEEDS and np.isfinite(of_seed).all() for of_seed in values)
    assert {path.stem for path in (first.output / "figures").glob("*.png")} == {"bins_accuracy", "bins_loss"}


def test_correlations_are_spearmans_of_each_repetition(first):
    """A metric that is better the larger counts with its sign turned: 1 says that the nearest is best."""
    for metric, sign in (("accuracy", -1), ("loss", 1)):
        for name, curve in first.metrics["curves"].items():
            values = sign * np.array([point[metric]["values"] for point in curve])
            flat = [np.ptp(column) == 0 for column in values.T]
            each = [0 if f else spearmanr(range(BINS), c).statistic for c, f in zip(values.T, flat, strict=True)]
            assert first.metrics["metrics"][f"spearman/{metric}/{name}"] == pytest.approx(np.mean(each))


def test_strata_are_the_order_of_round_robin(bench):
    """The bins against selections made by themselves."""
    features = bench.features()
    strata = bench.strata([RoundRobin(size=20), RoundRobin(size=40)])
    for place, size in enumerate((20, 40)):
        alone = tarot.select(
            list(features.candidates),
            list(features.targets),
            RoundRobin(size=size),
            candidate_ids=bench.task.ids("candidates"),
        )
        assert (np.flatnonzero(strata <= place) == alone.indices).all()
    assert np.bincount(strata).tolist() == [20, 20, 20]
    with pytest.raises(InputError, match="Tsds has no order of candidates"):
        bench.strata([Tsds(size=20, seed=0), Tsds(size=10, seed=1)])


def test_an_untrained_model_is_a_fresh_one(bench, first):
    model = bench.trained_model(bench.train(None, 0))
    found = bench.task.evaluate(model)
    assert found["loss"] == pytest.approx(first.metrics["lines"]["untrained"]["loss"]["values"][0])


def test_a_second_run_trains_nothing(first, folder, monkeypatch):
    from tasks.classification import Digits

    monkeypatch.setattr(Digits, "train", lambda *_: pytest.fail("a model is trained again"))
    again = command(folder, *TINY, name="again")
    assert again.metrics["curves"] == first.metrics["curves"] and again.metrics["lines"] == first.metrics["lines"]


def curves(values: list[list[float]], metric: str = "loss") -> Curves:
    """values: [bins][repetitions]."""
    task, chosen = Points(20, 4), Selection(np.arange(3), 20, 4, {})
    task.lower_is_better = lambda name: name == "loss"

    def of(numbers: list[float]) -> list[Outcome]:
        return [Outcome(task, chosen, 1.0, [{metric: value}]) for value in numbers]

    points = {Bin("rds", i + 1): of(numbers) for i, numbers in enumerate(values)}
    lines = {ZERO: of([2.0] * len(values[0])), RANDOM: of([1.0] * len(values[0]))}
    return Curves(Outcomes({**lines, **points}), ("rds",), len(values), 1.0, 3)


def test_a_curve_that_rises_with_distance_has_one():
    rising = [[0.1, 0.2, 0.1], [0.3, 0.3, 0.3], [0.7, 0.5, 0.4]]
    found = curves(rising)
    assert found.correlation("rds", "loss").mean == 1 and found.step("rds", "loss").mean == pytest.approx(
        -0.8667, abs=1e-3
    )
    assert curves(rising, "accuracy").correlation("rds", "accuracy").mean == -1
    assert curves([[0.5], [0.5], [0.5]]).correlation("rds", "loss").mean == 0, "flat"
    drawn(by_bin(found, "loss", "round_robin"), themes=("light",))


@pytest.fixture(scope="module")
def experiment() -> Quantiles:
    return hydra.utils.instantiate(composed(*TINY).experiment, _convert_="all")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"representations": ["nope"]}, "experiment.representations names 'nope'"),
        ({"representations": ["wfd:nope"]}, "experiment.representations: wfd:nope: .*whitening must be"),
        ({"representations": []}, "experiment.representations must name one or more"),
        ({"order": "tarot_otm"}, "experiment.order names 'tarot_otm'"),
        ({"order": "dsir"}, "experiment.representations, embedding: dsir compares counts of words"),
        ({"options": {"size": 3}}, "said by experiment.bins"),
        ({"options": {"rho": 3}}, "experiment.options.round_robin"),
        ({"bins": 1}, "experiment.bins must be at least 2"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(experiment, options, words):
    with pytest.raises(InputError, match=words):
        replace(experiment, **options)


def test_bins_that_cannot_be_cut_are_refused(experiment):
    assert experiment._edges(61) == [0, 20, 41, 61] and replace(experiment, focus=0.5)._edges(60) == [0, 10, 20, 30]
    with pytest.raises(InputError, match="60 of 60 candidates cannot be cut into 61 bins"):
        replace(experiment, bins=61)._edges(60)
    with pytest.raises(InputError, match=r"experiment.size: 21 candidates cannot be drawn from a bin of 20"):
        replace(experiment, size=21)._size([0, 20, 41, 61])
