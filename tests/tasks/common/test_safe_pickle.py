"""Harmless pickles are read as `pickle` reads them; those that were made to do harm are refused, soon and in little
memory."""

from __future__ import annotations

import json
import os
import pickle
import sys
import tracemalloc
from collections import OrderedDict, defaultdict
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tarot import InputError
from tasks.classification.cifar10_files import load_cifar10
from tasks.common.safe_pickle import load_keys, load_pickle
from tests.experiments.running import process_like_this
from tests.tasks.classification.stand_ins import write_cifar10
from tests.tasks.common import pickle_child
from tests.tasks.common.hostile_pickles import MARK_NAME, hostile

SECONDS, MEGABYTES, MUTATIONS = 1.0, 50, 1000
KINDS = ("?", *"bhilqBHILQefdFD", "S3", "U3", ">i2", ">f8", ">U3", "<f4")


FIELDS = {"shared": ["lane", 1.5]}


class ScenarioDescription(dict):
    """As MetaDrive has one."""


class AgentType(IntEnum):
    VEHICLE = 1


class NamedAgentType(Enum):
    VEHICLE = "VEHICLE"


NamedAgentType.__qualname__ = NamedAgentType.__name__ = "AgentType"


def read(path: Path, content: bytes, **options: Any) -> Any:
    path.write_bytes(content)
    return load_pickle(path, **{"max_bytes": 2**24, **options})


