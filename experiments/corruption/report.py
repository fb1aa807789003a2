"""What the corruption experiment found, as numbers, tables, figures and a sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from experiments.corruption import figures as detection_figures
from experiments.corruption.case import Case
from experiments.corruption.figures import Strip, title
from experiments.corruption.pruning import Incremental, Prune, Scores
from experiments.frame.methods import features_of
from experiments.frame.run import Run
from experiments.report import Figure, Interval, Result, Table, Tile, explain, mean_interval
from tarot.attribution import Detection

RANDOM_AREA = 0.5
_SHOWN = 8  # candidates of lowest value in the picture of a kind


@dataclass(frozen=True)
class Found:
    """How well one method detects one corruption in one repetition. seconds: of the valuation."""

    method: str
    kind: str
    detection: Detection
    seconds: float


@dataclass
class Findings:
    """Of all repetitions. fractions: that are corrupted, by kind. recipes: facts about the features, by recipe.
    retrained: "prune" and "incremental", by kind, one for each repetition. values: the tables of values, by the name
    of their file. first: the first repetition of every kind."""

    seeds: int
    methods: list[Found] = field(default_factory=list)
    fractions: dict[str, list[float]] = field(default_factory=dict)
    recipes: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    retrained: dict[str, dict[str, list[Scores]]] = field(default_factory=lambda: {"prune": {}, "incremental": {}})
    values: dict[str, pa.Table] = field(default_factory=dict)
    first: dict[str, Case] = field(default_factory=dict)

    @property
    def how(self) -> str:
        return f"{explain(self.seeds, 'repetition')} Each has its own data, corruption and surrogates."

    @property
    def kinds(self) -> list[str]:
        return list(self.fractions)

    def share(self, kind: str) -> float:
        """Of the candidates, that is corrupted: also the rate that looking at random has."""
        return float(np.mean(self.fractions[kind]))

    def numbers(self, what: str, kind: str | None, method: str) -> list[float]:
        """`rate`, `area` or `seconds` of every repetition; the mean over kinds where none is given."""
        if kind is None:
            return np.mean([self.numbers(what, one, method) for one in self.kinds], axis=0).tolist()
        found = [one for one in self.methods if one.kind == kind and one.method == method]
        return [one.seconds if what == "seconds" else getattr(one.detection, what) for one in found]

    def interval(self, what: str, kind: str | None, method: str) -> Interval:
        """Of a rate or an area, which no interval leaves."""
        return _share(self.numbers(what, kind, method))

    def seconds(self, method: str) -> float:
        """Of the valuation; mean over kinds and repetitions."""
        return float(np.mean(self.numbers("seconds", None, method)))

    def feature_seconds(self, recipe: str) -> float:
        """Mean over kinds and repetitions."""
        return float(np.mean([facts["seconds"] for facts in self.recipes[recipe]]))

    def ranked(self) -> list[str]:
        """Methods, those first that detect most over all kinds."""
        names = dict.fromkeys(one.method for one in self.methods)
        return sorted(names, key=lambda name: -self.interval("rate", None, name).mean)

    def best(self, kind: str) -> str:
        return max(self.ranked(), key=lambda name: self.interval("rate", kind, name).mean)

    def curves(self, kind: str, method: str) -> np.ndarray:
        """[repetitions, N + 1]"""
        return np.stack([one.detection.rates for one in self.methods if (one.kind, one.method) == (kind, method)])

    def alike(self) -> list[str]:
        """Methods that put the candidates into the same order, wherever they were asked: "a, b" for each group."""
        groups: dict[bytes, list[str]] = {}
        for name in self.ranked():
            curves = b"".join(self.curves(kind, name).tobytes() for kind in self.kinds)
            groups.setdefault(curves, []).append(name)
        return [", ".join(names) for names in groups.values() if len(names) > 1]

    def scores(self, what: str, kind: str) -> dict[str, list[Interval]]:
        """Of retraining: arm -> one interval for each fraction or part."""
        runs = self.retrained[what][kind]
        return {
            arm: [mean_interval(point) for point in zip(*(run[arm] for run in runs), strict=True)] for arm in runs[0]
        }


def result(run: Run, found: Findings, prune: Prune | None, incremental: Incremental | None) -> Result:
    metric = _headline(found)
    return Result(
        title=f"{run.name['task']}, corrupted candidates",
        metrics=_metrics(found, prune, incremental),
        summary=_summary(found),
        tiles=[
            Tile(
                title(kind),
                f"{found.interval('rate', kind, found.best(kind)).mean:.0%}",
                f"found by {found.best(kind)}; {found.share(kind):.0%} at random",
            )
            for kind in found.kinds
        ],
        tables=[
            _detection_table(found, "rate", "Detection rate", lambda kind: found.share(kind)),
            _detection_table(found, "area", "Area under the detection curve", lambda kind: RANDOM_AREA),
            _cost_table(found),
            *([] if prune is None else _prune_tables(found, prune, metric)),
            *([] if incremental is None else _incremental_tables(found, incremental, metric)),
            _feature_table(found),
        ],
        figures=_figures(found, prune, incremental, metric),
        made_of={"experiment": run.config["experiment"], "task": run.task.recipe()},
    )


def _headline(found: Findings) -> str:
    """What retrained models are judged by."""
    return "accuracy" if any(found.retrained.values()) else ""


def _summary(found: Findings) -> str:
    parts = []
    for kind in found.kinds:
        best = found.best(kind)
        rate = found.interval("rate", kind, best).mean
        parts.append(f"{best} finds {rate:.0%} of the {title(kind)} ({found.share(kind):.0%} at random)")
    return "Among as many candidates of lowest value as there are corrupted, " + ", ".join(parts) + "."


# --- metrics.json ----------------------------------------------------------------------------------------------------


def _metrics(found: Findings, prune: Prune | None, incremental: Incremental | None) -> dict[str, Any]:
    methods = found.ranked()
    headline = {f"rate/{name}": found.interval("rate", None, name) for name in methods}
    headline |= {f"rate/{k}/{name}": found.interval("rate", k, name) for k in found.kinds for name in methods}
    of_kind = {
        kind: {
            "corrupted": found.share(kind),
            "random": {"rate": found.share(kind), "area": RANDOM_AREA},
            "best": found.best(kind),
            "methods": {
                name: {
                    "rate": _facts(found.numbers("rate", kind, name), _share),
                    "area": _facts(found.numbers("area", kind, name), _share),
                    "seconds": _facts(found.numbers("seconds", kind, name)),
                }
                for name in methods
            },
        }
        for kind in found.kinds
    }
    return {
        "metrics": {name: interval.mean for name, interval in headline.items()},
        "intervals": {name: [interval.low, interval.high] for name, interval in headline.items()},
        "interval": found.how,
        "detection": of_kind,
        "prune": None if prune is None else _retrained(found, "prune", fractions=list(prune.fractions)),
        "incremental": None if incremental is None else _retrained(found, "incremental", prune=incremental.prune),
        "recipes": {
            name: {**facts[0], "seconds": found.feature_seconds(name)} for name, facts in found.recipes.items()
        },
    }


def _share(values: Sequence[float]) -> Interval:
    """The interval of a mean share: Student's, as far as it lies between 0 and 1."""
    found = mean_interval(values)
    return replace(found, low=max(0.0, found.low), high=min(1.0, found.high)) if found.known else found


