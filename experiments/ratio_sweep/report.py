"""What a sweep over ratios found, as numbers, tables, figures and a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.frame.run import Run
from experiments.ratio_sweep.figures import by_ratio, where
from experiments.report import Arm, Findings, Interval, Result, Table, Tile, differences, numbers, plus_minus, signed
from tarot import Selection
from tarot.selection import SelectionProblem

_BESIDE = ("random", "all")  # what every arm is compared with


def result(
    run: Run,
    found: Findings,
    problem: SelectionProblem,
    points: int,
    further: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Result:
    """problem: of the first repetition, in the space in which its selections are shown. points: candidates shown.
    further: metrics that have a table of their own. notes: sentences about the methods."""
    found.metrics(further)
    return Result(
        title=f"{run.name['task']}, by ratio of selection",
        metrics={**_metrics(found), "notes": list(notes)},
        summary=" ".join([_summary(found), *notes]),
        tiles=_tiles(found),
        tables=[
            _table(found),
            *([_further_table(found, further)] if further else []),
            *(_paired_table(found, arm) for arm in found.of_own_size),
        ],
        figures=[
            by_ratio(found),
            *(differences(found, arm) for arm in found.of_own_size),
            where(problem, _shown(found), points, run.seed),
        ],
        made_of={"experiment": run.config["experiment"], "task": run.task.recipe()},
    )


def best(found: Findings) -> Arm:
    """Of the selectors' arms, the one with the best mean."""
    sign = -1 if found.lower_is_better() else 1
    arms = (arm for arm in found.arms if not arm.reference)
    return max(arms, key=lambda arm: sign * found.score(arm).mean)


def _shown(found: Findings) -> dict[str, Selection]:
    """One selection of every method, of one size: that of the first method that chooses its own, else the least."""
    at = found.of_own_size[0].selector if found.of_own_size else min(arm.at for arm in found.arms if arm.at is not None)
    arms = [arm for arm in found.arms if arm in found.of_own_size or arm.selector == "oracle" or arm.at == at]
    return {arm.selector: found.outcomes[arm][0].selection for arm in arms}


# --- metrics.json ----------------------------------------------------------------------------------------------------


def _metrics(found: Findings) -> dict[str, Any]:
    scores = {f"{found.headline}/{arm}": found.score(arm) for arm in found.arms}
    return {
        "metrics": {name: score.mean for name, score in scores.items()},
        "intervals": {name: [score.low, score.high] for name, score in scores.items()},
        "interval": found.how,
        "headline": found.headline,
        "lower_is_better": found.lower_is_better(),
        "pool_precision": found.pool_precision if found.tagged else None,
        "arms": {str(arm): _of_arm(found, arm) for arm in found.arms},
        "paired": {
            str(arm): {
                str(other): {**numbers(found.difference(arm, other)), "ahead": found.ahead(arm, other)}
                for other in found.arms
                if other != arm
            }
            for arm in found.of_own_size
        },
    }


def _of_arm(found: Findings, arm: Arm) -> dict[str, Any]:
    beside = {name: found.counterpart(arm, name) for name in _BESIDE}
    return {
        "selector": arm.selector,
        "at": arm.at,
        "metrics": {
            name: {**numbers(found.score(arm, name)), "values": found.numbers(arm, name).tolist()}
            for name in found.metric_names
        },
        "minus": {
            name: {**numbers(found.difference(arm, other)), "of": str(other), "ahead": found.ahead(arm, other)}
            for name, other in beside.items()
            if other is not None
        },
        "selection": {
            name: {**numbers(found.fact(arm, name)), "values": found.facts(arm, name).tolist()}
            for name in ("size", "ratio", "ot_distance", *(["precision"] if found.tagged else []))
        },
    }


# --- tables ----------------------------------------------------------------------------------------------------------


def _table(found: Findings) -> Table:
    """Every arm: what it is worth, beside random and all, and what it selects."""
    beside = [name for name in _BESIDE if name in found.selectors]

    def difference(arm: Arm, name: str) -> str:
        other = found.counterpart(arm, name)
        return "–" if other is None else signed(found.difference(arm, other))

    def row(arm: Arm) -> list[str]:
        size, share, ot = (found.fact(arm, name).mean for name in ("size", "precision", "ot_distance"))
        cells = [str(arm), plus_minus(found.score(arm)), *(difference(arm, name) for name in beside), f"{size:,.0f}"]
        cells += [_percent(share)] if found.tagged else []
        return [*cells, "–" if np.isnan(ot) else f"{ot:.3f}"]

    versus = [{"random": "minus random of its size", "all": "minus all"}[name] for name in beside]
    columns = ["", found.headline, *versus, "selected", *(["precision"] if found.tagged else []), "OT distance"]
    precision = (
        f" Precision: the share of the selected that resembles the targets; of the pool it is "
        f"{found.pool_precision:.0%}."
        if found.tagged
        else ""
    )
    better = " The lower the better." if found.lower_is_better() else ""
    told = "; one is told from 0 where its interval leaves 0 out" if found.score(found.arms[0]).known else ""
    caption = (
        f"{found.how}{better} Differences are pair by pair, between models of one repetition{told}.{precision} "
        "OT distance: to the targets, for all methods in the space of whitened gradients."
    )
    return Table("Methods by ratio", caption, columns, [row(arm) for arm in found.arms], found.arms.index(best(found)))


