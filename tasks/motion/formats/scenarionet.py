"""ScenarioNet databases: folders of pickled scenarios, with a summary and a mapping that may be missing."""

from __future__ import annotations

import logging
import math
import os
import re
import reprlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from tarot import InputError
from tarot.common import entries
from tasks.common.safe_pickle import load_keys, load_pickle
from tasks.motion.formats.records import (
    BAD_LIGHTS,
    BAD_LINES,
    BAD_TRACKS,
    OTHER_LIGHTS,
    Arrays,
    cleaned,
    column,
    names,
    points,
    shown,
    text,
)
from tasks.motion.formats.scenario import CYCLIST, PEDESTRIAN, RATE, VEHICLE, MapLine, Scenario, TrafficLight

SUMMARY, MAPPING = "dataset_summary.pkl", "dataset_mapping.pkl"
ORIGIN, OLD_ORIGIN = "map_origin", "old_origin_in_current_coordinate"
"""Where a record lies on the map: as `write_database` notes it, and as MetaDrive does."""
SCENARIO_BYTES, SUMMARY_BYTES = 256 * 2**20, 4 * 2**30
"""The largest files that are read."""
NEAR = 1e-3
"""Metres within which two places of a record are the same one."""
log = logging.getLogger("tarot")
_NO_RECORD = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError)
"""What content of other types than a scenario's can raise."""
Columns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
KEYS = ("id", "version", "length", "metadata", "tracks", "dynamic_map_states", "map_features")


def is_scenario_name(name: str) -> bool:
    """sd_*.pkl; or, as older versions wrote, only digits before .pkl."""
    stem, dot, end = name.rpartition(".")
    return bool(dot) and end == "pkl" and (stem.startswith("sd_") or (stem.isascii() and stem.isdigit()))


