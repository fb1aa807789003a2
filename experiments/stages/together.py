"""Rows that all processes of a launcher make together, of models whose weights they share; the leader stores them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from tarot.features import FeatureStore
from tarot.featurize import RowsOf, stored_rows
from tarot.gradients import Engine
from tarot.workers import team


def stored_rows_together(wanted: Sequence[RowsOf], setup: Callable[[], Any]) -> list[FeatureStore]:
    """`stored_rows` of what every process sets up and makes at the same time."""
    number = uuid.uuid4().hex
    return stored_rows([_together(rows, number, setup) for rows in wanted], _nothing)


@dataclass
class _Held:
    """What this process has set up, for one list of stores, and what makes the rows of the last of them."""

    number: str = ""
    state: Any = None
    rows: RowsOf | None = None
    maker: Engine | None = None


_held = _Held()


class _Together(RowsOf):
    def rows(self, maker: Engine, start: int, stop: int) -> dict[str, Tensor]:
        return team().call(_rows, start, stop)


def _together(rows: RowsOf, number: str, setup: Callable[[], Any]) -> RowsOf:
    return replace(_Together(**vars(rows)), maker=partial(_maker, number, setup, rows))


def _maker(number: str, setup: Callable[[], Any], rows: RowsOf, state: None) -> Engine:
    return team().call(_hold, number, setup, rows)


def _hold(number: str, setup: Callable[[], Any], rows: RowsOf) -> Engine:
    """Every process's own maker."""
    _held.maker = None  # before the next one takes memory
    if _held.number != number:
        _held.state = None
        _held.state, _held.number = setup(), number
    _held.rows, _held.maker = rows, rows.maker(_held.state)
    return _held.maker


def _rows(start: int, stop: int) -> dict[str, Tensor]:
    assert _held.rows is not None and _held.maker is not None
    return _held.rows.rows(_held.maker, start, stop)


def _nothing() -> None:
    pass
