"""Arms beside one another: curves over how much is selected, lines across, and differences pair by pair."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from experiments.report.figures import WIDTH
from experiments.report.findings import UNTRAINED, Arm, Findings
from experiments.report.statistics import Interval
from experiments.report.style import Figure, colour, ink, marker

_DASHES = {"all": (0, (5, 2)), "target_only": (0, (1, 1.5)), UNTRAINED: (0, (6, 2, 1, 2)), "random": (0, (3, 1.5))}
_ACROSS = 3  # panels of a row
LINES = ("all", "target_only", UNTRAINED)
"""Arms without a place on the axis of ratios."""
MEANS = {
    "all": "training on all candidates",
    "target_only": "training on the targets alone",
    UNTRAINED: "a model that has learnt nothing",
}
"""What their lines are of."""


def line(axes: Axes, name: str, score: Interval, label: str | None = None) -> None:
    """An arm across all sizes, with its interval as a band."""
    axes.axhline(score.mean, color=colour(name), linestyle=_DASHES[name], linewidth=1.6, label=label)
    if score.known:
        axes.axhspan(score.low, score.high, color=colour(name), alpha=0.1, linewidth=0)


def curve(axes: Axes, found: Findings, arms: Sequence[Arm], aside: float = 1.0, metric: str | None = None) -> None:
    """Those of one selector, by how much they select. aside: what their place is multiplied by, so that intervals of
    several selectors stand side by side. metric: the headline, unless another is named. A selector that chose its own
    size is a point with an interval of sizes."""
    own = sorted(arms, key=lambda arm: found.fact(arm, "ratio").mean)
    scores, sizes = [found.score(arm, metric) for arm in own], [found.fact(arm, "ratio") for arm in own]
    name, chosen = own[0].selector, own[0].at is None
    aside = 1.0 if chosen else aside
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


def decades(ratios: Iterable[float]) -> float:
    """How wide the axis of these ratios is."""
    known = list(ratios)
    return float(np.log10(max(known) / min(known))) or 1.0


def ratio_axis(axes: Axes, ratios: Sequence[float], room: int = 14) -> None:
    """A logarithmic axis, labelled at these ratios, the first before the others, as far as it has room for labels."""
    wide, kept = decades(ratios), list[float]()
    for ratio in ratios:
        if all(abs(np.log10(ratio / other)) > wide / room for other in kept):
            kept.append(ratio)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator([100 * ratio for ratio in kept]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.3g}")


def _ends(of: Sequence[Interval], above: float = -np.inf) -> np.ndarray:
    """How far each interval reaches below and above its mean, [2, n]; 0 where it is not known."""
    reach = np.array([[i.mean - max(above, i.low) for i in of], [i.high - i.mean for i in of]])
    return np.where([i.known for i in of], reach, 0.0)


def handle(name: str, label: str | None = None, across: bool = False) -> Line2D:
    """Of a selector, for a legend; across: of its line."""
    if across or name in LINES:
        return Line2D([], [], color=colour(name), linestyle=_DASHES[name], linewidth=1.6, label=label or name)
    size = 9 if name == "oracle" else 6
    return Line2D([], [], color=colour(name), marker=marker(name), markersize=size, linewidth=1.6, label=name)


def small_multiples(
    names: Sequence[str],
    panel: Callable[[Axes, str], None],
    *,
    x: str,
    y: str,
    handles: Sequence[Line2D],
    height: float,
    room: float = 0.0,
) -> Canvas:
    """A panel for each name, drawn by `panel`, all on the same scales. x, y: what is on them. height: of a row, in
    inches. room: the share of a panel's height that is kept free above what is drawn, for words."""
    columns = 2 if len(names) in (2, 4) else min(_ACROSS, len(names))
    rows = -(-len(names) // columns)
    canvas = Canvas(figsize=(WIDTH, height * rows + 0.7), layout="constrained")
    grid = canvas.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes, name in zip(grid.flat, names, strict=False):
        panel(axes, name)
        axes.set_title(name)
        axes.grid(axis="y")
    for axes in grid.flat[len(names) :]:
        axes.set_visible(False)
    for axes in grid.flat[max(0, len(names) - columns) : len(names)]:  # the lowest of each column
        axes.tick_params(labelbottom=True)
    low, high = grid[0, 0].get_ylim()
    grid[0, 0].set_ylim(low, high + room * (high - low))
    for axes in grid[:, 0]:
        axes.set_ylabel(y)
    canvas.supxlabel(x, fontsize=10)
    canvas.legend(handles=handles, loc="outside upper center", ncols=4, handlelength=2.4)
    return canvas


def differences(found: Findings, arm: Arm, beside: Sequence[Arm] | None = None) -> Figure:
    """How far one arm is above each other, or above these, pair by pair, the least first."""
    others = sorted(
        (other for other in beside or found.arms if other != arm), key=lambda other: found.difference(arm, other).mean
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
