"""Datasets on the hub, or in a local folder, by the library `datasets`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tarot import InputError
from tarot.common import files_below
from tasks.common.contents import hash_named
from tasks.instruction.reading.tables import numbered
from tasks.instruction.reading.texts import Record

HUB = "hub:"
_PLACE = re.compile(r"hub:(?P<name>[^@:]+)(@(?P<subset>[^:]+))?(:(?P<split>[^/]+))?")


def hub_records(place: str) -> Iterator[Record]:
    """The rows of "hub:NAME[@SUBSET][:SPLIT]"; without a split, that of training. A row's number is its index from 0;
    what is null is left out.

    Raises InputError where the library is missing or cannot load the dataset.
    """
    source, subset, split = _parts(place)
    try:
        import datasets
    except ImportError as error:
        raise InputError(f"{place} is read by the library datasets: pip install datasets, or give files") from error
    try:
        loaded = datasets.load_dataset(source, subset, split=split, cache_dir=kept_in(source))
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise InputError(
            f"{place} (split {split}) cannot be loaded: {error}; look at name, split and network, or give files"
        ) from error
    yield from numbered(place, loaded)


def kept_in(source: str) -> str | None:
    """Where the library keeps what it makes of a local folder: by what is in its files, of which it knows no more than
    when they were changed. None for what is on the hub."""
    if not Path(source).is_dir():
        return None
    import datasets

    ours = Path(datasets.config.HF_DATASETS_CACHE) / "tarot"
    inside = [path for path in files_below(source) if path.is_file()]
    return str(ours / hash_named({path.relative_to(source).as_posix(): path for path in inside}, ours)[:16])


def _parts(place: str) -> tuple[str, str | None, str]:
    """Name or folder, subset and split."""
    whole = place.removeprefix(HUB)
    if whole and Path(whole).is_dir():  # whatever signs its path has
        return whole, None, "train"
    parts = _PLACE.fullmatch(place)
    if parts is None:
        raise InputError(f"{place!r} must be hub:NAME, hub:NAME:SPLIT or hub:NAME@SUBSET:SPLIT")
    return parts["name"], parts["subset"], parts["split"] or "train"
