"""Rows that are read when they are asked for are those of the whole array."""

from __future__ import annotations

import numpy as np
import pytest

from tarot import InputError
from tasks.common.rows_on_disk import LazyRows, StoredArray, stored_arrays

RNG = np.random.default_rng(0)
ARRAYS = {
    "points": RNG.normal(size=(9, 3, 2)).astype(np.float32),
    "counts": RNG.integers(0, 9, (9, 3)).astype(np.int16),
    "there": RNG.random(9) < 0.5,
    "names": np.array([f"name {i}" for i in range(9)]),
    "note": np.array("all of it"),
    "none": np.zeros((0, 4)),
}
INDICES = [slice(None), slice(7, 2, -2), slice(3, 3), [4], [0, 1, 2, 7, 8, 7], [-1, 3], np.arange(9) % 2 == 0, []]


@pytest.fixture
def stored(tmp_path) -> dict[str, StoredArray]:
    np.savez(tmp_path / "arrays.npz", **ARRAYS)
    return stored_arrays(tmp_path / "arrays.npz")


def indexed(array: np.ndarray, index) -> np.ndarray:
    return array[np.asarray(index, np.int64) if isinstance(index, list) else index]


@pytest.mark.parametrize("index", INDICES, ids=repr)
def test_rows_are_those_of_the_array(stored, index):
    for name in ("points", "counts", "there", "names"):
        for rows in LazyRows([stored[name]]), LazyRows([ARRAYS[name]]):
            assert rows.shape == ARRAYS[name].shape and rows.dtype == ARRAYS[name].dtype
            np.testing.assert_array_equal(rows[index], indexed(ARRAYS[name], index))
            np.testing.assert_array_equal(rows.take(index)[:], indexed(ARRAYS[name], index))
            np.testing.assert_array_equal(rows[-2], ARRAYS[name][-2])
    assert stored["note"].rows(np.zeros(1, np.int64))[0] == "all of it"
    assert LazyRows([stored["none"]])[:].shape == (0, 4)


@pytest.mark.parametrize("index", [*INDICES[:6], np.arange(17) % 3 == 1], ids=repr)
def test_parts_of_unequal_width_are_filled_up(stored, index):
    wide = RNG.normal(size=(4, 5, 2)).astype(np.float32)
    narrow = np.pad(ARRAYS["points"], ((0, 0), (0, 2), (0, 0)))
    whole = np.concatenate([narrow[[5, 0, 8, 2]], wide, narrow])
    lazy = LazyRows.joined(
        [LazyRows([stored["points"]]).take([5, 0, 8, 2]), LazyRows([wide]), LazyRows([stored["points"]])]
    )
    np.testing.assert_array_equal(np.asarray(lazy), whole)
    np.testing.assert_array_equal(lazy.take(index)[:], indexed(whole, index))
    again = lazy.take([0, 3]).take([1, 0])
    assert again.shape == (2, 5, 2), "as wide as what it is of"
    np.testing.assert_array_equal(again[:], whole[[3, 0]])


def test_what_is_asked_for_is_nobody_elses(stored):
    for array in stored["points"], ARRAYS["points"]:
        rows = LazyRows([array])
        rows[:][...] = 7
        np.testing.assert_array_equal(rows[:], ARRAYS["points"])


def test_rows_that_are_not_there(stored, tmp_path):
    for index in ([9], [-10], 9, [True] * 8):
        with pytest.raises(IndexError):
            LazyRows([stored["points"]])[index]
    path = tmp_path / "arrays.npz"
    path.write_bytes(path.read_bytes()[: stored["points"].offset + 10])
    with pytest.raises(InputError, match="shorter than it was"):
        LazyRows([stored["points"]])[:]


def test_files_that_hold_no_arrays(tmp_path):
    packed, objects, torn = (tmp_path / f"{name}.npz" for name in ("packed", "objects", "torn"))
    np.savez_compressed(packed, a=np.zeros(9))
    np.savez(objects, a=np.array([{}], dtype=object))
    torn.write_bytes(packed.read_bytes()[:50])
    for path in (packed, objects, torn, tmp_path / "nowhere.npz"):
        with pytest.raises(InputError, match=r"does not hold (an array a|arrays); delete it"):
            stored_arrays(path)
