"""The three streets, and a crowd that may stand in them."""

from __future__ import annotations

import numpy as np

from tasks.segmentation.street import objects as objects
from tasks.segmentation.street.canvas import Paint, Vector, between, fraction, grain, mixed
from tasks.segmentation.street.objects import BUILDING, CAR, FENCE, POLE, VEGETATION, Colour, Stage
from tasks.segmentation.street.world import Colours, Ground, World, car, cars, house, person, signs, tree, weather


def city(colours: Colours, rng: np.random.Generator) -> World:
    """A street between tall houses, by day."""
    half, walk = 3.9 + 2.6 * float(rng.random()), 3.2 + 2.6 * float(rng.random())
    world = World(Ground(half, walk, salt=int(rng.integers(200))), colours, rng)
    weather(world)
    world.lane = half * 0.4
    lines = [(0.0, world.chance(0.6)), (half - 2.2, False), (2.2 - half, False)]
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
        _block(world, side, half + walk)
        cars(world, side, side * (half - 1.05), 7.0, 75.0, (5.6, 8.5), world.between(0.15, 0.8))
        cars(world, side, side * half * 0.36, 13.0 if side > 0 else 8.0, 90.0, (11.0, 30.0), 0.7)
        if world.chance(0.65):
            z, step = world.between(6, 14), world.between(8, 15)
            for k in range(int((85 - z) / step)):
                tree(world, side * (half + 0.9), z + k * step, (1.5, 2.6), (2.0, 3.2))
        z = world.between(7, 22)
        while z < 90:
            world.put(
                (side * (half + 0.5), 0, z),
                objects.pole,
                side * (half + 0.5),
                z,
                7.5,
                0.2,
                (0.36, 0.38, 0.38),
                -side * 1.8,
            )
            z += world.between(18, 28)
        for _ in world.many(2, 6):
            person(world, side * (half + world.between(0.5, walk - 0.4)), world.nearby(4.5, 40))
        if world.chance(0.6):
            z = world.between(3, 16)
            kind, place, tall = ("boards", half + walk - 0.5, 2.0) if world.chance(0.4) else ("bars", half + 0.35, 1.05)
            colour = world.one(((0.5, 0.5, 0.48), (0.25, 0.3, 0.27), (0.6, 0.45, 0.25)))
            stop = z + world.between(10, 28)
            world.rail(side * place, z, stop, tall, kind, colour)
    for start in zebra:
        for _ in world.many(0, 4):
            person(world, world.between(-half, half), start + world.between(0.2, 2.8))
    if crossing:
        for side in (-1, 1):
            x, z = side * (half + 0.4), crossing[0] - 0.8
            world.put((x, 0, z), objects.sign, x, z, 2.5, 0.38, "lights", (0, 0, 0))
        for _ in world.many(0, 2):
            car(
                world,
                world.between(-14, 14),
                world.between(crossing[0] + 2, crossing[1] - 2),
                (world.one((-1.0, 1.0)), 0.0),
            )
    signs(world, world.many(1, 4), half + 0.6, 40)
    return world


def _block(world: World, side: int, face: float) -> None:
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
        house(world, side, face + world.between(0, 0.4), z, stop, tall, depth, world.one((0, 0, 1, 2, 2)))
        z = stop + (world.between(2, 5) if world.chance(0.15) else 0.0)
    x = 0.0
    while x < 50:
        wide = world.between(12, 26)
        house(world, side, x, 175, 190, world.between(9, 34), wide, world.one((0, 1)))
        x += wide


