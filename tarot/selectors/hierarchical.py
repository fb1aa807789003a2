"""Transport between samples, and between batches of samples: the two levels of SAVA (Kessler et al., theory.md 6).

The first level solves every pair of a batch of candidates with a batch of targets; the second transports the batches
with the values of the first as its cost. Memory is that of one pair, and one float32 per candidate and batch of
targets.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tarot.common import progress
from tarot.features import BLOCK_BYTES
from tarot.selectors.labelled import Box, LabelledSpace
from tarot.transport import annealed_once, calibrated, sinkhorn, soft_transform, solve_exact

_BATCH_TOLERANCE = 1e-7  # of the second level, which is small


@dataclass(frozen=True)
class MassGradient:
    """OT_epsilon and how it changes with the mass of each candidate: calibrated gradients float64 [n], sum zero.

    HIGHER = more mass there makes the targets harder to reach. g [m]: the targets' potentials.
    """

    value: float
    calibrated: NDArray[np.float64]
    g: NDArray[np.float64]


def mass_gradient(
    cost: Tensor,
    epsilon: float,
    tolerance: float,
    g: NDArray[np.float64] | None = None,
    masses: NDArray[np.float64] | None = None,
) -> MassGradient:
    """Of the transport between the uniform measure on the rows of cost float32 [n, m] and `masses` [m] (None: uniform)
    on its columns; g [m]: potentials to start from.

    Sinkhorn's iterations run to an L1 error of the marginals. The potentials f are then the exact soft c-transform of
    g, row by row: a marginal error that is small in total could still hide one candidate among many.
    """
    b = np.full(cost.shape[1], 1 / cost.shape[1]) if masses is None else masses
    g = sinkhorn(cost, epsilon, b=b, g=g, tolerance=tolerance).g
    f = soft_transform(cost, torch.from_numpy(g + epsilon * np.log(b)), epsilon).numpy()
    return MassGradient(float(f.mean() + b @ g), calibrated(f), g)


def labelled_gradient(
    space: LabelledSpace,
    cost: Tensor,
    labels: NDArray[np.int64],
    part: NDArray[np.int64],
    diameter: float,
    g: NDArray[np.float64] | None = None,
) -> MassGradient:
    """The mass gradient that the space's options ask for, of candidates of these labels [n] towards the targets at
    positions `part` [m], under cost float32 [n, m]; diameter: of the box that bounds both."""
    if space.options.variant == "released":
        f, g = annealed_once(cost, space.epsilon, diameter)
        return MassGradient(float(f.mean() + g.mean()), calibrated(f), g)
    return mass_gradient(cost, space.epsilon, space.options.tolerance, g, space.masses(labels, part))


@dataclass(frozen=True)
class BatchTransports:
    """The first level, solved. rows: candidates of each batch (ascending indices), columns: targets of each.

    cost: OT_epsilon of every pair of batches, float64 [I, J]. gradients: the calibrated gradient of every candidate
    towards every batch of targets, float32 [J, N].
    """

    rows: list[NDArray[np.int64]]
    columns: list[NDArray[np.int64]]
    cost: NDArray[np.float64]
    gradients: NDArray[np.float32]
    epsilon: float
    unit: float = 1.0  # of costs and gradients, in those of the features as they are

    def masses(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """N_i / N of the batches of candidates and M_j / M of those of targets."""
        sizes = [np.array([len(part) for part in side], dtype=np.float64) for side in (self.rows, self.columns)]
        return sizes[0] / sizes[0].sum(), sizes[1] / sizes[1].sum()


@dataclass(frozen=True)
class HierarchicalTransport:
    """The second level: coupling of the batches, float64 [I, J].

    value: the hierarchical distance <coupling, cost>. bound: value + epsilon KL(coupling || masses), which bounds the
    OT_epsilon of all candidates and targets from above, because the two levels together are one of its couplings
    (unless match_classes weighs the targets of each pair in its own way).
    """

    coupling: NDArray[np.float64]
    value: float
    bound: float


def random_batches(
    order: NDArray[np.int64], size: int, least: int, generator: np.random.Generator
) -> list[NDArray[np.int64]]:
    """All of `order` (int64 [n], a permutation) in random, nearly equal batches of at most `size`, each ascending; of
    at least `least` where n is."""
    n = len(order)
    count = max(1, min(-(-n // size), n // least))
    return [np.sort(part) for part in np.array_split(generator.permutation(order), count)]


def batch_transports(space: LabelledSpace, batch_size: int, generator: np.random.Generator) -> BatchTransports:
    """Solves every pair of random batches of at most batch_size candidates and targets.

    The potentials of a batch of targets, from the batch of candidates before, are where the next one starts: both are
    samples of the same pool.
    """
    n, (of_candidates, of_targets) = space.candidates.shape[0], space.orders()
    rows = random_batches(of_candidates, batch_size, 2, generator)  # alone in one, a candidate is compared with nobody
    columns = random_batches(of_targets, batch_size, 1, generator)
    targets = [space.columns(part) for part in columns]
    potentials: list[NDArray[np.float64] | None] = [None] * len(columns)
    cost = np.empty((len(rows), len(columns)))
    gradients = np.empty((len(columns), n), dtype=np.float32)
    with progress("batches", cost.size, "pairs") as advance, _threads(len(columns)) as threads:
        for i, x in enumerate(_features(space, rows)):
            labels = space.candidate_labels[rows[i]]

            def solve(j: int, i: int = i, x: Tensor = x, labels: NDArray[np.int64] = labels) -> None:
                cost_of_pair = space.cost(x, labels, targets[j])
                diameter = Box.of(x, targets[j].rows).diameter
                solved = labelled_gradient(space, cost_of_pair, labels, columns[j], diameter, potentials[j])
                potentials[j], cost[i, j], gradients[j, rows[i]] = solved.g, solved.value, solved.calibrated

            for _ in threads.map(solve, range(len(columns))):
                advance(1)
    return BatchTransports(rows, columns, cost, gradients, space.epsilon, space.unit)


@contextlib.contextmanager
def _threads(tasks: int) -> Iterator[ThreadPoolExecutor]:
    """As many threads as torch would use for one operation, each of which then works alone: the operations on a pair
    of batches are too small to be shared out. A single task keeps torch's own threads."""
    allowed = torch.get_num_threads()
    own = 1 if tasks > 1 else allowed
    try:
        with ThreadPoolExecutor(min(tasks, allowed), initializer=torch.set_num_threads, initargs=(own,)) as threads:
            yield threads
    finally:
        torch.set_num_threads(allowed)


