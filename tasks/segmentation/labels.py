"""What the numbers or the colours of a label file mean, and `classes.json`, which says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from tarot import InputError
from tarot.common import no_such, read_json
from tasks.segmentation.scenes import IGNORE, Classes

_LARGEST_ID = 65_535  # of a label in 16 bits
_UNKNOWN = 254  # in tables: no class, and not to be ignored either


@dataclass(frozen=True)
class LabelCode:
    """ids: value in a label file -> class, or IGNORE; colours: the same for label files in RGB.

    unsaid: ids that are ignored although nobody said so; a file of these and 0 alone is refused, as the mask of an
    object that would be ignored.
    """

    ids: Mapping[int, int]
    colours: Mapping[tuple[int, int, int], int] = field(default_factory=dict)
    unsaid: frozenset[int] = frozenset()

    def decode(self, label: Image.Image, path: Path) -> np.ndarray:
        """uint8 [H, W], classes and IGNORE. Raises InputError for what is no id or colour; `path` is named in it.

        A label with a palette has the colours of its palette where that is made of the classes' colours without being
        in the order of their ids; otherwise, as in GTA5, its values are ids.
        """
        if label.mode in ("RGBA", "LA"):
            label = self._opaque(label, path)
        if label.mode == "RGB":
            return self._of_colours(np.asarray(label), path)
        if label.mode not in ("L", "P", "I", "I;16", "I;16L", "I;16B", "1"):
            raise InputError(f"{path} is an image of mode {label.mode}; labels have ids (L, P, I) or colours (RGB)")
        values = np.asarray(label).astype(np.int64)
        if label.mode == "P" and (palette := self._palette(label, values)) is not None:
            return self._of_colours(palette[values], path)
        self._refuse_mask(values, path)
        return self._of_ids(values, path)

    def mapped(self, classes: Mapping[int, int]) -> LabelCode:
        """The same files, read as other classes: class -> class, or IGNORE."""
        classes = {**classes, IGNORE: IGNORE}
        ids = {label: classes[value] for label, value in self.ids.items()}
        return LabelCode(ids, {colour: classes[value] for colour, value in self.colours.items()}, self.unsaid)

    def listed(self) -> list[list[int]]:
        """All of it as plain data, for fingerprints: [id, class] and [red, green, blue, class]."""
        ids = [list(pair) for pair in sorted(self.ids.items())]
        return ids + [[*colour, value] for colour, value in sorted(self.colours.items())]

    def _opaque(self, label: Image.Image, path: Path) -> Image.Image:
        if np.asarray(label.convert("RGBA"))[..., 3].min() < 255:
            raise InputError(f"{path} is transparent in places, where no class can be told; write it without alpha")
        return label.convert("L" if label.mode == "LA" else "RGB")

    def _palette(self, label: Image.Image, values: np.ndarray) -> np.ndarray | None:
        """uint8 [P, 3] where the palette's colours say what the classes are; None where its indices are ids."""
        flat = label.getpalette("RGB")
        if not self.colours or not flat:
            return None
        palette = np.array(flat, dtype=np.uint8).reshape(-1, 3)
        by_colour = [self.colours.get((red, green, blue)) for red, green, blue in palette.tolist()]
        by_id = [self.ids.get(index, IGNORE) for index in range(len(palette))]
        used = np.flatnonzero(np.bincount(values.ravel())).tolist()
        if used[-1] >= len(palette) or any(by_colour[index] is None for index in used):
            return None
        filled = [index for index in range(len(palette)) if palette[index].any() or index in used]
        agreed = [by_colour[index] == by_id[index] for index in filled if by_id[index] != IGNORE]
        if agreed and all(agreed):
            return None
        length = max(used[-1] + 1, len(palette) - _padding(palette))
        all_known = None not in by_colour[:length]
        all_there = set(self.colours) <= {(red, green, blue) for red, green, blue in palette.tolist()}
        unknown_ids = any(index not in self.ids for index in used)
        return palette if all_known or all_there or unknown_ids else None

    def _refuse_mask(self, values: np.ndarray, path: Path) -> None:
        highest = int(values.max())
        if highest in self.unsaid and (values == 0).any() and np.isin(values, (0, highest)).all():
            raise InputError(
                f"{path} has the values 0 and {highest} alone, as a mask has, and {highest} is ignored; list "
                f"{highest} in classes.json as the id of a class, or under ignore_index where it is none"
            )

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
        return {"ids": self.ids, "colours": self.colours, "unsaid": self.unsaid}