def _facts(
    values: Sequence[float], interval_of: Callable[[Sequence[float]], Interval] = mean_interval
) -> dict[str, Any]:
    interval = interval_of(values)
    return {"mean": interval.mean, "interval": [interval.low, interval.high], "values": list(values)}


def _retrained(found: Findings, what: str, **options: Any) -> dict[str, Any]:
    kinds = {
        kind: {arm: [_facts(point) for point in zip(*(run[arm] for run in runs), strict=True)] for arm in runs[0]}
        for kind, runs in found.retrained[what].items()
    }
    return {**options, "accuracy": kinds}


# --- tables ----------------------------------------------------------------------------------------------------------


def _detection_table(found: Findings, what: str, heading: str, at_random: Callable[[str], float]) -> Table:
    meaning = {
        "rate": "Share of the corrupted candidates among as many of lowest value as there are corrupted.",
        "area": "Under the curve of what is found among the t candidates of lowest value, mean over all t; it sees the "
        "whole order.",
    }[what]
    rows = [[name, *(str(found.interval(what, kind, name)) for kind in found.kinds)] for name in found.ranked()]
    rows.append(["at random", *(f"{at_random(kind):.3f}" for kind in found.kinds)])
    columns = ["", *(f"{title(kind)} ({found.share(kind):.0%})" for kind in found.kinds)]
    alike = "".join(f" The same everywhere: {names}." for names in found.alike())
    return Table(heading, f"{meaning} Methods by their mean detection rate. {found.how}{alike}", columns, rows)


def _cost_table(found: Findings) -> Table:
    rows = []
    for name in found.ranked():
        recipe = features_of(name)
        rows.append([name, recipe, _seconds(found.feature_seconds(recipe)), _seconds(found.seconds(name))])
    caption = (
        "Means over corruptions and repetitions, measured when the result was computed, which may have been in another "
        "run. Surrogates are trained before. Recipes that share features share their cost: who comes first pays."
    )
    return Table("Cost in seconds", caption, ["", "recipe", "features", "valuation"], rows)


