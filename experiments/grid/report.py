"""What the grid found, as numbers, tables, figures and a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.frame.run import Run
from experiments.grid.figures import by_representation, spaces
from experiments.report import (
    UNTRAINED,
    Arm,
    Findings,
    Interval,
    Result,
    Table,
    Tile,
    differences,
    mean_interval,
    numbers,
    plus_minus,
    signed,
)


@dataclass(frozen=True, eq=False)
class Landscape:
    """findings: of every algorithm on every representation at every ratio, and of the lines. against: the algorithm
    that others are compared with. distances: of each arm, in each repetition: representation -> OT distance of its
    selection to the targets there. features: fingerprints."""

    findings: Findings
    representations: tuple[str, ...]
    algorithms: tuple[str, ...]
    ratios: tuple[float, ...]
    against: str
    distances: Mapping[Arm, Sequence[Mapping[str, float]]]
    features: Sequence[str]

    def cells(self, ratio: float) -> list[Arm]:
        """The arms of the grid at one ratio."""
        return [Arm(name, ratio, features) for features in self.representations for name in self.algorithms]

    def best(self, ratio: float) -> Arm:
        """Of the grid at one ratio, the arm with the best mean."""
        sign = -1 if self.findings.lower_is_better() else 1
        return max(self.cells(ratio), key=lambda arm: sign * self.findings.score(arm).mean)

    def reference(self, ratio: float) -> Arm:
        """What is compared with: the algorithm `against` on the first representation."""
        return Arm(self.against, ratio, self.representations[0])

    def distance(self, arm: Arm, features: str) -> Interval:
        """Of the arm's selection to the targets, by one representation."""
        return mean_interval([of_repetition[features] for of_repetition in self.distances[arm]])


def result(run: Run, found: Landscape, further: Sequence[str]) -> Result:
    """further: metrics that have a table of their own."""
    metrics = found.findings.metrics(further)
    return Result(
        title=f"{run.name['task']}, representations and algorithms",
        metrics=_metrics(found),
        summary=_summary(found),
        tiles=_tiles(found),
        tables=[
            *(_table(found, metric) for metric in metrics),
            *(_paired_table(found, ratio) for ratio in found.ratios),
            _distance_table(found),
        ],
        figures=[
            *(by_representation(found, metric) for metric in metrics),
            differences(found.findings, found.reference(found.ratios[0]), found.cells(found.ratios[0])),
            spaces(found),
        ],
        made_of={"experiment": run.config["experiment"], "task": run.task.recipe(), "features": found.features},
    )


def _metrics(found: Landscape) -> dict[str, Any]:
    findings = found.findings
    scores = {f"{findings.headline}/{arm}": findings.score(arm) for arm in findings.arms}

    def minus(arm: Arm, other: Arm) -> dict[str, Any]:
        return {**numbers(findings.difference(arm, other)), "of": str(other), "ahead": findings.ahead(arm, other)}

    def of(arm: Arm) -> dict[str, Any]:
        known = {
            "selector": arm.selector,
            "features": arm.features,
            "at": arm.at,
            "metrics": {
                name: {**numbers(findings.score(arm, name)), "values": findings.numbers(arm, name).tolist()}
                for name in findings.metric_names
            },
            "size": findings.facts(arm, "size").tolist(),
            "ot_distance": {name: found.distance(arm, name).mean for name in found.representations},
        }
        if findings.tagged:
            known["precision"] = findings.facts(arm, "precision").tolist()
        if isinstance(arm.at, float) and arm.features is not None:
            known["minus_reference"] = minus(arm, found.reference(arm.at))
            known["minus_same_features"] = minus(arm, Arm(found.against, arm.at, arm.features))
        return known

    return {
        "metrics": {name: score.mean for name, score in scores.items()},
        "intervals": {name: [score.low, score.high] for name, score in scores.items()},
        "interval": findings.how,
        "headline": findings.headline,
        "lower_is_better": findings.lower_is_better(),
        "against": found.against,
        "arms": {str(arm): of(arm) for arm in findings.arms},
    }


def _better(found: Landscape, metric: str) -> str:
    return " The lower the better." if found.findings.lower_is_better(metric) else ""


