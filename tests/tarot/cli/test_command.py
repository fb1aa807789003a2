"""The command `tarot`: what it writes, what it says, and how it ends."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

import tarot
from tarot.cli import choosing, feature_files, main
from tests.tarot.features.test_readers import trak_model
from tests.tarot.features.test_store import build, flip_bit

N, M, D = 40, 6, 5
RNG = np.random.default_rng(0)
POOL = RNG.normal(size=(N, D)).astype(np.float32)
TARGETS = RNG.normal(size=(M, D)).astype(np.float32) + 1


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    np.save("pool.npy", POOL)
    np.save("targets.npy", TARGETS)
    np.save("labels.npy", np.arange(N) % 2)
    np.save("target_labels.npy", np.arange(M) % 2)
    Path("ids.txt").write_text("".join(f"sample-{i}\n" for i in range(N)))
    return tmp_path


def refused(capsys, *arguments: str) -> str:
    """The one line of an error that the user can mend."""
    before = {path.name for path in Path().iterdir()}
    assert main(list(arguments)) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1, err
    assert {path.name for path in Path().iterdir()} == before, "nothing is left behind"
    return err


# --- select ----------------------------------------------------------------------------------------------------------


def test_a_budget_and_quotas_are_options(here, capsys):
    np.save("costs.npy", np.arange(N) % 3 + 1)
    Path("sources.txt").write_text("".join("ab"[i % 2] + "\n" for i in range(N)))
    given = "select pool.npy targets.npy --selector tarot_fixed --costs costs.npy --sources sources.txt -q"
    assert main([*given.split(), "-o", "tokens=20", "-o", "quota=a:0.25", "--out", "s.parquet"]) == 0
    chosen = tarot.Selection.load("s.parquet").indices
    costs = (np.arange(N) % 3 + 1)[chosen]
    assert 17 < costs.sum() <= 20 and costs[chosen % 2 == 0].sum() <= 5
    assert "pairs with commas" in refused(
        capsys, *given.split(), "-o", "tokens=20", "-o", "quota=a", "--out", "t.parquet"
    )


def test_select_is_tarot_select(here, capsys):
    given = "select pool.npy targets.npy --selector tarot_fixed --ratio .25 --ids ids.txt --out s.parquet"
    assert main(given.split()) == 0
    found, expected = tarot.Selection.load("s.parquet"), tarot.select(POOL, TARGETS, "tarot_fixed", ratio=0.25)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.weights, expected.weights)
    assert found.ids.tolist() == [f"sample-{i}" for i in expected.indices]
    out = capsys.readouterr().out
    assert "selected 10 of 40 candidates for 6 targets, weights sum to 40" in out and "written to s.parquet" in out
    assert f"OT distance {expected.ot_distance:.6g}; no 10 candidates go below {expected.lower_bound:.6g}" in out


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ("--selector tarot_otm -o folds=3 -o side=rest --seed 4", {"folds": 3, "side": "rest", "seed": 4}),
        ("--selector less --size 7 --whitening zca --regularization .1 --total 21", {"size": 7, "total": 21}),
        (
            "--selector knn_shapley --size 7 -o k=3 --labels labels.npy --target-labels target_labels.npy",
            {"size": 7, "k": 3},
        ),
        ("--selector el2n --size 7 -o window=0.1,0.9 --scores labels.npy", {"size": 7, "window": (0.1, 0.9)}),
        ("--selector dsdm --size 7 --residuals labels.npy", {"size": 7}),
        ("--selector random --ratio .1 --seed 3", {"ratio": 0.1, "seed": 3}),
    ],
)  # fmt: skip
def test_options_reach_the_selector(here, arguments, options):
    known = {}
    if "--labels" in arguments:
        known = {"candidate_labels": np.arange(N) % 2, "target_labels": np.arange(M) % 2}
    for name in ("scores", "residuals"):
        if f"--{name}" in arguments:
            known[f"candidate_{name}"] = np.arange(N) % 2.0
    if "zca" in arguments:
        known |= {"whitening": "zca", "regularization": 0.1}
    name = arguments.split()[1]
    assert main(["select", "pool.npy", "targets.npy", *arguments.split(), "-q"]) == 0
    found, expected = tarot.Selection.load("selection.parquet"), tarot.select(POOL, TARGETS, name, **known, **options)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.weights, expected.weights)
    assert found.selector == json.loads(json.dumps(expected.selector))


def test_several_models_and_quiet(here, capsys):
    np.save("second,pool.npy", POOL[:, ::-1] ** 2)
    np.save("more.npy", TARGETS[:, ::-1] ** 2)
    os.link("second,pool.npy", "second.npy")
    assert (
        main(
            ["select", "pool.npy,second.npy", "targets.npy,more.npy", "--size", "5", "--selector", "tarot_exact", "-q"]
        )
        == 0
    )
    expected = tarot.select([POOL, POOL[:, ::-1] ** 2], [TARGETS, TARGETS[:, ::-1] ** 2], "tarot_exact", size=5)
    np.testing.assert_array_equal(tarot.Selection.load("selection.parquet").indices, expected.indices)
    assert main(["select", "second,pool.npy", "more.npy", "-q"]) == 0, "a comma in the name of one file"
    assert capsys.readouterr().out == "" and "TAROT_PROGRESS" not in os.environ


def test_the_ids_of_a_store_are_kept_and_what_is_converted_keeps_them(here):
    store = build(here / "store")
    np.save("wanted.npy", store[:3])
    assert main(["convert", "store", "a.parquet"]) == main(["convert", "a.parquet", "back"]) == 0
    for pool in ("store", "a.parquet", "back"):
        assert main(["select", pool, "wanted.npy", "--selector", "tarot_fixed", "--size", "4"]) == 0
        selection = tarot.Selection.load("selection.parquet")
        assert selection.ids.tolist() == [f"s{i}" for i in selection.indices], pool
    assert main(["value", "a.parquet", "wanted.npy", "--method", "tracin"]) == 0
    assert pq.read_table("values.parquet")["id"].to_pylist() == store.ids.tolist()


# --- value -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("out", ["v.npy", "v.parquet"])
def test_value_is_tarot_value(here, capsys, out):
    given = "value pool.npy targets.npy --method lava --labels labels.npy --target-labels target_labels.npy --out"
    assert main([*given.split(), out, "--ids", "ids.txt"]) == 0
    expected = tarot.value(POOL, TARGETS, "lava", candidate_labels=np.arange(N) % 2, target_labels=np.arange(M) % 2)
    if out == "v.npy":
        found = np.load(out)
    else:
        table = pq.read_table(out)
        found = table["value"].to_numpy()
        assert table["id"].to_pylist()[3] == "sample-3" and table["index"].to_pylist() == list(range(N))
    np.testing.assert_array_equal(found, expected)
    assert f"sample-{expected.argmax()}" in capsys.readouterr().out
    assert main(["inspect", out, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["kind"], facts["candidates"], facts["highest"]) == ("values", N, expected.max())
    assert main([*given.split(), out, "-q"]) == 0, "what it wrote it may write again"


# --- inspect, verify -------------------------------------------------------------------------------------------------


def test_inspect_tells_what_is_there(here, capsys):
    build(here / "store", notes={"excluded_parameters": {"head": "frozen"}})
    main(["select", "pool.npy", "targets.npy", "--selector", "random", "--size", "4", "-q"])
    for path, words in {
        "store": ["rows 23", "dim 5", "dtype float32", "columns residual", "ids s0, s1, s2, ...",
                  "recipe.task.name toy", "notes.excluded_parameters.head frozen"],
        "pool.npy": ["kind features", "rows 40", "dim 5", "dtype float32"],
        "selection.parquet": ["kind selection", "selected 4", "candidates 40", "targets 6", "selector.class Random"],
    }.items():  # fmt: skip
        assert main(["inspect", path]) == 0
        lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
        assert not set(words) - set(lines), lines
    assert main(["inspect", "store", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["recipe"] == {"task": {"name": "toy", "seed": 0}, "checkpoint": "abc"} and facts["shards"] == 6


def test_verify_names_every_damaged_shard(here, capsys):
    build(here / "store"), build(here / "other")
    assert main(["verify", "store", "other"]) == 0
    assert "store: 23 rows in 6 shards are whole" in capsys.readouterr().out
    shards = sorted((here / "store").glob("*.safetensors"))
    flip_bit(shards[1])
    shards[3].write_bytes(b"short")
    shards[4].unlink()
    assert main(["verify", "store", "other", "--quiet"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 3 and shards[1].name in out[0] and "its bits differ" in out[0]
    assert f"{shards[3].name} has 5 bytes" in out[1] and f"{shards[4].name} is missing" in out[2]


# --- convert ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "through", [["a.safetensors", "b.parquet", "c", "d.npy"], ["a", "b.safetensors", "c.npy", "d"]]
)
def test_there_and_back_again(here, through):
    last = "pool.npy"
    for out in through:
        assert main(["convert", last, out]) == 0
        np.testing.assert_array_equal(tarot.blocks(tarot.open_features(out)).__next__()[1], POOL)
        last = out
    assert not list(here.glob(".*.part"))


def test_names_and_columns_go_along(here):
    store = build(here / "store")
    for path in ("a.parquet", "half", "a.safetensors"):
        assert main(["convert", "store", path, *(["--dtype", "float16"] if path == "half" else [])]) == 0
    table = pq.read_table("a.parquet")
    assert table["id"].to_pylist() == store.ids.tolist()
    np.testing.assert_array_equal(table["residual"].to_numpy(), store.columns["residual"])
    half = tarot.FeatureStore.open("half")
    assert half.dtype == np.float16 and half.ids.tolist() == store.ids.tolist()
    np.testing.assert_array_equal(half[:], store[:].astype(np.float16))
    np.testing.assert_array_equal(half.columns["residual"], store.columns["residual"])


def test_other_stores_are_read(here):
    trak_model(here / "run" / "0")
    assert main(["convert", "run", "grads"]) == 0
    assert tarot.FeatureStore.open("grads").dtype == np.float16
    save_file({"a": torch.from_numpy(POOL), "b": torch.from_numpy(POOL).bfloat16()}, "two.safetensors")
    assert main(["inspect", "two.safetensors", "--tensor", "b"]) == 0
    assert main(["convert", "two.safetensors", "b.npy", "--tensor", "b", "--dtype", "float32"]) == 0
    np.testing.assert_array_equal(np.load("b.npy"), torch.from_numpy(POOL).bfloat16().float())


# --- how it ends -----------------------------------------------------------------------------------------------------

SELECT = ["select", "pool.npy", "targets.npy"]
TOKENS = [*SELECT, "--selector", "tarot_fixed", "-o"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["select", "nowhere.npy", "targets.npy"], "POOL: there is no nowhere.npy"),
        (["select", "pool.npy,pool.npy", "targets.npy"], "POOL has 2 files and TARGETS 1"),
        (["select", "", "targets.npy"], "POOL must name a file; it is ''"),
        (["select", "pool.npy", "ids.txt"], "features are read from .npy"),
        (["select", "pool.npy", "labels.npy"], "two dimensions"),
        ([*SELECT, "--selector", "nearest"], "there is no selector 'nearest'; there are all, batchwise_lava"),
        ([*SELECT, "--size", "4"], "selector 'tarot_otm' has no option 'size'; its options are: folds, side"),
        ([*SELECT, "--ratio", ".1"], "min_cos, judge, tokens; it finds its own size, and tarot_fixed takes yours"),
        (
            [*SELECT, "--tensor", "features"],
            "--tensor features: tensors have names in .safetensors, .pt, .pth, .npz alone",
        ),
        ([*SELECT, "-o", "folds"], "NAME=VALUE; this is 'folds'"),
        ([*SELECT, "-o", "folds=many"], "folds must be an integer; it is 'many'"),
        ([*SELECT, "-o", "side=left"], "side must be rest or fold; it is 'left'"),
        ([*SELECT, "--selector", "tarot_fixed"], "give either size or ratio, not neither"),
        ([*SELECT, "--selector", "tarot_fixed", "--size", "41"], "size must be between 1 and"),
        ([*SELECT, "--selector", "tarot_fixed", "--ratio", "some"], "ratio must be a number or null; it is 'some'"),
        ([*SELECT, "--selector", "el2n", "--size", "4", "-o", "window=.5"], "window must be 2 numbers with commas"),
        ([*SELECT, "--selector", "lava", "--size", "4"], "needs candidate_labels"),
        ([*SELECT, "--ids", "targets.npy"], "--ids must be a vector of 40 values"),
        ([*SELECT, "--residuals", "ids.txt"], "--candidate-residuals: ids.txt must hold numbers; row 0 is 'sample-0'"),
        ([*SELECT, "--groups", "pool.npy"], "--target-groups must be a vector of 6 values"),
        ([*SELECT, "--learning-rates", "x"], "--learning-rates must be numbers"),
        ([*SELECT, "--out", "s.csv"], "--out must end in .parquet; it is s.csv"),
        (["value", "pool.npy", "targets.npy", "--method", "random"], "gives candidates no values; these do: "),
        (
            ["value", "pool.npy", "targets.npy", "--method", "less", "-o", "size=3"],
            "size says how much is selected, and every candidate is valued; leave it out",
        ),
        ([*SELECT, "--labels", "folder"], "--candidate-labels: folder is a folder, not a file"),
        ([*SELECT, "--out", "pool.npy/s.parquet"], "pool.npy is a file, where a folder is needed"),
        ([*SELECT, "--out", "features.parquet"], "features.parquet is there, and no selection nor values"),
        (["select", "features.parquet", "targets.npy", "--out", "features.parquet"], "is read by this command"),
        (
            ["value", "pool.npy", "targets.npy", "--method", "less", "--out", "./pool.npy"],
            "--out: pool.npy is read by this command, which would write over it",
        ),
        (
            ["value", "pool.npy", "targets.npy", "--method", "less", "--out", "labels.npy"],
            "labels.npy is there, and no selection nor values",
        ),
        ([*TOKENS, "quota=a"], "quota must be NAME:NUMBER pairs with commas between them, each name once"),
        ([*TOKENS, "quota=a:.5,a:.4"], "each name once or null; it is 'a:.5,a:.4'"),
        ([*TOKENS, "cap=0"], "cap must be NAME:NUMBER pairs"),
        ([*TOKENS, "size=1000000000000000000000"], "size must be smaller than 2^53"),
        (["inspect", "nowhere"], "STORE: there is no nowhere"),
        (["inspect", ""], "STORE must name a file; it is ''"),
        (["convert", "pool.npy", ""], "OUT must name a file or a folder; it is ''"),
        (["convert", "pool.npy", "pool.npy/x.npy"], "pool.npy is a file, where a folder is needed"),
        (["convert", "pool.npy", "pool.npy/x"], "pool.npy is a file, where a folder is needed"),
        (["verify", "pool.npy"], "not a finished feature store"),
        (["convert", "pool.npy", "targets.npy"], "OUT: targets.npy exists"),
        (["convert", "pool.npy", "x.npy", "--tensor", "features"], "pool.npy has no tensor 'features'"),
        (["convert", "pool.npy", "x.csv"], "OUT must end in .npy, .safetensors or .parquet"),
        (["convert", "pool.npy", "x.npy", "--dtype", "bfloat16"], "cannot hold bfloat16"),
    ],
)
def test_what_is_wrong_is_one_line(here, capsys, arguments, words):
    (here / "folder").mkdir()
    pq.write_table(pa.table({"features": list(POOL)}), "features.parquet")
    before = {path: path.read_bytes() for path in here.iterdir() if path.is_file()}
    assert words in refused(capsys, *arguments)
    assert {path: path.read_bytes() for path in before} == before, "nothing is written over"


@pytest.mark.parametrize("out", ["x.npy", "x.safetensors", "x.parquet", "x"])
def test_numbers_that_cannot_be_written_are_named_and_nothing_is_left(here, capsys, out):
    wrong = np.tile(POOL, (110, 1))  # a store of two shards
    wrong[4200, 2] = 1e6
    np.save("large.npy", wrong)
    said = refused(capsys, "convert", "large.npy", out, "--dtype", "float16")
    assert "row 4200" in said and "is too large for float16" in said
    wrong[4200, 2] = np.nan
    np.save("missing.npy", wrong)
    assert "missing.npy row 4200 column 2 is nan" in refused(capsys, "convert", "missing.npy", out)


@pytest.mark.parametrize(
    "arguments",
    [
        "select pool.npy targets.npy --selector random --size 3 --out /proc/x.parquet",
        "value pool.npy targets.npy --method tracin --out /proc/x.parquet",
        "convert pool.npy /proc/x.npy",
        "convert pool.npy /proc/x.safetensors",
        "convert pool.npy /proc/x.parquet",
        "convert pool.npy /proc/x",
    ],
)
def test_where_nothing_can_be_written_the_name_that_was_given_is_said(here, capsys, arguments):
    said = refused(capsys, *arguments.split())
    assert arguments.split()[-1] in said and ".part" not in said and ".lock" not in said


def test_what_a_failed_conversion_keeps_is_said(here, capsys):
    """An interrupt: the same command goes on from the shards that are finished."""
    np.save("large.npy", np.tile(POOL, (110, 1)))
    read = feature_files.read_block

    def interrupted(rows, start, *rest):
        if start:
            raise KeyboardInterrupt
        return read(rows, start, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_files, "read_block", interrupted)
        assert main(["convert", "large.npy", "x"]) == 130
    assert "x is not finished; what is finished of it stays in .x.part" in capsys.readouterr().err
    assert len(list(here.glob(".x.part/*.safetensors"))) == 1
    assert main(["convert", "large.npy", "x"]) == 0 and not list(here.glob(".x.part"))


def test_an_interrupt_leaves_nothing_behind(here, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(choosing, "select", interrupted)
    assert main(SELECT) == 130
    assert capsys.readouterr().err == "\ninterrupted: nothing was written half\n"
    assert not Path("selection.parquet").exists()


def test_warnings_are_lines(here, capsys):
    targets = TARGETS.copy()
    targets[2] = 0
    np.save("targets.npy", targets)
    assert main([*SELECT, "--selector", "tarot_fixed", "--size", "4"]) == 0
    assert "warning: 1 of 6 targets have zero features and are left out\n" in capsys.readouterr().err


def test_a_size_is_no_option_of_value(here, capsys):
    for option in ("--size", "--ratio"):
        with pytest.raises(SystemExit, match=r"^2$"):
            main(["value", "pool.npy", "targets.npy", "--method", "less", option, "1"])
        assert f"unrecognized arguments: {option} 1" in capsys.readouterr().err


def test_a_method_that_does_without_says_so(here, capsys):
    assert main([*SELECT, "--selector", "dsdm", "--size", "4"]) == 0
    assert "warning: DsDm was given no candidate_residuals and weighs all candidates alike, Q = 1" in (
        capsys.readouterr().err
    )


def test_as_a_process(here):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-m", "tarot", *SELECT, "--selector", "tarot_fixed", "--ratio", ".1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "" and len(tarot.Selection.load("selection.parquet")) == 4


def test_as_a_module_that_fails(here, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tarot", "inspect", "nowhere"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("tarot", run_name="__main__")
    assert (ended.value.code, *capsys.readouterr()) == (1, "", "error: STORE: there is no nowhere\n")


def test_it_says_its_version(capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--version"])
    assert capsys.readouterr().out == f"tarot {tarot.__version__}\n"
