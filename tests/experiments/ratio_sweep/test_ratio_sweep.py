"""`experiment=ratio_sweep`: its numbers follow from what each selection and model left, and errors come in time."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import hydra
import numpy as np
import pytest
from scipy.stats import t

from experiments.ratio_sweep import figures as ratio_figures
from experiments.ratio_sweep import report as ratio_report
from experiments.report.comparison import differences
from experiments.report.findings import Arm, Findings, Outcome
from experiments.stages import Workbench
from tarot import Selection
from tests.experiments.command.test_configs import composed
from tests.experiments.report.test_figures import Points, drawn, problem
from tests.experiments.running import SMALL, changed, command, laid_out_flat
from tests.experiments.running import Outcome as Command

SEEDS, RATIOS = 3, (0.1, 0.3)
CHECKED = (0, SEEDS - 1)  # seeds that are run again, each alone
TINY = (
    *SMALL,
    "experiment=ratio_sweep",
    f"experiment.seeds={SEEDS}",
    f"experiment.ratios={list(RATIOS)}".replace(" ", ""),
    "experiment.selectors=[random,dsdm,tarot_fixed,tarot_otm]",
)
PER_SEED = 3 * (len(RATIOS) + 1) + 1 + 3  # arms: three told how many, one that chooses, three references


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sweep")


@pytest.fixture(scope="module")
def first(folder: Path) -> Command:
    return command(folder, *TINY, name="first")


@pytest.fixture(scope="module")
def alone(folder: Path, first: Command) -> Callable[..., Command]:
    """alone(selector, seed, *options) -> a run of it alone, which finds the models that the sweep has trained."""

    @functools.cache
    def run(selector: str, seed: int, *options: str) -> Command:
        given = [f"selector={selector}", f"seed={seed}", "experiment.arms=[]", *options]
        return command(folder, *SMALL, *given, name=f"{selector}{seed}")

    return run


# --- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selector", "size", "arm"),
    [
        ("random", "selector.ratio=0.3", "random, 30%"),
        ("dsdm", "selector.ratio=0.1", "dsdm, 10%"),
        ("tarot_otm", "", "tarot_otm"),
        ("all", "", "all"),
        ("target_only", "", "target_only"),
        ("oracle", "", "oracle"),
    ],
)
def test_an_arm_is_what_a_run_of_its_own_finds(first, folder, alone, selector, size, arm):
    """Seed by seed; the runs read the models that the sweep has trained, and train none."""
    models = set((folder / "cache" / "models").glob("*.safetensors"))
    found = first.metrics["arms"][arm]
    for i in CHECKED:
        own = alone(selector, i, *([size] if size else [])).metrics
        assert found["metrics"]["accuracy"]["values"][i] == pytest.approx(own["metrics"]["accuracy"], abs=1e-12)
        for fact in ("size", "ratio", "precision"):
            value = found["selection"][fact]["values"][i]
            assert value == (own["selection"][fact] if own["selection"][fact] is not None else value)
        if selector not in ("dsdm", "target_only"):  # dsdm is measured among whitened gradients here
            assert found["selection"]["ot_distance"]["values"][i] == pytest.approx(own["selection"]["ot_distance"])
    assert set((folder / "cache" / "models").glob("*.safetensors")) == models


@pytest.mark.parametrize(("selector", "arm"), [("tarot_otm", "tarot_otm"), ("all", "all")])
def test_a_score_is_the_mean_of_its_models(first, folder, alone, selector, arm):
    """By hand, from the file of each model's metrics; the model's name follows from its selection and its seed."""
    options = [o for o in SMALL if not o.startswith("experiment")]
    for i in CHECKED:
        config = composed(*options, f"seed={i}", f"cache_dir={folder / 'cache'}")
        task, recipe = (hydra.utils.instantiate(config[key]) for key in ("task", "features"))
        bench = Workbench(task, recipe, folder / "cache", "cpu")
        selection = Selection.load(alone(selector, i).output / "selection.parquet")
        models = [bench.train(selection, 1000 * i + training) for training in range(2)]
        files = [next((folder / "cache" / "metrics").glob(f"{model.stem}-*.json")) for model in models]
        scores = [json.loads(file.read_text())["accuracy"] for file in files]
        found = first.metrics["arms"][arm]["metrics"]["accuracy"]["values"][i]
        assert len(set(files)) == 2 and found == pytest.approx(sum(scores) / 2, abs=1e-12)


def test_differences_are_students_of_pairs(first):
    """By hand, from the values of both arms."""
    arms = first.metrics["arms"]
    for arm, other in (("tarot_fixed, 30%", "random, 30%"), ("tarot_otm", "random, as many as tarot_otm")):
        values = [np.array(arms[name]["metrics"]["accuracy"]["values"]) for name in (arm, other)]
        pairs = values[0] - values[1]
        half = t.ppf(0.975, SEEDS - 1) * pairs.std(ddof=1) / math.sqrt(SEEDS)
        found = arms[arm]["minus"]["random"]
        assert found["of"] == other and found["mean"] == pytest.approx(pairs.mean())
        assert found["interval"] == pytest.approx([pairs.mean() - half, pairs.mean() + half])
        assert found["ahead"] == (pairs > 0).sum()
    assert first.metrics["paired"]["tarot_otm"]["all"] == {
        key: value for key, value in arms["tarot_otm"]["minus"]["all"].items() if key != "of"
    }


def test_metrics_have_what_was_asked_for(first):
    metrics = first.metrics
    assert metrics["headline"] == "accuracy" and metrics["metrics"]["accuracy/all"] > 0
    assert len(metrics["arms"]) == PER_SEED and set(metrics["paired"]) == {"tarot_otm"}
    assert len(metrics["paired"]["tarot_otm"]) == PER_SEED - 1
    sizes = {name: arm["selection"]["size"]["values"] for name, arm in metrics["arms"].items()}
    assert sizes["dsdm, 10%"] == [6] * SEEDS and sizes["all"] == [60] * SEEDS and sizes["target_only"] == [0] * SEEDS
    assert sizes["random, as many as tarot_otm"] == sizes["tarot_otm"] == sizes["dsdm, as many as tarot_otm"]
    assert metrics["arms"]["oracle"]["selection"]["precision"]["values"] == [1.0] * SEEDS
    assert metrics["pool_precision"] == pytest.approx(metrics["arms"]["all"]["selection"]["precision"]["mean"])
    assert metrics["arms"]["target_only"]["selection"]["ot_distance"]["mean"] is None
    assert "minus" in metrics["arms"]["random, 10%"] and "random" not in metrics["arms"]["random, 10%"]["minus"]


def test_output_is_complete(first, folder):
    assert {path.name for path in first.output.iterdir() if path.name[0] != "."} == {
        "config.yaml", "metrics.json", "figures", "report.html", "run.log",
    }  # fmt: skip
    assert {path.stem for path in (first.output / "figures").glob("*.png")} == {
        "ratios", "paired_tarot_otm", "selected",
    }  # fmt: skip
    page = (first.output / "report.html").read_text()
    assert "tarot_otm against the others" in page and "minus random of its size" in page and "{{" not in page


# --- caches ----------------------------------------------------------------------------------------------------------


def test_an_interrupted_run_goes_on_from_the_cache(first, folder, monkeypatch):
    """A second one trains nothing; without one of the models, that alone is trained."""
    from tasks.classification import Digits

    trained = []
    how = Digits.train
    monkeypatch.setattr(Digits, "train", lambda self, *args: trained.append(args) or how(self, *args))
    again = command(folder, *TINY, name="again").metrics
    assert not trained and {k: again[k] for k in ("arms", "paired")} == {
        k: first.metrics[k] for k in ("arms", "paired")
    }
    gone = sorted((folder / "cache" / "models").glob("*.safetensors"))[0]
    gone.unlink()
    assert command(folder, *TINY, name="resumed").metrics["arms"] == first.metrics["arms"]
    assert len(trained) == 1 and gone.exists()


# --- a single repetition, an automatic size ---------------------------------------------------------------------------


def test_trainings_of_one_repetition_are_compared(first, folder):
    """Then intervals are over trainings, and pairs are models of one training seed."""
    options = ["experiment.seeds=1", "experiment.selectors=[random,tarot_fixed]", "experiment.references=[]"]
    metrics = command(folder, *changed(TINY, *options), "experiment.trainings=4", name="one").metrics
    found = metrics["arms"]["tarot_fixed, 10%"]["metrics"]["accuracy"]
    assert len(found["values"]) == 4 and found["interval"][0] is not None and "training seed" in metrics["interval"]
    assert np.mean(found["values"][:2]) == first.metrics["arms"]["tarot_fixed, 10%"]["metrics"]["accuracy"]["values"][0]
    assert metrics["paired"] == {} and set(metrics["arms"]["random, 10%"]["minus"]) == set()


def test_an_automatic_size_is_its_own(folder):
    options = ["experiment.seeds=1", "experiment.trainings=1", "experiment.selectors=[random,tarot_exact]"]
    options += ["experiment.options={tarot_exact:{size:auto}}", "experiment.references=[all]"]
    arms = command(folder, *changed(TINY, *options), name="auto").metrics["arms"]
    assert set(arms) == {"random, 10%", "random, 30%", "random, as many as tarot_exact", "tarot_exact", "all"}


def test_less_runs_on_what_sgd_trained_and_the_report_says_how(folder):
    """Figures 5 and 7 of the paper have a curve of LESS; segmentation's surrogates know no Adam."""
    options = ["experiment.seeds=1", "experiment.trainings=1", "experiment.ratios=[0.1]", "experiment.references=[]"]
    options += ["experiment.selectors=[random,less]", "task.train.optimizer=sgd"]
    found = command(folder, *changed(TINY, *options), name="sgd", drawn=True)
    assert found.metrics["arms"]["less, 10%"]["selection"]["size"]["values"] == [6]
    (note,) = found.metrics["notes"]
    assert note.startswith("SGD trained the surrogates, so less compares plain gradients")
    assert note.partition(",")[0] in (found.output / "report.html").read_text()


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["experiment.selectors=[tarot_fixd]"], "experiment.selectors names 'tarot_fixd'"),
        (["experiment.selectors=[all]"], "experiment.selectors names 'all'"),
        (["experiment.selectors=[random,random]"], "twice"),
        (["experiment.selectors=[]"], "one or more"),
        (["experiment.ratios=[0]"], "experiment.ratios[0] must be in (0, 1]; it is 0"),
        (["experiment.ratios=[0.1,1.5]"], "experiment.ratios[1] must be in (0, 1]; it is 1.5"),
        (["experiment.ratios=[many]"], "experiment.ratios[0] must be a number in (0, 1]; it is 'many'"),
        (["experiment.ratios=[0.1,0.1]"], "one twice"),
        (["experiment.ratios=[]"], "experiment.ratios must have one or more"),
        (["experiment.ratios=[0.001]"], "0.001 of 60 candidates selects none"),
        (["experiment.references=[none]"], "experiment.references names 'none'"),
        (["experiment.options={tarot_otm:{fold:3}}"], "experiment.options.tarot_otm"),
        (["experiment.options={random:{ratio:0.5}}"], "experiment.options.random"),
        (["experiment.options={lava:{}}"], "experiment.options names 'lava'"),
        (["experiment.seeds=0"], "experiment.seeds"),
        (["experiment.trainings=0"], "experiment.trainings"),
        (
            ["experiment.selectors=[less]", "task.train.optimizer=sgd", "experiment.recipes.less.preconditioner=adam"],
            "less with preconditioner=adam needs Adam",
        ),
        (["task=features"], "needs a Task, which task=features is not"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_trained(tmp_path, overrides, words):
    given = changed(TINY, *overrides)
    if overrides == ["task=features"]:
        given = [o for o in given if not o.startswith(("task.", "features."))]
    outcome = command(tmp_path, *given)
    assert outcome.code == 1 and words in outcome.err and "Traceback" not in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1 and not list((tmp_path / "cache").rglob("*.safetensors"))


def test_a_method_that_refuses_is_named(folder):
    outcome = command(folder, *changed(TINY, "experiment.options={tarot_otm:{folds:0}}"), name="refused")
    assert outcome.code == 1 and "tarot_otm: folds must be at least 1" in outcome.err


# --- findings by hand ------------------------------------------------------------------------------------------------


def findings(arms: dict[Arm, list[list[float]]], tags: bool = True) -> Findings:
    """arms: accuracies, [repetitions][trainings]; everyone selects the first three of 20 candidates."""
    task, selection = Points(20, 4, tags=tags), Selection(np.arange(3), 20, 4, {})
    return Findings(
        {
            arm: [Outcome(task, selection, 1.0, [{"miou": value} for value in values]) for values in of_arm]
            for arm, of_arm in arms.items()
        },
        sized=[],
    )


OTM, RANDOM, MATCHED, ALL = Arm("tarot_otm"), Arm("random", 0.1), Arm("random", "tarot_otm"), Arm("all")


def test_counterparts():
    found = findings({arm: [[0.5]] for arm in (OTM, RANDOM, MATCHED, ALL, Arm("dsdm", 0.1), Arm("oracle"))})
    assert found.counterpart(OTM, "random") == MATCHED and found.counterpart(OTM, "all") == ALL
    assert found.counterpart(Arm("dsdm", 0.1), "random") == RANDOM and found.counterpart(RANDOM, "random") is None
    assert found.counterpart(ALL, "random") is None and found.counterpart(Arm("oracle"), "random") is None
    assert found.of_own_size == [OTM] and ratio_report.best(found) in (OTM, RANDOM, MATCHED)


def test_repetitions_are_means_of_their_trainings():
    found = findings({OTM: [[0.2, 0.4], [0.5, 0.7]], RANDOM: [[0.1, 0.1], [0.3, 0.1]]})
    assert found.numbers(OTM, "miou") == pytest.approx([0.3, 0.6])
    assert found.difference(OTM, RANDOM).values == pytest.approx((0.2, 0.4)) and found.ahead(OTM, RANDOM) == 2
    assert "mean of 2 models" in found.how


def test_lower_may_be_better():
    found = findings({OTM: [[0.2], [0.5]], MATCHED: [[0.3], [0.4]], RANDOM: [[0.9], [0.9]]})
    assert ratio_report.best(found) == RANDOM and found.ahead(OTM, RANDOM) == 0 and found.ahead(OTM, MATCHED) == 1
    found.first[0].task.lower_is_better = lambda metric: metric == "miou"
    assert found.lower_is_better() and not found.lower_is_better("iou/road")
    assert ratio_report.best(found) in (OTM, MATCHED) and found.ahead(OTM, RANDOM) == 2
    assert found.difference(OTM, RANDOM).mean == pytest.approx(-0.55), "differences keep their sign"
    assert "To the left of 0" in differences(found, OTM).caption


def test_further_metrics_have_a_table(folder):
    models = folder / "cache" / "models"
    before = {*models.iterdir()} if models.is_dir() else set()
    outcome = command(folder, *changed(TINY, "experiment.metrics=[log_loss]", "task.train.steps=3"), name="further")
    assert before == ({*models.iterdir()} if models.is_dir() else set()), "it is said before anything is trained"
    assert outcome.code == 1 and "experiment.metrics: digits has no metric 'log_loss'; it has accuracy" in outcome.err
    outcome = command(folder, *changed(TINY, "experiment.metrics=[loss]"), name="further")
    page = (outcome.output / "report.html").read_text()
    assert "Further metrics" in page and "loss: the lower the better" in page


def test_only_metrics_of_all_models_are_means():
    """The IoU of a class that does not occur in one repetition's test is none."""
    found = findings({OTM: [[0.2], [0.4]]})
    found.outcomes[OTM][0].metrics[0]["iou/person"] = 0.1
    assert found.metric_names == ["miou"]


@pytest.mark.parametrize("repetitions", [1, 2, 4])
@pytest.mark.parametrize("arms", [(OTM,), (RANDOM,), (OTM, RANDOM, MATCHED, ALL, Arm("target_only"), Arm("dsdm", 0.2))])
def test_figures_of_few_and_many(arms, repetitions):
    rng = np.random.default_rng(0)
    found = findings({arm: rng.random((repetitions, 1)).tolist() for arm in arms}, tags=repetitions > 1)
    themes = ("light", "dark") if repetitions == 2 else ("light",)
    drawn(ratio_figures.by_ratio(found), themes=themes)
    if len(arms) > 1:
        drawn(differences(found, OTM), themes=themes)
    of = problem(20, 4)
    chosen = {f"method {i}": Selection(np.arange(i + 1), 20, 4, {}) for i in range(len(arms))}
    with nullcontext() if repetitions == 2 else laid_out_flat():
        drawn(ratio_figures.where(of, chosen, points=15, seed=0), themes=themes)
