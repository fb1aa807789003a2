"""What the engine accepts as a matrix of features, and how it reads it: a block of rows at a time.

`Rows` is anything with a shape [n, d], a dtype and row indexing: a NumPy array, a memory map, a torch tensor on any
device, a `FeatureStore`. Nothing in the engine may assume that all of it fits in memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from tarot.common import CPU, InputError
from tarot.features.foreign_arrays import readable

BLOCK_BYTES = 64 << 20  # a float32 block of rows: large enough for GEMM to run at full speed, small beside any memory


@runtime_checkable
class Rows(Protocol):
    """A readable matrix [n, d]: `rows[a:b]` and `rows[int array]` give arrays or tensors of rows."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...

    def __getitem__(self, index: Any) -> Any: ...


MatrixLike = Rows | ArrayLike
"""What can be read as rows [n, d]: `Rows`, or nested sequences of numbers."""

Features = MatrixLike | Sequence[MatrixLike]
"""One matrix of rows, or one per model that saw them."""


def as_rows(array: Any, name: str) -> Rows:
    """`array` as a matrix that can be read by blocks; nothing is copied unless it is a plain sequence or data frame.

    Rows of a SciPy sparse matrix are made dense as they are read.

    Raises InputError where it is not a non-empty two-dimensional matrix of real numbers. Whether the numbers are
    finite is checked by whoever reads them (`read_block`), so that a memory map is not read twice.
    """
    array = readable(array, name)
    shape = tuple(array.shape)
    if len(shape) != 2:
        raise InputError(f"{name} must have two dimensions [rows, features]; its shape is {shape}")
    if 0 in shape:
        raise InputError(f"{name} is empty: its shape is {shape}")
    if not _is_real(array.dtype):
        advice = ": give columns of numbers alone, or one column of lists" if array.dtype == object else ""
        raise InputError(f"{name} must hold real numbers; its dtype is {array.dtype}{advice}")
    rows: Rows = array
    return rows


def read_block(rows: Rows, start: int, stop: int, name: str = "features", device: torch.device = CPU) -> Tensor:
    """Rows start..stop as a float32 tensor [stop - start, d] on `device`, to which they move in their own dtype.
    Raises InputError at the first NaN or infinity."""
    return _finite(_to_float32(rows[start:stop], device), rows, name, start)


def read_rows(rows: Rows, indices: NDArray[np.int64], name: str = "features", device: torch.device = CPU) -> Tensor:
    """The rows at `indices` (int64 [k]) as a float32 tensor [k, d] on `device`, in the order given."""
    indices = np.asarray(indices, dtype=np.int64)
    index: Any = torch.from_numpy(indices).to(rows.device) if isinstance(rows, Tensor) else indices
    return _finite(_to_float32(rows[index], device), rows, name, indices)


def block_size(columns: int, block_bytes: int = BLOCK_BYTES) -> int:
    """How many float32 rows of `columns` numbers make one block."""
    return max(256, block_bytes // (4 * max(1, columns)))


def blocks(
    rows: Rows, size: int | None = None, name: str = "features", device: torch.device = CPU
) -> Iterator[tuple[int, Tensor]]:
    """(start, float32 tensor [b, d] on `device`) for consecutive blocks of `rows` [n, d], from the first to the last.

    size: rows per block, the last one may have fewer; default as many as make BLOCK_BYTES, at least 256. name: of the
    argument, for errors. Raises InputError at the first NaN or infinity, with its row and column.
    """
    n, d = rows.shape
    size = block_size(d) if size is None else size
    if size < 1:
        raise InputError(f"size must be at least 1 row of a block; it is {size}")
    for start in range(0, n, size):
        yield start, read_block(rows, start, min(n, start + size), name, device)


def _is_real(dtype: Any) -> bool:
    if isinstance(dtype, torch.dtype):
        return not dtype.is_complex and dtype != torch.bool
    try:
        kind = np.dtype(dtype).kind
    except TypeError:
        return False
    return kind in "fiu"


def _to_float32(block: Any, device: torch.device) -> Tensor:
    if isinstance(block, Tensor):
        return block.detach().to(device).float()
    if device != CPU:
        return _uploaded(np.asarray(block), device)
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as such
        block = np.ascontiguousarray(block, dtype=np.float32)
    # A tensor of a read-only map could crash; one row of a reversed array counts as contiguous, but not for torch.
    return torch.from_numpy(block if block.flags.writeable and min(block.strides) >= 0 else block.copy())


def _uploaded(block: NDArray[Any], device: torch.device) -> Tensor:
    """On a GPU: through pinned memory, which torch keeps for the next block, and in the dtype it has, so that half
    precision is half the bytes. The copy runs beside what the device does."""
    try:
        dtype = torch.from_numpy(np.empty(0, block.dtype)).dtype
    except TypeError:  # torch has none such
        dtype = torch.float32
    staged = torch.empty(block.shape, dtype=dtype, pin_memory=torch.cuda.is_available())
    np.copyto(staged.numpy(), block, casting="same_kind")
    return staged.to(device, non_blocking=True).float()


def _finite(block: Tensor, rows: Rows, name: str, first: int | NDArray[np.int64]) -> Tensor:
    # One sum finds any NaN or infinity at memory speed; only then is the culprit looked for (the sum of large finite
    # numbers can overflow too, and then none is found).
    if not torch.isfinite(block.sum()):
        bad = (~torch.isfinite(block)).nonzero()
        if len(bad):
            row, column = bad[0].cpu().tolist()
            index = first + row if isinstance(first, int) else int(first[row])
            value = float(rows[index : index + 1][0][column])  # as it is there
            wrong = "too large for float32: scale the features" if math.isfinite(value) else "features must be finite"
            raise InputError(f"{name} row {index} column {column} is {value:g}: {wrong}")
    return block
