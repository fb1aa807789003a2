"""How an ablation of the number of folds is told: a table, a figure, metrics.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas

from experiments.frame.run import Run
from experiments.report import (
    SELECTED,
    TARGET,
    WIDTH,
    Figure,
    Interval,
    Result,
    Table,
    Tile,
    explain_repetitions,
    ink,
    mean_interval,
    over_repetitions,
)

_SPLITS = {"test": ("test set", SELECTED, "o"), "targets": ("target set", TARGET, "X")}


@dataclass(frozen=True, eq=False)
class Folds:
    """metric: the first of test's that the targets have, too; headline: the task's. scores: split -> folds -> [seeds,
    trainings]. facts: of selections, name -> folds -> [seeds]. reference: folds that others are compared with.
    merged: targets are trained on. features: fingerprints."""

    metric: str
    headline: str
    lower_is_better: bool
    scores: Mapping[str, Mapping[int, np.ndarray]]
    facts: Mapping[str, Mapping[int, np.ndarray]]
    reference: int
    merged: bool
    features: Sequence[str]

    @property
    def counts(self) -> list[int]:
        return list(self.scores["test"])

    def numbers(self, split: str, folds: int) -> np.ndarray:
        return over_repetitions(self.scores[split][folds])

    def score(self, split: str, folds: int) -> Interval:
        return mean_interval(self.numbers(split, folds))

    def difference(self, split: str, folds: int) -> Interval:
        """To the reference, pair by pair."""
        return mean_interval(self.numbers(split, folds) - self.numbers(split, self.reference))

    def fact(self, name: str, folds: int) -> Interval:
        return mean_interval(self.facts[name][folds])

    @property
    def best(self) -> int:
        """The number of folds with the best mean on test."""
        sign = -1 if self.lower_is_better else 1
        return max(self.counts, key=lambda folds: sign * self.score("test", folds).mean)

    @property
    def how(self) -> str:
        return explain_repetitions(*self.scores["test"][self.counts[0]].shape)

    @property
    def direction(self) -> str:
        return f"{'Lower' if self.lower_is_better else 'Higher'} is better."


def result(run: Run, found: Folds) -> Result:
    return Result(
        title=f"{run.name['task']}, folds of tarot_otm",
        metrics=_metrics(found),
        summary=_summary(found),
        tiles=_tiles(found),
        tables=[_table(found)],
        figures=[by_folds(found)],
        made_of={"experiment": run.config["experiment"], "features": list(found.features)},
    )


def by_folds(found: Folds) -> Figure:
    """The metric on both sets, and below it how many are selected, by number of folds."""

    def draw() -> Canvas:
        canvas = Canvas(figsize=(WIDTH, 4.6), layout="constrained")
        above, below = canvas.subplots(2, sharex=True, height_ratios=[2.4, 1])
        places = np.arange(len(found.counts))
        for side, split in zip((-0.04, 0.04), found.scores, strict=True):
            label, colour, marker = _SPLITS[split]
            _points(above, places + side, [found.score(split, k) for k in found.counts], colour, marker, label)
        above.set_ylabel(found.metric)
        above.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        sizes = [found.fact("size", k) for k in found.counts]
        _points(below, places, sizes, ink(), "s", None)
        below.set_ylim(0, 1.2 * max(max(size.mean, size.high if size.known else 0) for size in sizes))
        below.set_ylabel("selected")
        below.set_xlabel("folds of targets")
        below.set_xticks(places, [str(k) for k in found.counts])
        for axes in (above, below):
            axes.grid(axis="y")
        return canvas

    return Figure("folds", f"{found.metric.capitalize()} by number of folds", _caption(found), draw)


def _points(
    axes: Any, places: np.ndarray, scores: Sequence[Interval], colour: str, marker: str, label: str | None
) -> None:
    mean = np.array([score.mean for score in scores])
    error = np.nan_to_num(np.abs(np.array([[s.low for s in scores], [s.high for s in scores]]) - mean))
    axes.errorbar(places, mean, yerr=error, color=colour, marker=marker, capsize=4, markersize=7, label=label)
    for place, score in zip(places, scores, strict=True):
        axes.plot([place] * len(score.values), score.values, "o", color=colour, markersize=4, fillstyle="none")


def _caption(found: Folds) -> str:
    seen = "are trained on, too" if found.merged else "are not trained on"
    words = f"{found.how} {found.direction} The target set is what the selection looks at; targets {seen}."
    if found.metric != found.headline:
        words += f" The task's headline, {found.headline}, is not known of its targets."
    return words


def _metrics(found: Folds) -> dict[str, Any]:
    def numbers(interval: Interval, values: np.ndarray) -> dict[str, Any]:
        return {"mean": interval.mean, "interval": [interval.low, interval.high], "values": values.tolist()}

    every = [(split, k) for split in found.scores for k in found.counts]
    return {
        "metrics": {f"{found.metric}/{split}/{k}": found.score(split, k).mean for split, k in every},
        "intervals": {
            f"{found.metric}/{split}/{k}": [found.score(split, k).low, found.score(split, k).high] for split, k in every
        },
        "interval": found.how,
        "metric": found.metric,
        "headline": found.headline,
        "lower_is_better": found.lower_is_better,
        "reference": found.reference,
        "folds": {
            k: {
                **{split: numbers(found.score(split, k), found.numbers(split, k)) for split in found.scores},
                "minus_reference": {
                    split: [found.difference(split, k).mean, found.difference(split, k).low,
                            found.difference(split, k).high]
                    for split in found.scores
                },
                "selection": {name: numbers(found.fact(name, k), of[k]) for name, of in found.facts.items()},
            }
            for k in found.counts
        },
    }  # fmt: skip


def _table(found: Folds) -> Table:
    columns = ["folds", *(f"{found.metric}, {_SPLITS[split][0]}" for split in found.scores)]
    columns += [f"test minus {found.reference} folds", "selected", "of the candidates"]
    columns += [*(["precision"] if "precision" in found.facts else []), "OT distance"]

    def row(k: int) -> list[str]:
        difference = "–" if k == found.reference else _signed(found.difference("test", k))
        cells = [str(k), *(str(found.score(split, k)) for split in found.scores), difference]
        cells += [f"{found.fact('size', k).mean:,.0f}", f"{found.fact('ratio', k).mean:.1%}"]
        cells += [f"{found.fact('precision', k).mean:.0%}"] if "precision" in found.facts else []
        return [*cells, f"{found.fact('ot_distance', k).mean:.3f}"]

    told = " A difference is told from 0 where its interval leaves 0 out." if _known(found) else ""
    caption = f"{_caption(found)} Differences are pair by pair.{told} OT distance: to all targets."
    rows = [row(k) for k in found.counts]
    return Table("What folds do", caption, columns, rows, found.counts.index(found.best))


def _known(found: Folds) -> bool:
    return found.score("test", found.counts[0]).known


def _signed(difference: Interval) -> str:
    known = f" [{difference.low:+.3f}, {difference.high:+.3f}]" if difference.known else ""
    return f"{difference.mean:+.3f}{known}"


def _tiles(found: Folds) -> list[Tile]:
    least, most = found.counts[0], found.counts[-1]
    tiles = [
        Tile(f"{found.metric}, {k} fold{'s' * (k > 1)}", str(found.score("test", k)), "on the test set")
        for k in dict.fromkeys([least, found.best, most])
    ]
    ratios = [found.fact("ratio", k).mean for k in (least, most)]
    return [*tiles, Tile("selected", f"{ratios[0]:.1%} – {ratios[1]:.1%}", f"with {least} and {most} folds")]


def _summary(found: Folds) -> str:
    least, most, best = found.counts[0], found.counts[-1], found.best
    words = (
        f"From {least} to {most} folds tarot_otm selects {found.fact('ratio', least).mean:.1%} to "
        f"{found.fact('ratio', most).mean:.1%} of the candidates; {found.metric} on the test set is best with {best} "
        f"({found.score('test', best).mean:.3f})"
    )
    if best == found.reference:
        return f"{words}."
    difference = found.difference("test", best)
    told = difference.known and not difference.low <= 0 <= difference.high
    return f"{words}, {'' if told else 'not '}to be told from {found.reference} ({_signed(difference)})."
