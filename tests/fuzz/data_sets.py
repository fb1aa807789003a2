"""Readers of data sets and models that a user brings, and a good file for each, to be spoilt."""

from __future__ import annotations

import csv
import functools
import gzip
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from PIL import Image

from experiments.frame import compare
from experiments.tables.experiment import Column, PaperTable, Row, finished_runs
from tarot.cli.choosing import VALUES_FORMAT
from tarot.integrations.moments import FILE as MOMENTS
from tarot.integrations.moments import Moments, read_moments, write_moments
from tasks.classification.cifar10_files import load_cifar10
from tasks.classification.clothing1m_files import find_clothing1m
from tasks.common.weights import load_strictly
from tasks.instruction.data import digest, distinct_rows
from tasks.instruction.model import Adapter, Language
from tasks.instruction.reading import Account, read_rows
from tasks.instruction.targets import bbh_targets, mmlu_targets
from tasks.instruction.template import template_of
from tasks.instruction.tokenizer import load_tokenizer, train_tokenizer
from tasks.instruction.tokens import tokenize
from tasks.instruction.trained import CONFIG, Trained
from tasks.motion.formats import read_argoverse2, scenario_files
from tasks.motion.formats.scenarionet_writer import write_database
from tasks.motion.simulator.scenes import simulate
from tasks.motion.submission import read_submission
from tasks.segmentation.files import Pair
from tasks.segmentation.labels import read_classes
from tasks.segmentation.model import Architecture
from tests.fuzz import changes
from tests.fuzz.changes import Form
from tests.fuzz.readers import Reader, inspected
from tests.tasks.classification.stand_ins import write_cifar10, write_clothing1m
from tests.tasks.instruction.conversations import write_model
from tests.tasks.segmentation.scene_trees import classes_json

ROWS = [{"id": f"r{i}", "instruction": f"What is {i} and {i}?", "output": f"it is {2 * i}"} for i in range(5)]
TALKS = [
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": f"What is {i}?"},
            {"role": "assistant", "content": f"it is {i}", "weight": 1},
        ],
        "tools": "[]",
        "subtask": "odd",
    }
    for i in range(3)
]
SHARED = [
    {"conversations": [{"from": "human", "value": f"What is {i}?"}, {"from": "gpt", "value": f"it is {i}"}]}
    for i in range(3)
]
Files = dict[str, bytes]


def _of_folder(folder: Path) -> Files:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _one_of(files: Files, name: str, read: Callable[[Path], Any], *forms: Form) -> Reader:
    """A file among others, which are good."""

    def write(folder: Path) -> None:
        for other, content in files.items():
            if other != name:
                (folder / other).parent.mkdir(parents=True, exist_ok=True)
                (folder / other).write_bytes(content)

    return Reader(name, lambda: files[name], read, write, forms)


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


def _image(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def _with_palette(ids: Image.Image) -> Image.Image:
    """Whose colours are those of the classes."""
    ids = ids.convert("P")
    ids.putpalette([*(0, 0, 0) * 3, 128, 64, 128])
    return ids


def _torch(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def _conversations() -> dict[str, Reader]:
    lines, talks, shared = ("".join(json.dumps(row) + "\n" for row in rows).encode() for rows in (ROWS, TALKS, SHARED))
    three = "\n\n".join(f"Q: What is {i}?\nA: Let's think. So the answer is {i}." for i in range(3))
    bbh = json.dumps({"odd": f"Say what is odd.\n\n{three}"}).encode()
    listed = {"mine": {"file_name": "mine.json", "columns": {"prompt": "instruction", "response": "output"}}}
    of_list = {"dataset_info.json": json.dumps(listed).encode(), "mine.json": json.dumps(ROWS).encode()}
    state = json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}).encode()
    saved = {"state.json": state, "data-00000-of-00001.arrow": _arrow(), "dataset_info.json": b"{}"}
    splits = {"dataset_dict.json": b'{"splits": ["train"]}', **{f"train/{name}": file for name, file in saved.items()}}
    json_lines, table = (changes.of_lines,), (changes.of_table, changes.of_table, changes.of_footer)
    single: dict[str, tuple[bytes, tuple[Form, ...]]] = {
        "rows.jsonl": (lines, json_lines),
        "talks.jsonl": (talks, json_lines),
        "shared.jsonl": (shared, json_lines),
        "rows.json": (json.dumps(ROWS).encode(), (changes.of_json,)),
        "rows.csv": (_csv(), ()),
        "rows.parquet": (_parquet(pa.Table.from_pylist(ROWS)), table),
        "talks.parquet": (_parquet(pa.Table.from_pylist(TALKS)), table),
        "rows.arrow": (_arrow(), ()),
        "rows.jsonl.gz": (gzip.compress(lines), (changes.of_packed(changes.of_lines),)),
    }
    found = {
        name: Reader(name, lambda content=content: content, lambda f, name=name: _learned(f / name), forms=forms)
        for name, (content, forms) in single.items()
    }
    listing, as_json = "dataset_info.json", changes.of_json
    return found | {
        listing: _one_of(of_list, listing, lambda f: _learned(f / listing), as_json),
        "state.json": _one_of(saved, "state.json", _learned, as_json),
        "dataset_dict.json": _one_of(splits, "dataset_dict.json", _learned, as_json),
        "mmlu": _one_of(
            {"dev/odd_dev.csv": b"".join(b"What is %d?,1,2,3,4,A\n" % i for i in range(5))},
            "dev/odd_dev.csv",
            mmlu_targets,
        ),
        "bbh": _one_of({"bbh-three-shot.json": bbh}, "bbh-three-shot.json", bbh_targets, as_json),
    }


