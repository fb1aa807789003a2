"""Who waits says for whom, and what killed writers leave behind goes."""

from __future__ import annotations

import logging
import multiprocessing
import os
import socket
import time
from pathlib import Path

import pytest

from tarot.common import atomic_directory, atomic_file, files, locked, locks, remove_abandoned

CONTEXT = multiprocessing.get_context("fork")


def hold(path: Path, ready: multiprocessing.Event, seconds: float) -> None:
    with locked(path):
        ready.set()
        time.sleep(seconds)
        path.write_text("made")


def test_a_waiter_says_for_whom_it_waits(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    path, ready = tmp_path / "x.json", CONTEXT.Event()
    other = CONTEXT.Process(target=hold, args=(path, ready, 1.0))
    other.start()
    assert ready.wait(30)
    with caplog.at_level(logging.INFO), locked(path):
        assert path.read_text() == "made"
    other.join()
    assert caplog.messages == [f"waiting for process {other.pid} on {socket.gethostname()}, which makes {path}"]


def test_nobody_waits_for_the_dead_or_says_so(tmp_path, caplog):
    path, ready = tmp_path / "x.json", CONTEXT.Event()
    other = CONTEXT.Process(target=hold, args=(path, ready, 60.0))
    other.start()
    assert ready.wait(30)
    other.kill()
    other.join()
    with caplog.at_level(logging.INFO), locked(path):
        pass
    assert caplog.messages == []


def die_writing(folder: Path, ready: multiprocessing.Event) -> None:
    with atomic_file(folder / "models" / "a.json") as file, atomic_directory(folder / "tokenizers" / "b") as inner:
        file.write_text("half")
        (inner / "half").write_text("half")
        ready.set()
        time.sleep(60)


def test_what_the_dead_were_writing_goes_and_what_the_living_write_stays(tmp_path):
    ready = CONTEXT.Event()
    other = CONTEXT.Process(target=die_writing, args=(tmp_path, ready))
    other.start()
    assert ready.wait(30)
    assert remove_abandoned(tmp_path) == [], "it is alive"
    other.kill()
    other.join()
    building = tmp_path / "features" / ".store.part"  # finished shards are in it
    building.mkdir(parents=True)
    with atomic_file(tmp_path / "models" / "mine.json") as mine:
        mine.write_text("half")
        removed = remove_abandoned(tmp_path)
        assert mine.exists()
    assert sorted(path.parent.name for path in removed) == ["models", "tokenizers"]
    assert [path.name for path in tmp_path.rglob("*.part")] == [building.name]
    assert (tmp_path / "models" / "mine.json").read_text() == "half"


@pytest.mark.parametrize("process", [4 * 2**20, 2**31, 10**30])
def test_what_no_process_of_any_number_writes_goes(tmp_path, process):
    path = tmp_path / f".a.json.{process}@{socket.gethostname()}.01234567.part"
    path.write_text("half")
    assert remove_abandoned(tmp_path) == [path]


@pytest.mark.parametrize(("age", "left"), [(0, True), (2 * files.ABANDONED, False)])
def test_what_another_machine_was_writing_goes_by_age(tmp_path, age, left):
    path = tmp_path / ".a.json.1@elsewhere.01234567.part"
    path.write_text("half")
    then = time.time() - age
    os.utime(path, (then, then))
    remove_abandoned(tmp_path)
    assert path.exists() == left
