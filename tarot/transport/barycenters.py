"""The Wasserstein barycenter of one measure: the few atoms that stand for many rows with the least transport.

The barycenter of a single measure is its optimal quantisation. With free weights every row goes to its nearest atom, so
the least cost is that of k-means and an atom's weight is its cell's share of the mass. With given weights the least
cost is an exact transport, and given the transport the best position of an atom is the mean of what it receives. Both
alternate these two steps, neither of which raises the cost (theory.md 12).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from tarot.common import Count, InputError, Natural, NonNegative, checked
from tarot.features import MatrixLike, Rows, as_rows, blocks, read_rows
from tarot.space import content_keys
from tarot.transport.costs import DENSE_PAIRS
from tarot.transport.exact import network_simplex
from tarot.transport.plus_plus import plus_plus

WHOLE_BYTES = 1 << 30  # of float64 rows: more of them are read anew in every step
STARTED_FROM = 20_000  # rows at least that a start is drawn from, where they are not in memory; or ten for every atom
_SCORES = 1 << 19  # of rows with atoms, at once: 4 MB
_STARTS = {"uniform": 3, "free": 10}
_STEPS = {"uniform": 100, "free": 300}


@dataclass(frozen=True, eq=False)
class Barycenter:
    """Atoms that stand for a measure.

    positions: float64 [m, d]. weights: float64 [m], positive, of sum 1. cost: the squared 2-Wasserstein distance
    between them and the rows. converged: whether the cost had ceased to fall when the iteration ended. iterations:
    how many steps the best start took.
    """

    positions: NDArray[np.float64]
    weights: NDArray[np.float64]
    cost: float
    converged: bool
    iterations: int


@checked()
def barycenter(
    rows: MatrixLike,
    atoms: Count,
    weights: Literal["uniform", "free"] | ArrayLike = "uniform",
    *,
    masses: ArrayLike | None = None,
    init: ArrayLike | None = None,
    starts: Count | None = None,
    tolerance: NonNegative = 1e-7,
    max_iterations: Count | None = None,
    seed: Natural = 0,
) -> Barycenter:
    """The `atoms` positions [m, d] of least squared 2-Wasserstein distance to rows [n, d]: a local optimum, the best of
    several starts.

    weights: of the atoms. "uniform": 1/m each, so that a row's mass may be split between atoms. "free": those of least
    cost, an atom's share of the rows that are nearest to it. Or m positive numbers, which are divided by their sum.
    masses: of the rows, [n], not negative, which are divided by their sum; None: all alike.
    init: positions [m, d] to start from; None: k-means++, `starts` times (None: 3, or 10 where weights are free).
    tolerance: the iteration ends where a step lowers the cost by no more than this share of it; or after
    `max_iterations` steps (None: 100, or 300 where weights are free).
    seed: of the starts, which depend on what rows hold and not on their order. Equal rows count as one of their mass.

    Rows are read as float32, like everywhere, and computed with in float64. With free weights they need not fit in
    memory: above 1 GiB they are read a block at a time in every step, and a start is drawn from a part of them; other
    weights need them, and a cost [n, m], in memory. Coinciding atoms share the mass of their cell.
    Raises InputError for what is out of range, and for features that are not finite.
    """
    read = as_rows(rows, "rows")
    given = _checked_weights(weights, atoms)
    free = isinstance(weights, str) and weights == "free"
    measure = _measured(read, _checked_masses(masses, read.shape[0]), streamed=free)
    if not free and len(measure.masses) * atoms > DENSE_PAIRS:
        raise InputError(
            f"rows and atoms make {len(measure.masses):,} x {atoms:,} pairs, more than fit in memory; "
            'take weights="free", or fewer rows'
        )
    kind = "free" if free else "uniform"
    steps = max_iterations or _STEPS[kind]
    best: Barycenter | None = None
    for begin in _beginnings(measure, atoms, init, starts or _STARTS[kind], seed):
        if free:
            found = _quantised(measure, begin(), tolerance, steps)
        else:
            found = _transported(measure, begin(), given, tolerance, steps)
        if best is None or found.cost < best.cost * (1 - 1e-12):  # ties, up to rounding: the first
            best = found
    assert best is not None
    return best


def matched(rows: MatrixLike, barycenter: Barycenter) -> NDArray[np.int64]:
    """The row that each atom is closest to, int64 [m], no row twice, of least total squared distance.

    Some best assignment gives every atom one of its m nearest rows, since the others take up no more than m - 1 of
    these; so no more are looked at. Ties go by what rows hold, not by their order.
    Raises InputError where there are fewer rows than atoms or other dimensions.
    """
    read = as_rows(rows, "rows")
    positions = barycenter.positions
    m, d = positions.shape
    if read.shape[1] != d:
        raise InputError(f"rows have {read.shape[1]} dimensions and atoms {d}: they must agree")
    if read.shape[0] < m:
        raise InputError(f"{m} atoms cannot be matched with different rows: there are {read.shape[0]}")
    nearest = _nearest_rows(read, positions, m)  # [m, m]
    columns = np.unique(nearest)
    parts = np.array_split(columns, -(-len(columns) // 65536))
    keys = np.concatenate([content_keys(read_rows(read, part, "rows")) for part in parts])
    columns = columns[np.argsort(keys, kind="stable")]
    place = np.empty(columns.max() + 1, dtype=np.int64)
    place[columns] = np.arange(len(columns))
    cost = np.stack(
        [
            np.square(read_rows(read, mine, "rows").double().numpy() - position).sum(axis=1)
            for mine, position in zip(nearest, positions, strict=True)
        ]
    )
    above_zero = cost + (cost.max() or 1.0)  # an entry of zero would count as none
    atom = np.repeat(np.arange(m), m)
    graph = scipy.sparse.csr_matrix((above_zero.ravel(), (atom, place[nearest].ravel())), shape=(m, len(columns)))
    found: NDArray[np.int64] = columns[min_weight_full_bipartite_matching(graph)[1]]
    return found


def quantisation_cost(rows: MatrixLike, positions: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """The squared 2-Wasserstein distance between atoms [m, d] of these weights [m], which sum to 1, and rows [n, d]."""
    read = as_rows(rows, "rows")
    measure = _measured(read, np.full(read.shape[0], 1 / read.shape[0]), streamed=False)
    return network_simplex(measure.masses, weights, _squares(measure.matrix, positions - measure.centre)).value


# --- the measure -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Measure:
    """rows: float64 [n, d] about their mean, distinct and in an order of their content; or, where they do not fit in
    memory, what they are read from. masses: [n], of sum 1. keys: uint64 [n] of what rows hold. centre: their mean."""

    rows: NDArray[np.float64] | Rows
    masses: NDArray[np.float64]
    keys: NDArray[np.uint64]
    centre: NDArray[np.float64]
    whole: bool

    @property
    def matrix(self) -> NDArray[np.float64]:
        assert self.whole and isinstance(self.rows, np.ndarray)
        return self.rows

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        if self.whole:
            step = max(256, (1 << 22) // self.centre.size)
            for start in range(0, len(self.masses), step):
                here = slice(start, start + step)
                yield here, self.matrix[here]
            return
        for start, block in blocks(self.rows, name="rows"):
            yield slice(start, start + len(block)), block.double().numpy() - self.centre

    def at(self, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        if self.whole:
            return self.matrix[indices]
        read: NDArray[np.float64] = read_rows(self.rows, indices, "rows").double().numpy()
        return read - self.centre

    def start(self, atoms: int, seed: int, number: int) -> NDArray[np.float64]:
        """Positions of the `number`-th start."""
        if self.whole:
            return self.matrix[plus_plus(self.matrix, self.masses, self.keys, atoms, seed, number)]
        usable = np.flatnonzero(self.masses)
        keys, first, inverse = np.unique(self.keys[usable], return_index=True, return_inverse=True)
        some = slice(max(STARTED_FROM, 10 * atoms))
        masses = np.bincount(inverse, weights=self.masses[usable])[some].astype(np.float64)
        rows = self.at(usable[first[some]])
        return rows[plus_plus(rows, masses, keys[some], atoms, seed, number)]


def _measured(read: Rows, masses: NDArray[np.float64], streamed: bool) -> _Measure:
    n, d = read.shape
    if streamed and 8 * n * d > WHOLE_BYTES:
        keys, total = [], np.zeros(d)
        for start, block in blocks(read, name="rows"):
            keys.append(content_keys(block))
            total += masses[start : start + len(block)] @ block.double().numpy()
        return _Measure(read, masses, np.concatenate(keys), total, whole=False)
    kept = np.flatnonzero(masses)
    rows = np.empty((n, d))
    key = np.empty(n, dtype=np.uint64)
    for start, block in blocks(read, name="rows"):
        here = slice(start, start + len(block))
        rows[here] = block.double().numpy()
        key[here] = content_keys(block)
    keys_of, first, inverse = np.unique(key[kept], return_index=True, return_inverse=True)
    rows = rows[kept[first]]
    gathered = np.bincount(inverse, weights=masses[kept]).astype(np.float64)
    centre = gathered @ rows
    return _Measure(rows - centre, gathered, keys_of, centre, whole=True)


def _beginnings(
    measure: _Measure, atoms: int, init: ArrayLike | None, starts: int, seed: int
) -> list[Callable[[], NDArray[np.float64]]]:
    if init is None:
        return [lambda number=number: measure.start(atoms, seed, number) for number in range(starts)]  # type: ignore[misc]
    positions = np.array(init, dtype=np.float64)
    if positions.shape != (atoms, measure.centre.size):
        raise InputError(
            f"init must be positions of shape ({atoms}, {measure.centre.size}), one per atom; its shape is "
            f"{positions.shape}"
        )
    if not np.isfinite(positions).all():
        raise InputError(f"init: the position of atom {np.argwhere(~np.isfinite(positions))[0, 0]} is not finite")
    return [lambda: positions - measure.centre]


# --- the two iterations ----------------------------------------------------------------------------------------------


def _quantised(measure: _Measure, x: NDArray[np.float64], tolerance: float, steps: int) -> Barycenter:
    """Free weights: nearest atom, mean of the cell (Lloyd)."""
    before: float | None = None
    for step in range(steps + 1):
        mass, sums, pull = _cells(measure, x)
        cost = float(pull.sum())
        idle = np.flatnonzero(mass == 0)
        movable = min(len(idle), int(np.count_nonzero(pull)))
        converged = before is not None and before - cost <= tolerance * before and not movable
        if converged or step == steps:
            break
        before = cost
        farthest = np.argsort(-pull, kind="stable")[:movable]
        x = np.where(mass[:, None] > 0, sums / np.where(mass > 0, mass, 1)[:, None], x)
        x[idle[:movable]] = measure.at(farthest)
    positions, weights = _shared(x, mass)
    return Barycenter(positions + measure.centre, weights, cost, converged, step)


def _cells(
    measure: _Measure, x: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The mass [m] and the sum [m, d] of each atom's cell, and every row's mass times squared distance to its atom."""
    m = len(x)
    mass, sums, pull = np.zeros(m), np.zeros_like(x), np.empty(len(measure.masses))
    half = np.square(x).sum(axis=1) / 2
    for here, block in measure.blocks():
        b = measure.masses[here]
        cell = _nearest(block, x, half)
        pull[here] = b * np.square(block - x[cell]).sum(axis=1)
        mass += np.bincount(cell, weights=b, minlength=m)
        sums += scipy.sparse.csr_matrix((b, (cell, np.arange(len(b)))), shape=(m, len(b))) @ block
    return mass, sums, pull


