"""Optimal transport between two finite measures: the questions that are asked of it, on features and on costs.

All costs are an [n, m] matrix between n candidates and m targets (`costs`). Marginals a [n], b [m] are uniform
unless given. Potentials f [n], g [m] are the dual variables; f is the gradient of the distance with respect to the
mass of a candidate: LOWER = more useful (theory.md 0.2). Exact solutions: `exact`; entropic: `entropic`.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.sparse
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from tarot.common import CPU, InputError, Positive, check_option, selection_device
from tarot.features import MatrixLike, as_rows, read_block
from tarot.transport.costs import DENSE_PAIRS, Cost, StreamedCost, dense
from tarot.transport.entropic import TOLERANCE, Entropic, annealed, check_epsilon, sinkhorn
from tarot.transport.exact import Plan, solve_exact

EPSILON = 0.01  # entropic regularisation of the potentials that rank and weigh (theory.md 0.2)
SEED_PAIRS = 50_000_000  # a larger cost is thinned to so many pairs for the exact duals that seed it
_GAUGE_WORK = 100_000_000  # iterations at each epsilon times pairs of components


def ot_distance(x: MatrixLike, y: MatrixLike, epsilon: float = 0.0, device: str = "auto") -> float:
    """OT distance between the uniform measures on the rows of x [n, d] and of y [m, d]; cost: Euclidean distance.

    On unit-norm rows that cost is the whitened feature distance d_w = sqrt(2 - 2 cos). epsilon = 0 is exact (network
    simplex); epsilon > 0 gives `min <P, C> + epsilon KL(P || a b^T)` to a marginal error of 1e-6, from exact duals on.
    device: what computes, "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", ...
    Raises InputError on matrices that do not match or are not finite.
    """
    if epsilon != 0:
        check_option("epsilon", epsilon, Positive)
    cost = _cost(x, y, selection_device(device))
    if epsilon:
        return entropic_potentials(cost, epsilon, tolerance=1e-6).value
    return solve_exact(dense(cost)).value


def potentials(
    x: MatrixLike, y: MatrixLike, epsilon: float = EPSILON, device: str = "auto"
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Entropic dual potentials f float64 [n], g float64 [m] of the transport from x [n, d] to y [m, d] (Eq. 13).

    Solved to an L1 marginal error of 1e-3. f is fixed up to a constant; the lower f, the more useful the row of x.
    device: what computes, "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", ...
    """
    check_option("epsilon", epsilon, Positive)
    solution = entropic_potentials(_cost(x, y, selection_device(device)), epsilon)
    return solution.f, solution.g


def calibrated(f: ArrayLike) -> NDArray[np.float64]:
    """Calibrated gradient f_i - mean_{j != i} f_j = n/(n-1) (f_i - mean f); sums to zero (theory.md 0.2)."""
    f = np.asarray(f, dtype=np.float64)
    return (f - f.mean()) * (len(f) / (len(f) - 1)) if len(f) > 1 else np.zeros_like(f)


def _cost(x: MatrixLike, y: MatrixLike, device: torch.device = CPU) -> Cost:
    x, y = as_rows(x, "x"), as_rows(y, "y")
    if x.shape[1] != y.shape[1]:
        raise InputError(f"x has {x.shape[1]} dimensions and y has {y.shape[1]}; they must be features of one space")
    streamed = StreamedCost(x, read_block(y, 0, y.shape[0], "y", device), "x")
    return dense(streamed) if math.prod(streamed.shape) <= DENSE_PAIRS else streamed


def entropic_potentials(
    cost: Cost, epsilon: float = EPSILON, g: NDArray[np.float64] | None = None, tolerance: float = TOLERANCE
) -> Entropic:
    """Converged entropic potentials, seeded with exact target duals. g [m]: a rough idea of them, where there is one.

    Sinkhorn alone moves mass between clusters that are many epsilon apart at a rate of exp(-gap / epsilon): it seems
    to stand still. The exact duals have those gaps right from the start, and a few iterations smooth them.
    """
    check_epsilon(epsilon)
    every = max(1, math.prod(cost.shape) // SEED_PAIRS)
    some = cost[::every].contiguous() if isinstance(cost, Tensor) else cost.rows(every)
    plan = solve_exact(some, g=g)
    return sinkhorn(cost, epsilon, g=_in_entropic_gauge(some, plan, epsilon), tolerance=tolerance)


def _in_entropic_gauge(cost: Tensor, plan: Plan, epsilon: float) -> NDArray[np.float64]:
    """The target duals of `plan`, its components shifted against each other as in the entropic limit.

    Where masses are commensurate (n a multiple of m, above all) the optimal coupling falls into components that
    exchange no mass. The exact duals of each may shift against the others' without any loss, and a vertex of the
    network simplex has them anywhere, while entropic duals are unique (theory.md 0.2; ledger L-06). The leaks that
    fix them are of order exp(-gap / epsilon) and show in no marginal error, so they must be right before the solve:
    annealing the transport between whole components sees the leaks while epsilon is large, and keeps what it saw.
    """
    n, m = cost.shape
    sends = plan.coupling.data > 1e-9 / (n + m)  # less is rounding
    ends = plan.coupling.row[sends], n + plan.coupling.col[sends]
    graph = scipy.sparse.coo_matrix((plan.coupling.data[sends], ends), shape=(n + m, n + m))
    count: int
    component: NDArray[np.int32]
    count, component = connected_components(graph, directed=False)
    if count == 1:
        return plan.g
    f, g = (torch.from_numpy(vector).float().to(cost.device) for vector in (plan.f, plan.g))
    slack = torch.sub(cost, g).sub_(f[:, None])
    of_rows, of_columns = component[:n], component[n:]
    between = torch.from_numpy(_minima(_minima(slack.clamp_(min=0).cpu().numpy(), of_rows).T, of_columns).T.copy())
    mass: NDArray[np.float64] = np.bincount(of_columns) / m
    iterations = min(100, max(10, _GAUGE_WORK // count**2))
    return plan.g + annealed(between, epsilon, mass, mass, iterations)[of_columns]


def _minima(values: NDArray[np.float32], group: NDArray[np.int32]) -> NDArray[np.float32]:
    """The minimum over the rows of each group 0..k-1, every one of which has some: [k, columns]."""
    order = np.argsort(group, kind="stable")
    minima: NDArray[np.float32] = np.minimum.reduceat(
        values[order], np.flatnonzero(np.diff(group[order], prepend=-1)), axis=0
    )
    return minima
