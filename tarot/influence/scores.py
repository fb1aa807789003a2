"""Influence functions on the model itself (Koh and Liang, 2017; theory.md 7.3).

    I(z, D) = <mean of grad l(t) over targets t in D, (C + damping)^-1 grad l(z)>

C is the curvature of the mean candidate loss at the checkpoint: its Hessian, or the empirical Fisher matrix, mean of
g g^T. To first order, the mean target loss after retraining without z is I/N higher: positive is helpful. A weight
decay of w in training (w/2 |theta|^2 in the loss) is part of the Hessian that the losses do not know: put it into
`damping`.

One linear system is solved for the targets, by conjugate gradients, and one pass over the candidates gives all scores:
no gradient of a single sample is ever formed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import default_collate

from tarot.common import InputError, progress
from tarot.gradients import Losses, Samples
from tarot.influence.curvature import CHECKED, Batches, Curvature, LossSurface, differentiable

log = logging.getLogger("tarot")
RELATIVE_DAMPING = 1e-2  # of the largest eigenvalue; 1e-3 found wrong labels less well, in three times the iterations
# The most negative eigenvalue takes longer to see than the largest.
LANCZOS_STEPS: dict[Curvature, int] = {"hessian": 20, "fisher": 10}
RESTARTS = 20  # the damping doubles at least each time

Product = Callable[[Tensor], Tensor]  # v -> C v, float64 [P]


@dataclass(frozen=True, eq=False)
class Influences:
    """scores: float64 [N], positive = helpful; [N, G] if groups were given, one column per group in `groups`' order.

    damping: what was added to the curvature. iterations of conjugate gradients, and the norm of the residual relative
    to the right-hand side: one per system solved. curvature: "hessian" or "fisher". groups: names, () without any.
    """

    scores: NDArray[np.float64]
    damping: float
    iterations: tuple[int, ...]
    residual: tuple[float, ...]
    curvature: Curvature
    groups: tuple[Any, ...] = ()


class NegativeCurvatureError(Exception):
    """Conjugate gradients met a direction v along which v^T C v / v^T v = `curvature` is not above -damping."""

    def __init__(self, curvature: float) -> None:
        super().__init__(f"negative curvature {curvature:.3g}")
        self.curvature = curvature


def influence_scores(
    model: nn.Module,
    losses: Losses,
    candidates: Samples,
    targets: Samples,
    *,
    collate: Callable[[list[Any]], Any] = default_collate,
    curvature: Curvature = "hessian",
    damping: float | Literal["auto"] = "auto",
    rows: int | None = None,
    tolerance: float = 1e-3,
    max_iterations: int = 100,
    batch_size: int = 128,
    device: torch.device | str | None = None,
    parameters: Callable[[str], bool] | None = None,
    groups: Sequence[Any] | NDArray[Any] | None = None,
) -> Influences:
    """The influence of each of N candidates on the mean loss of M targets.

    model: in any mode; it is evaluated (BatchNorm's buffers, no dropout) and left as it was. losses(model, batch) ->
        [B]. candidates, targets: datasets with a length, whose items `collate` batches and which give the same item
        each time. device: of the batches; default the model's.
    curvature: "hessian", exact, which away from a minimum is not positive definite and then needs much damping; or
        "fisher", which has no negative eigenvalue, at some 0.6 of the time per iteration. On perceptrons and a small
        ResNet with wrong labels, "auto" damping, both found these about equally well.
    damping: added to the curvature's eigenvalues, in the loss's units. "auto": RELATIVE_DAMPING times the largest
        eigenvalue's size, but twice as much as the most negative one needs, both as Lanczos's iteration sees them;
        doubled at least, with a warning, while conjugate gradients meet negative curvature.
    rows: at most so many candidates, evenly spaced, make the curvature; None for all. Scores are always of all.
    tolerance, max_iterations: conjugate gradients end when the residual's norm is `tolerance` times the right-hand
        side's; a warning says where it is not.
    batch_size: a batch that does not fit the GPU is halved. It changes results by rounding alone.
    parameters: which of the trainable parameters, by name; None for all.
    groups: one label per target; every group's mean loss then has influences of its own.

    Raises InputError for options that make no sense, losses that are not finite (naming the sample), and curvature
    that is not positive definite with the damping given.
    """
    _check_options(curvature, damping, rows, tolerance, max_iterations, batch_size)
    n, m = len(candidates), len(targets)
    if not n or not m:
        raise InputError(f"influence needs candidates and targets; there are {n} candidates and {m} targets")
    if groups is not None and len(groups) != m:
        raise InputError(f"groups must have one label per target, {m}; it has {len(groups)}")
    names, codes = np.unique(np.zeros(m) if groups is None else np.asarray(groups), return_inverse=True)
    surface = LossSurface.of(model, losses, parameters)
    device = surface.device if device is None else device
    batches = partial(Batches, collate=collate, batch_size=batch_size, device=device)
    count = n if rows is None else min(rows, n)
    part = batches(candidates, np.arange(count) * n // count, "candidates", keep=True)
    every = part if count == n else batches(candidates, range(n), "candidates", keep=len(names) > 1)

    with differentiable(model, set(surface.chosen)):
        surface = surface.checked(part.first(CHECKED), curvature)
        with progress("influence: target gradients", m, "samples") as advance:
            each = [batches(targets, np.flatnonzero(codes == code), "targets") for code in range(len(names))]
            sides = [surface.mean_gradient(group, advance) for group in each]
        for name, side in zip(names, sides, strict=True):
            if not side.any():
                whose = "the targets" if groups is None else f"target group {name!r}"
                raise InputError(f"the mean loss gradient of {whose} is zero, so nothing has an influence on it")
        with progress("influence: curvature", None, "samples") as advance:

            def product(v: Tensor) -> Tensor:
                return surface.mean_product(curvature, part, v, advance)

            damping, solutions = _solve_all(product, sides, curvature, damping, tolerance, max_iterations)
        with progress("influence: scores", n * len(sides), "samples") as advance:
            columns = [surface.all_slopes(every, solution.x, advance).numpy() for solution in solutions]

    worst = max(solution.residual for solution in solutions)
    if worst > tolerance:
        log.warning(
            "influence: conjugate gradients ended at a relative residual of %.1e, above the tolerance %.1e, after %d "
            "iterations; more damping or more iterations bring it down",
            *(worst, tolerance, max(solution.iterations for solution in solutions)),
        )
    return Influences(
        scores=columns[0] if groups is None else np.stack(columns, 1),
        damping=damping,
        iterations=tuple(solution.iterations for solution in solutions),
        residual=tuple(solution.residual for solution in solutions),
        curvature=curvature,
        groups=() if groups is None else tuple(names.tolist()),
    )


def _check_options(
    curvature: str, damping: float | str, rows: int | None, tolerance: float, max_iterations: int, batch_size: int
) -> None:
    if curvature not in ("hessian", "fisher"):
        raise InputError(f"curvature must be 'hessian' or 'fisher'; it is {curvature!r}")
    numeric = isinstance(damping, int | float) and not isinstance(damping, bool) and 0 <= damping < math.inf
    if damping != "auto" and not numeric:
        raise InputError(f"damping must be 'auto' or a number, at least 0; it is {damping!r}")
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 < tolerance < 1:
        raise InputError(f"tolerance must be between 0 and 1; it is {tolerance!r}")
    for name, value in ("rows", rows), ("max_iterations", max_iterations), ("batch_size", batch_size):
        if value is None and name == "rows":
            continue
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise InputError(f"{name} must be a positive integer; it is {value!r}")


# --- the linear systems ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Solution:
    """x, float64 [P], with |b - (C + damping) x| / |b| = residual."""

    x: Tensor
    iterations: int
    residual: float


def _solve_all(
    product: Product,
    sides: list[Tensor],
    curvature: Curvature,
    damping: float | Literal["auto"],
    tolerance: float,
    max_iterations: int,
) -> tuple[float, list[Solution]]:
    """(C + damping) x = b for every b, all with the same damping, which is returned."""
    automatic = damping == "auto"
    added = _automatic_damping(product, sides[0], LANCZOS_STEPS[curvature]) if automatic else float(damping)
    for _ in range(RESTARTS):
        try:
            return added, [conjugate_gradient(product, b, added, tolerance, max_iterations) for b in sides]
        except NegativeCurvatureError as error:
            found = error.curvature
        if not automatic:
            raise InputError(
                f"the {curvature} of the mean candidate loss has curvature {found:.3g} along some direction, so that "
                f"it is not positive definite with damping={added:.3g}. Use damping='auto' or more than "
                f"{max(2 * abs(found), 1e-12):.3g}" + (", or curvature='fisher'" if curvature == "hessian" else "")
            )
        more = 2 * max(added, -found)
        log.warning("influence: curvature %.3g was met, so damping grows from %.3g to %.3g", found, added, more)
        added = more
    raise InputError(f"influence: no damping up to {added:.3g} makes the {curvature} positive definite")


def conjugate_gradient(
    product: Product, b: Tensor, damping: float, tolerance: float = 1e-3, max_iterations: int = 100
) -> Solution:
    """(C + damping) x = b for a symmetric C. Raises NegativeCurvatureError where that is not positive definite.

    The residual returned is computed anew from x.
    """
    x, r = torch.zeros_like(b), b.clone()
    p, norm, squared = r.clone(), float(b.norm()), float(r @ r)
    iterations = 0
    while iterations < max_iterations and squared**0.5 > tolerance * norm:
        q = product(p) + damping * p
        steepness, length = float(p @ q), float(p @ p)
        if not steepness > 0:
            raise NegativeCurvatureError(steepness / length - damping)
        step = squared / steepness
        x += step * p
        r -= step * q
        before, squared = squared, float(r @ r)
        p = r + squared / before * p
        iterations += 1
    error = (b - product(x) - damping * x).norm()
    return Solution(x, iterations, float(error) / norm)


def _automatic_damping(product: Product, start: Tensor, steps: int) -> float:
    low, high = lanczos_range(product, start, steps)
    damping = max(RELATIVE_DAMPING * max(abs(low), abs(high)), -2 * low)
    if not damping > 0:
        raise InputError("the curvature of the mean candidate loss is zero; give `damping` as a number")
    log.info("influence: eigenvalues from %.3g to %.3g; damping %.3g", low, high, damping)
    return damping


def lanczos_range(product: Product, start: Tensor, steps: int) -> tuple[float, float]:
    """The smallest and largest eigenvalue of C that `steps` products show; inside the true range.

    From `start` and a fixed random vector of the same length, so that no direction is missed for being orthogonal.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(len(start), generator=generator, dtype=start.dtype).to(start.device)
    v = start / start.norm() + noise / noise.norm()
    v, previous, off = v / v.norm(), torch.zeros_like(v), 0.0
    diagonal: list[float] = []
    offdiagonal: list[float] = []
    for _ in range(min(steps, len(v))):
        w = product(v) - off * previous
        diagonal.append(float(w @ v))
        w -= diagonal[-1] * v
        off = float(w.norm())
        if off <= 1e-6 * max(map(abs, (*diagonal, *offdiagonal))):  # the space is exhausted, but for rounding
            break
        offdiagonal.append(off)
        previous, v = v, w / off
    inner = offdiagonal[: len(diagonal) - 1]
    matrix = np.diag(diagonal) + np.diag(inner, 1) + np.diag(inner, -1)
    values = np.linalg.eigvalsh(matrix)
    return float(values[0]), float(values[-1])
