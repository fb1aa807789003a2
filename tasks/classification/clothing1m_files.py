"""Clothing1M as it is delivered: lists of images, their labels, and the images in numbered folders.

    clothing1m/
        category_names_eng.txt                          names of the 14 classes, a line each
        noisy_label_kv.txt, clean_label_kv.txt          "images/0/12/name.jpg 7", a line each
        noisy_train_key_list.txt, clean_{train,val,test}_key_list.txt
        images/0/ ... images/9/

The text files may also be in a folder `annotations`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tarot import InputError
from tarot.common import read_text
from tasks.common.contents import hash_named

CLASSES = 14
PARTS = {"noisy_train": "noisy", "clean_train": "clean", "clean_val": "clean", "clean_test": "clean"}  # whose labels
NAMES = "category_names_eng.txt"
FILES = (NAMES, "noisy_label_kv.txt", "clean_label_kv.txt", *(f"{part}_key_list.txt" for part in PARTS))


@dataclass(frozen=True, eq=False)
class Listed:
    """Images of one part: their paths below the root, str [n], and their labels, int64 [n]."""

    keys: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Clothing1MFiles:
    """root: what the keys are relative to. annotations: where the text files are."""

    root: Path
    annotations: Path

    def class_names(self) -> tuple[str, ...]:
        path = self.annotations / NAMES
        names = tuple(_lines(path))
        if len(names) != CLASSES:
            raise InputError(f"{path} names {len(names)} classes; Clothing1M has {CLASSES}")
        return names

    def content(self, images: Iterable[str], cache: Path) -> str:
        """Which images (by their keys) and labels they are: the SHA-256 of all that is in the files. cache: where
        hashes of files are remembered."""
        texts = [(name, self.annotations / name) for name in FILES]
        return hash_named([*texts, *((key, self.root / key) for key in images)], cache)

    def parts(self) -> Mapping[str, Listed]:
        """By name of the part. Raises InputError where an image has no label, or is in two parts."""
        labels = {kind: self._labels(kind) for kind in ("noisy", "clean")}
        parts = {part: self._part(part, labels[kind], kind) for part, kind in PARTS.items()}
        seen: dict[str, str] = {}
        for part, listed in parts.items():
            for key in listed.keys.tolist():
                if key in seen:
                    raise InputError(
                        f"{self.annotations}: the image {key} is listed twice, in {seen[key]}_key_list.txt and in "
                        f"{part}_key_list.txt"
                    )
                seen[key] = part
        return parts

    def _part(self, part: str, labels: Mapping[str, int], kind: str) -> Listed:
        path = self.annotations / f"{part}_key_list.txt"
        keys = _lines(path)
        for key in keys:
            if key not in labels:
                raise InputError(f"{path} lists the image {key}, but {kind}_label_kv.txt has no label for it")
        return Listed(np.array(keys, dtype=str), np.array([labels[key] for key in keys], dtype=np.int64))

    def _labels(self, kind: str) -> dict[str, int]:
        path, labels = self.annotations / f"{kind}_label_kv.txt", {}
        for number, line in enumerate(_lines(path), start=1):
            key, _, label = line.rpartition(" ")
            if not key or not label.isdecimal() or len(label) > 9:
                raise InputError(f"{path}, line {number}: {line!r} is not an image and a label")
            if int(label) >= CLASSES:
                raise InputError(f"{path}, line {number}: the label of {key} is {label}; labels are 0 to {CLASSES - 1}")
            labels[key.strip()] = int(label)
        return labels


def find_clothing1m(data_dir: Path) -> Clothing1MFiles:
    """Looked for in `data_dir` and its folder clothing1m. Raises InputError where it is not, or not whole."""
    for root in (data_dir / "clothing1m", data_dir / "clothing1M", data_dir / "Clothing1M", data_dir):
        for texts in (root, root / "annotations"):
            if (texts / FILES[1]).is_file():
                lacking = [name for name in FILES if not (texts / name).is_file()]
                lacking += [] if (root / "images").is_dir() else ["images/"]
                if lacking:
                    raise InputError(f"Clothing1M in {root} is not whole: {', '.join(lacking)} is missing")
                return Clothing1MFiles(root, texts)
    raise InputError(
        f"Clothing1M is not in {data_dir / 'clothing1m'}: put there images/0 to images/9, {NAMES}, the label files "
        "noisy_label_kv.txt and clean_label_kv.txt, and the lists noisy_train_key_list.txt and "
        "clean_{train,val,test}_key_list.txt (asked for at https://github.com/Cysu/noisy_label); or set data_dir or "
        "TAROT_DATA to where it is"
    )


def _lines(path: Path) -> list[str]:
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not lines:
        raise InputError(f"{path} is empty; fetch it again")
    return lines
