"""What the bins show, as numbers, a table, figures and a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.frame.run import Run
from experiments.quantiles.figures import by_bin
from experiments.quantiles.findings import RANDOM, ZERO, Bin, Curves
from experiments.report import Interval, Result, Table, Tile, numbers, plus_minus, signed


def result(run: Run, found: Curves, order: str, further: Sequence[str]) -> Result:
    """order: the selector whose order it is. further: metrics beside the headline."""
    metrics = found.found.metrics(further)
    return Result(
        title=f"{run.name['task']}, does nearness predict usefulness?",
        metrics=_metrics(found, metrics, order),
        summary=_summary(found, metrics[-1]),
        tiles=_tiles(found, metrics[-1]),
        tables=[_table(found, metric) for metric in metrics],
        figures=[by_bin(found, metric, order) for metric in metrics],
        made_of={"experiment": run.config["experiment"], "task": run.task.recipe()},
    )


def _metrics(found: Curves, metrics: Sequence[str], order: str) -> dict[str, Any]:
    correlations = {
        f"spearman/{metric}/{name}": found.correlation(name, metric)
        for metric in metrics
        for name in found.representations
    }

    def of(point: Bin) -> dict[str, Any]:
        return {
            name: {**numbers(found.found.score(point, name)), "values": found.found.numbers(point, name).tolist()}
            for name in found.found.metric_names
        }

    return {
        "metrics": {name: one.mean for name, one in correlations.items()},
        "intervals": {name: [one.low, one.high] for name, one in correlations.items()},
        "interval": found.found.how,
        "order": order,
        "bins": found.bins,
        "focus": found.focus,
        "size": found.size,
        "curves": {name: [of(point) for point in found.of(name)] for name in found.representations},
        "lines": {str(point): of(point) for point in (ZERO, RANDOM)},
    }


def _table(found: Curves, metric: str) -> Table:
    def row(name: str) -> list[str]:
        bins = [found.found.score(point, metric) for point in found.of(name)]
        return [
            name,
            signed(found.correlation(name, metric)),
            plus_minus(bins[0]),
            plus_minus(bins[found.bins // 2]),
            plus_minus(bins[-1]),
            signed(found.step(name, metric)),
        ]

    loss = metric if found.found.lower_is_better(metric) else f"minus {metric}"
    lines = " ".join(
        f"{what}: {plus_minus(found.found.score(point, metric))}."
        for what, point in (("A model that has learnt nothing", ZERO), ("Random candidates", RANDOM))
    )
    caption = (
        f"Spearman's correlation of bin and {loss}: 1 where every bin is worse than all nearer ones, 0 where nearness "
        f"says nothing. {lines} {found.found.how}"
    )
    columns = ["", "Spearman", "nearest bin", "a middle bin", "farthest bin", "nearest minus random"]
    rows = [row(name) for name in found.representations]
    return Table(f"Nearness and {metric}", caption, columns, rows, _steepest(found, metric))


def _steepest(found: Curves, metric: str) -> int:
    means = [found.correlation(name, metric).mean for name in found.representations]
    return max(range(len(means)), key=means.__getitem__)


def _tiles(found: Curves, metric: str) -> list[Tile]:
    best = found.representations[_steepest(found, metric)]
    part = "" if found.focus == 1 else f" of the nearest {found.focus:.0%}"
    return [
        Tile("Spearman", signed(found.correlation(best, metric)), f"of bin and {metric}, {best}"),
        Tile("nearest minus random", signed(found.step(best, metric)), f"{metric}, {best}"),
        Tile("bins", f"{found.bins}", f"{found.size:,} candidates drawn from each{part}"),
    ]


def _summary(found: Curves, metric: str) -> str:
    said = [f"{name}: {_told(found.correlation(name, metric))}" for name in found.representations]
    return (
        f"Does {metric} get worse from the nearest to the farthest bin? Spearman's correlation by {'; by '.join(said)}."
    )


def _told(correlation: Interval) -> str:
    if correlation.known and correlation.low <= 0 <= correlation.high:
        return f"{signed(correlation)}, not to be told from 0"
    return signed(correlation)
