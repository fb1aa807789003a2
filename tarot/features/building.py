"""How stores are made: their shards by workers, wherever these are, and all else here.

While a store is made it is the hidden directory `.<name>.part` beside its place. A shard is renamed to its final name,
which contains its checksum, once it is on disk, so one that is found is whole or can be told not to be. This process
holds the lock, keeps what is known in the manifest, and moves the directory to its place when the manifest is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor

from tarot.common import (
    InputError,
    atomic_file,
    canonical,
    fingerprint,
    hash_content,
    locked,
    progress,
    remove_abandoned,
)
from tarot.features.manifest import (
    DTYPES,
    FORMAT,
    MANIFEST,
    Shard,
    StoredDtype,
    StoreError,
    checked_manifest,
    refuse_difference,
    write_manifest,
)
from tarot.workers import LOCAL, Workers

log = logging.getLogger("tarot")


class Filling(Protocol):
    """What makes the rows of a store, where they are made. dim: numbers in a row."""

    @property
    def dim(self) -> int: ...

    def rows(self, start: int, stop: int, /) -> Mapping[str, Tensor]:
        """ "features" [stop - start, dim] and each of the store's columns [stop - start]."""
        ...

    def notes(self) -> Mapping[str, Any]:
        """Facts that do not tell stores apart, for the manifest."""
        ...


def _names(ids: Any) -> list[Any]:
    """One or more names of rows: all strings or all integers, as a manifest holds them, and no two alike."""
    found = np.asarray(ids)
    if found.ndim != 1:
        raise InputError(f"ids must be a list of names; their shape is {found.shape}")
    names: list[Any] = found.tolist()
    if not names:
        raise InputError("a store needs at least one row: ids is empty")
    kind = str if isinstance(names[0], str) else int
    seen: set[Any] = set()
    for name in names:
        if type(name) is not kind:
            raise InputError(f"ids must be all strings or all integers; one is {name!r}")
        if name in seen:
            raise InputError(f"ids must be unique; {name!r} occurs more than once")
        seen.add(name)
    return names


