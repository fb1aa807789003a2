"""ScenarioNet databases of all layouts, read; the scenarios of the shared data."""

from __future__ import annotations

import logging
import os
import pickle
from collections import Counter

import numpy as np
import pytest

from tarot import InputError
from tasks.motion.formats.records import BAD_FRAMES, BAD_LIGHTS, BAD_LINES, BAD_TRACKS, OTHER_LIGHTS
from tasks.motion.formats.scenario import Scenario
from tasks.motion.formats.scenarionet import databases, is_scenario_name, read_database, read_scenario, scenario_files
from tasks.motion.views.profile import MINI, PAPER_AUTOBOT
from tasks.motion.views.samples import UNSEEN, samples_of
from tasks.motion.views.tags import TYPES
from tasks.motion.views.windows import targets_of, windows
from tests.tasks.motion.scenes import data, equal, record, write_pickle

# --- databases -------------------------------------------------------------------------------------------------------


def write_scenarios(folder, *names):
    for name in names:
        write_pickle(folder / name, record(name.removesuffix(".pkl")))


def test_a_database_without_summary_and_mapping_is_its_folder(tmp_path):
    write_scenarios(tmp_path, "sd_b.pkl", "sd_a.pkl", "0.pkl", "12.pkl")
    write_pickle(tmp_path / "notes.pkl", {})
    (tmp_path / "sd_readme.txt").write_text("no scenario")
    assert list(scenario_files(tmp_path)) == ["0.pkl", "12.pkl", "sd_a.pkl", "sd_b.pkl"]
    assert [s.name for s in read_database(tmp_path)] == ["0", "12", "sd_a", "sd_b"]


@pytest.mark.parametrize("parts", [{"summary"}, {"mapping"}, {"summary", "mapping"}])
def test_summary_and_mapping_tell_what_there_is_and_where(tmp_path, parts):
    names = ["sd_a.pkl", "sd_b.pkl"]
    folders = {"sd_a.pkl": "", "sd_b.pkl": "part_0" if "mapping" in parts else ""}
    for name in names:
        write_scenarios(tmp_path / folders[name], name)
    write_scenarios(tmp_path, "sd_not_listed.pkl")
    if "summary" in parts:
        write_pickle(tmp_path / "dataset_summary.pkl", {name: record()["metadata"] for name in names})
    if "mapping" in parts:
        write_pickle(tmp_path / "dataset_mapping.pkl", folders)
    assert scenario_files(tmp_path) == {name: tmp_path / folders[name] / name for name in names}
    assert databases(tmp_path) == [tmp_path]  # part_0 belongs to it


def test_a_merged_database_points_elsewhere_only_if_that_is_allowed(tmp_path):
    merged = tmp_path / "all" / "merged"
    for folder in ("all/one", "two"):
        write_scenarios(tmp_path / folder, f"sd_{folder[-3:]}.pkl")
    folders = {"sd_one.pkl": "../one", "sd_two.pkl": "../../two"}
    write_pickle(merged / "dataset_mapping.pkl", folders)
    with pytest.raises(InputError, match=r"sd_one\.pkl is said to lie in '\.\./one', which is outside"):
        scenario_files(merged)
    with pytest.raises(InputError, match=r"sd_two\.pkl"):
        scenario_files(merged, allow_outside=tmp_path / "all")
    for allowed in (True, tmp_path):
        assert [s.name for s in read_database(merged, allow_outside=allowed)] == ["sd_one", "sd_two"]


def test_links_do_not_lead_outside(tmp_path):
    write_scenarios(tmp_path / "other", "sd_a.pkl")
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "sd_a.pkl").symlink_to(tmp_path / "other" / "sd_a.pkl")
    with pytest.raises(InputError, match="outside"):
        scenario_files(tmp_path / "db")


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"../sd_a.pkl": ""}, "scenarios are called"),
        ({"evil.pkl": ""}, "scenarios are called"),
        ({3: ""}, "scenarios are called"),
        ({"sd_a.pkl": 3}, "is int, not a folder"),
        ({"sd_a.pkl": "/etc"}, "outside"),
        (["sd_a.pkl"], "does not hold a dict"),
    ],
)
def test_mappings_that_cannot_be(tmp_path, mapping, message):
    write_pickle(tmp_path / "dataset_mapping.pkl", mapping)
    with pytest.raises(InputError, match=message):
        scenario_files(tmp_path)


