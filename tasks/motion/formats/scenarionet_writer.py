"""Writes ScenarioNet databases: one pickle for each scenario, of the format's own layout, a summary and a mapping."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tarot import InputError
from tarot.common import atomic_directory
from tasks.motion.formats.scenario import MapLine, Scenario, TrafficLight
from tasks.motion.formats.scenarionet import MAPPING, ORIGIN, SUMMARY

VERSION = "tarot"
PROTOCOL = 4
MOVING = 1.0
"""Metres from which on the format's summary calls an object a moving one."""

_POLYGONS = ("CROSSWALK", "SPEED_BUMP", "ROAD_EDGE_SIDEWALK")


def write_database(folder: str | Path, scenarios: Iterable[Scenario], *, version: str = VERSION) -> list[str]:
    """A new database of the scenarios; returns its files' names, in their order. It appears whole or not at all.

    The format needs an ego: where a scenario has none, its first agent is named, and `sdc_is_placeholder` is set.
    Raises InputError where the folder exists, where two scenarios would be one file, and where a name is none of a
    file's. Pickles of numpy 2 need numpy 1.26 or later to be read.
    """
    folder = Path(folder)
    if folder.exists():
        raise InputError(f"{folder} exists already; a database is written to a new folder")
    summary: dict[str, Any] = {}
    with atomic_directory(folder) as temporary:
        for scenario in scenarios:
            name = f"sd_{scenario.dataset}_{version}_{scenario.name}.pkl"
            if "/" in name or "\\" in name or "\0" in name:
                raise InputError(f"scenario {scenario.name} of {scenario.dataset} cannot be written: it names no file")
            if name in summary:
                raise InputError(f"two scenarios would be written to {name}; they need different names")
            record = as_record(scenario, version)
            _write(temporary / name, record)
            summary[name] = _plain(record["metadata"])
        _write(temporary / SUMMARY, summary)
        _write(temporary / MAPPING, dict.fromkeys(summary, ""))
    return list(summary)


def _write(path: Path, content: Any) -> None:
    path.write_bytes(pickle.dumps(content, protocol=PROTOCOL))


def _plain(value: Any) -> Any:
    """As summaries hold it: no arrays."""
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value


def as_record(scenario: Scenario, version: str = VERSION) -> dict[str, Any]:
    """The scenario as ScenarioNet has it: plain dicts, arrays, numbers and text."""
    t = scenario.frames
    tracks = {name: _track(scenario, row) for row, name in enumerate(scenario.agents)}
    if not tracks:
        raise InputError(f"scenario {scenario.name} of {scenario.dataset} has no agents; the format needs one")
    lights = {str(i): _light(light, i) for i, light in enumerate(scenario.lights)}
    features = {line.name: _feature(line) for line in scenario.map}
    objects = {name: _object_summary(scenario, row) for row, name in enumerate(scenario.agents)}
    ego = scenario.agents[0] if scenario.ego is None else scenario.ego
    metadata: dict[str, Any] = {
        "id": scenario.name,
        "scenario_id": scenario.name,
        "dataset": scenario.dataset,
        "metadrive_processed": False,
        "coordinate": "right-handed",
        "ts": np.arange(t) * scenario.dt,
        "sample_rate": float(scenario.dt),
        "sdc_id": ego,
        "sdc_track_index": scenario.agent(ego),
        "sdc_is_placeholder": scenario.ego is None,
        "tracks_to_predict": {
            name: {
                "track_index": scenario.agent(name),
                "track_id": name,
                "difficulty": 0,
                "object_type": scenario.kinds[scenario.agent(name)],
            }
            for name in scenario.to_predict
        },
        "object_summary": objects,
        "number_summary": _number_summary(objects, scenario),
        ORIGIN: None if scenario.origin is None else [float(place) for place in scenario.origin],
    }
    if scenario.current is not None:
        metadata["current_time_index"] = int(scenario.current)
    if scenario.tag is not None:
        metadata["sim_tag"] = scenario.tag
    return {
        "id": scenario.name,
        "version": version,
        "length": t,
        "metadata": metadata,
        "tracks": tracks,
        "dynamic_map_states": lights,
        "map_features": features,
    }


def _flat(xy: np.ndarray) -> np.ndarray:
    """With a height of 0."""
    return np.concatenate([xy, np.zeros((*xy.shape[:-1], 1), xy.dtype)], axis=-1)


def _track(scenario: Scenario, row: int) -> dict[str, Any]:
    name, kind = scenario.agents[row], scenario.kinds[row]
    state = {
        "position": _flat(scenario.position[row]),
        "heading": scenario.heading[row].copy(),
        "velocity": scenario.velocity[row].copy(),
        **{part: scenario.size[row, :, i].copy() for i, part in enumerate(("length", "width", "height"))},
        "valid": scenario.valid[row].copy(),
    }
    about = {"track_length": scenario.frames, "type": kind, "object_id": name, "dataset": scenario.dataset}
    return {"type": kind, "state": state, "metadata": about}


def _light(light: TrafficLight, number: int) -> dict[str, Any]:
    return {
        "type": "TRAFFIC_LIGHT",
        "lane": light.lane,
        "stop_point": _flat(np.asarray(light.stop)),
        "state": {"object_state": list(light.states)},
        "metadata": {"track_length": len(light.states), "type": "TRAFFIC_LIGHT", "object_id": str(number)},
    }


def _feature(line: MapLine) -> dict[str, Any]:
    xy = np.asarray(line.xy)
    if line.kind == "STOP_SIGN":
        return {"type": line.kind, "position": _flat(xy[0]), "lane": list(line.entries)}
    feature = {"type": line.kind, "polygon" if line.kind in _POLYGONS else "polyline": _flat(xy)}
    if line.kind.startswith("LANE_"):
        feature.update(entry_lanes=list(line.entries), exit_lanes=list(line.exits), left_neighbor=[], right_neighbor=[])
    return feature


def _object_summary(scenario: Scenario, row: int) -> dict[str, Any]:
    valid = scenario.valid[row]
    seen = scenario.position[row][valid]
    after = valid[int(valid.argmax()) :]
    return {
        "type": scenario.kinds[row],
        "object_id": scenario.agents[row],
        "track_length": scenario.frames,
        "moving_distance": float(np.linalg.norm(np.diff(seen, axis=0), axis=1).sum()),
        "valid_length": int(valid.sum()),
        "continuous_valid_length": int(len(after) if after.all() else after.argmin()),
    }


def _number_summary(objects: dict[str, dict[str, Any]], scenario: Scenario) -> dict[str, Any]:
    moving = [entry for entry in objects.values() if entry["moving_distance"] > MOVING]
    shown = Counter(state for light in scenario.lights for state in light.states if state is not None)
    return {
        "num_objects": len(objects),
        "object_types": tuple(
            sorted({entry["type"] for entry in objects.values()})
        ),  # a set's bytes are not the same twice
        "num_objects_each_type": dict(Counter(entry["type"] for entry in objects.values())),
        "num_moving_objects": len(moving),
        "num_moving_objects_each_type": dict(Counter(entry["type"] for entry in moving)),
        "num_traffic_lights": len(scenario.lights),
        "num_traffic_light_types": tuple(sorted(shown)),
        "num_traffic_light_each_step": dict(shown),
        "num_map_features": len(scenario.map),
        "map_height_diff": 0.0,
    }