@dataclass(frozen=True, eq=False)
class Blueprint:
    """A store that is to be at `path`, and all that is decided before its first row is computed.

    dim: None where only what makes the rows knows. may_change: whether rows that were refused can be others when the
    store is made again; else nothing of it stays. The others are the arguments of `FeatureStore.build`, as are the
    errors.
    """

    path: Path
    recipe: Mapping[str, Any]
    ids: Any
    dim: int | None = None
    dtype: StoredDtype = "float32"
    rows_per_shard: int = 4096
    columns: Sequence[str] = ()
    description: str = "features"
    may_change: bool = True

    def __post_init__(self) -> None:
        ids = _names(self.ids)
        if self.dtype not in DTYPES:
            raise InputError(f"dtype must be one of {', '.join(DTYPES)}; it is {self.dtype!r}")
        if (self.dim is not None and self.dim < 1) or self.rows_per_shard < 1:
            raise InputError(
                f"dim and rows_per_shard must be at least 1; they are {self.dim} and {self.rows_per_shard}"
            )
        known = {"path": Path(self.path), "ids": ids, "recipe": json.loads(canonical(self.recipe))}
        for name, value in {**known, "columns": [*self.columns]}.items():
            object.__setattr__(self, name, value)  # the dataclass is frozen for everybody else

    @property
    def part(self) -> Path:
        """Where it is made."""
        return self.path.with_name(f".{self.path.name}.part")

    @property
    def shards(self) -> int:
        return -(-len(self.ids) // self.rows_per_shard)

    def goes_on_after(self, error: BaseException) -> bool:
        """Whether there is something that a further call can go on from."""
        return any(self.part.glob("*.safetensors")) and (self.may_change or not isinstance(error, InputError))

    def rows_of(self, shard: int) -> tuple[int, int]:
        start = shard * self.rows_per_shard
        return start, min(len(self.ids), start + self.rows_per_shard)

    def plan(self, dim: int | None) -> dict[str, Any]:
        """What the manifest says from the beginning on; dim: None where it is not known yet."""
        made_of = {
            "recipe": self.recipe,
            "ids": self.ids,
            "dim": None if dim is None else int(dim),
            "dtype": self.dtype,
            "columns": self.columns,
        }
        return {
            "format": FORMAT,
            "fingerprint": fingerprint(made_of),
            "rows_per_shard": int(self.rows_per_shard),
            **made_of,
        }


def build_missing(
    blueprints: Sequence[Blueprint],
    filling: Callable[[int, Any], Filling],
    setup: Callable[[], Any],
    engine: Workers = LOCAL,
) -> None:
    """Makes those of the stores that are not there, in one map over the shards of all of them.

    filling(number, state): what fills the store of that blueprint, asked for where a row has to be computed; a worker
    has one at a time. state: what `setup()` gave, once for each worker. Shards of earlier runs that are whole are kept.
    """
    missing = {str(blueprint.path): n for n, blueprint in enumerate(blueprints) if not blueprint.path.exists()}
    with contextlib.ExitStack() as locks:
        for path in sorted(missing):  # of two processes with the same stores none waits for one that waits for it
            locks.enter_context(locked(path))
        wanted = [n for n in sorted(missing.values()) if not blueprints[n].path.exists()]
        if not wanted:
            return
        locks.enter_context(_without_rubbish([blueprints[n] for n in wanted]))
        begun = {n: _begun(blueprints[n]) for n in wanted}
        for folder in {blueprint.path.parent for blueprint in begun.values()}:
            engine.shares(folder)
        items = [(number, shard) for number, blueprint in begun.items() for shard in range(blueprint.shards)]
        made = engine.map(_part, items, begun, filling, setup, setup=_Worker)
        for blueprint in begun.values():
            _finish(blueprint, made)


# --- here ------------------------------------------------------------------------------------------------------------


def _begun(blueprint: Blueprint) -> Blueprint:
    """With a directory and a manifest of its beginning, and shards as large as they were begun. The caller holds the
    lock."""
    part, plan = blueprint.part, blueprint.plan(blueprint.dim)
    with _writing(blueprint.path):
        part.mkdir(exist_ok=True)
        remove_abandoned(part)
    shards_there = any(part.glob("*.safetensors"))  # else there is nothing to go on from, whatever was begun
    if shards_there and (part / MANIFEST).exists():
        there = checked_manifest(part)
        refuse_difference(part, there, plan)
        blueprint = replace(blueprint, rows_per_shard=there["rows_per_shard"], dim=blueprint.dim or there["dim"])
    with _writing(blueprint.path):
        write_manifest(part, blueprint.plan(blueprint.dim))
    return blueprint


@contextlib.contextmanager
def _without_rubbish(blueprints: Sequence[Blueprint]) -> Iterator[None]:
    """Where making them fails: of stores that are not finished, what a further call goes on from stays, and the error
    says so; all else goes."""
    try:
        yield
    except BaseException as error:
        for blueprint in (one for one in blueprints if one.part.exists()):
            if not (isinstance(error, StoreError) or blueprint.goes_on_after(error)):
                shutil.rmtree(blueprint.part, ignore_errors=True)
            elif not isinstance(error, StoreError | OSError):  # which say it themselves
                error.add_note(f"{blueprint.path} is not finished; what is finished of it stays in {blueprint.part}")
        raise


def _finish(blueprint: Blueprint, made: Iterator[_Made]) -> None:
    """Moves a store to its place when all of it is made, which the next results say."""
    shards: list[_Made] = []
    with progress(blueprint.description, len(blueprint.ids)) as advance:
        for number in range(blueprint.shards):
            start, stop = blueprint.rows_of(number)
            shards.append(next(made))
            advance(stop - start)
    known = shards[-1].known
    assert known is not None
    for shard in shards:
        refuse_difference(blueprint.part, blueprint.plan(shard.dim), {"dim": known.dim})
    manifest = {
        **blueprint.plan(known.dim),
        "notes": known.notes,
        "zero_rows": sum(made.shard["zero_rows"] for made in shards),
        "shards": [made.shard for made in shards],
    }
    with _writing(blueprint.path):
        write_manifest(blueprint.part, manifest)
        os.replace(blueprint.part, blueprint.path)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno, f"{error.strerror}; {path} is not finished, its finished shards are kept for the next run"
        ) from error


# --- where the workers are -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Known:
    """What is known where rows are made. dim: numbers in a row."""

    dim: int
    notes: dict[str, Any]


@dataclass(frozen=True)
class _Made:
    """A shard on disk. dim: numbers in its rows. known: with the last one of a store."""

    shard: Shard
    dim: int
    known: _Known | None = None


