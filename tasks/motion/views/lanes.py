"""The map as an agent sees it: lines cut into pieces of so many points, the nearest ones kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.motion.formats import MapLine
from tasks.motion.views.profile import LINE_CODES, LINE_KINDS, Profile

REPEATED = 1e-3
"""Metres. A point so near to the one before it repeats it, as where nuScenes joins two arcs: the rounding of the two
would be its direction. It has none, as the first point has none."""


@dataclass(frozen=True)
class Lines:
    """The lines of a map that a profile shows, in the scenario's frame, one after the other.

    xy: float64 [n, 2]; direction: float64 [n, 2], from the point before it, of unit length, 0 at a line's first point;
    piece: int64 [n], which piece a point belongs to, rising; codes: int8 [pieces].
    """

    xy: np.ndarray
    direction: np.ndarray
    piece: np.ndarray
    codes: np.ndarray


@dataclass(frozen=True)
class Segments:
    """The pieces nearest to the target, in its frame, the nearest first.

    points: float32 [s, M, 4], x, y and direction, 0 where there is no point; counts: int16 [s], how many points there
    are, the first ones; codes: int8 [s].
    """

    points: np.ndarray
    counts: np.ndarray
    codes: np.ndarray


def _places(counts: np.ndarray) -> np.ndarray:
    """0, 1, .. of each group, one group after the other."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def lines_of(map_lines: Sequence[MapLine], profile: Profile) -> Lines:
    """What of a map does not depend on the target: once for each scene."""
    wanted = frozenset().union(*(LINE_KINDS[kind] for kind in profile.lines))
    shown = [line for line in map_lines if LINE_CODES.get(line.kind) in wanted and len(line.xy)]
    if not shown:
        return Lines(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0, np.int64), np.zeros(0, np.int8))
    xy = np.concatenate([np.asarray(line.xy, np.float64) for line in shown])
    counts = np.array([len(line.xy) for line in shown])
    codes = np.array([LINE_CODES[line.kind] for line in shown], np.int8)
    few = np.ones(len(shown), bool) if profile.pieces else counts < profile.points
    resampled, resampled_counts = _resampled(xy, counts, few, profile.spacing)
    as_they_are = np.repeat(~few, counts)
    xy = np.concatenate([resampled, xy[as_they_are]])
    codes = np.concatenate([codes[few], codes[~few]])
    counts = np.concatenate([resampled_counts, counts[~few]])

    places = _places(counts)
    step = np.diff(xy, axis=0, prepend=xy[:1])
    length = np.linalg.norm(step, axis=1)
    moves = (places > 0) & (length > REPEATED)
    direction = np.where(moves[:, None], step / np.where(moves, length, 1)[:, None], 0)
    line = np.repeat(np.arange(len(counts)), counts)
    if not profile.pieces:
        return Lines(xy, direction, line, codes)
    piece = np.cumsum(places % profile.points == 0) - 1
    return Lines(xy, direction, piece, codes[line[places % profile.points == 0]])


def _resampled(xy: np.ndarray, counts: np.ndarray, which: np.ndarray, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Points every `spacing` metres of the lines that are chosen, the end excluded: [n, 2], and how many of each."""
    first = np.cumsum(counts) - counts
    step = np.linalg.norm(np.diff(xy, axis=0, prepend=xy[:1]), axis=1)
    step[first] = 1  # lines lie one after the other on one ruler, and a metre apart
    arc = np.cumsum(step)
    start, length = arc[first][which], (arc[first + counts - 1] - arc[first])[which]
    # the tolerance: a turned line of the same length must have as many points
    new = np.maximum(np.ceil(length / spacing - 1e-6), 1).astype(np.int64)
    at = np.repeat(start, new) + spacing * _places(new)
    return np.stack([np.interp(at, arc, xy[:, 0]), np.interp(at, arc, xy[:, 1])], axis=1), new


def segments_around(lines: Lines, centre: np.ndarray, rotation: np.ndarray, profile: Profile) -> Segments:
    """Of each piece, its runs of points in the box around the target.

    centre: float64 [2], where the target is; rotation: float64 [2, 2], row vectors times it are in the target's frame.
    """
    seen = (lines.xy - centre) @ rotation
    x_from, x_to, y_from, y_to = profile.box
    inside = (seen[:, 0] > x_from) & (seen[:, 0] < x_to) & (seen[:, 1] > y_from) & (seen[:, 1] < y_to)
    kept = np.flatnonzero(inside)
    if not len(kept):
        size = (0, profile.points, 4)
        return Segments(np.zeros(size, np.float32), np.zeros(0, np.int16), np.zeros(0, np.int8))
    piece = lines.piece[kept]
    new = np.concatenate([[True], (np.diff(kept) > 1) | (np.diff(piece) > 0)])
    first = np.flatnonzero(new)
    counts = np.diff(np.append(first, len(kept)))

    m = profile.points
    place = np.arange(m)
    # integer division: as many points as evenly as can be, the first and the last among them
    place = np.where(counts[:, None] > m, place * (counts[:, None] - 1) // (m - 1), place)
    at = kept[np.minimum(first[:, None] + place, len(kept) - 1)]  # [runs, M]; past a run's end, some other point
    counts = np.minimum(counts, m)
    valid = np.arange(m) < counts[:, None]
    xy = np.where(valid[..., None], seen[at], 0)
    centre = np.array(profile.centre)
    if profile.pieces:
        distance = np.linalg.norm(xy.sum(1) / counts[:, None] - centre, axis=1)
    else:
        distance = (np.linalg.norm(xy - centre, axis=2) * valid).sum(1) / counts
    nearest = np.argsort(distance, kind="stable")[: profile.segments]
    direction = np.where(valid[nearest, :, None], lines.direction[at[nearest]] @ rotation, 0)
    points = np.concatenate([xy[nearest], direction], axis=2).astype(np.float32)
    return Segments(points, counts[nearest].astype(np.int16), lines.codes[piece[first[nearest]]])
