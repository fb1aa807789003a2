"""How a scene looks from above: lanes in grey, where everybody came from, and where the target goes; it faces up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from tasks.motion.models import Prediction
from tasks.motion.views import trajectory_type

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LANE, OTHER, PAST, FUTURE = "#9AA5B1", "#009E73", "#0072B2", "#D55E00"
MODES = ("#D55E00", "#8E44AD", "#E69F00", "#CC79A7", "#4B4BC3", "#A0522D")
SHORT = ("stays", "ahead", "veers right", "veers left", "U-turn", "right", "U-turn", "left")  # of `tags.TYPES`
SIZE = (4.6, 1.9)  # metres, of a vehicle whose size is not known
LEAST = 25.0  # metres from the middle of a picture to its edges, at least


def draw(sample: Mapping[str, Tensor], axes: Axes) -> None:
    """One sample of `features.featurised`: lanes, everybody's past and place now, and the target's future."""
    _scene(sample, axes)
    future = sample["future"][sample["future_valid"]][:, :2].numpy()
    _way(axes, np.concatenate([np.zeros((1, 2)), future]), FUTURE, 1.8)
    axes.set_title(title(sample))


def draw_prediction(prediction: Prediction | None, sample: Mapping[str, Tensor], axes: Axes) -> None:
    """The futures of a prediction of this one sample, the more probable the stronger, and the truth in dots; without a
    prediction the truth alone. What is labelled means the same in both."""
    _scene(sample, axes)
    truth = np.concatenate([np.zeros((1, 2)), sample["future"][sample["future_valid"]][:, :2].numpy()])
    axes.plot(*_up(truth), ":", color="black", linewidth=1.3, zorder=5, label="truth")
    if prediction is None:
        return
    shares = prediction.probabilities[0].cpu().numpy()
    futures = prediction.trajectories[0, :, :, :2].cpu().numpy()
    for mode in np.argsort(shares):
        alpha = 0.25 + 0.75 * float(shares[mode] / shares.max())
        way = np.concatenate([np.zeros((1, 2)), futures[mode]])
        _way(axes, way, MODES[mode % len(MODES)], 1.6, alpha=alpha, zorder=4)
        axes.plot(*_up(way[-1:]), "o", color=MODES[mode % len(MODES)], markersize=2.5, alpha=alpha, zorder=4)


def title(sample: Mapping[str, Tensor]) -> str:
    """What the target does, in two words: many pictures stand in a row."""
    future, valid = sample["future"].numpy(), sample["future_valid"].numpy()
    if not valid.any():
        return "unknown"
    speed = float(np.hypot(*sample["agents"][0, -1, -4:-2].numpy()))
    return SHORT[trajectory_type(future, valid, speed)]


def _scene(sample: Mapping[str, Tensor], axes: Axes) -> None:
    agents, valid = sample["agents"].numpy(), sample["agents_valid"].numpy()
    for points, there in zip(sample["lanes"].numpy(), sample["lanes_valid"].numpy(), strict=True):
        if there.any():
            _way(axes, points[there][:, :2], LANE, 0.8, zorder=1)
    steps = valid.shape[1]
    for row in range(len(agents)):
        if not valid[row].any():
            continue
        colour = PAST if row == 0 else OTHER
        past = axes.plot(*_up(agents[row, valid[row], :2]), color=colour, linewidth=1.4, zorder=2)[0]
        if row == 0:
            past.set_label("past")
        now = agents[row, np.flatnonzero(valid[row])[-1]]
        heading = float(np.arctan2(now[12 + steps], now[13 + steps]))
        size = tuple(now[3:5]) if now[3] > 0 else SIZE
        _box(axes, now[:2], heading, size, colour, 0.9 if valid[row, -1] else 0.35)
    _window(sample, axes)


def _box(axes: Axes, centre: np.ndarray, heading: float, size: tuple[float, float], colour: str, alpha: float) -> None:
    """A vehicle, pointed at its front."""
    length, width = size[0] / 2, size[1] / 2
    corners = np.array(
        [[length, 0], [length * 0.6, width], [-length, width], [-length, -width], [length * 0.6, -width]]
    )
    sin, cos = np.sin(heading), np.cos(heading)
    axes.fill(
        *_up(corners @ np.array([[cos, sin], [-sin, cos]]) + centre),
        facecolor=colour,
        edgecolor="none",
        alpha=alpha,
        zorder=3,
    )


def _way(axes: Axes, xy: np.ndarray, colour: str, width: float, alpha: float = 1.0, zorder: int = 3) -> None:
    axes.plot(*_up(xy), color=colour, linewidth=width, alpha=alpha, solid_capstyle="round", zorder=zorder)


def _up(xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where a picture has points [n, 2] of the target's frame, which looks along x: up."""
    return -xy[:, 1], xy[:, 0]


def _window(sample: Mapping[str, Tensor], axes: Axes) -> None:
    """As much as it takes to see the target's past and future; the same whatever is drawn of it."""
    past = sample["agents"][0, sample["agents_valid"][0]][:, :2].numpy()
    seen = np.concatenate([past, sample["future"][sample["future_valid"]][:, :2].numpy(), np.zeros((1, 2))])
    middle = (seen.min(0) + seen.max(0)) / 2
    half = max(LEAST, float((seen.max(0) - seen.min(0)).max()) / 2 + 8)
    axes.set_xlim(-middle[1] - half, -middle[1] + half)
    axes.set_ylim(middle[0] - half, middle[0] + half)
    axes.set_aspect("equal")
    axes.set_axis_off()
