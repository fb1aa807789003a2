"""What a run leaves in its folder: its selection as soon as it is there; figures, metrics and the report at its end."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from experiments.frame.outputs import DONE
from experiments.report import Page, Result, plain
from tarot.common import fingerprint
from tasks.task import AccountsForSamples, WritesForTrainers, WritesSelected

if TYPE_CHECKING:
    from experiments.frame.run import Run
    from tarot import Selection

log = logging.getLogger("tarot")


SELECTION, SCORES, SELECTED = "selection.parquet", "scores.parquet", "selected.jsonl"


def hand_over(run: Run, selection: Selection, scores: Path) -> None:
    """Write a selection into the run's folder, whatever comes after it: what was selected, what is known of every
    candidate (scores: where that is), and the rows themselves where the task can write them."""
    written = [SELECTION, SCORES]
    with run.outputs.file(SELECTION) as temporary:
        selection.save(temporary)
    with run.outputs.file(SCORES) as temporary:
        shutil.copyfile(scores, temporary)
    if isinstance(run.task, WritesSelected):
        written.append(SELECTED)
        with run.outputs.file(SELECTED) as temporary:
            run.task.write_selected(selection, temporary)
    if isinstance(run.task, WritesForTrainers):
        for name, write in run.task.selected_files(selection).items():
            written.append(name)
            with run.outputs.file(name) as temporary:
                write(temporary)
    log.info(
        "selected %d of %d: %s", len(selection), selection.n, ", ".join(str(run.output / name) for name in written)
    )


def publish(run: Run, result: Result) -> None:
    """Write everything into the run's folder, each file whole; metrics.json last: where it is, the run is done."""
    pictures = [figure.render() for figure in result.figures]
    for picture in pictures:
        with run.outputs.file(f"figures/{picture.name}.png") as temporary:
            temporary.write_bytes(picture.light)
    metrics = plain(
        {
            "run": {**run.name, "seed": run.seed, "overrides": run.overrides, "not_applied": run.not_applied},
            **result.metrics,
            **({"data": run.task.account()} if isinstance(run.task, AccountsForSamples) else {}),
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
