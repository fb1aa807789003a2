"""The paper's page: verdicts follow from differences, runs that fail are said, and what it declares composes."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir
from matplotlib import image

from experiments.command.resolvers import register_resolvers
from experiments.paper import Asked, runs
from experiments.paper.claims import Comparison, Finding, findings
from experiments.paper.report import page
from experiments.paper.runs import Ended, carry_out, quoted
from experiments.report import Interval, mean_interval
from tarot import InputError
from tests.experiments.running import command

PICTURE = Path(__file__).parents[3] / "docs" / "pictures" / "neighbours.png"
CONF = Path(__file__).parents[3] / "conf"
BESIDE = {"cores": "2 cores"}


def asked(part="sweep", label="streets", **options) -> Asked:
    return Asked(part, label, **{"overrides": ["experiment=ratio_sweep", "task=digits"], **options})


def sweep(lower_is_better=False, metric="miou", **scores) -> dict:
    """metrics.json of a sweep with these arms, each given as selector, at, values."""
    arms = {
        name: {
            "selector": selector,
            "at": at,
            "metrics": {metric: {"values": values}},
            "selection": {"ratio": {"values": [0.05] * len(values)}},
        }
        for name, (selector, at, values) in scores.items()
    }
    return {"arms": arms, "headline": metric, "lower_is_better": lower_is_better, "interval": "Over 3."}


def attribution(**scores) -> dict:
    """metrics.json of LDS by these estimators, each with values for 1 and 5 models."""
    by_name = {
        name: {
            size: {"reason": "singular"} if value is None else {"lds": value, "interval": [value - 0.1, value + 0.1]}
            for size, value in zip(("1", "5"), values, strict=True)
        }
        for name, values in scores.items()
    }
    return {"lds": by_name, "differences": {"trak": {"1": [0.1, 0.05, 0.15]}}, "features": {}}


ARMS = {
    "tarot_fixed, 5%": ("tarot_fixed", 0.05, [0.80, 0.82, 0.84]),
    "random, 5%": ("random", 0.05, [0.60, 0.61, 0.62]),
    "less, 5%": ("less", 0.05, [0.79, 0.84, 0.83]),
    "less, 20%": ("less", 0.2, [0.99, 0.99, 0.99]),  # of another size: not compared
    "tarot_otm": ("tarot_otm", None, [0.85, 0.86, 0.87]),
    "random, as many as tarot_otm": ("random", "tarot_otm", [0.5, 0.5, 0.5]),
    "all": ("all", None, [0.9, 0.91, 0.92]),
    "target_only": ("target_only", None, [0.95, 0.97, 0.98]),
}


def test_a_claim_holds_where_every_interval_is_above_0_and_fails_where_one_is_below():
    above, below, across = Interval(1, 0.5, 1.5), Interval(-1, -1.5, -0.5), Interval(0.1, -0.1, 0.3)

    def verdict(*intervals: Interval) -> str:
        return Finding("c", "w", "r", [Comparison("x", one) for one in intervals]).verdict

    assert verdict(above, above) == "holds"
    assert verdict(above, across) == "cannot be told"
    assert verdict(above, Interval(1.0)) == "cannot be told"  # one repetition has no interval
    assert verdict(above, across, below) == "does not hold"
    assert verdict() == "not run"


def test_claims_of_a_sweep_are_paired_differences_between_arms_of_one_size():
    found = {one.claim: one for one in findings([Ended(asked(), [sweep(**ARMS)])])}
    ratios = found["TAROT is above the other methods at every ratio"]
    assert [one.what for one in ratios.comparisons] == [
        "tarot_fixed, 5% and random, 5%",
        "tarot_fixed, 5% and less, 5%",
        "tarot_otm and random, as many as tarot_otm",
    ]
    assert ratios.comparisons[0].by == mean_interval([0.80 - 0.60, 0.82 - 0.61, 0.84 - 0.62])
    assert ratios.verdict == "cannot be told" and ratios.weakest is ratios.comparisons[1]
    assert found["OTM is above all candidates"].verdict == "does not hold"
    assert found["All candidates are worse than none, the targets alone"].verdict == "holds"
    assert found["OTM's own ratio is the best"].verdict == "holds"


def test_otms_ratio_is_compared_with_other_ratios_alone():
    """At its own size `tarot_fixed` is often the same selection: a tie that no claim could hold against."""
    own = {"tarot_fixed, as many as tarot_otm": ("tarot_fixed", "tarot_otm", ARMS["tarot_otm"][2])}
    found = {one.claim: one for one in findings([Ended(asked(), [sweep(**ARMS, **own)])])}
    assert [one.what for one in found["OTM's own ratio is the best"].comparisons] == ["tarot_fixed, 5%"]
    assert found["OTM's own ratio is the best"].verdict == "holds"


def test_what_one_model_selects_for_another_is_judged_by_random_candidates():
    claim = "What one model selects helps another, more than as many random candidates"
    alike, other = (Ended(asked(transfer=transfer), [sweep(**ARMS)]) for transfer in (False, True))
    assert claim not in {one.claim for one in findings([alike])}
    found = {one.claim: one for one in findings([other])}[claim]
    assert found.verdict == "holds" and [one.what for one in found.comparisons] == [
        "tarot_fixed, 5% and random, 5%",
        "tarot_otm and random, as many as tarot_otm",
    ]


def test_a_claim_whose_arms_are_missing_is_said_not_to_be_run():
    few = {name: arm for name, arm in ARMS.items() if name not in ("all", "tarot_otm")}
    found = {one.claim: one for one in findings([Ended(asked(), [sweep(**few)])])}
    assert found["OTM is above all candidates"].verdict == "not run"
    assert found["OTM is above all candidates"].note == "the run has no such arms"
    left_out = Ended(Asked("instruction", "transfer", why="nobody learns"), missing="nobody learns")
    assert not findings([left_out]), "the table of runs says so"


def test_a_difference_that_is_no_number_tells_nothing_and_is_shown():
    values = ARMS["less, 5%"][2]
    arms = {**ARMS, "less, 5%": ("less", 0.05, [float("nan"), *values[1:]])}
    found = {one.claim: one for one in findings([Ended(asked(), [sweep(**arms)])])}
    ratios = found["TAROT is above the other methods at every ratio"]
    assert ratios.verdict == "cannot be told" and ratios.weakest.what == "tarot_fixed, 5% and less, 5%"


def test_where_less_is_better_the_claims_turn():
    arms = sweep(lower_is_better=True, **ARMS)
    found = {one.claim: one.verdict for one in findings([Ended(asked(), [arms])])}
    assert found["OTM is above all candidates"] == "holds"
    assert found["OTM's own ratio is the best"] == "does not hold"


def test_claims_of_attribution_over_seeds_and_of_one():
    three = [attribution(wfd_zca=(0.3 + i, 0.4 + i), trak=(0.1 + i, 0.3 + i)) for i in (0.0, 0.01, 0.03)]
    over_seeds, *_ = findings([Ended(asked("influence"), three)])
    assert over_seeds.verdict == "holds"
    assert [round(one.by.mean, 6) for one in over_seeds.comparisons] == [0.2, 0.1]
    alone, *_ = findings([Ended(asked("influence"), [attribution(wfd_zca=(0.3, 0.4), trak=(0.2, None))])])
    assert alone.comparisons == [Comparison("TRAK, 1 model", Interval(0.1, 0.05, 0.15))]
    assert alone.note == "TRAK has no score: singular"
    other = attribution(tempered=(0.9, 0.9), wfd_zca=(0.3, 0.4), trak=(0.2, 0.3))  # differences are of the first
    first, *_ = findings([Ended(asked("influence"), [other])])
    assert first.verdict == "cannot be told" and round(first.comparisons[0].by.mean, 6) == 0.1


def test_claims_of_folds_and_of_time():
    def values(test, targets):
        return {"test": {"values": test}, "targets": {"values": targets}, "selection": {"size": {"mean": 9}}}

    folds = {
        "folds": {"1": values([3, 3, 3.1], [1, 1, 1.1]), "10": values([2, 2.1, 2.2], [1.5, 1.6, 1.8])},
        "lower_is_better": True, "metric": "brier", "interval": "Over 3.",
    }  # fmt: skip
    timed = [
        Ended(
            asked("time", name, overrides=[f"selector={name}"]),
            [{"seconds": {"select": second + i / 10}} for i in range(3)],
        )
        for name, second in (("tsds", 9.0), ("tarot_fixed", 1.0), ("tarot_otm", 12.0))
    ]
    found = {one.claim: one for one in findings([Ended(asked("folds"), [folds]), *timed])}
    assert found["Ten folds are the best on test"].verdict == "holds"
    assert found["The more folds, the worse on the targets"].verdict == "holds"
    slower = found["TSDS takes longer to select than TAROT"].comparisons
    assert [round(one.by.mean, 6) for one in slower] == [8, -3]


def test_the_page_says_verdicts_numbers_and_what_is_missing():
    ended = [
        Ended(asked(), [sweep(**ARMS)], 90.0),
        Ended(asked("influence", "digits"), [attribution(wfd_zca=(0.3, 0.4), trak=(0.1, 0.2))] * 3, 200.0),
        Ended(asked("folds", "traffic"), missing="no such folder: mine"),
        Ended(Asked("leaderboard", "leaderboard", why="nobody judges it")),
    ]
    made = page(ended, "embedded", BESIDE)
    elsewhere = page([Ended(asked(), [sweep(metric="brier", **ARMS)], 90.0)], "embedded", BESIDE)
    assert "58.21" not in str([table.rows for table in elsewhere.tables]), "it is in mIoU"
    texts = {table.title: "\n".join(" | ".join(row) for row in table.rows) for table in made.tables}
    assert "58.21 (4.2) | 0.910 [0.885, 0.935]" in texts["Figures 5 and 7: streets"]
    assert "wfd_zca | 0.028 / 0.065 / 0.098 | 0.300" in texts["Figure 4 and Table 2: digits"]
    assert (
        "Ten folds are the best on test | Figure 8 | traffic | no such folder: mine | not run"
        in texts["What the paper claims"]
    )
    assert "no such folder: mine" in texts["Runs"]
    assert made.metrics["metrics"]["claims"] == len(made.metrics["claims"])
    assert [figure.name for figure in made.figures] == ["sweep_streets", "influence_digits"]
    assert all(figure.png("light").startswith(b"\x89PNG") for figure in made.figures)


def test_the_page_shows_the_pictures_of_its_runs(tmp_path):
    def drawn(part: str, file: str) -> Ended:
        picture = tmp_path / part / "figures" / file
        picture.parent.mkdir(parents=True)
        shutil.copy(PICTURE, picture)
        metrics = sweep(**ARMS) if part == "sweep" else {"arms": {}}
        return Ended(asked(part), [metrics], 1.0, [tmp_path / part / "report.html"])

    ended = [drawn("sweep", "selected.png"), drawn("pictures", "neighbours.png")]
    made = {figure.name: figure for figure in page(ended, "embedded", BESIDE).figures}
    assert {*made} == {"sweep_streets", "selected_streets", "neighbours_streets"}
    assert made["neighbours_streets"].title == "Figures 3, 9 and 10: streets"
    there = image.imread(PICTURE)[..., :3]
    for theme in ("light", "dark"):
        shown = image.imread(io.BytesIO(made["neighbours_streets"].png(theme)))[..., :3]
        assert np.array_equal(shown, there), "pixel by pixel"


PROGRAM = """
import json, pathlib, sys
given = dict(one.split("=", 1) for one in sys.argv[1:])
folder = pathlib.Path(given["output_dir"].strip("'"))
if given["seed"] == given.get("fails"):
    (folder / "run.log").write_text("2026 INFO fine\\n2026 ERROR no such folder: mine\\n")
    sys.exit(1)
