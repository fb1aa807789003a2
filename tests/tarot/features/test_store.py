import errno
import multiprocessing
import os
import pickle
import resource
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import tarot.features.store
from tarot.common.errors import InputError
from tarot.features.arrays import blocks
from tarot.features.mean_rows import MeanRows
from tarot.features.store import FeatureStore, StoreError, open_features

RECIPE = {"task": {"name": "toy", "seed": 0}, "checkpoint": "abc"}
ROWS, DIM, STEP = 23, 5, 4  # six shards, the last of three rows


def rows(start=0, stop=ROWS):
    """Rows that depend on their numbers alone."""
    return torch.stack([torch.randn(DIM, generator=torch.Generator().manual_seed(i)) for i in range(start, stop)])


def compute(start, stop):
    return {"features": rows(start, stop), "residual": torch.arange(start, stop) / 7}


def build(path, compute=compute, **changes):
    options = {"recipe": RECIPE, "ids": [f"s{i}" for i in range(ROWS)], "dim": DIM, "columns": ("residual",)}
    return FeatureStore.build(path, compute=compute, **{**options, "rows_per_shard": STEP, **changes})


def counted(calls):
    def counting(start, stop):
        calls.append(start // STEP)
        return compute(start, stop)

    return counting


def content(path):
    return {file.name: file.read_bytes() for file in Path(path).iterdir()}


def flip_bit(file, position=-3):
    data = bytearray(file.read_bytes())
    data[position] ^= 4
    file.write_bytes(data)


# --- what is read is what was computed --------------------------------------------------------------------------------


def test_reads_by_slice_and_by_any_list_of_rows(tmp_path):
    store, expected = build(tmp_path / "s"), rows().numpy()
    assert store.shape == (ROWS, DIM) and store.dtype == np.float32
    for index in (slice(None), slice(3, 9), slice(8, 8), slice(None, None, -2), [22, 0, 5, 5, 17], [-1], []):
        index = np.array(index, dtype=np.int64) if isinstance(index, list) else index
        np.testing.assert_array_equal(store[index], expected[index])
    assert store.ids.tolist() == [f"s{i}" for i in range(ROWS)]
    np.testing.assert_allclose(store.columns["residual"], np.arange(ROWS) / 7, rtol=1e-6)
    np.testing.assert_array_equal(torch.cat([block for _, block in blocks(store, 6)]), expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(store))[:], expected)
    with pytest.raises(IndexError, match="23 rows; asked for row 23"):
        store[np.array([0, 23])]
    with pytest.raises(InputError, match="list of integers"):
        store[np.array([0.5])]


def test_shard_size_changes_nothing_that_is_read(tmp_path):
    few, many = build(tmp_path / "few", rows_per_shard=100), build(tmp_path / "many", rows_per_shard=1)
    np.testing.assert_array_equal(few[:], many[:])
    assert few.manifest["fingerprint"] == many.manifest["fingerprint"]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_dtypes_round_once(tmp_path, dtype):
    store = build(tmp_path / "s", dtype=dtype)
    np.testing.assert_array_equal(store[:].astype(np.float32), rows().to(getattr(torch, dtype)).float().numpy())


def test_manifest_tells_what_was_made(tmp_path):
    def with_zeros(start, stop):
        given = compute(start, stop)
        given["features"][torch.arange(start, stop) % 6 == 0] = 0
        return given

    store = build(tmp_path / "s", with_zeros, notes=lambda: {"excluded_parameters": {"head": "frozen"}})
    assert store.manifest["zero_rows"] == 4
    assert store.manifest["notes"] == {"excluded_parameters": {"head": "frozen"}}
    assert store.manifest["recipe"] == RECIPE
    assert build(tmp_path / "s").manifest == store.manifest


# --- finished once, resumed where it stopped --------------------------------------------------------------------------


def test_a_finished_store_is_not_computed_again(tmp_path):
    build(tmp_path / "s")
    calls = []
    build(tmp_path / "s", counted(calls))
    assert calls == []


def test_goes_on_after_an_error_without_computing_finished_shards(tmp_path):
    def fails_at_three(start, stop):
        if start // STEP == 3:
            raise RuntimeError("out of memory")
        return compute(start, stop)

    with pytest.raises(RuntimeError, match="out of memory"):
        build(tmp_path / "s", fails_at_three)
    assert not (tmp_path / "s").exists()
    calls = []
    build(tmp_path / "s", counted(calls))
    assert calls == [3, 4, 5]
    build(tmp_path / "whole")
    assert content(tmp_path / "s") == content(tmp_path / "whole")


def test_an_unfinished_shard_that_was_damaged_is_computed_again(tmp_path):
    test_goes_on_after_an_error_without_computing_finished_shards(tmp_path)
    os.rename(tmp_path / "s", tmp_path / ".t.part")
    flip_bit(next((tmp_path / ".t.part").glob("00002-*")))
    calls = []
    store = build(tmp_path / "t", counted(calls))
    assert calls == [2]
    assert content(store.path) == content(tmp_path / "whole")