def _seconds(seconds: float) -> str:
    if seconds < 0.005:
        return "< 0.01"
    return f"{seconds:.2f}" if seconds < 10 else f"{seconds:,.0f}"


def _prune_tables(found: Findings, prune: Prune, metric: str) -> list[Table]:
    caption = (
        f"{metric.capitalize()} of models trained without the candidates of lowest value. oracle: drops what is "
        f"corrupted first. {found.how}"
    )
    columns = ["", *(f"{fraction:.0%} dropped" for fraction in prune.fractions)]
    return [
        Table(f"Pruning, {title(kind)}", caption, columns, _score_rows(found.scores("prune", kind)))
        for kind in found.retrained["prune"]
    ]


def _incremental_tables(found: Findings, incremental: Incremental, metric: str) -> list[Table]:
    tables = []
    for kind in found.retrained["incremental"]:
        sizes = incremental.sizes(found.first[kind].n)
        caption = (
            f"{metric.capitalize()} after each part (SAVA's Algorithm 2): all that has arrived is valued, the worst "
            f"{incremental.prune:.0%} are left out, a model learns from the others. {found.how}"
        )
        columns = ["", *(f"{size:,} arrived" for size in sizes)]
        rows = _score_rows(found.scores("incremental", kind))
        tables.append(Table(f"Candidates that arrive in parts, {title(kind)}", caption, columns, rows))
    return tables


def _score_rows(scores: dict[str, list[Interval]]) -> list[list[str]]:
    def cell(point: Interval) -> str:
        return f"{point.mean:.3f} ± {point.high - point.mean:.3f}" if point.known else f"{point.mean:.3f}"

    return [[arm, *map(cell, points)] for arm, points in scores.items()]


def _feature_table(found: Findings) -> Table:
    rows = []
    for name, of_cases in found.recipes.items():
        zero = {
            s: max((facts["zero_gradients"] or {}).get(s, 0) for facts in of_cases) for s in ("candidates", "targets")
        }
        users = [method for method in found.ranked() if features_of(method) == name]
        cells = [
            name,
            f"{of_cases[0]['dim']:,}",
            str(of_cases[0]["views"]),
            f"{zero['candidates']} / {zero['targets']}",
        ]
        rows.append([*cells, ", ".join(users)])
    caption = "Zero rows: of candidates and of targets, in the worst repetition; no method has anything to go by there."
    return Table("Features", caption, ["recipe", "dimensions", "views", "zero rows", "methods"], rows)


# --- figures ---------------------------------------------------------------------------------------------------------


def _figures(found: Findings, prune: Prune | None, incremental: Incremental | None, metric: str) -> list[Figure]:
    methods, kinds = found.ranked(), found.kinds
    share = {kind: found.share(kind) for kind in kinds}

    def intervals(what: str) -> dict[str, dict[str, Interval]]:
        return {kind: {name: found.interval(what, kind, name) for name in methods} for kind in kinds}

    curves = {kind: {name: found.curves(kind, name) for name in methods} for kind in kinds}
    drawn = [
        detection_figures.detection_dots(intervals("rate"), intervals("area"), share, methods, found.how),
        detection_figures.detection_curves(curves, share, methods, found.how),
        detection_figures.strips({kind: _strip(found.first[kind], found.best(kind)) for kind in kinds}),
    ]
    if prune is not None and found.retrained["prune"]:
        caption = (
            f"{metric.capitalize()} of models trained on what is left when the candidates of lowest value are dropped. "
            f"The oracle drops what is corrupted first and shows what there is to gain. {found.how}"
        )
        results = {kind: found.scores("prune", kind) for kind in found.retrained["prune"]}
        dropped = [100 * fraction for fraction in prune.fractions]
        labels = ("candidates dropped, %", f"{metric} on test")
        drawn.append(detection_figures.lines("prune", "What pruning is worth", caption, results, dropped, labels))
    if incremental is not None and found.retrained["incremental"]:
        caption = (
            f"Candidates arrive in {incremental.parts} parts. After each, all that has arrived is valued against the "
            f"clean targets, the worst {incremental.prune:.0%} are left out, and a model learns from the others "
            f"(SAVA's Algorithm 2). The surrogates that features are of have seen all parts. {found.how}"
        )
        results = {kind: found.scores("incremental", kind) for kind in found.retrained["incremental"]}
        parts = list(range(1, incremental.parts + 1))
        labels = ("parts that have arrived", f"{metric} on test")
        drawn.append(
            detection_figures.lines("incremental", "Candidates that arrive in parts", caption, results, parts, labels)
        )
    return drawn


def _strip(case: Case, method: str) -> Strip:
    """The candidates of lowest value."""
    return Strip(case.task, method, np.argsort(case.value(method).values, kind="stable")[:_SHOWN])
