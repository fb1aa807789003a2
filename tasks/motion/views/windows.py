"""Cuts records into windows of past and future, and says which agents of a window become targets."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from tarot import InputError
from tarot.common import NonNegative, Share, check_options
from tasks.motion.formats import CYCLIST, PEDESTRIAN, RATE, VEHICLE, Scenario, TrafficLight
from tasks.motion.views.profile import Profile


class NoWindow(InputError):
    """No window can be cut from a record. reason: why, in words that all such records share."""

    def __init__(self, scenario: Scenario, reason: str) -> None:
        super().__init__(f"{_where(scenario)} {reason}")
        self.reason = reason


@dataclass(frozen=True)
class TargetFilter:
    """Which agents of a window are to be predicted.

    kinds: none but these become targets.
    only_ego: none but the agent that recorded the scene.
    as_recorded: where the record names agents to predict, it is those, and no other condition but `kinds`, being there
        at the current frame and at one of the future.
    valid_share, moving_distance: where it does not: agents that are seen on this share of the window's frames at
        least, vehicles only if they move so many metres.
    """

    kinds: tuple[str, ...] = (VEHICLE,)
    only_ego: bool = False
    as_recorded: bool = True
    valid_share: Share = 0.5
    moving_distance: NonNegative = 2.0

    def __post_init__(self) -> None:
        check_options(self, "motion targets")
        object.__setattr__(self, "kinds", tuple(self.kinds))
        if unknown := set(self.kinds) - {VEHICLE, PEDESTRIAN, CYCLIST}:
            raise InputError(
                f"motion targets: kinds are {VEHICLE}, {PEDESTRIAN} and {CYCLIST}; these are not: {sorted(unknown)}"
            )


def windows(
    scenario: Scenario, profile: Profile, start: int | None = None, every: float | None = None
) -> list[Scenario]:
    """The record's windows of past + future frames, their current frame at past - 1.

    start: the frame at which the window begins. None: so that the record's current frame is the window's; at 0 where
        the record does not say, or where it has a whole window but too little of a past. Where there are too few frames
        after the start, the window is filled up in front with frames that are not valid, so that the future stays at
        its end. Where it is negative, there are as many such frames in front: a present with less of a past, such as
        Waymo's own at frame 10.
    every: seconds; windows that begin so far apart, as many as the record has. They know their `start`.

    Raises NoWindow, an InputError, where frames are not 0.1 s apart, or the start lies outside the record.
    """
    if abs(scenario.dt - RATE) > 0.05 * RATE:
        raise NoWindow(scenario, f"has a frame every {scenario.dt:g} s; motion windows need one every {RATE} s")
    frames, recorded = profile.frames, scenario.frames
    if every is not None:
        if start is not None or not every > 0:
            raise InputError(f"motion windows: every must be positive seconds ({every}), without a start ({start})")
        step = max(1, round(every / RATE))
        starts = range(0, max(recorded - frames, 0) + 1, step)
        return [replace(_cut(scenario, profile, s, max(0, frames - recorded)), start=s) for s in starts]
    if start is None and scenario.current is not None:
        begin = scenario.current - profile.current
        if begin >= 0 or recorded < frames:
            return [_cut(scenario, profile, max(begin, 0), max(-begin, 0))]
    start = 0 if start is None else start
    if -profile.current <= start < 0:
        return [_cut(scenario, profile, 0, -start)]
    if not 0 <= start < recorded:
        raise NoWindow(scenario, f"has {recorded} frames: no window begins at {start}")
    return [_cut(scenario, profile, start, max(0, frames - (recorded - start)))]


def _where(scenario: Scenario) -> str:
    return f"scenario {scenario.name} of {scenario.dataset}"


def _cut(scenario: Scenario, profile: Profile, start: int, front: int) -> Scenario:
    """A window of the frames from `start` on, after `front` frames that are not valid; more such ones at the end, if
    the record ends there."""
    n = min(profile.frames - front, scenario.frames - start)
    if start == 0 and front == 0 and scenario.frames == profile.frames:
        return replace(scenario, current=profile.current)

    def cut(array: np.ndarray) -> np.ndarray:
        out = np.zeros((len(array), profile.frames, *array.shape[2:]), array.dtype)
        out[:, front : front + n] = array[:, start : start + n]
        return out

    def cut_light(light: TrafficLight) -> TrafficLight:
        behind = profile.frames - front - n
        return replace(light, states=(None,) * front + tuple(light.states[start : start + n]) + (None,) * behind)

    return replace(
        scenario,
        position=cut(scenario.position),
        heading=cut(scenario.heading),
        velocity=cut(scenario.velocity),
        size=cut(scenario.size),
        valid=cut(scenario.valid),
        lights=tuple(cut_light(light) for light in scenario.lights),
        current=profile.current,
    )


def targets_of(window: Scenario, select: TargetFilter | None = None) -> tuple[list[str], Counter[str]]:
    """Names of the agents of a window that become targets, and how many do not, by reason. The record is left alone.

    Share and distance are of the window's own frames. An empty `to_predict` means that the record does not say.
    """
    select = select or TargetFilter()
    skipped: Counter[str] = Counter()
    rows = {name: row for row, name in enumerate(window.agents)}
    now = window.current
    if now is None:
        raise InputError(f"{_where(window)} has no current frame; cut it into windows first")
    requested = select.as_recorded and len(window.to_predict) > 0
    if select.only_ego:
        names = [window.ego] if window.ego is not None else []
        if not names:
            skipped["the record does not say who its ego is"] += 1
    else:
        names = list(window.to_predict if requested else window.agents)
    chosen_by_rule = not (requested or select.only_ego)
    recorded = max(int(window.valid.any(0).sum()), 1)
    chosen = []
    for name in names:
        if name not in rows:
            skipped["is to be predicted, but is not in the record"] += 1
            continue
        row = rows[name]
        valid = window.valid[row]
        if window.kinds[row] not in select.kinds:
            skipped["is of another kind"] += 1
        elif not valid[now]:
            skipped["is not there at the current frame"] += 1
        elif not valid[now + 1 :].any():
            skipped["is not there in the future"] += 1
        elif chosen_by_rule and valid.sum() < select.valid_share * recorded:
            skipped["is there too little of the time"] += 1
        elif chosen_by_rule and window.kinds[row] == VEHICLE and _moved(window, row) < select.moving_distance:
            skipped["does not move"] += 1
        else:
            chosen.append(name)
    return chosen, skipped


def _moved(window: Scenario, row: int) -> float:
    """Metres from each frame at which the agent is there to the next such one, as ScenarioNet's summaries count."""
    seen = window.position[row][window.valid[row]]
    return float(np.linalg.norm(np.diff(seen, axis=0), axis=1).sum())