def worker(path, log, pause):
    """Another process that builds the store slowly and logs the shards it computed."""

    def slowly(start, stop):
        time.sleep(pause)
        with open(log, "a") as file:
            file.write(f"{start // STEP}\n")
        return compute(start, stop)

    # Forked, because a fresh interpreter takes seconds to import torch; rows are too few for torch to use threads.
    process = multiprocessing.get_context("fork").Process(target=build, args=(path, slowly))
    process.start()
    return process


def test_killed_at_any_moment_it_resumes_to_the_same_bits(tmp_path):
    build(tmp_path / "whole")
    moments = np.random.default_rng(0)
    for attempt in range(12):
        path, log = tmp_path / f"s{attempt}", tmp_path / f"log{attempt}"
        killed = worker(path, log, pause=0.005)
        time.sleep(moments.uniform(0, 0.1))
        os.kill(killed.pid, signal.SIGKILL)
        killed.join()
        kept = {int(file.name[:5]) for file in tmp_path.glob(f".s{attempt}.part/0*")} if not path.exists() else range(6)
        calls = []
        build(path, counted(calls))
        assert calls == [number for number in range(6) if number not in kept]
        assert content(path) == content(tmp_path / "whole")


def test_of_two_workers_one_builds_and_the_other_waits(tmp_path):
    path, log = tmp_path / "s", tmp_path / "log"
    workers = [worker(path, log, pause=0.02) for _ in range(2)]
    for process in workers:
        process.join(timeout=300)
    assert [process.exitcode for process in workers] == [0, 0]
    assert sorted(map(int, log.read_text().split())) == list(range(6))


def test_a_full_disk_says_so_and_what_was_finished_is_kept(tmp_path, monkeypatch):
    written = Path.write_bytes

    def fills_up(self, data):
        if self.name.startswith(".00002"):
            written(self, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return written(self, data)

    monkeypatch.setattr(Path, "write_bytes", fills_up)
    with pytest.raises(OSError, match=r"No space left on device; .*s is not finished") as caught:
        build(tmp_path / "s")
    assert caught.value.errno == errno.ENOSPC
    assert not (tmp_path / "s").exists()
    assert not list((tmp_path / ".s.part").glob(".*"))
    monkeypatch.undo()
    calls = []
    build(tmp_path / "s", counted(calls))
    assert calls == [2, 3, 4, 5]


def test_the_operating_system_refuses_to_write(tmp_path):
    """No mock: files beyond a limit that shards exceed and the manifest of the beginning does not."""

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
        try:
            build(tmp_path / "s", wide, dim=5000)
        except OSError as error:
            (tmp_path / "said").write_text(str(error))

    def wide(start, stop):
        return {**compute(start, stop), "features": rows(start, stop).repeat(1, 1000)}

    process = multiprocessing.get_context("fork").Process(target=limited)
    process.start()
    process.join(timeout=300)
    assert "File too large" in (tmp_path / "said").read_text()
    assert not list(tmp_path.glob(".s.*")), "nothing was finished"
    build(tmp_path / "s", wide, dim=5000)
    build(tmp_path / "whole", wide, dim=5000)
    assert content(tmp_path / "s") == content(tmp_path / "whole")


# --- what must not be mixed or trusted --------------------------------------------------------------------------------


def test_a_beginning_without_a_shard_is_in_nobodys_way(tmp_path):
    """What was wrong with the first row has been mended, so that the recipe is another."""

    def wrong(start, stop):
        raise InputError("the gradient of sample 0 is not finite")

    with pytest.raises(InputError, match="not finite"):
        build(tmp_path / "s", wrong, recipe={**RECIPE, "losses": "wrong"})
    assert len(build(tmp_path / "s")) == ROWS


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"recipe": {**RECIPE, "task": {"name": "toy", "seed": 1}}}, r"recipe\.task\.seed = 0 in it, .* = 1 wanted"),
        ({"recipe": {"task": RECIPE["task"]}}, r"no recipe\.checkpoint wanted"),
        ({"ids": [f"s{i}" for i in range(ROWS - 1)]}, "23 ids in it, 22 ids wanted"),
        ({"ids": ["other", *(f"s{i}" for i in range(1, ROWS))]}, r"ids\[0\] = 's0' in it, ids\[0\] = 'other'"),
        ({"dim": DIM + 1}, "dim = 5 in it, dim = 6 wanted"),
        ({"dtype": "float16"}, "dtype"),
    ],
)
def test_another_recipe_is_refused_finished_or_not(tmp_path, change, words):
    build(tmp_path / "s")
    with pytest.raises(StoreError, match=words):
        build(tmp_path / "s", **change)
    os.rename(tmp_path / "s", tmp_path / ".begun.part")
    with pytest.raises(StoreError, match=words):
        build(tmp_path / "begun", **change)


