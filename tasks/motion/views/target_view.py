"""A window as its target sees it: agents, lanes and the future, in the frame of the target's current position."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tarot import InputError
from tasks.motion.formats import Scenario
from tasks.motion.views.lanes import Lines, lines_of, segments_around
from tasks.motion.views.profile import (
    AGENT_CODES,
    LANE_WIDTH,
    OTHER_AGENT,
    STATE_WIDTH,
    Profile,
)
from tasks.motion.views.tags import UNKNOWN_TYPE, difficulty, trajectory_type


@dataclass(frozen=True)
class View:
    """All that is kept of one target; what models are given is made of it by `featurised`.

    agents: float32 [A, P, 8]: x, y, sin and cos of the heading, vx, vy, ax, ay; 0 where not valid: bool [A, P]
    kinds: int8 [A], 1 vehicle, 2 pedestrian, 3 cyclist, 4 other, 0 nobody; ego: bool [A]; size: float32 [A, 3]
    agents_future: float32 [A, F, 2], x, y, of all agents; NaN where not valid
    lane_points: float32 [s, M, 4]; lane_counts: int16 [s]; lane_codes: int8 [s]: see `lanes.Segments`; s of the S
    future: float32 [F, 4]: x, y, vx, vy of the target; 0 where not future_valid: bool [F]
    frame: float64 [3]: x, y and heading of the target in the scenario's frame
    origin: float64 [2]: where that frame's (0, 0) lies on the dataset's map; NaN where that is not known
    difficulty: float64 [3]; type: place in TYPES, or UNKNOWN_TYPE
    """

    agents: np.ndarray
    valid: np.ndarray
    kinds: np.ndarray
    ego: np.ndarray
    size: np.ndarray
    agents_future: np.ndarray
    lane_points: np.ndarray
    lane_counts: np.ndarray
    lane_codes: np.ndarray
    future: np.ndarray
    future_valid: np.ndarray
    frame: np.ndarray
    origin: np.ndarray
    difficulty: np.ndarray
    type: int


def view(window: Scenario, agent: str, profile: Profile, lines: Lines | None = None) -> View:
    """The window in the frame of `agent`, which is valid at the window's current frame.

    lines: `lines_of(window.map, profile)`, where there are several targets on the same map.
    Raises InputError where the window is not of the profile's length or the agent is not there at the current frame.
    """
    where = f"scenario {window.name} of {window.dataset}, agent {agent}"
    if window.frames != profile.frames or window.current != profile.current:
        raise InputError(
            f"{where}: a window of profile {profile.name} has {profile.frames} frames, {profile.current} of them "
            f"before the current one; this has {window.frames} and {window.current}. Cut it with windows() first"
        )
    if agent not in window.agents:
        raise InputError(f"{where}: there is no such agent")
    row, now = window.agent(agent), profile.current
    if not window.valid[row, now]:
        raise InputError(f"{where}: is not there at the current frame")

    centre, heading = window.position[row, now].astype(np.float64), float(window.heading[row, now])
    sin, cos = np.sin(heading), np.cos(heading)
    rotation = np.array([[cos, -sin], [sin, cos]])  # row vectors times it are in the target's frame
    rows = _nearest(window, row, profile)
    past = slice(now % profile.stride, now + 1, profile.stride)
    states, valid = _past(window, rows, past, centre, rotation, heading, profile)

    future = slice(now + profile.stride, None, profile.stride)
    future_valid = window.valid[rows][:, future]
    future_xy = (window.position[rows][:, future] - centre) @ rotation
    target_future = np.concatenate([future_xy[0], window.velocity[row, future] @ rotation], axis=1)
    target_future = np.where(future_valid[0, :, None], target_future, 0).astype(np.float32)
    segments = segments_around(lines or lines_of(window.map, profile), centre, rotation, profile)
    every_frame = np.concatenate(
        [(window.position[row, now + 1 :] - centre) @ rotation, window.velocity[row, now + 1 :] @ rotation], axis=1
    )
    later = window.valid[row, now + 1 :]
    speed = float(np.linalg.norm(window.velocity[row, now]))

    n, a = len(rows), profile.agents
    return View(
        agents=_padded(states, a),
        valid=_padded(valid, a),
        kinds=_padded(np.array([AGENT_CODES.get(window.kinds[r], OTHER_AGENT) for r in rows], np.int8), a),
        ego=_padded(np.array([window.agents[r] == window.ego for r in rows], bool), a),
        size=_padded(_sizes(window, rows, now), a),
        agents_future=np.concatenate(
            [
                np.where(future_valid[..., None], future_xy, np.nan).astype(np.float32),
                np.full((a - n, profile.horizon, 2), np.nan, np.float32),
            ]
        ),
        lane_points=segments.points,
        lane_counts=segments.counts,
        lane_codes=segments.codes,
        future=target_future,
        future_valid=future_valid[0],
        frame=np.array([*centre, heading]),
        origin=np.array((np.nan, np.nan) if window.origin is None else window.origin, np.float64),
        difficulty=difficulty(
            window.position[row, : now + 1].astype(np.float64),
            window.valid[row, : now + 1],
            window.position[row, now + 1 :].astype(np.float64),
            later,
        ),
        type=trajectory_type(every_frame, later, speed) if later.any() else UNKNOWN_TYPE,
    )


def _nearest(window: Scenario, row: int, profile: Profile) -> np.ndarray:
    """Rows of the agents to show: the target, then those that are nearest to it now, then those that are not there now
    but were before."""
    now = profile.current
    distance = np.linalg.norm(window.position[:, now] - window.position[row, now], axis=1)
    distance = np.where(window.valid[:, now], distance, 1e10)
    distance[row] = -1
    order = np.argsort(distance, kind="stable")
    return order[window.valid[order, : now + 1].any(1)][: profile.agents]


def _past(
    window: Scenario,
    rows: np.ndarray,
    past: slice,
    centre: np.ndarray,
    rotation: np.ndarray,
    heading: float,
    profile: Profile,
) -> tuple[np.ndarray, np.ndarray]:
    """States float32 [n, P, 8] and valid bool [n, P]."""
    valid = window.valid[rows][:, past]
    angle = window.heading[rows][:, past] - heading
    velocity = window.velocity[rows][:, past] @ rotation
    acceleration = np.zeros_like(velocity)
    if profile.steps > 1:
        # (v_t - v_{t-1}) / dt; where v_{t-1} is not known, as that of the next step, where that is known
        difference = np.diff(velocity, axis=1) / profile.seconds
        known = valid[:, 1:] & valid[:, :-1]
        acceleration[:, 1:] = np.where(known[..., None], difference, 0)
        unknown = valid.copy()
        unknown[:, 1:] &= ~known
        copied = unknown[:, :-1] & known
        acceleration[:, :-1][copied] = difference[copied]
    position = (window.position[rows][:, past] - centre) @ rotation
    turned = np.stack([np.sin(angle), np.cos(angle)], axis=2)
    states = np.concatenate([position, turned, velocity, acceleration], axis=2)
    return np.where(valid[..., None], states, 0).astype(np.float32), valid


def _sizes(window: Scenario, rows: np.ndarray, now: int) -> np.ndarray:
    """float32 [n, 3]: at the last frame up to now at which an agent is there."""
    last = now - np.argmax(window.valid[rows, now::-1], axis=1)
    return window.size[rows, last].astype(np.float32)


def _padded(array: np.ndarray, n: int) -> np.ndarray:
    out = np.zeros((n, *array.shape[1:]), array.dtype)
    out[: len(array)] = array
    return out


# --- what models are given -------------------------------------------------------------------------------------------


SHOWN = tuple(
    name for name in View.__dataclass_fields__ if name not in ("agents_future", "frame", "origin", "difficulty", "type")
)
"""Of a view, what models are given something of."""


def featurised(profile: Profile, kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What models take, made of the `SHOWN` parts of the views of B targets, stacked, on their device (s <= S pieces of
    the map). It is many times as large as they are, so it is made when it is needed, and where.

    agents float32 [B, A, P, 18 + P], the target first: x, y, z = 0; length, width, height (0 without `profile.sizes`);
        one-hot vehicle, pedestrian, cyclist; is the target; is the ego; one-hot of the step; its time in seconds; sin,
        cos of the heading; vx, vy; ax, ay. All 0 where not agents_valid bool [B, A, P].
    lanes float32 [B, S, M, 29]: x, y, z = 0; direction; the point before it (the first: itself); one-hot of the code.
        All 0 where not lanes_valid bool [B, S, M].
    future float32 [B, F, 4]: x, y, vx, vy; 0 where not future_valid bool [B, F].
    """
    states, valid, points = kept["agents"], kept["valid"], kept["lane_points"]
    device, (b, a, p) = states.device, valid.shape
    agents = torch.zeros((b, a, p, profile.agent_width), device=device)
    agents[..., 0:2] = states[..., 0:2]
    if profile.sizes:
        agents[..., 3:6] = kept["size"][:, :, None]
    agents[..., 6:9] = (kept["kinds"][..., None] == torch.tensor([1, 2, 3], device=device))[:, :, None].float()
    agents[:, 0, :, 9] = 1
    agents[..., 10] = kept["ego"][:, :, None].float()
    agents[..., 11 : 11 + p] = torch.eye(p, device=device)
    agents[..., 11 + p] = profile.seconds * torch.arange(p, device=device)
    agents[..., 12 + p :] = states[..., 2:STATE_WIDTH]
    agents.mul_(valid[..., None])

    s, m = points.shape[1:3]
    lanes = torch.zeros((b, profile.segments, m, LANE_WIDTH), device=device)
    lanes_valid = torch.zeros((b, profile.segments, m), dtype=torch.bool, device=device)
    lanes_valid[:, :s] = torch.arange(m, device=device) < kept["lane_counts"][..., None]
    used = lanes[:, :s]
    used[..., 0:2] = points[..., 0:2]
    used[..., 3:5] = points[..., 2:4]
    used[:, :, 0, 6:8] = points[:, :, 0, 0:2]
    used[:, :, 1:, 6:8] = points[:, :, :-1, 0:2]
    used[..., 9:].scatter_(3, kept["lane_codes"].long()[:, :, None, None].expand(b, s, m, 1), 1.0)
    used.mul_(lanes_valid[:, :s, :, None])
    return {
        "agents": agents,
        "agents_valid": valid,
        "lanes": lanes,
        "lanes_valid": lanes_valid,
        "future": kept["future"],
        "future_valid": kept["future_valid"],
    }


def featurise(window: Scenario, agent: str, profile: Profile, lines: Lines | None = None) -> dict[str, np.ndarray]:
    """What models are given of one target, without B in front: see `featurised`; errors as of `view`."""
    seen = view(window, agent, profile, lines)
    batch = featurised(profile, {name: torch.from_numpy(getattr(seen, name)[None]) for name in SHOWN})
    return {name: tensor[0].numpy() for name, tensor in batch.items()}
