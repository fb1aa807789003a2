"""A small deterministic renderer: a camera, a depth buffer, and flat quads painted by shading functions.

World axes are in metres: x to the right, y up, z ahead. Every quad is drawn by solving its plane for each pixel of the
window that it covers, so the same scene looks the same at any size, and any camera may look at it.

Only + - * / and square roots, which IEEE 754 rounds in one way, touch the pixels: no sine, no exponential, no BLAS,
and no reduction whose order depends on the machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

Vector = tuple[float, float, float]
NEAR = 0.2  # metres: nothing nearer is drawn
FINE = 2  # pixels are drawn this many times finer in each direction, and averaged
NOTHING = 255  # label of a pixel that nothing has covered


class Paint(NamedTuple):
    """What a shading function says of n points: colour [n, 3] float, label int or [n]; keep [n] bool cuts a shape out
    of the quad; opacity [n] or float lets through what was drawn before (the label stays the quad's)."""

    colour: np.ndarray
    label: int | np.ndarray
    keep: np.ndarray | None = None
    opacity: np.ndarray | float | None = None


Shader = Callable[[np.ndarray, np.ndarray], Paint]


def add(a: Vector, b: Vector, scale: float = 1.0) -> Vector:
    return a[0] + scale * b[0], a[1] + scale * b[1], a[2] + scale * b[2]


def times(a: Vector, scale: float) -> Vector:
    return a[0] * scale, a[1] * scale, a[2] * scale


def dot(a: Vector, b: Vector) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def cross(a: Vector, b: Vector) -> Vector:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def turn(half: float) -> tuple[float, float]:
    """(cosine, sine) of the angle whose half has the tangent `half`."""
    return (1 - half * half) / (1 + half * half), 2 * half / (1 + half * half)


@dataclass(frozen=True)
class Camera:
    """position: metres. yaw (to the right), pitch (upwards), roll: tangents of half the angle, so that no sine is
    needed. focal: in heights of the image. centre: the optical axis's place from the top, as a share of the height."""

    position: Vector = (0.0, 1.6, 0.0)
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    focal: float = 1.1
    centre: float = 0.5

    def axes(self) -> tuple[Vector, Vector, Vector]:
        """Right, up and ahead of the camera, in the world."""
        cosine, sine = turn(self.yaw)
        right, ahead = (cosine, 0.0, -sine), (sine, 0.0, cosine)
        cosine, sine = turn(self.pitch)
        up = add((0.0, cosine, 0.0), ahead, -sine)
        ahead = add((0.0, sine, 0.0), ahead, cosine)
        cosine, sine = turn(self.roll)
        return add(times(right, cosine), up, sine), add(times(up, cosine), right, -sine), ahead

    def moved(self, **changes: Any) -> Camera:
        return replace(self, **changes)


class Canvas:
    """Colours, labels and inverse depths of a picture that is being drawn."""

    def __init__(self, height: int, width: int, camera: Camera) -> None:
        self.camera, (self.right, self.up, self.ahead) = camera, camera.axes()
        self.height, self.width = height * FINE, width * FINE
        scale = camera.focal * self.height
        self.columns = ((np.arange(self.width, dtype=np.float32) + 0.5) - self.width / 2) / scale
        self.rows = (camera.centre * self.height - (np.arange(self.height, dtype=np.float32) + 0.5)) / scale
        self.scale = scale
        self.colour = np.zeros((self.height, self.width, 3), np.float32)
        self.label = np.full((self.height, self.width), NOTHING, np.uint8)
        self.nearness = np.zeros((self.height, self.width), np.float32)  # 1 / depth, 0 where nothing is

    def distance(self, point: Vector) -> float:
        """Depth of a point before the camera, metres."""
        return dot(add(point, self.camera.position, -1), self.ahead)

    def facing(self, point: Vector) -> Vector:
        """The level unit vector that runs to the right of who looks at `point` from the camera."""
        x, z = point[0] - self.camera.position[0], point[2] - self.camera.position[2]
        length = (x * x + z * z) ** 0.5
        return (z / length, 0.0, -x / length) if length > 0 else (1.0, 0.0, 0.0)

    def quad(self, origin: Vector, along: Vector, upwards: Vector, shade: Shader) -> None:
        """Draw origin + s along + t upwards for s, t in [0, 1], where it is nearer than what is there.

        From outside, `along` runs to the right and `upwards` up; from the other side nothing is seen.
        """
        cover = self._cover(origin, along, upwards)
        if cover is None:
            return
        points, s, t, r = cover
        paint = shade(s, t)
        colour, label, opacity = paint.colour, paint.label, paint.opacity
        if paint.keep is not None:
            kept = np.flatnonzero(paint.keep)
            points, r, colour = points[kept], r[kept], colour[kept]
            label = label[kept] if isinstance(label, np.ndarray) else label
            opacity = opacity[kept] if isinstance(opacity, np.ndarray) else opacity
        picture = self.colour.reshape(-1, 3)
        if opacity is not None:
            share = opacity[:, None] if isinstance(opacity, np.ndarray) else opacity
            colour = colour * share + picture[points] * (1 - share)
        picture[points] = colour
        self.label.reshape(-1)[points] = label
        self.nearness.reshape(-1)[points] = r

    def shadow(self, origin: Vector, along: Vector, upwards: Vector, darkness: Callable) -> None:
        """Darken what is drawn there already by darkness(s, t), which is 0 for no shadow."""
        cover = self._cover(origin, along, upwards, through=True)
        if cover is None:
            return
        points, s, t, _ = cover
        self.colour.reshape(-1, 3)[points] *= (1 - darkness(s, t))[:, None]

    def backdrop(self, shade: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray], label: int) -> None:
        """Fill what is still empty: shade(x, y, z) gives colours [n, 3] of unit directions in the world."""
        empty = self.label == NOTHING
        row, column = np.nonzero(empty)
        across, above = self.columns[column], self.rows[row]
        x, y, z = (across * self.right[i] + above * self.up[i] + self.ahead[i] for i in range(3))
        length = np.sqrt(x * x + y * y + z * z)
        self.colour[empty] = shade(x / length, y / length, z / length)
        self.label[empty] = label

    def _cover(
        self, origin: Vector, along: Vector, upwards: Vector, through: bool = False
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
        """The pixels where a quad is seen, as places in the flat picture, with s, t and 1/depth there; None if nowhere.
        through: also where something nearer hides it."""
        o, u, v = self._turned(add(origin, self.camera.position, -1)), self._turned(along), self._turned(upwards)
        normal = cross(u, v)
        volume = dot(o, normal)
        if volume <= 1e-9:
            return None
        window = self._window((o, add(o, u), add(add(o, u), v), add(o, v)))
        if window is None:
            return None
        rows, columns = self.rows[window[0]], self.columns[window[1]]
        # Cramer's rule: s/depth, t/depth and 1/depth are linear in the pixel.
        of_s, of_t, of_r = (times(form, 1 / volume) for form in (cross(v, o), cross(o, u), normal))
        r = (rows * of_r[1] + of_r[2])[:, None] + columns * of_r[0]
        inside = r > (0 if through else self.nearness[window])
        if not inside.any():
            return None
        p = (rows * of_s[1] + of_s[2])[:, None] + columns * of_s[0]
        q = (rows * of_t[1] + of_t[2])[:, None] + columns * of_t[0]
        inside &= (p >= 0) & (p <= r) & (q >= 0) & (q <= r)
        places = np.flatnonzero(inside)
        if not places.size:
            return None
        r = r.reshape(-1)[places]
        wide = columns.size
        points = (places // wide + window[0].start) * self.width + (places % wide + window[1].start)
        return points, p.reshape(-1)[places] / r, q.reshape(-1)[places] / r, r

    def _turned(self, vector: Vector) -> Vector:
        return dot(vector, self.right), dot(vector, self.up), dot(vector, self.ahead)

    def _window(self, corners: tuple[Vector, ...]) -> tuple[slice, slice] | None:
        points = []
        for i, corner in enumerate(corners):
            before = corners[i - 1]
            if (before[2] < NEAR) != (corner[2] < NEAR):
                points.append(add(before, add(corner, before, -1), (NEAR - before[2]) / (corner[2] - before[2])))
            if corner[2] >= NEAR:
                points.append(corner)
        if not points:
            return None
        x = [p[0] / p[2] * self.scale + self.width / 2 for p in points]
        y = [self.camera.centre * self.height - p[1] / p[2] * self.scale for p in points]
        left, right = max(0, int(max(min(x), 0)) - 1), min(self.width, int(min(max(x), self.width)) + 2)
        top, bottom = max(0, int(max(min(y), 0)) - 1), min(self.height, int(min(max(y), self.height)) + 2)
        if max(x) < 0 or max(y) < 0 or left >= right or top >= bottom:
            return None
        return slice(top, bottom), slice(left, right)


@lru_cache(maxsize=1)
def _tiles() -> tuple[np.ndarray, np.ndarray]:
    """A tile of smooth noise and one of white noise, float32 [256, 256] in [-1, 1], that repeat without a seam."""
    rng = np.random.default_rng(20250)
    smooth = np.zeros((256, 256), np.float32)
    for cells, weight in ((8, 0.4), (16, 0.3), (32, 0.2), (64, 0.15)):
        step = 256 // cells
        layer = rng.integers(-256, 257, (cells, cells)).astype(np.float32) / 256
        ramp = np.arange(step, dtype=np.float32) / step
        ramp = ramp * ramp * (3 - 2 * ramp)
        below = np.roll(layer, -1, 0)
        layer = (layer[:, None] + (below - layer)[:, None] * ramp[None, :, None]).reshape(256, cells)
        beside = np.roll(layer, -1, 1)
        layer = (layer[:, :, None] + (beside - layer)[:, :, None] * ramp).reshape(256, 256)
        smooth += weight * layer
    white = rng.integers(-256, 257, (256, 256)).astype(np.float32) / 256
    return smooth, white


def grain(u: np.ndarray, v: np.ndarray, salt: int = 0) -> np.ndarray:
    """Smooth noise in about [-1, 1] at the points u, v >= -1e6; its coarsest features are 32 units wide."""
    return _tiles()[0][_cell(v) + 7 * salt & 255, _cell(u) + 13 * salt & 255]


def scatter(u: np.ndarray, v: np.ndarray, salt: int = 0) -> np.ndarray:
    """A random number in [-1, 1] for every unit cell that a point lies in."""
    return _tiles()[1][_cell(v) + 7 * salt & 255, _cell(u) + 13 * salt & 255]


def _cell(values: np.ndarray) -> np.ndarray:
    return np.floor(values).astype(np.int32)


def fraction(values: np.ndarray, period: float) -> np.ndarray:
    """Place of each value in its period, in [0, 1)."""
    scaled = values * (1 / period)
    return scaled - np.floor(scaled)


def between(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return (values >= low) & (values < high)


def mixed(base: tuple[float, float, float], brightness: np.ndarray) -> np.ndarray:
    """The colour `base` at each brightness, float32 [n, 3]."""
    return brightness.astype(np.float32)[:, None] * np.asarray(base, np.float32)