def read_classes(path: Path) -> tuple[Classes, LabelCode]:
    """`classes.json`: {"classes": [{"id": 0, "name": "road", "color": [128, 64, 128]}, ...], "ignore_index": 11}.

    color is optional; ignore_index is optional, an id or a list of ids, which are no classes even where they are
    listed. Classes are numbered in the order of their ids, which are whole numbers from 0 to 65,535. 255 is ignored
    unless it is listed. Raises InputError where it is not so, and where an id, a name or a colour is there twice.
    """
    if not path.exists():
        raise InputError(f"{path} is not there: it names the classes of the labels")
    content = read_json(path)
    try:
        given = content.get("ignore_index", [])
        ignored = {_id(value) for value in (given if isinstance(given, list) else [given])}
        entries = [(_id(entry["id"]), str(entry["name"]), _colour(entry.get("color"))) for entry in content["classes"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} does not say what classes there are ({error!r}); see tasks/segmentation/labels.py"
        ) from error
    listed = {label: (name, colour) for label, name, colour in entries}
    if len(listed) < len(entries):
        (label, count), *_ = Counter(label for label, _, _ in entries).most_common(1)
        raise InputError(f"{path} has the id {label} {count} times; an id is of one class")
    unsaid = {IGNORE} - ignored - set(listed)
    ignored |= unsaid
    kept = [label for label in sorted(listed) if label not in ignored]
    if not 2 <= len(kept) <= 250 or len({listed[label][0] for label in kept}) < len(kept):
        raise InputError(f"{path} must name from 2 to 250 classes, each with an id and a name of its own")
    for label in kept:
        if not listed[label][0].isprintable():
            raise InputError(f"{path}: the name {listed[label][0]!a} has characters that cannot be shown; rename it")
    ids = dict.fromkeys(ignored, IGNORE) | {label: number for number, label in enumerate(kept)}
    by_colour: dict[tuple[int, int, int], int] = {}
    for label, (name, colour) in sorted(listed.items()):
        if colour is not None and by_colour.setdefault(colour, ids[label]) != ids[label]:
            raise InputError(
                f"{path} gives the colour {list(colour)} to {name} and to another class; a colour is of one class "
                "(leave color out where labels have ids)"
            )
    shown = tuple(listed[label][1] or _some_colour(number) for number, label in enumerate(kept))
    return Classes(tuple(listed[label][0] for label in kept), shown), LabelCode(ids, by_colour, frozenset(unsaid))


def _id(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LARGEST_ID:
        raise ValueError(f"an id is a whole number from 0 to {_LARGEST_ID:,}, not {value!r:.40}")
    return value


def _colour(value: object) -> tuple[int, int, int] | None:
    if value is None:
        return None
    parts = value if isinstance(value, list) else []
    if len(parts) != 3 or not all(type(part) is int and 0 <= part <= 255 for part in parts):
        raise ValueError(f"a color is three whole numbers from 0 to 255, not {value!r:.40}")
    red, green, blue = parts
    return red, green, blue


def match_classes(theirs: Classes, ours: Classes, given: Mapping[str, str | None] | None, where: str) -> dict[int, int]:
    """Their class -> ours, or IGNORE: by name, or as `given` says (null: ignored). Raises InputError for a name that
    is nobody's, or one of theirs that we do not have; `where` says whose classes they are."""
    given = dict(given or {})
    for name, other in given.items():
        if name not in theirs.names:
            raise InputError(f"class_map: {where} have no class {name!r}; they have {', '.join(theirs.names)}")
        if other is not None and other not in ours.names:
            raise InputError(f"class_map.{name}: {no_such('class', other, ours.names)}")
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


def _padding(palette: np.ndarray) -> int:
    """How many entries at the end of a palette are black, as writers fill it up."""
    coloured = np.flatnonzero(palette.any(axis=1))
    return len(palette) - (int(coloured[-1]) + 1 if len(coloured) else 0)


def _some_colour(number: int) -> tuple[int, int, int]:
    """A colour for a class that has none: three bits of its number to each channel, the lowest ones brightest."""
    red, green, blue = (
        sum(((number + 1) >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)
    )
    return red, green, blue
