"""Argoverse 2's scenario of the shared data, and what can be wrong with a folder."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from tarot import InputError
from tasks.motion.databases import Source, _argoverse2
from tasks.motion.formats.argoverse2 import argoverse2_folders, read_argoverse2
from tasks.motion.formats.records import NO_AREAS
from tasks.motion.views.profile import MINI, PAPER_WAYFORMER
from tasks.motion.views.samples import UNSEEN, samples_of
from tasks.motion.views.windows import TargetFilter

NAME = "0a1e6f0a-1817-4a98-b02e-db8c9327d151"


@pytest.fixture
def folder(tmp_path):
    """A copy that a test may change."""
    from tests.tasks.motion.scenes import data

    (found,) = argoverse2_folders(data("argoverse2"))
    return shutil.copytree(found, tmp_path / "copy")


def table_of(folder):
    return parquet.read_table(folder / f"scenario_{NAME}.parquet")


def rewrite(folder, table) -> None:
    parquet.write_table(table, folder / f"scenario_{NAME}.parquet")


def test_the_scenario(folder):
    scenario = read_argoverse2(folder)
    assert (scenario.name, scenario.dataset, scenario.ego, scenario.current) == (NAME, "argoverse2", "AV", 49)
    assert scenario.valid.shape == (58, 110) and scenario.to_predict == ("138951",) and not scenario.problems
    table = table_of(folder).to_pandas()
    assert scenario.valid.sum() == len(table) == 2434
    for _, row in table[::97].iterrows():
        agent = scenario.agent(row.track_id)
        assert scenario.valid[agent, row.timestep]
        assert scenario.position[agent, row.timestep].tolist() == [row.position_x, row.position_y]
        assert scenario.heading[agent, row.timestep] == np.float32(row.heading)
        assert scenario.velocity[agent, row.timestep, 1] == np.float32(row.velocity_y)
    kinds = dict(zip(table.track_id, table.object_type, strict=True))
    named = {"vehicle": "VEHICLE", "pedestrian": "PEDESTRIAN"}
    assert all(
        kind == named.get(kinds[agent], "OTHER") for agent, kind in zip(scenario.agents, scenario.kinds, strict=True)
    )


def test_the_map(folder):
    scenario = read_argoverse2(folder)
    content = json.loads((folder / f"log_map_archive_{NAME}.json").read_text())
    lines = {line.name: line for line in scenario.map}
    for name, lane in content["lane_segments"].items():
        line = lines[name]
        assert line.kind == {"VEHICLE": "LANE_SURFACE_STREET", "BIKE": "LANE_BIKE_LANE"}[lane["lane_type"]]
        assert line.xy.tolist() == [[p["x"], p["y"]] for p in lane["centerline"]]
        assert line.exits == tuple(map(str, lane["successors"])) and line.entries == tuple(
            map(str, lane["predecessors"])
        )
    kinds = [line.kind for line in scenario.map]
    assert kinds.count("CROSSWALK") == 6 and kinds.count("ROAD_EDGE_BOUNDARY") == 2
    assert "ROAD_LINE_SOLID_DOUBLE_YELLOW" in kinds and "ROAD_LINE_BROKEN_SINGLE_WHITE" in kinds
    assert len(lines) == len(scenario.map)


@pytest.mark.parametrize("profile", [MINI, PAPER_WAYFORMER])
def test_its_one_target_is_the_focal_track(folder, profile):
    samples = samples_of([read_argoverse2(folder)], profile)
    assert samples.ids.tolist() == [f"argoverse2/{NAME}/138951"]
    assert dict(samples.skipped) == {UNSEEN: 110 - profile.frames}
    sample = samples[0]
    assert sample["future_valid"].all() and sample["lanes_valid"].any() and sample["agents_valid"][0].all()
    table = table_of(folder).to_pandas()
    track = table[(table.track_id == "138951") & (table.timestep > 49)].sort_values("timestep")
    expected = track[["position_x", "position_y"]].to_numpy()[profile.stride - 1 :: profile.stride]
    np.testing.assert_allclose(samples.to_scene(0, sample["future"][:, :2].numpy()), expected, atol=1e-3)


def test_other_ways_to_choose_targets(folder):
    scenario = read_argoverse2(folder, scored=True)
    assert len(scenario.to_predict) == 2 and scenario.to_predict[0] == "138951"
    moving = samples_of([replace(scenario, to_predict=())], MINI, select=TargetFilter(valid_share=0.9))
    assert 1 <= len(moving) <= 8 and moving.skipped["agent is of another kind"] > 0


def test_a_test_split_without_a_future_has_no_targets(folder):
    table = table_of(folder)
    rewrite(folder, table.filter(pyarrow.compute.field("timestep") < 50))
    samples = samples_of([read_argoverse2(folder)], MINI)
    assert len(samples) == 0 and samples.skipped["agent is not there in the future"] == 1


def test_frames_that_are_not_finite_are_counted(folder):
    table = table_of(folder)
    x = table["position_x"].to_numpy().copy()
    x[[3, 700]] = np.nan
    rewrite(folder, table.set_column(table.column_names.index("position_x"), "position_x", pyarrow.array(x)))
    scenario = read_argoverse2(folder)
    assert scenario.valid.sum() == 2432 and list(scenario.problems.values()) == [2]


def test_a_source_is_called_as_the_configuration_says_and_faults_are_counted_without_their_folders(folder, tmp_path):
    for i in range(2):
        shutil.copytree(folder, tmp_path / f"bad{i}")
        (tmp_path / f"bad{i}" / f"log_map_archive_{NAME}.json").write_text("{")
    skipped = Counter()
    (scenario,) = _argoverse2(Source(tmp_path, allow_outside=False).records, "mine", skipped)
    assert scenario.dataset == "mine" and scenario.name == NAME
    ((reason, count),) = skipped.items()
    assert count == 2 and reason.startswith("file unreadable: is no map of Argoverse 2")


def test_folders_that_cannot_be_read(folder, tmp_path):
    table, path = table_of(folder), folder / f"scenario_{NAME}.parquet"
    rewrite(folder, table.drop_columns(["heading"]))
    with pytest.raises(InputError, match="it lacks heading"):
        read_argoverse2(folder)
    rewrite(folder, table.slice(0, 0))
    with pytest.raises(InputError, match="it lacks rows"):
        read_argoverse2(folder)
    rewrite(folder, pyarrow.concat_tables([table, table.slice(0, 1)]))
    with pytest.raises(InputError, match="two states at one time step"):
        read_argoverse2(folder)
    path.write_bytes(b"PAR1")
    with pytest.raises(InputError, match="cannot be read as parquet"):
        read_argoverse2(folder)
    rewrite(folder, table)
    (folder / f"log_map_archive_{NAME}.json").write_text('{"lane_segments": {"1": {}}}')
    with pytest.raises(InputError, match="is no map of Argoverse 2"):
        read_argoverse2(folder)
    (folder / f"log_map_archive_{NAME}.json").unlink()
    with pytest.raises(InputError, match=r"must hold one log_map_archive_\*\.json; it holds 0"):
        read_argoverse2(folder)
    with pytest.raises(InputError, match="holds no Argoverse 2 scenarios"):
        argoverse2_folders(tmp_path / "copy" / "nothing")


def test_scenarios_behind_links_are_found_and_part_of_the_content(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root" / "b").mkdir(parents=True)
    for path in (tmp_path / "elsewhere" / "scenario_1.parquet", tmp_path / "root" / "b" / "scenario_2.parquet"):
        path.write_bytes(b"rows")
    (tmp_path / "root" / "a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "b" / "up").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "b" / ".DS_Store").write_bytes(b"Mac OS X")
    assert argoverse2_folders(tmp_path / "root") == [tmp_path / "root" / "a", tmp_path / "root" / "b"]
    source = Source(tmp_path / "root", allow_outside=False)
    assert [path.name for path in source.paths()] == ["scenario_1.parquet", "scenario_2.parquet"]
    before = source.content()
    (tmp_path / "root" / "b" / ".DS_Store").write_bytes(b"Mac OS Y")
    assert source.content() == before
    (tmp_path / "elsewhere" / "scenario_1.parquet").write_bytes(b"other rows")
    assert source.content() != before


def test_a_map_without_drivable_areas_is_read_and_said(folder):
    (path,) = folder.glob("log_map_archive_*.json")
    content = json.loads(path.read_text())
    edges = len(content.pop("drivable_areas"))
    whole = read_argoverse2(folder)
    path.write_text(json.dumps(content))
    scenario = read_argoverse2(folder)
    assert scenario.problems == whole.problems | {NO_AREAS: 1}
    assert len(scenario.map) == len(whole.map) - edges and edges
