"""Folders of runs: one each, and nothing in one of them that its run did not write."""

from __future__ import annotations

import json
import multiprocessing
import signal
import socket
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from experiments.command.resolvers import register_resolvers
from experiments.frame.outputs import DONE, RECORD, Outputs, clear
from tests.experiments.running import SMALL, command

CLAIMED = "output_dir=${claimed:same/second}"  # what the default is, for runs that start in the same second
FEW = (*SMALL, "experiment.trainings=1", "experiment.arms=[]", "selector=random")


def claim(folder: str, queue: multiprocessing.Queue) -> None:
    register_resolvers()
    queue.put(OmegaConf.create({"output_dir": f"${{claimed:{folder}}}"}).output_dir)


def test_processes_that_want_one_folder_get_one_each(tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    several = [context.Process(target=claim, args=(str(tmp_path / "a" / "b"), queue)) for _ in range(8)]
    for process in several:
        process.start()
    found = {queue.get(timeout=300) for _ in several}
    assert found == {str(tmp_path / "a" / name) for name in ("b", *(f"b_{i}" for i in range(2, 9)))}


def test_a_folder_is_claimed_once_in_a_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    register_resolvers()
    config = OmegaConf.create({"output_dir": "${claimed:one}", "same": "${output_dir}"})
    assert config.output_dir == config.same == "one" and [path.name for path in tmp_path.iterdir()] == ["one"]


def test_runs_and_sweeps_of_the_same_second_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for size in (5, 6):
        assert command(tmp_path, *FEW, f"selector.size={size}", CLAIMED, placed=False).code == 0
    for sizes in ("5,6", "7"):
        assert command(tmp_path, "-m", *FEW, f"selector.size={sizes}", CLAIMED, placed=False).code == 0
    sizes = {
        path.parent.relative_to(tmp_path / "same").as_posix(): json.loads(path.read_text())["selection"]["size"]
        for path in tmp_path.glob("same/**/metrics.json")
    }
    assert sizes == {
        "second": 5, "second_2": 6, "second_3/0": 5, "second_3/1": 6, "second_4/0": 7,
    }  # fmt: skip


# --- a folder that is used again -------------------------------------------------------------------------------------


def test_the_sign_of_a_finished_run_goes_first_and_what_is_not_ours_stays(tmp_path):
    first = Outputs(tmp_path)
    for name in ("figures/old.png", "selection.parquet", "values/a.parquet", DONE):
        with first.file(name) as temporary:
            temporary.write_text("first")
    for name in ("notes.txt", "figures/mine.png"):
        (tmp_path / name).write_text("mine")
    again = Outputs(tmp_path)
    with pytest.raises(KeyboardInterrupt), again.file("selection.parquet"):  # killed as soon as it publishes
        assert not (tmp_path / DONE).exists()
        raise KeyboardInterrupt
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"notes.txt", "figures/mine.png", RECORD}


def test_a_record_that_is_damaged_or_names_files_elsewhere_deletes_nothing(tmp_path):
    folder = tmp_path / "run"
    (folder / "figures").mkdir(parents=True)
    outside, inside = tmp_path / "precious.txt", folder / "figures" / "a.png"
    for path in (outside, inside):
        path.write_text("kept")
    for record in ('["../precious.txt", "figures/../../precious.txt"]', f'["{outside}"]', "[", '{"a": 1}', "[1, null]"):
        (folder / RECORD).write_text(record)
        clear(folder)
        assert outside.exists() and inside.exists()


def test_a_run_does_not_keep_figures_of_another_and_uploads_none(tmp_path):
    first = command(tmp_path, *SMALL, "experiment.trainings=1", "experiment.arms=[]", "selector=tarot_fixed")
    (first.output / "figures" / "mine.png").write_bytes(b"mine")
    before = {path.name for path in first.output.glob("figures/*")}
    again = command(tmp_path, *FEW, "experiment.tsne_points=0", "selector=target_only")
    names = {path.name for path in again.output.glob("figures/*")}
    assert "mine.png" in names and before - names, "figures of the first run are still there"
    recorded = json.loads((again.output / RECORD).read_text())
    assert names - {"mine.png"} == {name.split("/")[1] for name in recorded if name.startswith("figures/")}


def test_a_sweep_in_a_used_folder_compares_its_own_runs(tmp_path):
    command(tmp_path, "-m", *FEW, "selector.size=5,6", name="sweep")
    again = command(tmp_path, "-m", *FEW, "selector.size=8", name="sweep")
    rows = (again.output / "comparison.csv").read_text().splitlines()
    assert len(rows) == 2 and [path.parent.name for path in again.output.glob("*/metrics.json")] == ["0"]


def hold(folder: Path, ready: multiprocessing.Event, done: multiprocessing.Event) -> None:
    with Outputs(folder).held():
        ready.set()
        done.wait(300)


def test_two_runs_do_not_write_to_one_folder_at_the_same_time(tmp_path):
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path / "run", ready, done))
    other.start()
    assert ready.wait(300)
    outcome = command(tmp_path, *FEW)
    done.set()
    other.join()
    assert outcome.code == 1
    assert f"is being written to by process {other.pid} on {socket.gethostname()}" in outcome.err
    assert command(tmp_path, *FEW).code == 0


def test_a_killed_run_leaves_a_folder_that_can_be_used(tmp_path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    other = context.Process(target=hold, args=(tmp_path / "run", ready, context.Event()))
    other.start()
    assert ready.wait(300)
    other.kill()
    other.join()
    assert other.exitcode == -signal.SIGKILL and command(tmp_path, *FEW).code == 0


# --- names -----------------------------------------------------------------------------------------------------------


def test_half_a_character_is_refused_before_any_work(tmp_path):
    outcome = command(tmp_path, *FEW, "task.name='a\udc80b'")
    assert outcome.code == 1 and "error: task.name must be a word" in outcome.err and "Traceback" not in outcome.err
    assert not list(tmp_path.glob("cache/*"))


@pytest.mark.parametrize("what", ["ids", "candidate_tags"])
def test_half_a_character_in_the_data_is_refused_by_place(tmp_path, monkeypatch, what):
    from tasks.classification.digits import Digits

    asked = getattr(Digits, what)

    def renamed(self, *arguments):
        names = asked(self, *arguments)
        return [f"{name}\ud83d" for name in names] if what == "ids" else names.astype("U99") + "\ud83d"

    monkeypatch.setattr(Digits, what, renamed)
    outcome = command(tmp_path, *FEW)
    assert outcome.code == 1 and "of the candidates" in outcome.err and "lone surrogate" in outcome.err
    assert not list(tmp_path.glob("cache/*"))
