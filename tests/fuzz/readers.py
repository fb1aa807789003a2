"""Every reader of files that a user brings, and a good file for each, to be spoilt."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy
import torch
from PIL import Image

import tarot
from tarot import FeatureStore, Selection
from tarot.features import as_rows, blocks, open_features, read_vector
from tasks.common.images import read_image
from tasks.common.safe_pickle import load_pickle
from tasks.motion.formats.scenarionet import read_scenario
from tasks.segmentation.labels import read_classes
from tests.tasks.motion.scenes import record

MOST = 2**24  # bytes of a pickle


@dataclass(frozen=True)
class Reader:
    """name: of the file within a folder. good: its bytes. beside: writes what else the folder holds. read: of the
    folder; it returns, or raises an InputError, whatever the file's bytes are."""

    name: str
    good: Callable[[], bytes]
    read: Callable[[Path], Any]
    beside: Callable[[Path], None] = lambda folder: None


def _rows() -> np.ndarray:
    return np.arange(12, dtype=np.float32).reshape(4, 3) + 1


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"features": _rows().tolist(), "id": list("abcd")}), sink)
    return sink.getvalue().to_pybytes()


def _features(path: Path) -> None:
    for _ in blocks(as_rows(open_features(path), "features")):
        pass


def _store(folder: Path) -> dict[str, bytes]:
    """The files of a store, by name."""
    FeatureStore.build(
        folder,
        recipe={"kind": "test"},
        ids=list("abcd"),
        dim=3,
        rows_per_shard=2,
        dtype="float32",
        compute=lambda start, stop: {"features": torch.from_numpy(_rows()[start:stop])},
    )
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def _written(files: dict[str, bytes]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "store").mkdir()
        for name, content in files.items():
            (folder / "store" / name).write_bytes(content)

    return write


def _selection(folder: Path) -> bytes:
    rows = np.random.default_rng(0).normal(size=(12, 3))
    tarot.select(rows, rows[:3], "tarot_fixed", size=4, whitening=None).save(folder / "selection.parquet")
    return (folder / "selection.parquet").read_bytes()


def _image() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(file, "PNG")
    return file.getvalue()


def _classes() -> bytes:
    named = [{"id": i, "name": name, "color": [i, 0, 0]} for i, name in enumerate(("road", "car", "sky"))]
    return json.dumps({"classes": named, "ignore_index": 7}).encode()


def readers(folder: Path) -> dict[str, Reader]:
    """folder: an empty one, in which good files of what has no bytes of its own are made."""
    folder.mkdir()
    store, selection = _store(folder / "store"), _selection(folder)
    shard = next(name for name in store if name.endswith("safetensors"))
    return {
        "npy": Reader("f.npy", lambda: _npy(_rows()), lambda f: _features(f / "f.npy")),
        "safetensors": Reader(
            "f.safetensors", lambda: safetensors.numpy.save({"x": _rows()}), lambda f: _features(f / "f.safetensors")
        ),
        "parquet": Reader("f.parquet", _parquet, lambda f: _features(f / "f.parquet")),
        "vector": Reader("v.npy", lambda: _npy(np.arange(4)), lambda f: read_vector(f / "v.npy", "labels", 4)),
        "lines": Reader("v.txt", lambda: b"a\nb\nc\nd\n", lambda f: read_vector(f / "v.txt", "labels", 4)),
        "pickle": Reader(
            "p.pkl", lambda: pickle.dumps(record()["metadata"]), lambda f: load_pickle(f / "p.pkl", max_bytes=MOST)
        ),
        "scenario": Reader("sd_x.pkl", lambda: pickle.dumps(record()), lambda f: read_scenario(f / "sd_x.pkl")),
        "classes": Reader("classes.json", _classes, lambda f: read_classes(f / "classes.json")),
        "image": Reader("i.png", _image, lambda f: read_image(f / "i.png")),
        "selection": Reader("selection.parquet", lambda: selection, lambda f: Selection.load(f / "selection.parquet")),
        "manifest": Reader(
            "store/manifest.json", lambda: store["manifest.json"], lambda f: _features(f / "store"), _written(store)
        ),
        "shard": Reader(f"store/{shard}", lambda: store[shard], lambda f: _features(f / "store"), _written(store)),
    }
