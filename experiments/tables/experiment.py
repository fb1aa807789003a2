"""The paper's tables: its rows, columns and figures, and below each row what finished runs have measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from string import Formatter
from typing import Any, ClassVar

import yaml

from experiments.frame.finished import read_config, read_metrics
from experiments.frame.run import Run
from experiments.report import FEWEST, Interval, Result, Table, mean_interval
from tarot import InputError
from tarot.common import Natural, canonical, check_options
from tasks.task import TaskData

_GROUPS = ("task", "selector", "features", "experiment")
_INCIDENTAL = frozenset({"seed", "revision", "logger", "device", "engine", "output_dir", "cache_dir", "data_dir"})
_NOT_THERE = object()


@dataclass(frozen=True)
class Column:
    """metric: a dotted key of metrics.json, of which `scale` times the value is shown. overrides: see `PaperTable`."""

    metric: str
    overrides: Sequence[str] = ()
    scale: float = 1.0
    digits: Natural = 1

    def __post_init__(self) -> None:
        check_options(self, "experiment.columns")


@dataclass(frozen=True)
class Row:
    """paper: its figure for each column, as printed; null where it has none. overrides: see `PaperTable`."""

    paper: Sequence[float | str | None]
    overrides: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_options(self, "experiment.rows")


@dataclass(frozen=True)
class Cell:
    """paper: as printed. measured: over `seeds` of our runs; None where there is none. others: runs that fit, too, but
    differ from those in more than the seed. command: what would measure."""

    row: str
    column: str
    paper: str
    measured: Interval | None
    seeds: int
    others: int
    command: str


@dataclass(frozen=True)
class PaperTable:
    """Collects; it runs nothing. title, caption: as the paper's, in short. runs: the folder whose runs are looked at.
    tasks: what "{name}" in overrides stands for, so that a table can be of smaller tasks than the paper's.

    A cell belongs to the runs whose command line, or its defaults, says what the overrides of its row and its column
    say: "task=instruction/less", "selector.ratio=0.05". Of runs that differ in the seed alone the mean is shown, of
    those with the same seed the newest counts. Where runs differ in more, the newest and its likes are shown, and the
    page says how many others there are.
    """

    task_type: ClassVar = TaskData
    unused: ClassVar[frozenset[str]] = frozenset(
        {"task", "task.*", "features", "features.*", "selector", "selector.*", "seed"}
    )  # it runs nothing

    title: str
    columns: Mapping[str, Column]
    rows: Mapping[str, Row]
    caption: str = ""
    tasks: Mapping[str, str] = field(default_factory=dict)
    runs: str = "outputs"

    def __post_init__(self) -> None:
        check_options(self, "experiment")
        for name, row in self.rows.items():
            if len(row.paper) != len(self.columns):
                raise InputError(
                    f"experiment.rows.{name}.paper must have a figure, or null, for each of the {len(self.columns)} "
                    f"columns; it has {len(row.paper)}"
                )
        parts: list[Row | Column] = [*self.rows.values(), *self.columns.values()]
        for override in (override for part in parts for override in part.overrides):
            if "=" not in override:
                raise InputError(f"overrides of a table must read key=value; {override!r} does not")
            unknown = sorted({name for _, name, _, _ in Formatter().parse(override) if name} - set(self.tasks))
            if unknown:
                raise InputError(f"experiment.tasks does not say what {unknown[0]} is, which {override!r} asks for")

    def run(self, run: Run) -> Result:
        if not Path(self.runs).is_dir():
            raise InputError(f"experiment.runs: there is no folder {self.runs}; run something first")
        cells = self.cells(finished_runs(Path(self.runs)))
        measured = [cell for cell in cells if cell.measured is not None]
        first = next((cell for cell in cells if cell.measured is None), None)
        summary = f"{len(measured)} of {len(cells)} cells are measured by runs in {self.runs}."
        others = sum(cell.others for cell in measured)
        if others:
            summary += f" {others} older results with other options than the newest are not shown."
        if first is not None:
            summary += f" The first that is not, {first.row}, {first.column}: {first.command}"
        return Result(
            title=self.title,
            metrics={"metrics": {}, "cells": [asdict(cell) for cell in cells]},
            summary=summary,
            tables=[self._table(cells)],
        )

    def cells(self, runs: Sequence[FinishedRun]) -> list[Cell]:
        """Row by row."""
        found = []
        for row_name, row in self.rows.items():
            for (column_name, column), paper in zip(self.columns.items(), row.paper, strict=True):
                wanted = [override.format(**self.tasks) for override in (*column.overrides, *row.overrides)]
                fitting = [
                    one
                    for one in runs
                    if isinstance(_at(one.metrics, column.metric), int | float)
                    and all(one.says(override) for override in wanted)
                ]
                alike = [one for one in fitting if one.setting == fitting[-1].setting]
                by_seed = {  # the newest run of a seed comes last
                    one.metrics["run"]["seed"]: column.scale * _at(one.metrics, column.metric) for one in alike
                }
                found.append(
                    Cell(
                        row_name,
                        column_name,
                        paper="" if paper is None else str(paper),
                        measured=mean_interval(list(by_seed.values())) if by_seed else None,
                        seeds=len(by_seed),
                        others=len(fitting) - len(alike),
                        command=" ".join(["python run.py", *wanted]),
                    )
                )
        return found

    def _table(self, cells: Sequence[Cell]) -> Table:
        body, width = [], len(self.columns)
        for start, name in zip(range(0, len(cells), width), self.rows, strict=True):
            line = cells[start : start + width]
            body.append([name, *(cell.paper for cell in line)])
            texts = [
                _text(cell.measured, column.digits) for cell, column in zip(line, self.columns.values(), strict=True)
            ]
            body.append([f"measured{_seeds(line)}", *texts])
        how = f"First lines: the paper's figures. Below: ours, means over seeds, with 95% intervals from {FEWEST} on."
        return Table(self.title, f"{self.caption} {how}".strip(), ["", *self.columns], body)


@dataclass(frozen=True)
class FinishedRun:
    """metrics: its metrics.json. config: its config.yaml."""

    metrics: Mapping[str, Any]
    config: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def setting(self) -> str:
        """What tells it from other runs, but the seed and where it ran."""
        groups = {group: self.metrics["run"].get(group) for group in _GROUPS}
        return canonical({"run": groups, "config": _without(self.config, _INCIDENTAL)})

    def says(self, override: str) -> bool:
        key, _, value = override.lstrip("+").partition("=")
        if key in _GROUPS:
            return self.metrics["run"].get(key) == value
        return _at(self.config, key) == yaml.safe_load(value)


def finished_runs(folder: Path) -> list[FinishedRun]:
    """Of the folder and those in it, the oldest first."""
    paths = [path for path in folder.rglob("metrics.json") if path.with_name("config.yaml").is_file()]
    paths.sort(key=lambda path: path.stat().st_mtime)
    return [FinishedRun(read_metrics(path), read_config(path.with_name("config.yaml"))) for path in paths]


def _without(tree: Any, names: frozenset[str]) -> Any:
    """The tree without what has one of these names, wherever it stands."""
    if isinstance(tree, Mapping):
        return {str(key): _without(value, names) for key, value in tree.items() if key not in names}
    return [_without(item, names) for item in tree] if isinstance(tree, list) else tree


def _at(tree: Any, key: str) -> Any:
    """The value at a dotted key; names may have dots themselves."""
    if not isinstance(tree, Mapping):
        return _NOT_THERE
    if key in tree:
        return tree[key]
    head, _, rest = key.partition(".")
    return _at(tree[head], rest) if rest and head in tree else _NOT_THERE


def _text(measured: Interval | None, digits: int) -> str:
    if measured is None:
        return "–"
    text = f"{measured.mean:.{digits}f}"
    return f"{text} [{measured.low:.{digits}f}, {measured.high:.{digits}f}]" if measured.known else text


def _seeds(line: Sequence[Cell]) -> str:
    counts = sorted({cell.seeds for cell in line} - {0})
    if not counts:
        return ""
    return f", {counts[0] if len(counts) == 1 else f'{counts[0]} to {counts[-1]}'} seed{'s' * (counts[-1] > 1)}"
