"""Traffic scenes and records made by hand, for the tests of what reads, cuts and shows them."""

from __future__ import annotations

import os
import pickle
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tasks.motion.formats.scenario import CYCLIST, PEDESTRIAN, VEHICLE, MapLine, Scenario

KINDS = (VEHICLE, VEHICLE, PEDESTRIAN, CYCLIST, VEHICLE, "TRAFFIC_CONE", VEHICLE, VEHICLE)
CANDIDATES = {"cand_highway": 4, "cand_roundabout": 6, "cand_crossing": 6, "cand_parking": 2}  # scenes


def data(*parts: str) -> Path:
    """A folder of the shared motion data; the test is skipped without it."""
    if "TAROT_DATA" not in os.environ:
        pytest.skip("TAROT_DATA does not say where the data are")
    folder = Path(os.environ["TAROT_DATA"], "motion", *parts)
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}")
    return folder


def random_scenario(seed: int = 0, frames: int = 81, agents: int = 8, lanes: int = 30) -> Scenario:
    """Curved tracks with holes, and curved lanes of 2 to 60 points around them; agent a0 is there all the time."""
    rng = np.random.default_rng(seed)
    time = np.arange(frames) * 0.1
    turn = rng.uniform(-0.3, 0.3, (agents, 1))
    heading = rng.uniform(-3, 3, (agents, 1)) + turn * time
    velocity = rng.uniform(1, 12, (agents, 1, 1)) * np.stack([np.cos(heading), np.sin(heading)], axis=2)
    position = rng.uniform(-40, 40, (agents, 1, 2)) + np.cumsum(velocity, axis=1) * 0.1 + 300
    valid = rng.random((agents, frames)) < 0.85
    valid[0] = True
    lines = []
    for i in range(lanes):
        n = int(rng.integers(2, 60))
        angle = rng.uniform(-3, 3) + np.cumsum(rng.uniform(-0.1, 0.1, n))
        step = rng.uniform(0.2, 2.5, (n, 1)) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        kind = ("LANE_SURFACE_STREET", "LANE_BIKE_LANE", "ROAD_LINE_SOLID_SINGLE_WHITE", "LANE_UNKNOWN")[i % 4]
        lines.append(MapLine(f"line{i}", kind, rng.uniform(-80, 80, 2) + 300 + np.cumsum(step, axis=0)))
    mask = valid[..., None]
    return Scenario(
        name=f"random{seed}",
        dataset="made",
        agents=tuple(f"a{i}" for i in range(agents)),
        kinds=tuple(KINDS[i % len(KINDS)] for i in range(agents)),
        position=np.where(mask, position, 0),
        heading=np.where(valid, heading, 0).astype(np.float32),
        velocity=np.where(mask, velocity, 0).astype(np.float32),
        size=np.where(mask, np.array([4.5, 1.9, 1.6]), 0).astype(np.float32),
        valid=valid,
        map=tuple(lines),
        ego="a1",
    )


def driving(frames: int = 81, speed: float = 10.0, angle: float = 0.5, **changes: Any) -> Scenario:
    """One vehicle, "car", straight on at a constant speed, at (100, -50) at frame 20."""
    way = np.array([np.cos(angle), np.sin(angle)])
    position = np.array([100.0, -50.0]) + speed * 0.1 * (np.arange(frames) - 20)[:, None] * way
    scenario = Scenario(
        name="drive",
        dataset="made",
        agents=("car",),
        kinds=(VEHICLE,),
        position=position[None],
        heading=np.full((1, frames), angle, np.float32),
        velocity=np.broadcast_to((speed * way).astype(np.float32), (1, frames, 2)).copy(),
        size=np.ones((1, frames, 3), np.float32),
        valid=np.ones((1, frames), bool),
    )
    return replace(scenario, **changes)


def moved(scenario: Scenario, angle: float, shift: tuple[float, float]) -> Scenario:
    """The same scene in another frame."""
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    mask = scenario.valid[..., None]
    return replace(
        scenario,
        position=np.where(mask, scenario.position @ rotation + shift, 0),
        heading=np.where(scenario.valid, scenario.heading + angle, 0).astype(np.float32),
        velocity=(scenario.velocity @ rotation).astype(np.float32),
        map=tuple(replace(line, xy=line.xy.astype(np.float64) @ rotation + shift) for line in scenario.map),
    )


# --- pickles ---------------------------------------------------------------------------------------------------------


def record(name: str = "one", frames: int = 81, **metadata: Any) -> dict[str, Any]:
    """A record as the nuScenes converter writes it: float64, `valid` as numbers, sizes as columns, lanes with angles
    for heights. Its ego stands, "car" drives along x at 10 m/s, "walker" walks."""
    tracks = {}
    for row, (agent, kind, speed) in enumerate((("ego", VEHICLE, 0), ("car", VEHICLE, 10), ("walker", PEDESTRIAN, 1))):
        x = np.stack([speed * 0.1 * np.arange(frames), np.full(frames, 5.0 * row), np.zeros(frames)], axis=1)
        state = {
            "position": x,
            "heading": np.zeros(frames),
            "velocity": np.stack([np.full(frames, float(speed)), np.zeros(frames)], axis=1),
            "valid": np.ones(frames),
            **{part: np.ones((frames, 1)) for part in ("length", "width", "height")},
        }
        tracks[agent] = {"type": kind, "state": state, "metadata": {"object_id": agent, "type": kind}}
    lane = np.stack([np.arange(-20, 100.0), np.full(120, 5.0), np.full(120, 0.1)], axis=1)
    return {
        "id": name,
        "version": "made",
        "length": frames,
        "metadata": {
            "scenario_id": name,
            "dataset": "made",
            "sdc_id": "ego",
            "ts": np.arange(frames) * 0.1,
            "sample_rate": 0.1,
            "metadrive_processed": False,
            "coordinate": "right-handed",
            **metadata,
        },
        "tracks": tracks,
        "dynamic_map_states": {},
        "map_features": {"7": {"type": "LANE_SURFACE_STREET", "polyline": [tuple(p) for p in lane.tolist()]}},
    }


def write_pickle(path: Path, content: Any, protocol: int = 4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def equal(one: Scenario, two: Scenario) -> None:
    for field in fields(Scenario):
        a, b = getattr(one, field.name), getattr(two, field.name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype and np.array_equal(a, b), field.name
        elif field.name == "map":
            assert [(m.name, m.kind, m.entries, m.exits) for m in a] == [
                (m.name, m.kind, m.entries, m.exits) for m in b
            ]
            assert all(np.array_equal(m.xy, n.xy) for m, n in zip(a, b, strict=True))
        elif field.name == "lights":
            assert all(m.lane == n.lane and m.states == n.states for m, n in zip(a, b, strict=True))
            assert all(np.array_equal(m.stop, n.stop) for m, n in zip(a, b, strict=True))
        else:
            assert a == b, field.name


def chosen(indices) -> SimpleNamespace:
    indices = np.asarray(indices, dtype=np.int64)
    return SimpleNamespace(indices=indices, weights=np.ones(len(indices), np.int64))
