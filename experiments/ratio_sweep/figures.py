"""Figures of a sweep over ratios: the metric by how much is selected, and where in feature space methods select."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from experiments.report import (
    CANDIDATE,
    SELECTED,
    TARGET,
    WIDTH,
    Arm,
    Figure,
    Findings,
    Interval,
    colour,
    ink,
    marker,
    plane,
)
from tarot import Selection
from tarot.selection import SelectionProblem

_LINES = ("all", "target_only")  # arms without a place on the axis of ratios
_DASHES = {"all": (0, (5, 2)), "target_only": (0, (1, 1.5))}
_SPREAD = 0.012  # of the axis, between neighbouring selectors at one ratio, so that intervals can be seen
_ACROSS = 3  # panels of a row


def by_ratio(found: Findings) -> Figure:
    """The headline metric of every arm; Figure 5 of the paper."""
    curves = [name for name in found.selectors if name not in _LINES]
    across = [name for name in _LINES if name in found.selectors]
    ratios = [found.fact(arm, "ratio").mean for arm in found.arms if arm.selector in curves]
    wide = np.log10(max(ratios) / min(ratios)) or 1.0

    def line(axes: Axes, name: str) -> None:
        score = found.score(Arm(name))
        axes.axhline(score.mean, color=colour(name), linestyle=_DASHES[name], linewidth=1.6)
        if score.known:
            axes.axhspan(score.low, score.high, color=colour(name), alpha=0.1, linewidth=0)

    def curve(axes: Axes, name: str, place: int) -> None:
        own = sorted((arm for arm in found.arms if arm.selector == name), key=lambda arm: found.fact(arm, "ratio").mean)
        scores, sizes = [found.score(arm) for arm in own], [found.fact(arm, "ratio") for arm in own]
        chosen = len(own) == 1  # its own size, which differs between repetitions
        aside = 1.0 if chosen else 10 ** (wide * _SPREAD * (place - (len(curves) - 1) / 2))
        at = 100 * aside * np.array([size.mean for size in sizes])
        axes.errorbar(
            at,
            [score.mean for score in scores],
            yerr=_ends(scores) if any(score.known for score in scores) else None,
            xerr=100 * _ends(sizes, above=0) if chosen and sizes[0].known else None,
            color=colour(name),
            marker=marker(name),
            markersize=12 if name == "oracle" else 9 if chosen else 7,
            markeredgecolor=axes.get_facecolor(),
            markeredgewidth=0.8,
            capsize=3,
            elinewidth=1.3,
            linewidth=1.6,
            zorder=4 if chosen else 3,
        )
        for x, score in zip(at, scores, strict=True):
            axes.plot([x] * len(score.values), score.values, "o", color=colour(name), markersize=4, fillstyle="none")

    def draw() -> Canvas:
        canvas = Canvas(figsize=(WIDTH, 4.4), layout="constrained")
        axes = canvas.subplots()
        for name in across:
            line(axes, name)
        for place, name in enumerate(curves):
            curve(axes, name, place)
        axes.set_xscale("log")
        given = sorted({arm.at for arm in found.arms if isinstance(arm.at, int | float)})
        ticks = [100 * ratio for ratio in _apart([*given, *ratios], wide)]
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda share, _: f"{share:.3g}")
        axes.set_xlabel("candidates selected, %")
        axes.set_ylabel(found.headline)
        axes.grid(axis="y")
        handles = [_handle(name) for name in (*curves, *across)]
        canvas.legend(handles=handles, loc="outside upper center", ncols=min(4, len(handles)), handlelength=2.4)
        return canvas

    several = "the mean of its sizes, with their interval" if len(found.first) > 1 else "its size"
    points = f" One that chooses its own size is a single point, at {several}." if found.of_own_size else ""
    means = {"all": "training on all candidates", "target_only": "training on the targets alone"}
    lines = f" Lines across: {', '.join(means[name] for name in across)}." if across else ""
    caption = (
        f"{found.headline} of models trained on each selection, by the share of the candidates that it has; the scale "
        "is logarithmic and points of one ratio stand side by side."
        f"{points}{lines} {found.how}"
    )
    return Figure("ratios", f"{found.headline} by ratio of selection", caption, draw)


def _apart(ratios: Sequence[float], wide: float) -> list[float]:
    """Those that labels have room for, the first before the others, on an axis of so many decades."""
    kept: list[float] = []
    for ratio in ratios:
        if all(abs(np.log10(ratio / other)) > wide / 14 for other in kept):
            kept.append(ratio)
    return kept


def _ends(of: Sequence[Interval], above: float = -np.inf) -> np.ndarray:
    """How far each interval reaches below and above its mean, [2, n]; 0 where it is not known."""
    reach = np.array([[i.mean - max(above, i.low) for i in of], [i.high - i.mean for i in of]])
    return np.where([i.known for i in of], reach, 0.0)


def _handle(name: str) -> Line2D:
    if name in _LINES:
        return Line2D([], [], color=colour(name), linestyle=_DASHES[name], linewidth=1.6, label=name)
    size = 9 if name == "oracle" else 6
    return Line2D([], [], color=colour(name), marker=marker(name), markersize=size, linewidth=1.6, label=name)


def differences(found: Findings, arm: Arm) -> Figure:
    """How far one arm is above each other, pair by pair, the least first."""
    others = sorted(
        (other for other in found.arms if other != arm), key=lambda other: found.difference(arm, other).mean
    )

    def draw() -> Canvas:
        canvas = Canvas(figsize=(WIDTH, 0.27 * len(others) + 0.8), layout="constrained")
        axes = canvas.subplots()
        axes.axvline(0, color=ink(), linewidth=1.0)
        for row, other in enumerate(others):
            difference, own = found.difference(arm, other), colour(str(other))
            if difference.known:
                axes.plot([difference.low, difference.high], [row] * 2, linewidth=2.2, color=own)
            axes.plot(difference.mean, row, marker(str(other)), markersize=7, color=own)
            rows = [row] * len(difference.values)
            axes.plot(difference.values, rows, "o", markersize=4, fillstyle="none", color=own)
        axes.set_yticks(range(len(others)), [str(other) for other in others])
        axes.set_ylim(len(others) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(f"{found.headline} of {arm} minus that of each")
        axes.grid(axis="x")
        return canvas

    better = "left" if found.lower_is_better() else "right"
    caption = (
        f"To the {better} of 0, {arm} is better. Differences between models of one repetition, so what is easy or hard "
        f"about a repetition drops out. {found.how}"
    )
    return Figure(f"paired_{arm.selector}", f"{arm} against the others", caption, draw)


def where(problem: SelectionProblem, selections: Mapping[str, Selection], points: int, seed: int) -> Figure:
    """What each method selects, side by side over one t-SNE of candidates and targets; Figure 6 of the paper."""
    found = plane(problem, points, seed)

    def panel(axes: Axes, title: str, selection: Selection) -> None:
        chosen = np.isin(found.shown, selection.indices)
        left_out, selected, targets = found.candidates[~chosen], found.candidates[chosen], found.targets
        axes.scatter(left_out[:, 0], left_out[:, 1], s=7, color=CANDIDATE, alpha=0.4, linewidth=0)
        axes.scatter(selected[:, 0], selected[:, 1], s=13, color=SELECTED, alpha=0.9, linewidth=0)
        paper = axes.get_facecolor()
        axes.scatter(targets[:, 0], targets[:, 1], s=34, color=TARGET, marker="X", edgecolor=paper, linewidth=0.6)
        axes.set_title(f"{title}: {len(selection):,}")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlim(-0.03, 1.03)
        axes.set_ylim(-0.03, 1.03)
        axes.set_aspect("equal")
        for side in axes.spines.values():
            side.set_visible(False)

    def draw() -> Canvas:
        columns = 2 if len(selections) == 4 else min(_ACROSS, len(selections))
        rows = -(-len(selections) // columns)
        canvas = Canvas(figsize=(WIDTH, (WIDTH / columns + 0.25) * rows + 0.35), layout="constrained")
        grid = canvas.subplots(rows, columns, squeeze=False)
        for axes, (title, selection) in zip(grid.flat, selections.items(), strict=False):
            panel(axes, title, selection)
        for axes in grid.flat[len(selections) :]:
            axes.set_visible(False)
        handles = [
            Line2D([], [], color=CANDIDATE, marker="o", markersize=4, linewidth=0, label="candidates left out"),
            Line2D([], [], color=SELECTED, marker="o", markersize=5, linewidth=0, label="selected"),
            Line2D([], [], color=TARGET, marker="X", markersize=6, linewidth=0, label="targets"),
        ]
        canvas.legend(handles=handles, loc="outside upper center", ncols=3, handletextpad=0.2)
        return canvas

    caption = (
        "One t-SNE of whitened gradient features, the same in every panel; blue is what each method selects, in the "
        "first repetition, and how many. A method that sees one pattern of the targets alone selects around it; a good "
        "selection lies where the targets (orange crosses) lie. Distances between far groups mean nothing."
        + found.sample
    )
    return Figure("selected", "Where methods select", caption, draw)
