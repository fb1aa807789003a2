"""What stands in a street, and which class it is: each function draws one thing with a `Stage`'s camera and colours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tasks.segmentation.street.canvas import (
    Canvas,
    Paint,
    Shader,
    Vector,
    add,
    between,
    fraction,
    grain,
    mixed,
    scatter,
    times,
)

CLASSES = ("road", "sidewalk", "building", "fence", "pole", "vegetation", "sky", "person", "car")
PALETTE = np.array(  # Cityscapes' colours of these classes
    [
        (128, 64, 128),
        (244, 35, 232),
        (70, 70, 70),
        (190, 153, 153),
        (153, 153, 153),
        (107, 142, 35),
        (70, 130, 180),
        (220, 20, 60),
        (0, 0, 142),
    ],
    np.uint8,
)
ROAD, SIDEWALK, BUILDING, FENCE, POLE, VEGETATION, SKY, PERSON, CAR = range(9)
Colour = tuple[float, float, float]


@dataclass
class Stage:
    """Where things are drawn, and how rough their surfaces look (`texture`). sun: from -1 (left) to 1 (right)."""

    canvas: Canvas
    texture: float = 1.0
    sun: float = 0.3
    shade: float = 0.45  # how dark a shadow is; 0 under a covered sky

    def light(self, side: str) -> float:
        """Brightness of a face by where it looks: left, right, front (to the camera), top."""
        return {"left": 0.84 - 0.22 * self.sun, "right": 0.84 + 0.22 * self.sun, "front": 0.82, "top": 1.1}[side]


def pick(values: np.ndarray, *cases: tuple[np.ndarray, Colour]) -> np.ndarray:
    """`values` [n, 3], overwritten by each colour where its mask holds."""
    for mask, colour in cases:
        values[mask] = np.asarray(colour, np.float32)
    return values


Faces = Callable[[str, float, float], Shader]  # (side, width, height) of a box's face


def box(stage: Stage, low: Vector, high: Vector, shade: Faces) -> None:
    """The five visible faces of a box that stands along the street; shade(side, width, height) gives a shader."""
    (x0, y0, z0), (x1, y1, z1) = low, high
    width, height, depth = x1 - x0, y1 - y0, z1 - z0
    rise, quad = (0.0, height, 0.0), stage.canvas.quad
    quad((x0, y0, z0), (width, 0, 0), rise, shade("front", width, height))
    quad((x0, y0, z1), (0, 0, -depth), rise, shade("left", depth, height))
    quad((x1, y0, z0), (0, 0, depth), rise, shade("right", depth, height))
    quad((x0, y1, z0), (width, 0, 0), (0, 0, depth), shade("top", width, depth))


def plain(stage: Stage, colour: Colour, label: int, rough: float = 0.12, scale: float = 12.0) -> Faces:
    """A shader for `box`: one colour with some grain."""

    def face(side: str, width: float, height: float) -> Shader:
        def shade(s: np.ndarray, t: np.ndarray) -> Paint:
            noise = grain(s * (width * scale), t * (height * scale), len(side))
            return Paint(mixed(colour, stage.light(side) * (1 + stage.texture * rough * noise)), label)

        return shade

    return face


def facade(stage: Stage, wall: Colour, kind: int, salt: int) -> Faces:
    """A shader for `box`: a house's outside. kind: 0 windows in a wall, 1 bands of glass, 2 a shop below windows,
    3 a small house."""
    cell, storey = ((2.6, 3.1), (4.2, 3.6), (3.0, 3.2), (3.4, 2.8))[kind]
    margin = ((0.28, 0.72), (0.06, 0.94), (0.22, 0.78), (0.3, 0.7))[kind]

    def face(side: str, width: float, height: float) -> Shader:
        light = stage.light(side)
        if side == "top":
            return plain(stage, (0.42, 0.4, 0.39), BUILDING)("top", width, height)

        def shade(s: np.ndarray, t: np.ndarray) -> Paint:
            u, v = s * width, t * height
            brightness = light * (1 + stage.texture * (0.1 * grain(u * 6, v * 6, salt) + 0.04 * scatter(u * 4, v * 9)))
            brightness = np.where(v > height - 0.5, brightness * 1.18, brightness)
            colour = mixed(wall, brightness)
            column, row = u / cell, (v - 0.2) / storey
            across, above = column - np.floor(column), row - np.floor(row)
            chance = scatter(column, row, salt)
            glass = between(across, *margin) & between(above, 0.3, 0.82) & (v < height - 0.7)
            if kind == 2:
                glass = np.where(v < 3.3, between(across, 0.06, 0.94) & between(v, 0.5, 2.5), glass)
                awning = between(v, 2.55, 3.2)
                shop = np.floor(column * 0.5)
                hue = np.stack([0.45 + 0.35 * scatter(shop, shop * 0, salt + i) for i in range(3)], 1) * light
                colour = np.where(awning[:, None], hue, colour)
            frame = glass & ~(between(across, margin[0] + 0.05, margin[1] - 0.05) & between(above, 0.34, 0.78))
            pane = 0.2 + 0.14 * chance + 0.22 * above * light
            colour[glass] = mixed((0.8, 0.95, 1.12), pane[glass])
            colour[frame] = mixed((1.1, 1.1, 1.05), brightness[frame] * 0.62)
            if kind == 3:
                door = (np.abs(u - width * 0.5) < 0.55) & (v < 2.2)
                colour[door] = np.asarray((0.3, 0.17, 0.12), np.float32) * light
            return Paint(colour, BUILDING)

        return shade

    return face


def gable_roof(stage: Stage, low: Vector, high: Vector, rise: float, tile: Colour, wall: Colour, salt: int) -> None:
    """A roof whose ridge runs along the street, over the box from `low` to `high`."""
    (x0, _, z0), (x1, y, z1) = low, high
    middle, eave = (x0 + x1) / 2, 0.4
    half = (x1 - x0) / 2 + eave
    lift, run = rise * half / (half - eave), z1 - z0
    base = y + rise - lift

    def slope(light: float) -> Shader:
        def shade(s: np.ndarray, t: np.ndarray) -> Paint:
            rows = fraction(t, 0.1)
            noise = 0.12 * scatter(s * 30, t * 10, salt) + 0.08 * grain(s * 60, t * 40, salt)
            return Paint(mixed(tile, light * (1.05 - 0.25 * (rows < 0.2) + stage.texture * noise)), BUILDING)

        return shade

    def gable(s: np.ndarray, t: np.ndarray) -> Paint:
        colour = mixed(wall, stage.light("front") * (1 + 0.06 * stage.texture * grain(s * 40, t * 20, salt)))
        colour[(np.abs(s - 0.5) < 0.07) & between(t, 0.2, 0.5)] = (0.22, 0.25, 0.3)
        return Paint(colour, BUILDING, t < 1 - np.abs(2 * s - 1))

    quad = stage.canvas.quad
    quad((x0 - eave, base, z1), (0, 0, -run), (half, lift, 0), slope(stage.light("left")))
    quad((x1 + eave, base, z0), (0, 0, run), (-half, lift, 0), slope(stage.light("right")))
    quad((middle - half, base, z0), (2 * half, 0, 0), (0, lift, 0), gable)


@dataclass(frozen=True)
class Body:
    """A car's shape in metres: the cabin stands on the body from `back` to `front`, both measured from its ends."""

    length: float
    width: float
    belt: float
    roof: float
    back: float
    front: float


