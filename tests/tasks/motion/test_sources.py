"""Where the motion task's scenes come from: simulated, ScenarioNet's databases, Argoverse 2, nuScenes-mini."""

from __future__ import annotations

import json
import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tarot import InputError
from tarot.common.fingerprints import fingerprint
from tasks.motion import Databases, MotionTask, NuScenesMini, Simulated
from tasks.motion.formats.scenarionet import read_database
from tasks.motion.formats.scenarionet_writer import write_database
from tasks.motion.simulator.databases import database
from tasks.motion.simulator.scenes import simulate
from tasks.motion.sources import joined
from tasks.motion.views.profile import MINI
from tasks.motion.views.samples import samples_of
from tasks.task import Checkpoint
from tests.tasks.configured import task_of
from tests.tasks.motion.scenes import CANDIDATES, chosen
from tests.tasks.test_contract import small_task

SCENES = Path(os.environ.get("TAROT_DATA", "data")) / "motion" / "nuscenes_mini_scenes"
real = pytest.mark.skipif(not SCENES.is_dir(), reason="set TAROT_DATA to a folder with motion/nuscenes_mini_scenes")


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def task(cache_dir: Path) -> MotionTask:
    return small_task("motion", cache_dir)


def test_simulated_candidates_are_tagged_and_kept_in_the_cache(task, cache_dir):
    tags = task.candidate_tags()
    assert {"target", "parking"} <= set(tags.tolist())
    parts = [name.split("/")[0] for name in task.ids("candidates")]
    assert parts == ["cand_highway"] * 10 + ["cand_roundabout"] * 12 + ["cand_crossing"] * 12 + ["cand_parking"] * 6
    kept = sorted(path.name for path in (cache_dir / "motion").glob("*.npz"))
    assert sum(name.startswith("cand_") for name in kept) >= 4
    files = {path: path.stat().st_mtime_ns for path in (cache_dir / "motion").glob("*.npz")}
    assert small_task("motion", cache_dir).ids("test") == task.ids("test")
    assert all(path.stat().st_mtime_ns == when for path, when in files.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"candidates": {"cand_sea": 3}}, "simulated candidates must be positive numbers of cand_highway"),
        ({"candidates": {"cand_highway": 0}}, "task.data.candidates.cand_highway must be at least 1 or null; it is 0"),
        ({"candidates": {}}, "there must be candidates"),
        ({"test": 0}, "task.data.test must be at least 1; it is 0"),
        ({"processes": 0}, "task.data.processes must be at least 1; it is 0"),
    ],
)
def test_wrong_numbers_of_simulated_vehicles_are_named(options, message):
    with pytest.raises(InputError, match=message):
        Simulated(**{"candidates": CANDIDATES, "targets": 2, "validation": 2, "test": 2, **options})


ORIGIN = np.array([600.0, 1600.0])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Databases on disk, as ScenarioNet writes them: two to choose from, and the target's own."""
    root = tmp_path_factory.mktemp("databases")
    for name, recipe in (("waymo", "crossing"), ("nuplan", "parking"), ("nuscenes_train", "roundabout")):
        scenes = [simulate(recipe, seed, name=f"{name}{seed}") for seed in range(2)]
        write_database(root / name, scenes)
    held = [simulate("roundabout", 5 + i, name=f"scene{i // 2}_{'a' * 32}_{i:032x}") for i in range(6)]
    one_each = [replace(scene, origin=tuple(ORIGIN), to_predict=scene.to_predict[:1]) for scene in held]
    write_database(root / "nuscenes_val", one_each)
    return root


def paper_data(root: Path, **options) -> Databases:
    given = {
        "candidates": {name: str(root / name) for name in ("waymo", "nuplan")},
        "target": "nuscenes",
        "targets": str(root / "nuscenes_train"),
        "held_out": str(root / "nuscenes_val"),
        "scene_fields": 2,
    }
    return Databases(**{**given, **options})


