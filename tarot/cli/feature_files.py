"""`tarot inspect`, `tarot verify`, `tarot convert`: what is in a file of features, is it whole, in another format."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from tarot.cli.choosing import kind_of
from tarot.common import InputError, atomic_file, progress
from tarot.features import (
    BAD_PARQUET,
    FeatureStore,
    Rows,
    StoredDtype,
    block_size,
    damaged_shards,
    existing_paths,
    file_identity,
    open_features,
    read_block,
    read_vector,
    row_ids,
)
from tarot.selection import Selection

_DTYPES: dict[StoredDtype, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


def add_inspect(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "inspect",
        help="say what is in a file",
        description="Say what is in a store, a file of features, a selection, or the values of candidates.",
    )
    parser.add_argument("path", metavar="STORE")
    parser.add_argument(
        "--tensor", metavar="NAME", help="which tensor of a file (.safetensors, .pt, .npz) with several"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run_inspect)
    return parser


def add_verify(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "verify",
        help="compare a store with its checksums",
        description="Read every byte of feature stores and compare it with the checksums. One line per damaged shard; "
        "the exit code is 1 where there is one.",
    )
    parser.add_argument("paths", metavar="STORE", nargs="+")
    parser.set_defaults(run=run_verify)
    return parser


def add_convert(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "convert",
        help="write features in another format",
        description="Read features (.npy, .npz, .safetensors, .pt, .parquet, a feature store, a TRAK store, a bergson "
        "index) and write them as .npy, .safetensors, .parquet or, where the new path has no suffix, a feature store. "
        "Names of rows are kept by .parquet and by stores, further columns by .safetensors, too.",
    )
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("out", metavar="OUT")
    parser.add_argument(
        "--dtype", choices=list(_DTYPES), help="default: the source's, or float32 where that is another"
    )
    parser.add_argument("--ids", metavar="FILE", help="a name per row (default: those in SOURCE, or 0..n-1)")
    parser.add_argument(
        "--tensor", metavar="NAME", help="which tensor of a file (.safetensors, .pt, .npz) with several"
    )
    parser.set_defaults(run=run_convert)
    return parser


# --- inspect ---------------------------------------------------------------------------------------------------------


def run_inspect(options: argparse.Namespace) -> int:
    (path,) = existing_paths(options.path, "STORE")
    facts = _facts(path, options.tensor)
    if options.json:
        print(json.dumps(facts, indent=2))
        return 0
    for name, value in facts.items():
        for key, item in _flat(name, value):
            print(f"{key:24} {item}")
    return 0


def _facts(path: Path, tensor: str | None) -> dict[str, Any]:
    kind = kind_of(path) if path.suffix in (".parquet", ".npy") and path.is_file() else None
    if kind == "selection":
        return _facts_of_selection(path)
    if kind == "values":
        return _facts_of_values(path)
    rows = open_features(path, tensor)
    if isinstance(rows, FeatureStore):
        return _facts_of_store(rows)
    size = sum(entry[1] for entry in file_identity(path))
    dtype = str(rows.dtype).removeprefix("torch.")
    return {"kind": "features", "rows": rows.shape[0], "dim": rows.shape[1], "dtype": dtype, "size": _readable(size)}


def _facts_of_store(store: FeatureStore) -> dict[str, Any]:
    manifest = store.manifest
    ids = store.ids[:3].tolist() + (["..."] if len(store) > 3 else [])
    return {
        "kind": "feature store",
        "rows": len(store),
        "dim": manifest["dim"],
        "dtype": manifest["dtype"],
        "zero rows": manifest["zero_rows"],
        "ids": ids,
        "columns": list(manifest["columns"]),
        "shards": len(manifest["shards"]),
        "rows per shard": manifest["rows_per_shard"],
        "size": _readable(store.bytes),
        "fingerprint": manifest["fingerprint"],
        "recipe": manifest["recipe"],
        "notes": manifest["notes"],
    }


def _facts_of_selection(path: Path) -> dict[str, Any]:
    selection = Selection.load(path)
    return {
        "kind": "selection",
        "selected": len(selection),
        "candidates": selection.n,
        "targets": selection.m,
        "weights sum to": int(selection.weights.sum()),
        "OT distance": selection.ot_distance,
        "lower bound": selection.lower_bound,
        "ids": selection.ids is not None,
        "size": _readable(path.stat().st_size),
        "selector": selection.selector,
    }


def _facts_of_values(path: Path) -> dict[str, Any]:
    names: list[str] = []
    try:
        if path.suffix == ".npy":
            values = np.load(path, allow_pickle=False)
        else:
            table = pq.read_table(path)
            names, values = table.column_names, table["value"].to_numpy()
    except BAD_PARQUET as error:
        raise InputError(f"{path} holds no values of candidates any more: {error}; make it again") from error
    if values.dtype.kind != "f" or not len(values):
        raise InputError(f"{path} is damaged: its values are {len(values)} of {values.dtype}; make it again")
    return {
        "kind": "values",
        "candidates": len(values),
        "lowest": float(values.min()),
        "highest": float(values.max()),
        "ids": "id" in names,
        "size": _readable(path.stat().st_size),
    }


def _flat(name: str, value: Any) -> list[tuple[str, str]]:
    """One line per value: nested names are joined by dots."""
    if isinstance(value, dict) and value:
        return [line for key, item in value.items() for line in _flat(f"{name}.{key}", item)]
    if isinstance(value, list | tuple):
        return [(name, ", ".join(map(str, value)) or "none")]
    return [(name, "none" if value is None or value == {} else str(value))]


def _readable(size: int) -> str:
    for unit, scale in ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"


# --- verify ----------------------------------------------------------------------------------------------------------


def run_verify(options: argparse.Namespace) -> int:
    code = 0
    for path in existing_paths(options.paths, "STORE"):
        damages = list(damaged_shards(path))
        for damage in damages:
            print(damage)
        code = max(code, bool(damages))
        if not damages and not options.quiet:
            store = FeatureStore.open(path)
            print(f"{path}: {len(store)} rows in {len(store.manifest['shards'])} shards are whole")
    return int(code)


# --- convert ---------------------------------------------------------------------------------------------------------


def run_convert(options: argparse.Namespace) -> int:
    (source,), out = existing_paths(options.source, "SOURCE"), Path(options.out)
    if not options.out:
        raise InputError("OUT must name a file or a folder; it is ''")
    if out.exists():
        raise InputError(f"OUT: {out} exists; give another path, or delete it")
    if out.suffix not in _WRITERS:
        raise InputError(f"OUT must end in .npy, .safetensors or .parquet, or have no suffix (a store); it is {out}")
    rows = open_features(source, options.tensor)
    ids = read_vector(options.ids, "--ids", rows.shape[0])
    if ids is None:
        ids = row_ids(rows)
    dtype = options.dtype or _dtype_of(rows)
    _WRITERS[out.suffix](out, rows, ids, dtype, source)
    if not options.quiet:
        print(f"{rows.shape[0]} rows of {rows.shape[1]} numbers, {dtype}, written to {out}")
    return 0


def _dtype_of(rows: Rows) -> StoredDtype:
    if isinstance(rows, FeatureStore):
        return rows.manifest["dtype"]
    name = str(rows.dtype).removeprefix("torch.")
    return next((dtype for dtype in _DTYPES if dtype == name), "float32")


def _columns(rows: Rows) -> dict[str, NDArray[Any]]:
    return rows.columns if isinstance(rows, FeatureStore) else {}


def _block(rows: Rows, start: int, stop: int, dtype: StoredDtype, source: Path) -> Tensor:
    """Rows start..stop in `dtype`. Raises InputError, naming file and row, where a number is too large for it."""
    block = read_block(rows, start, stop, str(source))
    cast = block.to(_DTYPES[dtype])
    if not cast.isfinite().all():
        row = start + int((~cast.isfinite()).any(dim=1).nonzero()[0])
        raise InputError(f"{source} row {row} is too large for {dtype}; use float32 or bfloat16")
    return cast


def _in_blocks(rows: Rows, dtype: StoredDtype, source: Path, write: Callable[[int, Tensor], None]) -> None:
    size = block_size(rows.shape[1])
    with progress("rows", rows.shape[0]) as advance:
        for start in range(0, rows.shape[0], size):
            block = _block(rows, start, min(start + size, rows.shape[0]), dtype, source)
            write(start, block)
            advance(len(block))


def _write_npy(out: Path, rows: Rows, ids: NDArray[Any] | None, dtype: StoredDtype, source: Path) -> None:
    if dtype == "bfloat16":
        raise InputError("a .npy file cannot hold bfloat16; give --dtype float32, which holds every bfloat16 exactly")
    with atomic_file(out) as temporary:
        array = np.lib.format.open_memmap(temporary, "w+", np.dtype(dtype), tuple(rows.shape))

        def write(start: int, block: Tensor) -> None:
            array[start : start + len(block)] = block.numpy()

        _in_blocks(rows, dtype, source, write)
        array.flush()


def _write_safetensors(out: Path, rows: Rows, ids: NDArray[Any] | None, dtype: StoredDtype, source: Path) -> None:
    """Held in memory whole, as the format's writer wants it."""
    features = torch.empty(tuple(rows.shape), dtype=_DTYPES[dtype])

    def write(start: int, block: Tensor) -> None:
        features[start : start + len(block)] = block

    _in_blocks(rows, dtype, source, write)
    columns = {name: torch.from_numpy(values.copy()) for name, values in _columns(rows).items()}
    with atomic_file(out) as temporary:
        try:
            safetensors.torch.save_file({"features": features, **columns}, temporary)
        except SafetensorError as error:
            raise OSError(f"{out} cannot be written: {error}") from error


