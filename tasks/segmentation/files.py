"""Scenes on disk: pairs of an image and its label, looked up when the task starts and decoded one by one."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tarot import InputError
from tarot.common import files_below
from tasks.common.contents import hash_named
from tasks.common.images import PixelLimit, is_image_name, read_pair
from tasks.segmentation.labels import LabelCode
from tasks.segmentation.scenes import Pixels, Scenes

_LIMIT = PixelLimit(option="task.data.max_pixels")


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
        exclude: Collection[str] = (),
        full_labels: bool = False,
        max_pixels: int = _LIMIT.pixels,
    ) -> Scenes:
        """All pairs in the order of their names; ids are `prefix` and the image's path without ending, less the ones
        in `exclude`. full_labels, max_pixels: see `Pair`. Raises InputError where a folder is missing or empty, or one
        of a pair is."""
        images, labels = _listed(self.images, self.image_ending), _listed(self.labels, self.label_ending)
        unknown = sorted(set(exclude) - set(images))
        if unknown:
            raise InputError(f"exclude names {unknown[0]}, which {self.images} does not hold")
        for some, others, kind, place in (
            (images, labels, "label", self.labels),
            (labels, images, "image", self.images),
        ):
            alone = sorted(set(some) - set(others) - set(exclude))
            if alone:
                raise InputError(
                    f"{some[alone[0]]} has no {kind} in {place} ({len(alone)} of {len(some):,} have none); add it, or "
                    "take the file away"
                )
        names = sorted(set(images) - set(exclude))
        limit = PixelLimit(max_pixels, _LIMIT.option)
        pairs = [Pair(images[name], labels[name], code, height, width, full_labels, limit) for name in names]
        return Scenes(np.array([prefix + name for name in names]), np.full(len(names), tag), pairs)


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