def databases(root: str | Path) -> list[Path]:
    """Folders at or below `root` that are databases: with a summary, a mapping or scenarios. What lies below a database
    belongs to it (each worker of ScenarioNet's converter leaves one there) and is none of its own.

    Raises InputError where there is no such folder, or no database in it.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder of scenarios")
    found = _databases(root, set())
    if not found:
        raise InputError(f"{root} holds no ScenarioNet database: no {SUMMARY}, no {MAPPING}, no sd_*.pkl or 0.pkl")
    return found


def _databases(folder: Path, seen: set[Path]) -> list[Path]:
    if (real := folder.resolve()) in seen:
        log.info("%s is left out: it is a link to %s, which is read already", folder, real)
        return []
    seen.add(real)
    inside = entries(folder)
    if any(e.name in (SUMMARY, MAPPING) or (is_scenario_name(e.name) and e.is_file()) for e in inside):
        return [folder]
    return [database for e in inside if e.is_dir() for database in _databases(e, seen)]


def scenario_files(database: str | Path, allow_outside: bool | str | Path = False) -> dict[str, Path]:
    """Names of a database's scenarios and where they are, sorted by name.

    Without a summary it has what its mapping lists; without that, too, the scenarios of the folder itself. Without a
    mapping, all lie in the folder itself.

    allow_outside: a merged database points to other folders. False: files must lie in the database; a folder: they must
        lie in that one; True: anywhere.
    Raises InputError where a name is no scenario's, a file lies outside, or summary and mapping do not fit together.
    """
    database = Path(database)
    if not database.is_dir():
        raise InputError(f"{database}: there is no such folder of scenarios")
    summary, mapping = _table(database / SUMMARY, load_keys), _table(database / MAPPING, load_pickle)
    if summary is not None:
        listed = list(summary)
    elif mapping is not None:
        listed = list(mapping)
    else:
        listed = [entry.name for entry in entries(database) if is_scenario_name(entry.name)]
    root = database.resolve() if isinstance(allow_outside, bool) else Path(allow_outside).resolve()
    files = {}
    for name in sorted(listed, key=str):
        if not isinstance(name, str) or not is_scenario_name(name) or PurePosixPath(name).name != name or "\\" in name:
            raise InputError(f"{database} lists {name!r}; scenarios are called sd_*.pkl, or like 0.pkl")
        if mapping is not None and name not in mapping:
            raise InputError(f"{database}: {name} is in the summary, but not in the mapping, which tells where it is")
        folder = "" if mapping is None else mapping[name]
        if not isinstance(folder, str):
            raise InputError(f"{database}: the mapping of {name} is {type(folder).__name__}, not a folder's name")
        try:
            path = (database / folder / name).resolve()
        except (ValueError, OSError, RuntimeError) as error:
            raise InputError(
                f"{database}: {shown(name)} lies in {shown(folder)}, which is no folder: {error}"
            ) from error
        if allow_outside is not True and not path.is_relative_to(root):
            raise InputError(
                f"{database}: {name} is said to lie in {folder!r}, which is outside {root}; set allow_outside, to the "
                "folder that holds all of the merged databases or to true, if that is right"
            )
        files[name] = path
    return files


def _table(path: Path, load: Callable[..., Any]) -> dict | None:
    if not os.path.lexists(path):  # a link that leads nowhere is refused
        return None
    table = load(path, max_bytes=SUMMARY_BYTES)
    if not isinstance(table, dict):
        raise InputError(f"{path} does not hold a dict of scenarios, but {type(table).__name__}")
    return table


def read_database(
    folders: str | Path | Iterable[str | Path],
    *,
    dataset: str | None = None,
    allow_outside: bool | str | Path = False,
    skipped: Counter[str] | None = None,
) -> Iterator[Scenario]:
    """All scenarios of a database, or of several, one after the other.

    skipped: counts the files that cannot be read, by reason, instead of raising InputError at the first one.
    """
    for folder in [folders] if isinstance(folders, str | Path) else folders:
        yield from read_scenarios(scenario_files(folder, allow_outside).values(), dataset=dataset, skipped=skipped)


def read_scenarios(
    paths: Iterable[Path], *, dataset: str | None = None, skipped: Counter[str] | None = None
) -> Iterator[Scenario]:
    """The scenarios of files, as `read_database`."""
    for path in paths:
        try:
            scenario = read_scenario(path, dataset)
        except InputError as error:
            if skipped is None:
                raise
            count_unreadable(skipped, path, error)
            continue
        yield scenario


def count_unreadable(skipped: Counter[str], path: Path, error: InputError) -> None:
    """By the reason alone, which files share; the first file of which it is true is said in the log."""
    reason = re.sub(re.escape(str(path)) + r"[^\s:]*", "", str(error)).strip(": ")
    if not skipped[f"file unreadable: {reason}"]:
        log.info("%s is left out, and all others like it: %s", path, reason)
    skipped[f"file unreadable: {reason}"] += 1


def read_scenario(path: str | Path, dataset: str | None = None, *, max_bytes: int = SCENARIO_BYTES) -> Scenario:
    """One scenario. dataset: its dataset's name, where it is to be another than the record says.

    A frame in which a valid agent is not finite, and a line of the map that is not, are left out and counted in the
    scenario's `problems`. An empty `tracks_to_predict` is the same as none.
    Raises InputError where the file is not to be trusted (see `load_pickle`) or is no scenario.
    """
    path = Path(path)
    record = load_pickle(path, max_bytes=max_bytes)
    try:
        return _scenario(record, path, dataset)
    except InputError:
        raise
    except _NO_RECORD as error:
        raise InputError(f"{path} is no ScenarioNet scenario: {shown(str(error) or type(error).__name__)}") from error


def _scenario(record: Any, path: Path, dataset: str | None) -> Scenario:
    if not isinstance(record, dict) or any(key not in record for key in KEYS):
        missing = [key for key in KEYS if key not in record] if isinstance(record, dict) else list(KEYS)
        raise InputError(f"{path} is no ScenarioNet scenario: it has no {', '.join(missing)}")
    metadata, tracks = record["metadata"], record["tracks"]
    for key in ("metadata", "tracks", "dynamic_map_states", "map_features"):
        if not isinstance(record[key], dict):
            raise InputError(f"{path}: {key} is {type(record[key]).__name__}, not dict")
    frames = record["length"]
    if not isinstance(frames, int | np.integer) or isinstance(frames, bool) or frames < 1:
        raise InputError(f"{path}: length is {shown(reprlib.repr(frames))}, not a number of frames")
    frames = int(frames)
    if not tracks or len({str(name) for name in tracks}) < len(tracks):
        raise InputError(f"{path} has {'two tracks of one name' if tracks else 'no tracks'}")
    tracks, columns, left_out = _readable(tracks, frames, str(path))
    arrays, problems, unseen = _tracks(columns, str(path))
    lines, bad_lines = _map(record["map_features"], path)
    lights, bad_lights = _lights(record["dynamic_map_states"], frames, path)
    problems.update(left_out + bad_lines + bad_lights)
    current, ego = metadata.get("current_time_index"), metadata.get("sdc_id")
    if current is not None and not (isinstance(current, int | np.integer) and 0 <= current < frames):
        raise InputError(
            f"{path}: current_time_index is {shown(reprlib.repr(current))}; the record has {frames} frames"
        )
    known = ego is not None and not metadata.get("sdc_is_placeholder") and text(ego, path) in map(str, tracks)
    row = [str(track) for track in tracks].index(str(ego)) if known else None
    begins = None if row is None or not arrays["valid"][row, 0] else arrays["position"][row, 0]
    return Scenario(
        name=text(metadata.get("scenario_id", record["id"]), path),
        dataset=dataset or text(metadata.get("dataset", record["version"]), path),
        agents=tuple(str(name) for name in tracks),
        kinds=tuple(text(track["type"], path) for track in tracks.values()),
        **arrays,
        map=lines,
        lights=lights,
        current=None if current is None else int(current),
        to_predict=_to_predict(metadata.get("tracks_to_predict"), path),
        ego=str(ego) if known else None,
        dt=_seconds(metadata, frames),
        tag=None if metadata.get("sim_tag") is None else text(metadata["sim_tag"], path),
        origin=_origin(metadata, begins, unseen),
        problems=dict(problems),
    )


def _readable(tracks: Mapping[Any, Any], frames: int, path: str) -> tuple[dict[Any, Any], list[Columns], Counter[str]]:
    """The tracks whose columns can be read, these, and how many others are left out: a cone without a heading is no
    reason to leave out a record. A vehicle, pedestrian or cyclist that cannot be read is, and an InputError."""
    kept: dict[Any, Any] = {}
    found: list[Columns] = []
    left_out: Counter[str] = Counter()
    for name, track in tracks.items():
        where = f"{path}: track {shown(name)}"
        if not isinstance(track, dict) or "type" not in track:
            raise InputError(f"{where} has no type")
        try:
            columns = _columns(track, frames, where)
        except InputError:
            if track["type"] in (VEHICLE, PEDESTRIAN, CYCLIST):
                raise
            left_out[BAD_TRACKS] += 1
            continue
        kept[name] = track
        found.append(columns)
    if not kept:
        raise InputError(f"{path} has no track that can be read")
    return kept, found, left_out


def _columns(track: Mapping[Any, Any], frames: int, where: str) -> Columns:
    """Positions [T, 2], headings [T], velocities [T, 2], sizes [T, 3] and whether it is there [T]."""
    state = track.get("state")
    if not isinstance(state, dict):
        raise InputError(f"{where} has no state")
    position = column(state, "position", frames, 2, where)
    heading = column(state, "heading", frames, 1, where)
    velocity = column(state, "velocity", frames, 2, where)
    parts = [
        # exports of procedural scenes may have no height
        column(state, part, frames, 1, where) if part in state else np.zeros(frames)
        for part in ("length", "width", "height")
    ]
    return position, heading, velocity, np.stack(parts, axis=1), column(state, "valid", frames, 1, where)


def _tracks(columns: Sequence[Columns], path: str) -> tuple[Arrays, Counter[str], np.ndarray]:
    """The arrays of a `Scenario`, what is wrong with them, and the positions of frames that are not valid, [n, 2]."""
    position, heading, velocity, size, valid = (np.stack(arrays) for arrays in zip(*columns, strict=True))
    if not np.isfinite(valid).all():
        raise InputError(f"{path}: whether an agent is valid is neither true nor false somewhere")
    return *cleaned(position, heading, velocity, size, valid), position[valid == 0]


def _origin(metadata: Mapping[str, Any], begins: np.ndarray | None, unseen: np.ndarray) -> tuple[float, float] | None:
    """Where a record's (0, 0) lies on the map of its dataset, metres; None where it cannot be told.

    Converters of ScenarioNet, and MetaDrive, move a record as a whole so that its ego begins at (0, 0). Only MetaDrive
    notes by how much. But all positions of frames that are not valid were (0, 0) before it, so that they tell.

    begins: [2], where the ego begins, None where that is not known. unseen: [n, 2], positions of frames that are not
    valid.
    """
    if ORIGIN in metadata:
        noted = points(metadata[ORIGIN])
        return None if noted is None else (float(noted[0, 0]), float(noted[0, 1]))
    if begins is None or not np.isfinite(unseen).all() or (len(unseen) and np.ptp(unseen, axis=0).max() > NEAR):
        return None
    shift = unseen[0] if len(unseen) else np.zeros(2)
    moved = np.abs(begins).max() <= NEAR
    if moved and np.abs(shift).max() <= NEAR:
        noted = points(metadata.get(OLD_ORIGIN))
        return None if noted is None else (-float(noted[0, 0]), -float(noted[0, 1]))
    if not moved and np.abs(shift).max() > NEAR:
        return None
    return (-float(shift[0]), -float(shift[1])) if moved else (0.0, 0.0)


def _map(features: Mapping[Any, Any], path: Path) -> tuple[tuple[MapLine, ...], Counter[str]]:
    lines: list[MapLine] = []
    problems: Counter[str] = Counter()
    for name, feature in features.items():
        if not isinstance(feature, dict) or "type" not in feature:
            raise InputError(f"{path}: map feature {shown(name)} has no type")
        geometry = next((feature[key] for key in ("polyline", "polygon", "position") if key in feature), None)
        xy = None if geometry is None else points(geometry)
        if xy is None:
            problems[BAD_LINES] += 1
            continue
        kind = text(feature["type"], path)
        before = "lane" if kind == "STOP_SIGN" else "entry_lanes"
        entries, exits = names(feature.get(before), path), names(feature.get("exit_lanes"), path)
        lines.append(MapLine(str(name), kind, xy, entries, exits))
    return tuple(lines), problems


def _lights(states: Mapping[Any, Any], frames: int, path: Path) -> tuple[tuple[TrafficLight, ...], Counter[str]]:
    lights: list[TrafficLight] = []
    problems: Counter[str] = Counter()
    for light in states.values():
        state = light.get("state") if isinstance(light, dict) else None
        each = state.get("object_state") if isinstance(state, dict) else None
        if not isinstance(each, list | tuple | np.ndarray) or len(each) != frames or "lane" not in light:
            problems[OTHER_LIGHTS] += 1  # older converters wrote them in another way; no model looks at lights
            continue
        seen = [None if s is None else text(s, path) for s in each]
        stop = points(light.get("stop_point"))
        if stop is None:
            problems[BAD_LIGHTS] += 1
            continue
        lights.append(TrafficLight(text(light["lane"], path), stop[0].astype(np.float32), tuple(seen)))
    return tuple(lights), problems


def _to_predict(content: Any, path: Path) -> tuple[str, ...]:
    if content is None:
        return ()
    if isinstance(content, list | tuple):
        return tuple(
            text(entry["track_id"] if isinstance(entry, dict) and "track_id" in entry else entry, path)
            for entry in content
        )
    if not isinstance(content, dict):
        raise InputError(f"{path}: tracks_to_predict is {type(content).__name__}, not dict or list")
    return tuple(
        text(entry["track_id"], path) if isinstance(entry, dict) and "track_id" in entry else str(name)
        for name, entry in content.items()
    )


def _seconds(metadata: Mapping[str, Any], frames: int) -> float:
    """Between two frames: as the record says, or else as its time stamps are apart."""
    rate = metadata.get("sample_rate")
    if isinstance(rate, int | float | np.integer | np.floating) and math.isfinite(rate) and rate > 0:
        return float(rate)
    given = metadata.get("ts", ())
    if isinstance(given, list | tuple) and not all(isinstance(stamp, int | float | np.number) for stamp in given):
        return RATE
    stamps = np.asarray(given if isinstance(given, list | tuple | np.ndarray) else ())
    if frames > 1 and stamps.shape == (frames,) and stamps.dtype.kind in "fiu" and np.isfinite(stamps).all():
        step = float(np.median(np.diff(stamps)))
        if step > 0:
            return step
    return RATE