class _Worker:
    """Fills one store at a time."""

    def __init__(
        self, begun: Mapping[int, Blueprint], filling: Callable[[int, Any], Filling], setup: Callable[[], Any]
    ) -> None:
        self._filling, self._setup = filling, setup
        self._number: int | None = None
        self._filled: Filling | None = None

    @cached_property
    def _state(self) -> Any:
        return self._setup()

    def filling(self, number: int) -> Filling:
        if self._filled is None or self._number != number:
            self._filled = None  # before the next one takes memory
            self._filled, self._number = self._filling(number, self._state), number
        return self._filled


def _part(
    item: tuple[int, int],
    worker: _Worker,
    begun: Mapping[int, Blueprint],
    filling: Callable[[int, Any], Filling],
    setup: Callable[[], Any],
) -> _Made:
    """A shard of a store (its number, the shard's), which is made unless it is there."""
    number, shard = item
    blueprint = begun[number]
    made = _whole_shard(blueprint.part, shard)
    if made is None:
        start, stop = blueprint.rows_of(shard)
        filled = worker.filling(number)
        tensors = _checked(filled.rows(start, stop), blueprint, filled.dim, start, stop)
        with _writing(blueprint.path):
            made = _write_shard(blueprint.part, shard, tensors)
    if shard < blueprint.shards - 1:
        return made
    filled = worker.filling(number)  # when it has seen rows, by which it may know more
    return replace(made, known=_Known(filled.dim, json.loads(canonical(filled.notes()))))


def _checked(tensors: Mapping[str, Tensor], blueprint: Blueprint, dim: int, start: int, stop: int) -> dict[str, Tensor]:
    """What was computed, in the store's dtype; InputError names the row that is wrong."""
    if not isinstance(tensors, Mapping) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise InputError(f'rows {start}..{stop} must come as tensors by name, {{"features": [rows, dim], ...}}')
    wanted = {"features": (stop - start, dim), **dict.fromkeys(blueprint.columns, (stop - start,))}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != wanted:
        raise InputError(f"rows {start}..{stop} should have come with the shapes {wanted}; they came with {shapes}")
    dtype = blueprint.dtype
    features = tensors["features"].detach().cpu()
    stored = features.to(DTYPES[dtype])
    for reason, bad in {
        "has NaN or infinite features": ~torch.isfinite(features).all(dim=1),
        f"is too large for {dtype}; use float32 or bfloat16": ~torch.isfinite(stored).all(dim=1),
        f"is too small for {dtype}, which would round its digits off; use float32 or bfloat16": (
            (features != 0).any(dim=1) & (stored.abs().amax(dim=1) < torch.finfo(stored.dtype).smallest_normal)
        ),
    }.items():
        if bad.any():
            row = start + int(bad.nonzero()[0])
            raise InputError(f"row {row} (id {blueprint.ids[row]!r}) {reason}")
    columns = {name: tensors[name].detach().cpu().contiguous() for name in blueprint.columns}
    return {"features": stored.contiguous(), **columns}


def _write_shard(part: Path, number: int, tensors: dict[str, Tensor]) -> _Made:
    zero_rows = int((tensors["features"] == 0).all(dim=1).sum())
    content = safetensors.torch.save(tensors, {"zero_rows": str(zero_rows)})
    sha256 = hashlib.sha256(content).hexdigest()
    file = part / f"{number:05d}-{sha256[:16]}.safetensors"
    with atomic_file(file) as temporary:
        temporary.write_bytes(content)
    shard: Shard = {"file": file.name, "bytes": len(content), "sha256": sha256, "zero_rows": zero_rows}
    return _Made(shard, tensors["features"].shape[1])


def _whole_shard(part: Path, number: int) -> _Made | None:
    """A shard that an earlier run finished. One whose bits are not those of its name is removed."""
    for file in part.glob(f"{number:05d}-*.safetensors"):
        sha256 = hash_content(file)
        if file.stem == f"{number:05d}-{sha256[:16]}":
            with safe_open(file, "pt") as content:
                zero_rows = int(content.metadata()["zero_rows"])
                dim = content.get_slice("features").get_shape()[1]
            shard: Shard = {"file": file.name, "bytes": file.stat().st_size, "sha256": sha256, "zero_rows": zero_rows}
            return _Made(shard, dim)
        log.warning("warning: %s is damaged: its bits differ from its checksum; it is made again", file)
        file.unlink()
    return None
