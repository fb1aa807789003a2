"""What readers of all formats share: tracks of any layout into arrays, and what of a record cannot be used."""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, TypedDict

import numpy as np

from tarot import InputError

_SHOWN = 200
BAD_FRAMES = "frame of an agent that is said to be valid but is not finite"
BAD_LINES = "map line that is not finite or has no points"
BAD_LIGHTS = "traffic light without a place"
OTHER_LIGHTS = "traffic light whose states are not one for each frame"
BAD_TRACKS = "track of something else than vehicles, pedestrians and cyclists that lacks what tracks have"
NO_AREAS = "map without drivable areas"


class Arrays(TypedDict):
    """Those of a `Scenario`, by the names of its fields."""

    position: np.ndarray
    heading: np.ndarray
    velocity: np.ndarray
    size: np.ndarray
    valid: np.ndarray


def cleaned(
    position: np.ndarray, heading: np.ndarray, velocity: np.ndarray, size: np.ndarray, valid: np.ndarray
) -> tuple[Arrays, Counter[str]]:
    """The arrays of a `Scenario`: of its dtypes, finite where valid and 0 elsewhere, and how many frames are not valid
    although the record says so, because something in them is not finite. A size that is not finite is 0: it is only
    drawn."""
    said = np.asarray(valid).astype(bool)
    finite = np.isfinite(position).all(2) & np.isfinite(heading) & np.isfinite(velocity).all(2)
    kept = said & finite
    problems = Counter({BAD_FRAMES: int((said & ~finite).sum())})

    def zeroed(array: np.ndarray, dtype: type) -> np.ndarray:
        mask = kept if array.ndim == 2 else kept[..., None]
        return np.where(mask, array, 0).astype(dtype)

    arrays: Arrays = {
        "position": zeroed(position, np.float64),
        "heading": zeroed(heading, np.float32),
        "velocity": zeroed(velocity, np.float32),
        "size": zeroed(np.where(np.isfinite(size), size, 0), np.float32),
        "valid": kept,
    }
    return arrays, +problems


def _array(content: Any) -> np.ndarray:
    """float64, of an array, or of a list of numbers or of short rows of numbers. Deeper lists are refused: a small file
    can hold one list so often in others that an array of them fills the memory."""
    if isinstance(content, np.ndarray):
        return content.astype(np.float64)
    rows = [[float(n) for n in row[:4]] if isinstance(row, Sequence | np.ndarray) else float(row) for row in content]
    return np.array(rows, np.float64)


def points(content: Any) -> np.ndarray | None:
    """float64 [n, 2] of a list, tuple or array of points with 2 or more numbers each (the third is no height
    everywhere: nuScenes has the angle there); None where there are none or they are not finite."""
    try:
        array = _array(content)
    except (TypeError, ValueError):
        return None
    array = array[None] if array.ndim == 1 else array
    if array.ndim != 2 or not len(array) or array.shape[1] < 2 or not np.isfinite(array[:, :2]).all():
        return None
    return np.ascontiguousarray(array[:, :2])


def column(state: Mapping[str, Any], name: str, frames: int, width: int, where: str) -> np.ndarray:
    """float64 [T, width], or [T] of width 1, of a track's array [T, more] or [T] or [T, 1].

    Raises InputError where it is missing or of another shape.
    """
    if name not in state:
        raise InputError(f"{where} has no {name}")
    try:
        array = _array(state[name])
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {name} does not hold numbers") from error
    if width == 1:
        array = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
        good = array.shape == (frames,)
    else:
        good = array.ndim == 2 and len(array) == frames and array.shape[1] >= width
    if not good:
        raise InputError(f"{where}: {name} has shape {array.shape}; there are {frames} frames")
    return array[:, :width] if width > 1 else array


def names(content: Any, path: str | PathLike) -> tuple[str, ...]:
    """Ids of lanes, which some datasets write as numbers."""
    if isinstance(content, str | int):
        return (str(content),)
    return tuple(text(name, path) for name in content) if isinstance(content, Sequence | set | np.ndarray) else ()


def text(content: Any, path: str | PathLike) -> str:
    """A name or a kind, which may be a number. Raises InputError where it is a container, whose text has no bound."""
    if content is None or isinstance(content, str | bytes | int | float | np.generic):
        return str(content)
    raise InputError(f"{path} has {type(content).__name__} in the place of a name or a type")


def shown(value: Any) -> str:
    """A name or another text as it is, anything else as its `repr`; short, and on one line."""
    whole = value if isinstance(value, str) else reprlib.repr(value)
    return (whole if whole.isprintable() else ascii(whole)[1:-1])[:_SHOWN]
