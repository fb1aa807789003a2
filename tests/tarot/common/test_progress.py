"""Progress without a terminal: lines in the log, at times of our own."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from tarot.common import progress_bars
from tarot.common.progress_bars import part_of_progress, progress


@pytest.fixture
def clock(monkeypatch, caplog):
    """The seconds that have gone by, which a test sets."""
    monkeypatch.delenv("TAROT_PROGRESS", raising=False)
    caplog.set_level(logging.INFO, "tarot")
    now = [0.0]
    monkeypatch.setattr(progress_bars, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_a_line_every_half_minute(clock, caplog):
    with progress("gradients", 1000) as advance:
        for _ in range(100):
            clock[0] += 1
            advance(10)
    assert caplog.messages == [
        "gradients: 30 of 1,000 rows, 10 rows/s, about 2 min left",
        "gradients: 330 of 1,000 rows, 10 rows/s, about 67 s left",
        "gradients: 630 of 1,000 rows, 10 rows/s, about 37 s left",
        "gradients: 930 of 1,000 rows, 10 rows/s, about 7 s left",
    ]


def test_what_is_short_is_not_said(clock, caplog):
    with progress("gradients", 1000) as advance:
        for _ in range(100):
            clock[0] += 0.25
            advance(10)
    assert caplog.messages == []


def test_a_part_says_how_far_the_whole_is(clock, caplog):
    """After 3 of 100 steps of the first of 4 models, a step a minute: 97 minutes, and 397 of all."""
    with progress("trainings", 4, "models") as outer, progress("training", 100, "steps") as advance:
        for _ in range(3):
            clock[0] += 60
            advance(1)
        outer(1)
    assert caplog.messages[-1] == (
        "training: 3 of 100 steps, 0.0167 steps/s, about 1.6 h left; trainings: 0 of 4 models, about 6.6 h left"
    )


def test_a_part_counts_before_it_is_whole(clock, caplog):
    with progress("gradients", 100) as advance:
        for _ in range(2):
            with part_of_progress() as step:
                for _ in range(5):
                    clock[0] += 10
                    step(10)
            advance(50)
    assert [line.partition(",")[0] for line in caplog.messages] == [
        "gradients: 30 of 100 rows", "gradients: 60 of 100 rows", "gradients: 90 of 100 rows"
    ]  # fmt: skip
    with part_of_progress() as step:
        step(1)
    assert len(caplog.messages) == 3


def test_it_can_be_turned_off(clock, caplog, monkeypatch):
    monkeypatch.setenv("TAROT_PROGRESS", "0")
    with progress("gradients", None) as advance:
        clock[0] += 100
        advance(1)
    assert caplog.messages == []


def test_work_within_work_shares_the_bar(monkeypatch, capsys):
    monkeypatch.setenv("TAROT_PROGRESS", "1")
    with progress("outer", 2, "models") as outer, progress("inner", 3, "steps") as inner:
        with part_of_progress() as step:
            step(2)
            assert progress_bars._on_screen[0].tasks[1].completed == 2
        inner(1), outer(1)
        assert progress_bars._on_screen[0].tasks[1].completed == 1
        assert len(progress_bars._on_screen) == 1
        assert [task.description for task in progress_bars._on_screen[0].tasks] == ["outer", "inner"]
    assert progress_bars._on_screen == []
