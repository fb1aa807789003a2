"""What every engine can do: apply a function to items, and hand on the results in the items' order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

Item = TypeVar("Item")
Result = TypeVar("Result")


@runtime_checkable
class Workers(Protocol):
    """Where a map runs. Results have the same bits wherever that is: items do not depend on how many workers there are,
    and a worker computes in as many threads as this process would.

    workers: how many items are worked on at once; None: as many as there is room for.
    """

    @property
    def workers(self) -> int | None: ...

    def map(
        self,
        work: Callable[..., Result],
        items: Iterable[Item],
        *shared: Any,
        setup: Callable[..., Any] | None = None,
    ) -> Iterator[Result]:
        """`work(item, state, *shared)` of every item, in the items' order, as the results are asked for.

        state: what `setup(*shared)` gave, once for each worker; None without one. Work may change the state and nothing
        else. Where workers are other processes, functions, items, shared objects and results are pickled; shared ones
        should be small, NumPy arrays or what reads a file.

        Raises what `work` raised, with its type, of the first item that failed; nothing is tried again for that.
        """
        ...

    def shares(self, folder: Path) -> None:
        """Raises InputError, which names the host, where a worker does not see this folder as this process does."""
        ...

    def close(self) -> None:
        """Ends the workers. A later map starts others."""
        ...


def check_workers(engine: object) -> None:
    """Raises TypeError unless it is one of these."""
    if isinstance(engine, type) or not isinstance(engine, Workers):
        raise TypeError(f"engine must be one of tarot.workers, such as tarot.workers.Threads(4); it is {engine!r}")
