"""What a person looks at: the images themselves, where they lie, what they are worth and how they were made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import LogLocator, NullFormatter

from experiments.report import CANDIDATE, SELECTED, TARGET, WIDTH, Figure, colour, marker

if TYPE_CHECKING:
    from experiments.distillation.findings import Cell, Findings
    from experiments.distillation.pool import Pool

_ACROSS = 10  # images of a class at most
_CLASSES = 10  # that are shown
_FEW = 3  # images of a class, which lie in a column
_POINTS = 400  # real images of a class


def all_of(found: Findings, pool: Pool, shown: int, how: str) -> list[Figure]:
    figures = [grid(found, min(shown, _ACROSS)), places(found, pool), accuracy(found, how), distances(found)]
    return [*figures, *([curves(found)] if _with_curves(found) else [])]


def grid(found: Findings, across: int) -> Figure:
    """The images of every arm, a row for each class; a column, where they are few."""
    m = max((m for m in found.per_class if m <= across), default=found.per_class[0])
    classes = min(_CLASSES, len(found.names))
    lying = m <= _FEW

    def draw() -> Canvas:
        panels = found.small
        columns = 1 if lying else min(3, len(panels))
        rows = -(-len(panels) // columns)
        sheets = [_sheet(found, arm, m, across, classes, lying) for arm in panels]
        height, width = sheets[0].shape[:2]
        canvas = Canvas(figsize=(WIDTH, rows * (WIDTH / columns * height / width + 0.3) + 0.1), layout="constrained")
        places = canvas.subplots(rows, columns, squeeze=False).ravel()
        for axes in places:
            axes.set_axis_off()
        for axes, arm, picture in zip(places, panels, sheets, strict=False):
            axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set_title(arm, fontsize=9)
        return canvas

    of_class = "a column" if lying else "a row"
    caption = (
        f"{m} images per class of every arm, with the first seed; {of_class} for each class, in the order "
        f"{', '.join(found.names[:classes])}. Real images are as they are; synthetic ones are what students see."
    )
    return Figure("images", "The images", caption, draw)


def _sheet(found: Findings, arm: str, m: int, across: int, classes: int, lying: bool) -> np.ndarray:
    """uint8 [height, width] or [height, width, 3], images beside one another with a gap of one pixel."""
    images = found.few[first(found, arm, m)].images
    some = images.reshape(len(found.names), m, *images.shape[1:])[:classes, :across]
    some = some.swapaxes(0, 1) if lying else some
    padded = np.pad(some, [(0, 0), (0, 0), (0, 0), (0, 1), (0, 1)], constant_values=128)
    sheet = padded.transpose(0, 3, 1, 4, 2).reshape(padded.shape[0] * padded.shape[3], -1, padded.shape[2])
    return sheet[..., 0] if sheet.shape[2] == 1 else sheet[..., :3]


def first(found: Findings, arm: str, m: int) -> Cell:
    """The cell of the first seed."""
    return next(cell for cell in found.few if cell.arm == arm and cell.m == m and cell.number == 0)


def places(found: Findings, pool: Pool) -> Figure:
    """A class's features by their first two principal components, with atoms, matched images and synthetic ones."""
    m = found.per_class[min(1, len(found.per_class) - 1)]
    number = 0
    rows = pool.survey.features[pool.labels == number].astype(np.float64)
    rows = rows[np.random.default_rng(0).permutation(len(rows))[:_POINTS]]
    centre = rows.mean(axis=0)
    axes_of = np.linalg.svd(rows - centre, full_matrices=False)[2][:2].T
    atoms = pool.barycenters(m, found.seed)[number]
    matched = pool.survey.features[pool.matched(m, found.seed)[number]]
    panels = [arm for arm in found.small if arm in ("wmdd", "wmdd_noise", "sre2l", "random")] or found.small[:1]

    def flat(points: np.ndarray) -> np.ndarray:
        return (points - centre) @ axes_of

    def panel(axes: Axes, arm: str) -> None:
        made = flat(found.features[first(found, arm, m)][number])
        real, at, near = flat(rows).T, flat(atoms.positions), flat(matched)
        axes.scatter(real[0], real[1], s=6, color=CANDIDATE, alpha=0.4, linewidths=0, label="real images")
        axes.scatter(near[:, 0], near[:, 1], s=26, facecolors="none", edgecolors=SELECTED, label="their matches")
        axes.scatter(at[:, 0], at[:, 1], s=14 + 200 * atoms.weights, marker="+", color=SELECTED, label="atoms")
        axes.scatter(made[:, 0], made[:, 1], s=26, marker="^", color=TARGET, label="the arm's images")
        if arm.startswith("wmdd"):
            for one, other in zip(at, made, strict=True):
                axes.plot(*zip(one, other, strict=True), color=TARGET, linewidth=0.6, alpha=0.6)
        axes.set_title(arm, fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])

    def draw() -> Canvas:
        canvas = Canvas(figsize=(WIDTH, 0.25 + 0.35 + WIDTH / len(panels)), layout="constrained")
        grid = canvas.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0]
        for axes, arm in zip(grid, panels, strict=True):
            panel(axes, arm)
        _legend_below(canvas, grid[0])
        return canvas

    caption = (
        f"Features of class {found.names[number]} by their first two principal components; {m} atoms of their "
        "barycenter, the real images matched with them, and the arm's images. Lines lead from an atom to the image "
        "that is made for it."
    )
    return Figure("places", "Where the images lie", caption, draw)


