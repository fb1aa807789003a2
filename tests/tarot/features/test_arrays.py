"""Whatever the engine accepts as a matrix reads as the same float32 rows; what it cannot use is named."""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse
import torch

import tarot.features.arrays
from tarot.common.errors import InputError
from tarot.features.arrays import Rows, as_rows, block_size, blocks, read_block, read_rows
from tarot.features.readers import read_foreign
from tarot.features.store import FeatureStore
from tarot.space.whitening import JoinedRows, WhitenedRows, unit_norm

VALUES = np.arange(21, dtype=np.float32).reshape(7, 3) / 8 - 1  # exact in every float type


def store(path, dtype="float32"):
    return FeatureStore.build(
        path,
        recipe={"kind": "test"},
        ids=[f"c{i}" for i in range(7)],
        dim=3,
        dtype=dtype,
        rows_per_shard=3,
        compute=lambda start, stop: {"features": torch.from_numpy(VALUES[start:stop])},
    )


def memmap(path):
    np.save(path / "v.npy", VALUES)
    return np.load(path / "v.npy", mmap_mode="r")


KINDS = {
    "float32": lambda path: VALUES,
    "float64": lambda path: VALUES.astype(np.float64),
    "float16": lambda path: VALUES.astype(np.float16),
    "big endian": lambda path: VALUES.astype(">f8"),
    "integers": lambda path: (8 * VALUES).astype(np.int64),
    "fortran": lambda path: np.asfortranarray(VALUES),
    "strided": lambda path: np.repeat(np.repeat(VALUES, 2, axis=0), 3, axis=1)[::2, ::3],
    "reversed": lambda path: VALUES[::-1].copy()[::-1],
    "read-only": lambda path: np.frombuffer(VALUES.tobytes(), np.float32).reshape(7, 3),
    "memmap": memmap,
    "torch": lambda path: torch.from_numpy(VALUES),
    "torch float64": lambda path: torch.from_numpy(VALUES).double(),
    "torch bfloat16": lambda path: torch.from_numpy(VALUES).bfloat16(),
    "torch with gradient": lambda path: torch.from_numpy(VALUES.copy()).requires_grad_(),
    "torch transposed": lambda path: torch.from_numpy(VALUES.T.copy()).T,
    "nested list": lambda path: VALUES.tolist(),
    "store": lambda path: store(path / "store"),
    "float16 store": lambda path: store(path / "store", "float16"),
}


@pytest.fixture(params=KINDS)
def rows(request, tmp_path):
    scale = 8 if request.param == "integers" else 1
    return as_rows(KINDS[request.param](tmp_path), "features"), scale * torch.from_numpy(VALUES)


def test_every_kind_of_rows_reads_the_same(rows):
    given, expected = rows
    assert isinstance(given, Rows) and tuple(given.shape) == (7, 3)
    whole = read_block(given, 0, 7)
    assert whole.dtype == torch.float32 and whole.device.type == "cpu" and not whole.requires_grad
    assert torch.equal(whole, expected)
    assert torch.equal(read_block(given, 2, 5), expected[2:5])
    assert torch.equal(read_rows(given, np.array([5, 0, 5, 3])), expected[[5, 0, 5, 3]])
    assert read_rows(given, np.array([], dtype=np.int64)).shape == (0, 3)


def test_blocks_cover_every_row_once_and_in_order(rows):
    given, expected = rows
    for size in (1, 3, 7, 100):
        parts = list(blocks(given, size))
        assert [start for start, _ in parts] == list(range(0, 7, size))
        assert torch.equal(torch.cat([part for _, part in parts]), expected)


def test_views_of_the_engine_are_rows():
    x = torch.from_numpy(VALUES)
    for view in (WhitenedRows(x, unit_norm), JoinedRows([x, x])):
        assert isinstance(view, Rows) and as_rows(view, "x") is view
        assert torch.equal(read_rows(view, np.array([4, 1])), read_block(view, 0, 7)[[4, 1]])


