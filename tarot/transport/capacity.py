"""Capacity-constrained transport: the best that any S candidates could do (theory.md 10).

    LB(S) = min_{pi >= 0} <C, pi>   s.t.   sum_j pi_ij <= 1/S for all i,   sum_i pi_ij = 1/M for all j

A uniform measure on S candidates is feasible, so LB(S) bounds the OT distance of every subset of size S. Mass goes to
near neighbours, so the problem is solved on the graph of each target's k nearest candidates and certified on the
whole: duals f <= 0 and g are feasible for the pairs left out as soon as g_j <= d_{j,k}, the distance of target j's
k-th neighbour, because every candidate left out is farther. Where that fails, k doubles.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from torch import Tensor

from tarot.common import CPU, check_option, within

EXACT_ARCS = 1_500_000  # beyond, the graph is solved by entropic scaling; the bound stays certified
FIRST_NEIGHBOURS = 32
_ZERO_ROW = 1.0  # the distance of a zero row from a unit vector
_TOO_FAR = 4.0  # an arc nobody would take: distances between unit vectors are at most 2
_ROUNDING = 1e-6  # distances are float32: the bound gives way by that much, so that it stays a bound
_SCHEDULE = np.geomspace(0.1, 0.001, 8)  # epsilons of the entropic solve
ITERATIONS = 60  # at each of them

Neighbours = Callable[[int], tuple[Tensor, Tensor]]
Ordered = Callable[[NDArray[np.int64]], NDArray[np.int64]]


@dataclass(frozen=True)
class CapacityPlan:
    """The relaxed optimum: mass [N] that each candidate sends (at most 1/S), the certified bound, and the duals.

    exact: the bound is the optimum itself; otherwise it is the value of a feasible dual, below it. k: neighbours of
    each target in the graph.
    """

    lower_bound: float
    mass: NDArray[np.float64]
    g: NDArray[np.float64]
    exact: bool
    k: int

    @property
    def value(self) -> float:
        """What the duals are worth; where exact, the optimum."""
        return self.lower_bound / (1 - _ROUNDING)


@dataclass(frozen=True)
class _Graph:
    """The k nearest candidates of M targets: arcs from `candidate` (position in `members`) to `target`, at `cost`."""

    members: NDArray[np.int64]  # candidates that are somebody's neighbour
    candidate: NDArray[np.int64]
    target: NDArray[np.int64]
    cost: NDArray[np.float64]
    reach: NDArray[np.float64]  # [M] distance beyond which target j knows no candidate; inf where it knows them all
    zero_rows: int  # candidates with zero features, known once the graph is complete

    @property
    def m(self) -> int:
        return len(self.reach)


def solve_capacity(
    neighbours: Neighbours, n: int, m: int, size: int, ordered: Ordered | None = None, device: torch.device = CPU
) -> CapacityPlan:
    """The plan for `size` of n candidates and m targets; `neighbours(k)`: sorted distances and indices [m, >= k];
    `ordered`: candidates [k] in the order in which a solver is to see them, None: ascending. device: where entropic
    scaling runs; the network simplex is the CPU's. Raises InputError where there are not `size` candidates."""
    check_option("size", size, Annotated[int, within(f"[1, {n}]")])
    k = min(n, max(FIRST_NEIGHBOURS, math.ceil(4 * size / m)))
    while True:
        graph = _graph(*neighbours(k), n, ordered)
        small = len(graph.cost) <= EXACT_ARCS
        flow, g = _solve_exactly(graph, size) if small else _solve_entropically(graph, size, device)
        # The dummy candidate of _solve_exactly prices a target that found no room above any reach: it fails here too.
        certified = bool((g <= graph.reach + 1e-9).all())
        if certified or not small:
            mass = np.zeros(n)
            mass[graph.members] = flow
            g = np.minimum(g, graph.reach)
            return CapacityPlan(_dual_value(graph, g, size), mass, g, certified and small, k)
        k = min(n, 2 * k)


