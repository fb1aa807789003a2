"""Pickles of plain data are read; what else they ask for is refused, and never run."""

from __future__ import annotations

import os
import pickle
import struct
from collections import OrderedDict, defaultdict
from decimal import Decimal

import numpy as np
import pytest

from tarot import InputError
from tasks.common.safe_pickle import load_pickle as load
from tests.tasks.motion.scenes import record, write_pickle

CONTENT = {
    "text": "lane",
    "numbers": [1, -2.5, None, True, 2**80],
    "sets": {"a", "b"},
    "frozen": frozenset({1}),
    "tuple": (1, (2, 3)),
    "counts": defaultdict(int, {"x": 3}),
    "ordered": OrderedDict(b=1, a=2),
    "bytes": b"\x00\xff",
    "scalar": np.float64(1.5),
    "small": np.float32(0.25),
    "flag": np.bool_(True),
}
ARRAYS = {
    "doubles": np.arange(6.0).reshape(2, 3),
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "bools": np.array([True, False]),
    "words": np.array(["a", "bcd"]),
    "empty": np.zeros((0, 3), np.float32),
    "big": np.arange(3, dtype=">i4"),
    "every second": np.arange(10)[::2],
    "none": np.array(4.0),
}


def load_pickle(path, max_bytes=2**28):
    return load(path, max_bytes=max_bytes)


class Attack:
    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_plain_data_and_arrays_are_read_as_pickle_reads_them(tmp_path, protocol):
    path = write_pickle(tmp_path / "a.pkl", {**CONTENT, "arrays": ARRAYS}, protocol)
    loaded, native = load_pickle(path), pickle.loads(path.read_bytes())["arrays"]
    arrays = loaded.pop("arrays")
    assert loaded == CONTENT and {k: type(v) for k, v in loaded.items()} == {k: type(v) for k, v in CONTENT.items()}
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == native[name].dtype and np.array_equal(arrays[name], array), name


def test_both_names_of_numpys_core_are_known(tmp_path):
    path = write_pickle(tmp_path / "a.pkl", {"a": np.arange(3.0), "b": np.float64(2)}, protocol=3)
    new, old = b"cnumpy._core.", b"cnumpy.core."
    content = path.read_bytes()
    other = content.replace(new, old) if new in content else content.replace(old, new)
    assert other != content
    path.write_bytes(other)
    assert load_pickle(path)["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_that_runs_a_command_is_refused_and_not_run(tmp_path, protocol):
    mark = tmp_path / "was_here"
    path = write_pickle(tmp_path / "sd_evil.pkl", {"a": 1, "b": Attack(os.system, f"touch {mark}")}, protocol)
    with pytest.raises(InputError, match=r"sd_evil.pkl asks for (posix|nt).system"):
        load_pickle(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "evil",
    [
        Attack(eval, "1"),
        Attack(getattr, [], "append"),
        Attack(np.load, "a.npy"),
        Attack(np.fromfile, "a"),
        Decimal(1),
        np.random.default_rng,
        np.float64,
    ],
)
def test_names_beside_the_list_are_refused(tmp_path, evil):
    with pytest.raises(InputError, match="asks for"):
        load_pickle(write_pickle(tmp_path / "a.pkl", [evil]))


def _global(module: str, name: str) -> bytes:
    words = b"".join(b"\x8c" + struct.pack("B", len(word)) + word.encode() for word in (module, name))
    return words + b"\x93"  # STACK_GLOBAL


def test_names_are_not_looked_up_inside_of_allowed_ones(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x04" + _global("numpy", "ndarray.tofile") + b".")
    with pytest.raises(InputError, match=r"ndarray\.tofile"):
        load_pickle(path)


@pytest.mark.parametrize("name", ["_reconstruct", "scalar"])
def test_allowed_functions_cannot_be_changed(tmp_path, name):
    state = b"N}\x8c\x0c__defaults__N\x86s"
    for build in (state + b"b.", b"}\x8c\x01aK\x01sb."):
        path = tmp_path / "a.pkl"
        path.write_bytes(b"\x80\x04" + _global("numpy._core.multiarray", name) + build)
        with pytest.raises(InputError):
            load_pickle(path)


def test_objects_kept_by_another_program_are_refused(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x04\x8c\x01xQ.")
    with pytest.raises(InputError, match="another program"):
        load_pickle(path)


def test_arrays_of_objects_in_a_buffer_and_made_up_sizes_are_refused(tmp_path):
    path = tmp_path / "a.pkl"
    huge = b"\x80\x04" + _global("numpy._core.multiarray", "_reconstruct")
    huge += _global("numpy", "ndarray") + b"\x8a\x06\x00\x00\x00\x00\x00\x40\x85\x8c\x02f8\x87R."
    path.write_bytes(huge)  # an array of 2**46 numbers
    with pytest.raises(InputError, match="cut short or is no pickle"):
        load_pickle(path)
    with pytest.raises(InputError):
        load_pickle(write_pickle(path, Attack(np.frombuffer, b"12345678")))


def test_every_cut_of_a_scenario_is_a_named_error(tmp_path):
    content = pickle.dumps(record(frames=3), protocol=4)
    path = tmp_path / "sd_cut.pkl"
    for end in range(0, len(content) - 1, 41):
        path.write_bytes(content[:end])
        with pytest.raises(InputError, match=r"sd_cut.pkl is cut short or is no pickle"):
            load_pickle(path)


def test_broken_bytes_are_named_errors_or_data(tmp_path):
    content, rng = bytearray(pickle.dumps(record(frames=2), protocol=4)), np.random.default_rng(0)
    path = tmp_path / "sd_broken.pkl"
    refused = 0
    for _ in range(200):
        broken = bytearray(content)
        for at in rng.integers(0, len(content), 3):
            broken[at] = rng.integers(0, 256)
        path.write_bytes(broken)
        try:
            load_pickle(path)
        except InputError:
            refused += 1
    assert refused > 20


def test_size_cap_and_missing_file(tmp_path):
    path = write_pickle(tmp_path / "a.pkl", list(range(1000)))
    size = path.stat().st_size
    assert len(load_pickle(path, max_bytes=size)) == 1000
    with pytest.raises(InputError, match=f"larger than {size - 1} bytes"):
        load_pickle(path, max_bytes=size - 1)
    with pytest.raises(InputError, match=r"none\.pkl cannot be read"):
        load_pickle(tmp_path / "none.pkl")
