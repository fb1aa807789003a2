"""What a target's motion is, for reports by kind: its trajectory type, and how far it is from a constant velocity."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

TYPES = ("stationary", "straight", "straight right", "straight left", "right u-turn", "right", "left u-turn", "left")
UNKNOWN_TYPE = -1
"""Of a target without a future."""
HORIZONS = (20, 40, 60)
"""Frames after the current one at which the difficulty is told: 2, 4 and 6 seconds."""
BUCKETS = (30.0, 60.0)
"""Metres at 6 seconds: easy is less than the first, hard is from the second on."""


@lru_cache(maxsize=64)
def _filter_weights(n: int) -> np.ndarray:
    """Of n positions, float64 [n]: what the filter believes the last one to be is their sum with these weights."""
    position, velocity = np.eye(n)[0], (np.eye(n)[n - 1] - np.eye(n)[0]) / (n - 1)
    p, p_velocity, q, r = 1.0, 1.0, 1e-5, 1e-4
    for i in range(1, n):
        position = position + velocity
        p, p_velocity = p + p_velocity + q, p_velocity + q
        gain = p / (p + r)
        position = position + gain * (np.eye(n)[i] - position)
        p = (1 - gain) * p
        p_velocity *= 1 - p_velocity / (p_velocity + r)
    position.setflags(write=False)
    return position


def difficulty(
    past: np.ndarray,
    past_valid: np.ndarray,
    future: np.ndarray,
    future_valid: np.ndarray,
    horizons: Sequence[int] = HORIZONS,
) -> np.ndarray:
    """How wrong the Kalman filter of constant velocity is at each horizon, in metres; -1 where it cannot be told.

    past: float64 [P, 2], the current frame last; past_valid: bool [P]; future: float64 [F, 2]; future_valid: bool [F];
    all at 10 Hz, in any frame. horizons: frames after the current one.
    """
    result = np.full(len(horizons), -1.0)
    end = len(past) - int(np.argmax(past_valid[::-1])) if past_valid.any() else 0
    gaps = np.flatnonzero(~past_valid[:end])
    history = past[gaps[-1] + 1 if len(gaps) else 0 : end]
    n = len(history)
    if n < 2:
        return result
    velocity = (history[-1] - history[0]) / (n - 1)
    last = _filter_weights(n) @ history
    for i, h in enumerate(horizons):
        if h <= len(future) and future_valid[h - 1]:
            result[i] = np.linalg.norm(last + h * velocity - future[h - 1])
    return result


def bucket(difficulty_at_6s: np.ndarray) -> np.ndarray:
    """easy, medium, hard, or unknown where it is -1: str [n] of float [n]."""
    names = np.array(["easy", "medium", "hard"])[np.digitize(difficulty_at_6s, BUCKETS)]
    return np.where(np.asarray(difficulty_at_6s) < 0, "unknown", names)


def trajectory_type(future: np.ndarray, future_valid: np.ndarray, start_speed: float) -> int:
    """Place in `TYPES` by the rule of the Waymo motion data.

    future: float [F, 4], x, y, vx, vy in the frame in which the target is now at 0 and looks along x; future_valid:
    bool [F], true somewhere; start_speed: now, in m/s.
    """
    seen = np.flatnonzero(future_valid)
    end = future[seen[-1]]
    before = future[seen[-2], :2] if len(seen) > 1 else np.zeros(2)
    (dx, dy), (step_x, step_y) = end[:2], end[:2] - before
    turn = np.arctan2(step_y, step_x)
    if max(start_speed, np.hypot(end[2], end[3])) < 2 and np.hypot(dx, dy) < 5:
        return 0
    if abs(turn) < np.pi / 6:
        return 1 if abs(dy) < 5 else (2 if dy < 0 else 3)
    if turn < 0 and dy < 0:
        return 4 if dx < -5 else 5
    return 6 if dx < -5 else 7
