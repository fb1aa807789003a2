"""Nothing stale: one byte of an input changed, its size and its time of change as before, and what is made of it is
made anew; nothing changed, and it is read from the cache."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoModelForCausalLM

from tarot.common import fingerprint
from tasks.common import contents, supervised
from tasks.features import FeatureTask
from tasks.motion import Databases
from tasks.motion.formats.scenarionet_writer import write_database
from tasks.motion.simulator.scenes import simulate
from tasks.task import Checkpoint
from tests.tasks.instruction.conversations import write_model
from tests.tasks.test_contract import small_task

Built = Callable[[], object]


def change(path: Path, old: bytes | None = None, new: bytes = b"") -> None:
    """One byte: `old` becomes `new`, or a bit in the middle of the file flips."""
    found, content = path.stat(), bytearray(path.read_bytes())
    place = len(content) // 2 if old is None else content.index(old)
    if old is None:
        content[place] ^= 1
    else:
        assert len(old) == len(new) and sum(a != b for a, b in zip(old, new, strict=True)) == 1
        content[place : place + len(old)] = new
    path.write_bytes(content)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (found.st_size, found.st_mtime_ns)


def checkpoints(task: object, cache: Path) -> set[str]:
    """The files of checkpoints in the cache, once the task has asked for its own, as by a process of its own."""
    contents.forget()
    task.fit_surrogate = lambda seed, **_: [Checkpoint("last", {}, 1.0)]
    task.checkpoints()
    return {path.name for path in (cache / "checkpoints").glob("*.safetensors")}


@pytest.fixture(autouse=True)
def new_processes(monkeypatch):
    """Files have been there for a while, and what a process remembers of others is forgotten."""
    monkeypatch.setattr(contents, "YOUNG", -1)
    contents.forget()


def segmentation(cache: Path, kind: str) -> tuple[Built, Callable[[], None]]:
    def build() -> object:
        return small_task("segmentation/folders", cache)

    build()
    file = sorted((cache / "data" / "segmentation" / "folders").glob(f"candidates/{kind}/drive/*"))[0]
    return build, lambda: change(file)


def pickles(cache: Path) -> tuple[Built, Callable[[], None]]:
    for name in ("a", "b", "c"):
        scenes = [simulate("parking", seed, name=f"scene-{name}{seed}") for seed in range(2)]
        write_database(cache / "db" / name, scenes)

    def build() -> object:
        task = small_task("motion", cache)
        folders = {name: str(cache / "db" / name) for name in "abc"}
        task.data = Databases({"one": folders["a"]}, "two", folders["b"], folders["c"])
        return task

    return build, lambda: change(next((cache / "db" / "a").glob("sd_*.pkl")))


def conversations(cache: Path) -> Path:
    small_task("instruction/files", cache)
    return cache / "data" / "instruction" / "files" / "candidates.jsonl"


def jsonl(cache: Path) -> tuple[Built, Callable[[], None]]:
    file = conversations(cache)
    return lambda: small_task("instruction/files", cache), lambda: change_text(file)


def change_text(file: Path) -> None:
    """A letter of what is said."""
    text = file.read_bytes()
    word = next(word for word in text.split(b'"content": "')[1].split(b" ") if word.isalpha() and len(word) > 2)
    change(file, word, bytes([word[0] ^ 1]) + word[1:])


def tokenizer(cache: Path) -> tuple[Built, Callable[[], None]]:
    conversations(cache)
    given = small_task("instruction/files", cache).tokenizer
    given.save_pretrained(cache / "tokenizer")

    def build() -> object:
        return small_task("instruction/files", cache, f"tokenizer={cache / 'tokenizer'}")

    return build, lambda: change(cache / "tokenizer" / "tokenizer.json", b"<|user|>", b"<|usex|>")


def model(cache: Path, adapters: bool) -> tuple[Built, Callable[[], None]]:
    from tasks.instruction.model import Adapter

    conversations(cache)
    path = folder = write_model(cache / "model")
    if adapters:
        net = AutoModelForCausalLM.from_pretrained(folder)
        path = cache / "adapters"
        wrapped = Adapter(rank=2).attach(net)
        wrapped.peft_config["default"].base_model_name_or_path = str(cache / "model")
        wrapped.save_pretrained(path)

    def build() -> object:
        of_folder = (f"language.path={path}", f"tokenizer={cache / 'model'}")
        return small_task("instruction/files", cache, *of_folder)

    return build, lambda: change(cache / "model" / "model.safetensors")


def hub(cache: Path) -> tuple[Built, Callable[[], None]]:
    pytest.importorskip("datasets")
    file = conversations(cache)
    folder = cache / "hub" / "pool"
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_bytes(file.read_bytes())

    def build() -> object:
        return small_task("instruction/files", cache, f"candidates='hub:{folder}'")

    return build, lambda: change_text(folder / "train.jsonl")


INPUTS = {
    "image": lambda cache: segmentation(cache, "images"),
    "label": lambda cache: segmentation(cache, "labels"),
    "pickle": pickles,
    "jsonl": jsonl,
    "tokenizer": tokenizer,
    "model folder": lambda cache: model(cache, adapters=False),
    "base of adapters": lambda cache: model(cache, adapters=True),
    "hub folder": hub,
}


@pytest.mark.parametrize("kind", INPUTS)
def test_one_byte_of_an_input(kind, tmp_path):
    build, harm = INPUTS[kind](tmp_path)
    first = checkpoints(build(), tmp_path)
    assert len(first) == 1 and checkpoints(build(), tmp_path) == first, "nothing changed, and it was made again"
    harm()
    second = checkpoints(build(), tmp_path)
    assert len(second) == 2, "one byte changed, and what is old was read"
    assert checkpoints(build(), tmp_path) == second


def test_one_byte_of_a_users_features(tmp_path):
    rows = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    table = pa.table({f"f{i}": rows[:, i] for i in range(4)})
    for name in ("c", "t"):
        pq.write_table(table, tmp_path / f"{name}.parquet", compression="none", use_dictionary=False)

    def recipe() -> str:
        contents.forget()
        files = {"candidates": tmp_path / "c.parquet", "targets": tmp_path / "t.parquet"}
        return fingerprint(FeatureTask(name="features", **files, cache_dir=tmp_path).recipe())

    first = recipe()
    assert recipe() == first
    change(tmp_path / "c.parquet", rows[7, 0].tobytes(), (rows[7:8, 0].view(np.uint32) ^ 1).tobytes())
    assert recipe() != first


@pytest.mark.parametrize(("option", "anew"), [("train.steps=5", True), ("train.merge_targets=max", False)])
def test_an_option(option, anew, tmp_path):
    first = checkpoints(small_task("digits", tmp_path), tmp_path)
    second = checkpoints(small_task("digits", tmp_path, option), tmp_path)
    assert (len(second) > len(first)) == anew


def test_a_source_file(tmp_path, monkeypatch):
    """What `source_hash` says of one is in tests/tasks/common/test_code.py."""
    first = checkpoints(small_task("digits", tmp_path), tmp_path)
    assert checkpoints(small_task("digits", tmp_path), tmp_path) == first
    monkeypatch.setattr(supervised, "source_hash", lambda *_: "other code")
    assert len(checkpoints(small_task("digits", tmp_path), tmp_path)) == 2
