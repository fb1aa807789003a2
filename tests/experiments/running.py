"""The command line, called from a test: in this process, since imports take seconds, and with small settings."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal
from unittest import mock

import torch
from hydra._internal.hydra import Hydra
from hydra.plugins.sweeper import Sweeper

import run
from experiments.report.style import Figure, Picture

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


def places(folder: Path, name: str) -> list[str]:
    """Options by which a command has its caches in `folder`/cache and its results in `folder`/`name`."""
    return [f"cache_dir={folder / 'cache'}", f"output_dir={folder / name}"]


def on_light_paper(figure: Figure) -> Picture:
    light = figure.png("light")
    return Picture(figure.name, figure.title, figure.caption, light, light)


@contextlib.contextmanager
def undrawn() -> Iterator[None]:
    """Within it the files of figures are empty, and features are laid out on them by their first dimensions: to draw
    takes longer than all else, and t-SNE an eighth of what is left."""
    flat = SimpleNamespace(fit_transform=lambda rows: rows[:, :2])
    with (
        mock.patch.object(Figure, "png", lambda *_: b""),
        mock.patch("sklearn.manifold.TSNE", lambda **_: flat),
    ):
        yield


@contextlib.contextmanager
def composing_once() -> Iterator[None]:
    """Within it a config is composed once. Hydra does so twice, which takes a third of a small command: first to look
    for `hydra.mode`, which no config here sets, and in a sweep to see whether all jobs' configs compose."""
    with (
        mock.patch.object(Hydra, "get_mode", lambda *_, **__: None),
        mock.patch.object(Sweeper, "validate_batch_is_legal", lambda *_: None),
    ):
        yield


def command(
    folder: Path, *arguments: str, name: str = "run", drawn: bool | Literal["light"] = False, placed: bool = True
) -> Outcome:
    """`python run.py ARGUMENTS` with its caches in `folder`/cache and its results in `folder`/`name`.

    drawn: figures are drawn, or those on light paper are, which do for the dark ones. placed: whether the results go
    there; otherwise where the arguments say."""
    output, code = folder / name, 0
    given = places(folder, name) if placed else places(folder, name)[:1]
    out, err, root = io.StringIO(), io.StringIO(), logging.getLogger()
    before = root.handlers[:], root.level
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(sys, "argv", ["run.py", *arguments, *given]))
        stack.enter_context(mock.patch.dict("os.environ"))
        stack.enter_context(composing_once())
        if not drawn:
            stack.enter_context(undrawn())
        elif drawn == "light":
            stack.enter_context(mock.patch.object(Figure, "render", on_light_paper))
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


def started(
    folder: Path,
    *arguments: str,
    name: str = "run",
    around: Callable[[], AbstractContextManager] = nullcontext,
    placed: bool = True,
) -> BaseProcess:
    """The same command in a process of its own, which is a copy of this one and so need not import anything: to be
    stopped, or to be hindered by `around`, a context in which it runs. It prints into `folder`/`name`.out and .err.
    placed: whether caches and results go to `folder`; otherwise where the arguments say."""
    return process_like_this(_run, folder, [*arguments, *(places(folder, name) if placed else [])], name, around)


def process_like_this(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """`target(*arguments)` in a copy of this process, or in a new one where copies do harm."""
    copies = sys.platform == "linux" and not torch.cuda.is_available()
    process = multiprocessing.get_context("fork" if copies else "spawn").Process(target=target, args=arguments)
    process.start()
    return process


def _run(folder: Path, arguments: Sequence[str], name: str, around: Callable[[], AbstractContextManager]) -> None:
    sys.stdout, sys.stderr = (open(folder / f"{name}.{kind}", "w", buffering=1) for kind in ("out", "err"))  # noqa: SIM115
    sys.argv = ["run.py", *arguments]
    with composing_once(), around():
        run.main()
