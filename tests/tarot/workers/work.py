"""What workers are given to do in tests: by name, since other processes import it."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import threading
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import torch

from tarot import InputError
from tarot.common import hash_content
from tarot.features import Blueprint, FeatureStore

ROWS, DIM, STEP = 22, 5, 4


def process(item, state):
    time.sleep(0.05)
    return os.getpid()


def refuses(item, state):
    time.sleep(0.3 if item == 3 else 0)
    if item in (3, 4):
        raise InputError(f"item {item} is bad")
    return item


def says(item, state):
    logging.getLogger("tarot").warning("of %d", item)
    warnings.warn("beware", stacklevel=2)
    return torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), os.environ["OMP_NUM_THREADS"]


def dies(item, state):
    os.kill(os.getpid(), signal.SIGKILL)


def locks(item, state):
    return threading.Lock()  # which cannot be pickled


def node() -> str:
    """Where Ray has put this worker; nowhere without Ray."""
    ray = sys.modules.get("ray")
    return ray.get_runtime_context().get_node_id() if ray is not None and ray.is_initialized() else ""


def full_disk() -> None:
    """The next file of this process is written by half."""
    write = Path.write_bytes

    def fills_up(self, data):
        Path.write_bytes = write
        write(self, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    Path.write_bytes = fills_up


class Rows:
    """Fills a store with rows that depend on its number and theirs.

    once: a file whose absence says that this shard, (store, number), is the one to die or to fail in."""

    dim = DIM

    def __init__(self, number: int, fate: str | None, once: Path) -> None:
        self.number, self.fate, self.once = number, fate, once

    def rows(self, start, stop):
        if self.number == 1 and start == 2 * STEP and self.fate is not None and not self.once.exists():
            self.once.write_text(node())
            if self.fate == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            elif self.fate == "full":
                full_disk()
            else:
                time.sleep(float(self.fate))
        generators = [torch.Generator().manual_seed(1000 * self.number + row) for row in range(start, stop)]
        return {
            "features": torch.stack([torch.randn(DIM, generator=generator) for generator in generators]),
            "residual": torch.arange(start, stop) / 7,
        }

    def notes(self):
        return {"store": self.number}


def filled(fate: str | None, once: Path, number: int, state: None) -> Rows:
    return Rows(number, fate, once)


def nothing() -> None:
    pass


def build(folder: Path, engine, fate: str | None = None, stores: int = 3) -> dict[str, str]:
    """Stores below a folder, and the SHA-256 of all that is in them."""
    blueprints = [
        Blueprint(folder / f"s{number}", {"store": number}, range(ROWS), None, "float16", STEP, ("residual",))
        for number in range(stores)
    ]
    FeatureStore.build_all(blueprints, partial(filled, fate, folder / "once"), nothing, engine)
    return content(folder)


def content(folder: Path) -> dict[str, str]:
    files = [file for file in folder.rglob("*") if file.is_file() and not file.name.startswith((".", "once"))]
    return {str(file.relative_to(folder)): hash_content(file) for file in sorted(files)}


def pool(n: int = 300, m: int = 12, d: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Candidates and targets around the same centres, float32."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(5, d))
    return tuple(  # type: ignore[return-value]
        (centres[rng.integers(5, size=count)] + 0.4 * rng.normal(size=(count, d))).astype(np.float32)
        for count in (n, m)
    )