def test_a_summary_that_the_mapping_does_not_know(tmp_path):
    write_pickle(tmp_path / "dataset_mapping.pkl", {})
    write_pickle(tmp_path / "dataset_summary.pkl", {"sd_a.pkl": {}})
    with pytest.raises(InputError, match="not in the mapping"):
        scenario_files(tmp_path)


def test_databases_below_a_folder(tmp_path):
    write_scenarios(tmp_path / "b" / "part", "sd_a.pkl")
    write_scenarios(tmp_path / "a", "0.pkl")
    (tmp_path / "empty").mkdir()
    assert databases(tmp_path) == [tmp_path / "a", tmp_path / "b" / "part"]
    with pytest.raises(InputError, match="no ScenarioNet database"):
        databases(tmp_path / "empty")
    for find in (databases, scenario_files):
        with pytest.raises(InputError, match="no such folder"):
            find(tmp_path / "nowhere")


def test_links_to_databases_are_followed_once(tmp_path):
    write_scenarios(tmp_path / "elsewhere", "sd_a.pkl")
    root = tmp_path / "root"
    root.mkdir()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "loop").symlink_to(root)
    assert databases(root) == [root / "linked"]
    assert list(scenario_files(root / "linked")) == ["sd_a.pkl"]


def test_legal_names():
    good = ("sd_x.pkl", "0.pkl", "123.pkl")
    assert all(map(is_scenario_name, good))
    assert not any(map(is_scenario_name, ("x.pkl", "sd_x.npz", ".pkl", "dataset_summary.pkl", "1a.pkl", "sd_x", "²")))


def test_files_that_cannot_be_read_are_errors_or_counted(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/was_here",)

    write_scenarios(tmp_path, "sd_a.pkl", "sd_d.pkl")
    write_pickle(tmp_path / "sd_b.pkl", {**record(), "metadata": Attack()})
    (tmp_path / "sd_c.pkl").write_bytes(pickle.dumps(record(), protocol=4)[:-1000])
    with pytest.raises(InputError, match=r"sd_b\.pkl asks for (posix|nt)\.system"):
        list(read_database(tmp_path))
    skipped = Counter()
    samples = samples_of(read_database(tmp_path, skipped=skipped), MINI, skipped=skipped)
    assert [name.split("/")[1] for name in samples.ids] == ["sd_a", "sd_d"]
    reasons = sorted(reason for reason in samples.skipped if reason.startswith("file unreadable"))
    assert len(reasons) == 2 and ": asks for" in reasons[0] and ": is cut short" in reasons[1]
    assert not (tmp_path / "was_here").exists()


def test_files_of_one_fault_are_counted_together_and_the_first_is_named(tmp_path, caplog):
    for i in range(3):
        write_pickle(tmp_path / f"sd_{i}.pkl", {"id": str(i)})
    skipped = Counter()
    with caplog.at_level(logging.INFO, logger="tarot"):
        assert not list(read_database(tmp_path, skipped=skipped))
    ((reason, count),) = skipped.items()
    assert count == 3 and reason.startswith("file unreadable: is no ScenarioNet scenario")
    assert "sd_0.pkl" in caplog.text and "sd_1.pkl" not in caplog.text


# --- scenarios -------------------------------------------------------------------------------------------------------


def read(tmp_path, content) -> Scenario:
    return read_scenario(write_pickle(tmp_path / "sd_x.pkl", content))


def test_a_record_is_read(tmp_path):
    made = record(current_time_index=20, tracks_to_predict={"car": {"track_id": "car", "track_index": 1}})
    made["map_features"] |= {
        "8": {"type": "LANE_FREEWAY", "polyline": np.ones((2, 3), np.float32), "entry_lanes": [7], "exit_lanes": ["9"]},
        "c": {"type": "CROSSWALK", "polygon": [[0, 0], [1, 0], [1, 1]]},
        "s": {"type": "STOP_SIGN", "position": np.array([1.0, 2, 3]), "lane": [7]},
    }
    made["dynamic_map_states"]["l"] = {
        "type": "TRAFFIC_LIGHT",
        "lane": 8,
        "stop_point": [1.0, 2.0, 3.0],
        "state": {"object_state": [None, *["LANE_STATE_GO"] * 80]},
        "metadata": {},
    }
    scenario = read(tmp_path, made)
    assert (scenario.name, scenario.dataset, scenario.ego, scenario.current) == ("one", "made", "ego", 20)
    assert scenario.agents == ("ego", "car", "walker") and scenario.kinds == ("VEHICLE", "VEHICLE", "PEDESTRIAN")
    assert scenario.to_predict == ("car",) and scenario.dt == 0.1 and scenario.problems == {}
    assert scenario.position.dtype == np.float64 and scenario.position[1, :3].tolist() == [[0, 5], [1, 5], [2, 5]]
    assert scenario.velocity.dtype == np.float32 and scenario.velocity[1, 5].tolist() == [10, 0]
    assert scenario.valid.dtype == bool and scenario.valid.all() and (scenario.size == 1).all()
    lines = {line.name: line for line in scenario.map}
    assert lines["7"].xy.shape == (120, 2)  # the angle is no height
    assert (lines["8"].entries, lines["8"].exits) == (("7",), ("9",))
    assert lines["c"].xy.tolist() == [[0, 0], [1, 0], [1, 1]] and lines["s"].xy.tolist() == [[1, 2]]
    (light,) = scenario.lights
    assert light.lane == "8" and light.stop.tolist() == [1, 2] and light.states[:2] == (None, "LANE_STATE_GO")
    assert read_scenario(tmp_path / "sd_x.pkl", dataset="mine").dataset == "mine"


@pytest.mark.parametrize("layout", ["waymo", "nuscenes"])
def test_layouts_of_datasets_are_one(tmp_path, layout):
    made = record()
    for track in made["tracks"].values():
        state = track["state"]
        for name, array in list(state.items()):
            array = array.astype(np.float32) if layout == "waymo" else array
            state[name] = array[:, 0] if name in ("length", "width", "height") and layout == "waymo" else array
        if layout == "waymo":
            state["valid"] = state["valid"].astype(bool)
    one, two = read(tmp_path, made), read(tmp_path, record())
    for name in ("position", "heading", "velocity", "size", "valid"):
        assert getattr(one, name).dtype == getattr(two, name).dtype
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=1e-6)


