"""Matrices of other libraries, as ones that can be read by rows: sparse, masked, data frames, lists of rows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from torch import Tensor

from tarot.common import InputError


class SparseRows:
    """A SciPy sparse matrix [n, d] whose rows are made dense as they are read; the whole never is."""

    def __init__(self, matrix: Any) -> None:
        self._matrix = matrix.tocsr()
        self.shape: tuple[int, ...] = tuple(matrix.shape)
        self.dtype = matrix.dtype

    def __getitem__(self, index: Any) -> NDArray[Any]:
        rows: NDArray[Any] = self._matrix[index].toarray()
        return rows


def readable(array: Any, name: str) -> Any:
    """`array` with a shape, a dtype and indexing by rows; what has them already is returned as it is.

    name: of the argument, for errors. Raises InputError where a value is masked, rows are missing or of different
    lengths, or the library keeps its numbers in a way that cannot be read by rows.
    """
    if isinstance(array, Tensor):
        return _strided(array, name)
    if isinstance(array, str | os.PathLike):
        raise InputError(f"{name} is the path {str(array)!r}, not rows: give tarot.open_features of it")
    if array is None or isinstance(array, Mapping | set):
        kind = "None" if array is None else f"a {type(array).__name__}"
        raise InputError(f"{name} must be a matrix [rows, features], such as an array; it is {kind}")
    if scipy.sparse.issparse(array):
        return SparseRows(array)
    if np.ma.isMaskedArray(array):
        return unmasked(array, name)
    if hasattr(array, "to_numpy"):
        array = _of_frame(array)
    elif not (hasattr(array, "shape") and hasattr(array, "dtype") and hasattr(array, "__getitem__")):
        try:
            array = np.asarray(array)
        except ValueError as error:  # ragged nested lists
            raise InputError(f"{name} is not a matrix [rows, dimensions]: {error}") from error
    if isinstance(array, np.ndarray) and array.dtype == object:
        return _of_objects(array, name)
    return array


def unmasked(array: Any, name: str) -> NDArray[Any]:
    """The values of a masked array, none of which may be masked."""
    masked = np.argwhere(np.ma.getmaskarray(array))
    if len(masked):
        where = " column ".join(map(str, masked[0]))
        raise InputError(
            f"{name} row {where} is masked, and {len(masked)} values are: fill them (array.filled(value)) or leave "
            "their rows out"
        )
    values: NDArray[Any] = np.ma.getdata(array)
    return values


def _strided(tensor: Tensor, name: str) -> Tensor:
    if tensor.layout != torch.strided:
        raise InputError(
            f"{name} is a sparse torch tensor, which cannot be read by rows: give tensor.to_dense(), or a scipy.sparse "
            "matrix, which is never dense as a whole"
        )
    if tensor.is_meta:
        raise InputError(f"{name} is a tensor on torch's device 'meta', which holds no numbers")
    return tensor


def _of_frame(frame: Any) -> NDArray[Any]:
    """A data frame or series as NumPy's; a missing value of pandas' nullable types as NaN, which its reader refuses."""
    plain: NDArray[Any] = frame.to_numpy()
    if plain.dtype != object:
        return plain
    try:
        numbers: NDArray[np.float64] = frame.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        return plain
    return numbers


def _of_objects(array: NDArray[Any], name: str) -> NDArray[Any]:
    """A column of rows, each a sequence of numbers, as a matrix; anything else as it is, to be refused by its dtype."""
    column = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if column.ndim != 1 or not any(_is_row(row) for row in column):
        return array
    for i, row in enumerate(column):
        if not _is_row(row):
            raise InputError(f"{name} row {i} is {row!r}: every row must be a list of numbers")
    lengths = sorted({len(row) for row in column})
    if len(lengths) > 1:
        raise InputError(f"{name} has rows of different lengths, from {lengths[0]} to {lengths[-1]}")
    matrix: NDArray[Any] = np.stack([np.asarray(row) for row in column])
    return matrix


def _is_row(row: Any) -> bool:
    return isinstance(row, list | tuple) or (isinstance(row, np.ndarray) and row.ndim == 1)
