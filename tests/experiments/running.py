"""The command line, called from a test: in this process, since imports take seconds, and with small settings."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import io
import json
import logging
import multiprocessing
import pickle
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal
from unittest import mock

import torch
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.hydra import Hydra
from hydra.core.default_element import InputDefault, ResultDefault
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig

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
def laid_out_flat() -> Iterator[None]:
    flat = SimpleNamespace(fit_transform=lambda rows: rows[:, :2])
    with mock.patch("sklearn.manifold.TSNE", lambda **_: flat):
        yield


@contextlib.contextmanager
def undrawn(but: Collection[str] = ()) -> Iterator[None]:
    """Within it the files of figures are empty, `but` those of these names on light paper, and features are laid out on
    them by their first dimensions: to draw takes longer than all else, and t-SNE an eighth of what is left."""
    png = Figure.png
    with (
        laid_out_flat(),
        mock.patch.object(Figure, "png", lambda f, theme: png(f, theme) if f.name in but and theme == "light" else b""),
    ):
        yield


_read: dict[Any, tuple[ConfigResult, bytes] | None] = {}  # files of configs, and the pickled content of each
_merged: dict[Any, bytes] = {}  # pickled configs, by the files that they are of
_merge = ConfigLoaderImpl._compose_config_from_defaults_list
_choices = defaults_list._create_interpolation_map


def _kept_file(repository: CachingConfigRepository, config_path: str, *, whole: bool = False) -> ConfigResult | None:
    """A file of a config, read once. whole: its content is one's own, too, to be changed."""
    if config_path not in repository.cache:
        key = (config_path, *(source.path for source in repository.get_sources()))
        if key not in _read:
            found = repository.delegate.load_config(config_path)
            _read[key] = found and (found, pickle.dumps(found.config))
        if (kept := _read[key]) is None:
            return None
        mine = copy.copy(kept[0])
        mine.defaults_list = copy.deepcopy(mine.defaults_list)
        mine.config = pickle.loads(kept[1]) if whole else mine.config
        repository.cache[config_path] = mine
    return repository.cache[config_path]


def _kept_merge(loader: ConfigLoaderImpl, defaults: list[ResultDefault], repo: CachingConfigRepository) -> DictConfig:
    key = (*map(dataclasses.astuple, defaults), *(source.path for source in repo.get_sources()))
    if key not in _merged:
        fresh = CachingConfigRepository(repo.delegate)
        fresh.load_config = functools.partial(_kept_file, fresh, whole=True)
        _merged[key] = pickle.dumps(_merge(loader, defaults, fresh))
    return pickle.loads(_merged[key])


def _needed_choices(overrides: Any, defaults: list[InputDefault], self_added: bool) -> DictConfig | None:
    """What names in a list of defaults may refer to, where one does: one list of ours in seventy."""
    refers = any(default.is_interpolation() for default in defaults)
    return _choices(overrides, defaults, self_added) if refers else None


@contextlib.contextmanager
def composing_once() -> Iterator[None]:
    """Within it Hydra composes a config once, and of files that were read and merged once: composing takes three
    quarters of a small command. It does so twice, first to look for `hydra.mode`, which no config here sets, and in a
    sweep to see whether all jobs' configs compose. What a command line changes is applied each time."""
    with (
        mock.patch.object(Hydra, "get_mode", lambda *_, **__: None),
        mock.patch.object(Sweeper, "validate_batch_is_legal", lambda *_: None),
        mock.patch.object(CachingConfigRepository, "load_config", _kept_file),
        mock.patch.object(defaults_list, "_create_interpolation_map", _needed_choices),
        mock.patch.object(ConfigLoaderImpl, "_compose_config_from_defaults_list", _kept_merge),
    ):
        yield


def command(
    folder: Path,
    *arguments: str,
    name: str = "run",
    drawn: bool | Literal["light"] | tuple[str, ...] = False,
    placed: bool = True,
) -> Outcome:
    """`python run.py ARGUMENTS` with its caches in `folder`/cache and its results in `folder`/`name`.

    drawn: figures are drawn, or those on light paper are, which do for the dark ones, or those of these names are.
    placed: whether the results go there; otherwise where the arguments say."""
    output, code = folder / name, 0
    given = places(folder, name) if placed else places(folder, name)[:1]
    out, err, root = io.StringIO(), io.StringIO(), logging.getLogger()
    before = root.handlers[:], root.level
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(sys, "argv", ["run.py", *arguments, *given]))
        stack.enter_context(mock.patch.dict("os.environ"))
        stack.enter_context(composing_once())
        if not drawn or isinstance(drawn, tuple):
            stack.enter_context(undrawn(drawn or ()))
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
