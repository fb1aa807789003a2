"""Curves that simulated roads are made of: points float64 [n, 2] in metres, in driving order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STEP = 0.5  # metres between the points of a path


def unit(angle: float) -> np.ndarray:
    return np.array([np.cos(angle), np.sin(angle)])


def left_of(direction: np.ndarray) -> np.ndarray:
    """A quarter turn to the left of each direction, [..., 2]."""
    return np.stack([-direction[..., 1], direction[..., 0]], -1)


def line(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    return resampled(np.array([start, end], dtype=np.float64), 1.0)


def arc(centre: np.ndarray, radius: float, start: float, end: float) -> np.ndarray:
    """From angle `start` to `end`, counterclockwise where `end` is the greater."""
    count = max(int(np.ceil(abs(end - start) * radius)), 2)
    angles = np.linspace(start, end, count + 1)
    return centre + radius * np.stack([np.cos(angles), np.sin(angles)], 1)


def curve(start: np.ndarray, start_direction: np.ndarray, end: np.ndarray, end_direction: np.ndarray) -> np.ndarray:
    """A cubic from one point and unit direction to another (Hermite's, with tangents as long as the way)."""
    reach = float(np.linalg.norm(end - start))
    t = np.linspace(0, 1, 65)[:, None]
    points = (
        (2 * t**3 - 3 * t**2 + 1) * start
        + (t**3 - 2 * t**2 + t) * reach * start_direction
        + (3 * t**2 - 2 * t**3) * end
        + (t**3 - t**2) * reach * end_direction
    )
    return resampled(points, 1.0)


def lengths(points: np.ndarray) -> np.ndarray:
    """Way from the first point to each, [n]."""
    return np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])


def resampled(points: np.ndarray, step: float) -> np.ndarray:
    """Points that are `step` apart, or a little less, so that both ends stay where they are."""
    along = lengths(points)
    wanted = np.linspace(0, along[-1], max(int(np.ceil(along[-1] / step - 1e-9)), 1) + 1)
    return np.stack([np.interp(wanted, along, points[:, i]) for i in range(2)], 1)


def joined(parts: list[np.ndarray]) -> np.ndarray:
    """One curve of several, each of which begins where the one before it ends."""
    return np.concatenate([parts[0]] + [part[1:] for part in parts[1:]])


def shifted(points: np.ndarray, left: float) -> np.ndarray:
    """The curve that runs `left` metres to the left of this one."""
    tangent = np.gradient(points, axis=0)
    return points + left * left_of(tangent / np.linalg.norm(tangent, axis=1, keepdims=True))


@dataclass(frozen=True)
class Path:
    """What a vehicle follows, sampled every STEP metres (or a little less) from its start.

    xy [n, 2]; heading [n], the vehicle's, without jumps; curvature [n], positive to the left; limit [n], m/s.
    backwards: until where the vehicle moves in reverse, metres; 0 of all but those that back out of a stall.
    """

    xy: np.ndarray
    heading: np.ndarray
    curvature: np.ndarray
    limit: np.ndarray
    backwards: float = 0.0

    @property
    def length(self) -> float:
        return (len(self.xy) - 1) * STEP


def path_of(parts: list[np.ndarray], limits: list[float], backwards: np.ndarray | None = None) -> Path:
    """Through curves that follow each other, each with a speed limit; `backwards` comes first, driven in reverse."""
    ends = np.cumsum([lengths(part)[-1] for part in parts])
    xy = resampled(joined(parts), STEP)
    heading = _heading(xy)
    limit = np.array(limits)[np.minimum(np.searchsorted(ends, np.arange(len(xy)) * STEP), len(limits) - 1)]
    cusp = 0.0
    if backwards is not None:
        reverse = resampled(backwards, STEP)
        behind = _heading(reverse) + np.pi
        turns = np.round((behind[-1] - heading[0]) / (2 * np.pi))
        heading = np.concatenate([behind - turns * 2 * np.pi, heading[1:]])
        xy = np.concatenate([reverse, xy[1:]])
        limit = np.concatenate([np.full(len(reverse), 1.5), limit[1:]])
        limit[len(reverse) - 1] = 0.2
        cusp = (len(reverse) - 1) * STEP
    bend = np.convolve(np.pad(np.gradient(heading, STEP), 3, mode="edge"), np.full(7, 1 / 7), mode="valid")
    return Path(xy, heading, bend, limit, cusp)


def _heading(xy: np.ndarray) -> np.ndarray:
    tangent = np.gradient(xy, axis=0)
    return np.unwrap(np.arctan2(tangent[:, 1], tangent[:, 0]))


def nearest_on(path: Path, point: np.ndarray) -> tuple[float, float]:
    """Where on a path a point is passed, in metres from its start, and how far away."""
    distances = np.hypot(*(path.xy - point).T)
    place = int(distances.argmin())
    return place * STEP, float(distances[place])
