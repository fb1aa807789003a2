"""Conversations from files and from the hub, each with a name of its own, and an account of those that are no use."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tarot import InputError
from tasks.instruction.reading.columns import columns_of
from tasks.instruction.reading.faults import Account, BadRowError, Faults
from tasks.instruction.reading.places import Source, sources_of
from tasks.instruction.reading.row import Row, check_ids
from tasks.instruction.reading.shapes import Origin, row_of

Places = str | Path | Sequence[str | Path] | Mapping[str, str | Path]
log = logging.getLogger("tarot")


def read_rows(
    places: Places,
    *,
    prefix: bool = False,
    columns: Mapping[str, str] | None = None,
    on_bad_row: str = "drop",
    account: Account | None = None,
) -> list[Row]:
    """The rows of files and of datasets on the hub, in their order.

    places: one, several, or a mapping of datasets' names to them (`sources_of` says what a place is).
    A row's dataset is the name in the mapping, else its own field `dataset`, else what its file is called: its name
    without endings (behind its folder's, where two have one name), or the last part of the hub's. Its id is its field
    `id`, of any type of JSON, else file:line, or file:number where rows have no lines; so it is for all rows of a file
    in which an id is there twice. prefix: put the dataset before every id, which is done anyway where ids of several
    datasets are the same. columns: what columns mean (`columns_of`), of all rows that have some of them.
    on_bad_row: "drop" counts rows that cannot be learned from, names the first ten in the log, and goes on; "raise" is
    an error for the first, and for an id that is there twice. account: is told how many rows were read, and dropped.

    Raises InputError for places that are missing, empty, or without any row to learn from.
    """
    if on_bad_row not in ("drop", "raise"):
        raise InputError(f"on_bad_row must be 'drop' or 'raise'; it is {on_bad_row!r}")
    strict = on_bad_row == "raise"
    own = None if columns is None else columns_of(columns)
    if isinstance(places, str | Path):
        places = [places]
    named = list(places.items() if isinstance(places, Mapping) else [("", place) for place in places])
    found = [(name, sources_of(str(place))) for name, place in named]
    labels = iter(_labels([source for _, sources in found for source in sources]))
    rows: list[Row] = []
    told = Account() if account is None else account
    for name, sources in found:
        for source in sources:
            label = next(labels)
            called = label if not name else name if len(sources) == 1 else f"{name}/{label}"
            rows += _read(source, Origin("", called, label, name, source.columns or own), strict, told)
    if own is not None and not any(own.fit(row.raw) for row in rows):
        there = ", ".join(sorted(set().union(*(row.raw for row in rows))))
        raise InputError(
            f"no row has a column of task.columns ({', '.join(own.names.values())}); name some of these: {there:.300}"
        )
    if prefix or (len({row.id for row in rows}) < len(rows) and len({row.dataset for row in rows}) > 1):
        rows = [replace(row, id=f"{row.dataset}/{row.id}") for row in rows]
    check_ids(rows)
    return rows


def _labels(sources: Sequence[Source]) -> list[str]:
    """What each source's rows are called: its label, its folder before it where several have one, else its place."""
    found = [source.label for source in sources]
    for longer in (
        lambda source: f"{Path(source.place).absolute().parent.name}/{source.label}",
        lambda source: source.place,
    ):
        count = Counter(found)
        found = [longer(source) if count[label] > 1 else label for source, label in zip(sources, found, strict=True)]
    return found


def _read(source: Source, origin: Origin, strict: bool, account: Account) -> list[Row]:
    """origin: of all rows of the source, called `origin.id`."""
    faults, rows = Faults(source.place, strict), []
    names = []
    for number, where, raw in source.records():
        faults.read += 1
        name = f"{origin.id}:{number}"
        try:
            if isinstance(raw, BadRowError):
                raise raw
            rows.append(row_of(raw, replace(origin, where=where, id=name)))
            names.append(name)
        except BadRowError as error:
            faults.add(error)
    faults.say()
    account.read += faults.read
    account.left_out += faults.reasons
    return _named_apart(rows, names, strict)


def _named_apart(rows: list[Row], names: list[str], strict: bool) -> list[Row]:
    """By their place in the file, where some of its rows have one id."""
    count = Counter(row.id for row in rows)
    if len(count) == len(rows):
        return rows
    if strict:
        check_ids(rows)
    first = next(row for row in rows if count[row.id] > 1)
    log.warning(
        "warning: %s: the id %r is there %d times; the rows of its file are named by their place instead",
        first.where,
        first.id,
        count[first.id],
    )
    return [replace(row, id=name) for row, name in zip(rows, names, strict=True)]
