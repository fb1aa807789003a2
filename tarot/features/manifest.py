"""What a store says of itself: the contents of its `manifest.json`."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

StoredDtype = Literal["float32", "float16", "bfloat16"]


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