BODIES = (
    Body(4.4, 1.8, 0.92, 1.45, 0.5, 1.3),
    Body(3.9, 1.75, 0.98, 1.52, 0.05, 0.95),
    Body(4.6, 1.95, 1.1, 1.8, 0.05, 1.1),
)
VAN = Body(5.6, 2.1, 1.3, 2.5, 0.0, 0.7)


def car(stage: Stage, x: float, z: float, ahead: tuple[float, float], body: Body, colour: Colour) -> None:
    """A car whose middle is at (x, 0, z) and whose front looks along the unit vector `ahead` = (x, z)."""
    f, r = (ahead[0], 0.0, ahead[1]), (ahead[1], 0.0, -ahead[0])
    length, width, half, side = body.length, body.width, body.length / 2, body.width / 2
    tall = body.roof - body.belt

    def at(right: float, y: float, forward: float) -> Vector:
        return add(add((x, y, z), r, right), f, forward)

    def light(normal: Vector) -> float:
        return 0.8 + 0.2 * stage.sun * normal[0] - 0.08 * normal[2]

    def flank(s: np.ndarray, t: np.ndarray, light: float) -> Paint:
        u, v = s * length, t * body.belt
        paint = mixed(colour, light * (0.72 + 0.4 * t))
        wheel = np.minimum((u - 0.85) ** 2, (u - length + 0.85) ** 2) + (v - 0.34) ** 2
        pick(paint, (v < 0.3, (0.06, 0.06, 0.06)), (between(u % 1.45, 0.0, 0.04) & (v > 0.35), (0.1, 0.1, 0.1)))
        pick(paint, (wheel < 0.34**2, (0.05, 0.05, 0.05)), (wheel < 0.19**2, (0.5, 0.5, 0.52)))
        return Paint(paint, CAR, (v > 0.12) | (wheel < 0.34**2))

    def end(s: np.ndarray, t: np.ndarray, lamps: Colour, light: float) -> Paint:
        u, v = np.abs(s - 0.5) * width, t * body.belt
        paint = mixed(colour, light * (0.75 + 0.3 * t))
        lamp = (u > side - 0.42) & (u < side - 0.06) & between(v, body.belt - 0.34, body.belt - 0.14)
        pick(paint, (v < 0.42, (0.1, 0.1, 0.1)), ((u < 0.26) & between(v, 0.46, 0.6), (0.85, 0.85, 0.8)), (lamp, lamps))
        pick(paint, (v < 0.2, (0.04, 0.04, 0.04)))
        return Paint(paint, CAR, (v > 0.12) | (u > side - 0.26))

    def glass(s: np.ndarray, t: np.ndarray, light: float, lean: tuple[float, float] | None = None) -> Paint:
        paint = mixed((0.85, 0.95, 1.05), 0.16 + 0.3 * t * light)
        cabin = length - body.back - body.front
        if lean is None:  # the windscreen or the rear window
            return Paint(
                np.where(((t > 0.88) | (np.abs(s - 0.5) > 0.45))[:, None], mixed(colour, t * 0 + light), paint), CAR
            )
        first, last = lean
        keep = (s * cabin >= first * t) & (s * cabin <= cabin - last * t)
        post = (
            (t > 0.85)
            | (np.abs(s - 0.48) < 0.025)
            | (s * cabin < first * t + 0.1)
            | (s * cabin > cabin - last * t - 0.1)
        )
        return Paint(np.where(post[:, None], mixed(colour, t * 0 + light), paint), CAR, keep)

    def lid(s: np.ndarray, t: np.ndarray) -> Paint:
        return Paint(mixed(colour, 1.02 + 0.1 * grain(s * 20, t * 40)), CAR)

    quad, up, high = stage.canvas.quad, (0.0, body.belt, 0.0), (0.0, tall, 0.0)
    minus_r, minus_f = times(r, -1), times(f, -1)
    rear, front = 0.55 * min(1.0, tall), 0.85 * min(1.0, tall)  # how far the windows lean
    if body is VAN:
        rear, front = 0.05, 0.5
    start, stop = -half + body.back, half - body.front
    quad(at(-side, 0, -half), times(r, width), up, lambda s, t: end(s, t, (0.75, 0.05, 0.05), light(minus_f)))
    quad(at(side, 0, half), times(r, -width), up, lambda s, t: end(s, t, (0.98, 0.97, 0.85), light(f)))
    quad(at(side, 0, -half), times(f, length), up, lambda s, t: flank(s, t, light(r)))
    quad(at(-side, 0, half), times(f, -length), up, lambda s, t: flank(s, t, light(minus_r)))
    quad(at(-side, body.belt, -half), times(r, width), times(f, length), lid)
    inner = side - 0.06
    quad(
        at(-inner, body.belt, start), times(r, 2 * inner), add(high, f, rear), lambda s, t: glass(s, t, light(minus_f))
    )
    quad(at(inner, body.belt, stop), times(r, -2 * inner), add(high, f, -front), lambda s, t: glass(s, t, light(f)))
    quad(at(inner, body.belt, start), times(f, stop - start), high, lambda s, t: glass(s, t, light(r), (rear, front)))
    quad(
        at(-inner, body.belt, stop),
        times(f, start - stop),
        high,
        lambda s, t: glass(s, t, light(minus_r), (front, rear)),
    )
    quad(at(-inner, body.roof, start + rear), times(r, 2 * inner), times(f, stop - start - rear - front), lid)


