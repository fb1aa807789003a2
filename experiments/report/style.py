"""How figures look: one palette in which a method has the same colour everywhere, on light and on dark paper."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib
import matplotlib.image as images
from matplotlib.figure import Figure as Canvas

Theme = Literal["light", "dark"]
INK: dict[Theme, str] = {"light": "#1f2933", "dark": "#e4e7eb"}
FAINT: dict[Theme, str] = {"light": "#d5dae0", "dark": "#3a424d"}
PAPER: dict[Theme, str] = {"light": "#ffffff", "dark": "#161b22"}

# Okabe and Ito's colours, told apart by people with any colour vision; similar methods share a hue, not a marker
_STYLES = {
    "tarot_otm": ("#0072B2", "o"),
    "tarot_fixed": ("#56B4E9", "s"),
    "tarot_exact": ("#009E73", "D"),
    "random": ("#8C8C8C", "X"),
    "all": ("#5C6670", "P"),
    "target_only": ("#B8A200", "p"),
    "untrained": ("#C08497", "1"),
    "oracle": ("#E69F00", "*"),
    "dsdm": ("#D55E00", "v"),
    "less": ("#CC79A7", "^"),
    "tsds": ("#8E44AD", "<"),
    "lava": ("#A0522D", ">"),
    "sava": ("#D98C6A", "h"),
    "batchwise_lava": ("#5B3016", "8"),
    "knn_shapley": ("#117733", "P"),
    "tracin": ("#E6B800", "d"),
    "influence": ("#4B4BC3", "X"),
    "el2n": ("#2CB5A0", "*"),
    "prototypes": ("#E0457B", "p"),
    "wasserstein_coreset": ("#117733", "h"),
    "herding": ("#6699CC", "<"),
    "k_center": ("#882255", ">"),
    "round_robin": ("#332288", "o"),
    "doubly_greedy": ("#CC6677", "s"),
    "facility_location": ("#999933", "D"),
    "bids": ("#AA4499", "v"),
    "uot": ("#661100", "h"),
    "dsir": ("#44AA99", "X"),
    "rded": ("#E6B800", "d"),
    "wmdd": ("#0072B2", "o"),
    "wmdd_noise": ("#56B4E9", "s"),
    "wmdd_released": ("#009E73", "D"),
    "sre2l": ("#D55E00", "v"),
    "no pruning": ("#5C6670", "P"),
    "tempered": ("#009E73", "D"),
    "tempered_default": ("#66C2A5", "d"),
    "wfd": ("#0072B2", "o"),
    "wfd_ridge": ("#56B4E9", "s"),
    "wfd_small_ridge": ("#4B4BC3", "P"),
    "wfd_zca": ("#2CB5A0", "*"),
    "wfd_unwhitened": ("#A0522D", "h"),
    "wfd_unnormalised": ("#E0457B", "p"),
    "wfd_neither": ("#5B3016", "8"),
    "trak": ("#D55E00", "v"),
    "trak_ridge": ("#E69F00", "<"),
    "trak_best": ("#8E6C00", ">"),
    "graddot": ("#8C8C8C", "X"),
    "gradcos": ("#CC79A7", "^"),
}
_OTHERS = ("#44AA99", "#AA4499", "#999933", "#882255", "#6699CC", "#DDAA33")

DPI = 150  # of figures 7.2 inches wide: sharp on a page of 56 rem

CANDIDATE, TARGET, SELECTED, BOUND = "#9AA5B1", "#D55E00", "#0072B2", "#E69F00"


def colour(method: str) -> str:
    """That of a method, on any features, at any setting ("less on rds, 10%"); one that we do not know gets one by its
    name, the same in every figure."""
    method = _bare(method)
    return _STYLES[method][0] if method in _STYLES else _OTHERS[sum(map(ord, method)) % len(_OTHERS)]


def marker(method: str) -> str:
    return _STYLES.get(_bare(method), ("", "o"))[1]


def _bare(method: str) -> str:
    """Without its features and its setting."""
    return method.partition(",")[0].partition(" on ")[0]


@dataclass(frozen=True)
class Figure:
    """A picture and how to read it. draw: makes the canvas, under the theme that is in force when it is called."""

    name: str
    title: str
    caption: str
    draw: Callable[[], Canvas]

    @classmethod
    def of_file(cls, path: Path, name: str, title: str, caption: str) -> Figure:
        """A picture that is there as PNG, made by `png`: on its own paper under every theme."""

        def draw() -> Canvas:
            pixels = images.imread(path)
            height, width = pixels.shape[:2]
            canvas = Canvas(figsize=(width / DPI, height / DPI))
            canvas.figimage(pixels)
            return canvas

        return cls(name, title, caption, draw)

    def render(self) -> Picture:
        return Picture(self.name, self.title, self.caption, self.png("light"), self.png("dark"))

    def png(self, theme: Theme) -> bytes:
        with themed(theme):
            buffer = io.BytesIO()
            self.draw().savefig(buffer, format="png", dpi=DPI)
            return buffer.getvalue()


@dataclass(frozen=True)
class Picture:
    """A figure as PNG, on light and on dark paper."""

    name: str
    title: str
    caption: str
    light: bytes
    dark: bytes


@contextmanager
def themed(theme: Theme) -> Iterator[None]:
    ink, faint, paper = INK[theme], FAINT[theme], PAPER[theme]
    with matplotlib.rc_context(
        {
            "font.family": "sans-serif",
            "font.sans-serif": ["Inter", "Helvetica Neue", "Arial", "DejaVu Sans"],
            "font.size": 10,
            "axes.titlesize": 10.5,
            "axes.titlelocation": "left",
            "axes.labelsize": 10,
            "legend.frameon": False,
            "legend.fontsize": 9.5,
            "text.color": ink,
            "axes.labelcolor": ink,
            "axes.edgecolor": faint,
            "axes.facecolor": paper,
            "figure.facecolor": paper,
            "savefig.facecolor": paper,
            "xtick.color": ink,
            "ytick.color": ink,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "text.parse_math": False,  # names are text: a $ in one is a $
            "grid.color": faint,
            "grid.linewidth": 0.7,
            "lines.linewidth": 1.8,
        }
    ):
        yield


def ink() -> str:
    """The colour of text under the theme in force."""
    return matplotlib.rcParams["text.color"]