def _further_table(found: Findings, names: Sequence[str]) -> Table:
    """More metrics of every arm, each beside random."""

    def cells(arm: Arm, name: str) -> list[str]:
        other = found.counterpart(arm, "random")
        difference = "–" if other is None else signed(found.difference(arm, other, name))
        return [plus_minus(found.score(arm, name)), *([difference] if beside else [])]

    beside = "random" in found.selectors
    better = [f"{name}: the {'lower' if found.lower_is_better(name) else 'higher'} the better" for name in names]
    columns = [text for name in names for text in (name, *(["minus random of its size"] if beside else []))]
    body = [[str(arm), *(cell for name in names for cell in cells(arm, name))] for arm in found.arms]
    return Table("Further metrics", f"{'; '.join(better)}. {found.how}", ["", *columns], body)


def _paired_table(found: Findings, arm: Arm) -> Table:
    """One that chooses its own size against every other: those of its size first."""
    others = [other for other in found.arms if other != arm]
    others.sort(key=lambda other: (other.at != arm.selector, not other.reference))
    pairs = len(found.numbers(arm, found.headline))
    rows = [
        [
            str(other),
            plus_minus(found.score(other)),
            signed(found.difference(arm, other)),
            f"{found.ahead(arm, other)} of {pairs}",
        ]
        for other in others
    ]
    caption = (
        f"{found.headline} of {arm} ({plus_minus(found.score(arm))}) minus that of each other, pair by pair; and in "
        f"how many pairs it is ahead{', being lower' * found.lower_is_better()}. {found.how}"
    )
    return Table(f"{arm} against the others", caption, ["", found.headline, f"{arm} minus it", "ahead in"], rows)


def _percent(share: float) -> str:
    return "–" if np.isnan(share) else f"{share:.0%}"


# --- tiles and a sentence --------------------------------------------------------------------------------------------


def _main(found: Findings) -> Arm:
    """What the sentence is about: the first that chooses its own size, else the best."""
    return found.of_own_size[0] if found.of_own_size else best(found)


def _tiles(found: Findings) -> list[Tile]:
    arm, highest = _main(found), best(found)
    tiles = [Tile(f"{found.headline} of {arm}", plus_minus(found.score(arm)), "95% interval")]
    if not found.score(arm).known:
        tiles = [Tile(f"{found.headline} of {arm}", plus_minus(found.score(arm)))]
    if highest != arm:
        tiles.append(Tile("best mean", f"{found.score(highest).mean:.3f}", str(highest)))
    for name in _BESIDE:
        other = found.counterpart(arm, name)
        if other is not None:
            pairs = len(found.numbers(arm, found.headline))
            note = f"ahead in {found.ahead(arm, other)} of {pairs}"
            tiles.append(Tile(f"minus {other}", signed(found.difference(arm, other)), note))
    ratio = found.fact(arm, "ratio").mean
    tiles.append(Tile("selected", f"{ratio:.1%}", f"{found.fact(arm, 'size').mean:,.0f} candidates on average"))
    if found.tagged:
        share = found.fact(arm, "precision").mean
        tiles.append(
            Tile("precision", _percent(share), f"resemble the targets; {found.pool_precision:.0%} of the pool do")
        )
    return tiles


def _summary(found: Findings) -> str:
    arm = _main(found)
    words = f"{arm} selects {found.fact(arm, 'ratio').mean:.1%} of the candidates, and models trained on them reach "
    words += f"{found.headline} {found.score(arm).mean:.3f}"
    parts = []
    for other in found.arms:
        if other.at == arm.selector or other.reference:
            parts.append(_told(found.difference(arm, other), other.selector))
    return f"{words}: {', '.join(parts)}." if parts else f"{words}."


def _told(difference: Interval, other: str) -> str:
    """A difference in words; none is claimed where its interval has 0 in it, or is not known."""
    if not difference.known or difference.low <= 0 <= difference.high:
        return f"not to be told from {other} ({signed(difference)})"
    return f"{abs(difference.mean):.3f} {'above' if difference.mean > 0 else 'below'} {other}"
