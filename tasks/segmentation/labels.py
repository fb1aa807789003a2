"""What the numbers or the colours of a label file mean, and `classes.json`, which says so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from tarot import InputError
from tasks.segmentation.scenes import IGNORE, Classes

_UNKNOWN = 254  # in tables: no class, and not to be ignored either


@dataclass(frozen=True)
class LabelCode:
    """ids: value in a label file -> class, or IGNORE; colours: the same for label files in RGB.

    A palette's colours do not count: the values of a palette image are its ids, as in GTA5.
    """

    ids: Mapping[int, int]
    colours: Mapping[tuple[int, int, int], int] = field(default_factory=dict)

    def decode(self, label: Image.Image, path: Path) -> np.ndarray:
        """uint8 [H, W], classes and IGNORE. Raises InputError for what is no id or colour; `path` is named in it."""
        if label.mode in ("RGB", "RGBA"):
            return self._of_colours(np.asarray(label.convert("RGB")), path)
        if label.mode not in ("L", "P", "I", "I;16", "1"):
            raise InputError(f"{path} is an image of mode {label.mode}; labels have ids (L, P, I) or colours (RGB)")
        return self._of_ids(np.asarray(label).astype(np.int64), path)

    def mapped(self, classes: Mapping[int, int]) -> LabelCode:
        """The same files, read as other classes: class -> class, or IGNORE."""
        classes = {**classes, IGNORE: IGNORE}
        ids = {label: classes[value] for label, value in self.ids.items()}
        return LabelCode(ids, {colour: classes[value] for colour, value in self.colours.items()})

    def _of_ids(self, label: np.ndarray, path: Path) -> np.ndarray:
        decoded = np.take(self._id_table, np.clip(label, -1, len(self._id_table) - 2))  # -1 is the last: unknown
        if (decoded == _UNKNOWN).any():
            row, column = np.argwhere(decoded == _UNKNOWN)[0]
            known = ", ".join(map(str, sorted(self.ids)))
            raise InputError(
                f"{path}: the label at row {row}, column {column} is {label[row, column]}; ids are {known}"
            )
        return decoded

    def _of_colours(self, label: np.ndarray, path: Path) -> np.ndarray:
        if not self.colours:
            raise InputError(f"{path} is coloured, and no colour is known: its classes.json gives none")
        decoded = self._colour_table[label.astype(np.uint32) @ np.array([65536, 256, 1], dtype=np.uint32)]
        if (decoded == _UNKNOWN).any():
            row, column = np.argwhere(decoded == _UNKNOWN)[0]
            raise InputError(
                f"{path}: the colour at row {row}, column {column} is {tuple(label[row, column].tolist())}, which is "
                "that of no class"
            )
        return decoded

    @cached_property
    def _id_table(self) -> np.ndarray:
        table = np.full(max(self.ids) + 3, _UNKNOWN, dtype=np.uint8)  # one more than is known, and one for -1
        for label, value in self.ids.items():
            table[label] = value
        return table

    @cached_property
    def _colour_table(self) -> np.ndarray:
        table = np.full(1 << 24, _UNKNOWN, dtype=np.uint8)
        for (red, green, blue), value in self.colours.items():
            table[red << 16 | green << 8 | blue] = value
        return table

    def __getstate__(self) -> dict:
        """Without the tables: workers make their own."""
        return {"ids": self.ids, "colours": self.colours}


def read_classes(path: Path) -> tuple[Classes, LabelCode]:
    """`classes.json`: {"classes": [{"id": 0, "name": "road", "color": [128, 64, 128]}, ...], "ignore_index": 11}.

    color is optional; ignore_index is optional, an id or a list of ids, which are no classes even where they are
    listed. Classes are numbered in the order of their ids. 255 is always ignored. Raises InputError where it is not so.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        ignored = content.get("ignore_index", [])
        ignored = {int(value) for value in (ignored if isinstance(ignored, list) else [ignored])} | {IGNORE}
        listed = {int(entry["id"]): (str(entry["name"]), entry.get("color")) for entry in content["classes"]}
        given = {label: colour for label, (_, colour) in listed.items() if colour}
        colours = {label: tuple(int(part) for part in colour) for label, colour in given.items()}
    except FileNotFoundError as error:
        raise InputError(f"{path} is not there: it names the classes of the labels") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} does not say what classes there are ({error!r}); see tasks/segmentation/labels.py"
        ) from error
    kept = [label for label in sorted(listed) if label not in ignored]
    if not 2 <= len(kept) <= 250 or len({listed[label][0] for label in kept}) < len(kept) or min(listed) < 0:
        raise InputError(f"{path} must name from 2 to 250 classes, each with an id and a name of its own")
    for label in kept:
        if not listed[label][0].isprintable():
            raise InputError(f"{path}: the name {listed[label][0]!a} has characters that cannot be shown; rename it")
    if any(len(colour) != 3 or not all(0 <= part <= 255 for part in colour) for colour in colours.values()):
        raise InputError(f"{path}: a color is three numbers from 0 to 255")
    shades = {label: (red, green, blue) for label, (red, green, blue) in colours.items()}
    shown = tuple(shades.get(label, _some_colour(number)) for number, label in enumerate(kept))
    ids = dict.fromkeys(ignored, IGNORE) | {label: number for number, label in enumerate(kept)}
    by_colour = {shades[label]: IGNORE for label in ignored if label in shades}
    by_colour |= {shades[label]: number for number, label in enumerate(kept) if label in shades}
    return Classes(tuple(listed[label][0] for label in kept), shown), LabelCode(ids, by_colour)


def match_classes(theirs: Classes, ours: Classes, given: Mapping[str, str | None] | None, where: str) -> dict[int, int]:
    """Their class -> ours, or IGNORE: by name, or as `given` says (null: ignored). Raises InputError for a name that
    is nobody's, or one of theirs that we do not have; `where` says whose classes they are."""
    given = dict(given or {})
    for name, other in given.items():
        if name not in theirs.names:
            raise InputError(f"class_map: {where} have no class {name!r}; they have {', '.join(theirs.names)}")
        if other is not None and other not in ours.names:
            raise InputError(f"class_map.{name}: there is no class {other!r}; there are {', '.join(ours.names)}")
    found = {name: given.get(name, name) for name in theirs.names}
    lost = [name for name, other in found.items() if other is not None and other not in ours.names]
    if lost:
        raise InputError(
            f"{where} have classes that the targets have not: {', '.join(lost)}; say what they are in class_map, "
            "null to ignore them"
        )
    return {
        number: IGNORE if found[name] is None else ours.names.index(found[name])
        for number, name in enumerate(theirs.names)
    }


def _some_colour(number: int) -> tuple[int, int, int]:
    """A colour for a class that has none: three bits of its number to each channel, the lowest ones brightest."""
    red, green, blue = (
        sum(((number + 1) >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)
    )
    return red, green, blue
