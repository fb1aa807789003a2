"""Progress of long work: a bar with rate and time left on a terminal; elsewhere a line in the log every half minute."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

EVERY = 30.0  # seconds between two lines
FIRST = 3  # steps by whose rate a first line says what is to come, where that is more than such a time

log = logging.getLogger("tarot")
_on_screen: list[Progress] = []  # the bar of the terminal, to which work within work adds a line of its own
_tasks: list[TaskID] = []  # on that bar, outermost first
_in_work: list[_Work] = []  # outermost first


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.3g} {task.fields['unit']}/s", style="progress.data.speed")


@contextlib.contextmanager
def progress(description: str, total: int | None, unit: str = "rows") -> Iterator[Callable[[int], None]]:
    """`with progress("gradients", n) as advance: advance(k)`. `TAROT_PROGRESS=0` turns it off, `=1` forces the bar on.

    Without a terminal the logger "tarot" is told (INFO) after the first steps how long the whole will take, where that
    is more than half a minute, and how far it is every half minute; with what this work is a part of.
    """
    wish = os.environ.get("TAROT_PROGRESS")
    console = Console(stderr=True, force_terminal=True if wish == "1" else None)
    if wish == "0":
        yield _nothing
    elif console.is_terminal:
        with _shown(console) as bar:
            task = bar.add_task(description, total=total, unit=unit)
            _tasks.append(task)
            try:
                yield partial(_advanced, bar, task)
            finally:
                _tasks.remove(task)
                bar.remove_task(task)
    else:
        work = _Work(description, total, unit)
        _in_work.append(work)
        try:
            yield work.advance
        finally:
            _in_work.remove(work)


def _nothing(amount: int = 1) -> None:
    pass


def _advanced(bar: Progress, task: TaskID, amount: int = 1) -> None:
    bar.advance(task, amount)


@contextlib.contextmanager
def part_of_progress() -> Iterator[Callable[[int], None]]:
    """Within a block of `progress`, what its next `advance` will be of, seen as it is made: `with part_of_progress() as
    advance`. Elsewhere nothing."""
    if _on_screen:
        bar, task = _on_screen[-1], _tasks[-1]
        before = bar.tasks[bar.task_ids.index(task)].completed
        try:
            yield partial(_advanced, bar, task)
        finally:
            bar.update(task, completed=before)
    elif _in_work:
        work = _in_work[-1]
        try:
            yield work.go_ahead
        finally:
            work.ahead = 0
    else:
        yield _nothing


@contextlib.contextmanager
def _shown(console: Console) -> Iterator[Progress]:
    """A bar, the one that is there already where this is work within work."""
    if _on_screen:
        yield _on_screen[-1]
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        _on_screen.append(bar)
        try:
            yield bar
        finally:
            _on_screen.remove(bar)


@dataclass(eq=False)
class _Work:
    """How far a piece of work is, by lines in the log."""

    description: str
    total: int | None
    unit: str
    done: int = 0
    ahead: int = 0  # of the next `advance`
    steps: int = 0
    start: float = field(default_factory=lambda: time.monotonic())
    said: float = field(default_factory=lambda: time.monotonic())

    def advance(self, amount: int = 1) -> None:
        self.done += amount
        self._tell()

    def go_ahead(self, amount: int = 1) -> None:
        """So much of the next `advance` is made."""
        self.ahead += amount
        self._tell()

    def _tell(self) -> None:
        self.steps += 1
        now = time.monotonic()
        left = self.left(now)
        long = self.steps == FIRST and left is not None and left > EVERY
        if long or now - self.said >= EVERY:
            around = _in_work[: _in_work.index(self) + 1] if self in _in_work else [self]
            for work in around:
                work.said = now
            log.info("%s", "; ".join(_line(around[place:], now) for place in reversed(range(len(around)))))

    def left(self, now: float, part: float = 0.0) -> float | None:
        """Seconds that the rest will take at the rate so far; part: how much of the next one is done."""
        done = self.done + self.ahead + part
        return None if self.total is None or not done else (now - self.start) * (self.total - done) / done


def _line(works: list[_Work], now: float) -> str:
    """Of the first of them, of which the others are parts."""
    work, done = works[0], works[0].done + works[0].ahead
    part = 0.0
    for inner in reversed(works[1:]):
        part = 0.0 if not inner.total else (inner.done + inner.ahead + part) / inner.total
    of = "" if work.total is None else f" of {work.total:,}"
    rate = "" if len(works) > 1 or now <= work.start else f", {done / (now - work.start):,.3g} {work.unit}/s"
    left = work.left(now, part)
    return f"{work.description}: {done:,}{of} {work.unit}{rate}" + (
        "" if left is None else f", about {duration(left)} left"
    )


def duration(seconds: float) -> str:
    """As a person says it: 40 s, 25 min, 2.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
