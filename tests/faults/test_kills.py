"""Runs that are killed at any moment: the same command goes on from there, and what is there at its end is, byte by
byte, what a run leaves that was let alone.

Half of the moments are drawn from all of a run's time, and half from all that it does to files: as it opens one to
write, renames or removes one. A trial ends in `the same`, or says what is not: other files or other bytes, what was
left behind, a process that lived on, a traceback, an end that does not come.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.faults.runs import FILES, PATIENCE, Ended, changes, cpu_of, emptied, ended, left, stages, unlike
from tests.faults.trials import Ending, tried

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
OF_RUN = {
    "digits": 16,
    "segmentation": 10,
    "motion": 10,
    "instruction": 10,
    "instruction/files": 10,
    "subset models": 4,
}
"""How many kills."""


class Killer:
    """Kills runs of one kind, all in one folder, so that no path tells one from the other."""

    def __init__(self, run: str, folder: Path) -> None:
        self.run, self.folder = run, folder
        whole = ended(run, folder)
        assert whole.code == 0, whole.err
        self.whole, self.expected, self.stages = whole, left(folder), stages(whole.out)

    def trial(self, number: int, rng: np.random.Generator) -> Ending:
        by = SIGNALS[number % len(SIGNALS)]
        share = rng.random()
        emptied(self.folder)
        if number // len(SIGNALS) % 2:
            moment = int(share * self.whole.files)
            when = f"as it does the {moment}. of {self.whole.files} things to files"
            killed = ended(self.run, self.folder, around=functools.partial(at_file, moment, by))
        else:
            moment = share * self.whole.cpu
            when = f"after {moment:.2f} of {self.whole.cpu:.2f} s"
            killed = ended(self.run, self.folder, stop=lambda pid: cpu_of(pid) >= moment, by=by)
        done = stages(killed.out)
        stage = next((stage for stage in self.stages if stage not in done), "end")
        return Ending(stage, f"{self.run} by {by.name} {when}", self.ending(killed, by))

    def ending(self, killed: Ended, by: signal.Signals) -> str:
        if fault := fault_of(killed):
            return f"killed: {fault}"
        if killed.code not in ((0, 130) if by == signal.SIGINT else (0, -by)):
            return f"killed: exit code {killed.code}, {killed.said}"
        if killed.code == 130 and not killed.said.startswith("interrupted"):
            return f"killed: says {killed.said}"
        again = ended(self.run, self.folder)
        if fault := fault_of(again):
            return f"again: {fault}"
        if again.code != 0:
            return f"again: exit code {again.code}, {again.said}"
        return unlike(left(self.folder), self.expected) or "the same"


def fault_of(run: Ended) -> str:
    if run.code is None:
        return f"no end within {PATIENCE:.0f} s"
    if "Traceback" in run.err:
        return f"traceback, {run.said}"
    return "processes of its own live on" if run.orphans else ""


@contextlib.contextmanager
def at_file(moment: int, by: signal.Signals) -> Iterator[None]:
    """A process kills itself as it is about to change files for the `moment`-th time."""
    counted, process = 0, os.getpid()

    def watch(event: str, arguments: Any) -> None:
        nonlocal counted
        if event in FILES and (event != "open" or changes(arguments)) and os.getpid() == process:
            counted += 1
            if counted == moment + 1:
                os.kill(process, by)

    sys.addaudithook(watch)
    yield


@pytest.mark.slow
@pytest.mark.parametrize("run", OF_RUN)
def test_what_was_killed_goes_on_to_the_same_bytes(run, tmp_path):
    @functools.cache
    def killer() -> Killer:
        return Killer(run, tmp_path / "work")

    trial: Callable[[int, np.random.Generator], Ending] = lambda number, rng: killer().trial(number, rng)  # noqa: E731
    tried(f"kills of {run}", OF_RUN[run], trial, ("the same",))
