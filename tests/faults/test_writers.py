"""Several runs at once: on one cache each ends as if it were alone; of several that want one folder for their results
one gets it, and a line says so to the others.

A trial ends in `as if alone`, or says what is not so.
"""

from __future__ import annotations

import functools
import re
import signal
from pathlib import Path

import numpy as np
import pytest

from tests.faults.runs import Ended, begun, cpu_of, emptied, ended, left, unlike
from tests.faults.test_kills import fault_of
from tests.faults.trials import Ending, tried

RUN = "digits"
TAKEN = re.compile(r"error: .* is being written to by process \d+ on .*: choose another folder, or wait")
CACHE, KILLED, RESULTS = "one cache", "one cache, one of them killed", "one folder for results"


def together(folder: Path, results: list[str], killed: int | None, after: float) -> list[Ended]:
    """Runs at the same time, by where their results go. killed: which is, after so many seconds of its own."""
    several = [begun(RUN, folder, str(place), name) for place, name in enumerate(results)]
    if killed is not None:
        several[killed].end(stop=lambda pid: cpu_of(pid) >= after)
    return [one.end() for one in several]


def left_by_one(folder: Path, name: str) -> dict[str, str]:
    """What is left in the cache and in a folder of results, as if that were called `run`."""
    found = left(folder, name).items()
    return {
        where.replace(f"{name}/", "run/"): what.replace(str(folder / name), str(folder / "run"))
        for where, what in found
    }


def fault(run: Ended, allowed: tuple[int, ...]) -> str:
    """What is wrong with how a run ended."""
    if run.code not in allowed or (run.code == 1 and not TAKEN.match(run.said)):
        return f"exit code {run.code}: {run.said}"
    return fault_of(run)


def trial(folder: Path, expected: dict[str, str], seconds: float, number: int, rng: np.random.Generator) -> Ending:
    kind, count = (CACHE, KILLED, RESULTS)[number % 3], (2, 4)[number // 3 % 2]
    emptied(folder)
    results = ["run"] * count if kind == RESULTS else [f"run{place}" for place in range(count)]
    killed = int(rng.integers(count)) if kind == KILLED else None
    after = float(rng.random() * seconds)
    runs = together(folder, results, killed, after)
    faults = [] if any(run.code == 0 for run in runs) else ["none of them ended well"]
    for place, (name, run) in enumerate(zip(results, runs, strict=True)):
        faults.append(fault(run, (0, -signal.SIGKILL) if place == killed else (0, 1) if kind == RESULTS else (0,)))
        if run.code == 0:
            faults.append(unlike(left_by_one(folder, name), expected))
    what = f"{count} runs" + ("" if killed is None else f", one killed after {after:.2f} s")
    return Ending(f"{count} on {kind}", what, "; ".join(filter(None, faults)) or "as if alone")


@pytest.mark.slow
def test_several_at_once_are_as_each_alone(tmp_path):
    folder = tmp_path / "work"
    alone = ended(RUN, folder)
    assert alone.code == 0, alone.err
    tried("writers", 24, functools.partial(trial, folder, left(folder), alone.cpu), ("as if alone",))