def accuracy(found: Findings, how: str) -> Figure:
    """Against images per class, one panel for each kind of labels."""

    def draw() -> Canvas:
        canvas = Canvas(figsize=(WIDTH, 3.4), layout="constrained")
        panels = canvas.subplots(1, len(found.labels), squeeze=False, sharey=True)[0]
        for axes, labels in zip(panels, found.labels, strict=True):
            for place, arm in enumerate(found.small):
                scores = [found.accuracy(arm, labels, m) for m in found.per_class]
                at = np.array(found.per_class) * 1.03 ** (place - len(found.small) / 2)
                low = [one.mean - one.low if one.known else 0 for one in scores]
                high = [one.high - one.mean if one.known else 0 for one in scores]
                axes.errorbar(
                    at,
                    [one.mean for one in scores],
                    yerr=[low, high] if scores[0].known else None,
                    color=colour(arm),
                    marker=marker(arm),
                    markersize=5,
                    capsize=2,
                    linewidth=1.4,
                    label=arm,
                )
            axes.axhline(found.teacher, color=colour("all"), linestyle=(0, (1, 1.5)), linewidth=1.2, label="teacher")
            if "all" in found.arms:
                mean = found.accuracy("all", labels, 0).mean
                axes.axhline(mean, color=colour("all"), linestyle=(0, (5, 2)), linewidth=1.2, label="all")
            axes.set_xscale("log")
            axes.set_xticks(found.per_class, [str(m) for m in found.per_class])
            axes.minorticks_off()
            axes.set_xlabel("images per class")
            axes.set_title(f"{labels} labels")
            axes.grid(axis="y")
        panels[0].set_ylabel("accuracy")
        _legend_below(canvas, panels[0])
        return canvas

    return Figure(
        "accuracy", "Accuracy by images per class", f"Arms side by side, so that intervals can be seen. {how}", draw
    )


def _legend_below(canvas: Canvas, axes: Axes) -> None:
    """What these axes show, below all of them."""
    handles, names = axes.get_legend_handles_labels()
    canvas.legend(handles, names, loc="outside lower center", ncols=4, fontsize=8)


def _logarithmic(axes: Axes) -> None:
    """The vertical axis, its numbers as plain text."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def distances(found: Findings) -> Figure:
    """Of every arm to every class, in feature space."""
    m = found.per_class[0]

    def draw() -> Canvas:
        canvas = Canvas(figsize=(WIDTH, 3.0), layout="constrained")
        axes = canvas.subplots()
        for arm in found.small:
            by_class = np.mean([found.distances[cell] for cell in found.distances if (cell.arm, cell.m) == (arm, m)], 0)
            axes.plot(by_class, marker(arm), color=colour(arm), markersize=6, label=arm)
        _logarithmic(axes)
        shown = found.names if len(found.names) <= 20 else []
        axes.set_xticks(range(len(shown)), list(shown), rotation=45 if max(map(len, found.names)) > 3 else 0)
        axes.set_ylabel("squared distance")
        axes.grid(axis="y")
        canvas.legend(loc="outside lower center", ncols=4, fontsize=8)
        return canvas

    caption = (
        f"Squared 2-Wasserstein distance between the features of an arm's images, {m} per class, and those of the "
        "class."
    )
    return Figure("distances", "Distance to every class", caption, draw)


def _with_curves(found: Findings) -> list[str]:
    return [arm for arm in found.small if len(found.few[first(found, arm, found.per_class[0])].curve)]


def curves(found: Findings) -> Figure:
    """The cost of the synthesis, step by step."""
    m = found.per_class[0]

    def draw() -> Canvas:
        canvas = Canvas(figsize=(WIDTH, 2.8), layout="constrained")
        panels = canvas.subplots(1, 2, squeeze=False)[0]
        for arm in _with_curves(found):
            curve = found.few[first(found, arm, m)].curve
            for axes, part in zip(panels, (0, 2), strict=True):
                if curve[:, part].any():
                    axes.plot(curve[:, part], color=colour(arm), label=arm)
        for axes, title in zip(panels, ("features", "statistics"), strict=True):
            _logarithmic(axes)
            axes.set_title(title)
            axes.set_xlabel("step")
            axes.grid(axis="y")
        panels[0].set_ylabel("weighted cost")
        _legend_below(canvas, panels[1])
        return canvas

    caption = (
        f"What the features and the statistics of the images cost, {m} per class, first seed. Losses of different "
        "kinds have different units."
    )
    return Figure("curves", "How the images were made", caption, draw)