def test_exports_without_a_height_and_with_more(tmp_path):
    made = record()
    del made["tracks"]["car"]["state"]["height"]
    made["tracks"]["car"]["state"]["steering"] = np.zeros(81)
    assert read(tmp_path, made).size[1, 0].tolist() == [1, 1, 0]


def test_frames_that_are_not_valid_are_zero_whatever_they_hold(tmp_path):
    made = record()
    state = made["tracks"]["car"]["state"]
    state["valid"][3:5], state["position"][3:5], state["heading"][3] = 0, -1000.0, np.nan
    scenario = read(tmp_path, made)
    assert not scenario.position[1, 3:5].any() and scenario.heading[1, 3] == 0 and scenario.problems == {}


def placed(ego=(0.0, 0.0), unseen=None, **metadata):
    """A record whose ego begins there and stands, and whose walker is not there on three frames, but at `unseen`."""
    made = record(**metadata)
    made["tracks"]["ego"]["state"]["position"][:, :2] = ego
    if unseen is not None:
        state = made["tracks"]["walker"]["state"]
        state["valid"][4:7], state["position"][4:7, :2] = 0, unseen
    return made


@pytest.mark.parametrize(
    ("made", "origin"),
    [
        (placed(unseen=(-600.0, -1600.0)), (600.0, 1600.0)),  # moved by ScenarioNet
        (placed(unseen=(-600.0, -1600.0), old_origin_in_current_coordinate=np.zeros(2)), (600.0, 1600.0)),
        (placed(old_origin_in_current_coordinate=np.array([-7.0, 8.0])), (7.0, -8.0)),  # moved by MetaDrive
        (placed(unseen=(0.0, 0.0), old_origin_in_current_coordinate=[-7.0, 8.0]), (7.0, -8.0)),
        (placed(ego=(600.0, 1600.0), unseen=(0.0, 0.0)), (0.0, 0.0)),  # not moved
        (placed(ego=(600.0, 1600.0)), (0.0, 0.0)),
        (placed(), None),  # moved, and nothing tells by how much
        (placed(unseen=(0.0, 0.0)), None),
        (placed(unseen=[(-600.0, -1600.0), (-600.0, -1600.0), (0.0, 0.0)]), None),  # cleaned in part
        (placed(unseen=(-600.0, np.nan)), None),
        (placed(ego=(5.0, 5.0), unseen=(-600.0, -1600.0)), None),  # moved to somewhere else
        (placed(unseen=(-600.0, -1600.0), sdc_id="nobody"), None),
    ],
)
def test_where_a_record_lies_on_the_map(tmp_path, made, origin):
    assert read(tmp_path, made).origin == origin


