"""The files of a run: metrics.json, the selection, figures, and one self-contained page for a person to read."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from experiments.report.style import Figure, Picture

_TEMPLATE = Path(__file__).with_name("page.html")


@dataclass(frozen=True)
class Tile:
    """One number that matters, at the top of the page."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Table:
    """rows: one per line; its first cell names it. strong: the row that the run is about."""

    title: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    strong: int | None = None


@dataclass(frozen=True)
class Result:
    """What an experiment found. metrics: for metrics.json, plain data. summary: one sentence, the finding."""

    title: str
    metrics: dict[str, Any]
    summary: str
    tiles: Sequence[Tile] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    made_of: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """What a person reads: one HTML file that loads nothing from anywhere. seconds, features: as in metrics.json."""

    title: str
    kicker: str
    summary: str
    tiles: Sequence[Tile] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    features: Mapping[str, Any] = field(default_factory=dict)
    config: str = ""
    footer: str = ""

    def html(self) -> str:
        return _template().render(page=self, data_url=_data_url)


@cache
def _template() -> jinja2.Template:
    """Compiled once in a process: a sweep writes a page and its comparison after each job."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))


def _data_url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def plain(value: Any) -> Any:
    """Numbers that JSON knows: NaN and infinities, which it does not, become null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
