"""The files of a run: metrics.json, the selection, figures, and one self-contained page for a person to read."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import yaml

from experiments.style import Figure, Picture
from tarot import Selection
from tarot.files import atomic_file
from tarot.fingerprint import fingerprint
from tasks.task import WritesSelected

if TYPE_CHECKING:
    from experiments.run import Run

_TEMPLATE = Path(__file__).with_name("report.html")


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
    selection: Selection | None = None
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
        environment = jinja2.Environment(
            autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
        )
        template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
        return template.render(page=self, data_url=_data_url)


def publish(run: Run, result: Result) -> None:
    """Write everything into the run's directory, each file whole; metrics.json last: where it is, the run is done."""
    if result.selection is not None:
        result.selection.save(run.output / "selection.parquet")
        if isinstance(run.task, WritesSelected):
            run.task.write_selected(result.selection, run.output / "selected.jsonl")
    pictures = [figure.render() for figure in result.figures]
    for picture in pictures:
        with atomic_file(run.output / "figures" / f"{picture.name}.png") as temporary:
            temporary.write_bytes(picture.light)
    metrics = plain(
        {
            "run": {**run.name, "seed": run.seed, "overrides": run.overrides, "not_applied": run.not_applied},
            **result.metrics,
            "seconds": run.clock.seconds,
            "fingerprint": fingerprint({"run": run.name, "seed": run.seed, **result.made_of}),
        }
    )
    page = Page(
        title=result.title,
        kicker=run.name["experiment"],
        summary=result.summary,
        tiles=result.tiles,
        tables=result.tables,
        pictures=pictures,
        seconds=metrics["seconds"],
        features={**asdict(run.recipe), **metrics["features"]} if "features" in metrics else {},
        config=yaml.safe_dump(run.config, sort_keys=False),
        footer=f"fingerprint {metrics['fingerprint']}",
    )
    with atomic_file(run.output / "report.html") as temporary:
        temporary.write_text(page.html(), encoding="utf-8")
    with atomic_file(run.output / "metrics.json") as temporary:
        temporary.write_text(json.dumps(metrics, indent=2) + "\n")


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
