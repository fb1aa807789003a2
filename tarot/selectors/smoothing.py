"""Targets averaged with the targets nearest to them, so that a selection fits where targets lie and not each of them.

A target is a draw: what is nearest to it is nearest to its own chance too, and a held-out target has another. The mean
of near targets is nearer to what they have in common (theory.md 1.6).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tarot.common import InputError, Natural
from tarot.selection import SelectionProblem
from tarot.selectors.options import random_generator
from tarot.transport import dense, solve_exact

Smoothing = Natural | Literal["auto"]

_GRID = (0, 1, 2, 5, 12)  # other targets that a target is averaged with
_FOLDS = 5

Choose = Callable[[SelectionProblem], NDArray[np.int64]]


def smoothed(
    problem: SelectionProblem, smoothing: int | Literal["auto"], seed: int, choose: Choose
) -> tuple[SelectionProblem, dict[str, list[Any]] | None]:
    """The problem whose targets are averaged with the `smoothing` nearest others, and the curve that decided, if one
    did.

    "auto": the number of which `choose`, on four fifths of the targets, comes nearest to the last fifth: the least mean
    over five folds of the exact OT distance. Raises InputError where there are too few targets to hold any out.
    """
    if smoothing != "auto":
        return problem.smoothed(smoothing), None
    m = len(problem.targets)
    if m < 2:
        raise InputError('smoothing="auto" holds targets out, so it needs at least 2 of them; give a number')
    folds = np.array_split(random_generator(seed).permutation(m), min(_FOLDS, m))
    fewest = m - max(map(len, folds))  # targets that select
    counts = [count for count in _GRID if count < fewest] or [0]
    held_out = np.empty((len(counts), len(folds)))
    for column, fold in enumerate(folds):
        rest = problem.restricted(np.setdiff1d(np.arange(m), fold))
        for row, count in enumerate(counts):
            chosen = choose(rest.smoothed(count))
            held_out[row, column] = solve_exact(dense(problem.cost(chosen, fold))).value
    mean = held_out.mean(1)
    best = counts[int(mean.argmin())]
    curve = {"smoothing": counts, "distance_held_out": mean.tolist(), "smoothing_chosen": [best]}
    return problem.smoothed(best), curve