def _table(found: Landscape, metric: str) -> Table:
    """Algorithms down, representations and budgets across; the lines below."""
    findings = found.findings
    columns = [(features, ratio) for features in found.representations for ratio in found.ratios]

    def line(name: str) -> list[str]:
        own = [arm for arm in findings.arms if arm.features is None and arm.selector == name]
        by_ratio = {arm.at: plus_minus(findings.score(arm, metric)) for arm in own}
        return [name, *(by_ratio.get(ratio, by_ratio.get(None, "–")) for _, ratio in columns)]

    rows = [
        [name, *(plus_minus(findings.score(Arm(name, ratio, features), metric)) for features, ratio in columns)]
        for name in found.algorithms
    ]
    lines = dict.fromkeys(arm.selector for arm in findings.arms if arm.features is None)
    names = [f"{features}, {ratio:.3g}" for features, ratio in columns]
    caption = f"{metric} by algorithm, representation and share selected.{_better(found, metric)} {findings.how}"
    return Table(f"{metric} of all", caption, ["", *names], [*rows, *map(line, lines)])


def _paired_table(found: Landscape, ratio: float) -> Table:
    findings, reference = found.findings, found.reference(ratio)
    sign = -1 if findings.lower_is_better() else 1
    cells = sorted(found.cells(ratio), key=lambda arm: -sign * findings.score(arm).mean)
    pairs = len(findings.numbers(reference, findings.headline))

    def row(arm: Arm) -> list[str]:
        same = Arm(found.against, ratio, arm.features)
        return [
            arm.name,
            plus_minus(findings.score(arm)),
            "–" if arm == reference else signed(findings.difference(arm, reference)),
            "–" if arm == reference else f"{findings.ahead(arm, reference)} of {pairs}",
            "–" if arm == same else signed(findings.difference(arm, same)),
        ]

    told = " One is told from 0 where its interval leaves 0 out." if findings.score(reference).known else ""
    caption = (
        f"The best first. Differences are pair by pair, between models of one repetition: to {reference.name}, and to "
        f"{found.against} on the same features.{told}{_better(found, findings.headline)} {findings.how}"
    )
    columns = ["", findings.headline, f"minus {reference.name}", "ahead in", f"minus {found.against} on the same"]
    rows = [row(arm) for arm in cells]
    return Table(f"At {ratio:.3g} of the candidates", caption, columns, rows, cells.index(reference))


def _distance_table(found: Landscape) -> Table:
    """At the smallest budget: who minimises whose distance?"""
    ratio = found.ratios[0]
    arms = [*found.cells(ratio), *(arm for arm in found.findings.arms if arm.features is None)]
    rows = [
        [str(arm), *("–" if np.isnan(of.mean) else f"{of.mean:.3f}" for of in measured)]
        for arm in arms
        if arm.at in (ratio, None) and arm.selector != UNTRAINED
        for measured in [[found.distance(arm, name) for name in found.representations]]
    ]
    caption = (
        f"OT distance of selections of {ratio:.3g} of the candidates, and of the lines, to the targets, measured in "
        "the space of each representation; means over repetitions. Numbers of one column can be compared."
    )
    return Table("Distances in every space", caption, ["", *found.representations], rows)


def _tiles(found: Landscape) -> list[Tile]:
    findings = found.findings
    tiles = []
    for ratio in found.ratios:
        best, reference = found.best(ratio), found.reference(ratio)
        tiles.append(Tile(f"best at {ratio:.3g}", plus_minus(findings.score(best)), best.name))
        if best != reference:
            difference = signed(findings.difference(best, reference))
            tiles.append(Tile(f"minus {reference.name}", difference, f"at {ratio:.3g}"))
    return tiles


def _summary(found: Landscape) -> str:
    findings, parts = found.findings, []
    for ratio in found.ratios:
        best, reference = found.best(ratio), found.reference(ratio)
        words = f"at {ratio:.3g} of the candidates {best.name} has the best mean {findings.headline}, "
        words += f"{findings.score(best).mean:.3f}"
        if best != reference:
            difference = findings.difference(best, reference)
            told = difference.known and not difference.low <= 0 <= difference.high
            words += f" ({signed(difference)} to {reference.name}{'' if told else ', not to be told from 0'})"
        parts.append(words)
    sentence = "; ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}."
