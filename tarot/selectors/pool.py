"""The pool as those see it who sum it up without targets: class by class, each with a share of the budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tarot.features import PartRows, Rows, blocks
from tarot.selection import SelectionProblem, too_few
from tarot.space import JoinedRows

WHOLE_BYTES = 1 << 30  # of float64 rows: more of them are read anew in every pass

Pass = Callable[[], Iterator[tuple[int, NDArray[np.float64]]]]
"""One pass over some rows: (start, float64 [b, d]) for consecutive blocks."""


@dataclass(frozen=True, eq=False)
class PoolClass:
    """Candidates of one class, or all where there are none, and how many of them are to be chosen.

    number: of the class, in the order of labels. members: their indices, int64 [n], none of them with zero features, in
    an order that does not depend on where they stand (`SelectionProblem.ordered`), by which equals are told apart.
    rows: theirs, as long as they are; those of several views side by side, divided by the root of how many they are.
    """

    number: int
    members: NDArray[np.int64]
    rows: Rows
    share: int


def pool_classes(problem: SelectionProblem, budget: int) -> list[PoolClass]:
    """The classes that get a share of the budget. Raises InputError where too few candidates are usable."""
    everybody = np.arange(problem.n)
    usable = problem.ordered(everybody[~problem.zero_rows(everybody)])
    if len(usable) < budget:
        raise too_few(budget, len(usable), problem.n)
    views = problem.candidate_views
    rows: Rows = views[0] if len(views) == 1 else JoinedRows(views, "candidates", unit=False)
    if problem.candidate_labels is None:
        return [PoolClass(0, usable, PartRows(rows, usable), budget)]
    codes = np.unique(np.asarray(problem.candidate_labels), return_inverse=True)[1]
    members = [usable[codes[usable] == code] for code in range(codes.max() + 1)]
    shares = dealt(np.array([len(some) for some in members]), budget)
    return [
        PoolClass(number, some, PartRows(rows, some), int(share))
        for number, (some, share) in enumerate(zip(members, shares, strict=True))
        if share
    ]


def chosen_by_class(
    problem: SelectionProblem, budget: int, choose: Callable[[Rows, int], NDArray[np.int64]]
) -> NDArray[np.int64]:
    """What `choose` takes of each class's rows, as positions, given how many: candidates, int64 [budget]."""
    return np.concatenate([one.members[choose(one.rows, one.share)] for one in pool_classes(problem, budget)])


def dealt(sizes: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Shares of a total, int64 [classes], as equal as sizes allow: a class smaller than its share gives all it has, and
    what it lacks is dealt again to the others. What cannot be divided goes to the largest, ties to the first."""
    shares = np.zeros(len(sizes), dtype=np.int64)
    open_to_more = np.ones(len(sizes), dtype=bool)
    while True:
        others = np.flatnonzero(open_to_more)
        if not len(others):
            return shares
        share, rest = divmod(total - int(shares.sum()), len(others))
        small = others[sizes[others] <= share]
        if not len(small):
            largest = others[np.argsort(-sizes[others], kind="stable")]
            shares[others] = share
            shares[largest[:rest]] += 1
            return shares
        shares[small] = sizes[small]
        open_to_more[small] = False


def passes(rows: Rows) -> Pass:
    """Passes over rows about their mean; those that fit in memory are read once."""
    n, d = rows.shape
    total = np.zeros(d)
    for _, block in blocks(rows, name="candidates"):
        total += block.double().numpy().sum(axis=0)
    mean = total / n

    def read() -> Iterator[tuple[int, NDArray[np.float64]]]:
        for start, block in blocks(rows, name="candidates"):
            yield start, block.double().numpy() - mean

    if 8 * n * d > WHOLE_BYTES:
        return read
    kept = list(read())
    return lambda: iter(kept)