def test_nothing_is_copied_or_read_to_be_accepted(tmp_path):
    mapped = memmap(tmp_path)
    assert as_rows(mapped, "x") is mapped
    bad = np.full((3, 2), np.nan)
    assert as_rows(bad, "x") is bad  # found when it is read, so that a memory map is not read twice


def test_a_block_of_a_read_only_map_can_be_written_to(tmp_path):
    """torch tensors of a read-only map would crash the process on the first write."""
    mapped = memmap(tmp_path)
    block = read_block(mapped, 0, 7)
    block += 1
    np.testing.assert_array_equal(mapped, VALUES)


def test_a_block_holds_about_the_bytes_it_may():
    assert block_size(1000, 4_000_000) == 1000
    assert block_size(10**9, 1) == 256
    assert block_size(0) > 0


def column_of(rows):
    column = np.empty(len(rows), object)
    column[:] = rows
    return column


FRAME = pd.DataFrame(VALUES)
SPARSE = (scipy.sparse.csr_matrix, scipy.sparse.csr_array, scipy.sparse.csc_array, scipy.sparse.coo_matrix)


@pytest.mark.parametrize(
    "array",
    [
        *(kind(VALUES) for kind in SPARSE),
        np.ma.masked_array(VALUES, mask=np.zeros_like(VALUES, bool)),
        FRAME,
        FRAME.astype("Float32"),
        FRAME.convert_dtypes(),
        pd.DataFrame({"embedding": list(VALUES)}),
        pd.Series([row.tolist() for row in VALUES]),
        column_of(list(VALUES)),
        pa.table({"embedding": [row.tolist() for row in VALUES]}),
    ],
    ids=lambda array: f"{type(array).__module__}.{type(array).__name__}",
)
def test_matrices_of_other_libraries_read_as_the_same_rows(array):
    rows = as_rows(array, "gradients")
    assert rows.shape == (7, 3)
    assert torch.equal(read_block(rows, 0, 7), torch.from_numpy(VALUES))
    assert torch.equal(read_block(rows, 2, 5), torch.from_numpy(VALUES[2:5]))
    assert torch.equal(read_rows(rows, np.array([6, 0, 6])), torch.from_numpy(VALUES[[6, 0, 6]]))


def test_a_sparse_matrix_is_never_dense_as_a_whole():
    """100,000 x 1,000,000 of which each row has one number: 400 GB if it were."""
    rows = as_rows(scipy.sparse.eye_array(100_000, 1_000_000, dtype=np.float32), "gradients")
    found = read_rows(rows, np.array([99_999, 3]))
    assert found.shape == (2, 1_000_000) and found.nonzero().tolist() == [[0, 99_999], [1, 3]]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ma.masked_greater(VALUES, 1.2), r"row 6 column 0 is masked, and 3 values are: fill them"),
        (torch.from_numpy(VALUES).to_sparse(), r"is a sparse torch tensor, .*: give tensor.to_dense\(\)"),
        (
            pd.DataFrame({"id": ["a", "b"], "x": [1.0, 2.0]}),
            "must hold real numbers; its dtype is object: give columns of numbers alone",
        ),
        (pd.Series([[1.0], [2.0, 3.0]]), "has rows of different lengths, from 1 to 2"),
        (pd.Series([[1.0], None]), "row 1 is .*: every row must be a list of numbers"),
        (scipy.sparse.csr_array(np.ones((2, 2), bool)), "must hold real numbers; its dtype is bool"),
    ],
)
def test_matrices_of_other_libraries_are_refused_with_what_to_do(array, message):
    with pytest.raises(InputError, match=f"gradients {message}"):
        as_rows(array, "gradients")


