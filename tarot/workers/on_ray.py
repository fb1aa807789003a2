"""Work by processes of one machine or many, which Ray starts, places, and tells us of when they are gone.

What is done again is decided here and not by Ray: an item whose worker or node has died goes to another worker, an item
that raised an error does not. Whatever a map needs, this process holds.
"""

from __future__ import annotations

import heapq
import importlib.util
import itertools
import logging
import math
import os
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tarot.common import Count, InputError, Natural, NonNegative, Positive, check_options, make_folder
from tarot.workers.in_order import AHEAD, Outcome, in_order
from tarot.workers.in_process import Local
from tarot.workers.process import Arithmetic, Job, Report, Worker
from tarot.workers.protocol import Item, Result

PATIENCE = 30.0
"""Seconds without a worker after which it is said what is waited for."""
log = logging.getLogger("tarot")


@dataclass(frozen=True, eq=False)
class Ray:
    """Processes that Ray starts: `workers` of them, of `cpus` cores and threads and `gpus` GPUs each.

    address: of a running cluster, `host:port`, or "auto" for the one of this machine; None: that of RAY_ADDRESS, else
    one of our own on this machine, which ends with us. A Ray that this process was connected to before is used, and
    left as it is. retries: how often an item goes to another worker because its own has died.

    It starts when a map first needs it, and takes seconds. A worker on another machine works in the folder of the same
    name; the project is installed there, or lies there. Within a worker this is `LOCAL`.
    """

    workers: Count | None = None
    cpus: Positive = 1
    gpus: NonNegative = 0
    address: str | None = None
    retries: Natural = 3
    _crew: list[_Crew] = field(default_factory=list, init=False, repr=False)  # one, once it is there

    def __post_init__(self) -> None:
        check_options(self, "engine")
        if importlib.util.find_spec("ray") is None:
            raise InputError("engine=ray needs the package ray: pip install 'tarot-select[ray]'")

    def __reduce__(self) -> tuple[type[Local], tuple[()]]:
        return Local, ()

    def __enter__(self) -> Ray:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def map(
        self,
        work: Callable[..., Result],
        items: Iterable[Item],
        *shared: Any,
        setup: Callable[..., Any] | None = None,
    ) -> Iterator[Result]:
        yield from self._started().map(Job(work, setup, shared, Arithmetic.here()), items)

    def shares(self, folder: Path) -> None:
        self._started().check_shared(folder)

    def close(self) -> None:
        while self._crew:
            self._crew.pop().close()

    def _started(self) -> _Crew:
        if not self._crew:
            self._crew.append(_Crew(self))
        return self._crew[0]


class _Process(Worker):
    def do(self, number: int, told: list[Any], place: int, item: Any) -> Report:
        """told: in a list, so that Ray does not fetch it for every item."""
        import ray

        return self.work(number, lambda: ray.get(told[0]), place, item)


@dataclass(eq=False)
class _Hand:
    """A worker. greeting: its answer to `settle`."""

    actor: Any
    greeting: Any


@dataclass(frozen=True, order=True)
class _Task:
    """lost: how many workers have died with it."""

    place: int
    item: Any = field(compare=False)
    lost: int = field(default=0, compare=False)


