"""k-means++: where to start from when rows are to be summarised by a few atoms (Arthur and Vassilvitskii, 2007).

What is drawn depends on what rows hold, never on where they stand: every row runs a race against the others, whose time
is a random number of its content over its weight, and the first wins with a probability in proportion to its weight.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

_CACHED = 1 << 16  # numbers of 8 bytes


def keyed_uniforms(keys: NDArray[np.uint64], *stream: int) -> NDArray[np.float64]:
    """A random number in (0, 1) for each key [n] of this stream: SplitMix64 (Steele, Lea, Flood 2014)."""
    digest = hashlib.sha256(repr(stream).encode()).digest()
    z = keys + np.frombuffer(digest[:8], dtype=np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    z ^= z >> np.uint64(31)
    return np.asarray((z >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def plus_plus(
    rows: NDArray[np.float64], masses: NDArray[np.float64], keys: NDArray[np.uint64], count: int, *stream: int
) -> NDArray[np.int64]:
    """Positions of `count` rows, int64: the first drawn by mass, each other one by mass times squared distance to those
    before it, and by mass alone once every row has been drawn.

    rows [n, d] are distinct, masses [n] are positive, keys [n] are of their content.
    """
    chosen = np.empty(count, dtype=np.int64)
    weight = masses
    for place in range(count):
        time = -np.log(keyed_uniforms(keys, *stream, place))
        pulling = weight if weight.any() else masses
        with np.errstate(divide="ignore"):
            chosen[place] = np.argmin(time / pulling)
        distance = _squares(rows, rows[chosen[place]])
        weight = np.minimum(weight, masses * distance) if place else masses * distance
    return chosen


def _squares(rows: NDArray[np.float64], row: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared distances [n], some rows at a time, so that differences stay in the processor's cache."""
    step = max(16, _CACHED // rows.shape[1])
    gaps = np.empty((min(step, len(rows)), rows.shape[1]))
    distance = np.empty(len(rows))
    for start in range(0, len(rows), step):
        here = slice(start, start + step)
        gap = np.subtract(rows[here], row, out=gaps[: len(rows[here])])
        np.multiply(gap, gap, out=gap).sum(axis=1, out=distance[here])
    return distance