def person(
    stage: Stage, x: float, z: float, tall: float, stride: float, clothes: tuple[Colour, Colour, Colour]
) -> None:
    """Someone on foot, who turns to the camera; clothes: coat, trousers and skin."""

    def shade(s: np.ndarray, t: np.ndarray) -> Paint:
        u, v = (s - 0.5) * 0.9, t * 1.8
        wide = np.abs(u)
        head = u * u + (v - 1.62) ** 2 * 0.75 < 0.0145
        trunk = between(v, 0.82, 1.47) & (wide < 0.2 + 0.05 * (v > 1.1))
        arms = between(v, 0.85, 1.42) & (np.abs(wide - 0.29 + 0.03 * (v - 0.85)) < 0.055)
        step = stride * (0.9 - v)
        legs = (v < 0.86) & ((np.abs(u - 0.08 - step) < 0.085) | (np.abs(u + 0.08 + step) < 0.085))
        tone = 0.9 + 0.2 * stage.sun * u * 4
        paint = mixed(clothes[0], tone)
        pick(paint, (legs, clothes[1]), (head, clothes[2]), (head & (v > 1.67), (0.14, 0.1, 0.07)))
        pick(paint, (legs & (v < 0.09), (0.08, 0.07, 0.07)))
        return Paint(paint, PERSON, head | trunk | arms | legs)

    right = stage.canvas.facing((x, 0.0, z))
    scale = tall / 1.8
    origin = add((x, 0.0, z), right, -0.45 * scale)
    stage.canvas.quad(origin, times(right, 0.9 * scale), (0, tall, 0), shade)


