"""Figures of a sweep over ratios: the metric by how much is selected, and where in feature space methods select."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from experiments.report import (
    CANDIDATE,
    LINES,
    MEANS,
    SELECTED,
    TARGET,
    WIDTH,
    Arm,
    Figure,
    Findings,
    curve,
    decades,
    handle,
    line,
    plane,
    ratio_axis,
)
from tarot import Selection
from tarot.selection import SelectionProblem

_SPREAD = 0.012  # of the axis, between neighbouring selectors at one ratio, so that intervals can be seen
_ACROSS = 3  # panels of a row


def by_ratio(found: Findings) -> Figure:
    """The headline metric of every arm; Figure 5 of the paper."""
    curves = [name for name in found.selectors if name not in LINES]
    across = [name for name in LINES if name in found.selectors]
    ratios = [found.fact(arm, "ratio").mean for arm in found.arms if arm.selector in curves]

    def draw() -> Canvas:
        canvas = Canvas(figsize=(WIDTH, 4.4), layout="constrained")
        axes = canvas.subplots()
        for name in across:
            line(axes, name, found.score(Arm(name)))
        for place, name in enumerate(curves):
            aside = 10 ** (decades(ratios) * _SPREAD * (place - (len(curves) - 1) / 2))
            curve(axes, found, [arm for arm in found.arms if arm.selector == name], aside)
        given = sorted({arm.at for arm in found.arms if isinstance(arm.at, int | float)})
        ratio_axis(axes, [*given, *ratios])
        axes.set_xlabel("candidates selected, %")
        axes.set_ylabel(found.headline)
        axes.grid(axis="y")
        handles = [handle(name) for name in (*curves, *across)]
        canvas.legend(handles=handles, loc="outside upper center", ncols=min(4, len(handles)), handlelength=2.4)
        return canvas

    several = "the mean of its sizes, with their interval" if len(found.first) > 1 else "its size"
    points = f" One that chooses its own size is a single point, at {several}." if found.of_own_size else ""
    lines = f" Lines across: {', '.join(MEANS[name] for name in across)}." if across else ""
    caption = (
        f"{found.headline} of models trained on each selection, by the share of the candidates that it has; the scale "
        "is logarithmic and points of one ratio stand side by side."
        f"{points}{lines} {found.how}"
    )
    return Figure("ratios", f"{found.headline} by ratio of selection", caption, draw)


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
