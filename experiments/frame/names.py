"""Names are checked before any work: one that no file can hold would end a run when it is written, hours later."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tarot import InputError
from tasks.task import Split

if TYPE_CHECKING:
    from experiments.frame.run import Run
_HALF = re.compile("[\ud800-\udfff]")


def refuse_half_characters(run: Run) -> None:
    """Raises InputError where a name holds half of a character (a lone surrogate), which is no Unicode."""
    for where, texts in _names(run):
        for text in texts:
            if _HALF.search(text):
                raise InputError(
                    f"{where}: {text!a} holds half of a character (a lone surrogate), which no file can hold; rename it"
                )


def _names(run: Run) -> Iterator[tuple[str, Iterable[str]]]:
    for key, value in run.config.items():
        yield key, _texts(value)
    splits: tuple[Split, ...] = ("candidates", "targets")
    for split in splits:
        yield f"an id of the {split}", run.task.ids(split)
    for what, names in (
        ("a tag of the candidates", run.task.candidate_tags()),
        ("a dataset of the candidates", run.task.candidate_sources()),
        ("a group of the targets", run.task.target_groups()),
    ):
        yield what, set() if names is None else set(map(str, names.tolist()))


def _texts(value: Any) -> Iterator[str]:
    """Every text in a configuration, its keys among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
