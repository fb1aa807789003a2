"""Exact transport: POT's network simplex, on the arcs that matter and certified on all of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from torch import Tensor

from tarot.transport.entropic import marginals, sinkhorn

DENSE_SIMPLEX_PAIRS = 40_000  # below, the dense network simplex is faster than looking for the edges that matter
ARCS_PER_NODE = 8  # arcs offered to the sparse network simplex at first
_ROUGH_ROWS = 1024


@dataclass(frozen=True)
class Plan:
    """An optimal coupling: its cost, where the mass goes (sparse [n, m]) and the duals f [n], g [m] that prove it."""

    value: float
    coupling: scipy.sparse.coo_matrix
    f: NDArray[np.float64]
    g: NDArray[np.float64]


def solve_exact(
    cost: Tensor,
    a: NDArray[np.float64] | None = None,
    b: NDArray[np.float64] | None = None,
    g: NDArray[np.float64] | None = None,
) -> Plan:
    """The optimal coupling of a [n] and b [m] (uniform where None) under cost [n, m], by POT's network simplex on the
    CPU; what is done with the whole cost is done where it is.

    Large problems are solved on the arcs that can matter and certified on all of them: the arcs with the smallest
    reduced cost under approximate duals (the hint g [m], or a short Sinkhorn run) enter; the arcs that violate dual
    feasibility enter next; no violation means optimal (column generation).
    """
    n, m = cost.shape
    a, b = marginals(n, m, a, b)
    if n * m <= DENSE_SIMPLEX_PAIRS:
        return network_simplex(a, b, cost.double().cpu().numpy())
    if g is None:
        g = _rough_potentials(cost, a, b)
    arcs = _promising_arcs(cost, torch.from_numpy(np.asarray(g)).float().to(cost.device), ARCS_PER_NODE * (n + m))
    i, j = _feasible_arcs(a, b)
    arcs[i.to(cost.device), j.to(cost.device)] = True
    while True:
        plan = _sparse_simplex(cost, arcs, a, b)
        violated = violations(cost, plan)
        if not violated.any():
            return plan
        arcs |= violated


def network_simplex(
    a: NDArray[np.float64], b: NDArray[np.float64], cost: NDArray[np.float64] | scipy.sparse.coo_matrix
) -> Plan:
    """The optimal coupling under a dense cost, or on the arcs of a sparse one."""
    import ot  # takes two seconds to import

    coupling, log = ot.emd(a, b, cost, numItermax=10**8, log=True, center_dual=False)
    if log.get("warning"):
        raise RuntimeError(f"the network simplex did not reach the optimum: {log['warning']}")
    return Plan(float(log["cost"]), scipy.sparse.coo_matrix(coupling), log["u"], log["v"])


def _sparse_simplex(cost: Tensor, arcs: Tensor, a: NDArray[np.float64], b: NDArray[np.float64]) -> Plan:
    i, j = arcs.nonzero(as_tuple=True)
    graph = scipy.sparse.coo_matrix(
        (cost[i, j].double().cpu().numpy(), (i.cpu().numpy(), j.cpu().numpy())), shape=tuple(cost.shape)
    )
    return network_simplex(a, b, graph)


def _rough_potentials(cost: Tensor, a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Target potentials of a short Sinkhorn run on some of the rows: enough to tell which arcs can carry mass."""
    some = slice(None, None, -(-len(cost) // _ROUGH_ROWS))
    cost, a = cost[some].contiguous(), a[some] / a[some].sum()
    spread = float(cost.mean() - cost.min())
    if spread <= 0:
        return np.zeros(cost.shape[1])
    return sinkhorn(cost, spread / 30, a, b, tolerance=0.01, max_iterations=50, strict=False).g


def _promising_arcs(cost: Tensor, g: Tensor, count: int) -> Tensor:
    """Mask [n, m] of about `count` arcs of smallest reduced cost cost - f - g, at least one per row and column."""
    reduced = cost - g
    reduced -= reduced.amin(1, keepdim=True)
    reduced -= reduced.amin(0, keepdim=True)
    every = max(1, reduced.numel() // 100_000)
    sample = reduced.flatten()[::every]
    rank = min(len(sample), max(1, round(len(sample) * count / reduced.numel())))
    return reduced <= sample.kthvalue(rank).values


def _feasible_arcs(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    """The n + m - 1 arcs of the north-west corner coupling: with them a sparse problem always has a solution."""
    ends_a, ends_b = np.cumsum(a / a.sum()), np.cumsum(b / b.sum())
    starts = np.union1d(np.r_[0.0, ends_a[:-1]], ends_b[:-1])
    middles = (starts + np.r_[starts[1:], 1.0]) / 2
    i, j = np.searchsorted(ends_a, middles), np.searchsorted(ends_b, middles)
    return torch.from_numpy(i.clip(max=len(a) - 1)), torch.from_numpy(j.clip(max=len(b) - 1))


def violations(cost: Tensor, plan: Plan) -> Tensor:
    """Where f_i + g_j > C_ij, up to rounding: mask [n, m]."""
    f, g = (torch.from_numpy(vector).float().to(cost.device) for vector in (plan.f, plan.g))
    slack = torch.sub(cost, g).sub_(f[:, None])
    largest = max(abs(float(end)) for end in cost.aminmax())  # without a second matrix of absolute values
    rounding = 1e-6 * largest
    return slack < -rounding
