"""What was made elsewhere: feature matrices (NumPy's, torch's, safetensors, parquet, a TRAK run, a bergson index), and
vectors."""

from __future__ import annotations

import lzma
import pickle
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.lib.format import MAGIC_PREFIX
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from tarot.common import InputError, files_below, read_text
from tarot.features.arrays import Rows, as_rows
from tarot.features.bergson import is_bergson, read_bergson
from tarot.features.row_names import NamedRows

# what the readers of NumPy, torch and Arrow raise on files that are damaged: NumPy evaluates a header as Python
BAD_NPY = (
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    tokenize.TokenError,
)
BAD_NPZ = (*BAD_NPY, RuntimeError, lzma.LZMAError, zipfile.BadZipFile, zlib.error)  # RuntimeError: encrypted
BAD_TORCH = (*BAD_NPY, AssertionError, AttributeError, RuntimeError, SafetensorError, pickle.UnpicklingError)
BAD_PARQUET = (pa.ArrowException, ArithmeticError, LookupError, MemoryError, OSError, TypeError, ValueError)
_ZIP = b"PK"  # which an archive begins with
ID = "id"
"""The column of a parquet table that has the names of its rows."""
FORMATS = ".npy, .npz, .safetensors, .pt, .parquet"
NAMING = (".safetensors", ".pt", ".pth", ".npz")
"""Files that may hold several tensors by name."""


