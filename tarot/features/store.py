"""Features on disk: written shard by shard, resumable, checksummed, larger than memory, and never mixed up.

A store is a directory: `manifest.json` (the recipe of everything that made the rows, row ids, a checksum per shard) and
the shards, safetensors files that are read by memory map. While it is built it is the hidden directory `.<name>.part`
beside its place. A shard is renamed to its final name, which contains its checksum, once it is on disk, so one that is
found is whole or can be told not to be; the manifest comes last, and then the directory takes its place.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from tarot.common import (
    InputError,
    atomic_file,
    canonical,
    difference,
    fingerprint,
    hash_content,
    locked,
    progress,
    read_json,
)
from tarot.features.arrays import Rows
from tarot.features.manifest import Manifest, Shard, StoredDtype
from tarot.features.readers import read_foreign

FORMAT = 1
_MANIFEST = "manifest.json"
_REBUILD = "Delete the store's directory to have it built again"
_DTYPES: dict[StoredDtype, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
_OPEN_SHARDS = 256
log = logging.getLogger("tarot")

Compute = Callable[[int, int], Mapping[str, Tensor]]


class StoreError(InputError):
    """A store that is damaged, incomplete, or not the one that was asked for."""


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
            index = np.arange(*index.indices(n))
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
        return _map_shard(self.path / self.manifest["shards"][number]["file"])

    def _check_bits(self, number: int) -> None:
        damage = _bit_damage(self.path, self.manifest["shards"][number])
        if damage is not None:
            raise StoreError(f"{damage}. {_REBUILD}")

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
    ) -> Self:
        """The store of this recipe at `path`: opened where it is complete, else finished; whole shards are kept.

        compute(start, stop) gives "features" [stop - start, dim] and each of `columns` [stop - start]. One process
        builds while others that want the same store wait. notes: facts that do not tell stores apart; a callable is
        asked when the last shard is done. The dtype is that on disk: "float32", "float16" or "bfloat16".

        Raises StoreError where another store, or the beginning of one, is at `path`; InputError for duplicate ids,
        rows of another shape, values that are not finite or that `dtype` cannot hold (naming the row); OSError for a
        full disk, after which a further call goes on where this one stopped.
        """
        path = Path(path)
        plan = _plan(recipe, ids, dim, dtype, rows_per_shard, columns)
        if not path.exists():
            with locked(path):
                if not path.exists():
                    _finish(path, plan, compute, notes, description)
        store = cls.open(path)
        _refuse_difference(path, store.manifest, plan)
        return store

    @classmethod
    def open(cls, path: str | os.PathLike[str], recipe: Mapping[str, Any] | None = None) -> Self:
        """The finished store at `path`, of this recipe if one is given.

        Raises StoreError, naming what is wrong, where there is none, its recipe differs, or a file is missing, damaged
        or of the wrong size. The bits of a shard are checked when it is first read; `verify()` checks all.
        """
        path = Path(path)
        manifest = _finished_manifest(path)
        for damage in map(partial(_size_damage, path), manifest["shards"]):
            if damage is not None:
                raise StoreError(f"{damage}. {_REBUILD}")
        if recipe is not None:
            _refuse_difference(path, manifest, {"recipe": json.loads(canonical(recipe))})
        return cls(path, manifest)


def damaged_shards(path: str | os.PathLike[str]) -> Iterator[str]:
    """What is wrong with each damaged shard of the store at `path`, a line each; every byte is read.

    Raises StoreError where there is no finished store, or its manifest is damaged.
    """
    path = Path(path)
    shards = _finished_manifest(path)["shards"]
    with progress("checksums", len(shards), "shards") as advance:
        for shard in shards:
            damage = _size_damage(path, shard) or _bit_damage(path, shard)
            if damage is not None:
                yield damage
            advance(1)


def open_features(path: str | os.PathLike[str], tensor: str | None = None) -> Rows:
    """The feature matrix at `path`: a FeatureStore, .npy, .npz, .safetensors, .pt, .parquet, a TRAK run. tensor: which
    one of a .safetensors, .pt or .npz file with several."""
    path = Path(path)
    return FeatureStore.open(path) if (path / _MANIFEST).exists() else read_foreign(path, tensor)


# --- building -------------------------------------------------------------------------------------------------------


def _plan(
    recipe: Mapping[str, Any], ids: Any, dim: int, dtype: str, rows_per_shard: int, columns: Sequence[str]
) -> dict[str, Any]:
    """All that is decided before the first row is computed."""
    ids = np.asarray(ids).tolist()
    if not ids:
        raise InputError("a store needs at least one row: ids is empty")
    seen: set[Any] = set()
    for name in ids:
        if name in seen:
            raise InputError(f"ids must be unique; {name!r} occurs more than once")
        seen.add(name)
    if dtype not in _DTYPES:
        raise InputError(f"dtype must be one of {', '.join(_DTYPES)}; it is {dtype!r}")
    if dim < 1 or rows_per_shard < 1:
        raise InputError(f"dim and rows_per_shard must be at least 1; they are {dim} and {rows_per_shard}")
    made_of = {
        "recipe": json.loads(canonical(recipe)),
        "ids": ids,
        "dim": int(dim),
        "dtype": dtype,
        "columns": [*columns],
    }
    return {"format": FORMAT, "fingerprint": fingerprint(made_of), "rows_per_shard": int(rows_per_shard), **made_of}


def _finish(
    path: Path,
    plan: dict[str, Any],
    compute: Compute,
    notes: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None,
    description: str,
) -> None:
    """Writes what is missing of the store and moves it to `path`. The caller holds the lock."""
    part = path.with_name(f".{path.name}.part")
    with _writing(path):
        part.mkdir(exist_ok=True)
        for leftover in part.glob(".*.part"):  # of a writer that was killed
            leftover.unlink()
    shards_there = any(part.glob("*.safetensors"))  # else there is nothing to go on from, whatever was begun
    if shards_there and (part / _MANIFEST).exists():
        begun = _read_manifest(part)
        _refuse_damage(part, begun)
        _refuse_difference(part, begun, plan)
        plan = {key: begun[key] for key in plan}  # shards stay as large as they were begun
    with _writing(path):
        _write_json(part / _MANIFEST, {**plan, "checksum": fingerprint(plan)})

    rows, step = len(plan["ids"]), plan["rows_per_shard"]
    shards: list[Shard] = []
    with progress(description, rows) as advance:
        for number, start in enumerate(range(0, rows, step)):
            stop = min(rows, start + step)
            shard = _whole_shard(part, number)
            if shard is None:
                tensors = _checked(compute(start, stop), plan, start, stop)
                with _writing(path):
                    shard = _write_shard(part, number, tensors)
            shards.append(shard)
            advance(stop - start)
    manifest = {
        **plan,
        "notes": json.loads(canonical(notes() if callable(notes) else notes or {})),
        "zero_rows": sum(shard["zero_rows"] for shard in shards),
        "shards": shards,
    }
    with _writing(path):
        _write_json(part / _MANIFEST, {**manifest, "checksum": fingerprint(manifest)})
        os.replace(part, path)


def _checked(tensors: Mapping[str, Tensor], plan: dict[str, Any], start: int, stop: int) -> dict[str, Tensor]:
    """What `compute` gave, in the store's dtype; InputError names the row that is wrong."""
    wanted = {"features": (stop - start, plan["dim"]), **dict.fromkeys(plan["columns"], (stop - start,))}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != wanted:
        raise InputError(f"rows {start}..{stop} should have come with the shapes {wanted}; they came with {shapes}")
    features = tensors["features"].detach().cpu()
    stored = features.to(_DTYPES[plan["dtype"]])
    for reason, bad in {
        "has NaN or infinite features": ~torch.isfinite(features).all(dim=1),
        f"is too large for {plan['dtype']}; use float32 or bfloat16": ~torch.isfinite(stored).all(dim=1),
        f"is too small for {plan['dtype']}, which would round its digits off; use float32 or bfloat16": (
            (features != 0).any(dim=1) & (stored.abs().amax(dim=1) < torch.finfo(stored.dtype).smallest_normal)
        ),
    }.items():
        if bad.any():
            row = start + int(bad.nonzero()[0])
            raise InputError(f"row {row} (id {plan['ids'][row]!r}) {reason}")
    columns = {name: tensors[name].detach().cpu().contiguous() for name in plan["columns"]}
    return {"features": stored.contiguous(), **columns}


