"""A worker that is a process of its own: what it is told, what it does, and what it says back."""

from __future__ import annotations

import copy
import logging
import os
import pickle
import socket
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tarot.workers.in_order import Outcome

log = logging.getLogger("tarot")


@dataclass(frozen=True)
class Arithmetic:
    """How a process rounds: what of torch's settings decides bits."""

    algorithms: bool
    warn_only: bool
    cudnn: tuple[bool, bool]
    products: str

    @classmethod
    def here(cls) -> Arithmetic:
        return cls(
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
            torch.get_float32_matmul_precision(),
        )

    def take_over(self) -> None:
        if self == Arithmetic.here():  # to set what is set already would make torch import its compiler
            return
        torch.use_deterministic_algorithms(self.algorithms, warn_only=self.warn_only)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = self.cudnn
        torch.set_float32_matmul_precision(self.products)


@dataclass(frozen=True)
class Job:
    """A map, as every worker is told it once."""

    work: Callable[..., Any]
    setup: Callable[..., Any] | None
    shared: tuple[Any, ...]
    arithmetic: Arithmetic


@dataclass(frozen=True)
class Report:
    """What became of an item. seconds: that it took, with the state that was made for it. records: what was logged.
    warned: of what, once each."""

    outcome: Outcome[Any]
    seconds: float
    records: list[logging.LogRecord]
    warned: list[tuple[type[Warning], str]]

    def repeat(self) -> None:
        """Says here what was said there."""
        for record in self.records:
            if log.isEnabledFor(record.levelno):
                log.handle(record)
        for category, message in self.warned:
            warnings.warn(message, category, stacklevel=5)


class Worker:
    """Does one item at a time of the map that it was told of last."""

    def __init__(self) -> None:
        self._map: int | None = None
        self._job: Job | None = None
        self._state: Any = None
        self._records: list[logging.LogRecord] = []

    def settle(self, folder: str, threads: int) -> str | None:
        """Begins where the one who asks works, in so many threads. What is wrong, where it cannot."""
        try:
            os.chdir(folder)
        except OSError as error:
            return f"the folder {folder} cannot be entered on the host {socket.gethostname()} ({error.strerror})"
        torch.set_num_threads(threads)
        log.setLevel(logging.INFO)
        log.propagate = False
        log.handlers = [_Kept(self._records)]
        return None

    def misses(self, file: str, content: str) -> str | None:
        """The name of this host, where a file with this content is not to be seen from it."""
        try:
            seen = Path(file).read_text(encoding="utf-8") == content
        except OSError:
            seen = False
        return None if seen else socket.gethostname()

    def work(self, number: int, job: Callable[[], Job], place: int, item: Any) -> Report:
        """An item of the map of this number, which `job` gives where it is not the last one."""
        began = time.monotonic()
        self._records.clear()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.filterwarnings(
                "ignore", "The given NumPy array is not writable"
            )  # shared ones are not, nor written
            try:
                outcome = Outcome(place, self._result(number, job, item))
            except Exception as error:
                outcome = Outcome(place, error=sendable(error))
        warned = dict.fromkeys((warning.category, str(warning.message)) for warning in caught)
        return Report(outcome, time.monotonic() - began, [*self._records], [*warned])

    def _result(self, number: int, job: Callable[[], Job], item: Any) -> Any:
        if self._map != number or self._job is None:
            self._job = self._state = None  # before the next one takes memory
            told = job()
            told.arithmetic.take_over()
            self._state = None if told.setup is None else told.setup(*told.shared)
            self._map, self._job = number, told
        return self._job.work(item, self._state, *self._job.shared)


class _Kept(logging.Handler):
    """Keeps records, as plain text, for whoever asked for the work."""

    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__()
        self.records = records

    def emit(self, record: logging.LogRecord) -> None:
        record.msg, record.args, record.exc_info = record.getMessage(), None, None
        self.records.append(record)


def sendable(error: Exception) -> Exception:
    """The error with a note of where it came from; in its place one that says the same, where it cannot be pickled."""
    where = "".join(traceback.format_exception(error))
    try:
        pickle.dumps(error)
        sent = copy.copy(error)  # from what a pickle keeps of it
        same = type(sent) is type(error) and str(sent) == str(error)
    except Exception:
        same = False
    if not same:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(f"on the host {socket.gethostname()}:\n{where}")
    return error
