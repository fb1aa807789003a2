"""Work in this thread, one item after another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tarot.workers.protocol import Item, Result


@dataclass(frozen=True)
class Local:
    """Each item when its result is asked for."""

    workers: ClassVar[int] = 1

    def map(
        self,
        work: Callable[..., Result],
        items: Iterable[Item],
        *shared: Any,
        setup: Callable[..., Any] | None = None,
    ) -> Iterator[Result]:
        state: Any = None
        for number, item in enumerate(items):
            if number == 0 and setup is not None:
                state = setup(*shared)
            yield work(item, state, *shared)

    def shares(self, folder: Path) -> None:
        pass

    def close(self) -> None:
        pass


LOCAL = Local()
