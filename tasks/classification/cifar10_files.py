"""CIFAR-10 as people have it on disk, decoded once into arrays.

Three layouts, looked for in `data_dir` and its folders `cifar10` and `cifar-10`: torchvision's (`cifar-10-batches-py`,
whose pickles are read as data, and run nothing), the hub's parquet files, and a folder of images by class.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError

from tarot import InputError
from tarot.common import fingerprint
from tasks.common.cache import cached_arrays
from tasks.common.code import source_hash
from tasks.common.contents import hash_named
from tasks.common.safe_pickle import load_pickle

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PARTS = ("train", "test")
BATCH_BYTES = 256 * 2**20
"""The largest batch that is read; one of 10,000 images has 30 million."""
Arrays = Mapping[str, np.ndarray]  # {train,test}_images uint8 [n, 3, 32, 32], {train,test}_labels int64 [n], sha256 str
Part = tuple[np.ndarray, np.ndarray]


def load_cifar10(data_dir: Path, cache_dir: Path) -> Arrays:
    """The decoded images, in the order of their files. Raises InputError where there are none, or other ones."""
    files, read = _find(data_dir)
    named = [(f"{path.parent.name}/{path.name}", path) for part in PARTS for path in files[part]]
    made_of = {"files": hash_named(named, cache_dir), "code": source_hash(load_cifar10)}

    def make() -> Arrays:
        made: dict[str, Any] = {}
        for part in PARTS:
            made[f"{part}_images"], made[f"{part}_labels"] = _checked(*read(files[part]), files[part][0])
        content = hashlib.sha256()
        for array in made.values():
            content.update(np.ascontiguousarray(array).data)
        return {**made, "sha256": np.array(content.hexdigest())}

    return cached_arrays(cache_dir / "cifar10" / f"{fingerprint(made_of)}.npz", make)


def _find(data_dir: Path) -> tuple[dict[str, list[Path]], Callable[[list[Path]], Part]]:
    """The files of the first layout that is there, by part, and the function that reads them."""
    for root in (data_dir, data_dir / "cifar10", data_dir / "cifar-10"):
        batches = root / "cifar-10-batches-py"
        if (batches / "test_batch").is_file():
            return {"train": sorted(batches.glob("data_batch_*")), "test": [batches / "test_batch"]}, _read_batches
        for folder in (root, root / "plain_text", root / "data"):
            files = {part: sorted(folder.glob(f"{part}-*.parquet")) for part in PARTS}
            if all(files.values()):
                return files, _read_parquet
        if all((root / part / CLASSES[0]).is_dir() for part in PARTS):
            return {part: sorted((root / part).glob("*/*.*")) for part in PARTS}, _read_folder
    raise InputError(
        f"CIFAR-10 is not in {data_dir}: put there cifar-10-batches-py/ (https://www.cs.toronto.edu/~kriz/cifar.html), "
        "or cifar10/ with train-*.parquet and test-*.parquet (https://huggingface.co/datasets/uoft-cs/cifar10) or with "
        "train/<class>/*.png and test/<class>/*.png; or set data_dir or TAROT_DATA to where it is"
    )


def _checked(images: np.ndarray, labels: np.ndarray, path: Path) -> Part:
    if images.shape[1:] != (3, 32, 32) or images.dtype != np.uint8 or len(images) != len(labels):
        raise InputError(f"{path} holds no CIFAR-10 images: their shape is {images.shape}, labels {labels.shape}")
    if labels.min() < 0 or labels.max() >= len(CLASSES):
        raise InputError(f"{path} holds labels {labels.min()} to {labels.max()}; CIFAR-10 has 0 to {len(CLASSES) - 1}")
    return images, labels.astype(np.int64)


def _decode(encoded: bytes | Path) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as image:
            return np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    except UnidentifiedImageError as error:
        raise InputError(f"{encoded if isinstance(encoded, Path) else 'a parquet row'} holds no image") from error


def _decode_all(encoded: list[bytes] | list[Path]) -> np.ndarray:
    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(_decode, encoded, chunksize=256)))


def _read_parquet(files: list[Path]) -> Part:
    images, labels = [], []
    for path in files:
        table = pq.read_table(path, columns=["img", "label"])
        images.append(_decode_all([row["bytes"] for row in table["img"].to_pylist()]))
        labels.append(table["label"].to_numpy())
    return np.concatenate(images), np.concatenate(labels)


def _read_folder(files: list[Path]) -> Part:
    unknown = {path.parent.name for path in files} - set(CLASSES)
    if unknown:
        raise InputError(f"{files[0].parents[1]} has a class {sorted(unknown)[0]!r}; CIFAR-10 has {', '.join(CLASSES)}")
    return _decode_all(files), np.array([CLASSES.index(path.parent.name) for path in files])


def _read_batches(files: list[Path]) -> Part:
    images, labels = [], []
    for path in files:
        batch = load_pickle(path, max_bytes=BATCH_BYTES, encoding="bytes")
        if not isinstance(batch, dict) or b"data" not in batch or b"labels" not in batch:
            raise InputError(f"{path} is not a batch of CIFAR-10: it is no dict with data and labels")
        images.append(_rows(batch[b"data"], path))
        labels.append(_numbers(batch[b"labels"], path))
    return np.concatenate(images), np.concatenate(labels)


def _rows(data: Any, path: Path) -> np.ndarray:
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or not data.size or data.size % (3 * 32 * 32):
        raise InputError(f"{path} is not a batch of CIFAR-10: its data is no array of 3072 bytes an image")
    return data.reshape(-1, 3, 32, 32)


def _numbers(labels: Any, path: Path) -> np.ndarray:
    if isinstance(labels, list) and all(type(label) is int and abs(label) < 2**31 for label in labels):
        return np.array(labels, np.int64)
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise InputError(f"{path} is not a batch of CIFAR-10: its labels are no list of numbers")
    return labels