def same(one: Any, two: Any) -> None:
    assert type(one) is type(two)
    if isinstance(one, np.ndarray):
        assert (one.dtype, one.shape, one.flags.writeable) == (two.dtype, two.shape, two.flags.writeable)
        assert one.flags.f_contiguous == two.flags.f_contiguous and one.tobytes() == two.tobytes()
    elif isinstance(one, dict):
        assert list(one) == list(two)
        assert getattr(one, "default_factory", None) is getattr(two, "default_factory", None)
        for key in one:
            same(one[key], two[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(two)
        for a, b in zip(one, two, strict=True):
            same(a, b)
    else:
        assert one == two


def arrays() -> dict[str, Any]:
    """Of each kind and layout, and numbers of each kind."""
    rng, made = np.random.default_rng(0), {}
    for kind in map(np.dtype, KINDS):
        whole = rng.integers(0, 2 if kind.kind == "b" else 100, size=(2, 3, 4)).astype(kind)
        made |= {
            f"{kind} as it is": whole,
            f"{kind} by columns": np.asfortranarray(whole),
            f"{kind} turned": whole.transpose(1, 0, 2),
            f"{kind} in part": whole[:, ::2],
            f"{kind} of none": whole[:0],
            f"{kind} without axes": whole[0, 0, 0:1].reshape(()),
            f"{kind} alone": whole[0, 1, 1],
        }
    return {**made, "no text": np.str_(""), "no bytes": np.bytes_(b"")}


def plain() -> dict[Any, Any]:
    shared = ["lane", 1.5]
    return {
        "numbers": [0, 1, -1, 255, 256, 65535, 65536, -(2**31), 2**31, 2**63, -(2**80), 2**500, 1e300, -0.0, 1 + 2j],
        "constants": [None, True, False, (), [], {}, set(), frozenset(), "", b""],
        "text": ["a", "\N{GREEK SMALL LETTER ALPHA}\n\\u", "\ud800", "long " * 100, "'\"", "\0"],
        "bytes": [b"a", b"\x00\xff" * 200, bytearray(b"ab"), bytearray()],
        "sets": [{"a", 2, (1, "b")}, frozenset({1.5, None})],
        "tuples": [(1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ((), ((1,),))],
        "many": list(range(5000)),
        "dicts": [{i: str(i) for i in range(2500)}, OrderedDict(b=1, a=2), defaultdict(int, x=1), defaultdict(list)],
        ("a", 1): {b"key": 1, 2.5: 2, None: 3, True: 4, np.int64(9): 5, np.str_("n"): 6},
        "shared": [shared, shared, {"again": shared}],
    }


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_is_read_as_pickle_reads_it(tmp_path, protocol):
    for content in (plain(), arrays()):
        dumped = pickle.dumps(content, protocol=protocol)
        same(read(tmp_path / "a.pkl", dumped), pickle.loads(dumped))


@pytest.mark.parametrize("protocol", range(5))
def test_names_of_numpy_1_and_2(tmp_path, protocol):
    dumped = pickle.dumps(arrays(), protocol=protocol)
    new, old = b"numpy._core.multiarray", b"numpy.core.multiarray"
    if protocol == 4:  # a length comes before it
        new, old = (bytes([len(name)]) + name for name in (new, old))
    given = old if old in dumped else new
    other = dumped.replace(given, new if given == old else old)
    assert other != dumped
    if protocol == 4:  # the frame is of another length: without frames it is the same pickle
        other = other[:2] + other[11:]
    same(read(tmp_path / "a.pkl", other), pickle.loads(dumped))


@pytest.mark.parametrize("protocol", range(6))
def test_harmless_classes_are_plain_data(tmp_path, protocol):
    content = [ScenarioDescription(a=ScenarioDescription(), b=[1]), AgentType.VEHICLE]
    dumped = pickle.dumps(content, protocol=protocol)
    same(read(tmp_path / "a.pkl", dumped), [{"a": {}, "b": [1]}, 1])
    foreign = dumped.replace(__name__.encode(), b"x" * len(__name__))
    assert foreign != dumped
    same(read(tmp_path / "a.pkl", foreign), [{"a": {}, "b": [1]}, 1])


def test_enumerations_by_their_value_or_their_name(tmp_path):
    same(read(tmp_path / "a.pkl", b"cx\nAgentType\n(Vcar\ntR."), "car")
    same(read(tmp_path / "a.pkl", b"c__builtin__\ngetattr\n(cx\nAgentType\nVcar\ntR."), "car")


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_objects_are_lists(tmp_path, protocol):
    content = np.empty((2, 2), object)
    content[:] = [["a", 1], [None, [2]]]
    alone = np.array(None)
    alone[()] = "x"
    dumped = pickle.dumps([content, content[0], content[:0, 0], alone, content], protocol=protocol)
    same(read(tmp_path / "a.pkl", dumped), [content.tolist(), ["a", 1], [], "x", content.tolist()])


def test_strings_of_python_2(tmp_path):
    content = b"(dp1\nS'a\\x41'\np2\nU\x02bcsT\x01\x00\x00\x00dS\"e\"\ns."
    for encoding in ("ASCII", "bytes"):
        same(read(tmp_path / "a.pkl", content, encoding=encoding), pickle.loads(content, encoding=encoding))


def test_other_opcodes_are_read_as_pickle_reads_them(tmp_path):
    for content in (
        b"\x80\x02(K\x01K\x02l.",
        b"(I1\nI01\nI00\nL-5L\nL7\nF1.5\nF-inf\nlp3\n.",
        b"\x80\x02K\x01q\x05K\x020h\x05\x86.",
        b"\x80\x02(K\x01(K\x02K\x031K\x042t.",
        b"\x80\x02(0K\x01.",
        b"\x80\x04\x8b\x02\x00\x00\x00\x00\x80.",
        b"\x80\x04\x8d\x01\x00\x00\x00\x00\x00\x00\x00a\x8e\x01\x00\x00\x00\x00\x00\x00\x00b\x86.",
        b"(Va\nI1\ndq\x00.",
    ):
        same(read(tmp_path / "a.pkl", content), pickle.loads(content))


def test_real_records_are_read_as_pickle_reads_them():
    files = sorted(Path(os.environ.get("TAROT_DATA", "data")).glob("motion/**/*.pkl"))
    if not files:
        pytest.skip("TAROT_DATA holds no motion/**/*.pkl")
    for path in files:
        whole = pickle.loads(path.read_bytes())
        same(load_pickle(path, max_bytes=2**28), whole)
        assert list(load_keys(path, max_bytes=2**28)) == list(whole)


SUMMARIES = {
    "records": {f"sd_{i}.pkl": {"id": f"sd_{i}.pkl", "lanes": [i, {"a": (i, str(i))}]} for i in range(2500)},
    "arrays and what is shared": {
        name: {"now": np.float64(1.5), "at": np.arange(3), "again": np.arange(3), "of": FIELDS} for name in "abcd"
    },
    "ordered": OrderedDict((str(i), [i]) for i in range(1200)),
    "a key that was a value": {"a": [f"{1}b"], "c": 1},
    "keys that are no text": {1: "a", ("b",): 2},
    "nothing": {},
    "no dict": ["a", {"b": 1}],
}


@pytest.mark.parametrize("name", SUMMARIES)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_keys_alone_are_those_of_the_whole(tmp_path, name, protocol):
    whole = SUMMARIES[name]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(whole, protocol))
    found = load_keys(tmp_path / "a.pkl", max_bytes=2**24)
    assert list(found) == list(whole)
    outline = isinstance(whole, dict) and bool(whole) and all(isinstance(key, str) for key in whole)
    if outline and (protocol > 1 or "arrays" not in name):  # whose bytes are text that is decoded in protocols 0 and 1
        assert found == dict.fromkeys(whole)


def test_a_value_that_becomes_a_key_is_read_with_the_whole(tmp_path):
    """One string, written in one portion of the dict and recalled in the next one."""
    shared = "sd_last.pkl"
    whole = {**{str(i): shared for i in range(1500)}, shared: 1}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(whole, 4))
    assert list(load_keys(tmp_path / "a.pkl", max_bytes=2**24)) == list(whole)


def test_keys_of_many_records_take_little_memory(tmp_path):
    """As `dataset_summary.pkl` of Waymo's half a million."""
    objects = [{"type": "VEHICLE", "length": i, "moved": i / 7} for i in range(20)]
    whole = {f"sd_{i}.pkl": {"tracks": {f"{i}-{k}": dict(one) for k, one in enumerate(objects)}} for i in range(600)}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(whole, 4))
    size, peaks = (tmp_path / "a.pkl").stat().st_size, {}
    for load in (load_keys, load_pickle):
        tracemalloc.start()
        load(tmp_path / "a.pkl", max_bytes=2**28)
        peaks[load] = tracemalloc.get_traced_memory()[1] - size  # its own bytes are read as a whole
        tracemalloc.stop()
    assert peaks[load_keys] < peaks[load_pickle] / 3