class _Crew:
    """The workers of one engine, for all of its maps, one after another."""

    def __init__(self, engine: Ray) -> None:
        import ray

        began = time.monotonic()
        self._engine = engine
        self._ray: Any = ray  # half of it is untyped
        self._ours = not ray.is_initialized()
        if self._ours:
            self._start()
        self._count = engine.workers or self._room()
        self._kind = self._ray.remote(
            num_cpus=engine.cpus,
            num_gpus=engine.gpus,
            max_restarts=0,
            scheduling_strategy="SPREAD",
            runtime_env=None if self._ours else _environment(self._threads),
        )(_Process)
        self._maps = itertools.count()
        self._idle: list[_Hand] = []
        self._hired: dict[Any, _Hand] = {}  # that have not begun yet, by their greeting
        self._tokens: dict[Path, str] = {}  # files in folders that all must see, and what is in them
        self._stillborn = 0
        self._hire(self._count)
        self._starting = time.monotonic() - began
        self._waited = self._worked = 0.0  # seconds

    # --- Ray and its workers -----------------------------------------------------------------------------------------

    @property
    def _threads(self) -> int:
        return max(1, int(self._engine.cpus))

    def _start(self) -> None:
        """A Ray of our own, or a connection to the one that is asked for."""
        engine = self._engine
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
        address = engine.address or os.environ.get("RAY_ADDRESS")
        options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if address is None:
            count = engine.workers or max(1, int(len(os.sched_getaffinity(0)) / engine.cpus))
            options |= {"num_cpus": math.ceil(count * engine.cpus), "include_dashboard": False}
        try:
            self._ray.init(address=address or "local", runtime_env=_environment(self._threads), **options)
        except (ConnectionError, ValueError) as error:
            raise InputError(f"engine.address={address}: no Ray can be reached there ({error})") from error

    def _room(self) -> int:
        """How many workers the cluster has room for."""
        there = self._ray.cluster_resources()
        room = [there.get("CPU", 0) / self._engine.cpus]
        if self._engine.gpus:
            room.append(there.get("GPU", 0) / self._engine.gpus)
        return max(1, int(min(room)))

    def _hire(self, count: int) -> None:
        for _ in range(count):
            actor = self._kind.remote()
            greeting = actor.settle.remote(os.getcwd(), self._threads)
            self._hired[greeting] = _Hand(actor, greeting)

    def _welcome(self, hand: _Hand) -> None:
        """One that has begun, or died before."""
        try:
            problem = self._ray.get(hand.greeting)
            if problem is None:
                for file in self._tokens:
                    self._check(hand, file)
        except self._ray.exceptions.RayError as error:
            self._stillborn += 1
            if self._stillborn > self._engine.retries:
                raise ChildProcessError(f"Ray's workers die as they begin: {_first_line(error)}") from error
            return
        if problem is not None:
            raise InputError(f"engine=ray: {problem}")
        self._idle.append(hand)

    def _wait(self, answers: list[Any]) -> Any:
        """The first of these, or None where nothing can happen for a long time."""
        ready, _ = self._ray.wait(answers, num_returns=1, timeout=PATIENCE)
        if ready:
            return ready[0]
        if all(answer in self._hired for answer in answers):
            free = self._ray.available_resources()
            log.info(
                "waiting for Ray to start a worker of %g CPUs and %g GPUs; %g CPUs and %g GPUs are free",
                self._engine.cpus,
                self._engine.gpus,
                free.get("CPU", 0),
                free.get("GPU", 0),
            )
        return None

    def check_shared(self, folder: Path) -> None:
        """Of workers that begin later, too."""
        known = {file.parent for file in self._tokens}
        folder = Path(os.path.abspath(folder))
        if folder in known:
            return
        make_folder(folder)
        # removed by `tarot.common.remove_abandoned` where we are killed
        file = folder / f".shared.{os.getpid()}@{socket.gethostname()}.{uuid.uuid4().hex[:8]}.part"
        content = uuid.uuid4().hex
        file.write_text(content, encoding="utf-8")
        self._tokens[file] = content
        deadline = time.monotonic() + PATIENCE
        for hand in self._idle:
            self._check(hand, file)
        while self._hired and (not self._idle or time.monotonic() < deadline):
            answer = self._wait([*self._hired])
            if answer is not None:
                self._welcome(self._hired.pop(answer))

    def _check(self, hand: _Hand, file: Path) -> None:
        host = self._ray.get(hand.actor.misses.remote(str(file), self._tokens[file]))
        if host is not None:
            raise InputError(
                f"{file.parent} is not the same folder on the host {host}: workers on several machines need a folder "
                "that all of them share, such as cache_dir=/shared/cache"
            )

    def close(self) -> None:
        """Ends our workers, and the Ray that was started for them."""
        for hand in (*self._idle, *self._hired.values()):
            self._ray.kill(hand.actor)
        for file in self._tokens:
            file.unlink(missing_ok=True)
        if self._ours:
            self._ray.shutdown()
        spent = self._starting + self._waited
        if 0 < self._worked <= spent:
            log.info(
                "engine=ray: %.0f s of work took %.0f s, with %.0f s to start Ray: engine=local would not be slower",
                self._worked,
                spent,
                self._starting,
            )

    # --- maps --------------------------------------------------------------------------------------------------------

    def map(self, job: Job, items: Iterable[Any]) -> Iterator[Any]:
        number, told = next(self._maps), self._ray.put(job)
        tasks: list[_Task] = []  # a heap: what was lost with a worker comes first
        busy: dict[Any, tuple[_Hand, _Task]] = {}

        def submit(place: int, item: Any) -> None:
            heapq.heappush(tasks, _Task(place, item))

        def collect() -> Outcome[Any]:
            while True:
                self._hire(self._count - len(self._idle) - len(self._hired) - len(busy))
                while tasks and self._idle:
                    hand, task = self._idle.pop(), heapq.heappop(tasks)
                    busy[hand.actor.do.remote(number, [told], task.place, task.item)] = hand, task
                began = time.monotonic()
                answer = self._wait([*busy, *self._hired])
                self._waited += time.monotonic() - began
                if answer in self._hired:
                    self._welcome(self._hired.pop(answer))
                elif answer is not None:
                    hand, task = busy.pop(answer)
                    report = self._report(answer, hand, task)
                    if report is not None:
                        self._worked += report.seconds
                        report.repeat()
                        return report.outcome
                    heapq.heappush(tasks, _Task(task.place, task.item, task.lost + 1))

        try:
            yield from in_order(items, submit, collect, AHEAD * self._count)
        finally:
            for hand, _ in busy.values():  # nobody waits for them any more
                self._ray.kill(hand.actor)

    def _report(self, answer: Any, hand: _Hand, task: _Task) -> Report | None:
        """None where the worker has died with the task."""
        errors = self._ray.exceptions
        try:
            report: Report = self._ray.get(answer)
        except errors.RayTaskError as error:  # an item or a result that cannot be pickled
            report = Report(Outcome(task.place, error=error.cause or error), 0.0, [], [])
        except errors.RayError as error:
            self._ray.kill(hand.actor)
            if task.lost >= self._engine.retries:
                raise ChildProcessError(
                    f"{task.lost + 1} workers have died with the same part of the work, which is often for want of "
                    f"memory: {_first_line(error)}"
                ) from error
            log.warning("warning: a worker has died (%s); another one does its part again", _first_line(error))
            return None
        self._idle.append(hand)
        return report


def _environment(threads: int) -> dict[str, Any]:
    """Of workers, before they import anything."""
    ours = [os.path.abspath(path) for path in sys.path if not path.startswith((sys.prefix, sys.base_prefix))]
    waiting = {name: os.environ[name] for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT") if name in os.environ}
    return {
        "env_vars": {
            "OMP_NUM_THREADS": str(threads),
            "PYTHONPATH": os.pathsep.join(dict.fromkeys(ours)),
            "TAROT_PROGRESS": "0",  # the one who asks for the work shows how far it is
            **waiting,
        }
    }


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