def _write_shard(part: Path, number: int, tensors: dict[str, Tensor]) -> Shard:
    zero_rows = int((tensors["features"] == 0).all(dim=1).sum())
    content = safetensors.torch.save(tensors, {"zero_rows": str(zero_rows)})
    sha256 = hashlib.sha256(content).hexdigest()
    file = part / f"{number:05d}-{sha256[:16]}.safetensors"
    with atomic_file(file) as temporary:
        temporary.write_bytes(content)
    return {"file": file.name, "bytes": len(content), "sha256": sha256, "zero_rows": zero_rows}


def _whole_shard(part: Path, number: int) -> Shard | None:
    """The entry of a shard that an earlier run finished. One whose bits are not those of its name is removed."""
    for file in part.glob(f"{number:05d}-*.safetensors"):
        sha256 = hash_content(file)
        if file.stem == f"{number:05d}-{sha256[:16]}":
            with safe_open(file, "pt") as shard:
                zero_rows = int(shard.metadata()["zero_rows"])
            return {"file": file.name, "bytes": file.stat().st_size, "sha256": sha256, "zero_rows": zero_rows}
        log.warning("warning: %s is damaged: its bits differ from its checksum; it is made again", file)
        file.unlink()
    return None


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno, f"{error.strerror}; {path} is not finished, its finished shards are kept for the next run"
        ) from error