def test_what_is_shared_may_be_written_out_some_times(tmp_path):
    row = [1.0] * 1000
    assert len(read(tmp_path / "a.pkl", pickle.dumps([row] * 200))) == 200
    with pytest.raises(InputError, match="far larger than its length"):
        read(tmp_path / "a.pkl", pickle.dumps([row] * 1000))


def test_one_list_may_be_nested_a_hundred_times(tmp_path):
    deep: Any = []
    for _ in range(99):
        deep = [deep]
    same(read(tmp_path / "a.pkl", pickle.dumps(deep)), deep)
    with pytest.raises(InputError, match="nested more than 100 deep"):
        read(tmp_path / "a.pkl", pickle.dumps([deep]))


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "sd_pipe.pkl")
    for path, reason in (("sd_pipe.pkl", "it is no file"), (".", "directory|no file"), ("a\0b", "cannot be read")):
        with pytest.raises(InputError, match=reason):
            load_pickle(f"{tmp_path}/{path}", max_bytes=100)


# --- harm ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def harm(tmp_path_factory) -> tuple[Path, list[dict[str, Any]]]:
    """What came of each file in a process of its own."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the memory of each is counted by Linux")
    folder = tmp_path_factory.mktemp("hostile")
    output = tmp_path_factory.mktemp("printed") / "lines.out"
    ended = process_like_this(pickle_child.main, folder, MUTATIONS, output)
    ended.join(900)
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    printed = output.with_suffix(".err").read_text()
    assert ended.exitcode == 0, f"it ended with {ended.exitcode} in {lines[-1:]}: {printed[-2000:]}"
    return folder, lines


def test_every_hostile_pickle_is_refused_soon_and_in_little_memory(harm):
    folder, lines = harm
    ends = {line["what"]: line for line in lines if "what" in line}
    assert len(hostile()) >= 100 and len(ends) == 3 * len(hostile())
    wrong = []
    for what, line in ends.items():
        of_keys = what.endswith(", its keys")  # values are not looked at, or all is read for a second time
        outcomes, megabytes = (("refused", "read"), 2 * MEGABYTES) if of_keys else (("refused",), MEGABYTES)
        if line["outcome"] not in outcomes or line["seconds"] > SECONDS or line["megabytes"] > megabytes:
            wrong.append(line)
    assert not wrong
    assert not (folder / MARK_NAME).exists()


def test_changed_bytes_are_refused_or_data(harm):
    _, lines = harm
    assert lines[-1] == {"mutations": MUTATIONS}
    assert not [line for line in lines if "mutated" in line]


@pytest.mark.parametrize("what", ["numpy.f2py.__main__._frombuffer", "fields in V8", "too few objects"])
def test_batches_of_images_are_read_by_the_same_loader(tmp_path, monkeypatch, what):
    write_cifar10(tmp_path, "batches")
    found = hostile()
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(found.get(what) or found[f"calls {what}"])
    monkeypatch.setattr(sys, "argv", ["run.py", "--help"])
    with pytest.raises(InputError, match="test_batch"):
        load_cifar10(tmp_path, tmp_path / "cache")
    assert "numpy.f2py.__main__" not in sys.modules


@pytest.mark.parametrize(
    "batch",
    [
        [],
        {},
        {b"data": [], b"labels": []},
        {b"data": np.zeros(3072, np.uint8), b"labels": ["a"]},
        {b"data": np.zeros(3072, np.uint8), b"labels": [2**70]},
        {b"data": np.zeros(3072, np.uint8), b"labels": {}},
        {b"data": np.zeros(3071, np.uint8), b"labels": [1]},
        {b"data": np.zeros((0, 3072), np.uint8), b"labels": []},
    ],
)
def test_batches_that_are_something_else(tmp_path, batch):
    write_cifar10(tmp_path, "batches")
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps(batch))
    with pytest.raises(InputError, match="test_batch is not a batch"):
        load_cifar10(tmp_path, tmp_path / "cache")