@functools.cache
def _tokenizer() -> Any:
    return train_tokenizer([row["output"] for row in ROWS], 300)


def _learned(place: Path) -> None:
    """The rows, and all that is done to them before there is a model."""
    rows = distinct_rows(read_rows(place), "minhash", Account())
    digest(rows)
    tokenize(rows, _tokenizer(), template_of("less", _tokenizer()), nothing_left="drop")


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
    _like_a_trainer(net, folder / "adapters")
    adapters = _of_folder(folder)
    adapters[f"adapters/{CONFIG}"] = adapters[f"adapters/{CONFIG}"].replace(str(folder).encode(), b"/nowhere")

    def adapter(place: Path) -> None:
        Trained.of(str(place / "adapters")).checkpoints(base, 512)

    return {
        "config.json": _one_of(files, "model/config.json", model, changes.of_json),
        "model.safetensors": _one_of(files, "model/model.safetensors", model, changes.of_safetensors_header),
        "tokenizer.json": _one_of(files, "model/tokenizer.json", tokenizer, changes.of_json),
        "tokenizer_config.json": _one_of(files, "model/tokenizer_config.json", tokenizer, changes.of_json),
        CONFIG: _one_of(adapters, f"adapters/{CONFIG}", adapter, changes.of_json),
        "adapter_model.safetensors": _one_of(
            adapters, "adapters/adapter_model.safetensors", adapter, changes.of_safetensors_header
        ),
        "optimizer.pt": _one_of(
            adapters,
            "adapters/optimizer.pt",
            adapter,
            changes.of_archive(changes.of_opcodes),
            changes.of_archive(changes.of_bytes),
        ),
        "trainer_state.json": _one_of(adapters, "adapters/trainer_state.json", adapter, changes.of_json),
    }


def _like_a_trainer(net: torch.nn.Module, folder: Path) -> None:
    """What it leaves beside adapters: Adam's state after a step, and its learning rates."""
    learnt = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=0.1)
    for parameter in learnt:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    state = {"log_history": [{"step": 1, "learning_rate": 0.1}]}
    (folder / "trainer_state.json").write_text(json.dumps(state))


def _pictures(folder: Path) -> dict[str, Reader]:
    write_cifar10(folder / "tables")
    write_cifar10(folder / "batches", "batches")
    write_clothing1m(folder / "clothes")
    tables, batches, clothes = (_of_folder(folder / name) for name in ("tables", "batches", "clothes"))
    folder.joinpath("classes.json").write_text(classes_json())
    code = read_classes(folder / "classes.json")[1]
    ids = Image.fromarray(np.full((8, 8), 3, np.uint8))
    photograph = _image(Image.fromarray(np.zeros((8, 8, 3), np.uint8)))
    labels = {"png": _image(ids), "palette.png": _image(_with_palette(ids)), "tif": _image(ids, "TIFF")}

    def cifar10(place: Path) -> None:
        load_cifar10(place, place / "cache")

    def clothing1m(place: Path) -> None:
        found = find_clothing1m(place)
        found.parts(), found.class_names()

    return {
        "cifar10 table": _one_of(tables, "cifar10/test-00000-of-00001.parquet", cifar10, changes.of_table),
        "cifar10 batch": _one_of(
            batches, "cifar-10-batches-py/test_batch", cifar10, changes.of_pickled, changes.of_opcodes
        ),
        "clothing1m keys": _one_of(clothes, "clothing1m/clean_val_key_list.txt", clothing1m),
        "clothing1m labels": _one_of(clothes, "clothing1m/clean_label_kv.txt", clothing1m),
        "clothing1m names": _one_of(clothes, "clothing1m/category_names_eng.txt", clothing1m),
        **{
            f"label map {ending}": _one_of(
                {"i.png": photograph, f"l.{ending}": content},
                f"l.{ending}",
                lambda f, ending=ending: Pair(f / "i.png", f / f"l.{ending}", code, 8, 8)(),
                *((changes.of_png,) if ending != "tif" else ()),
            )
            for ending, content in labels.items()
        },
        "photograph": _one_of(
            {"i.png": photograph, "l.png": labels["png"]},
            "i.png",
            lambda f: Pair(f / "i.png", f / "l.png", code, 8, 8)(),
            changes.of_png,
        ),
    }


