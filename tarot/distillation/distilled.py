"""A few images for each class, and how they are kept as files."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tarot.common import InputError, atomic_directory, is_name


@dataclass(frozen=True, eq=False)
class Distilled:
    """images: uint8 [n, channels, H, W]. labels: int64 [n]. weights: float64 [n], of sum 1 in each class. names: of the
    classes. coreset: int64 [n], the real image that each atom was matched with. atoms: float64 [n, d]. costs: float64
    [classes], the squared 2-Wasserstein distance of each class's atoms to its features. curve: float64
    [iterations, 3], the cost of features, of cross-entropy and of statistics in every step."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    weights: NDArray[np.float64]
    names: tuple[str, ...]
    coreset: NDArray[np.int64]
    atoms: NDArray[np.float64]
    costs: NDArray[np.float64]
    curve: NDArray[np.float64]

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write <class>/<k>.png, without loss, and distilled.csv (file, class, label, weight): a folder that any reader
        of folders of images takes. Raises InputError where the folder is there already."""
        write_images(Path(folder), self.images, self.labels, self.weights, self.names)


def write_images(
    folder: Path,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    weights: NDArray[np.float64],
    names: tuple[str, ...],
) -> None:
    """See `Distilled.save`."""
    from PIL import Image  # which no other part of the engine needs

    if folder.exists():
        raise InputError(f"{folder} is there already; name a folder that is not, or remove it")
    if images.shape[1] not in (1, 3):
        raise InputError(f"images of {images.shape[1]} channels are no pictures; PNG holds 1 (grey) or 3 (colours)")
    for name in names:
        if not is_name(name):
            raise InputError(f"the class {name!r} cannot be the name of a folder; rename it")
    places = np.zeros(len(names), dtype=np.int64)
    with atomic_directory(folder) as temporary, open(temporary / "distilled.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "class", "label", "weight"])
        for pixels, label, weight in zip(images, labels.tolist(), weights.tolist(), strict=True):
            name = names[label]
            (temporary / name).mkdir(exist_ok=True)
            path = f"{name}/{places[label]:05d}.png"
            places[label] += 1
            picture = pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1)
            Image.fromarray(np.ascontiguousarray(picture)).save(temporary / path, "PNG")
            table.writerow([path, name, label, repr(weight)])
