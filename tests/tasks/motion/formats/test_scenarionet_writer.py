"""Written databases are read back, and keep the rules of the format."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from tarot import InputError
from tasks.motion.formats.scenario import MapLine, Scenario, TrafficLight
from tasks.motion.formats.scenarionet import databases, read_database, read_scenario, scenario_files
from tasks.motion.formats.scenarionet_writer import as_record, write_database
from tasks.motion.simulator.databases import database
from tasks.motion.views.profile import MINI
from tasks.motion.views.samples import samples_of
from tests.tasks.motion.scenes import driving, equal, random_scenario


def complete() -> Scenario:
    """All that a scenario can hold."""
    scenario = random_scenario(frames=81)
    lines = (
        *scenario.map,
        MapLine("x", "LANE_FREEWAY", np.ones((2, 2), np.float32), ("line0",), ("line4", "line8")),
        MapLine("zebra", "CROSSWALK", np.arange(8.0).reshape(4, 2)),
        MapLine("sign", "STOP_SIGN", np.array([[1.0, 2.0]]), ("line0",)),
    )
    lights = (TrafficLight("x", np.array([1.0, 2.0], np.float32), (None, *["TRAFFIC_LIGHT_RED"] * 80)),)
    return replace(scenario, map=lines, lights=lights, current=20, to_predict=("a0", "a3"), tag="ring",
                   origin=(600.5, -3.0))  # fmt: skip


@pytest.mark.parametrize(
    "changes", [{}, {"ego": None, "current": None, "to_predict": (), "tag": None, "lights": (), "origin": None}]
)
def test_what_is_written_is_read_back(tmp_path, changes):
    scenario = replace(complete(), **changes)
    names = write_database(tmp_path / "db", [scenario, driving()])
    assert names == ["sd_made_tarot_random0.pkl", "sd_made_tarot_drive.pkl"]
    assert list(scenario_files(tmp_path / "db")) == sorted(names) and databases(tmp_path) == [tmp_path / "db"]
    equal(read_scenario(tmp_path / "db" / names[0]), scenario)
    write_database(tmp_path / "again", [scenario, driving()])
    for file in (tmp_path / "db").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


@pytest.mark.parametrize("name", ["cand_crossing", "cand_parking"])
def test_a_simulated_database_is_the_same_from_disk(tmp_path, name):
    scenes = database(name, 6, seed=1)
    write_database(tmp_path / "db", scenes)
    made, read_back = samples_of(scenes, MINI), samples_of(read_database(tmp_path / "db"), MINI)
    order = [read_back.ids.tolist().index(one) for one in made.ids]
    for part, array in made.arrays.items():
        np.testing.assert_array_equal(array, read_back.arrays[part][order], err_msg=part)
    assert made.skipped == read_back.skipped


def test_written_records_keep_the_rules_of_the_format(tmp_path):
    """The format's own checks, and what UniTraj asks beside them."""
    scenario = complete()
    (name,) = write_database(tmp_path / "db", [scenario])
    written = pickle.loads((tmp_path / "db" / name).read_bytes())
    t = written["length"]
    assert set(written) == {"id", "version", "length", "metadata", "tracks", "dynamic_map_states", "map_features"}

    def types(value):
        assert isinstance(value, (int, float, str, np.ndarray, dict, list, tuple, type(None), set)), type(value)
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ():
            types(inner)

    types(written)
    for key, track in [*written["tracks"].items(), *written["dynamic_map_states"].items()]:
        assert {"type", "state", "metadata"} <= set(track) and track["metadata"]["object_id"] == key
        assert track["metadata"]["type"] == track["type"]
        assert all(len(array) == t for array in track["state"].values())
    for track in written["tracks"].values():
        shapes = {name: array.shape for name, array in track["state"].items()}
        flat = dict.fromkeys(("heading", "valid", "length", "width", "height"), (t,))
        assert shapes == {"position": (t, 3), "velocity": (t, 2), **flat}
        missing = ~track["state"]["valid"]
        assert not any(np.any(array[missing]) for array in track["state"].values())
    assert all("polyline" in f for f in written["map_features"].values() if f["type"].startswith("LANE_"))
    metadata = written["metadata"]
    assert {"metadrive_processed", "coordinate", "ts", "scenario_id", "dataset", "sdc_id"} <= set(metadata)
    assert metadata["ts"].shape == (t,) and metadata["sdc_id"] in written["tracks"]
    for key, entry in metadata["tracks_to_predict"].items():
        assert list(written["tracks"])[entry["track_index"]] == entry["track_id"] == key
        assert entry["object_type"] == written["tracks"][key]["type"]
    summary = pickle.loads((tmp_path / "db" / "dataset_summary.pkl").read_bytes())
    assert list(summary) == [name] and isinstance(summary[name]["ts"], list)
    assert pickle.loads((tmp_path / "db" / "dataset_mapping.pkl").read_bytes()) == {name: ""}


def test_object_summaries_count_what_the_format_counts():
    scenario = driving(speed=10.0)
    scenario.valid[0, :5] = scenario.valid[0, 30:40] = False
    summary = as_record(scenario)["metadata"]["object_summary"]["car"]
    assert summary["moving_distance"] == pytest.approx(75.0)  # over the gap
    assert (summary["track_length"], summary["valid_length"], summary["continuous_valid_length"]) == (81, 66, 25)


def test_databases_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="two scenarios would be written"):
        write_database(tmp_path / "db", [driving(), driving()])
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="names no file"):
        write_database(tmp_path / "db", [driving(name="../x")])
    (tmp_path / "db").mkdir()
    with pytest.raises(InputError, match="exists already"):
        write_database(tmp_path / "db", [driving()])