def _databases(folder: Path) -> dict[str, Reader]:
    write_database(folder / "database", [simulate("parking", 0, name="scene-0")])
    database = _of_folder(folder / "database")

    def files(place: Path) -> None:
        scenario_files(place)

    return {
        "summary": _one_of(database, "dataset_summary.pkl", files, changes.of_pickled),
        "mapping": _one_of(database, "dataset_mapping.pkl", files, changes.of_pickled),
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
    table, roads_of = "scenario_s.parquet", "log_map_archive_s.json"
    argoverse = {table: _parquet(pa.table(tracks)), roads_of: json.dumps(roads).encode()}
    return {
        "submission": _submission(),
        "argoverse2 table": _one_of(
            argoverse, "scenario_s.parquet", read_argoverse2, changes.of_table, changes.of_footer
        ),
        "argoverse2 map": _one_of(argoverse, roads_of, read_argoverse2, changes.of_json),
    }


def _submission() -> Reader:
    one = {"instance": "a" * 32, "sample": "b" * 32, "prediction": np.zeros((1, 12, 2)).tolist(), "probabilities": [1]}
    content = json.dumps([one]).encode()
    return Reader("s.json", lambda: content, lambda f: read_submission(f / "s.json"), forms=(changes.of_json,))


def _weights() -> dict[str, Reader]:
    linear = torch.nn.Linear(2, 2)
    small = Architecture(backbone="small").build(3).net
    state, whole = _torch(linear.state_dict()), _torch(small.state_dict())

    def segmenter(place: Path) -> None:
        Architecture(backbone="small", weights=str(place / "small.pt")).build(3)

    inner = (changes.of_archive(changes.of_opcodes), changes.of_archive(changes.of_bytes))
    return {
        "state_dict": Reader(
            "w.pt", lambda: state, lambda f: load_strictly(linear, f / "w.pt", "task.weights"), forms=inner
        ),
        "weights of a segmenter": Reader("small.pt", lambda: whole, segmenter, forms=inner),
    }


def _finished() -> dict[str, Reader]:
    """What runs left, and what comes of it."""
    names = {"experiment": "selection", "task": "digits", "features": "wfd", "selector": "random", "seed": 0}
    run = names | {"overrides": ["selector=random"], "not_applied": []}
    metrics = {
        "run": run,
        "metrics": {"accuracy": 0.5, "loss": 1.0},
        "intervals": {"accuracy": [0.4, 0.6], "loss": [None, None]},
        "selection": {"size": 4, "ratio": 0.1, "ot_distance": 1.0, "lower_bound": 0.5, "precision": 1.0},
        "interval": "One training.",
        "arms": {},
    }
    config = {"task": {"name": "digits"}, "selector": {"ratio": 0.1}, "features": {"kind": "wfd"}, "seed": 0}
    files = {"0/metrics.json": json.dumps(metrics).encode(), "0/config.yaml": yaml.safe_dump(config).encode()}
    table = PaperTable("Table", {"Digits": Column("metrics.accuracy")}, {"R": Row((1.0,), ("selector=random",))})

    def cells(folder: Path) -> None:
        table.cells(finished_runs(folder))

    def compared(folder: Path) -> None:
        compare.write(folder)

    return {
        "metrics": _one_of(files, "0/metrics.json", cells, changes.of_json),
        "config.yaml": _one_of(files, "0/config.yaml", cells),
        "sweep": _one_of(files, "0/metrics.json", compared, changes.of_json),
    }


def _kept() -> dict[str, Reader]:
    """What the engine writes beside features and selections."""
    table = pa.table({"index": np.arange(4), "value": np.arange(4.0), "id": list("abcd")})
    values = _parquet(table.replace_schema_metadata({"format": VALUES_FORMAT}))
    adam = {key: torch.ones(()) if key == "step" else torch.ones(2) for key in ("exp_avg", "exp_avg_sq", "step")}

    def good_moments() -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            write_moments(folder, Moments({"weight": adam}, 0.1))
            return next(Path(folder).iterdir()).read_bytes()

    return {
        "values": Reader(
            "values.parquet", lambda: values, lambda f: inspected(f / "values.parquet"), forms=(changes.of_table,)
        ),
        "moments": Reader(MOMENTS, good_moments, read_moments, forms=(changes.of_safetensors_header,)),
    }


def small_data_sets() -> dict[str, Reader]:
    """Those whose good files take no time to make."""
    return _conversations() | _argoverse2() | _weights()


def left_by_runs() -> dict[str, Reader]:
    """What runs and the engine write beside features and selections, and what is no error where it is not there."""
    return _finished() | _kept()


def data_sets(folder: Path) -> dict[str, Reader]:
    """All of them. folder: an empty one, in which good files are made."""
    folder.mkdir()
    found = small_data_sets() | left_by_runs()
    for name, make in {"models": _models, "pictures": _pictures, "databases": _databases}.items():
        (folder / name).mkdir()
        found |= make(folder / name)
    return found
