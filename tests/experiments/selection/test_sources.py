"""How much of each dataset is selected, and in which space: in tables, figures and metrics.json of a selection."""

from __future__ import annotations

import pytest

from tarot import Selection
from tests.experiments.running import command

MOTION = (
    "task=motion",
    "task.data.candidates={cand_highway:10,cand_roundabout:12,cand_crossing:12,cand_parking:6}",
    "task.data.targets=8",
    "task.data.validation=4",
    "task.data.test=12",
    "task.data.processes=1",
    "task.train.steps=3",
    "task.train.batch_size=8",
    "task.surrogate_train.steps=3",
    "task.surrogate_train.batch_size=8",
    "experiment.trainings=1",
    "experiment.tsne_points=20",
    "features.dim=12",
    "device=cpu",
)


@pytest.fixture(scope="module")
def motion(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    return command(folder, *MOTION, "experiment.arms=[random,target_only,k_center]", name="motion", drawn=("sources",))


def test_a_selection_says_how_much_of_each_database_it_has(motion):
    selection = Selection.load(motion.output / "selection.parquet")
    found = motion.metrics["selection"]["sources"]
    assert {name: of["candidates"] for name, of in found.items()} == {
        "cand_highway": 10, "cand_roundabout": 12, "cand_crossing": 12, "cand_parking": 6,
    }  # fmt: skip
    chosen = [name.split("/")[0] for name in selection.ids]
    assert {name: of["selected"] for name, of in found.items()} == {name: chosen.count(name) for name in found}
    assert sum(of["share_of_selected"] for of in found.values()) == pytest.approx(1)
    other = motion.metrics["arms"]["random"]["selection"]["sources"]
    assert sum(of["selected"] for of in other.values()) == len(selection)
    assert {
        of["share_of_selected"] for of in motion.metrics["arms"]["target_only"]["selection"]["sources"].values()
    } == {None}


def test_the_report_shows_it(motion):
    assert (motion.output / "figures" / "sources.png").stat().st_size > 0
    page = (motion.output / "report.html").read_text()
    assert page.count("Selected share by dataset") >= 2 and "cand_roundabout" in page


def test_an_arm_on_other_features_than_its_own_says_so(motion):
    """k_center asks for embeddings, and the run has whitened gradients."""
    arms = motion.metrics["arms"]
    assert set(arms) == {"random", "target_only", "k_center on wfd"}
    space = arms["k_center on wfd"]["selection"]["space"]
    made_in = {name: arm["selection"]["made_in"] for name, arm in arms.items()}
    assert made_in["random"] is None and made_in["target_only"] is None
    assert made_in["k_center on wfd"].startswith("wfd, ") and space is not None
    assert motion.metrics["selection"]["made_in"] == made_in["k_center on wfd"]
    page = (motion.output / "report.html").read_text()
    assert "<th>made in</th>" in page.replace(' class="text"', "") and "k_center on wfd" in page
