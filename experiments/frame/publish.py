"""What a finished run leaves in its folder: figures, metrics.json, the report."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import yaml

from tarot.common import atomic_file, fingerprint
from tasks.task import WritesSelected

if TYPE_CHECKING:
    from experiments.frame.run import Run
from experiments.report import Page, Result, plain


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
