"""Drivers of simulated vehicles: how fast they like to go, whom they follow, and when they wait or change lanes.

Following is the intelligent driver model of Treiber, Hennecke and Helbing (Phys. Rev. E 62, 2000).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tasks.motion.simulator.geometry import STEP, left_of
from tasks.motion.simulator.roads import GO, LANE, Road, phase_state

TICK = 0.2  # seconds between two decisions
HARD, SOFT = 6.0, 2.5  # m/s^2: the most that brakes give, and what is given for others' lane changes


@dataclass(frozen=True)
class Style:
    """Ranges that each driver's habits are drawn from.

    speed: share of the limit; push, brake: m/s^2; headway: seconds; sideways: m/s^2 in curves; patience: seconds that
    must be left before another one comes; changes: share of drivers who want another lane.
    """

    speed: tuple[float, float]
    push: tuple[float, float]
    brake: tuple[float, float]
    headway: tuple[float, float]
    sideways: tuple[float, float]
    patience: tuple[float, float]
    changes: float


CALM = Style((0.85, 1.0), (1.0, 1.6), (1.5, 2.2), (1.4, 2.0), (1.6, 2.2), (3.5, 4.5), 0.25)
SPORTY = Style((1.1, 1.35), (2.2, 3.2), (3.0, 4.0), (0.6, 1.0), (3.2, 4.2), (1.2, 2.0), 0.6)


@dataclass(frozen=True)
class Habits:
    """One number of each driver, [A]."""

    speed: np.ndarray
    push: np.ndarray
    brake: np.ndarray
    headway: np.ndarray
    sideways: np.ndarray
    patience: np.ndarray


def draw_habits(style: Style, count: int, rng: np.random.Generator) -> Habits:
    names = ("speed", "push", "brake", "headway", "sideways", "patience")

    def drawn(low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high, count)

    return Habits(**{name: drawn(*getattr(style, name)) for name in names})


def free_speed(road: Road, route: int, habits: Habits, driver: int) -> np.ndarray:
    """What a driver would go on an empty road, m/s at every point of the path: slow enough for each curve in time."""
    path = road.routes[route].path
    speed = np.minimum(
        path.limit * habits.speed[driver], np.sqrt(habits.sideways[driver] / np.maximum(np.abs(path.curvature), 1e-4))
    )
    # v(s)^2 <= v(s')^2 + 2 b (s' - s) for every s' ahead: one running minimum from the end
    room = 2 * 0.8 * habits.brake[driver] * STEP * np.arange(len(speed))
    squared = np.minimum.accumulate((speed**2 + room)[::-1])[::-1] - room
    if road.routes[route].parks:
        squared = np.minimum(squared, room[::-1] / 2)
    return np.sqrt(np.maximum(squared, 0.04))


class Tables:
    """What every vehicle's path says, padded to the longest, of A vehicles at n points.

    xy, left: [A, n, 2]; heading, curvature, free (speed, m/s): [A, n]; ends, backwards, parks: [A], of `Path`, `Route`.
    """

    def __init__(self, road: Road, routes: np.ndarray, habits: Habits) -> None:
        paths = [road.routes[route].path for route in routes]
        longest = max(len(path.xy) for path in paths)

        def padded(arrays: list[np.ndarray]) -> np.ndarray:
            out = np.empty((len(arrays), longest, *arrays[0].shape[1:]))
            for row, array in zip(out, arrays, strict=True):
                row[: len(array)], row[len(array) :] = array, array[-1]
            return out

        self.xy = padded([path.xy for path in paths])
        self.heading = padded([path.heading for path in paths])
        self.curvature = padded([path.curvature for path in paths])
        self.left = left_of(np.stack([np.cos(self.heading), np.sin(self.heading)], -1))
        self.free = padded([free_speed(road, route, habits, i) for i, route in enumerate(routes)])
        self.ends = np.array([path.length for path in paths])
        self.parks = np.array([road.routes[route].parks for route in routes])
        self.backwards = np.array([path.backwards for path in paths])
        self.rows = np.arange(len(paths))
        self.seen = np.concatenate([self.xy, self.left], 2)
        self.driven = np.concatenate([self.seen, self.heading[..., None], self.free[..., None]], 2)

    def at(self, table: np.ndarray, s: np.ndarray) -> np.ndarray:
        """Values of a table at s [A] or [A, H], between points in a line."""
        place = np.minimum(np.maximum(s / STEP, 0), table.shape[1] - 1.000001)
        low = place.astype(np.int64)
        rows = self.rows if s.ndim == 1 else self.rows[:, None]
        part = place - low
        if table.ndim == 3:
            part = part[..., None]
        before = table[rows, low]
        return before + (table[rows, low + 1] - before) * part

    def near(self, table: np.ndarray, s: np.ndarray) -> np.ndarray:
        """The same at the nearest point, s [A, H] from 0 on."""
        place = np.minimum((s / STEP + 0.5).astype(np.int64), table.shape[1] - 1)
        return table[self.rows[:, None], place]

    def here(self, s: np.ndarray, spare: np.ndarray | float = 0.5) -> np.ndarray:
        """bool, s [A]: the vehicle has not left its route; one that parks never does."""
        return (s < self.ends - spare) | self.parks


@dataclass(frozen=True)
class Start:
    """Where vehicles begin, [A] each: route, s (metres along it), lane (beside the route's own), length (metres) and
    waits (seconds until it moves)."""

    route: np.ndarray
    s: np.ndarray
    lane: np.ndarray
    length: np.ndarray
    waits: np.ndarray


@dataclass(frozen=True)
class Drive:
    """The ride, at every tick: s and v [A, K]; aside [A, K], metres to the left of the route, and its rate, m/s."""

    s: np.ndarray
    v: np.ndarray
    aside: np.ndarray
    aside_rate: np.ndarray


class _Waiting:
    """Who waits at the stop lines, and for whom."""

    def __init__(self, road: Road, start: Start, habits: Habits, clock: float) -> None:
        routes = [road.routes[route] for route in start.route]
        self.stop = np.array([np.nan if route.stop is None else route.stop for route in routes])
        self.light = np.array([-1 if route.light is None else route.light for route in routes])
        self.lit = bool((self.light >= 0).any())
        self.clock, self.patience = clock, habits.patience
        self.yields = np.zeros((len(road.conflicts), len(routes)), bool)
        self.passed = np.full(self.yields.shape, np.nan)
        for c, conflict in enumerate(road.conflicts):
            self.yields[c] = np.isin(start.route, conflict.yields)
            for i in np.flatnonzero(np.isin(start.route, conflict.first)):
                path = routes[i].path
                self.passed[c, i] = np.hypot(*(path.xy - conflict.point).T).argmin() * STEP

    def blocked(self, s: np.ndarray, v: np.ndarray, here: np.ndarray, seconds: float) -> np.ndarray:
        """bool [A]: the vehicle must not pass its stop line now."""
        red = [phase for phase in (0, 1) if phase_state(phase, seconds + self.clock) != GO]
        stopped = np.isin(self.light, red) if self.lit else np.zeros(len(s), bool)
        if not len(self.yields):
            return stopped
        left = self.passed - s
        seconds_left = np.where((left > -5) & here, left / np.maximum(v, 1.5), np.inf)  # never true of NaN
        busy = self.yields & (seconds_left.min(1)[:, None] < self.patience)
        return stopped | busy.any(0)


def drive(road: Road, start: Start, habits: Habits, style: Style, ticks: int, clock: float,
          rng: np.random.Generator) -> tuple[Drive, Tables]:  # fmt: skip
    """Let everybody go for `ticks` ticks. clock: seconds of the traffic lights' cycle that have passed at the start."""
    tables, waiting = Tables(road, start.route, habits), _Waiting(road, start, habits, clock)
    lanes, follow = _LaneChanges(road, start, style, rng), _Following(tables, start, habits, road.parallel > 1)
    joins = _Joining(road, start) if any(route.merge is not None for route in road.routes) else None
    s, acceleration = start.s.copy(), np.zeros(len(start.s))
    v = np.where(start.waits > 0, 0, tables.at(tables.free, s) * 0.95)
    ride = {name: np.zeros((len(s), ticks + 1)) for name in ("s", "v", "aside", "rate")}
    for tick in range(ticks + 1):
        seconds, here = tick * TICK, tables.here(s)
        aside, rate = lanes.aside(seconds)
        for name, value in (("s", s), ("v", v), ("aside", aside), ("rate", rate)):
            ride[name][:, tick] = value
        push, wanted = follow.push(s, v, here, aside, lanes.wanted)
        if joins is not None:
            polite = follow.idm(joins.gaps(s, here, lanes.wanted) - follow.half, v, v[None], wanted)
            push = np.minimum(push, np.maximum(polite, -SOFT))
        line = waiting.stop - s - start.length / 2
        waits = waiting.blocked(s, v, here, seconds) & (line > v**2 / 9 - 0.5) & (line > -1)
        stopping = follow.idm(np.where(waits, line, np.inf)[:, None], v, np.zeros((1, 1)), wanted)
        push = np.minimum(push, stopping)
        soon = tables.at(tables.free, s + v * TICK)
        push = np.where(v > soon, np.minimum(push, (soon - v) / TICK), push)  # a curve is not taken too fast
        lanes.decide(seconds, s if joins is None else s - joins.merges, v, start.route > 0, here)
        wished = np.minimum(np.maximum(push, -HARD), habits.push)
        acceleration += np.minimum(np.maximum(wished - acceleration, -2.5), 1.2)
        following = np.maximum(v + acceleration * TICK, 0)
        following = np.where((seconds < start.waits) | (s > tables.ends - 0.1), 0, following)
        acceleration = np.where(following > 0, acceleration, np.maximum(acceleration, 0))
        s, v = np.minimum(s + (v + following) / 2 * TICK, tables.ends), following
    return Drive(ride["s"], ride["v"], ride["aside"], ride["rate"]), tables


class _Following:
    """Whom everybody follows: the nearest who is, or would come to be, on the own way."""

    def __init__(self, tables: Tables, start: Start, habits: Habits, fast: bool) -> None:
        self.tables, self.fast = tables, fast
        self.ahead = np.arange(1.5, 72, 2.5) if fast else np.arange(1.5, 42, 1.5)
        self.others = ~np.eye(len(start.s), dtype=bool)
        self.half = (start.length[:, None] + start.length[None]) / 2
        self.most, self.headway = habits.push[:, None], habits.headway[:, None]
        self.twice_root = 2 * np.sqrt(habits.push * habits.brake)[:, None]

    def push(
        self, s: np.ndarray, v: np.ndarray, here: np.ndarray, aside: np.ndarray, wanted_lane: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(acceleration, free speed), [A] each."""
        now = self.tables.at(self.tables.driven, s)
        heading = now[:, 4] + np.where(s < self.tables.backwards, np.pi, 0)
        facing = np.stack([np.cos(heading), np.sin(heading)], -1)
        way = s[:, None] + self.ahead
        seen = self.tables.near(self.tables.seen if self.fast else self.tables.xy, way)
        ends = way < self.tables.ends[:, None] + 3
        if self.fast:  # both where the vehicle is, and in the lane that it moves to
            place = now[:, :2] + aside[:, None] * now[:, 2:4]
            gap = self._gaps(seen[..., :2] + aside[:, None, None] * seen[..., 2:], place, ends, here)
            if (moving := wanted_lane * LANE != aside).any():
                lane = seen[..., :2] + (wanted_lane * LANE)[:, None, None] * seen[..., 2:]
                gap = np.minimum(gap, self._gaps(lane, place, ends & moving[:, None], here))
        else:
            gap = self._gaps(seen, now[:, :2], ends, here)
        along = np.maximum(facing @ (facing * v[:, None]).T, 0)
        return self.idm(gap - self.half, v, along, now[:, 5]), now[:, 5]

    def _gaps(self, way: np.ndarray, place: np.ndarray, counts: np.ndarray, here: np.ndarray) -> np.ndarray:
        """How far ahead each one's way [A, H, 2] comes by each other's place [A, 2], metres [A, A]; inf: it does not.
        counts [A, H]: which points of a way do."""
        across, up = way[:, None, :, 0] - place[None, :, None, 0], way[:, None, :, 1] - place[None, :, None, 1]
        close = across * across + up * up < 2.15**2
        close &= counts[:, None]
        first = close.argmax(2)
        found = np.take_along_axis(close, first[..., None], 2)[..., 0] & self.others & here
        return np.where(found, self.ahead[first] + 0.7, np.inf)

    def idm(self, gap: np.ndarray, v: np.ndarray, leader: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """m/s^2 [A], for the leader that asks for the least; gap and leader's speed [A, any number]."""
        v = v[:, None]
        desired = 2 + np.maximum(0, v * self.headway + v * (v - leader) / self.twice_root)
        near = (desired / np.maximum(gap, 0.3)).max(1)
        free = (v[:, 0] / np.maximum(wanted, 0.3)) ** 2
        return self.most[:, 0] * (1 - free * free - near * near)


class _Joining:
    """Those on a ramp and those in the lane that it joins see each other as if they were in one lane already."""

    def __init__(self, road: Road, start: Start) -> None:
        self.merges = np.array([road.routes[route].merge for route in start.route])
        self.on_ramp = start.route > 0
        self.differ = self.on_ramp[:, None] != self.on_ramp[None]

    def gaps(self, s: np.ndarray, here: np.ndarray, wanted_lane: np.ndarray) -> np.ndarray:
        """From everybody to everybody of the other kind in front, metres [A, A]; inf: there is none."""
        left = s - self.merges
        level = (left > -70) & ((wanted_lane == 0) | self.on_ramp) & here
        between = left[None] - left[:, None]
        return np.where((between > 0) & level[:, None] & level[None] & self.differ, between, np.inf)


class _LaneChanges:
    """Who moves to which lane when: quintic in time, begun only where there is room among those in the new lane."""

    def __init__(self, road: Road, start: Start, style: Style, rng: np.random.Generator) -> None:
        count = len(start.s)
        self.wanted, self.last = start.lane.astype(np.int64), start.lane.astype(np.int64)
        self.begun, self.takes = np.full(count, -np.inf), rng.uniform(3.5, 5.5, count)
        self.when = np.where(rng.random(count) < style.changes, rng.uniform(2.0, 11.0, count), np.inf)
        self.turn = rng.choice([-1, 1], count)
        if road.parallel == 1:
            self.when[:] = np.inf
        self.parallel, self.length, self.still = road.parallel, start.length, np.zeros(count)

    def aside(self, seconds: float) -> tuple[np.ndarray, np.ndarray]:
        """Metres to the left of the route, and the rate of it, m/s, [A]."""
        if self.parallel == 1:
            return self.still, self.still
        t = np.clip((seconds - self.begun) / self.takes, 0, 1)
        across = (self.wanted - self.last) * LANE
        share, rate = t**3 * (10 - 15 * t + 6 * t**2), 30 * t**2 * (1 - t) ** 2 / self.takes
        return self.last * LANE + across * share, across * rate

    def decide(self, seconds: float, s: np.ndarray, v: np.ndarray, joining: np.ndarray, here: np.ndarray) -> None:
        for i in np.flatnonzero((seconds >= self.when) & here & ~joining):
            lane = self.wanted[i] + self.turn[i]
            if not 0 <= lane < self.parallel:
                self.turn[i] *= -1
                continue
            between = s - s[i]
            inside = ((self.wanted == lane) | (self.last == lane) & (seconds < self.begun + self.takes)) & here
            inside[i] = False
            room = (self.length + self.length[i]) / 2 + 4
            front = room + 0.5 * v[i] + 2 * np.maximum(v[i] - v, 0)
            rear = room + 0.4 * v + 3 * np.maximum(v - v[i], 0)
            if not np.any(inside & (between < front) & (between > -rear)):
                self.last[i], self.wanted[i] = self.wanted[i], lane
                self.begun[i], self.when[i] = seconds, np.inf
