"""The three streets: what stands where, drawn from a seeded generator, before any camera looks at it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from tasks.segmentation.street import objects as objects
from tasks.segmentation.street.canvas import Paint, Vector, between, fraction, grain, mixed, scatter
from tasks.segmentation.street.objects import BODIES, ROAD, SIDEWALK, SIGNS, SKY, VAN, VEGETATION, Colour, Stage

FAR = 320.0  # metres: where the ground ends


@dataclass(frozen=True)
class Colours:
    """What a domain's surfaces look like before light and lens."""

    walls: tuple[Colour, ...]
    houses: tuple[Colour, ...]
    roofs: tuple[Colour, ...]
    leaves: tuple[Colour, ...]
    cars: tuple[Colour, ...]
    clothes: tuple[Colour, ...]
    asphalt: Colour
    paving: Colour
    lawn: Colour
    line: Colour
    lamps: Colour  # the light in a tunnel
    horizon: tuple[Colour, ...]
    zenith: tuple[Colour, ...]
    texture: float = 1.0


Option = TypeVar("Option")


@dataclass
class Ground:
    """half: of the road's width, metres. walk: width of each sidewalk. lines: where lane marks run, and whether dashed.
    crossing: z-range of a crossing street. zebra: z of pedestrian crossings."""

    half: float
    walk: float
    lines: tuple[tuple[float, bool], ...] = ()
    crossing: tuple[float, float] | None = None
    zebra: tuple[float, ...] = ()
    lawn: bool = False
    salt: int = 0


