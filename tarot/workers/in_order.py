"""Results in the items' order, whoever finishes first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic

from tarot.workers.protocol import Item, Result

AHEAD = 4
"""Items for each worker that may be under way or finished and not handed on yet: what is held of results."""


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """The result of an item, or the error that it ended with."""

    place: int
    result: Result | None = None
    error: BaseException | None = None


def in_order(
    items: Iterable[Item],
    submit: Callable[[int, Item], None],
    collect: Callable[[], Outcome[Result]],
    ahead: int,
) -> Iterator[Result]:
    """Results of the items, in their order.

    submit: given (place, item), which begins in the order of places. collect: waits for one that has ended, any of
    them. Nothing is submitted after an item has failed; its error is raised when all before it are handed on.
    """
    waiting = enumerate(items)
    ended: dict[int, Outcome[Any]] = {}
    submitted, place, failed, more = 0, 0, False, True
    while True:
        while more and not failed and submitted - place < ahead:
            following = next(waiting, None)
            if following is None:
                more = False
            else:
                submit(*following)
                submitted += 1
        if place == submitted:
            return
        while place not in ended:
            outcome = collect()
            ended[outcome.place] = outcome
            failed = failed or outcome.error is not None
        outcome = ended.pop(place)
        if outcome.error is not None:
            raise outcome.error
        yield outcome.result  # type: ignore[misc]  # it has one
        place += 1
