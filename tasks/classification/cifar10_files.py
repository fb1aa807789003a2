"""CIFAR-10 as people have it on disk, decoded once into arrays.

Three layouts, looked for in `data_dir` and its folders `cifar10` and `cifar-10`: torchvision's (`cifar-10-batches-py`,
whose pickles are read as data, and run nothing), the hub's parquet files, and a folder of images by class.
Images are read as all tasks read them (tasks/common/images.py); one that is not 32 x 32 pixels is refused by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tarot import InputError
from tarot.common import check_is_file, entries, files_below, fingerprint
from tarot.features import BAD_PARQUET
from tasks.common.cache import cached_arrays
from tasks.common.code import source_hash
from tasks.common.contents import hash_named
from tasks.common.images import PixelLimit, is_image_name, read_image
from tasks.common.safe_pickle import load_pickle

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PARTS = ("train", "test")
BATCH_BYTES = 256 * 2**20
"""The largest batch that is read; one of 10,000 images has 30 million."""
Arrays = Mapping[str, np.ndarray]  # {train,test}_images uint8 [n, 3, 32, 32], {train,test}_labels int64 [n], sha256 str
EDGE = 32  # pixels
Part = tuple[np.ndarray, np.ndarray]
Encoded = tuple[str, Path | bytes]  # what it is called in errors, and its file or what a file would hold


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
            train = [path for path in entries(batches) if path.name.startswith("data_batch_")]
            return {"train": train, "test": [batches / "test_batch"]}, _read_batches
        for folder in (root, root / "plain_text", root / "data"):
            files = {part: _tables_in(folder, part) for part in PARTS}
            if all(files.values()):
                return files, _read_parquet
        if all((root / part / CLASSES[0]).is_dir() for part in PARTS):
            return {part: _images_in(root / part) for part in PARTS}, _read_folder
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


def _decode(encoded: Encoded) -> np.ndarray:
    name, source = encoded
    image = read_image(source, name, PixelLimit(EDGE * EDGE))
    if image.size != (EDGE, EDGE):
        raise InputError(f"{name} is {image.width} x {image.height} pixels; CIFAR-10's images are {EDGE} x {EDGE}")
    return np.asarray(image).transpose(2, 0, 1)


def _decode_all(encoded: Sequence[Encoded]) -> np.ndarray:
    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(_decode, encoded, chunksize=256)))


def _read_parquet(files: list[Path]) -> Part:
    images, labels = [], []
    for path in files:
        encoded, of_file = _table(path)
        images.append(_decode_all([(f"{path}, row {number}", row) for number, row in enumerate(encoded)]))
        labels.append(of_file)
    return np.concatenate(images), np.concatenate(labels)


def _table(path: Path) -> tuple[list[bytes], np.ndarray]:
    """Its columns `img` and `label`, which have rows: files of images, and whole numbers."""
    check_is_file(path)
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            missing = sorted({"img", "label"} - set(names))
            if missing:
                raise InputError(
                    f"{path} has no column {' and no column '.join(missing)}; CIFAR-10 has img and label, this file "
                    f"{', '.join(names)}"
                )
            table = file.read(columns=["img", "label"])
        rows, labels = table["img"].to_pylist(), table["label"]
    except InputError:
        raise
    except BAD_PARQUET as error:  # names and texts are decoded when they are asked for
        raise InputError(f"{path} cannot be read as parquet ({error}); fetch it again") from error
    if not rows or not pa.types.is_integer(labels.type) or labels.null_count:
        raise InputError(f"{path} holds no CIFAR-10 images: it lacks rows, or its labels are not all whole numbers")
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or not isinstance(row.get("bytes"), bytes):
            raise InputError(f"{path}, row {number}: img holds no bytes of an image")
    return [row["bytes"] for row in rows], labels.to_numpy()


def _read_folder(files: list[Path]) -> Part:
    unknown = {path.parent.name for path in files} - set(CLASSES)
    if unknown:
        raise InputError(f"{files[0].parents[1]} has a class {sorted(unknown)[0]!r}; CIFAR-10 has {', '.join(CLASSES)}")
    labels = np.array([CLASSES.index(path.parent.name) for path in files])
    return _decode_all([(str(path), path) for path in files]), labels


def _tables_in(folder: Path, part: str) -> list[Path]:
    inside = entries(folder) if folder.is_dir() else []
    return [path for path in inside if path.match(f"{part}-*.parquet")]


def _images_in(folder: Path) -> list[Path]:
    """Of all classes. Raises InputError where there are none, or one lies elsewhere than in its class's folder."""
    files = files_below(folder, is_image_name)
    misplaced = [path for path in files if len(path.relative_to(folder).parts) != 2]
    if misplaced or not files:
        what = f"{misplaced[0]} lies elsewhere" if misplaced else "there are none"
        raise InputError(f"{folder}: images lie in <class>/<name>.png; {what}")
    return files


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
