"""Small trees of images and labels in the layouts that people have on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

SPLITS = {"candidates": 36, "targets": 8, "validation": 4, "test": 5}
CLASSES = {"road": (128, 64, 128), "sky": (70, 130, 180), "car": (0, 0, 142)}  # ids 3, 5, 9; 0 is ignored
IDS = (3, 5, 9)


def blocks(rng: np.random.Generator, height: int = 40, width: int = 56) -> tuple[np.ndarray, np.ndarray]:
    """image uint8 [h, w, 3], class number uint8 [h, w]: sky above road, a car on it; noise on their colours."""
    label = np.zeros((height, width), dtype=np.uint8)
    label[: height // 2 + rng.integers(-4, 5)] = 1
    top, left = rng.integers(height // 3, height // 2), rng.integers(0, width // 2)
    label[top : top + 12, left : left + 18] = 2
    image = np.array(list(CLASSES.values()))[label] + rng.integers(-25, 25, size=(height, width, 3))
    return image.clip(0, 255).astype(np.uint8), label


def classes_json(colours: bool = True, names: tuple[str, ...] = tuple(CLASSES)) -> str:
    entries = [
        {"id": number, "name": name, **({"color": list(colour)} if colours else {})}
        for number, name, colour in zip(IDS, names, CLASSES.values(), strict=True)
    ]
    return json.dumps({"classes": [{"id": 0, "name": "nothing"}, *entries], "ignore_index": 0})


def write_folders(root: Path) -> None:
    """What task=segmentation/folders reads; labels of candidates are coloured, those of others are ids."""
    rng = np.random.default_rng(0)
    root.mkdir(parents=True, exist_ok=True)
    (root / "classes.json").write_text(classes_json())
    for split, count in SPLITS.items():
        for part in ("images", "labels"):
            (root / split / part / "drive").mkdir(parents=True)
        for i in range(count):
            image, label = blocks(rng)
            Image.fromarray(image).save(root / split / "images" / "drive" / f"{i:03d}.jpg")
            values = np.array(list(CLASSES.values()), np.uint8) if split == "candidates" else np.array(IDS, np.uint8)
            Image.fromarray(values[label]).save(root / split / "labels" / "drive" / f"{i:03d}.png")


def write_gta5(root: Path, ids: np.ndarray, palette: dict[int, tuple[int, int, int]], mode: str = "P") -> None:
    """images/00001.png and labels/00001.png of label ids [h, w]: P (as delivered), L (ids) or RGB (colours)."""
    for part in ("images", "labels"):
        (root / part).mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((*ids.shape, 3), np.uint8)).save(root / "images" / "00001.png")
    if mode == "RGB":
        colours = np.zeros((256, 3), np.uint8)
        for label, colour in palette.items():
            colours[label] = colour
        label = Image.fromarray(colours[ids])
    else:
        label = Image.fromarray(ids.astype(np.uint8))
        if mode == "P":
            label.putpalette([part for label in range(256) for part in palette.get(label, (0, 0, 0))])
    label.save(root / "labels" / "00001.png")


def write_cityscapes(root: Path, frames: dict[str, int]) -> None:
    """leftImg8bit and gtFine with so many frames in each split, of 64 x 32 pixels."""
    rng = np.random.default_rng(1)
    for split, count in frames.items():
        for i in range(count):
            name = f"ulm_{i:06d}_000019"
            image = root / "leftImg8bit" / split / "ulm" / f"{name}_leftImg8bit.png"
            label = root / "gtFine" / split / "ulm" / f"{name}_gtFine_labelIds.png"
            for path in (image, label):
                path.parent.mkdir(parents=True, exist_ok=True)
            pixels, numbers = blocks(rng, 32, 64)
            Image.fromarray(pixels).save(image)
            Image.fromarray(np.array([7, 23, 26], np.uint8)[numbers]).save(label)
            Image.fromarray(numbers).save(label.with_name(f"{name}_gtFine_labelTrainIds.png"))
