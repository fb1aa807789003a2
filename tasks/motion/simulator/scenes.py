"""Simulated traffic scenes: `simulate` makes one of a recipe, the same for the same seed.

Candidates are made to help, to mislead or to fill: calm compact roundabouts, crossings with lights and ramps that join
a highway resemble the targets; mirrored ones (traffic on the left) look like them on a map and contradict them; the
rest is another kind of road or driver.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from tarot import InputError
from tasks.motion.formats import VEHICLE, MapLine, Scenario, TrafficLight
from tasks.motion.simulator.drivers import CALM, SPORTY, TICK, Drive, Start, Style, Tables, draw_habits, drive
from tasks.motion.simulator.roads import Road, crossing, highway, parking, phase_state, roundabout

FRAMES, CURRENT, BURN_IN = 81, 20, 20  # frames of a record, the one of now, ticks that are driven before
TRIES = 20


@dataclass(frozen=True)
class Recipe:
    """road: draws it; vehicles: how many; lights: whether it has traffic lights; tag: what its candidates are called.

    mirror: the scene is seen in a mirror, so that traffic drives on the left.
    """

    road: Callable[[np.random.Generator], Road]
    style: Style
    tag: str
    vehicles: tuple[int, int] = (5, 12)
    mirror: bool = False


def _roundabout(rng: np.random.Generator) -> Road:
    return roundabout(rng, (14, 19))


def _crossing(rng: np.random.Generator) -> Road:
    return crossing(rng, lights=True)


RECIPES = {
    "freeway_calm": Recipe(lambda rng: highway(rng, 29.0, False), CALM, "freeway_calm", (8, 13)),
    "freeway_sporty": Recipe(lambda rng: highway(rng, 29.0, False), SPORTY, "freeway_sporty", (8, 13)),
    "merge": Recipe(lambda rng: highway(rng, 22.0, True), CALM, "target", (7, 12)),
    "roundabout": Recipe(_roundabout, CALM, "target", (5, 11)),
    "roundabout_mirrored": Recipe(_roundabout, CALM, "roundabout_mirrored", (5, 11), mirror=True),
    "roundabout_large": Recipe(lambda rng: roundabout(rng, (26, 40), 15.3), SPORTY, "roundabout_large"),
    "crossing": Recipe(_crossing, CALM, "target", (6, 13)),
    "crossing_mirrored": Recipe(_crossing, CALM, "crossing_mirrored", (6, 13), mirror=True),
    "crossing_sporty": Recipe(lambda rng: crossing(rng, lights=False), SPORTY, "crossing_sporty"),
    "parking": Recipe(parking, CALM, "parking", (5, 9)),
}


def simulate(recipe: str, seed: int, *, dataset: str = "simulated", name: str | None = None) -> Scenario:
    """81 frames at 10 Hz of a scene in which one or two vehicles are to be predicted from frame 20.

    The same recipe and seed give the same bytes; a mirrored recipe gives the reflection of its original's scene.
    Raises InputError for a recipe that there is not, or a negative seed.
    """
    if recipe not in RECIPES:
        raise InputError(f"no simulated scene is called {recipe!r}; there are {sorted(RECIPES)}")
    if seed < 0:
        raise InputError(f"a scene's seed must be 0 or more; it is {seed}")
    kind = RECIPES[recipe]
    for attempt in range(TRIES):
        scene = _scene(kind, seed, attempt)
        if scene is not None:
            named = replace(scene, name=name or f"{recipe}-{seed}", dataset=dataset, tag=kind.tag)
            return _posed(named, kind.mirror, np.random.default_rng([seed, 3]))
    raise InputError(f"no scene of recipe {recipe} and seed {seed} has a vehicle to predict, after {TRIES} tries")


def _scene(kind: Recipe, seed: int, attempt: int) -> Scenario | None:
    """In the road's own frame; None where no vehicle is worth predicting."""
    roads, drivers, details = (np.random.default_rng([seed, stream, attempt]) for stream in range(3))
    road = kind.road(roads)
    start = _placed(road, int(drivers.integers(*kind.vehicles)), drivers)
    habits = draw_habits(kind.style, len(start.s), drivers)
    clock = float(drivers.uniform(0, 24))
    ride, tables = drive(road, start, habits, kind.style, BURN_IN + (FRAMES - 1) // 2, clock, drivers)
    moving = _recorded(ride, tables, details)
    moving["length"], moving["joins"] = start.length, start.route > 0 if road.parallel > 1 else start.s < 0
    wide = np.where(start.length > 6.5, 2.5, details.uniform(1.8, 2.05, len(start.s)))
    size = np.stack([start.length, wide, np.where(start.length > 6.5, 3.2, 1.6)], 1)
    still = _parked(road, details)
    tracks = {key: np.concatenate([moving[key], still[key]]) for key in ("position", "heading", "velocity", "valid")}
    size = np.concatenate([size, still["size"]])
    kept = _without_overlaps(tracks, size)
    chosen = _to_predict(tracks, kept, road, moving["joins"], details)
    if not chosen:
        return None
    valid = tracks["valid"].copy()
    late = np.flatnonzero((details.random(len(kept)) < 0.25) & ~np.isin(np.arange(len(kept)), chosen))
    for row in late:
        valid[row, : int(details.integers(1, 15))] = False
    kept = np.flatnonzero(kept & valid.any(1))
    names = {row: f"car{place}" for place, row in enumerate(kept.tolist())}
    shown = valid[kept]
    return Scenario(
        name="",
        dataset="",
        agents=tuple(names.values()),
        kinds=(VEHICLE,) * len(kept),
        position=tracks["position"][kept] * shown[..., None],
        heading=tracks["heading"][kept] * shown,
        velocity=tracks["velocity"][kept] * shown[..., None],
        size=np.repeat(size[kept][:, None], FRAMES, 1) * shown[..., None],
        valid=shown,
        map=_map(road),
        lights=_lights(road, clock),
        current=CURRENT,
        to_predict=tuple(names[row] for row in chosen),
        ego=names[chosen[0]],
    )


def _placed(road: Road, count: int, rng: np.random.Generator) -> Start:
    """Vehicles on routes, apart from each other, where they will soon be in the middle of things."""
    routes: list[int] = []
    s: list[float] = []
    lanes: list[int] = []
    places: list[tuple[np.ndarray, int]] = []
    waits: list[float] = []
    trucks = 0.0 if len(road.stalls) else 0.1
    length = np.where(rng.random(count) < trucks, rng.uniform(7, 10, count), rng.uniform(4.1, 5.0, count))
    for _ in range(20 * count):
        if len(routes) == count:
            break
        route, lane, wait = int(rng.integers(len(road.routes))), 0, 0.0
        path, stop = road.routes[route].path, road.routes[route].stop
        if road.parallel > 1:
            route = int(rng.random() < 0.35) if len(road.routes) > 1 else 0
            path = road.routes[route].path
            lane = 0 if route else int(rng.integers(road.parallel))
            merge = road.routes[route].merge
            at = rng.uniform(0, 260) if merge is None else merge - rng.uniform(30, 190 if route else 230)
        elif stop is not None:
            at = rng.uniform(0, stop + (30 if rng.random() < 0.3 else 0))
        elif path.backwards > 0:
            at, wait = 0.0, rng.uniform(3, 8)
        elif path.length < 75:
            at = rng.uniform(max(path.length - 45, 0), max(path.length - 18, 1))
        else:
            at = rng.uniform(5, path.length - 40)
        place = path.xy[min(int(at * 2), len(path.xy) - 1)]
        if at < 0 or any(
            np.hypot(*(place - other)) < (5.5 if wait else 20 if road.parallel > 1 else 10) and lane == beside
            for other, beside in places
        ):
            continue
        places.append((place, lane))
        routes.append(route)
        s.append(at)
        lanes.append(lane)
        waits.append(wait)
    return Start(np.array(routes), np.array(s), np.array(lanes), length[: len(s)], np.array(waits))


def _recorded(ride: Drive, tables: Tables, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Tracks at 10 Hz after the burn-in: between two ticks with constant acceleration, as they were driven."""

    def doubled(values: np.ndarray, slope: np.ndarray) -> np.ndarray:
        out = np.zeros((len(values), FRAMES))
        out[:, ::2] = values[:, BURN_IN:]
        a, b = values[:, BURN_IN:-1], values[:, BURN_IN + 1 :]
        out[:, 1::2] = (a + b) / 2 + TICK / 8 * (slope[:, BURN_IN:-1] - slope[:, BURN_IN + 1 :])
        return out

    s, v = doubled(ride.s, ride.v), doubled(ride.v, np.zeros_like(ride.v))
    aside, rate = doubled(ride.aside, ride.aside_rate), doubled(ride.aside_rate, np.zeros_like(ride.v))
    count = len(s)
    # nobody keeps to the middle of a lane: waves along the way, seconds long and a few centimetres high
    waves = np.maximum(v.max(1), 5)[:, None] * rng.uniform(3, 7, (count, 3))
    phase = rng.uniform(0, 2 * np.pi, (count, 3))
    height = rng.uniform(0.02, 0.11, (count, 3)) * (tables.backwards[:, None] == 0)
    angle = 2 * np.pi * s[..., None] / waves[:, None] + phase[:, None]
    aside = aside + (height[:, None] * np.sin(angle)).sum(-1)
    slope = (height[:, None] * np.cos(angle) * 2 * np.pi / waves[:, None]).sum(-1)
    rate = rate + slope * v
    heading, curvature = tables.at(tables.heading, s), tables.at(tables.curvature, s)
    ahead = np.stack([np.cos(heading), np.sin(heading)], -1)
    left = np.stack([-ahead[..., 1], ahead[..., 0]], -1)
    forward = v * np.where(s < tables.backwards[:, None], -1, 1 - curvature * aside)
    with np.errstate(invalid="ignore", divide="ignore"):
        turned = np.where(v > 0.1, np.arctan(rate / np.maximum(v, 2.0)), np.arctan(slope))
    return {
        "position": tables.at(tables.xy, s) + aside[..., None] * left,
        "heading": np.angle(np.exp(1j * (heading + turned))).astype(np.float32),
        "velocity": (forward[..., None] * ahead + rate[..., None] * left).astype(np.float32),
        "valid": np.stack([tables.here(at, 1 + 0.3 * speed) for at, speed in zip(s.T, v.T, strict=True)], 1),
    }


def _parked(road: Road, rng: np.random.Generator) -> dict[str, np.ndarray]:
    count = min(len(road.stalls), 10)
    stalls = road.stalls[:count]
    size = np.stack([rng.uniform(4.1, 4.9, count), rng.uniform(1.7, 1.95, count), np.full(count, 1.6)], 1)
    return {
        "position": np.repeat(stalls[:, None, :2], FRAMES, 1),
        "heading": np.repeat(stalls[:, 2:], FRAMES, 1).astype(np.float32),
        "velocity": np.zeros((count, FRAMES, 2), np.float32),
        "valid": np.ones((count, FRAMES), bool),
        "size": size,
    }


def _without_overlaps(tracks: dict[str, np.ndarray], size: np.ndarray) -> np.ndarray:
    """bool [A]: vehicles that can stay so that no two of them are ever at the same place."""
    clash = overlaps(tracks["position"], tracks["heading"], size, tracks["valid"])
    kept = np.ones(len(clash), bool)
    while clash.any():
        worst = clash.sum(1).argmax()
        kept[worst] = False
        clash[worst] = clash[:, worst] = False
    return kept


def overlaps(position: np.ndarray, heading: np.ndarray, size: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """bool [A, A]: whether two rectangles meet in any frame in which both are valid (by separating axes).

    position [A, T, 2], heading [A, T], size [A, 2 or more] (length, width), valid [A, T].
    """
    count = len(position)
    clash = np.zeros((count, count), bool)
    one, other = np.triu_indices(count, 1)
    if not len(one):
        return clash
    apart = position[one] - position[other]
    reach = np.hypot(size[:, 0], size[:, 1]) / 2
    near = ((apart**2).sum(-1) < ((reach[one] + reach[other]) ** 2)[:, None]) & valid[one] & valid[other]
    pair, frame = np.nonzero(near)
    a, b, apart = one[pair], other[pair], apart[pair, frame]
    heading = heading.astype(np.float64)
    ahead = np.stack([np.cos(heading), np.sin(heading)], -1)
    left = np.stack([-ahead[..., 1], ahead[..., 0]], -1)
    meet = np.ones(len(pair), bool)
    for rows, table in ((a, ahead), (a, left), (b, ahead), (b, left)):
        axis = table[rows, frame]
        width = sum(
            np.abs((side[row, frame] * axis).sum(-1)) * size[row, dimension] / 2
            for row in (a, b)
            for side, dimension in ((ahead, 0), (left, 1))
        )
        meet &= np.abs((apart * axis).sum(-1)) < width
    clash[a[meet], b[meet]] = True
    return clash | clash.T


def _to_predict(
    tracks: dict[str, np.ndarray], kept: np.ndarray, road: Road, joins: np.ndarray, rng: np.random.Generator
) -> list[int]:
    """Up to two vehicles that are there all the time, move, and come by what the road is about; who joins, first."""
    position, count = tracks["position"], len(joins)
    moved = np.hypot(*np.diff(position, axis=1).transpose(2, 0, 1)).sum(1) > 2
    close = (np.hypot(*(position[:, CURRENT:] - np.array(road.centre)).transpose(2, 0, 1)) < road.reach).any(1)
    good = np.flatnonzero((kept & tracks["valid"].all(1) & moved & close)[:count])
    order = good[np.lexsort((rng.random(len(good)), ~joins[good]))]
    return sorted(order[:2].tolist())


def _map(road: Road) -> tuple[MapLine, ...]:
    """Lanes, joined where one begins where another ends."""
    starts = np.array([lane.xy[0] for lane in road.lanes.values()])
    ends = np.array([lane.xy[-1] for lane in road.lanes.values()])
    follows = np.hypot(*(starts[None] - ends[:, None]).transpose(2, 0, 1)) < 0.05  # [one, the next]
    names = list(road.lanes)
    return tuple(
        MapLine(
            name,
            lane.kind,
            lane.xy,
            entries=tuple(names[j] for j in np.flatnonzero(follows[:, i])),
            exits=tuple(names[j] for j in np.flatnonzero(follows[i])),
        )
        for i, (name, lane) in enumerate(road.lanes.items())
    )


def _lights(road: Road, clock: float) -> tuple[TrafficLight, ...]:
    seconds = BURN_IN * TICK + clock + 0.1 * np.arange(FRAMES)
    return tuple(
        TrafficLight(lane, road.lanes[lane].xy[-1], tuple(phase_state(phase, float(t)) for t in seconds))
        for lane, phase in road.lights.items()
    )


def _posed(scene: Scenario, mirror: bool, rng: np.random.Generator) -> Scenario:
    """Somewhere else, looking another way, in a mirror or not."""
    angle, centre, flip = float(rng.uniform(-np.pi, np.pi)), rng.uniform(-500, 500, 2), -1.0 if mirror else 1.0
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * [1.0, flip]
    shown = scene.valid

    def moved(xy: np.ndarray) -> np.ndarray:
        return (xy @ turn.T + centre).astype(np.float32)

    heading = np.angle(np.exp(1j * (flip * scene.heading.astype(np.float64) + angle)))
    return replace(
        scene,
        position=(scene.position @ turn.T + centre) * shown[..., None],
        heading=(heading * shown).astype(np.float32),
        velocity=(scene.velocity.astype(np.float64) @ turn.T * shown[..., None]).astype(np.float32),
        size=scene.size.astype(np.float32),
        map=tuple(replace(item, xy=moved(item.xy)) for item in scene.map),
        lights=tuple(replace(light, stop=moved(light.stop)) for light in scene.lights),
    )
