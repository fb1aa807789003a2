"""Street scenes made of code: `render` draws one, with the class of every pixel.

A scene is a pure function of its kind, seed and size. The seed alone decides which street stands there, so that the
same one can be seen at any size, by another camera, or under wrong labels.
"""

from __future__ import annotations

import numpy as np

from tarot import InputError
from tasks.segmentation.street.canvas import FINE, Camera, Canvas
from tasks.segmentation.street.domain import KINDS, Look, check_size
from tasks.segmentation.street.layouts import WORLDS, clutter
from tasks.segmentation.street.objects import SKY, Stage
from tasks.segmentation.street.world import World

SWAPPED = np.array([1, 0, 5, 4, 3, 2, 6, 8, 7], np.uint8)  # class -> the neighbour whose label it gets; sky stays
FALSE = np.array(  # the colour of each class in a false palette: grass-green roads, brown skies, blue leaves, ...
    [
        (0.5, 1.5, 0.5),
        (0.4, 0.9, 1.6),
        (0.5, 1.5, 1.3),
        (1.5, 0.4, 1.4),
        (1.6, 1.5, 0.3),
        (0.7, 0.5, 1.9),
        (1.25, 0.75, 0.45),
        (0.3, 1.7, 0.4),
        (1.3, 1.3, 0.7),
    ],
    np.float32,
)


def render(scene: str, seed: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """(image uint8 [H, W, 3], label uint8 [H, W] of places in CLASSES) of one scene; `scene` is a key of KINDS.

    Raises InputError for a kind that there is not, a negative seed, or a size below 16 x 16.
    """
    if scene not in KINDS:
        raise InputError(f"no kind of scene is called {scene!r}; there are {sorted(KINDS)}")
    if seed < 0:
        raise InputError(f"a scene's seed must be at least 0; it is {seed}")
    check_size(height, width)
    kind = KINDS[scene]
    layout, view, film, spoil = (np.random.default_rng([seed, stream]) for stream in range(4))
    mode = kind.modes[int(spoil.integers(len(kind.modes)))]
    world = WORLDS[mode](kind.look.colours, layout)
    if kind.spoilt == "clutter":
        clutter(world)
    canvas = Canvas(height, width, _camera(kind.camera, world, view))
    world.draw(Stage(canvas, kind.look.colours.texture, world.sun, 0.0 if world.roofed else world.shade))
    image = _developed(canvas, world, kind.look, film)
    label = np.ascontiguousarray(canvas.label[::FINE, ::FINE])
    if kind.spoilt == "inverted":
        image = 255 - image
    elif kind.spoilt == "false_colours":
        grey = image.astype(np.float32).sum(2, keepdims=True) / 3
        image = np.clip(grey * FALSE[label] * 0.85 + 0.5, 0, 255).astype(np.uint8)
    elif kind.spoilt == "swapped":
        label = SWAPPED[label]
    elif kind.spoilt == "displaced":
        down = int(height * (0.22 + 0.2 * float(spoil.random())))
        aside = int(width * (0.2 + 0.3 * float(spoil.random())))
        label = np.roll(label, (down, aside), (0, 1))
    return image, label


def _camera(name: str, world: World, rng: np.random.Generator) -> Camera:
    """Who looks at the street: the driver of a car, or somebody whose pictures are of little use to one."""

    def draw(low: float, high: float) -> float:
        return low + (high - low) * float(rng.random())

    driver = Camera(
        position=(world.lane + draw(-0.4, 0.4), draw(1.25, 1.65), 0.0),
        yaw=draw(-0.03, 0.03),
        pitch=draw(-0.015, 0.015),
        roll=draw(-0.008, 0.008),
        focal=draw(1.0, 1.2),
        centre=draw(0.42, 0.48),
    )
    half = world.ground.half
    side = 1.0 if rng.random() < 0.5 else -1.0
    if name == "birds_eye":
        place = (draw(-half, half), draw(16, 34), draw(-4, 12))
        return driver.moved(position=place, pitch=-draw(0.55, 0.95), yaw=draw(-0.5, 0.5), centre=0.5)
    if name == "tilted":
        return driver.moved(roll=side * draw(0.26, 0.6), pitch=draw(-0.05, 0.12))
    if name == "sideways":
        return driver.moved(
            position=(-side * half * 0.5, 2.0, draw(5, 14)), yaw=side * draw(0.8, 1.0), focal=draw(0.8, 1.0)
        )
    if name == "close_up":
        place = (-side * half * draw(0.0, 0.6), draw(2.6, 3.6), draw(2, 14))
        turned, lowered = side * draw(0.4, 0.9), -draw(0.14, 0.2)
        return driver.moved(position=place, yaw=turned, pitch=lowered, focal=draw(1.8, 2.4), centre=0.5)
    return driver


def _developed(canvas: Canvas, world: World, look: Look, rng: np.random.Generator) -> np.ndarray:
    """The photograph: fog, light and lens, uint8 [H, W, 3]."""
    colour, near = canvas.colour, canvas.nearness
    clear = near * np.float32(world.fog)
    clear = (clear * clear / (1 + clear * clear))[..., None]
    sky = canvas.label == SKY
    clear[sky] = 1
    haze: np.floating | np.ndarray
    if world.roofed:
        colour *= _tunnel_light(near, world.roofed, look.colours.lamps)
        haze = np.float32(0.5)
    else:
        haze = np.asarray(world.horizon, np.float32)
    colour = colour * clear + haze * (1 - clear)
    small = sum(colour[i::FINE, j::FINE] for i in range(FINE) for j in range(FINE)) * np.float32(1 / FINE**2)
    if look.blur:
        padded = np.pad(small, ((1, 1), (1, 1), (0, 0)), mode="edge")
        around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
        small = small * np.float32(1 - look.blur) + around * np.float32(look.blur / 4)
    grey = ((small[..., 0] + small[..., 1] + small[..., 2]) / 3)[..., None]
    small = grey + (small - grey) * np.float32(look.saturation)
    small = (small - np.float32(0.45)) * np.float32(look.contrast * world.gain) + np.float32(0.45 * world.gain)
    x = canvas.columns[::FINE, None] * canvas.camera.focal
    y = canvas.rows[::FINE, None] * canvas.camera.focal
    edge = 1 - np.float32(look.vignette) * (x.T * x.T + y * y)
    small *= edge[..., None] * np.asarray(look.gain, np.float32)
    noise = rng.integers(0, 256, (2, *small.shape), np.uint8)
    noise = noise[0].astype(np.float32) - noise[1].astype(np.float32)  # triangular; standard deviation 104.5
    small += noise * np.float32(look.noise / 104.5)
    return np.clip(small * 255 + 0.5, 0, 255).astype(np.uint8)


def _tunnel_light(near: np.ndarray, end: float, lamps: tuple[float, float, float]) -> np.ndarray:
    """Light by depth, [h, w, 3]: lamps' glow inside, daylight that comes in at the end, and glare beyond it."""
    depth = 1 / np.maximum(near, np.float32(1e-3))
    pulse = depth / np.float32(6.5)
    pulse = np.abs(pulse - np.floor(pulse) - np.float32(0.5))
    daylight = np.clip(1 - (np.float32(end) - depth) / 16, 0, 1)
    daylight = daylight * daylight
    glow = (np.float32(0.66) + np.float32(0.34) * pulse)[..., None] * np.asarray(lamps, np.float32)
    inside = glow + (daylight * np.float32(0.5))[..., None]
    return np.where((depth > end + 0.3)[..., None], np.float32(1.25), inside)