def residential(colours: Colours, rng: np.random.Generator) -> World:
    """Small houses behind lawns, fences, hedges and trees."""
    half, walk = 2.8 + 1.1 * float(rng.random()), 1.7 + 0.9 * float(rng.random())
    lines = ((0.0, True),) if float(rng.random()) < 0.35 else ()
    world = World(Ground(half, walk, lines, lawn=True, salt=int(rng.integers(200))), colours, rng)
    weather(world)
    world.lane = half * 0.25
    edge = half + walk
    for side in (-1, 1):
        z = world.between(-12, 0)
        while z < 110:
            length, setback = world.between(8, 13), world.between(4.5, 8)
            house(world, side, edge + setback, z, z + length, world.between(2.9, 5.6), world.between(8, 11), 3)
            if world.chance(0.55):
                kind = world.one(("boards", "boards", "bars"))
                colour = world.one(((0.88, 0.87, 0.84), (0.5, 0.36, 0.24), (0.3, 0.33, 0.3)))
                tall, x = world.between(0.9, 1.5), side * (edge + 0.25)
                world.rail(x, z, z + length + 1.5, tall, kind, colour)
            elif world.chance(0.6):
                leaf, inner = world.one(world.colours.leaves), edge + 0.2
                low, high = (inner, 0.0, z), (inner + 0.9, world.between(0.8, 1.5), z + length)
                if side < 0:
                    low, high = (-high[0], 0.0, low[2]), (-low[0], high[1], high[2])
                world.put((side * inner, 0.0, z), _hedge, low, high, leaf)
            z += length + world.between(3, 7)
        for _ in world.many(4, 9):
            tree(world, side * (edge + world.between(1.2, 4.5)), world.between(5, 80), (1.6, 3.4), (1.2, 2.6))
        cars(world, side, side * (half - 0.9), 6.0, 70.0, (7.0, 14.0), world.between(0.2, 0.7))
        for _ in world.many(1, 4):
            person(world, side * (half + world.between(0.3, walk)), world.nearby(4.5, 32))
    side = world.one((-1, 1))
    z = world.between(6, 18)
    while z < 90:
        world.put(
            (side * (half + 0.5), 0, z), objects.pole, side * (half + 0.5), z, 8.0, 0.24, (0.36, 0.28, 0.2), -side * 0.9
        )
        z += world.between(18, 30)
    if world.chance(0.4):
        person(world, world.between(-half, half), world.between(9, 30))
    signs(world, world.many(0, 3), half + 0.5, 30)
    for k in range(-9, 10):
        tree(world, k * 6.5 + world.between(-2, 2), 125 + world.between(0, 25), (4.5, 7.5), (0.5, 2.5))
    return world


def _hedge(stage: Stage, low: Vector, high: Vector, leaf: Colour) -> None:
    objects.box(stage, low, high, objects.plain(stage, leaf, VEGETATION, 0.5, 40))


def tunnel(colours: Colours, rng: np.random.Generator) -> World:
    """Inside a lit tunnel whose end shows some daylight."""
    half, walk = 3.8 + 2.0 * float(rng.random()), 1.2 + 0.9 * float(rng.random())
    lines = ((0.0, float(rng.random()) < 0.5), (half - 0.3, False), (0.3 - half, False))
    world = World(Ground(half, walk, lines, lawn=True, salt=int(rng.integers(200))), colours, rng)
    weather(world)
    world.lane, world.fog, world.shade = half * 0.45, world.between(250, 500), 0.3
    world.roofed = world.between(26, 60)
    edge, tall = half + walk, world.between(4.6, 6.0)
    wall, salt = world.one(((0.62, 0.6, 0.55), (0.5, 0.5, 0.5), (0.66, 0.62, 0.5))), int(rng.integers(99))
    world.put((0.0, 0.0, 10.0), _tube, edge, tall, world.roofed, wall, salt, world.one((5.0, 6.5, 8.0)))
    for side in (-1, 1):
        cars(world, side, side * half * 0.5, 12.0 if side > 0 else 8.0, 80.0, (9.0, 22.0), 0.75)
        if world.chance(0.6):
            x = side * (half + 0.15)
            world.rail(x, world.between(2, 9), world.roofed, 0.95, "bars", (0.66, 0.64, 0.58))
        z = world.between(6, 12)
        while z < world.roofed:  # masts that carry cables and lamps along the wall
            world.put(
                (side * edge, 0, z), objects.pole, side * (edge - 0.2), z, tall, 0.22, (0.42, 0.42, 0.4), -side * 0.5
            )
            z += world.between(9, 15)
        for _ in world.many(0, 3):
            person(world, side * (half + 0.5 * walk), world.nearby(4.5, 22))
        for _ in range(7):
            tree(
                world,
                side * (edge + world.between(0.5, 9)),
                world.roofed + world.between(4, 60),
                (1.8, 4.2),
                (0.3, 2.0),
            )
        if world.chance(0.6):
            z = world.roofed + world.between(15, 50)
            house(world, side, edge + world.between(1, 5), z, z + 15, world.between(6, 14), 12, 0)
    signs(world, world.many(1, 3), half + 0.4 * walk, 24)
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
        person(world, world.between(-half - 3, half + 3), world.between(3.5, 30))
    for _ in range(7):
        x, z = world.between(-half, half), world.between(7, 35)
        angle = world.between(-1, 1)
        cosine, sine = (1 - angle * angle) / (1 + angle * angle), 2 * angle / (1 + angle * angle)
        car(world, x, z, (cosine, sine) if world.chance(0.6) else (sine, cosine))
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