def test_a_missing_value_of_a_nullable_column_is_refused_where_it_is():
    frame = FRAME.astype("Float64")
    frame.iloc[4, 1] = pd.NA
    with pytest.raises(InputError, match="targets row 4 column 1 is nan"):
        read_block(as_rows(frame, "targets"), 0, 7, "targets")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(3), r"two dimensions \[rows, features\]; its shape is \(3,\)"),
        (np.zeros((2, 3, 4)), "two dimensions"),
        (np.float32(3), "two dimensions"),
        (None, "such as an array; it is None"),
        ({"a": [1.0]}, "such as an array; it is a dict"),
        (np.zeros((0, 4)), r"empty: its shape is \(0, 4\)"),
        (np.zeros((4, 0)), "empty"),
        (torch.zeros(0, 4), "empty"),
        ([], "two dimensions"),
        ([[1.0], [2.0, 3.0]], "not a matrix"),
        (np.array([["a", "b"]]), "real numbers; its dtype is <U1"),
        (np.array([[object()]]), "real numbers; its dtype is object"),
        (np.ones((2, 2), bool), "real numbers; its dtype is bool"),
        (np.ones((2, 2), complex), "real numbers; its dtype is complex128"),
        (torch.ones(2, 2, dtype=torch.complex64), "real numbers; its dtype is torch.complex64"),
        (torch.ones(2, 2, dtype=torch.bool), "real numbers; its dtype is torch.bool"),
        (np.zeros((2, 2), "datetime64[s]"), "real numbers"),
        ("features.npy", "path 'features.npy', not rows: give tarot.open_features"),
        (Path("features.npy"), "path 'features.npy', not rows"),
        (torch.ones(2, 2, device="meta"), "holds no numbers"),
    ],
)
def test_what_is_no_matrix_of_real_numbers_is_refused_by_name(array, message):
    with pytest.raises(InputError, match=f"gradients .*{message}"):
        as_rows(array, "gradients")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_found(value):
    array = np.ones((10, 4), np.float32)
    array[6, 2] = value
    named = rf"targets row 6 column 2 is {value}"
    for read in (
        lambda: read_block(array, 0, 10, "targets"),
        lambda: read_block(array, 5, 8, "targets"),
        lambda: read_rows(array, np.array([1, 9, 6]), "targets"),
        lambda: list(blocks(torch.from_numpy(array), 3, "targets")),
    ):
        with pytest.raises(InputError, match=named):
            read()
    assert torch.equal(read_block(array, 0, 6), torch.ones(6, 4))


def test_opposite_infinities_do_not_hide_each_other():
    array = np.array([[1.0, np.inf], [-np.inf, 1.0]])
    with pytest.raises(InputError, match="row 0 column 1 is inf"):
        read_block(array, 0, 2)


def test_large_finite_numbers_whose_sum_overflows_are_fine():
    array = np.full((5, 5), 3e38, np.float32)
    assert torch.equal(read_block(array, 0, 5), torch.from_numpy(array))


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy], ids=["NumPy", "torch"])
def test_a_number_beyond_float32_is_said_as_it_is(kind):
    rows = kind(np.array([[0, 1], [2, 1e300]]))
    for read in (lambda: read_block(rows, 1, 2), lambda: read_rows(rows, np.array([1]))):
        with pytest.raises(InputError, match=r"row 1 column 1 is 1e\+300: too large for float32"):
            read()


@pytest.mark.parametrize("size", [0, -3])
def test_blocks_of_no_row_are_refused(size):
    with pytest.raises(InputError, match=f"size must be at least 1 row of a block; it is {size}"):
        next(blocks(np.ones((4, 2)), size))


def test_a_pickle_is_never_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was executed",))

    np.save(tmp_path / "objects.npy", np.array([[Bomb()]]), allow_pickle=True)
    (tmp_path / "renamed.npy").write_bytes(pickle.dumps(Bomb()))
    for name in ("objects.npy", "renamed.npy"):
        with pytest.raises(InputError, match=rf"{name} is not a plain .npy array"):
            read_foreign(tmp_path / name)
    for array in (np.array([[Bomb()]]), pickle.dumps(VALUES)):
        with pytest.raises(InputError):
            as_rows(array, "candidates")


def test_input_error_is_a_value_error():
    assert issubclass(InputError, ValueError)
    assert tarot.InputError is tarot.features.arrays.InputError