def _write_parquet(out: Path, rows: Rows, ids: NDArray[Any] | None, dtype: StoredDtype, source: Path) -> None:
    if dtype == "bfloat16":
        raise InputError("parquet cannot hold bfloat16; give --dtype float32, which holds every bfloat16 exactly")
    kind = pa.from_numpy_dtype(np.dtype(dtype))
    beside = {**({} if ids is None else {"id": ids}), **_columns(rows)}
    vectors = {name: pa.array(values) for name, values in beside.items()}
    types = {name: vector.type for name, vector in vectors.items()}
    schema = pa.schema({**types, "features": pa.list_(kind, rows.shape[1])})
    with atomic_file(out) as temporary, pq.ParquetWriter(temporary, schema) as writer:

        def write(start: int, block: Tensor) -> None:
            values = pa.array(block.numpy().reshape(-1), kind)
            matrix = pa.FixedSizeListArray.from_arrays(values, block.shape[1])
            here = {name: vector.slice(start, len(block)) for name, vector in vectors.items()}
            writer.write_table(pa.table({**here, "features": matrix}, schema))

        _in_blocks(rows, dtype, source, write)


def _write_store(out: Path, rows: Rows, ids: NDArray[Any] | None, dtype: StoredDtype, source: Path) -> None:
    columns = _columns(rows)

    def compute(start: int, stop: int) -> dict[str, Tensor]:
        beside = {name: torch.from_numpy(values[start:stop].copy()) for name, values in columns.items()}
        return {"features": read_block(rows, start, stop, str(source)), **beside}

    store = rows if isinstance(rows, FeatureStore) else None
    FeatureStore.build(
        out,
        recipe={"converted": file_identity(source) if store is None else store.manifest["fingerprint"]},
        ids=range(rows.shape[0]) if ids is None else ids,
        dim=rows.shape[1],
        compute=compute,
        dtype=dtype,
        columns=tuple(columns),
        notes={"converted_from": os.fspath(source), **({} if store is None else store.manifest["notes"])},
        description="rows",
        may_change=False,  # a source that is mended is another source
    )


_WRITERS = {".npy": _write_npy, ".safetensors": _write_safetensors, ".parquet": _write_parquet, "": _write_store}
