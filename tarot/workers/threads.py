"""Work in threads of this process: for what leaves the GIL, as matrix products and the network simplex do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

from tarot.common import Count, check_options
from tarot.workers.given_up import is_worker, works_for
from tarot.workers.in_order import AHEAD, Outcome, in_order
from tarot.workers.in_process import LOCAL
from tarot.workers.protocol import Item, Result


@dataclass(frozen=True)
class Threads:
    """The process's threads are shared out: n workers of as many threads each as there are, divided by n.

    workers: how many; None: as many as torch has threads. A map within a map is done by the thread that asks for it.
    """

    workers: Count | None = None

    def __post_init__(self) -> None:
        check_options(self, "engine")

    def map(
        self,
        work: Callable[..., Result],
        items: Iterable[Item],
        *shared: Any,
        setup: Callable[..., Any] | None = None,
    ) -> Iterator[Result]:
        count = self.workers or torch.get_num_threads()
        if is_worker() or count == 1:
            yield from LOCAL.map(work, items, *shared, setup=setup)
            return
        crew = _Crew(count, work, shared, setup)
        before = torch.get_num_threads()
        torch.set_num_threads(max(1, before // count))  # of threads that begin after this
        try:
            yield from in_order(items, crew.submit, crew.ended.get, AHEAD * count)
        finally:
            crew.dismiss()
            torch.set_num_threads(before)

    def shares(self, folder: Path) -> None:
        pass

    def close(self) -> None:
        pass


class _Crew:
    """Threads of one map. They do not keep the process from ending: an item that was interrupted may take long."""

    def __init__(self, count: int, work: Callable[..., Any], shared: tuple[Any, ...], setup: Any) -> None:
        self.count, self.work, self.shared, self.setup = count, work, shared, setup
        self.ended: SimpleQueue[Outcome[Any]] = SimpleQueue()
        self._items: SimpleQueue[tuple[int, Any] | None] = SimpleQueue()
        self._given_up = threading.Event()
        self._threads: list[threading.Thread] = []

    def submit(self, place: int, item: Any) -> None:
        self._items.put((place, item))
        if len(self._threads) < self.count:
            thread = threading.Thread(target=self._labour, name=f"tarot-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def dismiss(self) -> None:
        self._given_up.set()
        for _ in self._threads:
            self._items.put(None)

    def _labour(self) -> None:
        works_for(self._given_up)
        state, ready = None, self.setup is None
        while (following := self._items.get()) is not None and not self._given_up.is_set():
            place, item = following
            try:
                if not ready:
                    state, ready = self.setup(*self.shared), True
                self.ended.put(Outcome(place, self.work(item, state, *self.shared)))
            except CancelledError:
                return
            except BaseException as error:
                self.ended.put(Outcome(place, error=error))
