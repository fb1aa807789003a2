"""Roads of simulated scenes: roundabouts, crossings and highways. Traffic drives on the right."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tasks.motion.simulator.geometry import (
    Path,
    arc,
    curve,
    joined,
    left_of,
    line,
    nearest_on,
    path_of,
    resampled,
    shifted,
    unit,
)

SURFACE, FREEWAY = "LANE_SURFACE_STREET", "LANE_FREEWAY"
LANE = 3.7  # width of a highway's lane, metres
SIDE = 1.9  # from a street's middle to the middle of its lanes, metres
CYCLE = 24.0  # seconds of a traffic light: a green, a yellow, an all red, then the same for the other street
GREEN, YELLOW = 9.0, 2.0
GO, CAUTION, STOP = "LANE_STATE_GO", "LANE_STATE_CAUTION", "LANE_STATE_STOP"


@dataclass(frozen=True)
class Lane:
    kind: str
    xy: np.ndarray  # [n, 2], about 1 m apart


@dataclass(frozen=True)
class Route:
    """lanes: names, in the order in which they are driven. stop: where its vehicles wait, metres along the path.

    light: which phase of the traffic lights lets them go, 0 or 1. merge: where it is one with another's lane.
    parks: its vehicles stop at its end and stay; others leave the scene there.
    """

    path: Path
    lanes: tuple[str, ...]
    stop: float | None = None
    light: int | None = None
    merge: float | None = None
    parks: bool = False


@dataclass(frozen=True)
class Conflict:
    """A place that the vehicles of some routes leave to those of others. yields, first: numbers of routes."""

    point: np.ndarray
    yields: tuple[int, ...]
    first: tuple[int, ...]


@dataclass(frozen=True)
class Road:
    """parallel: how many lanes stand beside the routes' own, LANE metres apart, to change to.

    centre, reach: where what matters of the scene happens. stalls [n, 3]: x, y and heading of cars that are parked.
    """

    lanes: dict[str, Lane]
    routes: tuple[Route, ...]
    conflicts: tuple[Conflict, ...] = ()
    lights: dict[str, int] = field(default_factory=dict)  # lane that ends at a stop line -> phase
    parallel: int = 1
    centre: tuple[float, float] = (0.0, 0.0)
    reach: float = np.inf
    stalls: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))


def phase_state(phase: int, seconds: float) -> str:
    """What a light shows."""
    passed = (seconds - phase * CYCLE / 2) % CYCLE
    return GO if passed < GREEN else CAUTION if passed < GREEN + YELLOW else STOP


def _arm(angle: float, begins: float, bend: float, long: float) -> tuple[np.ndarray, np.ndarray]:
    """(lane that comes in, lane that goes out) of a street that leaves the origin at `angle`, from `begins` metres."""
    away = np.linspace(0, long, int(long) + 1)[:, None]
    axis = unit(angle) * (begins + away) + left_of(unit(angle)) * bend * away**2 / 2
    return resampled(shifted(axis, SIDE)[::-1], 1.0), resampled(shifted(axis, -SIDE), 1.0)


def _turned(points: np.ndarray, end: bool) -> np.ndarray:
    step = points[-1] - points[-2] if end else points[1] - points[0]
    return step / np.linalg.norm(step)


def roundabout(rng: np.random.Generator, radius: tuple[float, float], limit: float = 13.9) -> Road:
    ring = float(rng.uniform(*radius))
    arms = int(rng.choice([3, 4, 4, 5]))
    theta = 2 * np.pi * np.arange(arms) / arms + rng.uniform(-0.2, 0.2, arms)
    delta = min(0.42, 5.5 / ring)
    lanes: dict[str, np.ndarray] = {}
    slow = limit * 0.75
    for k in range(arms):
        after = theta[(k + 1) % arms] + (2 * np.pi if k == arms - 1 else 0)
        entry, leave = theta[k] + delta, theta[k] - delta
        into, out = _arm(theta[k], ring + float(rng.uniform(6, 9)), float(rng.uniform(-0.006, 0.006)), 75)
        lanes |= {
            f"in{k}": into,
            f"out{k}": out,
            f"mouth{k}": arc(np.zeros(2), ring, leave, entry),
            f"ring{k}": arc(np.zeros(2), ring, entry, after - delta),
            f"entry{k}": curve(into[-1], _turned(into, True), ring * unit(entry), left_of(unit(entry))),
            f"exit{k}": curve(ring * unit(leave), left_of(unit(leave)), out[0], _turned(out, False)),
        }
    routes, ends = [], []
    for k in range(arms):
        for around in range(1, arms + 1):  # the last one turns back
            names = [f"in{k}", f"entry{k}"]
            for j in range(around):
                names += [f"ring{(k + j) % arms}"] + ([f"mouth{(k + j + 1) % arms}"] if j < around - 1 else [])
            names += [f"exit{(k + around) % arms}", f"out{(k + around) % arms}"]
            limits = [limit if name.startswith(("in", "out")) else slow for name in names]
            routes.append(_route(lanes, names, limits, stop_after=1))
            ends.append((k, around))
    conflicts = [
        Conflict(
            ring * unit(theta[k] + delta * place),
            tuple(i for i, (start, _) in enumerate(ends) if start == k),
            tuple(i for i, route in enumerate(routes) if f"mouth{k}" in route.lanes),
        )
        for k in range(arms)
        for place in (1.0, -0.2)
    ]
    kinds = {name: Lane(SURFACE, xy) for name, xy in lanes.items()}
    return Road(kinds, tuple(routes), tuple(conflicts), reach=ring + 14)


def _route(
    lanes: dict[str, np.ndarray],
    names: list[str],
    limits: list[float],
    *,
    stop_after: int | None = None,
    light: int | None = None,
) -> Route:
    parts = [lanes[name] for name in names]
    path = path_of(parts, limits)
    stop = None if stop_after is None else nearest_on(path, parts[stop_after][0])[0]
    return Route(path, tuple(names), stop, light)


def crossing(rng: np.random.Generator, lights: bool, limit: float = 13.9) -> Road:
    box = float(rng.uniform(10, 14))
    theta = np.pi / 2 * np.arange(4) + rng.uniform(-0.2, 0.2, 4)
    lanes = {}
    for k in range(4):
        lanes[f"in{k}"], lanes[f"out{k}"] = _arm(theta[k], box, float(rng.uniform(-0.004, 0.004)), 75)
    routes, moves = [], []
    for k in range(4):
        for turn in (1, 2, 3):  # to the right, straight on, to the left
            into, out, name = lanes[f"in{k}"], lanes[f"out{(k + turn) % 4}"], f"turn{k}-{(k + turn) % 4}"
            lanes[name] = curve(into[-1], _turned(into, True), out[0], _turned(out, False))
            names = [f"in{k}", name, f"out{(k + turn) % 4}"]
            routes.append(
                _route(lanes, names, [limit, limit * 0.8, limit], stop_after=1, light=k % 2 if lights else None)
            )
            moves.append((k, turn))
    conflicts = []
    for i, (a, turn_a) in enumerate(moves):
        for j, (b, turn_b) in enumerate(moves):
            oncoming = turn_a == 3 and b == (a + 2) % 4 and turn_b != 3
            minor = not lights and a % 2 == 1 and b % 2 == 0
            if oncoming or minor:
                one, other = lanes[routes[i].lanes[1]], lanes[routes[j].lanes[1]]
                apart = np.hypot(*(one[:, None] - other[None]).transpose(2, 0, 1))
                if apart.min() < 1.5:
                    conflicts.append(Conflict(other[apart.min(0).argmin()], (i,), (j,)))
    return Road(
        {name: Lane(SURFACE, xy) for name, xy in lanes.items()},
        tuple(routes),
        tuple(conflicts),
        {f"in{k}": k % 2 for k in range(4)} if lights else {},
        reach=box + 12,
    )


def highway(rng: np.random.Generator, limit: float, ramp: bool, long: float = 640.0) -> Road:
    """Its routes follow the right-most lane, and the ramp that joins it; the other lanes are beside them."""
    count = int(rng.integers(2, 4))
    radius = float(rng.uniform(250, 900) * rng.choice([-1, 1]))
    along = np.linspace(0, long, int(long) + 1)
    start = float(rng.uniform(-0.1, 0.1))
    heading = start + along / radius
    step = np.stack([np.cos(heading), np.sin(heading)], 1)
    right = np.concatenate([np.zeros((1, 2)), np.cumsum((step[1:] + step[:-1]) / 2, 0)])
    lanes = {f"lane{k}": Lane(FREEWAY, shifted(right, k * LANE)) for k in range(1, count)}
    if not ramp:
        lanes["lane0"] = Lane(FREEWAY, right)
        return Road(lanes, (Route(path_of([right], [limit]), ("lane0",)),), parallel=count)
    joins = int(rng.uniform(240, 300))
    before, after = right[: joins + 1], right[joins:]
    begins, aside = joins - int(rng.uniform(70, 100)), float(rng.uniform(9, 14))
    away = heading[begins] + float(rng.uniform(0.12, 0.3)) * (1 if rng.random() < 0.8 else -0.3)
    near = right[begins] - left_of(step[begins]) * aside
    approach = line(near - unit(away) * 90, near)
    taper = curve(near, unit(away), right[joins], step[joins])
    lanes |= {"lane0": Lane(FREEWAY, before), "lane0b": Lane(FREEWAY, after)}
    lanes |= {"ramp": Lane(SURFACE, approach), "taper": Lane(FREEWAY, taper)}
    main = path_of([before, after], [limit, limit])
    side = path_of([approach, taper, after], [limit * 0.62, limit * 0.95, limit])
    return Road(
        lanes,
        (
            Route(main, ("lane0", "lane0b"), merge=nearest_on(main, right[joins])[0]),
            Route(side, ("ramp", "taper", "lane0b"), merge=nearest_on(side, right[joins])[0]),
        ),
        parallel=count,
        centre=tuple(right[joins].tolist()),
        reach=90.0,
    )


def parking(rng: np.random.Generator) -> Road:
    """Aisles between two roads, driven in one direction; stalls on both sides of each."""
    deep, aisles, gap, turn = float(rng.uniform(42, 60)), 3, 18.0, 5.0
    column = [k * gap for k in range(aisles)]
    low, high = -6.0, deep + 6.0
    lanes: dict[str, np.ndarray] = {}
    cuts = [-25.0, *[x - turn for x in column]]
    for k, x in enumerate(column):
        lanes[f"south{k}"] = line(np.array([cuts[k], low]), np.array([cuts[k + 1], low]))
        lanes[f"enter{k}"] = arc(np.array([x - turn, low + turn]), turn, -np.pi / 2, 0)
        lanes[f"aisle{k}"] = line(np.array([x, low + turn]), np.array([x, high - turn]))
        lanes[f"leave{k}"] = arc(np.array([x + turn, high - turn]), turn, np.pi, np.pi / 2)
        end = column[k + 1] + turn if k + 1 < aisles else x + 30
        lanes[f"north{k}"] = line(np.array([x + turn, high]), np.array([end, high]))
    speed = float(rng.uniform(4.0, 5.5))
    routes: list[Route] = []

    def through(k: int, skip: int = 0) -> list[str]:
        way = [f"south{j}" for j in range(k + 1)] + [f"enter{k}", f"aisle{k}", f"leave{k}"]
        return (way + [f"north{j}" for j in range(k, aisles)])[skip:]

    for k in range(aisles):
        names = through(k)
        routes.append(Route(path_of([lanes[n] for n in names], [speed] * len(names)), tuple(names)))
    places = [(k, side, y) for k in range(aisles) for side in (-1, 1) for y in np.arange(6.0, deep - 3, 2.8)]
    order = rng.permutation(len(places))
    used: list[tuple[int, int, float]] = []
    parked: list[tuple[float, ...]] = []
    for place in order:
        k, side, y = places[place]
        if any(k == a and side == b and abs(y - c) < 3 for a, b, c in used):
            continue  # leaves room beside those who move
        x, moving = column[k], len(used) < 8
        stall = np.array([x + side * 6.2, y])
        if not moving:
            if rng.random() < 0.35:
                parked.append((*stall, 0.0 if side > 0 else np.pi))
            continue
        used.append((k, side, y))
        down = lanes[f"aisle{k}"][lanes[f"aisle{k}"][:, 1] <= y - turn]
        down = np.concatenate([down, [[x, y - turn]]]) if y - turn - down[-1, 1] > 0.05 else down
        ends = (np.pi, np.pi / 2) if side > 0 else (0.0, np.pi / 2)
        centre, start = np.array([x + side * turn, y - turn]), np.array([x + side * turn, y])
        swing = joined([arc(centre, turn, *ends), line(start, stall)])
        if len(used) % 2:
            names = [*through(k)[: k + 2], f"aisle{k}"]
            parts = [*[lanes[n] for n in names[:-1]], down, swing]
            routes.append(Route(path_of(parts, [*[speed] * (len(parts) - 1), 2.2]), tuple(names), parks=True))
        else:
            up = lanes[f"aisle{k}"][lanes[f"aisle{k}"][:, 1] > y - turn + 0.05]
            names = through(k, k + 2)
            parts = [np.concatenate([[[x, y - turn]], up]), *[lanes[n] for n in names[1:]]]
            routes.append(Route(path_of(parts, [speed] * len(parts), backwards=swing[::-1]), tuple(names)))
    kinds = {name: Lane(SURFACE, xy) for name, xy in lanes.items()}
    return Road(kinds, tuple(routes), stalls=np.array(parked).reshape(-1, 3))