def test_databases_become_splits_of_which_no_two_share_a_scene(folders, tmp_path):
    splits = paper_data(folders).splits(0, MINI, tmp_path)
    assert {name.split("/")[0] for name in splits["candidates"].ids} == {"waymo", "nuplan"}
    assert {name.split("/")[0] for name in splits["targets"].ids} == {"nuscenes"}
    scenes = {
        split: {name.split("/")[1].split("_")[0] for name in splits[split].ids} for split in ("validation", "test")
    }
    assert scenes == {"validation": {"scene0", "scene2"}, "test": {"scene1"}}
    written = simulate("crossing", 0)
    assert len([name for name in splits["candidates"].ids if "/waymo0/" in name]) == len(written.to_predict)
    names = [name for split in splits.values() for name in split.ids.tolist()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_databases_are_kept_in_parts_of_which_each_is_made_once(folders, tmp_path, monkeypatch, processes):
    """As if they were whole, by any number of processes; what is there stays where others are missing."""
    whole = paper_data(folders).splits(0, MINI, tmp_path / "whole")
    monkeypatch.setattr("tasks.motion.databases.RECORDS", 1)
    cache = tmp_path / "parts"
    parts = paper_data(folders, processes=processes).splits(0, MINI, cache)
    for split, expected in whole.items():
        found = parts[split]
        assert found.ids.tolist() == expected.ids.tolist() and found.skipped == expected.skipped
        one, two = found.batch(), expected.batch()
        assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    names = {file.name: file.stat().st_mtime_ns for file in cache.glob("*.npz")}
    assert len(names) > len(list((tmp_path / "whole").glob("*.npz")))
    gone = cache / min(names)
    gone.unlink()
    paper_data(folders, processes=processes).splits(0, MINI, cache)
    assert [n for n, stamp in names.items() if (cache / n).stat().st_mtime_ns != stamp] == [gone.name]


def test_all_that_is_held_out_may_be_both_validation_and_test(folders, tmp_path):
    """The paper reports the best on nuScenes's whole val split, and has no other."""
    halves = paper_data(folders).splits(0, MINI, tmp_path)
    whole = paper_data(folders, disjoint=False).splits(0, MINI, tmp_path)
    assert whole["validation"].ids.tolist() == whole["test"].ids.tolist()
    assert set(whole["test"].ids) == {*halves["validation"].ids, *halves["test"].ids}
    one, other = (paper_data(folders, disjoint=disjoint).recipe(0)["splits"] for disjoint in (True, False))
    assert one["test"] != other["test"] and one["candidates"] == other["candidates"]
    task = small_task("motion", tmp_path)
    task.data = paper_data(folders, disjoint=False)
    assert len(task.challenged()) == len(whole["test"]), "nobody is forecast twice"
    assert task.account()["test"] == {"used": len(whole["test"]), "left_out": dict(whole["test"].skipped)}


def test_a_setting_leaves_out_what_a_config_names(folders, tmp_path):
    """As experiment=lds does, whose candidates are the target's own dataset."""
    named = {name: str(folders / name) for name in ("waymo", "nuplan")}
    alone = paper_data(folders, candidates={**named, "waymo": None})
    assert set(alone.splits(0, MINI, tmp_path)["candidates"].datasets) == {"nuplan"}
    assert alone.recipe(0) == paper_data(folders, candidates={"nuplan": named["nuplan"]}).recipe(0)
    with pytest.raises(InputError, match="candidates must name datasets"):
        paper_data(folders, candidates={"waymo": None})
    scenes = {split: [split] for split in ("candidates", "targets", "validation", "test")}
    one, other = (NuScenesMini(str(folders / "waymo"), **scenes, simulated=asked).recipe(0)
                  for asked in ({"cand_highway": None, "cand_parking": 3}, {"cand_parking": 3}))  # fmt: skip
    assert one == other


def test_a_vehicle_moves_as_far_as_is_asked_for(folders, tmp_path):
    """Where the record does not say who is to be forecast."""
    scenes = [replace(simulate("parking", seed, name=f"scene{seed}"), to_predict=()) for seed in range(2)]
    write_database(tmp_path / "open", scenes)
    named = {"candidates": {"open": str(tmp_path / "open")}}
    counts = [
        len(paper_data(folders, **named, moving_distance=metres).splits(0, MINI, tmp_path)["candidates"])
        for metres in (0.0, 2.0, 8.0)
    ]
    assert counts[0] > counts[1] > counts[2] > 0
    near, usual = (paper_data(folders, **named, moving_distance=metres).recipe(0) for metres in (0.0, 2.0))
    assert near != usual == paper_data(folders, **named).recipe(0)


def test_a_file_that_cannot_be_read_is_counted_and_said(folders, tmp_path, caplog):
    broken = tmp_path / "broken"
    write_database(broken, [simulate("parking", 3, name="good")])
    next(broken.glob("sd_*.pkl")).with_name("sd_bad.pkl").write_bytes(b"nonsense")
    for table in broken.glob("dataset_*.pkl"):
        table.unlink()
    with caplog.at_level(logging.INFO, logger="tarot"):
        splits = paper_data(folders, candidates={"broken": str(broken)}).splits(0, MINI, tmp_path)
    assert "1 x file unreadable" in caplog.text and "sd_bad.pkl" in caplog.text
    assert len(splits["candidates"]) >= 1
    next(path for path in broken.glob("sd_*.pkl") if path.name != "sd_bad.pkl").unlink()
    with pytest.raises(InputError, match="broken have no agent to forecast: 1 x file unreadable"):
        paper_data(folders, candidates={"broken": str(broken)}).splits(0, MINI, tmp_path)


def test_the_paper_s_data_is_named_where_it_is_missing(tmp_path):
    task = task_of("motion/paper", tmp_path, tmp_path)
    with pytest.raises(InputError, match=r"not there: waymo in .*; argoverse2 in .*nuscenes .held out. in") as error:
        task.candidates()
    assert "\n" not in str(error.value) and "convert_waymo" in str(error.value)
    assert sum(p.numel() for p in task.model().parameters()) == 1_504_006
    assert sum(p.numel() for p in task.downstream().parameters()) == 15_184_685


def test_a_submission_is_made_of_all_that_is_held_out(folders, tmp_path):
    """Futures lie on the map where the vehicle is, and are turned as it is."""
    task = small_task("motion", tmp_path)
    task.data = paper_data(folders)
    model = task.downstream()
    found, agents = task.submission(model), task.challenged()
    assert len(found) == len(task.validation()) + len(task.test())
    assert [(forecast.instance, forecast.sample) for forecast in found] == agents
    assert set(agents) == {("a" * 32, f"{i:032x}") for i in range(6)}
    assert found[0].futures.shape == (6, 12, 2) and found[0].probabilities.sum() == pytest.approx(1)
    samples = task.validation()
    with torch.no_grad():
        own = model(samples.batch([0])).trajectories[0, :, :, :2].numpy()
    assert np.array_equal(samples.frames.origin[0], ORIGIN)
    np.testing.assert_allclose(found[0].futures, samples.to_scene(0, own) + ORIGIN, atol=1e-4)


def test_what_cannot_be_placed_on_the_map_is_not_submitted(folders, tmp_path, task):
    with pytest.raises(InputError, match="not named scene_instance_sample"):
        task.challenged()
    held = [simulate("roundabout", 5 + i, name=f"scene{i}_{'a' * 32}_{i:032x}") for i in range(2)]
    write_database(tmp_path / "lost", held)
    other = small_task("motion", tmp_path)
    other.data = paper_data(folders, held_out=str(tmp_path / "lost"))
    with pytest.raises(InputError, match=r"of \d+ agents cannot be placed on nuScenes's map, such as that of scene"):
        other.challenged()


def test_the_order_of_candidates_is_part_of_the_recipe(folders):
    """Rows follow it, and a fingerprint does not know the order of a mapping's keys."""

    def turned(named):
        return dict(reversed(named.items()))

    simulated = {"targets": 2, "validation": 2, "test": 2}
    a, b = (Simulated(named, **simulated).recipe(0) for named in (CANDIDATES, turned(CANDIDATES)))
    assert fingerprint(a) != fingerprint(b)
    named = {name: str(folders / name) for name in ("waymo", "nuplan")}
    a, b = (paper_data(folders, candidates=given).recipe(0) for given in (named, turned(named)))
    assert fingerprint(a) != fingerprint(b)
    scenes = {split: [split] for split in ("candidates", "targets", "validation", "test")}
    a, b = (NuScenesMini(str(folders / "waymo"), **scenes, simulated=given).recipe(0)
            for given in (CANDIDATES, turned(CANDIDATES)))  # fmt: skip
    assert fingerprint(a) != fingerprint(b)


def test_what_is_held_out_is_no_part_of_candidates_nor_of_surrogates(folders, tmp_path):
    def build(**options):
        task = small_task("motion", tmp_path)
        task.data = paper_data(folders, **options)
        task.fit_surrogate = lambda seed, **_: [Checkpoint("last", {}, 1.0)]
        task.checkpoints()
        return task, set((tmp_path / "checkpoints").glob("*.safetensors"))

    (one, kept), (two, still) = build(), build(held_out=str(folders / "nuplan"))
    for split, same in {"candidates": True, "targets": True, "validation": False, "test": False}.items():
        assert (one.split_recipe(split) == two.split_recipe(split)) == same
    assert kept == still and one.recipe()["data"] != two.recipe()["data"]
    three, more = build(targets=str(folders / "nuplan"))
    assert three.split_recipe("candidates") == one.split_recipe("candidates") and len(more) == 2
    one.surrogate_targets = three.surrogate_targets = False
    one.checkpoints(), three.checkpoints()
    assert len(set((tmp_path / "checkpoints").glob("*.safetensors"))) == 3


def test_other_content_of_the_same_size_is_another_recipe(tmp_path):
    write_database(tmp_path / "db", [simulate("parking", 0, name="scene-a")])
    file = next((tmp_path / "db").glob("sd_*.pkl"))
    options = {"candidates": {"a": str(tmp_path / "db")}, "targets": str(tmp_path / "db")}
    scenes = {"candidates": ["scene-a"], "targets": [], "validation": [], "test": []}

    def recipes():
        mini = NuScenesMini(str(tmp_path / "db"), **scenes)
        return [paper_data(tmp_path, **options, held_out=str(tmp_path / "db")).recipe(0), mini.recipe(0)]

    before, content = recipes(), bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    middle = recipes()
    assert middle[0] != before[0] and middle[1] != before[1]
    content[-1] ^= 1
    file.write_bytes(content)
    assert recipes()[0] != middle[0]


def test_futures_that_the_challenge_does_not_take_are_refused_before_a_training(folders, tmp_path):
    for change, word in (
        (["forecasters.wayformer.profile.stride=2", "forecasters.autobot.profile.stride=2"], "half second"),
        (["forecasters.wayformer.architecture.modes=26", "forecasters.wayformer.architecture.queries=26"], "25 fut"),
    ):
        task = small_task("motion", tmp_path, *change)
        task.data = paper_data(folders)
        with pytest.raises(InputError, match=word):
            task.challenged()


def test_no_file_scenario_or_scene_is_in_two_splits(folders, tmp_path):
    own = str(folders / "waymo")
    for options in ({"targets": own}, {"held_out": own}, {"targets": str(folders / "nuscenes_val")}):
        with pytest.raises(InputError, match=r"share \d+ files, such as .*sd_"):
            paper_data(folders, **options).splits(0, MINI, tmp_path)
    shutil.copytree(folders / "nuscenes_val", tmp_path / "copy")
    with pytest.raises(InputError, match=r"nuscenes \(held out\) and copy share 6 scenarios, such as scene0_"):
        paper_data(folders, candidates={"copy": str(tmp_path / "copy")}).splits(0, MINI, tmp_path)
    write_database(tmp_path / "later", [simulate("roundabout", 9, name=f"scene1_{'a' * 32}_{9:032x}")])
    with pytest.raises(InputError, match=r"held out\) and nuscenes \(targets\) share 1 scenes, such as scene1:"):
        paper_data(folders, targets=str(tmp_path / "later")).splits(0, MINI, tmp_path)


def test_samples_of_two_sources_need_different_names(folders, tmp_path):
    samples = paper_data(folders).splits(0, MINI, tmp_path)["targets"]
    with pytest.raises(InputError, match=f"two candidates are called {samples.ids[1]}: sources"):
        joined([samples, samples.take([1])])
    assert len(joined([samples.take([1]), samples.take([0])])) == 2


@real
def test_nuscenes_mini_is_split_by_scene(tmp_path):
    task = small_task("motion/nuscenes_mini", tmp_path, f"data.folder={SCENES}", "data.every=2.0",
                      "data.simulated={cand_highway:4,cand_roundabout:4,cand_crossing:4,cand_parking:4}",
                      "train.steps=2", "train.batch_size=8", "surrogate_train.steps=2")  # fmt: skip
    splits = ("candidates", "targets", "validation", "test")
    scenes = {
        split: {name.split("/")[1] for name in task.ids(split) if name.startswith("nuscenes")} for split in splits
    }
    assert scenes["targets"] == {"scene-0061", "scene-0553"}
    assert scenes["test"] == {"scene-0103", "scene-0796", "scene-0916"} and len(scenes["candidates"]) == 4
    assert sum(map(len, scenes.values())) == 10
    tags = task.candidate_tags()
    assert set(tags) == {"target", "highway", "roundabout", "crossing", "parking"}
    assert (tags == "target").sum() + 16 == len(tags)
    metrics = task.evaluate(task.train(chosen([0, 1]), seed=0))
    assert all(np.isfinite(value) for value in metrics.values()) and "min_ade/dataset=nuscenes_mini" in metrics
    assert json.loads(json.dumps(task.recipe())) == task.recipe()


def test_nuscenes_mini_s_folder_and_scenes_are_named_where_they_are_not_there(tmp_path):
    options = {"candidates": ["a"], "targets": ["b"], "validation": ["c"], "test": ["d"]}
    with pytest.raises(InputError, match=r"nuScenes-mini is not in .*convert_nuscenes"):
        NuScenesMini(str(tmp_path / "none"), **options).recipe(0)
    with pytest.raises(InputError, match="a scene is in two splits"):
        NuScenesMini(str(tmp_path), **{**options, "test": ["a"]})
    write_database(tmp_path / "db", [simulate("parking", 0, name="scene-a")])
    with pytest.raises(InputError, match="has no b, c, d; it has"):
        NuScenesMini(str(tmp_path / "db"), **{**options, "candidates": ["scene-a"]}).splits(0, MINI, tmp_path)


def test_a_simulated_database_survives_the_format(tmp_path):
    """What the writer writes of it gives the same features."""
    scenes = database("cand_crossing", 3, 1)
    write_database(tmp_path / "db", scenes)
    one, two = samples_of(scenes, MINI), samples_of(read_database(tmp_path / "db"), MINI)
    where = {name.split("/", 1)[1]: row for row, name in enumerate(two.ids.tolist())}
    two = two.take([where[name.split("/", 1)[1]] for name in one.ids.tolist()])
    for name, tensor in one.batch().items():
        torch.testing.assert_close(two.batch()[name], tensor, rtol=1e-5, atol=1e-4)
    assert one.tags.tolist() == two.tags.tolist()


def test_windows_begin_at_a_frame_or_every_so_often_but_not_both():
    folders = {"candidates": {"waymo": "a"}, "target": "mine", "targets": "b", "held_out": "c"}
    with pytest.raises(InputError, match=r"task.data.every=0.5 .* leave out task.data.start"):
        Databases(**folders, start={"waymo": 0}, every=0.5)
    apart = [Databases(**folders, every=every)._cut for every in (None, 0.5)]
    assert apart == [{}, {"every": 0.5}]
