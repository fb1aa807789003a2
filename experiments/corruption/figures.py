"""Figures of what valuation found: detection curves, the methods side by side, what pruning is worth, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from experiments.report import (
    CANDIDATE,
    TARGET,
    WIDTH,
    Figure,
    Interval,
    colour,
    draw_sample,
    frame,
    ink,
    marker,
    mean_band,
    picture_grid,
)
from tasks.classification.domain_task import DomainTask

_POINTS = 120  # of a curve
_ACROSS = 8  # pictures of a row


@dataclass(frozen=True)
class Strip:
    """Candidates of lowest value by `method`, int64 [n], worst first."""

    task: DomainTask
    method: str
    lowest: np.ndarray


def title(kind: str) -> str:
    """ "noisy_labels" -> "noisy labels" """
    return kind.replace("_", " ")


def detection_curves(
    curves: Mapping[str, Mapping[str, np.ndarray]], share: Mapping[str, float], methods: Sequence[str], how: str
) -> Figure:
    """curves: kind -> method -> detection rate after each number of candidates, [seeds, N + 1]. share: of the
    candidates that is corrupted. methods: in the order of the legend."""

    def panel(axes: Axes, kind: str) -> None:
        axes.plot([0, 100], [0, 100], color=colour("random"), linestyle=(0, (4, 3)), linewidth=1.4)
        axes.axvline(100 * share[kind], color=ink(), linewidth=0.8, linestyle=":")
        for place, name in enumerate(methods):
            mean, low, high, looked_at = _banded(curves[kind][name])
            # marks of neighbours in the legend stand at different places, so that lines on one another show both
            marks = slice(5 + 10 * place // len(methods) * 2, None, 24)
            axes.fill_between(looked_at, low, high, color=colour(name), alpha=0.1, linewidth=0)
            axes.plot(
                looked_at,
                mean,
                color=colour(name),
                linewidth=1.5,
                marker=marker(name),
                markevery=marks,
                markersize=4.5,
            )
        axes.set_title(f"{title(kind)}, {share[kind]:.0%} of the candidates")
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 102)
        axes.grid()

    def draw() -> Canvas:
        rows = (len(curves) + 1) // 2
        legend = 0.24 * -(-(len(methods) + 1) // 4) + 0.15  # inches
        canvas = Canvas(figsize=(WIDTH, 2.85 * rows + legend), layout="constrained")
        grid = canvas.subplots(rows, min(2, len(curves)), squeeze=False, sharex=True, sharey=True)
        for axes, kind in zip(grid.flat, curves, strict=False):
            panel(axes, kind)
        for axes in grid.flat[len(curves) :]:
            axes.set_visible(False)
        canvas.supxlabel("candidates looked at, those of lowest value first, %", fontsize=10)
        canvas.supylabel("corrupted candidates found, %", fontsize=10)
        canvas.legend(handles=_handles(methods), loc="outside upper center", ncols=4, handlelength=2.6)
        return canvas

    caption = (
        "How many of the corrupted candidates stand among those of lowest value. The higher the curve, the better; the "
        "dashed diagonal is what looking at random finds. The dotted line: as many candidates as there are corrupted; "
        f"where a curve crosses it, it has its detection rate. Bands: intervals. {how}"
    )
    return Figure("detection_curves", "What the candidates of lowest value are", caption, draw)


def _banded(runs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of [seeds, N + 1], at some of the places: mean, ends of its interval, and the places; all in percent."""
    n = runs.shape[1] - 1
    places = np.unique(np.linspace(0, n, min(n, _POINTS) + 1).round().astype(int))
    mean, low, high = mean_band(runs[:, places])
    return 100 * mean, 100 * low.clip(0, 1), 100 * high.clip(0, 1), 100 * places / n


def _handles(methods: Sequence[str]) -> list[Line2D]:
    lines = [
        Line2D([], [], color=colour(name), marker=marker(name), markersize=5, linewidth=1.5, label=name)
        for name in methods
    ]
    return [*lines, Line2D([], [], color=colour("random"), linestyle=(0, (4, 3)), linewidth=1.4, label="at random")]


def detection_dots(
    rates: Mapping[str, Mapping[str, Interval]],
    areas: Mapping[str, Mapping[str, Interval]],
    share: Mapping[str, float],
    methods: Sequence[str],
    how: str,
) -> Figure:
    """rates, areas: kind -> method. One row per method, one column per kind."""

    def column(axes: Axes, kind: str) -> None:
        axes.axvline(share[kind], color=colour("random"), linestyle=(0, (4, 3)), linewidth=1.4)
        axes.axvline(0.5, color=ink(), linewidth=0.8, linestyle=":")
        for row, name in enumerate(methods):
            rate = rates[kind][name]
            if rate.known:
                axes.plot([max(0, rate.low), min(1, rate.high)], [row] * 2, color=colour(name), linewidth=2.2)
            axes.plot(rate.mean, row, marker(name), color=colour(name), markersize=7, clip_on=False)
            for value in rate.values:
                axes.plot(value, row, "o", color=colour(name), markersize=4, fillstyle="none")
            axes.plot(areas[kind][name].mean, row, "|", color=ink(), markersize=11, markeredgewidth=1.6, clip_on=False)
        axes.set_title(title(kind))
        axes.set_xlim(0, 1)
        axes.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
        axes.grid(axis="y")
        axes.tick_params(axis="y", length=0)

    def draw() -> Canvas:
        canvas = Canvas(figsize=(WIDTH, 0.29 * len(methods) + 1.15), layout="constrained")
        grid = canvas.subplots(1, len(rates), squeeze=False, sharey=True)[0]
        for axes, kind in zip(grid, rates, strict=True):
            column(axes, kind)
        grid[0].set_yticks(range(len(methods)), list(methods))
        grid[0].set_ylim(len(methods) - 0.5, -0.5)
        handles = [
            Line2D([], [], color=CANDIDATE, marker="o", markersize=7, linewidth=2.2, label="detection rate"),
            Line2D([], [], color=ink(), marker="|", markersize=11, markeredgewidth=1.6, linewidth=0, label="area"),
            Line2D([], [], color=colour("random"), linestyle=(0, (4, 3)), linewidth=1.4, label="rate at random"),
            Line2D([], [], color=ink(), linestyle=":", linewidth=0.8, label="area at random"),
        ]
        canvas.legend(handles=handles, loc="outside lower center", ncols=4)
        return canvas

    caption = (
        "Detection rate: share of the corrupted candidates among as many of lowest value as there are corrupted. Area: "
        f"that under the detection curve, which sees the whole order. Methods by their mean rate. {how}"
    )
    return Figure("detection_rates", "Methods side by side", caption, draw)


def lines(
    name: str,
    heading: str,
    caption: str,
    results: Mapping[str, Mapping[str, Sequence[Interval]]],
    places: Sequence[float],
    labels: tuple[str, str],
) -> Figure:
    """results: kind -> arm -> one interval for each of `places`; labels: of both axes. One panel per kind."""
    arms = list(dict.fromkeys(arm for of_kind in results.values() for arm in of_kind))

    def panel(axes: Axes, kind: str) -> None:
        step = (max(places) - min(places)) / max(1, len(places) - 1) or 1.0
        for place, arm in enumerate(arms):
            points = results[kind][arm]
            mean = np.array([point.mean for point in points])
            ends = np.array([[point.low for point in points], [point.high for point in points]])
            # beside one another, so that intervals can be seen
            x = np.asarray(places) + 0.06 * step * (place - (len(arms) - 1) / 2)
            axes.errorbar(
                x,
                mean,
                yerr=np.nan_to_num(np.abs(ends - mean)),
                color=colour(arm),
                marker=marker(arm),
                markersize=5,
                capsize=2.5,
                elinewidth=1.1,
                linewidth=1.5,
            )
            for at, point in zip(x, points, strict=True):
                axes.plot(
                    [at] * len(point.values), point.values, "o", color=colour(arm), markersize=4, fillstyle="none"
                )
        axes.set_title(title(kind))
        axes.set_xticks(places, [f"{place:g}" for place in places])
        axes.grid(axis="y")

    def draw() -> Canvas:
        columns = min(2, len(results))
        rows = -(-len(results) // columns)
        canvas = Canvas(figsize=(WIDTH, 3.1 * rows + 0.5), layout="constrained")
        grid = canvas.subplots(rows, columns, squeeze=False, sharey=True)
        for axes, kind in zip(grid.flat, results, strict=False):
            panel(axes, kind)
        for axes in grid.flat[len(results) :]:
            axes.set_visible(False)
        canvas.supxlabel(labels[0], fontsize=10)
        canvas.supylabel(labels[1], fontsize=10)
        handles = [
            Line2D([], [], color=colour(arm), marker=marker(arm), markersize=5, linewidth=1.5, label=arm)
            for arm in arms
        ]
        canvas.legend(handles=handles, loc="outside upper center", ncols=min(5, len(arms)))
        return canvas

    return Figure(name, heading, caption, draw)


def strips(of_kinds: Mapping[str, Strip]) -> Figure:
    """The candidates of lowest value as images, one row per kind."""

    def row(grid: Sequence[Axes], kind: str, strip: Strip) -> None:
        tags, candidates = strip.task.candidate_tags(), strip.task.candidates()
        for place, axes in enumerate(grid):
            if place >= len(strip.lowest):
                axes.set_axis_off()
                continue
            index = int(strip.lowest[place])
            corrupted = tags[index] != "target"
            draw_sample(strip.task, candidates[index], axes)
            frame(axes, TARGET if corrupted else CANDIDATE)
            tag = title(str(tags[index])) if corrupted else "clean"
            axes.text(0.5, -0.08, tag, transform=axes.transAxes, fontsize=7.5, ha="center", va="top")
        grid[0].annotate(
            f"{title(kind)}: lowest values by {strip.method}",
            (0, 1),
            (0, 19),
            "axes fraction",
            textcoords="offset points",
            fontsize=10.5,
            fontweight="bold",
        )

    def draw() -> Canvas:
        canvas = Canvas(figsize=(WIDTH, 1.6 * len(of_kinds)))
        for axes, (kind, strip) in zip(picture_grid(canvas, len(of_kinds), _ACROSS), of_kinds.items(), strict=True):
            row(axes, kind, strip)
        return canvas

    caption = (
        "The candidates of lowest value, the lowest on the left, by the method that detects most of each corruption, "
        "in the first repetition. Above each its label as training sees it, below it what it is. Framed in orange: "
        "corrupted."
    )
    return Figure("lowest", "What was found", caption, draw)
