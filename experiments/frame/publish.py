"""What a finished run leaves in its folder: figures, metrics.json, the report."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import yaml

from experiments.frame.outputs import DONE
from experiments.report import Page, Result, plain
from tarot.common import fingerprint
from tasks.task import WritesForTrainers, WritesSelected

if TYPE_CHECKING:
    from experiments.frame.run import Run


def publish(run: Run, result: Result) -> None:
    """Write everything into the run's folder, each file whole; metrics.json last: where it is, the run is done."""
    if result.selection is not None:
        with run.outputs.file("selection.parquet") as temporary:
            result.selection.save(temporary)
        if isinstance(run.task, WritesSelected):
            with run.outputs.file("selected.jsonl") as temporary:
                run.task.write_selected(result.selection, temporary)
        if isinstance(run.task, WritesForTrainers):
            for name, write in run.task.selected_files(result.selection).items():
                with run.outputs.file(name) as temporary:
                    write(temporary)
    pictures = [figure.render() for figure in result.figures]
    for picture in pictures:
        with run.outputs.file(f"figures/{picture.name}.png") as temporary:
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
    with run.outputs.file("report.html") as temporary:
        temporary.write_text(page.html(), encoding="utf-8")
    with run.outputs.file(DONE) as temporary:
        temporary.write_text(json.dumps(metrics, indent=2) + "\n")
