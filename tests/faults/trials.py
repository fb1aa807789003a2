"""Trials of faults: how many a suite makes, what came of each, and the table of them.

FAULTS: as many trials instead of a suite's own number. FAULTS_LOG: a file to which each trial is added, a line of JSON;
what it holds is not tried again, so that a suite that was stopped goes on. `python -m tests.faults.trials FILE` makes
the table of docs/trust.md from it.
"""

from __future__ import annotations

import json
import os
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Ending:
    """kind: under which it is counted. what: was done. how: it ended."""

    kind: str
    what: str
    how: str


def tried(
    suite: str,
    count: int,
    trial: Callable[[int, np.random.Generator], Ending],
    survived: Collection[str],
    *,
    fixed: bool = False,
) -> Counter[str]:
    """Makes trials 0..count-1, each with a generator of its own, and says how they ended, by number.

    fixed: whether `count` is what there is, so that FAULTS can only make it less. Raises AssertionError, after all of
    them, where one ended in another way than `survived` names.
    """
    asked = int(os.environ.get("FAULTS", count))
    known = dict(_logged(suite))
    endings = []
    for number in range(min(asked, count) if fixed else asked):
        ending = known.get(number)
        if ending is None:
            ending = trial(number, np.random.default_rng([zlib.crc32(suite.encode()), number]))
            _log(suite, number, ending)
        print(f"{suite} {number}: {ending.kind}: {ending.what}: {ending.how}", flush=True)
        endings.append(ending)
    lost = [ending for ending in endings if ending.how not in survived]
    assert not lost, "\n".join(f"{ending.kind}: {ending.what}: {ending.how}" for ending in lost)
    return Counter(ending.how for ending in endings)


def _path() -> Path | None:
    name = os.environ.get("FAULTS_LOG")
    return Path(name) if name else None


def _log(suite: str, number: int, ending: Ending) -> None:
    path = _path()
    if path is not None:
        with path.open("a") as file:
            file.write(json.dumps({"suite": suite, "number": number, **asdict(ending)}) + "\n")


def _logged(suite: str) -> Iterator[tuple[int, Ending]]:
    path = _path()
    for line in path.read_text().splitlines() if path is not None and path.exists() else []:
        found = json.loads(line)
        if found.pop("suite") == suite:
            yield found.pop("number"), Ending(**found)


def table(lines: Iterable[str]) -> str:
    """In Markdown, a row for each suite: how many were tried, how they ended, and of what kinds they were."""
    ended: dict[str, Counter[str]] = {}
    kinds: dict[str, Counter[str]] = {}
    for line in lines:
        found = json.loads(line)
        ended.setdefault(found["suite"], Counter())[found["how"]] += 1
        kinds.setdefault(found["suite"], Counter())[found["kind"]] += 1
    rows = ["| suite | tried | how it ended | of what |", "|---|---|---|---|"]
    for suite in sorted(ended):
        how = ", ".join(f"{count} {name}" for name, count in ended[suite].most_common())
        of = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds[suite].items()))
        rows.append(f"| {suite} | {ended[suite].total()} | {how} | {of} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table(Path(sys.argv[1]).read_text().splitlines()))