if given["seed"] == given.get("stops"):
    sys.exit(130)
seconds = {"select": 0.5, "report": 4.0} if (folder / "metrics.json").exists() else {"select": 9.0, "report": 3.0}
metrics = {"seed": given["seed"], "device": given["device"], "seconds": seconds}
(folder / "metrics.json").write_text(json.dumps(metrics))
"""


@pytest.fixture
def program(tmp_path, monkeypatch) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    monkeypatch.setattr(runs, "PROGRAM", path)
    return tmp_path / "a folder, with a comma"


def test_runs_go_on_where_they_stopped_and_say_why_they_end(program):
    fine = [*carry_out(asked(seeds=2), program, ["device=cpu"])][-1]
    assert [one["seed"] for one in fine.metrics] == ["0", "1"] and fine.metrics[0]["device"] == "cpu"
    assert not fine.missing and fine.seconds > 0
    for report in fine.reports:  # a second time it takes as long as the first, which had an empty cache
        (report.parent / "took.json").write_text("60.0")
    assert [*carry_out(asked(seeds=2), program, ["device=cpu"])][-1].seconds == 120
    again = [*carry_out(asked(seeds=2), program, ["device=cpu"])][-1].metrics
    assert [one["seconds"] for one in again] == [{"select": 9.0, "report": 4.0}] * 2, "not of what is in the cache"
    half = [*carry_out(asked(seeds=3, overrides=["task=digits", "fails=1"]), program, ["device=cpu"])][-1]
    assert len(half.metrics) == 1 and half.missing == "no such folder: mine"
    with pytest.raises(KeyboardInterrupt):
        list(carry_out(asked(overrides=["task=digits", "stops=0"]), program, ["device=cpu"]))


def test_its_engine_is_that_of_its_runs(program, tmp_path):
    (program.parent / "program.py").write_text("import sys; sys.exit(' '.join(sys.argv[1:]))")
    page = ["experiment=paper", "experiment.only=[time_fixed]"]
    ended = command(tmp_path, *page, "engine=threads", "engine.workers=2")
    assert ended.code == 0, ended.err
    assert "engine=threads engine.workers=2" in ended.err + ended.out


def test_what_a_scale_declares_is_refused_where_it_is_not_whole():
    with pytest.raises(InputError, match="must have overrides, or say why"):
        Asked("sweep", "streets")
    with pytest.raises(InputError, match=r"must leave 'seed=3' to experiment=paper"):
        asked(overrides=["seed=3"])
    with pytest.raises(InputError, match=r"experiment.runs.part"):
        asked("table")


SCALES = sorted(path.stem for path in (CONF / "scale").glob("*.yaml"))


def declared(scale: str) -> dict[str, Asked]:
    found = yaml.safe_load((CONF / "scale" / f"{scale}.yaml").read_text())
    assert found["scale"] == scale
    return {name: Asked(**{k: v for k, v in one.items() if k != "_target_"}) for name, one in found["runs"].items()}


@pytest.mark.parametrize("scale", SCALES)
def test_a_scale_names_experiments_tasks_and_selectors_that_there_are(scale):
    for name, one in declared(scale).items():
        named = dict(override.split("=", 1) for override in one.overrides)
        for group in {"experiment", "task", "selector", "features"} & named.keys():
            assert (CONF / group / f"{named[group]}.yaml").is_file(), f"{name}: {group}={named[group]}"
    labels = [one.label for one in declared(scale).values()]
    assert len(set(labels)) == len(labels)  # metrics.json and figures are named by them


@pytest.mark.slow  # each takes a fifth of a second
@pytest.mark.parametrize("scale", SCALES)
def test_what_a_scale_declares_composes(scale, tmp_path):
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base=None):
        assert list(compose("config", ["experiment=paper", f"scale={scale}"]).experiment.runs) == list(declared(scale))
        for one in declared(scale).values():
            if one.overrides:
                config = compose("config", [*one.overrides, f"cache_dir={quoted(tmp_path)}", "output_dir=there"])
                assert config.cache_dir == str(tmp_path)
