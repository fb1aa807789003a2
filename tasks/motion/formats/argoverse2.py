"""Argoverse 2's forecasting scenarios: a folder each, with a table of tracks and a map. Read with pyarrow and json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from tarot import InputError
from tarot.common import check_is_file, entries, files_below, read_json
from tarot.features import BAD_PARQUET
from tasks.motion.formats.records import BAD_LINES, NO_AREAS, cleaned, points
from tasks.motion.formats.scenario import CYCLIST, PEDESTRIAN, RATE, VEHICLE, MapLine, Scenario

DATASET = "argoverse2"
EGO = "AV"
SCORED, FOCAL = 2, 3
COLUMNS = (
    "observed",
    "track_id",
    "object_type",
    "object_category",
    "timestep",
    "position_x",
    "position_y",
    "heading",
    "velocity_x",
    "velocity_y",
    "scenario_id",
    "num_timestamps",
    "focal_track_id",
)
TEXTS = ("track_id", "object_type", "scenario_id", "focal_track_id")
WHOLE = ("object_category", "timestep", "num_timestamps")
MOST_FRAMES = 10_000
"""Of a scenario; the dataset's have 110."""
KINDS = {"vehicle": VEHICLE, "bus": VEHICLE, "cyclist": CYCLIST, "pedestrian": PEDESTRIAN}
# the dataset has no sizes; length, width and height that ScenarioNet's conversion gives them
SIZES = {"vehicle": (4.0, 2.0, 1.0), "bus": (4.0, 2.0, 1.0), "cyclist": (2.0, 0.7, 1.0), "pedestrian": (0.5, 0.5, 1.0)}
LANES = {"VEHICLE": "LANE_SURFACE_STREET", "BUS": "LANE_SURFACE_STREET", "BIKE": "LANE_BIKE_LANE"}
MARKS = {
    "DASHED_WHITE": "ROAD_LINE_BROKEN_SINGLE_WHITE",
    "SOLID_WHITE": "ROAD_LINE_SOLID_SINGLE_WHITE",
    "DOUBLE_SOLID_WHITE": "ROAD_LINE_SOLID_DOUBLE_WHITE",
    "DASHED_YELLOW": "ROAD_LINE_BROKEN_SINGLE_YELLOW",
    "DOUBLE_DASH_YELLOW": "ROAD_LINE_BROKEN_DOUBLE_YELLOW",
    "SOLID_YELLOW": "ROAD_LINE_SOLID_SINGLE_YELLOW",
    "DOUBLE_SOLID_YELLOW": "ROAD_LINE_SOLID_DOUBLE_YELLOW",
    "DASH_SOLID_YELLOW": "ROAD_LINE_PASSING_DOUBLE_YELLOW",
    "SOLID_DASH_YELLOW": "ROAD_LINE_PASSING_DOUBLE_YELLOW",
}


def is_argoverse2_name(name: str) -> bool:
    """scenario_*.parquet"""
    return name.startswith("scenario_") and name.endswith(".parquet")


def argoverse2_folders(root: str | Path) -> list[Path]:
    """Scenarios at or below `root`, sorted. Raises InputError where there are none."""
    root = Path(root)
    inside = files_below(root) if root.is_dir() else []
    found = sorted({path.parent for path in inside if is_argoverse2_name(path.name)})
    if not found:
        raise InputError(f"{root} holds no Argoverse 2 scenarios: no scenario_*.parquet")
    return found


def read_argoverse2(folder: str | Path, *, scored: bool = False) -> Scenario:
    """The scenario of a folder. To be predicted: the focal track; and the other scored ones, where `scored`.

    Lanes' centre lines, their painted boundaries, crossings and the edge of the drivable area are its map. The city's
    frame is kept.
    Raises InputError where the table or the map is missing, or not one of Argoverse 2's.
    """
    folder = Path(folder)
    table = _table(_only(folder, "scenario_*.parquet"))
    where = str(folder)
    frames = int(table["num_timestamps"][0])
    if not 1 <= frames <= MOST_FRAMES:
        raise InputError(f"{where}: a scenario has 1 to {MOST_FRAMES:,} frames, not {frames:,}")
    steps = table["timestep"].astype(np.int64)
    if steps.min() < 0 or steps.max() >= frames:
        raise InputError(f"{where}: time steps {steps.min()}..{steps.max()} do not fit {frames} frames")
    tracks, first, row = np.unique(table["track_id"], return_index=True, return_inverse=True)
    if len(np.unique(row * frames + steps)) < len(steps):
        raise InputError(f"{where}: a track has two states at one time step")

    def filled(*names: str) -> np.ndarray:
        out = np.zeros((len(tracks), frames, len(names)))
        out[row, steps] = np.stack([table[name] for name in names], axis=1)
        return out

    types = table["object_type"][first]
    size = np.array([SIZES.get(kind, (0.0, 0.0, 0.0)) for kind in types])[:, None].repeat(frames, 1)
    valid = np.zeros((len(tracks), frames), bool)
    valid[row, steps] = True
    arrays, problems = cleaned(
        filled("position_x", "position_y"), filled("heading")[..., 0], filled("velocity_x", "velocity_y"), size, valid
    )
    lines, bad_lines = _map(_only(folder, "log_map_archive_*.json"))
    problems.update(bad_lines)
    observed = steps[table["observed"].astype(bool)]
    focal = str(table["focal_track_id"][0])
    category = table["object_category"][first]
    others = [str(name) for name in tracks[category == SCORED]] if scored else []
    return Scenario(
        name=str(table["scenario_id"][0]),
        dataset=DATASET,
        agents=tuple(str(name) for name in tracks),
        kinds=tuple(KINDS.get(kind, "OTHER") for kind in types),
        **arrays,
        map=lines,
        current=int(observed.max()) if len(observed) else None,
        to_predict=(focal, *(name for name in others if name != focal)),
        ego=EGO if EGO in tracks else None,
        dt=RATE,
        problems=dict(problems),
    )


