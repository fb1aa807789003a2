"""The runs that the paper's page is made of: each is a command of its own, whose results stay in the cache."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from experiments.frame.outputs import DONE
from tarot import InputError
from tarot.common import Count, atomic_file, check_options, fingerprint, make_folder

log = logging.getLogger("tarot")

Part = Literal["influence", "sweep", "folds", "instruction", "time", "pictures", "leaderboard"]
PROGRAM = Path(__file__).parents[2] / "run.py"
_TOOK = "took.json"
_STAGES = "stages.json"
_OF_THE_PAGE = re.compile(
    r"[+~]*(seed|output_dir|cache_dir|data_dir|device|deterministic|engine|hydra\.|experiment=paper)"
)
_INTERRUPTED = 130


@dataclass(frozen=True)
class Asked:
    """One run of the page. part: whose claims it is about. label: what it stands for. overrides: of its command line;
    none where this scale has no such run, and `why` says why. seeds: it is repeated with seed 0, 1, ... transfer: the
    model that learns is another than the one that selects, which the paper has a claim about."""

    part: Part
    label: str
    overrides: Sequence[str] = ()
    seeds: Count = 1
    why: str = ""
    transfer: bool = False

    def __post_init__(self) -> None:
        check_options(self, "experiment.runs")
        if bool(self.overrides) == bool(self.why):
            raise InputError(f"experiment.runs: {self.label!r} must have overrides, or say why it has none")
        for override in self.overrides:
            if _OF_THE_PAGE.match(override):
                raise InputError(f"experiment.runs: {self.label!r} must leave {override!r} to experiment=paper")


@dataclass(frozen=True)
class Ended:
    """What became of a run. metrics: the metrics.json of every seed that ended, with the seconds of each stage when it
    took longest, which is when nothing of it was in the cache. seconds: that all took, likewise. missing: why there is
    no more."""

    asked: Asked
    metrics: Sequence[Mapping[str, Any]] = ()
    seconds: float = 0.0
    reports: Sequence[Path] = ()
    missing: str = ""

    @property
    def command(self) -> str:
        return " ".join(["python run.py", *self.asked.overrides])


def carry_out(asked: Asked, folder: Path, common: Sequence[str]) -> Iterator[Ended]:
    """What is known after each seed. folder: of all runs; one with other overrides has another in it. common: overrides
    that the page's own run shares with all of them. What a seed has computed is in the cache, so that it is done again
    in seconds: a result is never older than the code and the data that are there."""
    ended = Ended(asked, missing=asked.why)
    if not asked.overrides:
        yield ended
        return
    own = folder / fingerprint({"overrides": list(asked.overrides)})[:16]
    for seed in range(asked.seeds):
        output = own / str(seed)
        missing = _run([*asked.overrides, f"seed={seed}", f"output_dir={quoted(output)}", *common], output)
        if missing:
            yield Ended(asked, ended.metrics, ended.seconds, ended.reports, missing)
            return
        ended = Ended(
            asked,
            [*ended.metrics, _with_longest_stages(json.loads((output / DONE).read_text()), output / _STAGES)],
            ended.seconds + json.loads((output / _TOOK).read_text()),
            [*ended.reports, output / "report.html"],
        )
        yield ended


def quoted(path: Path | str) -> str:
    """As a value on Hydra's command line."""
    escaped = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _run(overrides: Sequence[str], output: Path) -> str:
    """Why it failed; empty where it did not. Its messages are seen as they come."""
    make_folder(output)
    (output / "run.log").unlink(missing_ok=True)
    log.info("running %s", " ".join(overrides))
    start = time.perf_counter()
    code = subprocess.run([sys.executable, str(PROGRAM), *overrides], check=False).returncode
    if code in (_INTERRUPTED, -2):
        raise KeyboardInterrupt
    if code:
        return _reason(output / "run.log") or f"it ended with exit code {code}"
    seconds = time.perf_counter() - start
    before = json.loads((output / _TOOK).read_text()) if (output / _TOOK).is_file() else 0.0
    with atomic_file(output / _TOOK) as temporary:
        temporary.write_text(json.dumps(round(max(seconds, before), 3)))
    return ""


def _with_longest_stages(metrics: dict[str, Any], path: Path) -> dict[str, Any]:
    """path: where the seconds of earlier times are. A run that is done again finds its selection in the cache, and
    would tell how long it takes to find one."""
    before = json.loads(path.read_text()) if path.is_file() else {}
    now = metrics.get("seconds", {})
    longest = {stage: max(before.get(stage, 0.0), now.get(stage, 0.0)) for stage in {**before, **now}}
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(longest))
    return {**metrics, "seconds": longest}


def _reason(path: Path) -> str:
    """The last error that a log tells of."""
    lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
    errors = [line.partition(" ERROR ")[2] for line in lines if " ERROR " in line]
    return errors[-1] if errors else ""
