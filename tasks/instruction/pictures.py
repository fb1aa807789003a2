"""How a conversation looks to a person."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from tasks.instruction.template import TAGS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_conversation(asked: str, answer: str, axes: Axes) -> None:
    """What is asked, and below it the answer in bold, as much of both as there is room for."""
    size = axes.figure.dpi_scale_trans.inverted().transform_bbox(axes.get_window_extent())  # inches
    points = 5 if size.width < 1.5 else 7
    columns = int(0.96 * 72 * size.width / (0.67 * points))  # a bold letter is two thirds as wide as it is high
    lines = int(0.96 * 72 * size.height / (1.42 * points))
    below = max(1, (lines + 1) // 2)
    for text, height, where, weight, most in (
        (asked, 0.98, "top", "normal", max(1, lines - below)),
        (answer, 0.02, "bottom", "bold", below),
    ):
        axes.text(
            *(0.02, height),
            _fitted(text, columns, most),
            va=where,
            weight=weight,
            fontsize=points,
            transform=axes.transAxes,
        )
    axes.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(0, 1))


def _fitted(text: str, columns: int, lines: int) -> str:
    """Its beginning, in so many lines at most, without the template's tags."""
    for tag in TAGS:
        text = text.replace(tag, " ")
    return "\n".join(textwrap.wrap(" ".join(text.split()), max(8, columns), max_lines=lines, placeholder=" ..."))
