"""Every reader of files that a user brings, and a good file for each, to be spoilt."""

from __future__ import annotations

import contextlib
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
from tarot import FeatureStore, InputError, Selection
from tarot.cli import main
from tarot.common import hash_content, read_json
from tarot.features import as_rows, blocks, open_features, read_vector
from tarot.features.manifest import write_manifest
from tasks.common.images import read_image
from tasks.common.safe_pickle import load_pickle
from tasks.motion.formats.scenarionet import read_scenario
from tasks.motion.views import MINI, samples_of
from tasks.segmentation.labels import read_classes
from tests.fuzz import changes
from tests.fuzz.changes import Form
from tests.tarot.features.test_readers import bergson_index, trak_model
from tests.tasks.motion.scenes import record

MOST = 2**24  # bytes of a pickle


@dataclass(frozen=True)
class Reader:
    """name: of the file within a folder. good: its bytes. beside: writes what else the folder holds. read: of the
    folder; it returns, or raises an InputError, whatever the file's bytes are. forms: how to spoil what is in it."""

    name: str
    good: Callable[[], bytes]
    read: Callable[[Path], Any]
    beside: Callable[[Path], None] = lambda folder: None
    forms: tuple[Form, ...] = ()


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


def _of_others(folder: Path) -> dict[str, Reader]:
    """Folders of gradients that traker and bergson leave: each of their files, beside the others."""
    trak_model(folder / "trak")
    bergson_index(folder / "bergson")
    spoilt: dict[str, dict[str, tuple[Form, ...]]] = {
        "trak": {"grads.mmap": (changes.of_npy_header,), "_is_featurized.mmap": (changes.of_npy_header,)},
        "bergson": {"info.json": (changes.of_json,), "gradients.bin": ()},
    }
    found = {}
    for program, forms_of in spoilt.items():
        files = {path.name: path.read_bytes() for path in (folder / program).iterdir()}
        for name, forms in forms_of.items():
            good: Callable[[], bytes] = lambda content=files[name]: content  # noqa: E731
            found[f"{program} {name}"] = Reader(
                f"store/{name}", good, lambda f: _features(f / "store"), _written(files), forms
            )
    return found


def _selection(folder: Path) -> bytes:
    rows = np.random.default_rng(0).normal(size=(12, 3))
    tarot.select(rows, rows[:3], "tarot_fixed", size=4, whitening=None).save(folder / "selection.parquet")
    return (folder / "selection.parquet").read_bytes()


def _image(kind: str, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).convert(mode).save(file, kind)
    return file.getvalue()


def _images() -> dict[str, Reader]:
    kinds = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF")
    return {
        "image" if kind == "PNG" else kind.lower(): Reader(
            f"i.{kind.lower()}",
            lambda kind=kind: _image(kind),
            lambda f, kind=kind: read_image(f / f"i.{kind.lower()}"),
            forms=(changes.of_png,) if kind == "PNG" else (),
        )
        for kind in kinds
    }


def _classes() -> bytes:
    named = [{"id": i, "name": name, "color": [i, 0, 0]} for i, name in enumerate(("road", "car", "sky"))]
    return json.dumps({"classes": named, "ignore_index": 7}).encode()


def readers(folder: Path) -> dict[str, Reader]:
    """folder: an empty one, in which good files of what has no bytes of its own are made."""
    folder.mkdir()
    store, selection = _store(folder / "store"), _selection(folder)
    shard = next(name for name in store if name.endswith("safetensors"))
    return (
        _features_files()
        | _of_others(folder)
        | _images()
        | {
            "vector": Reader(
                "v.npy",
                lambda: _npy(np.arange(4)),
                lambda f: read_vector(f / "v.npy", "labels", 4),
                forms=(changes.of_npy_header,),
            ),
            "lines": Reader("v.txt", lambda: b"a\nb\nc\nd\n", lambda f: read_vector(f / "v.txt", "labels", 4)),
            "pickle": Reader(
                "p.pkl",
                lambda: pickle.dumps(record()["metadata"]),
                lambda f: load_pickle(f / "p.pkl", max_bytes=MOST),
                forms=(changes.of_opcodes, changes.of_pickled),
            ),
            "scenario": Reader(
                "sd_x.pkl",
                lambda: pickle.dumps(record()),
                lambda f: samples_of([read_scenario(f / "sd_x.pkl")], MINI, every=1.0),
                forms=(changes.of_pickled, changes.of_pickled, changes.of_opcodes),
            ),
            "classes": Reader(
                "classes.json", _classes, lambda f: read_classes(f / "classes.json"), forms=(changes.of_json,)
            ),
            "selection": Reader(
                "selection.parquet",
                lambda: selection,
                _selected,
                forms=(changes.of_table, changes.of_table, changes.of_footer),
            ),
            "manifest": Reader(
                "store/manifest.json",
                lambda: store["manifest.json"],
                lambda f: _features(f / "store"),
                _written(store),
                (changes.of_json,),
            ),
            "sealed manifest": Reader(
                "store/manifest.json",
                lambda: store["manifest.json"],
                _sealed_manifest,
                _written(store),
                (changes.of_json,),
            ),
            "shard": Reader(f"store/{shard}", lambda: store[shard], lambda f: _features(f / "store"), _written(store)),
            "sealed shard": Reader(
                f"store/{shard}",
                lambda: store[shard],
                lambda f: _sealed_shard(f / "store", shard),
                _written(store),
                (changes.of_safetensors_header,),
            ),
        }
    )


def _features_files() -> dict[str, Reader]:
    made: dict[str, tuple[Callable[[], bytes], tuple[Form, ...]]] = {
        "npy": (lambda: _npy(_rows()), (changes.of_npy_header,)),
        "npz": (_npz, (changes.of_archive(changes.of_npy_header), changes.of_archive(changes.of_bytes))),
        "safetensors": (lambda: safetensors.numpy.save({"x": _rows()}), (changes.of_safetensors_header,)),
        "pt": (_torch, (changes.of_archive(changes.of_opcodes), changes.of_archive(changes.of_bytes))),
        "parquet": (_parquet, (changes.of_table, changes.of_footer)),
    }
    return {
        kind: Reader(f"f.{kind}", good, lambda f, kind=kind: _features(f / f"f.{kind}"), forms=forms)
        for kind, (good, forms) in made.items()
    }


def _npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, features=_rows(), labels=np.arange(4))
    return file.getvalue()


def _torch() -> bytes:
    file = io.BytesIO()
    torch.save({"features": torch.from_numpy(_rows()), "labels": torch.arange(4)}, file)
    return file.getvalue()


def _selected(folder: Path) -> None:
    """As a person looks at it, too."""
    path = folder / "selection.parquet"
    Selection.load(path)
    inspected(path)


def inspected(path: Path) -> None:
    """By the command, which prints an InputError and ends with 1."""
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        code = main(["inspect", str(path)])
    if code:
        raise InputError(said.getvalue().strip())


def _sealed_manifest(folder: Path) -> None:
    """With a checksum that is right, as if a program had written it that has another opinion of what a store is."""
    content = read_json(folder / "store" / "manifest.json")
    if isinstance(content, dict):
        write_manifest(folder / "store", {key: value for key, value in content.items() if key != "checksum"})
    _features(folder / "store")


def _sealed_shard(store: Path, name: str) -> None:
    content = read_json(store / "manifest.json")
    entry = next(entry for entry in content["shards"] if entry["file"] == name)
    if (store / name).is_file():
        entry.update(bytes=(store / name).stat().st_size, sha256=hash_content(store / name))
    write_manifest(store, {key: value for key, value in content.items() if key != "checksum"})
    _features(store)
