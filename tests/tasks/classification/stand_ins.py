"""Small data sets in the layouts that people have on disk."""

from __future__ import annotations

import io
import pickle
import struct
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tasks.classification.cifar10_files import CLASSES

SIZES = {"train": 200, "test": 100}


def cifar10_arrays(part: str) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [n, 3, 32, 32] noise with a colour for each class, int64 [n]."""
    rng = np.random.default_rng(len(part))
    labels = np.arange(SIZES[part]) % 10
    colours = np.random.default_rng(0).integers(40, 216, size=(10, 3))
    images = colours[labels][:, :, None, None] + rng.integers(-40, 40, size=(len(labels), 3, 32, 32))
    return images.astype(np.uint8), labels


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(file, "png")
    return file.getvalue()


def write_cifar10(folder: Path, layout: str = "parquet") -> None:
    """layout: parquet (the hub's), batches (torchvision's) or folder (of PNG files by class)."""
    for part in SIZES:
        images, labels = cifar10_arrays(part)
        if layout == "parquet":
            rows = [{"bytes": png(image), "path": f"{i}.png"} for i, image in enumerate(images)]
            (folder / "cifar10").mkdir(parents=True, exist_ok=True)
            table = pa.table({"img": rows, "label": labels})
            pq.write_table(table, folder / "cifar10" / f"{part}-00000-of-00001.parquet")
        elif layout == "folder":
            for i, (image, label) in enumerate(zip(images, labels, strict=True)):
                path = folder / part / CLASSES[label] / f"{i:04d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(png(image))
        else:
            batches = folder / "cifar-10-batches-py"
            batches.mkdir(parents=True, exist_ok=True)
            names = [f"data_batch_{i}" for i in range(1, 6)] if part == "train" else ["test_batch"]
            for name, some, their_labels in zip(
                names, np.split(images, len(names)), np.split(labels, len(names)), strict=True
            ):
                batch = {b"data": some.reshape(len(some), -1), b"labels": their_labels.tolist()}
                with open(batches / name, "wb") as file:
                    _Python2Pickler(file, protocol=2).dump(batch)


CLOTHES = {"noisy_train": 60, "clean_train": 30, "clean_val": 40, "clean_test": 25}


def write_clothing1m(folder: Path) -> None:
    """The delivered layout, with images of 40 x 48 pixels."""
    root, rng, number = folder / "clothing1m", np.random.default_rng(0), 0
    labels: dict[str, list[str]] = {"noisy": [], "clean": []}
    colours = rng.integers(40, 216, size=(14, 3))
    for part, count in CLOTHES.items():
        keys = []
        for i in range(count):
            number += 1
            key = f"images/{number % 10}/{number % 7}/{number},{i}.jpg"
            (root / key).parent.mkdir(parents=True, exist_ok=True)
            image = colours[i % 14] + rng.integers(-40, 40, size=(48, 40, 3))
            Image.fromarray(image.astype(np.uint8)).save(root / key, "png" if i % 2 else "jpeg")
            keys.append(key)
            labels[part.split("_")[0]].append(f"{key} {i % 14}")
        (root / f"{part}_key_list.txt").write_text("\n".join(keys) + "\n")
    # images of the clean parts have noisy labels, too
    labels["noisy"] += [f"{line.rpartition(' ')[0]} 3" for line in labels["clean"][::2]]
    for kind, lines in labels.items():
        (root / f"{kind}_label_kv.txt").write_text("\n".join(lines) + "\n")
    (root / "category_names_eng.txt").write_text("".join(f"garment {i}\n" for i in range(14)))


class _Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings, which is what the official files hold."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def _save_string(self, value: bytes) -> None:
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)

    dispatch[bytes] = _save_string


def write_folders(folder: Path, size: int = 12) -> None:
    """Trees of two classes, train and test: stripes that stand or lie, as PNGs of unequal sizes."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 24), ("test", 16)):
        for label, name in enumerate(("lying", "standing")):
            place = folder / part / name
            place.mkdir(parents=True)
            for number in range(count):
                height, width = size + number % 3, size + number % 2
                stripes = np.indices((height, width))[label] // 2 % 2
                pixels = stripes[:, :, None] * rng.integers(80, 255, 3) + rng.integers(0, 40, (height, width, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"{number:02d}.png")
