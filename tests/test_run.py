"""`python run.py`: what a command writes, what it reuses, and how it stops."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from experiments.report.style import Figure
from tarot import Selection
from tasks.classification.task import ClassificationTask
from tests.experiments.running import ROOT, SMALL, Outcome, changed, command, places, started


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def first(folder: Path) -> Outcome:
    return command(folder, *SMALL, "experiment.arms=[random]", name="first", drawn=("overview",))


def files(path: Path) -> dict[str, int]:
    """Every file below, and when it was written."""
    return {str(file.relative_to(path)): file.stat().st_mtime_ns for file in path.rglob("*") if file.is_file()}


def made(path: Path) -> dict[str, int]:
    return {name: time for name, time in files(path).items() if not name.endswith(".lock")}


# --- what a run leaves -----------------------------------------------------------------------------------------------


def test_metrics_have_every_promised_key(first):
    metrics = first.metrics
    assert next(iter(metrics["metrics"])) == "accuracy" and 0 <= metrics["metrics"]["accuracy"] <= 1
    assert set(metrics["selection"]) == {"size", "ratio", "ot_distance", "lower_bound", "space", "made_in", "precision"}
    assert {"dim", "excluded_parameters", "zero_gradients", "skipped"} <= set(metrics["features"])
    assert {"checkpoints", "features", "select", "train", "evaluate"} <= set(metrics["seconds"])
    assert len(metrics["fingerprint"]) == 16
    assert metrics["arms"]["random"]["selection"]["size"] == metrics["selection"]["size"]
    facts = metrics["selection"]
    assert facts["ratio"] == facts["size"] / 60 and facts["lower_bound"] <= facts["ot_distance"] + 1e-9


def test_output_is_complete(first):
    names = {name.split("/")[0] for name in files(first.output) if not name.startswith(".")}
    assert names == {
        *("config.yaml", "selection.parquet", "scores.parquet", "metrics.json", "figures", "report.html", "run.log")
    }
    selection = Selection.load(first.output / "selection.parquet")
    assert len(selection) == first.metrics["selection"]["size"] and selection.weights.sum() == 60
    config = yaml.safe_load((first.output / "config.yaml").read_text())
    assert {"seed", "device", "data_dir", "cache_dir", "task", "selector", "features", "experiment", "logger"} <= set(
        config
    )
    assert "${" not in yaml.safe_dump(config), "the config is written resolved"
    page = (first.output / "report.html").read_text()
    assert 'src="data:image/png' in page and 'src="http' not in page and "{{" not in page


def test_a_second_run_reuses_every_stage(first, folder, monkeypatch):
    before = made(folder / "cache")

    def forbidden(*args, **kwargs):
        raise AssertionError("a cached stage was computed again")

    for name in ("fit", "losses", "evaluate"):
        monkeypatch.setattr(ClassificationTask, name, forbidden)
    monkeypatch.setattr("tarot.select", forbidden)
    again = command(folder, *SMALL, "experiment.arms=[random]", name="again")
    assert made(folder / "cache") == before
    unlike = {"seconds", "run"}
    assert {k: v for k, v in again.metrics.items() if k not in unlike} == {
        k: v for k, v in first.metrics.items() if k not in unlike
    }
    tables = [pq.read_table(outcome.output / "selection.parquet") for outcome in (first, again)]
    assert tables[0].equals(tables[1])


# What matters to which stage. A stage that is made anew leaves a new file in its folder of the cache.
CHANGES = {
    "selector.seed=5": {"selections"},
    "features.projection_seed=9": {"features", "selections"},
    "features.whitening=local": {"selections"},
    "features.whitening=local features.regularization=0.01": {"selections"},
    "features.dtype=float16": {"features", "selections"},
    "features.batch_size=7": set(),
    "experiment.tsne_points=20": set(),
    "task.train.merge_targets=max": {"models", "metrics"},
    "task.surrogate.runs=2": {"checkpoints", "features", "selections"},
    "seed=1": {"checkpoints", "features", "selections", "models", "metrics"},
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_matters_is_made_anew_and_nothing_else(first, folder, change):
    before = set(made(folder / "cache"))
    options = changed(SMALL, *change.split(), "experiment.arms=[]")
    assert command(folder, *options, name=change.replace("=", "_")).code == 0
    new = {name.split("/")[0] for name in set(made(folder / "cache")) - before}
    chosen = {"scores"} if "selections" in CHANGES[change] else set()
    depends = {"models", "metrics"} if chosen else set()  # where the choice came out otherwise
    assert CHANGES[change] | chosen <= new <= CHANGES[change] | chosen | depends


# --- the user's own features -----------------------------------------------------------------------------------------


def test_features_from_files(folder):
    rng = np.random.default_rng(0)
    candidates, targets = rng.normal(size=(40, 6)), rng.normal(size=(5, 6)) + 1
    candidates[3] = 0
    np.save(folder / "c.npy", candidates)
    np.save(folder / "t.npy", targets)
    given = ["task=features", f"task.candidates={folder / 'c.npy'}", f"task.targets={folder / 't.npy'}"]
    outcome = command(folder, *given, "selector=tarot_fixed", "selector.ratio=0.25", name="features", drawn="light")
    metrics = outcome.metrics
    assert metrics["selection"]["size"] == 10 and metrics["metrics"] == {}
    assert metrics["features"]["zero_gradients"] == {"candidates": 1, "targets": 0}
    assert "1 of 40 candidates are zero" in outcome.out
    assert 3 not in Selection.load(outcome.output / "selection.parquet").indices
    assert (outcome.output / "report.html").exists() and not list((folder / "cache").glob("models/features*"))


# --- sweeps ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("sweep")
    what = ["selector=random,tarot_otm,all,target_only", "selector.ratio=.1,.2", "seed=0,1"]
    return command(folder, "-m", *SMALL, "experiment.trainings=1", *what, name="sweep")


def test_a_sweep_computes_features_once(sweep):
    assert sweep.code == 0, sweep.err
    assert len(list(sweep.output.glob("*/metrics.json"))) == 16
    stores = sorted(path.name for path in (sweep.output.parent / "cache" / "features").glob("digits-*"))
    assert len(stores) == 4, "one store for each seed and split"


def test_a_sweep_ends_in_a_comparison(sweep):
    rows = (sweep.output / "comparison.csv").read_text().splitlines()
    names = {row.split(",accuracy")[0].split(",2,")[0].strip('"') for row in rows[1:]}
    assert names == {"random, ratio 0.1", "random, ratio 0.2", "tarot_otm", "all", "target_only"}
    page = (sweep.output / "comparison.html").read_text()
    assert "Accuracy by size of the selection" in page and page.count("data:image/png") == 2
    assert "comparison.html" in sweep.out


def test_arms_without_a_size_say_so_and_go_on(sweep):
    assert "tarot_otm chooses its own size: selector.ratio=0.1 does not apply" in sweep.out
    found = [json.loads(path.read_text()) for path in sweep.output.glob("*/metrics.json")]
    sizes = {
        name: {run["selection"]["size"] for run in found if run["run"]["selector"] == name}
        for name in ("all", "target_only", "random")
    }
    assert sizes == {"all": {60}, "target_only": {0}, "random": {6, 12}}
    assert not any("arms" in run and run["arms"] for run in found), "a sweep has its own arms"


def test_a_sweep_goes_on_after_a_job_that_fails(tmp_path):
    outcome = command(tmp_path, "-m", *SMALL, "experiment.trainings=1", "selector=random", "selector.size=61,6")
    assert outcome.code == 1 and "a job of the sweep failed: size must be between 1" in outcome.err
    assert "Traceback" not in outcome.err and "job 0 failed" in outcome.err
    assert [path.parent.name for path in outcome.output.glob("*/metrics.json")] == ["1"]


# --- other processes -------------------------------------------------------------------------------------------------


def spawn(folder: Path, *arguments: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    command = [sys.executable, str(ROOT / "run.py"), *arguments, *places(folder, "run")]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(pattern: str, folder: Path, ended: Callable[[], int | None], seconds: float = 300) -> None:
    """ended: the exit code of the process that makes such a file, once it has one."""
    until = time.monotonic() + seconds
    while not list(folder.glob(pattern)):
        assert ended() is None, [path.read_text() for path in folder.glob("*.err")]
        assert time.monotonic() < until, f"no {pattern}"
        time.sleep(0.01)


LONG = [*SMALL, "experiment.trainings=200", "experiment.arms=[]"]


@pytest.fixture
def heeds_interrupts() -> Iterator[None]:
    """Shells start what runs in the background with SIGINT ignored, and processes inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.usefixtures("heeds_interrupts")