def tree(stage: Stage, x: float, z: float, radius: float, trunk: float, slim: float, leaf: Colour, salt: int) -> None:
    """A trunk and a crown, `slim` times as tall as wide."""

    def bark(s: np.ndarray, t: np.ndarray) -> Paint:
        return Paint(mixed((0.3, 0.23, 0.17), 0.7 + 0.5 * s + 0.3 * grain(s * 8, t * 30, salt)), VEGETATION)

    def crown(s: np.ndarray, t: np.ndarray) -> Paint:
        u, v = 2 * s - 1, 2 * t - 1
        edge = 0.72 + 0.34 * grain(s * 48, t * 48, salt) + 0.26 * grain(s * 170, t * 170, salt)
        leaves = 0.8 * grain(s * 90, t * 90, salt + 3) + 0.5 * grain(s * 230, t * 230, salt)
        sunny = 0.85 + 0.28 * v + 0.25 * stage.sun * u
        return Paint(mixed(leaf, sunny * (1 + stage.texture * 0.55 * leaves)), VEGETATION, u * u + v * v < edge)

    canvas = stage.canvas
    right = canvas.facing((x, 0.0, z))
    thick = 0.1 + 0.06 * radius
    canvas.quad(add((x, 0.0, z), right, -thick), times(right, 2 * thick), (0, trunk + radius * 0.5, 0), bark)
    middle = (x, trunk + radius * slim * 0.85, z)
    up = times(canvas.up, radius * slim)
    corner = add(add(middle, canvas.right, -radius), up, -1)
    canvas.quad(corner, times(canvas.right, 2 * radius), times(up, 2), crown)


