"""Figures of the grid: the metric by budget, a panel for each representation; and whose distance who minimises."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from experiments.report import (
    LINES,
    MEANS,
    WIDTH,
    Arm,
    Figure,
    curve,
    decades,
    handle,
    line,
    ratio_axis,
    small_multiples,
)

if TYPE_CHECKING:
    from experiments.grid.report import Landscape

_SPREAD = 0.02  # of the axis, between neighbouring algorithms at one ratio


def by_representation(found: Landscape, metric: str) -> Figure:
    """One line for each algorithm, the same lines across in every panel."""
    findings = found.findings
    across = [name for name in LINES if Arm(name) in findings.outcomes]
    random = [arm for arm in findings.arms if arm.selector == "random"]
    oracle = [arm for arm in findings.arms if arm.selector == "oracle"]
    names = [*found.algorithms, *(["random"] if random else []), *(["oracle"] if oracle else [])]

    def panel(axes: Axes, features: str) -> None:
        for name in across:
            line(axes, name, findings.score(Arm(name), metric))
        for place, name in enumerate(names):
            arms = [Arm(name, ratio, features) for ratio in found.ratios] if name in found.algorithms else None
            aside = 10 ** (decades(found.ratios) * _SPREAD * (place - (len(names) - 1) / 2))
            curve(axes, findings, arms or (random if name == "random" else oracle), aside, metric)
        ratio_axis(axes, found.ratios, room=6)

    def draw() -> Canvas:
        handles = [handle(name) for name in (*names, *across)]
        share = "candidates selected, %"
        return small_multiples(found.representations, panel, x=share, y=metric, handles=handles, height=2.5)

    better = "lower" if findings.lower_is_better(metric) else "higher"
    lines = f" Lines across: {', '.join(MEANS[name] for name in across)}." if across else ""
    caption = (
        f"{metric} ({better} is better) of models trained on what each algorithm selects by each representation, by "
        "the share of the candidates; the scale is logarithmic and points of one share stand side by side."
        f"{lines} {findings.how}"
    )
    return Figure(f"grid_{metric.replace('/', '_')}", f"{metric} by representation", caption, draw)


def spaces(found: Landscape) -> Figure:
    """The distance of every selection at the smallest budget in every space, beside the least of that space."""
    ratio = found.ratios[0]
    arms = [*found.cells(ratio), *(arm for arm in found.findings.arms if arm == Arm("random", ratio))]
    table = np.array([[found.distance(arm, name).mean for name in found.representations] for arm in arms])
    above = table / table.min(axis=0, keepdims=True) - 1

    def draw() -> Canvas:
        columns = len(found.representations)
        canvas = Canvas(figsize=(WIDTH, 0.26 * len(arms) + 1.2), layout="constrained")
        axes = canvas.subplots()
        picture = axes.imshow(np.minimum(above, 1.0), cmap="viridis_r", aspect="auto", vmin=0, vmax=1)
        for row, column in np.ndindex(*table.shape):
            dark = min(above[row, column], 1.0) > 0.55
            axes.text(
                column, row, f"{table[row, column]:.3f}", ha="center", va="center", fontsize=8,
                color="white" if dark else "black",
                fontweight="bold" if above[row, column] == 0 else "normal",
            )  # fmt: skip
        axes.set_xticks(range(columns), [f"in {name}".replace(":", ":\n") for name in found.representations])
        axes.set_yticks(range(len(arms)), [arm.name for arm in arms])
        axes.tick_params(length=0)
        axes.xaxis.tick_top()
        for place in range(len(found.algorithms), len(arms), len(found.algorithms)):
            axes.axhline(place - 0.5, color=axes.get_facecolor(), linewidth=2.5)
        bar = canvas.colorbar(picture, ax=axes, shrink=0.6, label="above the least of the column")
        bar.ax.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        return canvas

    caption = (
        f"OT distance to the targets of each selection of {ratio:.3g} of the candidates (rows), measured in the space "
        "of each representation (columns); means over repetitions. Bold: the least of its column. A selection that is "
        "near in its own space alone says that the spaces disagree about what is near."
    )
    return Figure("spaces", "Who minimises whose distance?", caption, draw)