@dataclass
class World:
    """A street: its ground, the things on it with a point that tells how far they are, and its air."""

    ground: Ground
    colours: Colours
    rng: np.random.Generator
    things: list[tuple[Vector, Callable, tuple]] = field(default_factory=list)
    veils: list[tuple[Vector, Callable, tuple]] = field(default_factory=list)  # things that one sees through
    shadows: list[tuple[tuple[float, float], float, float, float]] = field(default_factory=list)
    lane: float = 1.5  # where a driver sits, x in metres
    sun: float = 0.0
    shade: float = 0.4
    fog: float = 400.0  # metres at which half of a colour is fog's
    horizon: Colour = (0.8, 0.85, 0.9)
    zenith: Colour = (0.4, 0.6, 0.9)
    clouds: float = 0.4
    roofed: float = 0.0  # metres to the tunnel's end; 0 in the open
    gain: float = 1.0

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * float(self.rng.random())

    def nearby(self, low: float, high: float) -> float:
        """Between the two, and more often near `low`."""
        return low + (high - low) * self.between(0, 1) * self.between(0, 1)

    def chance(self, share: float) -> bool:
        return float(self.rng.random()) < share

    def one(self, options: Sequence[Option]) -> Option:
        return options[int(self.rng.integers(len(options)))]

    def many(self, low: int, high: int) -> range:
        """As many rounds as drawn from low..high."""
        return range(int(self.rng.integers(low, high + 1)))

    def put(self, where: Vector, draw: Callable, *args: Any) -> None:
        self.things.append((where, draw, args))

    def rail(self, x: float, start: float, stop: float, tall: float, kind: str, colour: Colour) -> None:
        """A fence along the street."""
        things, middle = self.veils if kind == "bars" else self.things, (x, 0.0, (start + stop) / 2)
        things.append((middle, objects.railing, (x, start, stop, tall, kind, colour)))

    def draw(self, stage: Stage) -> None:
        canvas, ground, colours = stage.canvas, self.ground, self.colours
        canvas.quad((-FAR, 0, -60), (2 * FAR, 0, 0), (0, 0, FAR + 60), lambda s, t: _ground(s, t, ground, colours))
        for where, wide, deep, strength in self.shadows:
            if stage.shade > 0.05:
                objects.soft_shadow(stage, *where, wide, deep, strength)
        for _, draw, args in sorted(self.things, key=lambda thing: abs(canvas.distance(thing[0]))):
            draw(stage, *args)  # the nearest first, so that what they hide is not painted
        canvas.backdrop(self._sky, SKY)
        for _, draw, args in sorted(self.veils, key=lambda thing: -abs(canvas.distance(thing[0]))):
            draw(stage, *args)

    def _sky(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        height = np.clip(y * 1.8, 0, 1)[:, None]
        colour = np.asarray(self.horizon, np.float32) * (1 - height) + np.asarray(self.zenith, np.float32) * height
        reach = 55 / (np.maximum(y, 0) + 0.12)
        cloud = grain(x * reach + 900, z * reach, self.ground.salt) + 0.35 * grain(x * reach * 3, z * reach * 3, 5)
        share = np.clip((cloud + self.clouds - 0.45) * 1.6, 0, 0.85)[:, None]
        return colour * (1 - share) + np.float32(0.93) * share


def _ground(s: np.ndarray, t: np.ndarray, ground: Ground, colours: Colours) -> Paint:
    x, z = (s - 0.5) * (2 * FAR), t * (FAR + 60) - 60
    wide, half, walk = np.abs(x), ground.half, ground.walk
    road = wide < half
    rough = colours.texture * (0.10 * grain(x * 9, z * 9, ground.salt) + 0.10 * grain(x * 2, z * 0.7, ground.salt + 1))
    patch = scatter(x * 0.31 + 40, z * 0.11 + 40, ground.salt) > 0.8
    asphalt = 1 + rough - 0.12 * patch - 0.1 * (between(fraction(wide, half), 0.9, 1.0))
    slab = (fraction(x, 0.9) < 0.06) | (fraction(z, 0.9) < 0.06)
    paving = 1 + rough - 0.16 * slab + 0.10 * colours.texture * scatter(x * (1 / 0.9) + 60, z * (1 / 0.9) + 60)
    kerb = between(wide, half, half + 0.28)
    marks = np.zeros(road.shape, bool)
    for place, dashed in ground.lines:
        line = np.abs(x - place) < 0.085
        marks |= line & (fraction(z, 9.0) < 0.45) if dashed else line
    for start in ground.zebra:
        marks = np.where(between(z, start - 1.2, start + 4.2), False, marks)
        marks |= between(z, start, start + 3.0) & (fraction(x, 1.1) < 0.5) & (wide < half - 0.3)
    label = np.where(road, ROAD, SIDEWALK).astype(np.uint8)
    if ground.crossing is not None:
        low, high = ground.crossing
        cross = between(z, low, high)
        marks &= ~cross
        kerb &= ~cross
        road |= cross
        label[cross] = ROAD
    colour = np.where(road[:, None], mixed(colours.asphalt, asphalt), mixed(colours.paving, paving))
    colour[kerb] = mixed(colours.paving, 1.25 - 0.1 * slab[kerb])
    marks &= road & (grain(x * 60, z * 60, 3) > -0.75)
    colour[marks] = np.asarray(colours.line, np.float32)
    if ground.lawn:
        grass = ~road & (wide > half + walk)
        if ground.crossing is None:
            grass &= ~((fraction(z + 4, 17.0) < 0.17) & (wide < half + walk + 7))  # driveways
        blades = 1 + colours.texture * (0.22 * grain(x * 7, z * 7, 2) + 0.2 * grain(x * 40, z * 40, 3))
        colour = np.where(grass[:, None], mixed(colours.lawn, blades), colour)
        label[grass] = VEGETATION
    return Paint(colour, label)


def cars(world: World, side: int, x: float, start: float, stop: float, gap: tuple[float, float], share: float) -> None:
    """Cars in a row along the street; those on the right (side 1) drive away from the camera."""
    z = start + world.between(0, gap[0])
    while z < stop:
        crossing = world.ground.crossing
        if world.chance(share) and not (crossing and between(np.asarray(z), *_wider(crossing))):
            car(world, x + world.between(-0.15, 0.15), z, (world.between(-0.02, 0.02), float(side)))
        z += world.between(*gap)


def _wider(crossing: tuple[float, float]) -> tuple[float, float]:
    return crossing[0] - 4.0, crossing[1] + 4.0


def car(world: World, x: float, z: float, ahead: tuple[float, float]) -> None:
    body = VAN if world.chance(0.12) else world.one(BODIES)
    world.put((x, 0.0, z), objects.car, x, z, ahead, body, world.one(world.colours.cars))
    turned = abs(ahead[0]) > abs(ahead[1])
    wide, deep = (body.length, body.width) if turned else (body.width, body.length)
    world.shadows.append(((x + 0.5 * world.sun, z), wide * 1.5, deep * 1.35, 1.0))


def person(world: World, x: float, z: float) -> None:
    tall = world.between(1.5, 1.95) if world.chance(0.88) else world.between(1.0, 1.3)
    clothes = (world.one(world.colours.clothes), world.one(world.colours.clothes[:4]), world.one(SKINS))
    world.put((x, 0.0, z), objects.person, x, z, tall, world.between(0.02, 0.28), clothes)
    world.shadows.append(((x + 0.3 * world.sun, z), 1.1 + abs(world.sun), 0.7, 0.8))


SKINS = ((0.85, 0.66, 0.55), (0.72, 0.5, 0.38), (0.5, 0.33, 0.24))


def tree(world: World, x: float, z: float, radius: tuple[float, float], trunk: tuple[float, float]) -> None:
    size, stem, slim = world.between(*radius), world.between(*trunk), world.between(0.9, 1.4)
    world.put(
        (x, 0.0, z), objects.tree, x, z, size, stem, slim, world.one(world.colours.leaves), int(world.rng.integers(99))
    )
    world.shadows.append(((x + 1.5 * world.sun, z), 2.4 * size, 2.2 * size, 0.7))


def signs(world: World, count: range, place: float, stop: float) -> None:
    for _ in count:
        x, z = world.one((-place, place)), world.between(8, stop)
        kind = world.one(SIGNS[:3])
        colour = {"square": world.one(((0.1, 0.25, 0.6), (0.1, 0.45, 0.25)))}.get(kind, (0.78, 0.08, 0.1))
        world.put((x, 0.0, z), objects.sign, x, z, world.between(2.0, 2.6), world.between(0.65, 1.0), kind, colour)


def weather(world: World) -> None:
    world.sun = world.between(-1, 1)
    covered = world.chance(0.4)
    world.shade = 0.15 if covered else 0.45
    world.clouds = world.between(0.7, 1.2) if covered else world.between(-0.2, 0.6)
    world.horizon, world.zenith = world.one(world.colours.horizon), world.one(world.colours.zenith)
    world.fog = world.between(150, 300) if world.chance(0.25) else world.between(300, 900)
    world.gain = world.between(0.95, 1.15)


def house(world: World, side: int, face: float, z0: float, z1: float, tall: float, depth: float, kind: int) -> None:
    wall, salt = world.one(world.colours.walls if kind < 3 else world.colours.houses), int(world.rng.integers(99))
    low, high = (face, 0.0, z0), (face + depth, tall, z1)
    if side < 0:
        low, high = (-face - depth, 0.0, z0), (-face, tall, z1)

    def draw(stage: Stage) -> None:
        objects.box(stage, low, high, objects.facade(stage, wall, kind, salt))

    world.put((side * face, 0.0, (z0 + z1) / 2), draw)
    if kind == 3:
        tile, rise = world.one(world.colours.roofs), world.between(1.6, 3.2)
        world.put((side * face, 0.0, z0), objects.gable_roof, low, high, rise, tile, wall, salt)