def test_what_was_stopped_goes_on(tmp_path, how):
    process = started(tmp_path, *LONG)
    wait_for("cache/models/*.safetensors", tmp_path, lambda: process.exitcode)
    os.kill(process.pid, how)
    process.join(timeout=300)
    if how == signal.SIGINT:
        assert process.exitcode == 130
        err = (tmp_path / "run.err").read_text()
        assert err.strip().splitlines()[-1].startswith("interrupted") and "Traceback" not in err
    else:
        assert process.exitcode == -how
    kept = {name: stamp for name, stamp in made(tmp_path / "cache").items() if not name.endswith(".part")}
    assert any(name.startswith("models/") for name in kept) and not (tmp_path / "run" / "metrics.json").exists()
    outcome = command(tmp_path, *[o for o in LONG if "trainings" not in o], "experiment.trainings=3")
    assert outcome.metrics["selection"]["size"] > 0
    after = made(tmp_path / "cache")
    assert all(after[name] == stamp for name, stamp in kept.items()), "finished work was done again"


@pytest.mark.slow
def test_joblib_workers_share_what_they_make(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs hydra-joblib-launcher")
    process = spawn(
        tmp_path, "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", *SMALL, "selector=random,tarot_fixed"
    )  # fmt: skip
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    metrics = [json.loads(path.read_text()) for path in tmp_path.glob("run/*/metrics.json")]
    assert sorted(run["run"]["selector"] for run in metrics) == ["random", "tarot_fixed"]
    stores = sorted(path.name.rsplit("-", 1)[0] for path in (tmp_path / "cache" / "features").glob("digits-*"))
    assert stores == ["digits-candidates", "digits-targets"], "both wanted one store of each split"
    assert (tmp_path / "run" / "comparison.csv").read_text().count("\n") == 3


@contextlib.contextmanager
def nowhere(home: Path) -> Iterator[None]:
    """W&B without a key or a server, in a process that ends within it, and figures of one pixel, which are logged as
    others are and drawn in no time."""
    import wandb

    pixel = io.BytesIO()
    Image.new("RGB", (1, 1)).save(pixel, "png")
    offline = {"WANDB_API_KEY": "", "WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_MODE": "offline", "HOME": str(home)}
    with mock.patch.dict(os.environ, offline), mock.patch.object(Figure, "png", lambda *_: pixel.getvalue()):
        try:
            yield
        finally:
            wandb.teardown()


ONE = ["selector=tarot_fixed"]
TWO = ["-m", "selector=random,tarot_fixed"]


@pytest.mark.parametrize("jobs", [ONE, pytest.param(TWO, marks=pytest.mark.slow)], ids=["run", "sweep"])
def test_wandb_writes_offline(tmp_path, jobs):
    pytest.importorskip("wandb", reason="needs wandb")
    what = ["logger=wandb", "experiment.trainings=1", "experiment.arms=[]"]
    process = started(tmp_path, *jobs, *SMALL, *what, around=functools.partial(nowhere, tmp_path))
    process.join(timeout=300)
    assert process.exitcode == 0, (tmp_path / "run.out").read_text() + (tmp_path / "run.err").read_text()
    records = list(tmp_path.glob("run/**/wandb/offline-run-*/run-*.wandb"))
    assert len(records) == (2 if jobs is TWO else 1)
    for record in records:
        kept = record.read_bytes()
        for written in (b"accuracy", b"selection", b"figures/overview", b"table-file", b"image-file", b"run"):
            assert written in kept, written
        media = {path.suffix for path in (record.parent / "files" / "media").rglob("*") if path.is_file()}
        assert media == {".png", ".json"}


def test_help_reads_well():
    process = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), "--help"],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert "python run.py task=digits selector=tarot_fixed" in process.stdout
    assert "selector: all, batchwise_lava, bids" in process.stdout and "_target_" not in process.stdout
    assert "seed=0 " in process.stdout and process.stderr == ""