def _nearest(block: NDArray[np.float64], x: NDArray[np.float64], half: NDArray[np.float64]) -> NDArray[np.int64]:
    """The atom that each row is nearest to, some rows at a time: half [m] are half the atoms' squared norms."""
    step = max(64, _SCORES // len(x))
    scores = np.empty((min(step, len(block)), len(x)))
    cell = np.empty(len(block), dtype=np.int64)
    for start in range(0, len(block), step):
        some = block[start : start + step]
        product = np.matmul(some, x.T, out=scores[: len(some)])
        np.argmin(np.subtract(half, product, out=product), axis=1, out=cell[start : start + step])
    return cell


def _shared(x: NDArray[np.float64], mass: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions and positive weights: atoms without a cell join the heaviest, and coinciding atoms share."""
    positions = np.where(mass[:, None] > 0, x, x[np.argmax(mass)])
    _, group, counts = np.unique(positions, axis=0, return_inverse=True, return_counts=True)
    group = group.ravel()
    weights = (np.bincount(group, weights=mass) / counts)[group]
    return positions, weights / weights.sum()


def _transported(
    measure: _Measure, x: NDArray[np.float64], weights: NDArray[np.float64], tolerance: float, steps: int
) -> Barycenter:
    """Given weights: exact transport, means of what atoms receive."""
    rows, masses = measure.matrix, measure.masses
    before: float | None = None
    for step in range(steps + 1):
        plan = network_simplex(masses, weights, _squares(rows, x))
        row, atom, sent = plan.coupling.row, plan.coupling.col, plan.coupling.data
        cost = float(sent @ np.square(rows[row] - x[atom]).sum(axis=1))
        converged = before is not None and before - cost <= tolerance * before
        if converged or step == steps:
            break
        before = cost
        x = scipy.sparse.csr_matrix((sent, (atom, row)), shape=(len(x), len(rows))) @ rows / weights[:, None]
    return Barycenter(x + measure.centre, weights, cost, converged, step)


def _squares(rows: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared distances [n, m]; rows are about their mean, so that little cancels."""
    squares: NDArray[np.float64] = np.square(rows).sum(axis=1)[:, None] + np.square(x).sum(axis=1) - 2 * rows @ x.T
    return np.maximum(squares, 0, out=squares)


def _nearest_rows(read: Rows, positions: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """The `count` rows nearest to each position, int64 [m, count]."""
    m = len(positions)
    centre = positions.mean(axis=0)
    about = positions - centre
    distance, index = np.empty((m, 0)), np.empty((m, 0), dtype=np.int64)
    for start, block in blocks(read, name="rows"):
        here = np.arange(start, start + len(block))
        distance = np.concatenate([distance, _squares(block.double().numpy() - centre, about).T], axis=1)
        index = np.concatenate([index, np.broadcast_to(here, (m, len(here)))], axis=1)
        if distance.shape[1] > count:
            kept = np.argpartition(distance, count - 1, axis=1)[:, :count]
            distance, index = np.take_along_axis(distance, kept, 1), np.take_along_axis(index, kept, 1)
    return index


# --- what is given ---------------------------------------------------------------------------------------------------


def _checked_weights(weights: object, atoms: int) -> NDArray[np.float64]:
    """Of the atoms, of sum 1; those of "free" mean nothing."""
    if isinstance(weights, str):
        if weights not in ("uniform", "free"):
            raise InputError(f'weights must be "uniform", "free" or {atoms} positive numbers; it is {weights!r}')
        return np.full(atoms, 1 / atoms)
    return _of_sum_one(weights, atoms, "weights", "atom", positive=True)


def _checked_masses(masses: ArrayLike | None, n: int) -> NDArray[np.float64]:
    return np.full(n, 1 / n) if masses is None else _of_sum_one(masses, n, "masses", "row", positive=False)


def _of_sum_one(given: object, length: int, name: str, what: str, positive: bool) -> NDArray[np.float64]:
    try:
        numbers = np.array(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be numbers, one per {what}; it is {given!r}") from error
    if numbers.shape != (length,):
        raise InputError(f"{name} must be one number per {what}, of shape ({length},); its shape is {numbers.shape}")
    wrong = np.flatnonzero(~(np.isfinite(numbers) & ((numbers > 0) if positive else (numbers >= 0))))
    if len(wrong):
        allowed = "positive" if positive else "at least 0"
        raise InputError(f"{name} must be {allowed}; that of {what} {wrong[0]} is {numbers[wrong[0]]}")
    total = float(numbers.sum())
    if not total > 0:
        raise InputError(f"{name} sum to {total}: some {what} must have a mass")
    return numbers / total