def _features(space: LabelledSpace, batches: list[NDArray[np.int64]]) -> Iterator[Tensor]:
    """The rows of each batch. Several batches are read at once, in the order of the store, so that none of its shards
    is opened for each batch anew."""
    group = max(1, BLOCK_BYTES // (4 * space.candidates.shape[1] * max(map(len, batches))))
    for first in range(0, len(batches), group):
        parts = batches[first : first + group]
        wanted = np.sort(np.concatenate(parts))
        rows = space.rows(wanted)
        for part in parts:
            yield rows[torch.from_numpy(np.searchsorted(wanted, part))]


def transport_batches(solved: BatchTransports, batch_epsilon: float) -> HierarchicalTransport:
    """The second level, with masses N_i / N and M_j / M; batch_epsilon is relative to the largest cost, 0 = exact."""
    a, b = solved.masses()
    cost, top = torch.from_numpy(solved.cost), float(np.abs(solved.cost).max())
    if batch_epsilon == 0:
        coupling = solve_exact(cost, a, b).coupling.toarray()
    else:
        epsilon = batch_epsilon * top if top > 0 else 1.0
        found = sinkhorn(cost, epsilon, a, b, tolerance=_BATCH_TOLERANCE)
        coupling = a[:, None] * b * np.exp((found.f[:, None] + found.g - solved.cost) / epsilon)
    value = float((coupling * solved.cost).sum())
    sends = coupling > 0
    information = float((coupling[sends] * np.log(coupling[sends] / (a[:, None] * b)[sends])).sum())
    return HierarchicalTransport(coupling, value, value + solved.epsilon * information)