def read_foreign(path: Path, tensor: str | None = None) -> Rows:
    """The feature matrix [n, d] at `path`, memory-mapped where its format allows (.npz and parquet do not).

    tensor: which tensor of a .safetensors, .pt or .npz file; it may be left out where only one has two dimensions.
    Raises InputError for a path that does not exist, another format, or contents that are not one such matrix.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist: expected {FORMATS}, or a store's directory")
    if path.is_dir():
        return read_bergson(path) if is_bergson(path) else _read_trak(path)
    if not path.is_file():  # a named pipe would be waited for
        raise InputError(f"{path} is no file: features are read from {FORMATS} or a store")
    if tensor is not None and path.suffix not in NAMING:
        raise InputError(f"{path} has no tensor {tensor!r}: tensors have names in {', '.join(NAMING)} alone")
    match path.suffix:
        case ".npy" | ".mmap":  # traker's .mmap files are .npy files
            return _read_npy(path)
        case ".npz":
            return _read_npz(path, tensor)
        case ".safetensors":
            return _read_safetensors(path, tensor)
        case ".pt" | ".pth":  # as LESS and torch.save leave them
            return _read_torch(path, tensor)
        case ".parquet":
            return _read_parquet(path)
    raise InputError(f"{path}: features are read from {FORMATS} or a store, not {path.suffix!r}")


def _read_npy(path: Path) -> Rows:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except BAD_NPY as error:
        raise InputError(
            f"{path} is not a plain .npy array: {_why_not_npy(path, error)}. Pickled objects are never loaded, for "
            "they can run code; save the features with numpy.save as an array of numbers"
        ) from error
    return as_rows(array, str(path))


def _why_not_npy(path: Path, error: Exception) -> str:
    return _why(path, error, MAGIC_PREFIX, "numpy.save did not write it")


def _why(path: Path, error: Exception, magic: bytes, otherwise: str) -> str:
    """What NumPy says, but of a file in another format, which it takes for a pickle and says how to load."""
    with open(path, "rb") as file:
        begins = file.read(len(magic))
    return str(error).rstrip(".") if begins == magic else otherwise


def _read_safetensors(path: Path, name: str | None) -> Rows:
    try:
        with safe_open(path, "pt") as file:  # the tensors are views of a memory map
            shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118 (not a dict)
            chosen = _the_matrix(path, shapes, name)
            return as_rows(file.get_tensor(chosen), f"{path}:{chosen}")
    except SafetensorError as error:
        raise InputError(f"{path} is not a whole .safetensors file: {error}") from error


def _the_matrix(path: Path, shapes: Mapping[str, Sequence[int]], name: str | None) -> str:
    """Which of several tensors: the one that is named, or the only one of two dimensions."""
    known = {key: list(shape) for key, shape in shapes.items()}
    held = f"it has {known}" if known else "it is empty"
    if name is not None:
        if name not in known:
            raise InputError(f"{path} has no tensor {name!r}; {held}")
        return name
    matrices = [key for key, shape in known.items() if len(shape) == 2]
    if len(matrices) != 1:
        raise InputError(f"{path} must hold exactly one two-dimensional tensor, or name one; {held}")
    return matrices[0]


def _read_torch(path: Path, name: str | None) -> Rows:
    """A tensor [n, d] that torch saved, or tensors by name. Read by torch's loader of weights alone, which runs no code
    of the file."""
    try:
        with zipfile.ZipFile(path):
            mapped = True
    except BAD_NPZ:  # as torch saved before 1.6
        mapped = False
    try:
        found = torch.load(path, weights_only=True, map_location="cpu", mmap=mapped)
    except BAD_TORCH as error:
        raise InputError(
            f"{path} holds no plain tensors ({type(error).__name__}). Pickled objects are never loaded, for they can "
            "run code; save the features with torch.save as a tensor of numbers"
        ) from error
    if isinstance(found, torch.Tensor):
        return as_rows(found.detach(), str(path))
    tensors = found if isinstance(found, dict) else {}
    shapes = {str(key): value.shape for key, value in tensors.items() if isinstance(value, torch.Tensor)}
    if not shapes:
        raise InputError(f"{path} must hold a tensor [rows, features]; it holds a {type(found).__name__}")
    chosen = _the_matrix(path, shapes, name)
    return as_rows({str(key): value for key, value in tensors.items()}[chosen].detach(), f"{path}:{chosen}")


def _read_npz(path: Path, name: str | None) -> Rows:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise InputError(f"{path} is no .npz archive: name it .npy, as it is one array")
            asked = arrays.files[0] if name is None and len(arrays.files) == 1 else name
            if asked is not None and asked in arrays.files:  # then no other array is read
                chosen = asked
            else:
                chosen = _the_matrix(path, {key: np.shape(arrays[key]) for key in arrays.files}, asked)
            array = arrays[chosen]
            if not isinstance(array, np.ndarray):  # the archive has other files, too
                raise InputError(f"{path}:{chosen} is no array; give an archive that numpy.savez wrote")
            return as_rows(array, f"{path}:{chosen}")
    except BAD_NPZ as error:
        if isinstance(error, InputError):
            raise
        why = _why(path, error, _ZIP, "numpy.savez did not write it")
        raise InputError(
            f"{path} is not a plain .npz archive: {why}. Pickled objects are never loaded, for they can run code"
        ) from error


def _read_parquet(path: Path) -> Rows:
    try:
        return _of_table(path, pq.read_table(path))
    except InputError:
        raise
    except BAD_PARQUET as error:  # names are decoded when they are asked for
        raise InputError(f"{path} is not a whole parquet file: {error}") from error


def _of_table(path: Path, table: pa.Table) -> Rows:
    """Its features, and the names of its rows where it has a column of them."""
    if ID not in table.column_names or not _are_names(table[ID]):
        return _features(path, table)
    if table[ID].null_count:
        raise InputError(f"{path} column {ID!r} has missing values: each row needs a name, or none has one")
    rows = _features(path, table.drop_columns([ID]))
    return NamedRows(rows[:], np.asarray(table[ID].to_pylist()))


def _are_names(column: pa.ChunkedArray) -> bool:
    kind = column.type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind))


def _features(path: Path, table: pa.Table) -> Rows:
    lists = [field.name for field in table.schema if pa.types.is_nested(field.type)]
    if len(lists) == 1:
        return as_rows(_list_column(path, lists[0], table[lists[0]]), str(path))
    for field in table.schema:
        if not (pa.types.is_integer(field.type) or pa.types.is_floating(field.type)):
            raise InputError(
                f"{path} column {field.name!r} is {field.type}: features are one list column, or numeric columns alone"
            )
        if table[field.name].null_count:
            raise InputError(f"{path} column {field.name!r} has missing values")
    columns = [
        _as_float32(column.to_numpy(), f"{path} column {name!r}")
        for name, column in zip(table.column_names, table.columns, strict=True)
    ]
    return as_rows(np.stack(columns, axis=1) if columns else np.empty((0, 0), np.float32), str(path))


def _list_column(path: Path, name: str, column: pa.ChunkedArray) -> NDArray[np.float32]:
    where = f"{path} column {name!r}"
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or _is_fixed(column)):
        raise InputError(f"{where} is {column.type}: rows must be lists of numbers")
    if column.null_count:
        raise InputError(f"{where} has missing rows")
    lengths = {chunk.type.list_size for chunk in column.chunks} if _is_fixed(column) else set()
    if not _is_fixed(column):
        lengths = set(pa.compute.list_value_length(column).unique().to_pylist())
    if len(lengths) > 1:
        raise InputError(f"{where} has rows of different lengths, from {min(lengths)} to {max(lengths)}")
    values = pa.compute.list_flatten(column)
    if values.null_count or not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        raise InputError(f"{where} must hold numbers without gaps; it is {column.type}")
    return _as_float32(values.to_numpy(), where).reshape(len(column), -1 if len(column) else 0)


def _as_float32(numbers: NDArray[Any], where: str) -> NDArray[np.float32]:
    """Raises InputError where a finite number becomes none; others are refused by whoever reads the rows."""
    with np.errstate(over="ignore"):
        cast: NDArray[np.float32] = numbers.astype(np.float32)
    too_large = np.flatnonzero(np.isinf(cast) & np.isfinite(numbers))
    if len(too_large):
        raise InputError(f"{where} holds {numbers[too_large[0]]:g}, which is too large for float32: scale the features")
    return cast


def _is_fixed(column: pa.ChunkedArray) -> bool:
    return bool(pa.types.is_fixed_size_list(column.type))


def _read_trak(path: Path) -> Rows:
    """The projected training gradients of one model of a TRAK run: `<run>/<model id>/grads.mmap`."""
    models = [path] if (path / "_is_featurized.mmap").exists() else sorted(path.glob("*/_is_featurized.mmap"))
    models = [model.parent if model.is_file() else model for model in models]
    if not models:
        raise InputError(
            f"{path} is neither a feature store (it has no manifest.json) nor a TRAK run, nor an index of bergson"
        )
    if len(models) > 1:
        raise InputError(
            f"{path} holds {len(models)} models; give one: {', '.join(str(model) for model in models[:5])}"
        )
    (model,) = models
    try:
        done = np.load(model / "_is_featurized.mmap", mmap_mode="r", allow_pickle=False).ravel()
    except BAD_NPY as error:
        raise InputError(f"{model}/_is_featurized.mmap is not a plain .npy array: {error}") from error
    if not (done == 1).all():
        missing = np.flatnonzero(done != 1)
        raise InputError(
            f"{model}: {len(missing)} of {len(done)} rows were never featurized, the first is {missing[0]}"
        )
    if not (model / "grads.mmap").exists():
        raise InputError(
            f"{model}/grads.mmap was deleted; features.mmap beside it holds gradients times an inverse covariance, "
            "not gradients: name that file if it is what you want"
        )
    return _read_npy(model / "grads.mmap")


# --- what goes with a matrix -----------------------------------------------------------------------------------------


@overload
def read_vector(path: None, name: str, length: int) -> None: ...
@overload
def read_vector(path: str | Path, name: str, length: int) -> NDArray[Any]: ...
@overload
def read_vector(path: str | Path | None, name: str, length: int) -> NDArray[Any] | None: ...
def read_vector(path: str | Path | None, name: str, length: int) -> NDArray[Any] | None:
    """A label, id or number per row, [length]: of a .npy vector, or of a text file with one value per line (strings).

    None without a path. name: of the argument, for errors. Raises InputError where the file is missing, holds something
    else, or has another length.
    """
    if path is None:
        return None
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{name}: {path} is a folder, not a file" if path.is_dir() else f"{name}: there is no {path}")
    if path.suffix == ".npy":
        try:
            vector: NDArray[Any] = np.load(path, allow_pickle=False)
        except BAD_NPY as error:
            raise InputError(f"{name}: {path} holds no plain array: {_why_not_npy(path, error)}") from error
    else:
        try:
            vector = np.array(read_text(path).splitlines())
        except InputError as error:
            raise InputError(f"{name}: {path} is neither a .npy vector nor text in UTF-8: {error}") from error
    if vector.shape != (length,):
        raise InputError(f"{name} must be a vector of {length} values, one per row; that of {path} is {vector.shape}")
    return vector


def existing_paths(paths: str | Path | Sequence[str | Path], name: str) -> list[Path]:
    """One path or several, as a list. Raises InputError, naming the argument, where one of them is not there."""
    given = [paths] if isinstance(paths, str | Path) else paths
    listed = [Path(path) for path in given]
    for text, path in zip(given, listed, strict=True):
        if text == "":  # which as a path would be the folder that one is in
            raise InputError(f"{name} must name a file; it is ''")
        if not path.exists():
            raise InputError(f"{name}: there is no {path}")
    return listed


def file_identity(path: Path) -> list[Any]:
    """What tells a file, or a folder of files, from another: place, size and time of change. Hashing could take longer
    than what is to be done with it."""
    inside = files_below(path) if path.is_dir() else [path]
    return [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in inside if file.is_file()]
