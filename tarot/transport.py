"""Optimal transport between two finite measures: exact, and entropic in the log domain; dense, or streamed by blocks.

All costs are an [n, m] matrix between n candidates and m targets, given as a tensor or as a `StreamedCost`, which
computes it from features a block of rows at a time; the solvers are unaware which. Marginals a [n], b [m] are uniform
unless given. Potentials f [n], g [m] are the dual variables; f is the gradient of the distance with respect to the
mass of a candidate: LOWER = more useful (selectors.md 0.2).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ot
import scipy.sparse
import torch
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from tarot.arrays import InputError, Rows, as_rows, block_size, read_block, read_rows
from tarot.distance import distances

EPSILON = 0.01  # entropic regularisation of the potentials that rank and weigh (selectors.md 0.2)
TOLERANCE = 1e-3  # L1 error of the marginal at which a Sinkhorn solve counts as converged
DENSE_PAIRS = 400_000_000  # up to 1.6 GB of float32 a cost is held in memory, with a kernel of the same size
_DENSE_SIMPLEX_PAIRS = 40_000  # below, the dense network simplex is faster than looking for the edges that matter
_ARCS_PER_NODE = 8  # arcs offered to the sparse network simplex at first
_SEED_PAIRS = 50_000_000  # a larger cost is thinned to so many pairs for the exact duals that seed it
_ROUGH_ROWS = 1024
_GAUGE_WORK = 100_000_000  # iterations at each epsilon times pairs of components
_OVER_RELAXATION = 1.7
_PLAIN_STEPS = 5  # before a streamed solve over-relaxes: far from the solution that overshoots
_ITERATIONS_PER_CHECK = 10
_KERNEL_RANGE = 40.0  # scalings beyond exp(+-40) are absorbed into the potentials, far inside float32


@dataclass(frozen=True)
class StreamedCost:
    """The distances between candidates x [n, d] and targets y [m, d], computed a block of rows at a time."""

    x: Rows
    y: Tensor
    name: str = "candidates"  # of x, in errors

    @property
    def shape(self) -> tuple[int, int]:
        return self.x.shape[0], self.y.shape[0]

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        size = block_size(max(self.x.shape[1], self.y.shape[0]))
        for start in range(0, len(self), size):
            stop = min(start + size, len(self))
            yield start, distances(read_block(self.x, start, stop, self.name), self.y)

    def rows(self, every: int) -> Tensor:
        """The distances of every k-th candidate, in memory."""
        return distances(read_rows(self.x, np.arange(0, len(self), every), self.name), self.y)

    def __len__(self) -> int:
        return self.x.shape[0]


Cost = Tensor | StreamedCost


@dataclass(frozen=True)
class Plan:
    """An optimal coupling: its cost, where the mass goes (sparse [n, m]) and the duals f [n], g [m] that prove it."""

    value: float
    coupling: scipy.sparse.coo_matrix
    f: np.ndarray
    g: np.ndarray


@dataclass(frozen=True)
class Entropic:
    """A Sinkhorn solution. value: OT_eps = <a, f> + <b, g>; error: L1 distance of the row marginal from a."""

    f: np.ndarray
    g: np.ndarray
    epsilon: float
    value: float
    error: float
    iterations: int


@dataclass(frozen=True)
class Bracket:
    """lower <= OT <= upper: a feasible pair of duals and a feasible coupling say so."""

    lower: float
    upper: float


# --- public: on features ---------------------------------------------------------------------------------------------


def ot_distance(x: Any, y: Any, epsilon: float = 0.0) -> float:
    """OT distance between the uniform measures on the rows of x [n, d] and of y [m, d]; cost: Euclidean distance.

    On unit-norm rows that cost is the whitened feature distance d_w = sqrt(2 - 2 cos). epsilon = 0 is exact (network
    simplex); epsilon > 0 gives `min <P, C> + epsilon KL(P || a b^T)` to a marginal error of 1e-6.
    Raises InputError on matrices that do not match or are not finite.
    """
    cost = _cost(x, y)
    if epsilon:
        return sinkhorn(cost, epsilon, tolerance=1e-6).value
    return exact(cost if isinstance(cost, Tensor) else torch.cat([block for _, block in cost.blocks()])).value


def potentials(x: Any, y: Any, epsilon: float = EPSILON) -> tuple[np.ndarray, np.ndarray]:
    """Entropic dual potentials f float64 [n], g float64 [m] of the transport from x [n, d] to y [m, d] (Eq. 13).

    Solved to an L1 marginal error of 1e-3. f is fixed up to a constant; the lower f, the more useful the row of x.
    """
    solution = entropic_potentials(_cost(x, y), epsilon)
    return solution.f, solution.g


def calibrated(f: np.ndarray) -> np.ndarray:
    """Calibrated gradient f_i - mean_{j != i} f_j = n/(n-1) (f_i - mean f); sums to zero (selectors.md 0.2)."""
    f = np.asarray(f, dtype=np.float64)
    return (f - f.mean()) * (len(f) / (len(f) - 1)) if len(f) > 1 else np.zeros_like(f)


def _cost(x: Any, y: Any) -> Cost:
    x, y = as_rows(x, "x"), as_rows(y, "y")
    if x.shape[1] != y.shape[1]:
        raise InputError(f"x has {x.shape[1]} dimensions and y has {y.shape[1]}; they must be features of one space")
    streamed = StreamedCost(x, read_block(y, 0, y.shape[0], "y"), "x")
    return dense(streamed) if math.prod(streamed.shape) <= DENSE_PAIRS else streamed


def dense(cost: Cost) -> Tensor:
    """The whole matrix, float32 [n, m]."""
    return cost if isinstance(cost, Tensor) else torch.cat([block for _, block in cost.blocks()])


# --- exact -----------------------------------------------------------------------------------------------------------


def exact(
    cost: Tensor,
    a: np.ndarray | None = None,
    b: np.ndarray | None = None,
    g: np.ndarray | None = None,
) -> Plan:
    """The optimal coupling of a [n] and b [m] (uniform where None) under cost [n, m], by POT's network simplex.

    Large problems are solved on the arcs that can matter and certified on all of them: the arcs with the smallest
    reduced cost under approximate duals (the hint g [m], or a short Sinkhorn run) enter; the arcs that violate dual
    feasibility enter next; no violation means optimal (column generation).
    """
    n, m = cost.shape
    a, b = _marginals(n, m, a, b)
    if n * m <= _DENSE_SIMPLEX_PAIRS:
        coupling, log = ot.emd(a, b, cost.double().numpy(), numItermax=10**8, log=True, center_dual=False)
        return _plan(scipy.sparse.coo_matrix(coupling), log)
    if g is None:
        g = _rough_potentials(cost, a, b)
    arcs = _promising_arcs(cost, torch.from_numpy(np.asarray(g)).float(), _ARCS_PER_NODE * (n + m))
    arcs[_feasible_arcs(a, b)] = True
    while True:
        plan = _sparse_simplex(cost, arcs, a, b)
        violated = _violations(cost, plan)
        if not violated.any():
            return plan
        arcs |= violated


def _marginals(n: int, m: int, a: np.ndarray | None, b: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    return (np.full(n, 1 / n) if a is None else a), (np.full(m, 1 / m) if b is None else b)


def _plan(coupling: scipy.sparse.coo_matrix, log: dict) -> Plan:
    if log.get("warning"):
        raise RuntimeError(f"the network simplex did not reach the optimum: {log['warning']}")
    return Plan(float(log["cost"]), coupling, log["u"], log["v"])


def _sparse_simplex(cost: Tensor, arcs: Tensor, a: np.ndarray, b: np.ndarray) -> Plan:
    i, j = arcs.nonzero(as_tuple=True)
    graph = scipy.sparse.coo_matrix((cost[i, j].double().numpy(), (i.numpy(), j.numpy())), shape=tuple(cost.shape))
    coupling, log = ot.emd(a, b, graph, numItermax=10**8, log=True, center_dual=False)
    return _plan(coupling.tocoo(), log)


def _rough_potentials(cost: Tensor, a: np.ndarray, b: np.ndarray) -> np.ndarray:
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


def _feasible_arcs(a: np.ndarray, b: np.ndarray) -> tuple[Tensor, Tensor]:
    """The n + m - 1 arcs of the north-west corner coupling: with them a sparse problem always has a solution."""
    ends_a, ends_b = np.cumsum(a / a.sum()), np.cumsum(b / b.sum())
    starts = np.union1d(np.r_[0.0, ends_a[:-1]], ends_b[:-1])
    middles = (starts + np.r_[starts[1:], 1.0]) / 2
    i, j = np.searchsorted(ends_a, middles), np.searchsorted(ends_b, middles)
    return torch.from_numpy(i.clip(max=len(a) - 1)), torch.from_numpy(j.clip(max=len(b) - 1))


def _violations(cost: Tensor, plan: Plan) -> Tensor:
    """Where f_i + g_j > C_ij, up to rounding: mask [n, m]."""
    f, g = torch.from_numpy(plan.f).float(), torch.from_numpy(plan.g).float()
    slack = torch.sub(cost, g).sub_(f[:, None])
    rounding = 1e-6 * float(cost.abs().max())
    return slack < -rounding


# --- entropic --------------------------------------------------------------------------------------------------------


def entropic_potentials(
    cost: Cost, epsilon: float = EPSILON, g: np.ndarray | None = None, tolerance: float = TOLERANCE
) -> Entropic:
    """Converged entropic potentials, seeded with exact target duals. g [m]: a rough idea of them, where there is one.

    Sinkhorn alone moves mass between clusters that are many epsilon apart at a rate of exp(-gap / epsilon): it seems
    to stand still. The exact duals have those gaps right from the start, and a few iterations smooth them.
    """
    _check_epsilon(epsilon)
    every = max(1, math.prod(cost.shape) // _SEED_PAIRS)
    some = cost[::every].contiguous() if isinstance(cost, Tensor) else cost.rows(every)
    plan = exact(some, g=g)
    return sinkhorn(cost, epsilon, g=_in_entropic_gauge(some, plan, epsilon), tolerance=tolerance)


def _in_entropic_gauge(cost: Tensor, plan: Plan, epsilon: float) -> np.ndarray:
    """The target duals of `plan`, its components shifted against each other as in the entropic limit.

    Where masses are commensurate (n a multiple of m, above all) the optimal coupling falls into components that
    exchange no mass. The exact duals of each may shift against the others' without any loss, and a vertex of the
    network simplex has them anywhere, while entropic duals are unique (selectors.md 0.2; ledger L-06). The leaks that
    fix them are of order exp(-gap / epsilon) and show in no marginal error, so they must be right before the solve:
    annealing the transport between whole components sees the leaks while epsilon is large, and keeps what it saw.
    """
    n, m = cost.shape
    sends = plan.coupling.data > 1e-9 / (n + m)  # less is rounding
    ends = plan.coupling.row[sends], n + plan.coupling.col[sends]
    graph = scipy.sparse.coo_matrix((plan.coupling.data[sends], ends), shape=(n + m, n + m))
    count, component = connected_components(graph, directed=False)
    if count == 1:
        return plan.g
    slack = torch.sub(cost, torch.from_numpy(plan.g).float()).sub_(torch.from_numpy(plan.f).float()[:, None])
    of_rows, of_columns = component[:n], component[n:]
    between = torch.from_numpy(_minima(_minima(slack.clamp_(min=0).numpy(), of_rows).T, of_columns).T.copy())
    mass, shift = np.bincount(of_columns) / m, np.zeros(count)
    iterations = min(100, max(10, _GAUGE_WORK // count**2))
    for eps in reversed(_halvings(epsilon, _largest(between))):
        shift = _sinkhorn_dense(between, eps, mass, mass, shift, 0.0, iterations).g
    return plan.g + shift[of_columns]


def _minima(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """The minimum over the rows of each group 0..k-1, every one of which has some: [k, columns]."""
    order = np.argsort(group, kind="stable")
    return np.minimum.reduceat(values[order], np.flatnonzero(np.diff(group[order], prepend=-1)), axis=0)


def _check_epsilon(epsilon: float) -> None:
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise InputError(f"epsilon must be positive; it is {epsilon}")


def _halvings(epsilon: float, top: float) -> list[float]:
    """epsilon, 2 epsilon, 4 epsilon, ... below `top`."""
    schedule = [epsilon]
    while schedule[-1] * 2 < top:
        schedule.append(schedule[-1] * 2)
    return schedule


def sinkhorn(
    cost: Cost,
    epsilon: float,
    a: np.ndarray | None = None,
    b: np.ndarray | None = None,
    g: np.ndarray | None = None,
    tolerance: float = TOLERANCE,
    max_iterations: int = 100_000,
    strict: bool = True,
) -> Entropic:
    """Entropic OT `max <a,f> + <b,g> - eps sum a_i b_j (exp((f_i + g_j - C_ij)/eps) - 1)` to an L1 marginal error.

    Without a seed g [m], epsilon is annealed from the largest cost down, by halves. Ends when the row marginal of the
    coupling (its column marginal is exact) is within `tolerance` of a in L1. Raises RuntimeError after
    `max_iterations`, unless `strict` is off; InputError for epsilon <= 0.
    """
    _check_epsilon(epsilon)
    n, m = cost.shape
    a, b = _marginals(n, m, a, b)
    schedule = [epsilon]
    if g is None:
        g = np.zeros(m)
        schedule = _halvings(epsilon, _largest(cost)) if strict else schedule
    solve = _sinkhorn_dense if isinstance(cost, Tensor) else _sinkhorn_streamed
    done, solution = 0, None
    for eps in reversed(schedule):
        last = eps == epsilon
        solution = solve(cost, eps, a, b, g, tolerance if last else 0.05, max_iterations if last else 50)
        g, done = solution.g, done + solution.iterations
    if strict and solution.error > tolerance:
        raise RuntimeError(
            f"Sinkhorn reached a marginal error of {solution.error:.2g}, not {tolerance:.2g}, in {max_iterations} "
            f"iterations at epsilon {epsilon}: use a larger epsilon or tolerance"
        )
    return replace(solution, iterations=done)


def _largest(cost: Cost) -> float:
    return float(cost.max()) if isinstance(cost, Tensor) else max(float(block.max()) for _, block in cost.blocks())


def _sinkhorn_dense(
    cost: Tensor, epsilon: float, a: np.ndarray, b: np.ndarray, g: np.ndarray, tolerance: float, max_iterations: int
) -> Entropic:
    """Scaling iterations on the kernel exp((f + g - C)/eps): two matrix-vector products each.

    The potentials are absorbed into the kernel at the start and whenever a scaling leaves exp(+-40), so it is as
    stable as the log domain. Steps are over-relaxed (Thibault et al., 2021), which takes a third of the iterations;
    where the error does not fall, plain steps go on from the last good state. float32 suffices for a marginal error
    of 1e-5 and costs up to 200 epsilon; beyond, float64.
    """
    single = tolerance >= 1e-5 and float(cost.max() - cost.min()) <= 200 * epsilon
    dtype = torch.float32 if single else torch.float64
    cost, a, b = cost.to(dtype), torch.from_numpy(a).to(dtype), torch.from_numpy(b).to(dtype)
    g = torch.from_numpy(np.asarray(g, dtype=np.float64)).clone()
    kernel, omega, iterations = torch.empty_like(cost), 1.0, 0
    while True:
        f = _row_minima(cost, g)  # min_j C_ij - g_j: every row of the kernel has a one,
        g = g.maximum(_column_minima(cost, f) - _KERNEL_RANGE / 2 * epsilon)  # and every column has some mass
        torch.sub(g.to(dtype)[None, :], cost, out=kernel)
        kernel.add_(f.to(dtype)[:, None]).div_(epsilon).exp_()
        u, v, error, before = a, b, math.inf, math.inf
        good = u, v
        while error > tolerance and iterations < max_iterations and _in_range(u / a, v / b):
            for _ in range(_ITERATIONS_PER_CHECK):
                u = u.pow(1 - omega) * (a / (kernel @ v)).pow(omega)
                v = v.pow(1 - omega) * (b / (u @ kernel)).pow(omega)
            iterations += _ITERATIONS_PER_CHECK
            now = float((u * (kernel @ v) - a).abs().sum() + (v * (u @ kernel) - b).abs().sum())
            if omega > 1 and not now < 1.5 * before:
                (u, v), omega = good, 1.0
                continue
            if not math.isfinite(now):
                raise RuntimeError(f"Sinkhorn left the range of its numbers at epsilon {epsilon}: use a larger one")
            good, error, before = (u, v), now, now
            if iterations == _ITERATIONS_PER_CHECK:  # plain so far: going beyond would move clusters that rest already
                omega, before = _OVER_RELAXATION, math.inf  # which at first raises the error
        u, v = good
        v = b / (u @ kernel)
        f, g = f + epsilon * (u / a).double().log(), g + epsilon * (v / b).double().log()
        if error <= tolerance or iterations >= max_iterations:
            error = float((u * (kernel @ v) - a).abs().sum())
            value = float(a.double() @ f + b.double() @ g)
            return Entropic(f.numpy(), g.numpy(), epsilon, value, error, iterations)


def _row_minima(cost: Tensor, g: Tensor) -> Tensor:
    """min_j C_ij - g_j, float64 [n]; by blocks, so that no second matrix is in memory."""
    g = g.to(cost.dtype)
    return torch.cat([(block - g).amin(1) for _, block in _blocks(cost)]).double()


def _column_minima(cost: Tensor, f: Tensor) -> Tensor:
    """min_i C_ij - f_i, float64 [m]."""
    f, minima = f.to(cost.dtype), torch.full((cost.shape[1],), math.inf, dtype=cost.dtype)
    for start, block in _blocks(cost):
        minima = minima.minimum((block - f[start : start + len(block), None]).amin(0))
    return minima.double()


def _in_range(*scalings: Tensor) -> bool:
    return all(float(s.log().abs().max()) < _KERNEL_RANGE for s in scalings)


def _sinkhorn_streamed(
    cost: StreamedCost,
    epsilon: float,
    a: np.ndarray,
    b: np.ndarray,
    g: np.ndarray,
    tolerance: float,
    max_iterations: int,
) -> Entropic:
    """The same over-relaxed iterations with the cost computed anew in each: one pass over the blocks of rows.

    The error is that of both marginals together; the last step of g makes the columns exact and leaves at most as much
    in the rows.
    """
    a, b = torch.from_numpy(a), torch.from_numpy(b)
    g = torch.from_numpy(np.asarray(g, dtype=np.float64)).clone()
    f, omega, error = g.new_zeros(len(a)), 1.0, math.inf
    good, before = (f, g), math.inf
    for iteration in range(1, max_iterations + 1):
        balanced, mass = torch.empty_like(a), torch.zeros_like(b)  # f with exact rows; the columns' mass relative to b
        moved = torch.empty_like(a)
        for start, block in cost.blocks():
            rows = slice(start, start + len(block))
            kernel = g.float() - block
            top = kernel.amax(1, keepdim=True)
            kernel.sub_(top).div_(epsilon).exp_()  # a one in every row
            sums = (kernel @ b.float()).double()
            balanced[rows] = -top[:, 0].double() - epsilon * sums.log()
            moved[rows] = f[rows] + omega * (balanced[rows] - f[rows])
            scaling = a[rows] / sums * ((moved[rows] - balanced[rows]) / epsilon).exp()
            mass += (scaling.float() @ kernel).double()
        f = moved
        error = float(a @ ((f - balanced) / epsilon).expm1().abs() + b @ (mass - 1).abs())
        if iteration == _PLAIN_STEPS:
            omega = _OVER_RELAXATION
        if iteration % _ITERATIONS_PER_CHECK == 0 or not math.isfinite(error):
            if omega > 1 and not error < 1.5 * before:
                (f, g), omega = good, 1.0
                continue
            good, before = (f, g), error
        # a column far from every row has a mass that float32 takes for zero: it moves as far as float32 can tell
        step = epsilon * mass.clamp(min=torch.finfo(torch.float32).tiny).log()
        if error <= tolerance:
            g = g - step
            break
        g = g - omega * step
    value = float(a @ f + b @ g)
    return Entropic(f.numpy(), g.numpy(), epsilon, value, error, iteration)


# --- bracket ---------------------------------------------------------------------------------------------------------


def bracket(cost: Cost, solution: Entropic) -> Bracket:
    """Bounds on the unregularised OT distance between uniform measures, from an entropic solution; three passes.

    Lower: g with its hard c-transform f_i = min_j C_ij - g_j is dual feasible. Upper: the cost of the entropic
    coupling rounded onto the marginals (Altschuler, Weed and Rigollet, 2017, Algorithm 2).
    """
    n, m = cost.shape
    f, g = torch.from_numpy(solution.f), torch.from_numpy(solution.g)

    def coupling(start: int, block: Tensor) -> Tensor:
        logits = (f[start : start + len(block), None] + g - block) / solution.epsilon
        return logits.exp_() / (n * m)

    lower, shrink_rows, columns = (
        float(g.mean()),
        torch.ones(n, dtype=torch.float64),
        torch.zeros(m, dtype=torch.float64),
    )
    for start, block in _blocks(cost):
        rows = slice(start, start + len(block))
        lower += float((block - g).amin(1).sum()) / n
        mass = coupling(start, block)
        shrink_rows[rows] = (1 / n / mass.sum(1)).clamp(max=1)
        columns += shrink_rows[rows] @ mass
    shrink_columns = (1 / m / columns).clamp(max=1)
    missing_columns = 1 / m - columns * shrink_columns

    upper, missing_rows, correction = 0.0, torch.zeros(n, dtype=torch.float64), 0.0
    for start, block in _blocks(cost):
        rows = slice(start, start + len(block))
        mass = coupling(start, block) * shrink_rows[rows, None] * shrink_columns
        upper += float((mass * block).sum())
        missing_rows[rows] = 1 / n - mass.sum(1)
        correction += float(missing_rows[rows] @ (block.double() @ missing_columns))
    missing = float(missing_columns.sum())
    return Bracket(lower, upper + (correction / missing if missing > 0 else 0.0))


def _blocks(cost: Cost) -> Iterator[tuple[int, Tensor]]:
    if isinstance(cost, StreamedCost):
        yield from cost.blocks()
        return
    size = block_size(cost.shape[1])
    for start in range(0, len(cost), size):
        yield start, cost[start : start + size]
