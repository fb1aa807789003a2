"""Round-robin: targets take turns, each takes the most similar candidate that is left (theory.md 11.1)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tarot.selection import Selection, SelectionProblem, too_few
from tarot.selectors.options import Sized, described
from tarot.space import Whitening

_FIRST = 32  # nearest candidates of every target that are found at first


@dataclass(frozen=True)
class RoundRobin(Sized):
    """Targets take turns in their order; each takes its most similar candidate that nobody has taken; until `size`.

    With `target_groups` (subtasks) turns go over the groups, in the order in which they appear, and within a group over
    its targets, so that every group is served alike, however many targets it has. Ties go to the smaller index. The
    order of candidates does not matter; that of targets does, since some take their turn before others.
    """

    features: ClassVar[str | None] = "wfd"
    whitening: ClassVar[Whitening] = None
    reference: ClassVar[bool] = False

    def select(self, problem: SelectionProblem) -> Selection:
        budget = problem.budget(self.size, self.ratio)
        groups = None if problem.target_groups is None else problem.target_groups[problem.usable_targets]
        return problem.selection(_taken(problem, budget, turns(groups, len(problem.targets))), described(self))


def turns(groups: NDArray[Any] | None, m: int) -> Iterator[int]:
    """Whose turn it is, position of a target, without an end."""
    if groups is None:
        yield from cycle(range(m))
    members: dict[Any, list[int]] = {}
    for target, group in enumerate([] if groups is None else groups.tolist()):
        members.setdefault(group, []).append(target)
    going_round = [cycle(targets) for targets in members.values()]
    while going_round:
        yield from (next(targets) for targets in going_round)


def _taken(problem: SelectionProblem, budget: int, order: Iterator[int]) -> NDArray[np.int64]:
    """The first `budget` candidates to be taken, in this order of turns."""
    m = len(problem.targets)
    index = problem.neighbours(max(_FIRST, math.ceil(4 * budget / m)))[1].numpy()
    place = np.zeros(m, dtype=np.int64)  # how far each target has come in its list
    taken = np.zeros(problem.n, dtype=bool)
    chosen: list[int] = []
    idle = 0  # turns in a row at which nothing was left
    while len(chosen) < budget and idle < m:
        target = next(order)
        while True:
            if place[target] == index.shape[1] < problem.n:
                index = problem.neighbours(2 * index.shape[1])[1].numpy()
            if place[target] == index.shape[1] or (candidate := int(index[target, place[target]])) < 0:
                idle += 1
                break
            place[target] += 1
            if not taken[candidate]:
                taken[candidate] = True
                chosen.append(candidate)
                idle = 0
                break
    if len(chosen) < budget:
        raise too_few(budget, len(chosen), problem.n)
    return np.array(chosen, dtype=np.int64)
