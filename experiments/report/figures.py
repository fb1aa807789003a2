"""What a person looks at. Each function returns a `Figure`: a picture with the caption that says how to read it.

Everything is computed from copies; nothing here changes a selection (ledger L-19).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from threadpoolctl import threadpool_limits

from experiments.report.statistics import Interval
from experiments.report.style import BOUND, CANDIDATE, SELECTED, TARGET, Figure, colour, ink, marker
from tarot import Selection
from tarot.features import read_rows
from tarot.selection import SelectionProblem

WIDTH = 7.2  # inches of a figure across the page


def arms(metric: str, results: Mapping[str, Interval], how: str) -> Figure:
    """The headline metric of every arm."""

    def draw() -> Canvas:
        canvas, axes = _axes(0.42 * len(results) + 0.9)
        draw_arms(axes, metric, results)
        return canvas

    return Figure(
        "arms", f"{metric.capitalize()} by selection", f"Downstream models trained on each selection. {how}", draw
    )


def draw_arms(axes: Axes, metric: str, results: Mapping[str, Interval]) -> None:
    """One row for each arm: its mean, and its interval where there is one."""
    for row, (name, result) in enumerate(results.items()):
        error = np.abs(np.array([[result.low], [result.high]]) - result.mean) if result.known else None
        axes.errorbar(
            result.mean, row, xerr=error, fmt=marker(name), color=colour(name), markersize=8, capsize=4, linewidth=2
        )
        for value in result.values:
            axes.plot(value, row, "o", color=colour(name), markersize=4, fillstyle="none")
        axes.annotate(f"{result.mean:.3f}", (result.mean, row), (0, 8), textcoords="offset points", ha="center")
    axes.set_yticks(range(len(results)), list(results))
    axes.set_ylim(len(results) - 0.4, -0.75)
    axes.set_xlabel(metric)
    axes.grid(axis="x")
    axes.margins(x=0.12)


def certificate(distances_of: Mapping[str, float], bounds: Mapping[str, float]) -> Figure:
    """OT distances above what no selection of their size can go below."""

    def draw() -> Canvas:
        canvas, axes = _axes(0.42 * len(distances_of) + 0.9)
        for row, (name, distance) in enumerate(distances_of.items()):
            axes.barh(row, distance, color=colour(name), height=0.55)
            axes.plot([bounds[name]] * 2, [row - 0.38, row + 0.38], color=BOUND, linewidth=3)
            gap = distance / bounds[name] - 1 if bounds[name] > 0 else 0.0
            axes.annotate(
                f"{distance:.3f}  (+{gap:.1%})", (distance, row), (6, 0), textcoords="offset points", va="center"
            )
        axes.plot([], [], color=BOUND, linewidth=3, label="lower bound")
        axes.set_yticks(range(len(distances_of)), list(distances_of))
        axes.set_ylim(len(distances_of) - 0.4, -0.6)
        axes.set_xlim(0, 1.25 * max(distances_of.values()))
        axes.set_xlabel("OT distance to the targets")
        axes.legend(loc="upper left", bbox_to_anchor=(0, 1.14 + 0.1 / len(distances_of)), borderaxespad=0)
        return canvas

    caption = (
        "Bars: optimal-transport distance from the selected candidates to the targets; shorter is nearer. The orange "
        "tick is the least distance that any selection of that size could have (capacity-constrained transport), the "
        "percentage how far above it the selection is."
    )
    return Figure("certificate", "Distance to the targets, and its certificate", caption, draw)


@dataclass(frozen=True, eq=False)
class Plane:
    """A problem by t-SNE. shown: which of N candidates. candidates, targets: their places, [n, 2], within 0 to 1."""

    n: int
    shown: np.ndarray
    candidates: np.ndarray
    targets: np.ndarray

    @property
    def sample(self) -> str:
        """What a caption says of those not shown."""
        few = len(self.shown) < self.n
        return f" A random {len(self.shown):,} of the {self.n:,} candidates." if few else ""


def plane(problem: SelectionProblem, points: int, seed: int) -> Plane:
    """Some candidates and the targets, in the space that a selector sees, laid out on paper."""
    from sklearn.manifold import TSNE  # takes seconds to import, which an error about a path need not wait for

    rng = np.random.default_rng(seed)
    shown = np.sort(rng.choice(problem.n, min(points, problem.n), replace=False))
    rows = torch.cat([read_rows(problem.candidates, shown), problem.targets]).numpy()
    with threadpool_limits(1):  # small matrices: several threads mostly wait for one another
        perplexity = min(30, (len(rows) - 1) / 3)
        places = TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(rows)
    places = (places - places.min(0)) / np.ptp(places, axis=0)
    return Plane(problem.n, shown, places[: len(shown)], places[len(shown) :])


def embedding(problem: SelectionProblem, selection: Selection, points: int, seed: int) -> Figure:
    """t-SNE of candidates, targets and selected, in the space that the selector saw."""
    found = plane(problem, points, seed)
    candidates, targets = found.candidates, found.targets
    chosen = np.isin(found.shown, selection.indices)

    def draw() -> Canvas:
        canvas, axes = _axes(5.2)
        left_out, selected, paper = candidates[~chosen], candidates[chosen], axes.get_facecolor()
        axes.scatter(
            left_out[:, 0],
            left_out[:, 1],
            s=14,
            color=CANDIDATE,
            alpha=0.55,
            linewidth=0,
            label="candidates left out",
        )
        axes.scatter(selected[:, 0], selected[:, 1], s=20, color=SELECTED, alpha=0.9, linewidth=0, label="selected")
        axes.scatter(
            targets[:, 0],
            targets[:, 1],
            s=46,
            color=TARGET,
            marker="X",
            edgecolor=paper,
            linewidth=0.6,
            label="targets",
        )
        axes.set_xticks([])
        axes.set_yticks([])
        for side in axes.spines.values():
            side.set_visible(False)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.08), ncols=3, handletextpad=0.2)
        return canvas

    caption = (
        "Each point is a sample, placed by t-SNE so that neighbours in feature space stay neighbours. A good selection "
        "(blue) lies where the targets (orange crosses) lie; distances between far groups mean nothing." + found.sample
    )
    return Figure("tsne", "Candidates, targets and selected", caption, draw)


def weights(selection: Selection) -> Figure:
    """How often the selected are repeated."""
    counts = selection.weights
    times = f"{counts[0]} times" if counts[0] > 1 else "once"
    few = np.ptp(counts) <= 40
    edges = (np.arange(counts.min(), counts.max() + 2) - 0.5).tolist() if few else 40

    def draw() -> Canvas:
        canvas, axes = _axes(2.6)
        axes.hist(counts, bins=edges, color=SELECTED, rwidth=0.88)
        axes.set_xlabel("repetitions in an epoch")
        axes.set_ylabel("selected candidates")
        axes.xaxis.set_major_locator(_whole_numbers())
        axes.yaxis.set_major_locator(_whole_numbers())
        axes.grid(axis="y")
        return canvas

    caption = (
        f"The {len(counts):,} selected candidates occur {counts.sum():,} times in an epoch; those with a lower dual "
        "potential, which bring the selection nearer to the targets, occur more often."
        if np.ptp(counts)
        else f"Every one of the {len(counts):,} selected candidates occurs {times} in an epoch."
    )
    return Figure("weights", "Weights", caption, draw)


def tags(of_pool: np.ndarray, selection: Selection) -> Figure:
    """What was selected, by the tags that the selector did not see."""
    names = sorted(set(of_pool.tolist()), key=lambda tag: (tag != "target", tag))
    caption = (
        "What the candidates are, by tags that no selector sees. “target” are those that resemble the targets; their "
        "share of the selected is its precision."
    )
    return Figure("tags", "What was selected", caption, lambda: _share_bars(of_pool, selection, names))


def sources(of_pool: np.ndarray, selection: Selection) -> Figure:
    """How much of each dataset was selected, beside its share of the pool."""
    names = list(dict.fromkeys(of_pool.tolist()))
    caption = "Which dataset the selected come from, beside how large its part of the candidates is."
    return Figure("sources", "Selected share by dataset", caption, lambda: _share_bars(of_pool, selection, names))


def _share_bars(of_pool: np.ndarray, selection: Selection, names: Sequence[str]) -> Canvas:
    """Two bars for each name: its share of the selected, and of the candidates."""
    pool = np.array([np.mean(of_pool == name) for name in names])
    chosen = np.array([np.mean(of_pool[selection.indices] == name) for name in names])
    canvas, axes = _axes(0.5 * len(names) + 0.9)
    rows = np.arange(len(names))
    axes.barh(rows - 0.19, chosen, height=0.36, color=SELECTED, label="of the selected")
    axes.barh(rows + 0.19, pool, height=0.36, color=CANDIDATE, label="of the candidates")
    for place, share in [*zip(rows - 0.19, chosen, strict=True), *zip(rows + 0.19, pool, strict=True)]:
        axes.annotate(f"{share:.0%}", (share, place), (4, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(rows, [name.replace("_", " ") for name in names])
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.set_xlabel("share")
    axes.margins(x=0.1)  # room for the numbers
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return canvas


def held_out_curve(curve: Mapping[str, Sequence[float]]) -> Figure:
    """How `size="auto"` chose."""

    def draw() -> Canvas:
        canvas, axes = _axes(3.0)
        size, mean, error = (np.asarray(curve[key], dtype=float) for key in ("size", "held_out", "standard_error"))
        axes.fill_between(size, mean - error, mean + error, color=SELECTED, alpha=0.2, linewidth=0)
        axes.plot(size, mean, color=SELECTED, marker="o", markersize=4)
        axes.axvline(curve["chosen"][0], color=BOUND, linewidth=2.5, label=f"chosen: {curve['chosen'][0]:,}")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda size, _: f"{size:,.4g}")  # the scale's own are formulas
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("selection size")
        axes.set_ylabel("OT distance to held-out targets")
        axes.legend()
        axes.grid(axis="y")
        return canvas

    caption = (
        "Candidates were selected for four fifths of the targets and measured on the fifth held out, in turns. Band: "
        "one standard error over the folds. The smallest size within one standard error of the best was chosen."
    )
    return Figure("held_out", "How many to select", caption, draw)


def layer_curves(curves: Sequence[Sequence[float]]) -> Figure:
    """How TAROT-OTM stopped, fold by fold."""

    def draw() -> Canvas:
        canvas, axes = _axes(3.0)
        for fold, curve in enumerate(curves):
            kept = int(np.argmin(curve))
            layers = np.arange(1, len(curve) + 1)
            axes.plot(layers, curve, color=SELECTED, alpha=0.35, linewidth=1.3)
            axes.plot(
                layers[kept],
                curve[kept],
                "o",
                color=BOUND,
                markersize=6,
                label="last layer kept" if fold == 0 else None,
            )
        axes.xaxis.set_major_locator(_whole_numbers())
        axes.set_xlabel("layers of nearest candidates")
        axes.set_ylabel("OT distance to the other targets")
        axes.legend()
        axes.grid(axis="y")
        return canvas

    caption = (
        "One line per fold of targets: layer k adds every target's k-th nearest candidate. A fold stops at the layer "
        "that would raise the distance to the targets of the other folds, and does not keep it."
    )
    return Figure("layers", "When to stop", caption, draw)


def sweep(metric: str, points: Sequence[tuple[str, float, Interval]], how: str) -> Figure:
    """The headline metric by share of candidates selected; points: (selector, ratio, metric)."""

    def draw() -> Canvas:
        canvas, axes = _axes(3.8)
        for name in dict.fromkeys(selector for selector, _, _ in points):
            own = sorted(((ratio, score) for selector, ratio, score in points if selector == name), key=lambda p: p[0])
            ratio, mean = np.array([r for r, _ in own]), np.array([score.mean for _, score in own])
            error = np.nan_to_num(np.abs(np.array([[s.low for _, s in own], [s.high for _, s in own]]) - mean))
            axes.errorbar(100 * ratio, mean, yerr=error, color=colour(name), marker=marker(name), capsize=3, label=name)
            for share, score in own:
                values = list(score.values)
                axes.plot([100 * share] * len(values), values, "o", color=colour(name), markersize=4, fillstyle="none")
        axes.set_xlabel("candidates selected, %")
        axes.set_ylabel(metric)
        axes.grid(axis="y")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return canvas

    return Figure("sweep", f"{metric.capitalize()} by size of the selection", how, draw)


def lds_curves(results: Mapping[str, Sequence[tuple[int, Interval]]], how: str) -> Figure:
    """Linear datamodeling score by ensemble size, one line per estimator."""

    def draw() -> Canvas:
        canvas, axes = _axes(3.8)
        width = 0.012 * np.log2(max(size for points in results.values() for size, _ in points) + 1)
        for place, (name, points) in enumerate(results.items()):
            sizes = np.array([size for size, _ in points]) * 2 ** (width * (place - (len(results) - 1) / 2))
            mean = np.array([score.mean for _, score in points])
            error = np.abs(np.array([[score.low for _, score in points], [score.high for _, score in points]]) - mean)
            axes.errorbar(sizes, mean, yerr=error, color=colour(name), marker=marker(name), capsize=3, label=name)
        ticks = sorted({size for points in results.values() for size, _ in points})
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [str(size) for size in ticks])
        axes.minorticks_off()
        axes.set_xlabel("independently trained models")
        axes.set_ylabel("LDS")
        axes.axhline(0, color=ink(), linewidth=0.8)
        axes.grid(axis="y")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return canvas

    return Figure("lds", "Linear datamodeling score by ensemble size", how, draw)


def _whole_numbers() -> MaxNLocator:
    return MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10])


def _axes(height: float) -> tuple[Canvas, Axes]:
    canvas = Canvas(figsize=(WIDTH, height), layout="constrained")
    return canvas, canvas.subplots()