# --- checking -------------------------------------------------------------------------------------------------------


def _finished_manifest(path: Path) -> Manifest:
    """The manifest of a finished store; StoreError where there is none, or it is not as it was written."""
    if not (path / _MANIFEST).is_file():
        raise StoreError(f"{path} is not a finished feature store: it has no {_MANIFEST}")
    manifest: Manifest = _read_manifest(path)
    _refuse_damage(path, manifest)
    return manifest


def _refuse_damage(path: Path, manifest: Mapping[str, Any]) -> None:
    content = {key: value for key, value in manifest.items() if key != "checksum"}
    if manifest.get("checksum") != fingerprint(content):
        raise StoreError(f"{path / _MANIFEST} is damaged: it differs from its own checksum. {_REBUILD}")


def _size_damage(path: Path, shard: Shard) -> str | None:
    file = path / shard["file"]
    if not file.is_file():
        return f"{file} is missing"
    if file.stat().st_size != shard["bytes"]:
        return f"{file} has {file.stat().st_size} bytes instead of {shard['bytes']}"
    return None


def _bit_damage(path: Path, shard: Shard) -> str | None:
    file = path / shard["file"]
    return None if hash_content(file) == shard["sha256"] else f"{file} is damaged: its bits differ from its checksum"


def _refuse_difference(path: Path, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises StoreError naming what of `wanted` is otherwise in the manifest `there`."""
    for key in ("recipe", "dim", "dtype", "columns", "ids"):
        if key in wanted and there[key] != wanted[key]:
            was, now = difference(there[key], wanted[key], key)
            raise StoreError(f"{path} holds other features: {was} in it, {now} wanted. Use another path, or delete it")


def _map_shard(file: Path) -> dict[str, Tensor]:
    with safe_open(file, "pt") as shard:  # the tensors are views of a memory map
        return {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118 (not a dict)


def _as_numpy(tensor: Tensor) -> NDArray[Any]:
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _read_manifest(path: Path) -> Any:
    """The manifest of the store in `path`, finished or begun. Raises StoreError where this version cannot read it."""
    file = path / _MANIFEST
    try:
        manifest = read_json(file)
    except InputError as error:
        raise StoreError(f"{file} is damaged: {error}. {_REBUILD}") from error
    if not isinstance(manifest, dict):
        raise StoreError(f"{file} is damaged: it holds no manifest. {_REBUILD}")
    if manifest.get("format") != FORMAT:
        raise StoreError(f"{path} has store format {manifest.get('format')!r}; this version reads {FORMAT}. {_REBUILD}")
    return manifest


def _write_json(file: Path, content: dict[str, Any]) -> None:
    with atomic_file(file) as temporary:
        temporary.write_text(json.dumps(content, sort_keys=True))
