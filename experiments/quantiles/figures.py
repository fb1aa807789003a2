"""A metric from the nearest bin to the farthest, a panel for each representation."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from experiments.quantiles.findings import RANDOM, ZERO, Curves
from experiments.report import SELECTED, Figure, handle, line, signed, small_multiples


def by_bin(found: Curves, metric: str, order: str) -> Figure:
    """order: the selector whose order the bins are cut of."""

    def panel(axes: Axes, name: str) -> None:
        for point in (ZERO, RANDOM):
            line(axes, str(point), found.found.score(point, metric))
        scores = [found.found.score(point, metric) for point in found.of(name)]
        at = np.arange(1, found.bins + 1)
        mean = np.array([score.mean for score in scores])
        if all(score.known for score in scores):
            low, high = (np.array([getattr(score, end) for score in scores]) for end in ("low", "high"))
            axes.fill_between(at, low, high, color=SELECTED, alpha=0.15, linewidth=0)
        for x, score in zip(at, scores, strict=True):
            axes.plot([x] * len(score.values), score.values, "o", color=SELECTED, markersize=3, fillstyle="none")
        axes.plot(at, mean, color=SELECTED, marker="o", markersize=4.5)
        axes.text(
            0.98, 0.97, f"ρ = {signed(found.correlation(name, metric))}", transform=axes.transAxes, ha="right", va="top"
        )
        axes.set_xticks(at[:: max(1, found.bins // 5)])

    def draw() -> Canvas:
        handles = [
            Line2D([], [], color=SELECTED, marker="o", markersize=4.5, label=f"{found.size:,} candidates of a bin"),
            handle(str(RANDOM), "random candidates", across=True),
            handle(str(ZERO)),
        ]
        far = "bin, from the nearest candidates to the farthest"
        return small_multiples(found.representations, panel, x=far, y=metric, handles=handles, height=2.1, room=0.16)

    part = "" if found.focus == 1 else f", the nearest {found.focus:.0%} of them,"
    better = "less" if found.found.lower_is_better(metric) else "more"
    caption = (
        f"Candidates{part} in the order in which {order} selects them by each representation, cut into {found.bins} "
        f"bins; {metric} ({better} is better) of models trained on {found.size:,} candidates drawn from each. A curve "
        "that goes one way from left to right says that nearness predicts usefulness; a flat one, that it does not, "
        "however good the nearest bin is. ρ is Spearman's correlation of bin and loss (of minus what is better the "
        f"larger). {found.found.how}"
    )
    return Figure(f"bins_{metric.replace('/', '_')}", f"{metric} from near to far", caption, draw)