def _graph(distances: Tensor, indices: Tensor, n: int, ordered: Ordered | None) -> _Graph:
    distance, index = distances.double().numpy(), indices.numpy()
    known = index >= 0
    everyone = distance.shape[1] >= n
    complete = everyone or not known.all()  # a table with unfilled places holds every usable candidate
    reach = np.full(len(distance), np.inf) if complete else distance[:, -1]
    members, candidate = np.unique(index[known], return_inverse=True)
    if ordered is not None:
        in_order = ordered(members)
        candidate = np.argsort(in_order)[candidate]  # members ascend, so that this is where each stands in order
        members = in_order
    return _Graph(members, candidate, known.nonzero()[0], distance[known], reach, n - len(members) if complete else 0)


def _solve_exactly(graph: _Graph, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Network simplex with three additions. A dummy target takes what candidates do not send, at cost 0. A dummy
    candidate keeps the problem feasible where the graph is too narrow, at a cost that shows in g. Once the graph is
    complete, one more row stands for the candidates whose features are zero. (mass, g)"""
    r, m = len(graph.members), graph.m
    extra_supply, extra_cost = np.array([1.0]), np.array([_TOO_FAR])
    if graph.zero_rows:
        extra_supply, extra_cost = np.append(extra_supply, graph.zero_rows / size), np.append(extra_cost, _ZERO_ROW)
    extra = np.arange(r, r + len(extra_supply))
    rows = np.concatenate([graph.candidate, np.arange(r), np.repeat(extra, m), extra])
    columns = np.concatenate([graph.target, np.full(r, m), np.tile(np.arange(m), len(extra)), np.full(len(extra), m)])
    costs = np.concatenate([graph.cost, np.zeros(r), np.repeat(extra_cost, m), np.zeros(len(extra))])
    supply = np.append(np.full(r, 1 / size), extra_supply)
    demand = np.append(np.full(m, 1 / m), supply.sum() - 1)
    matrix = scipy.sparse.coo_matrix((costs, (rows, columns)), shape=(len(supply), m + 1))
    import ot  # takes two seconds to import

    coupling, log = ot.emd(supply, demand, matrix, numItermax=10**8, log=True, center_dual=False)
    if log.get("warning"):
        raise RuntimeError(f"the network simplex did not reach the optimum: {log['warning']}")
    coupling = coupling.tocoo()
    sent = (coupling.row < r) & (coupling.col < m)
    flow: NDArray[np.float64] = coupling.data[sent]
    prices: NDArray[np.float64] = log["v"]
    mass = np.bincount(coupling.row[sent], flow, minlength=r).astype(np.float64, copy=False)
    return mass, prices[:m] - prices[m]  # the dummy target's price is the origin


def _solve_entropically(
    graph: _Graph, size: int, device: torch.device
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sinkhorn on the arcs with an inequality marginal: f_i <= 0. (mass, g)"""
    r, m = len(graph.members), graph.m
    i, j, cost = (torch.from_numpy(column).to(device) for column in (graph.candidate, graph.target, graph.cost))
    f = cost.new_zeros(r)
    for epsilon in _SCHEDULE:
        for _ in range(ITERATIONS):
            g = -epsilon * (_logsumexp((f[i] - cost) / epsilon, j, m) + math.log(m))
            f = (-epsilon * (_logsumexp((g[j] - cost) / epsilon, i, r) + math.log(size))).clamp(max=0)
    mass = cost.new_zeros(r).index_add_(0, i, ((f[i] + g[j] - cost) / epsilon).exp())
    return mass.cpu().numpy(), g.cpu().numpy()


def _logsumexp(values: Tensor, group: Tensor, groups: int) -> Tensor:
    top = values.new_full((groups,), -torch.inf).scatter_reduce_(0, group, values, "amax")
    return top + torch.zeros_like(top).index_add_(0, group, (values - top[group]).exp()).log()


def _dual_value(graph: _Graph, g: NDArray[np.float64], size: int) -> float:
    """mean_j g_j - (1/S) sum_i max(0, max_j (g_j - C_ij)): a lower bound for every g with g_j <= reach_j."""
    excess = np.zeros(len(graph.members))
    np.maximum.at(excess, graph.candidate, g[graph.target] - graph.cost)
    total = excess.sum() + graph.zero_rows * max(0.0, float(g.max()) - _ZERO_ROW)
    return float(g.mean() - total / size) * (1 - _ROUNDING)
