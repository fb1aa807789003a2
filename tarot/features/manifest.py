"""What a store says of itself: the contents of its `manifest.json`, and what is wrong with one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch

from tarot.common import (
    Count,
    InputError,
    Natural,
    atomic_file,
    check_fields,
    difference,
    fingerprint,
    hash_content,
    is_name,
    read_json,
)

FORMAT = 1
MANIFEST = "manifest.json"
REBUILD = "Delete the store's directory to have it built again"
StoredDtype = Literal["float32", "float16", "bfloat16"]
DTYPES: dict[StoredDtype, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


class StoreError(InputError):
    """A store that is damaged, incomplete, or not the one that was asked for."""


class Shard(TypedDict):
    """A file of consecutive rows: its name, bytes, checksum, and how many of its rows are zero."""

    file: str
    bytes: int
    sha256: str
    zero_rows: int


class Manifest(TypedDict):
    """All that is known of a finished store."""

    format: int
    fingerprint: str
    recipe: dict[str, Any]
    ids: list[str] | list[int]
    dim: int
    dtype: StoredDtype
    columns: list[str]
    rows_per_shard: int
    notes: dict[str, Any]
    zero_rows: int
    shards: list[Shard]
    checksum: str


_BEGUN: dict[str, Any] = {
    "fingerprint": str,
    "recipe": Mapping[str, Any],
    "dim": Count | None,
    "dtype": StoredDtype,
    "columns": Sequence[str],
    "rows_per_shard": Count,
    "ids": Any,
}
_FINISHED: dict[str, Any] = {"dim": Count, "notes": Mapping[str, Any], "zero_rows": Natural, "shards": Sequence[Any]}
_SHARD: dict[str, Any] = {"file": str, "bytes": Natural, "sha256": str, "zero_rows": Natural}


def finished_manifest(path: Path) -> Manifest:
    """The manifest of a finished store; StoreError where there is none, or it is not as it was written."""
    if not (path / MANIFEST).is_file():
        raise StoreError(f"{path} is not a finished feature store: it has no {MANIFEST}")
    manifest: Manifest = checked_manifest(path)
    with _damage(path / MANIFEST):
        check_fields("it", manifest, _FINISHED)
        for shard in manifest["shards"]:
            check_fields("a shard", shard, _SHARD)
            if not is_name(shard["file"]):
                raise InputError(f"{shard['file']!r} is no name of a file in it")
        if len(manifest["shards"]) != -(-len(manifest["ids"]) // manifest["rows_per_shard"]):
            raise InputError(f"{len(manifest['ids'])} rows are not in {len(manifest['shards'])} shards")
    return manifest


def checked_manifest(path: Path) -> Any:
    """The manifest in `path` of a store that is finished or begun. Raises StoreError where this version cannot read it,
    and where it is not as it was written."""
    file = path / MANIFEST
    try:
        manifest = read_json(file)
    except InputError as error:
        raise StoreError(f"{file} is damaged: {error}. {REBUILD}") from error
    if not isinstance(manifest, dict):
        raise StoreError(f"{file} is damaged: it holds no manifest. {REBUILD}")
    if manifest.get("format") != FORMAT:
        raise StoreError(f"{path} has store format {manifest.get('format')!r}; this version reads {FORMAT}. {REBUILD}")
    content = {key: value for key, value in manifest.items() if key != "checksum"}
    if manifest.get("checksum") != fingerprint(content):
        raise StoreError(f"{file} is damaged: it differs from its own checksum. {REBUILD}")
    with _damage(file):
        check_fields("it", manifest, _BEGUN)
        if not isinstance(manifest["ids"], list) or set(map(type, manifest["ids"])) not in ({str}, {int}):
            raise InputError("its ids are neither all text nor all integers")
    return manifest


@contextlib.contextmanager
def _damage(file: Path) -> Iterator[None]:
    """Whoever wrote such a manifest meant something else by it."""
    try:
        yield
    except InputError as error:
        raise StoreError(f"{file} is damaged: {error}. {REBUILD}") from error


def write_manifest(path: Path, content: Mapping[str, Any]) -> None:
    """With a checksum of it."""
    with atomic_file(path / MANIFEST) as temporary:
        temporary.write_text(json.dumps({**content, "checksum": fingerprint(content)}, sort_keys=True))


def refuse_difference(path: Path, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises StoreError naming what of `wanted` is otherwise in the manifest `there`; what is None in either is not
    known yet."""
    for key in ("recipe", "dim", "dtype", "columns", "ids"):
        if wanted.get(key) is not None and there[key] is not None and there[key] != wanted[key]:
            was, now = difference(there[key], wanted[key], key)
            raise StoreError(f"{path} holds other features: {was} in it, {now} wanted. Use another path, or delete it")


def size_damage(path: Path, shard: Shard) -> str | None:
    file = path / shard["file"]
    if not file.is_file():
        return f"{file} is missing"
    if file.stat().st_size != shard["bytes"]:
        return f"{file} has {file.stat().st_size} bytes instead of {shard['bytes']}"
    return None


def bit_damage(path: Path, shard: Shard) -> str | None:
    file = path / shard["file"]
    return None if hash_content(file) == shard["sha256"] else f"{file} is damaged: its bits differ from its checksum"
