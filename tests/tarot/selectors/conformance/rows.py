"""In what form it is given rows: the same numbers make the same choice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from tarot import FeatureStore
from tests.tarot.selectors.conformance.subjects import (
    DIMENSIONS,
    NotPromised,
    Subject,
    assert_same,
    pool,
    refused,
    usual,
)


def is_the_same_in_every_kind_of_array(subject: Subject) -> None:
    known, one = pool(), usual(subject)
    doubled = {key: [view.astype(np.float64) for view in known[key]] for key in ("candidates", "targets")}
    assert_same(one, subject.select({**known, **doubled}), "float64 features")
    alone = {key: known[key][0] for key in ("candidates", "targets")}
    assert_same(one, subject.select({**known, **alone}), "a matrix instead of a list of one")


def reads_every_precision(subject: Subject) -> None:
    """The same numbers in half and double precision: stores keep halves, and NumPy makes doubles."""
    half = pool()
    for key in ("candidates", "targets"):
        half[key] = [view.astype(np.float16) for view in half[key]]
    for precision in (np.float32, np.float64):
        wider = {key: [view.astype(precision) for view in half[key]] for key in ("candidates", "targets")}
        assert_same(subject.select(half), subject.select({**half, **wider}), f"float16 as {precision.__name__}")


def reads_rows_wherever_they_are(subject: Subject, folder: Path) -> None:
    """On disk, in a store, in torch, in Fortran's order, or not to be written to: a pool does not always fit in
    memory, nor belong to who selects from it."""
    known, one = pool(), usual(subject)

    def mapped(name: str, rows: np.ndarray) -> np.ndarray:
        np.save(folder / f"{name}.npy", rows)
        return np.load(folder / f"{name}.npy", mmap_mode="r")

    def stored(name: str, rows: np.ndarray) -> FeatureStore:
        return FeatureStore.build(
            folder / name,
            recipe={"kind": "test"},
            ids=[str(i) for i in range(len(rows))],
            dim=DIMENSIONS,
            rows_per_shard=len(rows) // 2,
            dtype="float32",
            compute=lambda start, stop: {"features": torch.from_numpy(rows[start:stop])},
        )

    def locked(name: str, rows: np.ndarray) -> np.ndarray:
        rows = rows.copy()
        rows.flags.writeable = False
        return rows

    kinds: dict[str, Callable[[str, np.ndarray], Any]] = {
        "a memory map": mapped,
        "a store": stored,
        "a torch tensor": lambda name, rows: torch.from_numpy(rows.copy()),
        "rows in Fortran's order": lambda name, rows: np.asfortranarray(rows),
        "read-only rows": locked,
    }
    for what, kind in kinds.items():
        rows = {key: [kind(key, known[key][0])] for key in ("candidates", "targets")}
        assert_same(one, subject.select({**known, **rows}), what)
    with mock.patch("tarot.features.arrays.block_size", lambda *_: 7):  # as many as a pool has that fills the memory
        assert_same(one, subject.select(known), "a few rows at a time")


def follows_no_scale(subject: Subject) -> None:
    """Features in other units make the same choice, however near to the ends of float32."""
    known, one = pool(), usual(subject)
    for scale in (1e-30, 1e10):
        sides = {side: [view * np.float32(scale) for view in known[side]] for side in ("candidates", "targets")}
        assert_same(one, subject.select({**known, **sides}), f"features times {scale:g}")


def refuses_candidates_that_are_not_finite(subject: Subject) -> None:
    if not subject.looks_at_features:
        raise NotPromised("it does not look at features")
    for number in (np.nan, np.inf):
        known = pool()
        known["candidates"][0][7, 2] = number
        refused(f"a candidate with {number}", lambda known=known: subject.select(known), "candidates", "row 7")
