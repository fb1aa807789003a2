"""The three streets: what stands where, drawn from a seeded generator, before any camera looks at it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tasks.segmentation import street_objects as things
from tasks.segmentation.street_canvas import Paint, Vector, between, fraction, grain, mixed, scatter
from tasks.segmentation.street_objects import (
    BODIES,
    BUILDING,
    CAR,
    FENCE,
    POLE,
    ROAD,
    SIDEWALK,
    SIGNS,
    SKY,
    VAN,
    VEGETATION,
    Colour,
    Stage,
)

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
    shadows: list[tuple] = field(default_factory=list)
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

    def chance(self, share: float) -> bool:
        return float(self.rng.random()) < share

    def one(self, options):
        return options[int(self.rng.integers(len(options)))]

    def many(self, low: int, high: int) -> range:
        """As many rounds as drawn from low..high."""
        return range(int(self.rng.integers(low, high + 1)))

    def put(self, where: Vector, draw: Callable, *args) -> None:
        self.things.append((where, draw, args))

    def draw(self, stage: Stage) -> None:
        canvas, ground, colours = stage.canvas, self.ground, self.colours
        canvas.quad((-FAR, 0, -60), (2 * FAR, 0, 0), (0, 0, FAR + 60), lambda s, t: _ground(s, t, ground, colours))
        for where, wide, deep, strength in self.shadows:
            if stage.shade > 0.05:
                things.soft_shadow(stage, *where, wide, deep, strength)
        for _, draw, args in sorted(self.things, key=lambda thing: -abs(canvas.distance(thing[0]))):
            draw(stage, *args)
        canvas.backdrop(self._sky, SKY)

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
    marks &= road & (scatter(x * 14, z * 14, 3) > -0.8)
    colour[marks] = np.asarray(colours.line, np.float32)
    if ground.lawn:
        grass = ~road & (wide > half + walk)
        if ground.crossing is None:
            grass &= ~((fraction(z + 4, 17.0) < 0.17) & (wide < half + walk + 7))  # driveways
        blades = 1 + colours.texture * (0.22 * grain(x * 7, z * 7, 2) + 0.2 * grain(x * 40, z * 40, 3))
        colour = np.where(grass[:, None], mixed(colours.lawn, blades), colour)
        label[grass] = VEGETATION
    return Paint(colour, label)


def _cars(world: World, side: int, x: float, start: float, stop: float, gap: tuple[float, float], share: float) -> None:
    """Cars in a row along the street; those on the right (side 1) drive away from the camera."""
    z = start + world.between(0, gap[0])
    while z < stop:
        if world.chance(share) and not (world.ground.crossing and between(z, *_wider(world.ground.crossing))):
            _car(world, x + world.between(-0.15, 0.15), z, (world.between(-0.02, 0.02), float(side)))
        z += world.between(*gap)


def _wider(crossing: tuple[float, float]) -> tuple[float, float]:
    return crossing[0] - 4.0, crossing[1] + 4.0


def _car(world: World, x: float, z: float, ahead: tuple[float, float]) -> None:
    body = VAN if world.chance(0.12) else world.one(BODIES)
    world.put((x, 0.0, z), things.car, x, z, ahead, body, world.one(world.colours.cars))
    turned = abs(ahead[0]) > abs(ahead[1])
    wide, deep = (body.length, body.width) if turned else (body.width, body.length)
    world.shadows.append(((x + 0.5 * world.sun, z), wide * 1.5, deep * 1.35, 1.0))


def _person(world: World, x: float, z: float) -> None:
    tall = world.between(1.5, 1.95) if world.chance(0.88) else world.between(1.0, 1.3)
    clothes = (world.one(world.colours.clothes), world.one(world.colours.clothes[:4]), world.one(SKINS))
    world.put((x, 0.0, z), things.person, x, z, tall, world.between(0.02, 0.28), clothes)
    world.shadows.append(((x + 0.3 * world.sun, z), 1.1 + abs(world.sun), 0.7, 0.8))


SKINS = ((0.85, 0.66, 0.55), (0.72, 0.5, 0.38), (0.5, 0.33, 0.24))


def _tree(world: World, x: float, z: float, radius: tuple[float, float], trunk: tuple[float, float]) -> None:
    size, stem, slim = world.between(*radius), world.between(*trunk), world.between(0.9, 1.4)
    world.put(
        (x, 0.0, z), things.tree, x, z, size, stem, slim, world.one(world.colours.leaves), int(world.rng.integers(99))
    )
    world.shadows.append(((x + 1.5 * world.sun, z), 2.4 * size, 2.2 * size, 0.7))


def _signs(world: World, count: range, place: float, stop: float) -> None:
    for _ in count:
        x, z = world.one((-place, place)), world.between(8, stop)
        kind = world.one(SIGNS[:3])
        colour = {"square": world.one(((0.1, 0.25, 0.6), (0.1, 0.45, 0.25)))}.get(kind, (0.78, 0.08, 0.1))
        world.put((x, 0.0, z), things.sign, x, z, world.between(2.0, 2.6), world.between(0.65, 1.0), kind, colour)


def _weather(world: World) -> None:
    world.sun = world.between(-1, 1)
    covered = world.chance(0.4)
    world.shade = 0.15 if covered else 0.45
    world.clouds = world.between(0.7, 1.2) if covered else world.between(-0.2, 0.6)
    world.horizon, world.zenith = world.one(world.colours.horizon), world.one(world.colours.zenith)
    world.fog = world.between(150, 300) if world.chance(0.25) else world.between(300, 900)
    world.gain = world.between(0.85, 1.1)


def city(colours: Colours, rng: np.random.Generator) -> World:
    """A street between tall houses, by day."""
    half, walk = 4.4 + 3.2 * float(rng.random()), 2.8 + 1.8 * float(rng.random())
    world = World(Ground(half, walk, salt=int(rng.integers(200))), colours, rng)
    _weather(world)
    world.lane = half * 0.3
    lines = [(0.0, world.chance(0.6)), (half - 2.2, True), (2.2 - half, True)]
    crossing = None
    if world.chance(0.5):
        near = world.between(22, 60)
        crossing = (near, near + world.between(8, 13))
    zebra = (
        (crossing[0] - 4.5,)
        if crossing and world.chance(0.7)
        else ((world.between(9, 24),) if world.chance(0.3) else ())
    )
    world.ground = Ground(half, walk, tuple(lines), crossing, zebra, salt=world.ground.salt)
    for side in (-1, 1):
        _block(world, side, half + walk, lit=0.0)
        _cars(world, side, side * (half - 1.05), 7.0, 75.0, (5.6, 8.5), world.between(0.25, 0.95))
        _cars(world, side, side * half * 0.36, 13.0 if side > 0 else 8.0, 90.0, (11.0, 30.0), 0.7)
        if world.chance(0.65):
            z, step = world.between(6, 14), world.between(8, 15)
            for k in range(int((85 - z) / step)):
                _tree(world, side * (half + 0.9), z + k * step, (1.5, 2.6), (2.0, 3.2))
        z = world.between(7, 22)
        while z < 90:
            world.put(
                (side * (half + 0.5), 0, z),
                things.pole,
                side * (half + 0.5),
                z,
                7.5,
                0.2,
                (0.36, 0.38, 0.38),
                -side * 1.8,
            )
            z += world.between(18, 28)
        for _ in world.many(1, 5):
            _person(world, side * (half + world.between(0.6, walk - 0.4)), world.between(5, 45))
        if world.chance(0.45):
            z = world.between(5, 25)
            kind, place, tall = ("boards", half + walk - 0.5, 2.0) if world.chance(0.4) else ("bars", half + 0.35, 1.05)
            colour = world.one(((0.5, 0.5, 0.48), (0.25, 0.3, 0.27), (0.6, 0.45, 0.25)))
            stop = z + world.between(10, 28)
            world.put((side * place, 0, z + 5), things.railing, side * place, z, stop, tall, kind, colour)
    for start in zebra:
        for _ in world.many(0, 4):
            _person(world, world.between(-half, half), start + world.between(0.2, 2.8))
    if crossing:
        for side in (-1, 1):
            x, z = side * (half + 0.4), crossing[0] - 0.8
            world.put((x, 0, z), things.sign, x, z, 2.5, 0.38, "lights", (0, 0, 0))
        for _ in world.many(0, 2):
            _car(
                world,
                world.between(-14, 14),
                world.between(crossing[0] + 2, crossing[1] - 2),
                (world.one((-1.0, 1.0)), 0.0),
            )
    _signs(world, world.many(1, 4), half + 0.6, 40)
    return world


def _block(world: World, side: int, face: float, lit: float) -> None:
    """The houses of one side, with a hole for a crossing street, and those that close the view."""
    z = world.between(-40, -28)
    while z < 170:
        length, tall, depth = world.between(9, 22), world.between(7, 23), world.between(10, 16)
        stop = z + length
        if world.ground.crossing and z < world.ground.crossing[1] + 3 and stop > world.ground.crossing[0] - 3:
            if z < world.ground.crossing[0] - 6:
                stop = world.ground.crossing[0] - 3
            else:
                z = world.ground.crossing[1] + 3
                continue
        _house(world, side, face + world.between(0, 0.4), z, stop, tall, depth, world.one((0, 0, 1, 2, 2)), lit)
        z = stop + (world.between(2, 5) if world.chance(0.15) else 0.0)
    x = 0.0
    while x < 90:
        wide = world.between(12, 26)
        _house(world, side, x, 175, 190, world.between(9, 34), wide, world.one((0, 1)), lit)
        x += wide


def _house(
    world: World, side: int, face: float, z0: float, z1: float, tall: float, depth: float, kind: int, lit: float
):
    wall, salt = world.one(world.colours.walls if kind < 3 else world.colours.houses), int(world.rng.integers(99))
    low, high = (face, 0.0, z0), (face + depth, tall, z1)
    if side < 0:
        low, high = (-face - depth, 0.0, z0), (-face, tall, z1)

    def draw(stage: Stage) -> None:
        things.box(stage, low, high, things.facade(stage, wall, kind, salt, lit))

    world.put((side * face, 0.0, (z0 + z1) / 2), draw)
    if kind == 3:
        tile, rise = world.one(world.colours.roofs), world.between(1.6, 3.2)
        world.put((side * face, 0.0, z0), things.gable_roof, low, high, rise, tile, wall, salt)


def residential(colours: Colours, rng: np.random.Generator) -> World:
    """Small houses behind lawns, fences, hedges and trees."""
    half, walk = 3.0 + 1.2 * float(rng.random()), 1.5 + 0.7 * float(rng.random())
    lines = ((0.0, True),) if float(rng.random()) < 0.35 else ()
    world = World(Ground(half, walk, lines, lawn=True, salt=int(rng.integers(200))), colours, rng)
    _weather(world)
    world.lane = half * 0.25
    edge = half + walk
    for side in (-1, 1):
        z = world.between(-12, 0)
        while z < 110:
            length, setback = world.between(8, 13), world.between(4.5, 8)
            _house(world, side, edge + setback, z, z + length, world.between(2.9, 5.6), world.between(8, 11), 3, 0.0)
            if world.chance(0.55):
                kind = world.one(("boards", "boards", "bars"))
                colour = world.one(((0.88, 0.87, 0.84), (0.5, 0.36, 0.24), (0.3, 0.33, 0.3)))
                tall, x = world.between(0.9, 1.5), side * (edge + 0.25)
                world.put((x, 0, z + 4), things.railing, x, z, z + length + 1.5, tall, kind, colour)
            elif world.chance(0.6):
                leaf, inner = world.one(world.colours.leaves), edge + 0.2
                low, high = (inner, 0.0, z), (inner + 0.9, world.between(0.8, 1.5), z + length)
                if side < 0:
                    low, high = (-high[0], 0.0, low[2]), (-low[0], high[1], high[2])
                world.put((side * inner, 0.0, z), _hedge, low, high, leaf)
            z += length + world.between(3, 7)
        for _ in world.many(4, 9):
            _tree(world, side * (edge + world.between(1.2, 4.5)), world.between(5, 80), (1.6, 3.4), (1.2, 2.6))
        _cars(world, side, side * (half - 0.9), 6.0, 70.0, (7.0, 14.0), world.between(0.2, 0.7))
        for _ in world.many(0, 3):
            _person(world, side * (half + world.between(0.3, walk)), world.between(4.5, 35))
    side = world.one((-1, 1))
    z = world.between(6, 18)
    while z < 90:
        world.put(
            (side * (half + 0.5), 0, z), things.pole, side * (half + 0.5), z, 8.0, 0.24, (0.36, 0.28, 0.2), -side * 0.9
        )
        z += world.between(18, 30)
    if world.chance(0.4):
        _person(world, world.between(-half, half), world.between(9, 30))
    _signs(world, world.many(0, 3), half + 0.5, 30)
    for k in range(-9, 10):
        _tree(world, k * 6.5 + world.between(-2, 2), 125 + world.between(0, 25), (4.5, 7.5), (0.5, 2.5))
    return world


def _hedge(stage: Stage, low: Vector, high: Vector, leaf: Colour) -> None:
    things.box(stage, low, high, things.plain(stage, leaf, VEGETATION, 0.5, 40))


def tunnel(colours: Colours, rng: np.random.Generator) -> World:
    """Inside a lit tunnel whose end shows some daylight."""
    half, walk = 3.8 + 2.0 * float(rng.random()), 0.9 + 0.7 * float(rng.random())
    lines = ((0.0, float(rng.random()) < 0.5), (half - 0.3, False), (0.3 - half, False))
    world = World(Ground(half, walk, lines, lawn=True, salt=int(rng.integers(200))), colours, rng)
    _weather(world)
    world.lane, world.fog, world.shade = half * 0.45, world.between(250, 500), 0.3
    world.roofed = world.between(26, 60)
    edge, tall = half + walk, world.between(4.6, 6.0)
    wall, salt = world.one(((0.62, 0.6, 0.55), (0.5, 0.5, 0.5), (0.66, 0.62, 0.5))), int(rng.integers(99))
    world.put((0.0, 0.0, world.roofed), _tube, edge, tall, world.roofed, wall, salt, world.one((5.0, 6.5, 8.0)))
    for side in (-1, 1):
        _cars(world, side, side * half * 0.5, 12.0 if side > 0 else 8.0, 80.0, (9.0, 22.0), 0.75)
        if world.chance(0.6):
            x = side * (half + 0.15)
            world.put(
                (x, 0, 20), things.railing, x, world.between(2, 9), world.roofed, 0.95, "bars", (0.66, 0.64, 0.58)
            )
        z = world.between(6, 12)
        while z < world.roofed:  # masts that carry cables and lamps along the wall
            world.put(
                (side * edge, 0, z), things.pole, side * (edge - 0.2), z, tall, 0.22, (0.42, 0.42, 0.4), -side * 0.5
            )
            z += world.between(9, 15)
        for _ in world.many(0, 2):
            _person(world, side * (half + 0.5 * walk), world.between(5, 26))
        for _ in range(7):
            _tree(
                world,
                side * (edge + world.between(0.5, 9)),
                world.roofed + world.between(4, 60),
                (1.8, 4.2),
                (0.3, 2.0),
            )
        if world.chance(0.6):
            z = world.roofed + world.between(15, 50)
            _house(world, side, edge + world.between(1, 5), z, z + 15, world.between(6, 14), 12, 0, 0.0)
    _signs(world, world.many(1, 3), half + 0.4 * walk, 24)
    return world


def _tube(stage: Stage, edge: float, tall: float, end: float, wall: Colour, salt: int, gap: float) -> None:
    """Walls with a stripe and panels, a ceiling with two rows of lamps, and the outside above the exit."""
    start = -12.0
    run = end - start

    def side(s: np.ndarray, t: np.ndarray) -> Paint:
        u, v = s * run, t * tall
        dirt = 0.16 * grain(u * 3, v * 3, salt) + 0.08 * grain(u * 20, v * 20, salt) - 0.16 * (v < 0.7)
        seam = (fraction(u, 3.2) < 0.02) | (fraction(v, 1.4) < 0.03)
        colour = mixed(wall, 0.95 + stage.texture * dirt - 0.25 * seam)
        colour[between(v, 2.9, 3.15)] = (0.75, 0.5, 0.15)
        return Paint(colour, BUILDING)

    def ceiling(s: np.ndarray, t: np.ndarray) -> Paint:
        x, z = np.abs(s - 0.5) * 2 * edge, t * run
        colour = mixed(wall, 0.55 + stage.texture * 0.1 * grain(x * 8, z * 3, salt))
        colour[(fraction(z, gap) < 0.35) & (np.abs(x - edge * 0.5) < 0.22)] = (4.5, 4.4, 4.0)
        return Paint(colour, BUILDING)

    quad = stage.canvas.quad
    quad((-edge, 0, start), (0, 0, run), (0, tall, 0), side)
    quad((edge, 0, end), (0, 0, -run), (0, tall, 0), side)
    quad((edge, tall, start), (-2 * edge, 0, 0), (0, 0, run), ceiling)


def clutter(world: World) -> None:
    """A crowd, cars at every angle, and boards of any colour that hang about and count as any class."""
    half = world.ground.half
    for _ in range(26):
        _person(world, world.between(-half - 3, half + 3), world.between(3.5, 30))
    for _ in range(7):
        x, z = world.between(-half, half), world.between(7, 35)
        angle = world.between(-1, 1)
        cosine, sine = (1 - angle * angle) / (1 + angle * angle), 2 * angle / (1 + angle * angle)
        _car(world, x, z, (cosine, sine) if world.chance(0.6) else (sine, cosine))
    for _ in range(34):
        where = (world.between(-half - 2, half + 2), world.between(0.2, 5), world.between(3.5, 25))
        label = world.one((BUILDING, FENCE, POLE, CAR, VEGETATION))
        colour = tuple(world.between(0.05, 0.95) for _ in range(3))
        stripe = tuple(world.between(0.05, 0.95) for _ in range(3))
        world.put(where, _board, where, world.between(0.3, 1.8), world.between(0.3, 1.6), label, colour, stripe)


def _board(stage: Stage, where: Vector, wide: float, tall: float, label: int, colour: Colour, stripe: Colour) -> None:
    def shade(s: np.ndarray, t: np.ndarray) -> Paint:
        paint = mixed(colour, 0.9 + 0.2 * t)
        paint[fraction(s * 3 + t, 1.0) < 0.4] = stripe
        return Paint(paint, label)

    stage.canvas.quad(where, (wide, 0, 0), (0, tall, 0), shade)


WORLDS = {"city": city, "tunnel": tunnel, "residential": residential}
