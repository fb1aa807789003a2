"""Small runs of every kind in processes of their own, to be stopped and hindered, and all that one leaves."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.experiments.lds.test_lds import MOTION as MOTION_LDS
from tests.experiments.running import SMALL, changed, places, started, undrawn
from tests.experiments.selection.test_instruction_selected import SMALL as SMALL_INSTRUCTION
from tests.tasks.instruction.conversations import write_files
from tests.tasks.test_contract import options_of

PATIENCE = 600.0  # seconds after which a run hangs
ONE = ("selector=tarot_fixed", "experiment.trainings=1", "experiment.arms=[]", "experiment.tsne_points=0")
FEW = ("features.dim=8", "features.batch_size=16", "selector.size=4", "device=cpu")
RUNS: dict[str, tuple[str, ...]] = {
    "digits": (*changed(SMALL, "experiment.tsne_points=0"), "experiment.arms=[random]"),
    "segmentation": ("task=segmentation", *options_of("segmentation"), *ONE, *FEW),
    "motion": (
        "task=motion",
        *options_of("motion", "data.candidates={cand_highway:6,cand_parking:6}", "data.processes=2"),
        *ONE,
        *FEW,
    ),
    "instruction": (*SMALL_INSTRUCTION, *ONE, "selector.size=6"),
    "instruction/files": (  # of a model and of rows that a user has; ends with the selection
        "task=instruction/files",
        *(f"task.{part}={{made}}/{part}.jsonl" for part in ("candidates", "targets")),
        "task.language.path={made}/model",
        "task.max_length=64",
        "task.surrogate.share=0.2",
        *FEW,
    ),
    "subset models": (*changed(MOTION_LDS, "experiment.workers=2"), "experiment.estimators=[wfd,gradcos]"),
}
"""By name: what a run is asked. {made}: the folder that `write_files` has written."""
FILES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")
"""Events of Python's at which something on the disk changes, or may."""


@dataclass(frozen=True)
class Ended:
    """code: exit code, None where it hung. out, err: what it printed. cpu: its own seconds. files: how many events of
    `FILES` there were. orphans: whether processes of its own outlived it."""

    code: int | None
    out: str
    err: str
    cpu: float
    files: int
    orphans: bool

    @property
    def said(self) -> str:
        """Its last line on stderr."""
        return (self.err.strip().splitlines() or [""])[-1]


@dataclass(frozen=True)
class Begun:
    """A run in a process of its own, whose facts and output are in `folder`/`name`.*"""

    process: BaseProcess
    folder: Path
    name: str

    def end(self, stop: Callable[[int], bool] | None = None, by: signal.Signals = signal.SIGKILL) -> Ended:
        """Waits for it. stop: asked about the process every few milliseconds until it says that it is to be stopped, by
        the signal `by`."""
        pid, until = self.process.pid, time.monotonic() + PATIENCE
        assert pid is not None
        while self.process.is_alive() and time.monotonic() < until:
            if stop is not None and stop(pid):
                os.kill(pid, by)
                stop = None
            self.process.join(timeout=0.005 if stop is not None else 1)
        code = self.process.exitcode
        orphans = not _all_gone(pid, until=time.monotonic() + 30)
        out, err, facts = (_text(self.folder / f"{self.name}.{kind}") for kind in ("out", "err", "facts"))
        known = json.loads(facts or "{}")
        return Ended(code, out, err, known.get("cpu", 0.0), known.get("files", 0), orphans)


def begun(
    run: str,
    folder: Path,
    name: str = "run",
    results: str = "run",
    around: Callable[[], AbstractContextManager] = nullcontext,
) -> Begun:
    """The run, with its caches in `folder`/cache and its results in `folder`/`results`."""
    folder.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def inside() -> Iterator[None]:
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for default in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(default, signal.SIG_DFL)
        counted = [0]
        sys.addaudithook(lambda event, arguments: _count(counted, event, arguments))
        with ExitStack() as stack:
            stack.enter_context(undrawn())
            stack.enter_context(around())
            try:
                yield
            finally:
                facts = {"cpu": time.process_time(), "files": counted[0]}
                (folder / f"{name}.facts").write_text(json.dumps(facts))

    made = folder / "made"
    if any("{made}" in option for option in RUNS[run]) and not made.exists():
        write_files(made)
    with undrawn():
        pass  # what it imports is imported here: a signal that falls upon it there is no signal to the run
    asked = [*(option.replace("{made}", str(made)) for option in RUNS[run]), *places(folder, results)]
    return Begun(started(folder, *asked, name=name, around=inside, placed=False), folder, name)


def ended(
    run: str,
    folder: Path,
    around: Callable[[], AbstractContextManager] = nullcontext,
    stop: Callable[[int], bool] | None = None,
    by: signal.Signals = signal.SIGKILL,
) -> Ended:
    return begun(run, folder, around=around).end(stop, by)


def _count(counted: list[int], event: str, arguments: Any) -> None:
    if event in FILES and (event != "open" or changes(arguments)):
        counted[0] += 1


def changes(arguments: Any) -> bool:
    """Whether what is opened is opened to be written to."""
    return bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def _all_gone(group: int, until: float) -> bool:
    """Whether all processes of a group end by themselves; those that do not are killed."""
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    return False


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def cpu_of(pid: int) -> float:
    """Seconds that a running process has computed."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- what it leaves --------------------------------------------------------------------------------------------------


def left(folder: Path, name: str = "run") -> dict[str, str]:
    """Every file of a run's cache and of its results, with what is in it; without locks, and without what says how long
    it took."""
    found = {}
    for part in ("cache", name):
        for path in sorted((folder / part).rglob("*")):
            where = path.relative_to(folder).as_posix()
            if path.is_dir() or path.name.endswith(".lock") or path.name in ("run.log", "report.html", "contents.json"):
                continue
            if where == f"{name}/metrics.json":
                content = json.loads(path.read_text())
                del content["seconds"]
                found[where] = json.dumps(content, sort_keys=True)
            elif where == f"{name}/config.yaml":
                found[where] = "".join(line for line in path.open() if not line.startswith("revision:"))
            else:
                found[where] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def unlike(found: dict[str, str], expected: dict[str, str]) -> str:
    """In words; empty where there is no difference."""
    more, less = sorted(set(found) - set(expected)), sorted(set(expected) - set(found))
    other = sorted(where for where in set(found) & set(expected) if found[where] != expected[where])
    return "; ".join(f"{word} {names}" for word, names in (("more", more), ("less", less), ("other", other)) if names)


STAGE = re.compile(r"^(\w[\w ]*?) +\d+\.\d s$", re.MULTILINE)


def stages(out: str) -> list[str]:
    """Those that a run has said to be done, in their order."""
    return list(dict.fromkeys(STAGE.findall(out)))


def emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder
