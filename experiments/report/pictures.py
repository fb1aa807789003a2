"""Figures of samples as a person sees them: what was asked for, what was selected, what is near to what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle
from torch import nn

from experiments.report.figures import WIDTH, draw_arms
from experiments.report.statistics import Interval
from experiments.report.style import CANDIDATE, SELECTED, TARGET, Figure
from tarot import Selection
from tarot.selection import SelectionProblem
from tarot.space import distances
from tasks.task import DrawsPredictions, Task, able

_BLOCK = 8192  # candidates whose distances are computed at once
_ROW = 1.6  # inches that a row of pictures takes at most, with what stands above and below it
_EDGES = 0.67  # inches above the first row and below the last, for what stands there
_IN_LEGEND = 6  # entries in a row of a legend
_WIDE = 1.2  # pictures broader than this are fewer in a row


def overview(
    task: Task,
    selection: Selection,
    metric: str,
    results: Mapping[str, Interval],
    how: str,
    seed: int,
) -> Figure:
    """Some targets, the candidates that are repeated most and some of those left out; below them what came of it."""
    rng = np.random.default_rng(seed)
    shape = breadth(task)
    columns = 8 if shape <= _WIDE else 5
    pitch = min(_ROW, _cell(columns, shape) + 0.74)  # inches of a row with what stands above and below its pictures
    outside = np.setdiff1d(np.arange(selection.n), selection.indices)
    rows = [
        (
            f"targets: {selection.m:,}, what the model must become good at",
            TARGET,
            _some(rng, np.arange(selection.m), columns),
        )
    ]
    if len(selection):
        most = np.argsort(-selection.weights, kind="stable")[:columns]
        rows.append((f"selected: {len(selection):,} of {selection.n:,} candidates", SELECTED, selection.indices[most]))
    if len(outside):
        rows.append((f"left out: {len(outside):,}", CANDIDATE, _some(rng, outside, columns)))
    tags = task.candidate_tags()

    def draw_row(grid: Sequence[Axes], title: str, edge: str, chosen: np.ndarray) -> None:
        split = task.targets() if edge == TARGET else task.candidates()
        for place, axes in enumerate(grid):
            if place >= len(chosen):
                axes.set_axis_off()
                continue
            draw_sample(task, split[int(chosen[place])], axes)
            frame(axes, edge)
            if edge != TARGET and tags is not None:
                tag = tags[chosen[place]].replace("_", " ")
                axes.text(0.5, -0.08, tag, transform=axes.transAxes, fontsize=8, ha="center", va="top")
        grid[0].annotate(
            title, (0, 1), (0, 19), "axes fraction", textcoords="offset points", fontsize=10.5, fontweight="bold"
        )

    def draw() -> Canvas:
        below = 0.42 * len(results) + 0.95  # inches
        canvas = Canvas(figsize=(WIDTH, pitch * len(rows) + below))
        grid = picture_grid(canvas, len(rows), columns, bottom=below)
        for axes, row in zip(grid, rows, strict=True):
            draw_row(axes, *row)
        left = 0.2 + 0.09 * max(map(len, results))
        height = canvas.get_figheight()
        axes = canvas.add_axes((left / WIDTH, 0.5 / height, 0.99 - left / WIDTH, (below - 0.7) / height))
        draw_arms(axes, metric, results)
        axes.set_xlabel(f"{metric} of models trained on each")
        return canvas

    caption = (
        "Some of the targets; the selected candidates that are repeated most; a random few of the others. Above each "
        f"its label{'' if tags is None else ', below it what it is, which no selector sees'}. At the bottom: {metric} "
        f"of models trained on each selection. {how}"
    )
    return Figure("overview", "What was asked for, what was selected, and what came of it", caption, draw)


def neighbours(task: Task, problem: SelectionProblem, selection: Selection, seed: int, rows: int = 5) -> Figure:
    """Some targets beside their nearest and farthest candidates."""
    some = _some(np.random.default_rng(seed), np.arange(len(problem.targets)), rows)
    blocks = [
        distances(problem.candidates[i : min(i + _BLOCK, problem.n)], problem.targets[some])
        for i in range(0, problem.n, _BLOCK)
    ]
    distance = torch.cat(blocks).numpy()  # [N, rows]
    order = np.argsort(distance, axis=0, kind="stable")
    shape = breadth(task)
    near, far = min(5 if shape <= _WIDE else 3, problem.n), min(2, problem.n)
    pitch = min(0.7, _cell(1 + near + far, shape)) + 0.45
    selected = set(selection.indices.tolist())
    candidates, targets = task.candidates(), task.targets()

    def draw() -> Canvas:
        canvas = Canvas(figsize=(WIDTH, pitch * len(some) + 0.25))
        grid = picture_grid(canvas, len(some), 1 + near + far)
        for row, target in enumerate(some):
            draw_sample(task, targets[int(problem.usable_targets[target])], grid[row, 0])
            frame(grid[row, 0], TARGET)
            for column, index in enumerate([*order[:near, row], *order[-far:, row]], start=1):
                axes = grid[row, column]
                draw_sample(task, candidates[int(index)], axes, f"{distance[index, row]:.2f}")
                if int(index) in selected:
                    frame(axes, SELECTED)
        for column, text in ((0, "target"), (1, "nearest"), (1 + near, "farthest")):
            grid[0, column].annotate(
                text, (0, 1), (0, 19), "axes fraction", textcoords="offset points", fontweight="bold"
            )
        return canvas

    caption = (
        "Framed in orange: targets. Beside each its nearest candidates, and its farthest. Above each, its label where "
        "there is one and its distance (0: the same direction; 1.41: unrelated; 2: opposite). Blue frames: selected."
    )
    return Figure("neighbours", "Nearest and farthest candidates of some targets", caption, draw)


def predictions(task: Task, models: Mapping[str, nn.Module], seed: int, rows: int = 4) -> Figure:
    """Some test samples, the truth, and what models make of them, in the order given."""
    test, draw_prediction = task.test(), able(task, DrawsPredictions).draw_prediction
    some = _some(np.random.default_rng(seed), np.arange(len(test)), rows)
    shape = breadth(task)
    columns = {"sample": None, "truth": None, **models}
    height = min(1.3, _cell(len(columns), shape))
    gap = 0.25
    handles, names = _legend(task)
    below = 0.2 * -(-len(names) // _IN_LEGEND) + 0.1 * bool(names)

    def draw() -> Canvas:
        canvas = Canvas(figsize=(WIDTH, (height + gap) * len(some) - gap + _EDGES + below))
        grid = picture_grid(canvas, len(some), len(columns), bottom=below, gap=gap)
        for row, index in enumerate(some):
            sample = test[int(index)]
            draw_sample(task, sample, grid[row, 0])
            for axes, model in zip(grid[row, 1:], (None, *models.values()), strict=True):
                draw_prediction(model, sample, axes)
        for axes, text in zip(grid[0], columns, strict=True):
            axes.annotate(text, (0, 1), (0, 19), "axes fraction", textcoords="offset points", fontweight="bold")
        if names:
            canvas.legend(handles, names, loc="lower center", ncols=_IN_LEGEND, fontsize=8, handletextpad=0.3)
        return canvas

    caption = (
        f"A random few test samples, what is true of them, and what models predict: {' beside '.join(models)}. Each is "
        "the model of the first training seed."
    )
    return Figure("predictions", "Predictions before and after", caption, draw)


def _legend(task: Task) -> tuple[list[Artist], list[str]]:
    """What the task's predictions are labelled with; empty where it labels nothing."""
    axes = Canvas().subplots()
    able(task, DrawsPredictions).draw_prediction(None, task.test()[0], axes)
    return axes.get_legend_handles_labels()


def breadth(task: Task) -> float:
    """Width over height of the task's pictures, by the first target; 1 where a picture fits any shape."""
    axes = Canvas().subplots()
    task.draw(task.targets()[0], axes)
    aspect = axes.get_aspect()
    return 1.0 if aspect == "auto" else 1 / (float(aspect) * axes.get_data_ratio())


def _cell(columns: int, breadth: float) -> float:
    """Height in inches of a picture as wide as one of so many columns is."""
    return WIDTH / (columns + 0.08 * (columns - 1)) / breadth


def _some(rng: np.random.Generator, indices: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of them, in their order."""
    return np.sort(rng.choice(indices, min(count, len(indices)), replace=False))


def picture_grid(canvas: Canvas, rows: int, columns: int, bottom: float = 0, gap: float = 0.45) -> np.ndarray:
    """Places for pictures, [rows, columns], above the lowest `bottom` inches, with `gap` inches between rows. Laid out
    by hand: with this many axes the layout engine takes seconds."""
    width, height = canvas.get_size_inches()
    picture = (height - bottom - _EDGES - gap * (rows - 1)) / rows
    places = {
        "left": 0.05 / width,
        "right": 1 - 0.05 / width,
        "bottom": (bottom + 0.22) / height,
        "top": 1 - 0.45 / height,
        "wspace": 0.08,
        "hspace": gap / max(0.1, picture),
    }
    return canvas.subplots(rows, columns, squeeze=False, gridspec_kw=places)


def draw_sample(task: Task, sample: Sequence, axes: Axes, note: str = "") -> None:
    """A sample with its own title to the left and a note to the right of it, both in small print."""
    task.draw(sample, axes)
    title = next((axes.get_title(loc=place) for place in ("left", "center", "right") if axes.get_title(loc=place)), "")
    axes.set_title("", loc="center")
    axes.set_title(title, loc="left", fontsize=9, pad=4)
    axes.set_title(note, loc="right", fontsize=8, pad=4)


def frame(axes: Axes, edge: str) -> None:
    """A coloured frame around a picture, also where the task has switched its axes off."""
    axes.add_patch(
        Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, edgecolor=edge, linewidth=3, clip_on=False)
    )
