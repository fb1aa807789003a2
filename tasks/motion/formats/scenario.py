"""What is known of one traffic scene: a record of every agent, and the map around them. All readers give this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

RATE = 0.1
"""Seconds between two frames of a record."""


VEHICLE, PEDESTRIAN, CYCLIST = "VEHICLE", "PEDESTRIAN", "CYCLIST"


@dataclass(frozen=True)
class MapLine:
    """A lane's centre line, or what else is painted or built on the ground. ScenarioNet's name of the kind of it.

    xy: float64 or float32 [n, 2], metres, in the scenario's frame, in driving order where it is a lane. (A city's frame
        has coordinates of thousands of metres: where a record has float64, it is kept.)
    entries, exits: names of the lanes that lead here, and of those that follow.
    """

    name: str
    kind: str
    xy: np.ndarray
    entries: tuple[str, ...] = ()
    exits: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrafficLight:
    """states: ScenarioNet's name of the light's state at each frame, or None, T of them. stop: float32 [2], metres."""

    lane: str
    stop: np.ndarray
    states: tuple[str | None, ...]


@dataclass(frozen=True)
class Scenario:
    """T frames of A agents, dt seconds apart. Metres, seconds and radians (counterclockwise from +x), in one frame.

    agents, kinds: the agents' names and ScenarioNet types (VEHICLE, PEDESTRIAN, CYCLIST, ...), A of each.
    position: float64 [A, T, 2]; heading: float32 [A, T]; velocity: float32 [A, T, 2];
    size: float32 [A, T, 3], length, width and height; valid: bool [A, T], where the rest means something. It is finite
        there, and zero elsewhere.
    current: the frame from which the future is to be predicted, in 0..T-1; None where the record does not say.
    to_predict: the agents that the record wants predicted; empty where it does not say.
    ego: the agent that recorded the scene, or None.
    tag: what a simulated scene is made to be, for diagnosis only.
    start: the frame of the record at which this window begins, where the record was cut into several windows.
    origin: where (0, 0) lies on the map of the dataset, metres; None where the record does not tell.
    problems: what was wrong with the record and was left out, and how often.
    """

    name: str
    dataset: str
    agents: tuple[str, ...]
    kinds: tuple[str, ...]
    position: np.ndarray
    heading: np.ndarray
    velocity: np.ndarray
    size: np.ndarray
    valid: np.ndarray
    map: tuple[MapLine, ...] = ()
    lights: tuple[TrafficLight, ...] = ()
    current: int | None = None
    to_predict: tuple[str, ...] = ()
    ego: str | None = None
    dt: float = 0.1
    tag: str | None = None
    start: int | None = None
    origin: tuple[float, float] | None = None
    problems: Mapping[str, int] = field(default_factory=dict)

    @property
    def frames(self) -> int:
        return self.valid.shape[1]

    def agent(self, name: str) -> int:
        """Row of an agent; KeyError where there is none of that name."""
        rows: Mapping[str, int] = {agent: row for row, agent in enumerate(self.agents)}
        return rows[name]


def placed(points: ArrayLike, centre: ArrayLike, heading: float) -> np.ndarray:
    """Points [..., 2] of a frame that lies at `centre` [2] and whose x axis points to `heading`, in the frame in which
    it lies; float64."""
    cos, sin = np.cos(float(heading)), np.sin(float(heading))
    return np.asarray(points, np.float64) @ np.array([[cos, sin], [-sin, cos]]) + np.asarray(centre, np.float64)
