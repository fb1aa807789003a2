"""Which rows a place means: a file, a pattern, a folder, a dataset on the hub or of LLaMA-Factory's list."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tarot import InputError
from tarot.common import files_below
from tasks.instruction.reading.columns import Columns
from tasks.instruction.reading.dataset_info import listed_datasets
from tasks.instruction.reading.hub import HUB, hub_records
from tasks.instruction.reading.tables import arrow_records, csv_records, parquet_records, saved_files, saved_splits
from tasks.instruction.reading.texts import Record, decoded, json_records, unpacked

PARQUET, ARROW = ".parquet", ".arrow"
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_PACKED = (".gz", ".zst", ".bz2", ".xz")
_TEXTS = (".jsonl", ".json", ".ndjson", *_SEPARATORS)


@dataclass(frozen=True)
class Source:
    """Rows that are read one after another. place: as a message calls it. label: as its rows are called. records: reads
    them. columns: what its columns mean, where the place itself says it."""

    place: str
    label: str
    records: Callable[[], Iterator[Record]]
    columns: Columns | None = None


def sources_of(place: str) -> list[Source]:
    """The files of a place, in their order; one source for a dataset on the hub, or one that was saved to a folder.

    place: a file (JSON, csv, tsv, parquet or arrow; packed or not); a pattern such as data/*.jsonl, or a folder of such
    files; a folder that `datasets` saved, with :SPLIT where it has several; FOLDER/dataset_info.json:NAME; hub:NAME.
    Raises InputError where nothing is there.
    """
    try:
        return _sources_of(place)
    except OSError as error:  # a name that is too long for one
        raise InputError(f"{place} cannot be opened ({error.strerror})") from error


def _sources_of(place: str) -> list[Source]:
    if place.startswith(HUB):
        label = place.removeprefix(HUB).rstrip("/").rsplit("/", 1)[-1]
        return [Source(place, label, partial(hub_records, place))]
    if (listed := listed_datasets(place)) is not None:
        return [
            replace(source, label=one.name, columns=one.columns) for one in listed for source in sources_of(one.place)
        ]
    path = Path(place)
    if path.is_file():
        return [_file(path)]
    if path.is_dir():
        return _folder(path, None)
    whole, _, split = place.rpartition(":")
    if whole and Path(whole).is_dir():
        return _folder(Path(whole), split)
    if glob.has_magic(place):
        found = sorted(Path(name) for name in glob.glob(place, recursive=True))
        files = [file for file in found if file.is_file() and not file.name.startswith(".")]
        if files:
            return [_file(file) for file in files]
        raise InputError(f"nothing is called {place}; give files of rows (jsonl, json, csv, parquet, arrow)")
    raise InputError(f"{place} is not there; give a file of rows (jsonl, json, csv, parquet, arrow), or hub:NAME")


def _file(path: Path) -> Source:
    return Source(str(path), label_of(path), partial(_records, path))


def _records(path: Path) -> Iterator[Record]:
    suffix = _bare(path).suffix.lower()
    if suffix == PARQUET:
        yield from parquet_records(path)
        return
    if suffix == ARROW:
        yield from arrow_records(path, [path])
        return
    content = decoded(unpacked(path), path)
    if suffix in _SEPARATORS:
        yield from csv_records(content, path, separator=_SEPARATORS[suffix])
    else:
        yield from json_records(content, path)


def _bare(path: Path) -> Path:
    """Without what says how it is packed."""
    return path.with_suffix("") if path.suffix.lower() in _PACKED else path


def label_of(path: Path) -> str:
    """What a file's rows are called: its name without endings, and without `_data`, which LESS adds."""
    return _bare(path).stem.removesuffix("_data")


def _folder(path: Path, split: str | None) -> list[Source]:
    splits = saved_splits(path)
    if splits is not None:
        chosen = split or ("train" if "train" in splits else splits[0] if len(splits) == 1 else None)
        if chosen not in splits:
            raise InputError(f"{path} has the splits {', '.join(splits)}; say which: {path}:{splits[0]}")
        return [replace(source, label=path.name) for source in _folder(path / chosen, None)]
    if split is not None:
        raise InputError(f"{path} has no splits; leave :{split} out")
    files = saved_files(path)
    if files is not None:
        return [Source(str(path), path.name, partial(arrow_records, path, files))]
    kinds = (*_TEXTS, PARQUET, ARROW)
    found = files_below(path, lambda file: _bare(file).suffix.lower() in kinds)
    if not found:
        raise InputError(f"{path} holds no files of rows (jsonl, json, csv, parquet, arrow)")
    return [_file(file) for file in found]
