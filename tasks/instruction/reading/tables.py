"""Rows of a table: csv, parquet, and the arrow files that the library `datasets` saves."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import ipc, parquet

from tarot import InputError
from tarot.common import check_is_file, is_name, read_json
from tarot.features import BAD_PARQUET
from tasks.instruction.reading.faults import UTF8, BadRowError
from tasks.instruction.reading.texts import Raw, Record

_AT_ONCE = 1024  # rows
_AGAIN = "write it again, or give it the ending of what it is"
_SAVE = "save it again (save_to_disk), or give its files"


def csv_records(content: bytes, path: Path, *, separator: str = ",") -> Iterator[Record]:
    """Rows of a text in UTF-8 whose first line names the columns; a row's number is that of its first line.

    Raises InputError where there are no names, one is there twice, or it is no table.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{line} is not UTF-8: {error}; {UTF8}") from error
    with _long_fields():
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        line = 1
        try:
            names = next(reader, [])
            if len(set(names)) < len(names):
                raise InputError(f"{path}:1 names a column twice: {', '.join(names)}; rename one of them")
            line = reader.line_num + 1
            for cells in reader:
                if cells:
                    yield Record(line, f"{path}:{line}", _row(names, cells, f"{path}:{line}"))
                line = reader.line_num + 1
        except csv.Error as error:
            raise InputError(
                f"{path}:{line} cannot be read as a table: {error}; a text with separators, line breaks or quotation "
                "marks stands in quotation marks, its own doubled"
            ) from error


def _row(names: list[str], cells: list[str], where: str) -> Raw | BadRowError:
    if len(cells) != len(names):
        detail = f"a row has {len(names)} cells, as many as columns are named; this one has {len(cells)}"
        return BadRowError(where, "of another number of cells", detail, "put texts with separators in quotation marks")
    return dict(zip(names, cells, strict=True))


@contextlib.contextmanager
def _long_fields() -> Iterator[None]:
    """Texts are longer than csv expects."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def parquet_records(path: Path) -> Iterator[Record]:
    """A row's number is its index from 0; what is null is left out."""
    check_is_file(path)
    try:
        file = parquet.ParquetFile(path)
        yield from numbered(path, _rows(file.iter_batches(_AT_ONCE)))
    except BAD_PARQUET as error:
        raise InputError(f"{path} cannot be read as parquet: {error}; {_AGAIN}") from error


def arrow_records(place: Path, files: Sequence[Path]) -> Iterator[Record]:
    """Of arrow files or streams, which `datasets` writes, numbered through. place: what they are together."""
    return numbered(place, itertools.chain.from_iterable(map(_arrow_rows, files)))


def _arrow_rows(path: Path) -> Iterator[Raw]:
    check_is_file(path)
    try:
        with pa.memory_map(str(path)) as source:
            whole = source.read(6) == b"ARROW1"
            source.seek(0)
            if whole:
                file = ipc.open_file(source)
                yield from _rows(file.get_batch(i) for i in range(file.num_record_batches))
            else:
                yield from _rows(ipc.open_stream(source))
    except BAD_PARQUET as error:
        raise InputError(f"{path} cannot be read as arrow: {error}; {_AGAIN}") from error


def _rows(batches: Iterable[pa.RecordBatch]) -> Iterator[Raw]:
    for batch in batches:
        batch.validate(full=True)  # arrow trusts what a file says of where its texts begin, and reads beside it
        yield from batch.to_pylist()


def numbered(place: Path | str, rows: Iterable[Raw]) -> Iterator[Record]:
    """Rows that have no lines, by their index from 0; what is null is left out."""
    for number, row in enumerate(rows):
        yield Record(number, f"{place}[{number}]", without_null(row))


def without_null(columns: Raw) -> dict[str, Any]:
    """A table has every column in every row; where it says nothing, the row has no such field."""
    return {name: value for name, value in columns.items() if value is not None}


def saved_files(folder: Path) -> list[Path] | None:
    """The arrow files of a dataset that was saved by `save_to_disk`, in their order; None for another folder."""
    state = folder / "state.json"
    if not state.is_file():
        return None
    try:
        names = [Path(file["filename"]).name for file in read_json(state)["_data_files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{state} does not say which files the dataset has: {error}; {_SAVE}") from error
    return [folder / name for name in names]


def saved_splits(folder: Path) -> list[str] | None:
    """The splits of several datasets that were saved together; None for another folder."""
    listed = folder / "dataset_dict.json"
    if not listed.is_file():
        return None
    try:
        splits = [str(name) for name in read_json(listed)["splits"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{listed} does not say which splits there are: {error}; {_SAVE}") from error
    for name in splits or [""]:
        if not is_name(name):
            raise InputError(f"{listed} does not say which splits there are: {name!r} is no name of a folder; {_SAVE}")
    return splits
