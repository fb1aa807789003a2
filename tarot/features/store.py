"""Features on disk: written shard by shard, resumable, checksummed, larger than memory, and never mixed up.

A store is a directory: `manifest.json` (the recipe of everything that made the rows, row ids, a checksum per shard) and
the shards, safetensors files that are read by memory map. `tarot.features.building` says how it is made.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tarot.common import InputError, canonical, progress
from tarot.features.arrays import Rows
from tarot.features.building import Blueprint, Filling, build_missing
from tarot.features.manifest import (
    DTYPES,
    MANIFEST,
    REBUILD,
    Manifest,
    StoredDtype,
    StoreError,
    bit_damage,
    finished_manifest,
    refuse_difference,
    size_damage,
)
from tarot.features.readers import read_foreign
from tarot.workers import LOCAL, Workers

_OPEN_SHARDS = 256

Compute = Callable[[int, int], Mapping[str, Tensor]]


class FeatureStore:
    """A finished store: a matrix of rows [n, dim] to read from. Use `build` or `open`.

    path: its directory. manifest: all that is known of it. ids [n]: a name per row. columns: further numbers per row.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest
        self.shape = (len(manifest["ids"]), manifest["dim"])
        # NumPy has no bfloat16: such a store reads as float32, which holds every bfloat16 exactly.
        self.dtype = np.dtype("float32" if manifest["dtype"] == "bfloat16" else manifest["dtype"])
        self._verified: set[int] = set()
        self._shard = lru_cache(_OPEN_SHARDS)(self._open_shard)  # each open map costs address space

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).open, (self.path,)

    def __len__(self) -> int:
        return self.shape[0]

    @cached_property
    def ids(self) -> NDArray[Any]:
        """A name per row, [n]: strings or integers."""
        return np.asarray(self.manifest["ids"])

    @cached_property
    def columns(self) -> dict[str, NDArray[Any]]:
        """name -> [n], one number per row beside its features."""
        shards = [self._shard(number) for number in range(len(self.manifest["shards"]))]
        return {name: torch.cat([shard[name] for shard in shards]).numpy() for name in self.manifest["columns"]}

    def __getitem__(self, index: slice | NDArray[np.integer] | Sequence[int]) -> NDArray[Any]:
        """The rows of a slice or of integer positions, [k, dim] in the store's dtype."""
        n = len(self)
        if isinstance(index, slice):
            start, stop, step = index.indices(n)
            if step == 1:
                return self._consecutive(start, max(start, stop))
            index = np.arange(start, stop, step)
        index = np.asarray(index)
        if index.dtype.kind not in "iu" or index.ndim != 1:
            raise InputError(
                f"{self.path}: rows are read by a slice or a list of integers, not {index.dtype} {index.shape}"
            )
        if len(index) and not (-n <= index.min() and index.max() < n):
            raise IndexError(
                f"{self.path} has {n} rows; asked for row {index.max() if index.max() >= n else index.min()}"
            )
        index = np.where(index < 0, index + n, index)
        rows = np.empty((len(index), self.shape[1]), self.dtype)
        shard_of, offset = np.divmod(index, self.manifest["rows_per_shard"])
        order = np.argsort(shard_of, kind="stable")
        for part in np.split(order, np.flatnonzero(np.diff(shard_of[order])) + 1):
            if len(part):
                features = self._shard(int(shard_of[part[0]]))["features"]
                rows[part] = _as_numpy(features[torch.from_numpy(offset[part])])
        return rows

    def _consecutive(self, start: int, stop: int) -> NDArray[Any]:
        """Rows start..stop, [stop - start, dim]: twice as fast as those of a list."""
        rows = np.empty((stop - start, self.shape[1]), self.dtype)
        step = self.manifest["rows_per_shard"]
        for number in range(start // step, -(-stop // step)):
            first = number * step
            a, b = max(start, first), min(stop, first + step)
            if a < b:
                rows[a - start : b - start] = _as_numpy(self._shard(number)["features"][a - first : b - first])
        return rows

    def verify(self) -> None:
        """Reads every byte again. Raises StoreError naming the first shard that differs from its checksum."""
        for number in range(len(self.manifest["shards"])):
            self._check_bits(number)

    @property
    def bytes(self) -> int:
        """On disk, without the manifest."""
        return sum(shard["bytes"] for shard in self.manifest["shards"])

    def _open_shard(self, number: int) -> dict[str, Tensor]:
        if number not in self._verified:
            self._check_bits(number)
            self._verified.add(number)
        file = self.path / self.manifest["shards"][number]["file"]
        shard, step = _map_shard(file), self.manifest["rows_per_shard"]
        rows = min(step, len(self) - number * step)
        wanted = {"features": (rows, self.shape[1])} | dict.fromkeys(self.manifest["columns"], (rows,))
        found = {name: tuple(tensor.shape) for name, tensor in shard.items()}
        if found != wanted or shard["features"].dtype != DTYPES[self.manifest["dtype"]]:
            raise StoreError(f"{file} is damaged: it holds {found} where the manifest says {wanted}. {REBUILD}")
        return shard

    def _check_bits(self, number: int) -> None:
        damage = bit_damage(self.path, self.manifest["shards"][number])
        if damage is not None:
            raise StoreError(f"{damage}. {REBUILD}")

    # --- making and finding stores -----------------------------------------------------------------------------------

    @classmethod
    def build(
        cls,
        path: str | os.PathLike[str],
        *,
        recipe: Mapping[str, Any],
        ids: Sequence[str] | Sequence[int] | NDArray[Any],
        dim: int,
        compute: Compute,
        dtype: StoredDtype = "float32",
        rows_per_shard: int = 4096,
        columns: Sequence[str] = (),
        notes: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
        description: str = "features",
        may_change: bool = True,
    ) -> Self:
        """The store of this recipe at `path`: opened where it is complete, else finished; whole shards are kept.

        compute(start, stop) gives "features" [stop - start, dim] and each of `columns` [stop - start]. One process
        builds while others that want the same store wait. notes: facts that do not tell stores apart; a callable is
        asked when the last shard is done. The dtype is that on disk: "float32", "float16" or "bfloat16". may_change:
        whether rows that were refused can be others in a further call; where they cannot, nothing of them is kept.

        Raises StoreError where another store, or the beginning of one, is at `path`; InputError for duplicate ids,
        rows of another shape, values that are not finite or that `dtype` cannot hold (naming the row); OSError for a
        full disk, after which a further call goes on where this one stopped.
        """
        blueprint = Blueprint(Path(path), recipe, ids, dim, dtype, rows_per_shard, columns, description, may_change)
        given = _Given(dim, compute, notes)
        build_missing([blueprint], lambda *_: given, lambda: None)
        return cls._built(blueprint)

    @classmethod
    def _built(cls, blueprint: Blueprint) -> Self:
        store = cls.open(blueprint.path)
        refuse_difference(blueprint.path, store.manifest, blueprint.plan(blueprint.dim))
        return store

    @classmethod
    def build_all(
        cls,
        blueprints: Sequence[Blueprint],
        filling: Callable[[int, Any], Filling],
        setup: Callable[[], Any],
        engine: Workers = LOCAL,
    ) -> list[Self]:
        """The stores of these blueprints, opened where they are complete, the others finished by the engine's workers:
        see `build_missing`, and `build` for the errors."""
        build_missing(blueprints, filling, setup, engine)
        return [cls._built(blueprint) for blueprint in blueprints]

    @classmethod
    def open(cls, path: str | os.PathLike[str], recipe: Mapping[str, Any] | None = None) -> Self:
        """The finished store at `path`, of this recipe if one is given.

        Raises StoreError, naming what is wrong, where there is none, its recipe differs, or a file is missing, damaged
        or of the wrong size. The bits of a shard are checked when it is first read; `verify()` checks all.
        """
        path = Path(path)
        manifest = finished_manifest(path)
        for damage in map(partial(size_damage, path), manifest["shards"]):
            if damage is not None:
                raise StoreError(f"{damage}. {REBUILD}")
        if recipe is not None:
            refuse_difference(path, manifest, {"recipe": json.loads(canonical(recipe))})
        return cls(path, manifest)


def damaged_shards(path: str | os.PathLike[str]) -> Iterator[str]:
    """What is wrong with each damaged shard of the store at `path`, a line each; every byte is read.

    Raises StoreError where there is no finished store, or its manifest is damaged.
    """
    path = Path(path)
    shards = finished_manifest(path)["shards"]
    with progress("checksums", len(shards), "shards") as advance:
        for shard in shards:
            damage = size_damage(path, shard) or bit_damage(path, shard)
            if damage is not None:
                yield damage
            advance(1)


def open_features(path: str | os.PathLike[str], tensor: str | None = None) -> Rows:
    """The feature matrix at `path`: a FeatureStore, .npy, .npz, .safetensors, .pt, .parquet, a TRAK run, an index of
    bergson. tensor: which one of a .safetensors, .pt or .npz file with several."""
    path = Path(path)
    return FeatureStore.open(path) if (path / MANIFEST).exists() else read_foreign(path, tensor)


@dataclass(frozen=True)
class _Given:
    """What `FeatureStore.build` was given."""

    dim: int
    compute: Compute
    facts: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None

    def rows(self, start: int, stop: int) -> Mapping[str, Tensor]:
        return self.compute(start, stop)

    def notes(self) -> Mapping[str, Any]:
        return self.facts() if callable(self.facts) else self.facts or {}


def _map_shard(file: Path) -> dict[str, Tensor]:
    try:
        with safe_open(file, "pt") as shard:  # the tensors are views of a memory map
            return {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise StoreError(f"{file} cannot be read: {error}. {REBUILD}") from error


def _as_numpy(tensor: Tensor) -> NDArray[Any]:
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
