"""Readers of data sets and models that a user brings, and a good file for each, to be spoilt."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from tasks.classification.cifar10_files import load_cifar10
from tasks.classification.clothing1m_files import find_clothing1m
from tasks.common.weights import load_strictly
from tasks.instruction.model import Adapter, Language
from tasks.instruction.reading import read_rows
from tasks.instruction.tokenizer import load_tokenizer
from tasks.instruction.trained import CONFIG, Trained
from tasks.motion.formats import read_argoverse2, scenario_files
from tasks.motion.formats.scenarionet_writer import write_database
from tasks.motion.simulator.scenes import simulate
from tasks.segmentation.files import Pair
from tasks.segmentation.labels import read_classes
from tasks.segmentation.model import Architecture
from tests.fuzz.readers import Reader
from tests.tasks.classification.stand_ins import write_cifar10, write_clothing1m
from tests.tasks.instruction.conversations import write_model
from tests.tasks.segmentation.scene_trees import classes_json

ROWS = [{"id": f"r{i}", "instruction": f"What is {i} and {i}?", "output": f"it is {2 * i}"} for i in range(5)]
Files = dict[str, bytes]


def _of_folder(folder: Path) -> Files:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _one_of(files: Files, name: str, read: Callable[[Path], Any]) -> Reader:
    """A file among others, which are good."""

    def write(folder: Path) -> None:
        for other, content in files.items():
            if other != name:
                (folder / other).parent.mkdir(parents=True, exist_ok=True)
                (folder / other).write_bytes(content)

    return Reader(name, lambda: files[name], read, write)


def _csv() -> bytes:
    file = io.StringIO()
    writer = csv.DictWriter(file, ["id", "instruction", "output"])
    writer.writeheader()
    writer.writerows(ROWS)
    return file.getvalue().encode()


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def _arrow() -> bytes:
    table, sink = pa.Table.from_pylist(ROWS), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _torch(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def _conversations() -> dict[str, Reader]:
    lines = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    listed = {"mine": {"file_name": "mine.json", "columns": {"prompt": "instruction", "response": "output"}}}
    of_list = {"dataset_info.json": json.dumps(listed).encode(), "mine.json": json.dumps(ROWS).encode()}
    state = json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}).encode()
    saved = {"state.json": state, "data-00000-of-00001.arrow": _arrow(), "dataset_info.json": b"{}"}
    splits = {"dataset_dict.json": b'{"splits": ["train"]}', **{f"train/{name}": file for name, file in saved.items()}}
    single = {
        "rows.jsonl": lines,
        "rows.json": json.dumps(ROWS).encode(),
        "rows.csv": _csv(),
        "rows.parquet": _parquet(pa.Table.from_pylist(ROWS)),
        "rows.arrow": _arrow(),
        "rows.jsonl.gz": gzip.compress(lines),
    }
    found = {
        name: Reader(name, lambda content=content: content, lambda f, name=name: read_rows(f / name))
        for name, content in single.items()
    }
    return found | {
        "dataset_info.json": _one_of(of_list, "dataset_info.json", lambda f: read_rows(f / "dataset_info.json")),
        "state.json": _one_of(saved, "state.json", read_rows),
        "dataset_dict.json": _one_of(splits, "dataset_dict.json", read_rows),
    }


def _models(folder: Path) -> dict[str, Reader]:
    write_model(folder / "model")
    files = _of_folder(folder)

    def model(place: Path) -> None:
        Language(path=str(place / "model")).base(512)

    def tokenizer(place: Path) -> None:
        load_tokenizer(place / "model")

    base = Language(path=str(folder / "model"))
    net = Adapter(rank=2).attach(base.base(512))
    net.save_pretrained(folder / "adapters")
    adapters = _of_folder(folder)
    adapters[f"adapters/{CONFIG}"] = adapters[f"adapters/{CONFIG}"].replace(str(folder).encode(), b"/nowhere")

    def adapter(place: Path) -> None:
        Trained.of(str(place / "adapters")).checkpoints(base, 512)

    return {
        "config.json": _one_of(files, "model/config.json", model),
        "model.safetensors": _one_of(files, "model/model.safetensors", model),
        "tokenizer.json": _one_of(files, "model/tokenizer.json", tokenizer),
        "tokenizer_config.json": _one_of(files, "model/tokenizer_config.json", tokenizer),
        CONFIG: _one_of(adapters, f"adapters/{CONFIG}", adapter),
        "adapter_model.safetensors": _one_of(adapters, "adapters/adapter_model.safetensors", adapter),
    }


def _pictures(folder: Path) -> dict[str, Reader]:
    write_cifar10(folder / "tables")
    write_cifar10(folder / "batches", "batches")
    write_clothing1m(folder / "clothes")
    tables, batches, clothes = (_of_folder(folder / name) for name in ("tables", "batches", "clothes"))
    folder.joinpath("classes.json").write_text(classes_json())
    code = read_classes(folder / "classes.json")[1]
    pair = {"i.png": _png(np.zeros((8, 8, 3), np.uint8)), "l.png": _png(np.full((8, 8), 3, np.uint8))}

    def cifar10(place: Path) -> None:
        load_cifar10(place, place / "cache")

    def clothing1m(place: Path) -> None:
        found = find_clothing1m(place)
        found.parts(), found.class_names()

    return {
        "cifar10 table": _one_of(tables, "cifar10/test-00000-of-00001.parquet", cifar10),
        "cifar10 batch": _one_of(batches, "cifar-10-batches-py/test_batch", cifar10),
        "clothing1m keys": _one_of(clothes, "clothing1m/clean_val_key_list.txt", clothing1m),
        "clothing1m labels": _one_of(clothes, "clothing1m/clean_label_kv.txt", clothing1m),
        "clothing1m names": _one_of(clothes, "clothing1m/category_names_eng.txt", clothing1m),
        "label map": _one_of(pair, "l.png", lambda f: Pair(f / "i.png", f / "l.png", code, 8, 8)()),
        "photograph": _one_of(pair, "i.png", lambda f: Pair(f / "i.png", f / "l.png", code, 8, 8)()),
    }


def _databases(folder: Path) -> dict[str, Reader]:
    write_database(folder / "database", [simulate("parking", 0, name="scene-0")])
    database = _of_folder(folder / "database")

    def files(place: Path) -> None:
        scenario_files(place)

    return {
        "summary": _one_of(database, "dataset_summary.pkl", files),
        "mapping": _one_of(database, "dataset_mapping.pkl", files),
    }


def _argoverse2() -> dict[str, Reader]:
    tracks = {
        "observed": [True, False], "track_id": ["a", "a"], "object_type": ["vehicle"] * 2, "object_category": [3, 3],
        "timestep": [0, 1], "position_x": [0.0, 1.0], "position_y": [0.0, 0.0], "heading": [0.0, 0.0],
        "velocity_x": [1.0, 1.0], "velocity_y": [0.0, 0.0], "scenario_id": ["s", "s"], "focal_track_id": ["a", "a"],
        "num_timestamps": [2, 2], "city": ["austin"] * 2, "start_timestamp": [0, 0], "end_timestamp": [1, 1],
    }  # fmt: skip
    line = [{"x": 0.0, "y": 0.0, "z": 0.0}, {"x": 5.0, "y": 0.0, "z": 0.0}]
    lane = {
        "lane_type": "VEHICLE", "predecessors": [], "successors": [2], "centerline": line,
        **{f"{side}_lane_boundary": line for side in ("left", "right")},
        **{f"{side}_lane_mark_type": "SOLID_WHITE" for side in ("left", "right")},
    }  # fmt: skip
    roads = {"lane_segments": {"1": lane}, "pedestrian_crossings": {"3": {"edge1": line, "edge2": line}}}
    argoverse = {"scenario_s.parquet": _parquet(pa.table(tracks)), "log_map_archive_s.json": json.dumps(roads).encode()}
    return {
        "argoverse2 table": _one_of(argoverse, "scenario_s.parquet", read_argoverse2),
        "argoverse2 map": _one_of(argoverse, "log_map_archive_s.json", read_argoverse2),
    }


def _weights() -> dict[str, Reader]:
    linear = torch.nn.Linear(2, 2)
    small = Architecture(backbone="small").build(3).net
    state, whole = _torch(linear.state_dict()), _torch(small.state_dict())

    def segmenter(place: Path) -> None:
        Architecture(backbone="small", weights=str(place / "small.pt")).build(3)

    return {
        "state_dict": Reader("w.pt", lambda: state, lambda f: load_strictly(linear, f / "w.pt", "task.weights")),
        "weights of a segmenter": Reader("small.pt", lambda: whole, segmenter),
    }


def small_data_sets() -> dict[str, Reader]:
    """Those whose good files take no time to make."""
    return _conversations() | _argoverse2() | _weights()


def data_sets(folder: Path) -> dict[str, Reader]:
    """All of them. folder: an empty one, in which good files are made."""
    folder.mkdir()
    found = small_data_sets()
    for name, make in {"models": _models, "pictures": _pictures, "databases": _databases}.items():
        (folder / name).mkdir()
        found |= make(folder / name)
    return found
