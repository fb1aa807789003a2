"""Entropic transport by Sinkhorn's iterations, to a stated marginal error; dense, or streamed by blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tarot.common import InputError
from tarot.transport.costs import Cost, HeldCost, StreamedCost, blocks_of, held_where_it_fits

Vector = NDArray[np.float64]

TOLERANCE = 1e-3  # L1 error of the marginal at which a Sinkhorn solve counts as converged
_OVER_RELAXATION = 1.7
_PLAIN_STEPS = 5  # before a streamed solve over-relaxes: far from the solution that overshoots
_AT_REST = 1e-10  # L1 error of the marginal
_ITERATIONS_PER_CHECK = 10
_LEAST_EXPONENT = -87.0  # of float32: beyond, exp takes ten times as long for what adds nothing
_KERNEL_RANGE = 40.0  # scalings beyond exp(+-40) are absorbed into the potentials, far inside float32


class ConvergenceError(InputError, RuntimeError):
    """A transport that cannot be solved to the accuracy that was asked for."""


@dataclass(frozen=True)
class Entropic:
    """A Sinkhorn solution. value: OT_eps = <a, f> + <b, g>; error: L1 distance of the row marginal from a."""

    f: Vector
    g: Vector
    epsilon: float
    value: float
    error: float
    iterations: int


@dataclass(frozen=True)
class Bracket:
    """lower <= OT <= upper: a feasible pair of duals and a feasible coupling say so."""

    lower: float
    upper: float


def sinkhorn(
    cost: Cost,
    epsilon: float,
    a: Vector | None = None,
    b: Vector | None = None,
    g: Vector | None = None,
    tolerance: float = TOLERANCE,
    max_iterations: int = 100_000,
    strict: bool = True,
) -> Entropic:
    """Entropic OT `max <a,f> + <b,g> - eps sum a_i b_j (exp((f_i + g_j - C_ij)/eps) - 1)` to an L1 marginal error.

    Without a seed g [m], epsilon is annealed from the largest cost down, by halves. Ends when the row marginal of the
    coupling (its column marginal is exact) is within `tolerance` of a in L1. Raises ConvergenceError after
    `max_iterations`, unless `strict` is off; InputError for epsilon <= 0.
    """
    check_epsilon(epsilon)
    n, m = cost.shape
    a, b = marginals(n, m, a, b)
    if isinstance(cost, StreamedCost):
        cost = held_where_it_fits(cost, epsilon)
    schedule = [epsilon]
    if g is None:
        g = np.zeros(m)
        schedule = _halvings(epsilon, _largest(cost)) if strict else schedule
    done = 0
    for larger in reversed(schedule[1:]):
        rough = _solved(cost, larger, a, b, g, 0.05, 50)
        g, done = rough.g, done + rough.iterations
    solution = _solved(cost, epsilon, a, b, g, tolerance, max_iterations)
    if strict and solution.error > tolerance:
        raise ConvergenceError(
            f"Sinkhorn reached a marginal error of {solution.error:.2g}, not {tolerance:.2g}, in {max_iterations} "
            f"iterations at epsilon {epsilon}: use a larger epsilon or tolerance"
        )
    return replace(solution, iterations=done + solution.iterations)


def _solved(
    cost: Cost, epsilon: float, a: Vector, b: Vector, g: Vector, tolerance: float, max_iterations: int
) -> Entropic:
    if isinstance(cost, Tensor):
        return _sinkhorn_dense(cost, epsilon, a, b, g, tolerance, max_iterations)
    return _sinkhorn_streamed(cost, epsilon, a, b, g, tolerance, max_iterations)


def annealed(cost: Tensor, epsilon: float, a: Vector, b: Vector, iterations: int) -> Vector:
    """g [m] after at most so many iterations in float64 at each of 2^k epsilon, from the largest cost down: fewer where
    another would move no potential by more than its rounding."""
    g = np.zeros(len(b))
    for eps in reversed(_halvings(epsilon, _largest(cost))):
        g = _sinkhorn_dense(cost, eps, a, b, g, _AT_REST, iterations).g
    return g


def _largest(cost: Cost) -> float:
    return float(cost.max()) if isinstance(cost, Tensor) else max(float(block.max()) for _, block in cost.blocks())


def _sinkhorn_dense(
    cost: Tensor,
    epsilon: float,
    row_mass: Vector,
    column_mass: Vector,
    seed: Vector,
    tolerance: float,
    max_iterations: int,
) -> Entropic:
    """Scaling iterations on the kernel exp((f + g - C)/eps): two matrix-vector products each.

    The potentials are absorbed into the kernel at the start and whenever a scaling leaves exp(+-40), so it is as
    stable as the log domain. Steps are over-relaxed (Thibault et al., 2021), which takes a third of the iterations;
    where the error does not fall, plain steps go on from the last good state. float32 suffices for a marginal error
    of 1e-5 and costs up to 200 epsilon; beyond, float64.
    """
    single = tolerance >= 1e-5 and float(cost.max() - cost.min()) <= 200 * epsilon
    dtype = torch.float32 if single else torch.float64
    cost = cost.to(dtype)
    masses, g = _vectors(cost, row_mass, column_mass), _vectors(cost, seed)[0].clone()
    a, b = (mass.to(dtype) for mass in masses)
    kernel, omega, iterations = torch.empty_like(cost), 1.0, 0
    while True:
        f = _row_minima(cost, g)  # min_j C_ij - g_j: every row of the kernel has a one,
        g = g.maximum(_column_minima(cost, f) - _KERNEL_RANGE / 2 * epsilon)  # and every column has some mass
        torch.sub(g.to(dtype)[None, :], cost, out=kernel)
        kernel.add_(f.to(dtype)[:, None]).div_(epsilon).exp_()
        u, v, error, before = a, b, math.inf, math.inf
        good = u, v
        rows = kernel @ v
        while error > tolerance and iterations < max_iterations and _in_range(u / a, v / b):
            for _ in range(_ITERATIONS_PER_CHECK):
                if omega == 1:  # the same as below, to the bit
                    u = a / rows
                    v = b / (u @ kernel)
                else:
                    u = u.pow(1 - omega) * (a / rows).pow(omega)
                    v = v.pow(1 - omega) * (b / (u @ kernel)).pow(omega)
                rows = kernel @ v
            iterations += _ITERATIONS_PER_CHECK
            now = float((u * rows - a).abs().sum() + (v * (u @ kernel) - b).abs().sum())
            if omega > 1 and not now < 1.5 * before:
                (u, v), omega = good, 1.0
                rows = kernel @ v
                continue
            if not math.isfinite(now):
                raise ConvergenceError(f"Sinkhorn left the range of its numbers at epsilon {epsilon}: use a larger one")
            good, error, before = (u, v), now, now
            if iterations == _ITERATIONS_PER_CHECK:  # plain so far: going beyond would move clusters that rest already
                omega, before = _OVER_RELAXATION, math.inf  # which at first raises the error
        u, v = good
        v = b / (u @ kernel)
        f, g = f + epsilon * (u / a).double().log(), g + epsilon * (v / b).double().log()
        if error <= tolerance or iterations >= max_iterations:
            error = float((u * (kernel @ v) - a).abs().sum())
            value = float(a.double() @ f + b.double() @ g)
            return Entropic(f.cpu().numpy(), g.cpu().numpy(), epsilon, value, error, iterations)


def _row_minima(cost: Tensor, g: Tensor) -> Tensor:
    """min_j C_ij - g_j, float64 [n]; by blocks, so that no second matrix is in memory."""
    g = g.to(cost.dtype)
    return torch.cat([(block - g).amin(1) for _, block in blocks_of(cost)]).double()


def _column_minima(cost: Tensor, f: Tensor) -> Tensor:
    """min_i C_ij - f_i, float64 [m]."""
    f, minima = f.to(cost.dtype), cost.new_full((cost.shape[1],), math.inf)
    for start, block in blocks_of(cost):
        minima = minima.minimum((block - f[start : start + len(block), None]).amin(0))
    return minima.double()


def _vectors(cost: Cost, *vectors: Vector) -> tuple[Tensor, ...]:
    """float64, where the cost is."""
    return tuple(torch.from_numpy(np.asarray(vector, dtype=np.float64)).to(cost.device) for vector in vectors)


def _in_range(*scalings: Tensor) -> bool:
    return all(float(s.log().abs().max()) < _KERNEL_RANGE for s in scalings)


def _sinkhorn_streamed(
    cost: StreamedCost | HeldCost,
    epsilon: float,
    row_mass: Vector,
    column_mass: Vector,
    seed: Vector,
    tolerance: float,
    max_iterations: int,
) -> Entropic:
    """The same over-relaxed iterations on a cost that is computed, or decoded, anew in each: one pass over its blocks.

    The error is that of both marginals together; the last step of g makes the columns exact and leaves at most as much
    in the rows.
    """
    a, b, g = _vectors(cost, row_mass, column_mass, seed)
    f, omega, error = g.new_zeros(len(a)), 1.0, math.inf
    good, before = (f, g), math.inf
    for iteration in range(1, max_iterations + 1):
        balanced, mass = torch.empty_like(a), torch.zeros_like(b)  # f with exact rows; the columns' mass relative to b
        moved = torch.empty_like(a)
        for start, block in cost.blocks():
            rows = slice(start, start + len(block))
            kernel = block.neg_().add_(g.float())  # in place: fresh memory costs more than the arithmetic
            top = kernel.amax(1, keepdim=True)
            kernel.sub_(top).div_(epsilon).clamp_(min=_LEAST_EXPONENT).exp_()  # a one in every row
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
    return Entropic(f.cpu().numpy(), g.cpu().numpy(), epsilon, value, error, iteration)


def _halvings(epsilon: float, top: float) -> list[float]:
    """epsilon, 2 epsilon, 4 epsilon, ... below `top`."""
    schedule = [epsilon]
    while schedule[-1] * 2 < top:
        schedule.append(schedule[-1] * 2)
    return schedule


def check_epsilon(epsilon: float) -> None:
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise InputError(f"epsilon must be positive; it is {epsilon}")


def marginals(n: int, m: int, a: Vector | None, b: Vector | None) -> tuple[Vector, Vector]:
    return (np.full(n, 1 / n) if a is None else a), (np.full(m, 1 / m) if b is None else b)


def proven(cost: Cost, g: Vector) -> float:
    """What target potentials g [m] prove of the unregularised OT distance between uniform measures: no less than mean_j
    g_j + mean_i min_j (C_ij - g_j), the value of the dual that g and its hard c-transform are. One pass."""
    (potential,) = _vectors(cost, g)
    potential = potential.float()
    total = potential.new_zeros((), dtype=torch.float64)
    for _, block in blocks_of(cost):
        total += (block - potential).amin(1).double().sum()
    return float(g.mean()) + float(total) / len(cost)


def bracket(cost: Cost, solution: Entropic) -> Bracket:
    """Bounds on the unregularised OT distance between uniform measures, from an entropic solution; three passes.

    Lower: g with its hard c-transform f_i = min_j C_ij - g_j is dual feasible. Upper: the cost of the entropic
    coupling rounded onto the marginals (Altschuler, Weed and Rigollet, 2017, Algorithm 2).
    """
    n, m = cost.shape
    f, g = _vectors(cost, solution.f, solution.g)

    def coupling(start: int, block: Tensor) -> Tensor:
        logits = (f[start : start + len(block), None] + g - block) / solution.epsilon
        return logits.exp_() / (n * m)

    lower, shrink_rows, columns = (
        float(g.mean()),
        g.new_ones(n),
        g.new_zeros(m),
    )
    for start, block in blocks_of(cost):
        rows = slice(start, start + len(block))
        lower += float((block - g).amin(1).sum()) / n
        mass = coupling(start, block)
        shrink_rows[rows] = (1 / n / mass.sum(1)).clamp(max=1)
        columns += shrink_rows[rows] @ mass
    shrink_columns = (1 / m / columns).clamp(max=1)
    missing_columns = 1 / m - columns * shrink_columns

    upper, missing_rows, correction = 0.0, g.new_zeros(n), 0.0
    for start, block in blocks_of(cost):
        rows = slice(start, start + len(block))
        mass = coupling(start, block) * shrink_rows[rows, None] * shrink_columns
        upper += float((mass * block).sum())
        missing_rows[rows] = 1 / n - mass.sum(1)
        correction += float(missing_rows[rows] @ (block.double() @ missing_columns))
    missing = float(missing_columns.sum())
    return Bracket(lower, upper + (correction / missing if missing > 0 else 0.0))
