"""Files that are spoilt in ways that nobody thought of: a reader gives what it can, or one line.

The short profile draws the same examples each time. The long one (`-m slow`) goes on for FUZZ_SECONDS of the processor
for each kind of file, in a process of its own, and begins from what ended in a new way so far: what passes one check of
a reader then meets the next. What it finds is written to the folder FUZZ_KEEP; what it once found is in `corpus`.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import logging
import multiprocessing
import os
import re
import resource
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import hypothesis
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tarot import InputError
from tests.fuzz.changes import CHANGES, Change, of_bytes
from tests.fuzz.data_sets import data_sets, left_by_runs, small_data_sets
from tests.fuzz.readers import Reader, readers

KINDS = {
    "rows": (
        *("rows.jsonl", "talks.jsonl", "shared.jsonl", "rows.json", "rows.csv", "rows.parquet", "talks.parquet"),
        *("rows.arrow", "rows.jsonl.gz", "dataset_info.json", "state.json", "dataset_dict.json", "mmlu", "bbh"),
    ),
    "features": ("npy", "npz", "safetensors", "pt", "parquet", "vector", "lines", "moments"),
    "pickles": ("pickle", "cifar10 batch", "summary", "mapping"),
    "scenarios": ("scenario", "argoverse2 table", "argoverse2 map", "submission"),
    "images": (
        *("image", "jpeg", "tiff", "bmp", "webp", "gif", "photograph"),
        *("label map png", "label map palette.png", "label map tif", "classes"),
    ),
    "stores": (
        *("manifest", "sealed manifest", "shard", "sealed shard"),
        *("trak grads.mmap", "trak _is_featurized.mmap", "bergson info.json", "bergson gradients.bin"),
    ),
    "selections": ("selection", "values"),
    "metrics": ("metrics", "config.yaml", "sweep"),
    "models": (
        *("state_dict", "weights of a segmenter", "config.json", "model.safetensors", "tokenizer.json"),
        *("tokenizer_config.json", "adapter_config.json", "adapter_model.safetensors"),
        *("optimizer.pt", "trainer_state.json"),
    ),
    "tables": ("cifar10 table", "clothing1m keys", "clothing1m labels", "clothing1m names"),
}
"""Readers, by kind of file."""
FOUND = sorted((Path(__file__).parent / "corpus").glob("*/*"))
SECONDS = 10.0
"""Of the processor, after which a reader hangs."""
LONGEST = 600.0
"""By the clock, after which one that waits for something does."""
MEMORY = 2**32
"""Bytes that a reader may take."""
OURS = tuple(str(Path(__file__).parents[2] / room) for room in ("tarot", "tasks", "experiments"))
EASY = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


@functools.cache
def known() -> dict[str, Reader]:
    """Those that take no time to make."""
    return readers(Path(tempfile.mkdtemp()) / "good") | small_data_sets() | left_by_runs()


def feed(name: str, reader: Reader, content: bytes) -> str:
    """Reads it, and says how that ended. Raises what is neither a value nor an InputError of one line."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader.beside(Path(folder))
        path = Path(folder, reader.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        start = time.process_time()
        try:
            reader.read(Path(folder))
        except InputError as error:
            assert "\n" not in str(error), f"{name}: more than a line, {error}"
            return f"refused: {error}"
        finally:
            assert time.process_time() - start < SECONDS, f"{name} hangs"
    return "read"


def spoilt(reader: Reader, base: bytes, way: int, changes: Sequence[Change]) -> bytes:
    """By one of its forms, or in its bytes, where these are not of its format any more."""
    forms = (*reader.forms, of_bytes)
    with contextlib.suppress(Exception):
        return forms[way % len(forms)](base, changes)
    return of_bytes(base, changes)


def refuse_other_errors(name: str, reader: Reader) -> None:
    @settings(max_examples=4, derandomize=True, **EASY)
    @hypothesis.given(st.integers(0, 5), CHANGES)
    def is_read_or_refused(way: int, changes: list[Change]) -> None:
        feed(name, reader, spoilt(reader, reader.good(), way, changes))

    is_read_or_refused()


@pytest.mark.parametrize("name", sorted(known()))
def test_spoilt_files_are_read_or_refused(name):
    reader = known()[name]
    assert feed(name, reader, reader.good()) == "read"
    refuse_other_errors(name, reader)


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_was_found_once_is_read_or_refused(path):
    """Files on which a reader once ended otherwise, in folders by the reader's name, called by how and where."""
    name = path.parent.name.replace("_", " ")
    reader = known().get(name) or known()[path.parent.name]
    feed(name, reader, path.read_bytes())


# --- for minutes -----------------------------------------------------------------------------------------------------


class Search:
    """Spoils files of one kind, those of each reader in turn, and keeps what ended in a way that is new.

    kept: a folder for files on which a reader failed, the shortest of each way to fail.
    """

    def __init__(self, kind: str, found: dict[str, Reader], kept: Path) -> None:
        self.readers = {name: found[name] for name in KINDS[kind]}
        self.bases = {name: [reader.good()] for name, reader in self.readers.items()}
        self.kept = kept
        self.ended: Counter[str] = Counter()
        self.ways: set[str] = set()
        self.failures: dict[str, bytes] = {}

    def go_on(self, seconds: float) -> None:
        until, seed = time.process_time() + seconds, 0
        while time.process_time() < until:
            for name in self.readers:
                self.some(name, seed)
            seed += 1

    def some(self, name: str, seed: int) -> None:
        reader, bases = self.readers[name], self.bases[name]

        @hypothesis.seed(seed)
        @settings(max_examples=100, phases=[hypothesis.Phase.generate], **EASY)
        @hypothesis.given(st.integers(0, 2**32), CHANGES)
        def draw(base: int, changes: list[Change]) -> None:
            for way in range(len(reader.forms) + 1):
                self.one(name, reader, spoilt(reader, bases[base % len(bases)], way, changes))

        draw()

    def one(self, name: str, reader: Reader, content: bytes) -> None:
        last = self.kept / "last" / name.replace("/", " ")
        last.write_bytes(content)  # where the process does not live to say
        faulthandler.dump_traceback_later(LONGEST, exit=True)
        try:
            how = feed(name, reader, content)
        except hypothesis.errors.HypothesisException:
            raise
        except BaseException as error:
            frames = [
                frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename
            ]
            place = next((f for f in reversed(frames) if "/tests/" not in f.filename), frames[-1])
            how = f"{name}: {type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {str(error)[:200]}"
            key = how.partition(": ")[2].partition(": ")[0]
            if key not in self.failures or len(content) < len(self.failures[key]):
                self.failures[key] = content
                (self.kept / re.sub(r"[^\w.]+", "-", f"{name} {key}")).write_bytes(content)
                print(f"FOUND {how}", flush=True)
            how = "failed"
        finally:
            faulthandler.cancel_dump_traceback_later()
        kind, _, said = how.partition(":")
        self.ended[kind] += 1
        way = f"{name} {kind} " + re.sub(r"'[^']*'|[\d,.]+|\"[^\"]*\"|/\S+", "", said)[:60]
        if way not in self.ways and len(content) < 4 * len(reader.good()) + 1000:
            self.ways.add(way)
            self.bases[name].append(content)


def search(kind: str, folder: Path, kept: Path) -> None:
    logging.disable(logging.CRITICAL)
    (kept / "last").mkdir(parents=True, exist_ok=True)
    found = known()
    if not set(KINDS[kind]) <= set(found):
        found = found | data_sets(folder / "better")
    of_kind = Search(kind, found, kept)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    seconds = float(os.environ.get("FUZZ_SECONDS", "20"))
    of_kind.go_on(seconds)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"{kind}: {seconds:.0f} s, {of_kind.ended.total():,} files: {dict(of_kind.ended)}, {most:.0f} MB", flush=True)
    os._exit(1 if of_kind.failures else 0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_spoilt_files_are_read_or_refused_for_minutes(kind, tmp_path):
    kept = Path(os.environ.get("FUZZ_KEEP", tmp_path / "kept")) / kind
    process = multiprocessing.get_context("fork").Process(target=search, args=(kind, tmp_path, kept))
    process.start()
    process.join()
    assert process.exitcode == 0, f"{kept} holds what it failed on; where it crashed or hung, in `last`"