@pytest.mark.parametrize("name", ["position", "heading", "velocity"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_valid_frames_that_are_not_finite_are_not_valid_and_counted(tmp_path, name, bad):
    made = record()
    made["tracks"]["car"]["state"][name][[5, 30, 80]] = bad
    scenario = read(tmp_path, made)
    assert np.flatnonzero(~scenario.valid[1]).tolist() == [5, 30, 80] and scenario.problems == {BAD_FRAMES: 3}
    for array in (scenario.position, scenario.heading, scenario.velocity):
        assert np.isfinite(array).all() and not array[1, [5, 30, 80]].any()
    samples = samples_of([scenario], PAPER_AUTOBOT)
    assert samples.ids.tolist() == ["made/one/car"] and samples.skipped[BAD_FRAMES] == 3
    assert np.flatnonzero(~samples[0]["future_valid"].numpy()).tolist() == [9, 59]
    made["tracks"]["car"]["state"][name][20] = bad  # now it is no target any more
    samples = samples_of([read(tmp_path, made)], MINI)
    assert len(samples) == 0 and samples.skipped["agent is not there at the current frame"] == 1


def test_parts_of_the_map_that_cannot_be_used_are_counted(tmp_path):
    made = record()
    made["map_features"] |= {
        "nan": {"type": "LANE_FREEWAY", "polyline": np.array([[0.0, np.nan], [1, 1]])},
        "none": {"type": "LANE_FREEWAY", "polyline": np.zeros((0, 3))},
        "nothing": {"type": "DRIVEWAY"},
        "words": {"type": "LANE_FREEWAY", "polyline": ["a", "b"]},
    }
    made["dynamic_map_states"]["l"] = {"lane": "7", "stop_point": None, "state": {"object_state": [None] * 81}}
    scenario = read(tmp_path, made)
    assert [line.name for line in scenario.map] == ["7"] and scenario.lights == ()
    assert scenario.problems == {BAD_LINES: 4, BAD_LIGHTS: 1}


def test_a_scenario_without_lanes(tmp_path):
    made = record()
    made["map_features"] = {}
    samples = samples_of([read(tmp_path, made)], MINI)
    assert len(samples) == 1 and not samples[0]["lanes_valid"].any() and not samples[0]["lanes"].any()


@pytest.mark.parametrize("request_", [{}, None])
def test_an_empty_request_falls_back_to_the_filter(tmp_path, request_):
    scenario = read(tmp_path, record(tracks_to_predict=request_))
    (window,) = windows(scenario, MINI)
    chosen, skipped = targets_of(window)
    assert chosen == ["car"] and dict(skipped) == {"does not move": 1, "is of another kind": 1}
    assert samples_of([scenario], PAPER_AUTOBOT)[0]["future_valid"].all()  # the last frame, too


def test_a_short_record_is_filled_up_in_front(tmp_path):
    sample = samples_of([read(tmp_path, record(frames=66))], PAPER_AUTOBOT)[0]
    assert sample["agents_valid"][0].tolist() == [False] * 15 + [True] * 6 and sample["future_valid"].all()
    assert not sample["agents"][:, :15].any()


def test_lists_are_read_as_arrays(tmp_path):
    made = record()
    for track in made["tracks"].values():
        track["state"] = {name: array.tolist() for name, array in track["state"].items()}
    equal(read(tmp_path, made), read(tmp_path, record()))


def test_lists_within_lists_do_not_fill_the_memory(tmp_path):
    made, much = record(), [[[1.0] * 100] * 100] * 20
    made["map_features"]["7"]["polyline"] = much
    assert read(tmp_path, made).problems == {BAD_LINES: 1}
    made["tracks"]["car"]["state"]["position"] = much
    with pytest.raises(InputError, match="track car: position does not hold numbers"):
        read(tmp_path, made)
    for _ in range(9):
        much = [much] * 100
    made["tracks"]["car"]["state"]["position"] = record()["tracks"]["car"]["state"]["position"]
    made["map_features"]["7"]["polyline"] = much
    with pytest.raises(InputError, match=r"sd_x\.pkl .* far larger than its length"):
        read(tmp_path, made)


def test_the_time_between_frames(tmp_path):
    assert read(tmp_path, record(sample_rate=0.5)).dt == 0.5
    assert read(tmp_path, record(sample_rate=None, ts=np.arange(81) * 0.2)).dt == pytest.approx(0.2)
    assert read(tmp_path, record(sample_rate=None, ts=np.zeros(81))).dt == 0.1


def change(path: str, value):
    def apply(made):
        *way, last = path.split("/")
        for key in way:
            made = made[key]
        if value is KeyError:
            del made[last]
        else:
            made[last] = value

    return apply


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (change("tracks", KeyError), "is no ScenarioNet scenario: it has no tracks"),
        (change("tracks", {}), "has no tracks"),
        (change("tracks", []), "tracks is list, not dict"),
        (change("length", "81"), "length is '81'"),
        (change("length", 10**15), "track ego: position has shape"),
        (change("tracks/1", {}), "track 1 has no type"),
        (lambda made: made["tracks"].update({1: {}, "1": {}}), "has two tracks of one name"),
        (change("length", 80), "track ego: position has shape"),
        (change("tracks/car/state/valid", KeyError), "track car has no valid"),
        (change("tracks/car/state/heading", np.zeros((81, 2))), "track car: heading has shape"),
        (change("tracks/car/state/velocity", np.zeros(81)), "track car: velocity has shape"),
        (change("tracks/car/state/position", ["a"] * 81), "track car: position does not hold numbers"),
        (change("tracks/car/state/valid", np.full(81, np.nan)), "neither true nor false"),
        (change("tracks/car/state", None), "track car has no state"),
        (change("metadata/current_time_index", 81), "current_time_index is 81"),
        (change("metadata/tracks_to_predict", "car"), "tracks_to_predict is str"),
        (change("map_features/7", 3), "map feature 7 has no type"),
    ],
)
def test_records_that_cannot_be(tmp_path, wrong, message):
    made = record()
    wrong(made)
    with pytest.raises(InputError, match=rf"sd_x\.pkl.*{message}"):
        read(tmp_path, made)
    with pytest.raises(InputError, match="no ScenarioNet scenario"):
        read(tmp_path, [1, 2])


