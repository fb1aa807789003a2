"""What a person looks at: figures, pictures, tables, the page."""

from experiments.report.figures import WIDTH, plane
from experiments.report.findings import Arm, Findings, Outcome, precision, selected_by_source, sources_of
from experiments.report.page import Page, Result, Table, Tile, plain
from experiments.report.pictures import draw_sample, frame, picture_grid
from experiments.report.statistics import (
    FEWEST,
    Interval,
    explain,
    explain_repetitions,
    mean_band,
    mean_interval,
    over_repetitions,
)
from experiments.report.style import CANDIDATE, SELECTED, TARGET, Figure, colour, ink, marker

__all__ = [
    "CANDIDATE",
    "FEWEST",
    "SELECTED",
    "TARGET",
    "WIDTH",
    "Arm",
    "Figure",
    "Findings",
    "Interval",
    "Outcome",
    "Page",
    "Result",
    "Table",
    "Tile",
    "colour",
    "draw_sample",
    "explain",
    "explain_repetitions",
    "frame",
    "ink",
    "marker",
    "mean_band",
    "mean_interval",
    "over_repetitions",
    "picture_grid",
    "plain",
    "plane",
    "precision",
    "selected_by_source",
    "sources_of",
]