def test_open_checks_the_recipe_it_is_given(tmp_path):
    build(tmp_path / "s")
    assert FeatureStore.open(tmp_path / "s", RECIPE).shape == (ROWS, DIM)
    with pytest.raises(StoreError, match=r"recipe\.checkpoint = 'abc' in it, recipe\.checkpoint = 'abd' wanted"):
        FeatureStore.open(tmp_path / "s", {**RECIPE, "checkpoint": "abd"})
    with pytest.raises(StoreError, match="not a finished feature store"):
        FeatureStore.open(tmp_path / "nowhere")


def test_a_missing_or_truncated_shard_is_named_on_opening(tmp_path):
    shard = sorted(build(tmp_path / "s").path.glob("0*"))[2]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(StoreError, match=rf"{shard.name} has {len(whole) - 1} bytes instead of {len(whole)}"):
        FeatureStore.open(tmp_path / "s")
    shard.unlink()
    with pytest.raises(StoreError, match=f"{shard.name} is missing"):
        build(tmp_path / "s")


@pytest.mark.parametrize("position", [12, -3])
def test_a_flipped_bit_is_named_by_whoever_reads_it(tmp_path, position):
    shard = sorted(build(tmp_path / "s").path.glob("0*"))[2]
    flip_bit(shard, position)
    store = FeatureStore.open(tmp_path / "s")
    np.testing.assert_array_equal(store[:8], rows(0, 8).numpy())
    for read in (lambda: store[8:9], lambda: store[np.array([11])], lambda: store.columns, store.verify):
        with pytest.raises(StoreError, match=f"{shard.name} is damaged"):
            read()


def test_a_damaged_manifest_is_named(tmp_path):
    manifest = build(tmp_path / "s").path / "manifest.json"
    whole = manifest.read_text()
    for damaged in (whole.replace('"s7"', '"s8"'), whole[:-5], whole.replace('"format": 1', '"format": 9'), "[]", "{}"):
        manifest.write_text(damaged)
        with pytest.raises(StoreError, match=r"manifest\.json is damaged|store format (9|None)"):
            FeatureStore.open(tmp_path / "s")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ids": ["a", "b", "a"]}, "'a' occurs more than once"),
        ({"ids": []}, "ids is empty"),
        ({"ids": [0.5, 1.5]}, "all strings or all integers; one is 0.5"),
        ({"ids": np.array(["a", 1], object)}, "all strings or all integers; one is 1"),
        ({"ids": "ab"}, r"ids must be a list of names; their shape is \(\)"),
        ({"dtype": "int8"}, "dtype must be one of"),
        ({"dim": 0}, "at least 1"),
        ({"recipe": {"seed": np.int64(3)}}, r"recipe\.seed"),
        ({"dim": 9}, "should have come with the shapes"),
        ({"columns": ()}, "should have come with the shapes"),
        ({"compute": lambda a, b: compute(a, b)["features"]}, "must come as tensors by name"),
        ({"compute": lambda a, b: compute(a, b - 1)}, "should have come with the shapes"),
    ],
)
def test_bad_arguments_are_named(tmp_path, change, words):
    with pytest.raises(InputError, match=words):
        build(tmp_path / "s", **change)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("value", "dtype", "words"),
    [
        (float("nan"), "float32", "NaN or infinite"),
        (7e4, "float16", "too large for float16"),
        (1e39, "float32", "too large for float32"),
    ],
)
def test_a_row_that_cannot_be_stored_is_named(tmp_path, value, dtype, words):
    def spoiled(start, stop):
        given = {**compute(start, stop), "features": rows(start, stop).double()}
        if start <= 9 < stop:
            given["features"][9 - start, 1] = value
        return given

    with pytest.raises(InputError, match=f"row 9 .id 's9'. .*{words}"):
        build(tmp_path / "s", spoiled, dtype=dtype)


def test_a_row_too_small_for_float16_is_named_and_bfloat16_holds_it(tmp_path):
    def small(start, stop):
        return {**compute(start, stop), "features": rows(start, stop) * 1e-9}

    with pytest.raises(InputError, match=r"row 0 .* too small for float16"):
        build(tmp_path / "s", small, dtype="float16")
    stored = build(tmp_path / "b", small, dtype="bfloat16")[:]
    np.testing.assert_allclose(stored, rows().numpy() * 1e-9, rtol=2**-8)


def test_a_mean_of_stores_with_other_ids_is_refused(tmp_path):
    first, second = build(tmp_path / "a"), build(tmp_path / "b", ids=[f"s{ROWS - i}" for i in range(ROWS)])
    np.testing.assert_allclose(MeanRows([first, first])[:], rows().numpy(), rtol=1e-6)
    with pytest.raises(InputError, match="row 0 is 's0' in one matrix and 's23' in another"):
        MeanRows([first, second])


def test_open_features_opens_a_store(tmp_path):
    build(tmp_path / "s")
    assert isinstance(open_features(tmp_path / "s"), FeatureStore)
    assert tarot.features.store.open_features(str(tmp_path / "s")).shape == (ROWS, DIM)
