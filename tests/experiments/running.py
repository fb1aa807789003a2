"""The command line, called from a test: in this process, since imports take seconds, and with small settings."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import run

ROOT = Path(__file__).parents[2]

# digits, small enough that a run takes a second or two
SMALL = (
    "task=digits",
    "task.rotated.candidates=60",
    "task.rotated.targets=7",
    "task.rotated.validation=8",
    "task.rotated.test=40",
    "task.hidden=[8]",
    "task.surrogate.runs=1",
    "task.train.steps=10",
    "features.dim=16",
    "features.batch_size=32",
    "experiment.trainings=2",
    "experiment.tsne_points=30",
    "device=cpu",
)


def changed(options: Sequence[str], *overrides: str) -> list[str]:
    """The options with other values of those that are overridden."""
    keys = {override.partition("=")[0].lstrip("~+") for override in overrides}
    return [o for o in options if o.partition("=")[0] not in keys] + list(overrides)


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit code, what it printed, and where it wrote."""

    code: int
    out: str
    err: str
    output: Path

    @property
    def metrics(self) -> dict[str, Any]:
        assert self.code == 0, self.out + self.err
        return json.loads((self.output / "metrics.json").read_text())


def command(folder: Path, *arguments: str, name: str = "run", drawn: bool = False, placed: bool = True) -> Outcome:
    """`python run.py ARGUMENTS` with its caches in `folder`/cache and its results in `folder`/`name`.

    drawn: figures are drawn, which takes longer than all else; otherwise their files are empty. placed: whether the
    results go there; otherwise where the arguments say."""
    output, code = folder / name, 0
    places = [f"cache_dir={folder / 'cache'}", *([f"output_dir={output}"] if placed else [])]
    out, err, root = io.StringIO(), io.StringIO(), logging.getLogger()
    before = root.handlers[:], root.level
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(sys, "argv", ["run.py", *arguments, *places]))
        stack.enter_context(mock.patch.dict("os.environ"))
        if not drawn:
            stack.enter_context(mock.patch("experiments.report.style.Figure.png", lambda *_: b""))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        try:
            run.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
            print("" if isinstance(stop.code, int | None) else stop.code, file=err)
        finally:
            root.handlers[:], root.level = before
    return Outcome(code, out.getvalue(), err.getvalue(), output)