# --- shared data -----------------------------------------------------------------------------------------------------

SHARED_TYPES = {"stationary": 9, "straight": 7, "straight right": 2, "right": 11, "left": 4}


@pytest.fixture(scope="module")
def nuscenes() -> list[Scenario]:
    return list(read_database(databases(data("nuscenes"))))


def test_the_33_windows_of_nuscenes_give_33_targets(nuscenes):
    assert len(nuscenes) == 33 and len(databases(data("nuscenes"))) == 4
    for profile in (MINI, PAPER_AUTOBOT):
        samples = samples_of(nuscenes, profile)
        assert len(samples) == 33 and not samples.skipped
        assert Counter(TYPES[kind] for kind in samples.types) == SHARED_TYPES
        assert set(samples.datasets) == {"nuscenes"} and len(set(samples.ids)) == 33
        batch = samples.batch()
        assert batch["future_valid"].all() and all(tensor.isfinite().all() for tensor in batch.values())
        assert batch["lanes_valid"].any(2).any(1).all()
    batch = samples.batch()
    assert batch["agents"].shape == (33, 15, 21, 39) and batch["lanes"].shape == (33, 256, 20, 29)
    assert batch["future"].shape == (33, 60, 4)
    assert Counter(batch["agents_valid"][:, 0].sum(1).tolist()) == {21: 28, 16: 1, 11: 2, 6: 2}
    used = batch["lanes_valid"].any(2).sum(1)
    assert used.min() > 30 and used.max() < 100  # of 256


