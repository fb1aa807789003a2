"""`experiment=grid`: its cells are what runs of their own find, and distances are those of every space."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import hydra
import numpy as np
import pytest

from experiments.grid import Grid
from tarot import InputError
from tests.experiments.command.test_configs import composed
from tests.experiments.running import SMALL, command
from tests.experiments.running import Outcome as Command

SEEDS, REPRESENTATIONS, ALGORITHMS, RATIOS = (
    2,
    ("embedding", "embedding:local"),
    ("tarot_fixed", "round_robin"),
    (0.1, 0.3),
)
BASE = [option for option in SMALL if not option.startswith("experiment")]
TINY = (
    *BASE,
    "experiment=grid",
    f"experiment.representations=[{','.join(REPRESENTATIONS)}]",
    f"experiment.algorithms=[{','.join(ALGORITHMS)}]",
    f"experiment.ratios=[{RATIOS[0]},{RATIOS[1]}]",
    f"experiment.seeds={SEEDS}",
    "experiment.metrics=[]",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("grid")


@pytest.fixture(scope="module")
def first(folder: Path) -> Command:
    return command(folder, *TINY, name="first", drawn="light")


def test_every_cell_and_line_is_there(first):
    arms = first.metrics["arms"]
    cells = {
        f"{name} on {kind}, {100 * ratio:.3g}%" for name in ALGORITHMS for kind in REPRESENTATIONS for ratio in RATIOS
    }
    assert set(arms) == cells | {"random, 10%", "random, 30%", "all", "target_only", "oracle", "untrained"}
    assert all(arms[name]["size"] == [6 if "10%" in name else 18] * SEEDS for name in cells)
    assert {path.stem for path in (first.output / "figures").glob("*.png")} == {
        "grid_accuracy", "paired_tarot_fixed", "spaces",
    }  # fmt: skip
    page = (first.output / "report.html").read_text()
    assert "Distances in every space" in page and "minus tarot_fixed on the same" in page and "{{" not in page


@pytest.mark.parametrize("kind", REPRESENTATIONS)
def test_a_cell_is_what_a_run_of_its_own_finds(first, folder, kind):
    """Which finds the model that the grid has trained; its distance is that in its own space."""
    name, _, whitening = kind.partition(":")
    given = [
        "selector=round_robin",
        f"features={name}",
        "selector.ratio=0.3",
        "experiment.arms=[]",
        "experiment.trainings=1",
    ]
    given += [f"features.whitening={whitening}"] if whitening else []
    models = set((folder / "cache" / "models").iterdir())
    own = command(folder, *BASE, *given, "seed=1", name=f"alone{len(whitening)}").metrics
    cell = first.metrics["arms"][f"round_robin on {kind}, 30%"]
    assert set((folder / "cache" / "models").iterdir()) == models
    assert cell["metrics"]["loss"]["values"][1] == pytest.approx(own["metrics"]["loss"], abs=1e-12)
    assert cell["precision"][1] == own["selection"]["precision"]


def test_differences_are_pair_by_pair(first):
    arms = first.metrics["arms"]
    cell, same, reference = (
        np.array(arms[name]["metrics"]["accuracy"]["values"])
        for name in (
            "round_robin on embedding:local, 10%",
            "tarot_fixed on embedding:local, 10%",
            "tarot_fixed on embedding, 10%",
        )
    )
    found = arms["round_robin on embedding:local, 10%"]
    assert found["minus_same_features"]["mean"] == pytest.approx((cell - same).mean())
    assert found["minus_reference"]["mean"] == pytest.approx((cell - reference).mean())
    assert found["minus_reference"]["ahead"] == (cell > reference).sum()


def test_distances_are_in_every_space(first):
    """Of every arm; whoever looks at a space is nearer there than random."""
    arms = first.metrics["arms"]
    assert all(set(arm["ot_distance"]) == set(REPRESENTATIONS) for arm in arms.values())
    for kind in REPRESENTATIONS:
        chosen = arms[f"tarot_fixed on {kind}, 30%"]["ot_distance"][kind]
        assert chosen < arms["random, 30%"]["ot_distance"][kind]
    assert arms["untrained"]["ot_distance"]["embedding"] is None


@pytest.fixture(scope="module")
def experiment() -> Grid:
    return hydra.utils.instantiate(composed(*TINY).experiment, _convert_="all")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"algorithms": ["tarot_fixed", "tarot_otm"]}, "experiment.algorithms: tarot_otm chooses its own size"),
        ({"algorithms": ["round_robin"]}, "experiment.against names 'tarot_fixed'"),
        ({"algorithms": ["tarot_fixed", "el2n"]}, "el2n goes by what features=el2n measures on models"),
        ({"options": {"tarot_fixed": {"size": 3}}}, "experiment.options.tarot_fixed: .* said by experiment.ratios"),
        ({"ratios": []}, "experiment.ratios must name one or more"),
        ({"lines": ["best"]}, "experiment.lines names 'best'"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(experiment, options, words):
    with pytest.raises(InputError, match=words):
        replace(experiment, **options)
