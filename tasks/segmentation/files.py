"""Scenes on disk: pairs of an image and its label, looked up when the task starts and decoded one by one."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tarot import InputError
from tarot.common import files_below, progress
from tasks.common.contents import hash_named
from tasks.common.images import PixelLimit, fault_of_pair, is_image_name, read_pair
from tasks.segmentation.labels import LabelCode
from tasks.segmentation.scenes import Pixels, Scenes

_LIMIT = PixelLimit(option="task.data.max_pixels")
_IN_FULL = 20  # faults that an error tells in full; of more, it has the names


@dataclass(frozen=True)
class Pair:
    """Both are scaled to cover `height` x `width`, images smoothly, and their middle is cut out.

    full_label: the label's middle stays as large as it is on disk. limit: how large that may be.
    """

    image: Path
    label: Path
    code: LabelCode
    height: int
    width: int
    full_label: bool = False
    limit: PixelLimit = _LIMIT

    def __call__(self) -> Pixels:
        """Raises InputError, with the file's name, for a file that cannot be read, a label that means nothing, and
        sizes that differ."""
        image, label = read_pair(self.image, self.label, self.limit)
        decoded = self.code.decode(label, self.label)
        scale = min(image.width / self.width, image.height / self.height)
        width, height = self.width * scale, self.height * scale
        left, top = (image.width - width) / 2, (image.height - height) / 2
        box, size = (left, top, left + width, top + height), (self.width, self.height)
        smooth = image.resize(size, Image.Resampling.BILINEAR, box)
        if self.full_label:
            rows = slice(round(top), round(top + height))
            columns = slice(round(left), round(left + width))
            return np.asarray(smooth), decoded[rows, columns]
        return np.asarray(smooth), np.asarray(Image.fromarray(decoded).resize(size, Image.Resampling.NEAREST, box))


@dataclass(frozen=True)
class Folder:
    """A folder of images and one of labels, searched with all that is below them. An image and its label have the same
    path in it, but for these endings and their types: ulm/000_leftImg8bit.png and ulm/000_gtFine_labelIds.png.
    """

    images: Path
    labels: Path
    image_ending: str = ""
    label_ending: str = ""

    def scenes(
        self,
        code: LabelCode,
        height: int,
        width: int,
        *,
        prefix: str = "",
        tag: str = "",
        exclude: Collection[str] | None = None,
        full_labels: bool = False,
        max_pixels: int = _LIMIT.pixels,
    ) -> Scenes:
        """All pairs in the order of their names; ids are `prefix` and the image's path without ending, less the ones
        in `exclude`, None where no option says so. full_labels, max_pixels: see `Pair`. Raises InputError where a
        folder is missing or empty; and with all of them at once for pairs of which one is missing, or that headers of
        their files tell cannot be used."""
        images, labels = _listed(self.images, self.image_ending), _listed(self.labels, self.label_ending)
        left_out = set(exclude or ())
        unknown = sorted(left_out - set(images) - set(labels))
        if unknown:
            raise InputError(f"exclude names {unknown[0]}, which {self.images} does not hold")
        faults = {
            name: f"{some[name]} has no {kind} in {place}"
            for some, others, kind, place in (
                (images, labels, "label", self.labels),
                (labels, images, "image", self.images),
            )
            for name in set(some) - set(others) - left_out
        }
        names = sorted(set(images) - left_out - set(faults))
        limit = PixelLimit(max_pixels, _LIMIT.option)
        pairs = [Pair(images[name], labels[name], code, height, width, full_labels, limit) for name in names]
        told = zip(names, _faults(pairs), strict=True)
        faults |= {name: fault for name, fault in told if fault is not None}
        if faults:
            raise _unusable(faults, len(set(images) | set(labels)), exclude)
        return Scenes(np.array([prefix + name for name in names]), np.full(len(names), tag), pairs)


def _faults(pairs: Sequence[Pair]) -> list[str | None]:
    """What their headers tell of each, see `fault_of_pair`."""
    found = []
    with progress("headers of images", len(pairs), "pairs") as advance:  # by threads it takes three times as long
        for pair in pairs:
            found.append(fault_of_pair(pair.image, pair.label, pair.limit))
            advance(1)
    return found


def _unusable(faults: Mapping[str, str], count: int, exclude: Collection[str] | None) -> InputError:
    """faults: by name. count: of all pairs. exclude: what is left out already, None where nothing can be."""
    names = sorted(faults)
    lines = [faults[name] for name in names[:_IN_FULL]]
    if names[_IN_FULL:]:
        lines.append("and likewise " + ", ".join(names[_IN_FULL:]))
    left_out = json.dumps(sorted({*names, *(exclude or ())}), ensure_ascii=False, separators=(",", ":"))
    instead = "" if exclude is None else f", or leave them out: 'task.data.exclude={left_out}'"
    return InputError(f"{'; '.join(lines)} ({len(names):,} of {count:,} pairs cannot be used); mend them{instead}")


def content(parts: Iterable[Scenes], cache: Path | None = None) -> str:
    """Which files they are: the SHA-256 of the ids of all pairs and of what is in their files. Scenes that are in no
    file do not count. cache: where hashes of files are remembered."""
    named = []
    for part in parts:
        for name, source in zip(part.ids.tolist(), part.sources, strict=True):
            if isinstance(source, Pair):
                named += [(name, source.image), (name, source.label)]
    return hash_named(named, cache)


def _listed(folder: Path, ending: str) -> dict[str, Path]:
    """Image files below the folder, by their path in it without ending and type."""
    found: dict[str, Path] = {}
    for path in files_below(folder, is_image_name):
        if path.stem.endswith(ending):
            name = path.relative_to(folder).with_name(path.stem.removesuffix(ending)).as_posix()
            if name in found:
                raise InputError(f"{found[name]} and {path} are the same scene; keep one of them")
            found[name] = path
    if not found:
        raise InputError(f"the folder {folder} holds no image{f' whose name ends in {ending}' if ending else ''}")
    return found