def test_the_windows_lie_on_the_map_where_the_scenes_do(nuscenes):
    """The scenes are in nuScenes's global frame, the windows are moved to where their ego begins; vehicles have the
    same names in both."""
    scenes = {s.name: s for s in read_database(data("nuscenes_mini_scenes")) if s.name in ("scene-0103", "scene-0916")}
    samples = samples_of(nuscenes, PAPER_AUTOBOT)
    frames = samples.frames
    for row, name in enumerate(samples.ids.tolist()):
        _, scenario, agent = name.split("/")
        whole = scenes[scenario.split("_")[0]]
        track = whole.agent(agent)
        known = np.flatnonzero(whole.valid[track])
        place = frames.centre[row] + frames.origin[row]
        nearest = known[np.linalg.norm(whole.position[track, known] - place, axis=1).argmin()]
        assert np.linalg.norm(whole.position[track, nearest] - place) < 0.01, name
        turn = np.angle(np.exp(1j * (whole.heading[track, nearest] - frames.heading[row])))
        assert abs(turn) < 0.02, name
    assert all(scene.origin == (0.0, 0.0) for scene in scenes.values())


def test_the_ten_scenes_of_nuscenes_mini_are_cut_every_so_many_seconds():
    scenarios = list(read_database(data("nuscenes_mini_scenes")))
    assert len(scenarios) == 10 and sorted({s.frames for s in scenarios}) == [191, 196, 201]
    assert not any(s.problems for s in scenarios)
    samples = samples_of(scenarios, MINI, every=2.0)
    by_scene = Counter(name.split("/")[1] for name in samples.ids)
    assert len(by_scene) == 10 and len(samples) == sum(by_scene.values()) > 350
    assert {name.split("@")[1] for name in samples.ids} == {str(start) for start in range(0, 121, 20)}
    assert all(tensor.isfinite().all() for tensor in samples.batch().values())
    assert {TYPES[kind] for kind in samples.types} >= {"straight", "left", "right", "stationary"}
    longer = samples_of(scenarios, MINI, every=4.0)
    assert set(longer.ids) < set(samples.ids)


def test_hidden_files_and_folders_are_no_scenarios(tmp_path, caplog):
    write_scenarios(tmp_path / "a", "sd_a.pkl", "._sd_a.pkl")
    write_scenarios(tmp_path / ".trash", "sd_b.pkl")
    with caplog.at_level("INFO", "tarot"):
        assert databases(tmp_path) == [tmp_path / "a"]
    assert list(scenario_files(tmp_path / "a")) == ["sd_a.pkl"]
    assert f"{tmp_path}: 1 hidden files and folders are left out (.trash)" in caplog.text


@pytest.mark.parametrize(
    ("wrong", "problems"),
    [
        (change("dynamic_map_states/l", {"lane": 1}), {OTHER_LIGHTS: 1}),
        (change("dynamic_map_states/l", {"lane": 1, "state": {"object_state": []}}), {OTHER_LIGHTS: 1}),
        (change("dynamic_map_states/l", [None] * 81), {OTHER_LIGHTS: 1}),
        (change("tracks/cone", {"type": "TRAFFIC_CONE", "state": {"position": np.zeros((81, 3))}}), {BAD_TRACKS: 1}),
        (change("tracks/cone", {"type": "TRAFFIC_CONE"}), {BAD_TRACKS: 1}),
        (change("metadata/tracks_to_predict", ["car"]), {}),
        (change("metadata/tracks_to_predict", [{"track_id": "car"}]), {}),
    ],
)
def test_what_no_model_sees_is_counted_and_the_record_is_read(tmp_path, wrong, problems):
    made = record()
    whole = read(tmp_path, made)
    wrong(made)
    scenario = read(tmp_path, made)
    assert scenario.problems == whole.problems | problems
    assert scenario.agents == whole.agents
    for name in ("position", "heading", "velocity", "size", "valid"):
        np.testing.assert_array_equal(getattr(scenario, name), getattr(whole, name))
    if not problems:
        assert scenario.to_predict == ("car",)


def test_frames_outside_of_the_one_window_are_counted(tmp_path):
    long = read(tmp_path, record(frames=200))
    assert samples_of([long], PAPER_AUTOBOT).skipped[UNSEEN] == 200 - PAPER_AUTOBOT.frames
    assert not samples_of([long], PAPER_AUTOBOT, every=1.0).skipped[UNSEEN]