def _only(folder: Path, pattern: str) -> Path:
    found = [path for path in entries(folder) if path.match(pattern)]
    if len(found) != 1:
        raise InputError(f"{folder} must hold one {pattern}; it holds {len(found)}")
    return found[0]


Line = tuple[str, str, list[tuple[float, float]], tuple[str, ...], tuple[str, ...]]  # a `MapLine`, its xy a list


def _table(path: Path) -> dict[str, np.ndarray]:
    check_is_file(path)
    try:
        table = parquet.read_table(path)
        missing = [name for name in COLUMNS if name not in table.column_names]
        if missing or not table.num_rows:
            raise InputError(f"{path} is no table of tracks of Argoverse 2: it lacks {', '.join(missing) or 'rows'}")
        for name in COLUMNS:
            _check_column(path, name, table[name])
        return {name: table[name].to_numpy() for name in COLUMNS}
    except InputError:
        raise
    except BAD_PARQUET as error:  # names and texts are decoded when they are asked for
        raise InputError(f"{path} cannot be read as parquet: {error}") from error


def _check_column(path: Path, name: str, column: pa.ChunkedArray) -> None:
    kind = column.type
    number = pa.types.is_integer(kind) or (name not in WHOLE and pa.types.is_floating(kind))
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind)
    fits = text if name in TEXTS else pa.types.is_boolean(kind) if name == "observed" else number
    if not fits or column.null_count:
        raise InputError(f"{path} is no table of tracks of Argoverse 2: {name} is {kind}, {column.null_count} missing")


def _map(path: Path) -> tuple[tuple[MapLine, ...], Counter[str]]:
    try:
        content = read_json(path)
        found: list[Line] = [*_lanes(content["lane_segments"])]
        for name, crossing in content["pedestrian_crossings"].items():
            corners = _points(crossing["edge1"]) + _points(crossing["edge2"])[::-1]
            found.append((name, "CROSSWALK", corners, (), ()))
        for name, area in content.get("drivable_areas", {}).items():
            found.append((name, "ROAD_EDGE_BOUNDARY", _points(area["area_boundary"]), (), ()))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(f"{path} is no map of Argoverse 2: {error.__cause__ or error!r}") from error
    lines: list[MapLine] = []
    problems: Counter[str] = Counter({NO_AREAS: 1} if "drivable_areas" not in content else {})
    for name, kind, corners, before, after in found:
        xy = points(corners)
        if xy is None:
            problems[BAD_LINES] += 1
        else:
            lines.append(MapLine(name, kind, xy, before, after))
    return tuple(lines), problems


def _lanes(segments: Mapping[str, Any]) -> Iterator[Line]:
    painted: set[tuple[str, frozenset[tuple[float, float]]]] = set()
    for name, lane in segments.items():
        kind = LANES.get(lane["lane_type"], "LANE_UNKNOWN")
        before, after = (tuple(str(i) for i in lane[key]) for key in ("predecessors", "successors"))
        yield name, kind, _points(lane["centerline"]), before, after
        for side in ("left", "right"):
            line, mark = _points(lane[f"{side}_lane_boundary"]), MARKS.get(lane[f"{side}_lane_mark_type"])
            same = frozenset(line)
            if mark is not None and (mark, same) not in painted:  # neighbours list the line between them both
                painted.add((mark, same))
                yield f"{name}/{side}", mark, line, (), ()


def _points(corners: list[Mapping[str, float]]) -> list[tuple[float, float]]:
    return [(float(corner["x"]), float(corner["y"])) for corner in corners]