def pole(stage: Stage, x: float, z: float, tall: float, thick: float, colour: Colour, arm: float = 0.0) -> None:
    """A mast; arm: how far its lamp reaches over the road, metres to the right."""

    def shade(s: np.ndarray, t: np.ndarray) -> Paint:
        return Paint(mixed(colour, 0.7 + 0.5 * s), POLE)

    canvas = stage.canvas
    right = canvas.facing((x, 0.0, z))
    canvas.quad(add((x, 0.0, z), right, -thick / 2), times(right, thick), (0, tall, 0), shade)
    if arm:
        start = (min(x, x + arm), tall - 0.12, z)
        canvas.quad(start, (abs(arm), 0, 0), (0, 0.14, 0), shade)
        canvas.quad((x + arm - 0.4, tall - 0.25, z), (0.8, 0, 0), (0, 0.22, 0), shade)


SIGNS = ("disc", "triangle", "square", "lights")


def sign(stage: Stage, x: float, z: float, bottom: float, size: float, kind: str, colour: Colour) -> None:
    """A board or a traffic light on a mast; it looks to the camera's end of the street."""

    def shade(s: np.ndarray, t: np.ndarray) -> Paint:
        u, v = 2 * s - 1, 2 * t - 1
        if kind == "lights":
            paint = mixed((0.1, 0.1, 0.1), 1 + 0 * s)
            for height, lamp in ((0.66, (0.95, 0.1, 0.08)), (0.0, (0.35, 0.25, 0.02)), (-0.66, (0.02, 0.3, 0.12))):
                paint[u * u + (3 * (v - height)) ** 2 < 0.5] = lamp
            return Paint(paint, POLE)
        shape = np.maximum(np.abs(u), np.abs(v))
        if kind == "disc":
            shape = u * u + v * v
        elif kind == "triangle":
            shape = np.maximum(2 * np.abs(u) + v, -v - 0.05)
        paint = mixed(colour, 1 + 0 * s)
        paint[shape < 0.62] = (0.93, 0.93, 0.92)
        if kind == "square":
            paint = np.where((shape < 0.85)[:, None], mixed(colour, 1 + 0 * s), np.float32(0.9))
        return Paint(paint, POLE, shape < 1)

    tall = size * (2.6 if kind == "lights" else 1.0)
    pole(stage, x, z, bottom + 0.3 * tall, 0.12, (0.5, 0.5, 0.5))
    stage.canvas.quad((x - size / 2, bottom, z - 0.08), (size, 0, 0), (0, tall, 0), shade)


def railing(stage: Stage, x: float, z0: float, z1: float, tall: float, kind: str, colour: Colour) -> None:
    """A fence along the street: "boards" hide what is behind, "bars" let it shine through."""

    def shade(s: np.ndarray, t: np.ndarray) -> Paint:
        u, v = s * (z1 - z0), t * tall
        if kind == "boards":
            gap = fraction(u, 0.5) < 0.09
            tone = 0.9 - 0.45 * gap + stage.texture * (0.1 * scatter(u * 2, v * 0, 5) + 0.1 * grain(u * 9, v * 3, 4))
            return Paint(mixed(colour, tone), FENCE)
        solid = (fraction(u, 0.24) < 0.28) | (v > tall - 0.12) | between(v, 0.08, 0.18) | (fraction(u, 2.4) < 0.07)
        return Paint(mixed(colour, 0.95 - 0.1 * t), FENCE, None, np.where(solid, 1.0, 0.35).astype(np.float32))

    run = z1 - z0
    stage.canvas.quad((x, 0, z0), (0, 0, run), (0, tall, 0), shade)  # seen from the right of it
    stage.canvas.quad((x, 0, z1), (0, 0, -run), (0, tall, 0), shade)


def soft_shadow(stage: Stage, x: float, z: float, wide: float, deep: float, strength: float = 1.0) -> None:
    """A dark ellipse on the ground."""

    def darkness(s: np.ndarray, t: np.ndarray) -> np.ndarray:
        radius = (2 * s - 1) ** 2 + (2 * t - 1) ** 2
        return strength * np.clip(1.15 * (1 - radius), 0, 0.62)

    stage.canvas.shadow((x - wide / 2, 0.0, z - deep / 2), (wide, 0, 0), (0, 0, deep), darkness)
