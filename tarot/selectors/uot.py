"""Unbalanced transport: the candidates that receive most of the targets' mass (theory.md 11.5)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from tarot.common import Count, InputError, Positive
from tarot.features import block_size, blocks
from tarot.selection import Selection, SelectionProblem
from tarot.selectors.options import Sized, described
from tarot.space import Whitening
from tarot.transport import ConvergenceError

_FLOAT32 = 1e-6  # changes of all masses together that float32 can tell from its rounding


@dataclass(frozen=True)
class Uot(Sized):
    """Entropic transport of the targets' mass, all of it, to candidates that may hold more or less than their share.

    Minimises sum_ij P_ij (1 - cos_ij) / 2 + epsilon KL(P | uniform) + rho KL(P's mass of candidates | uniform) over
    P >= 0 whose mass of every target is 1/M. Takes the candidates of largest mass, ties to the smaller index.

    rho: how much it costs to leave the uniform mass; 0.0001 is the published setting, in which candidates far from all
    targets receive next to nothing; large values approach balanced transport, where all masses are equal.
    epsilon: of the entropy, in units of the cost, which lies in [0, 1].
    tolerance: change of all masses together, of which there is 1, at which the solve ends. max_iterations: of passes
    over the pool; what has not converged by then is refused.
    """

    features: ClassVar[str | None] = "wfd"
    whitening: ClassVar[Whitening] = None
    reference: ClassVar[bool] = False

    rho: Positive = 1e-4
    epsilon: Positive = 0.01
    tolerance: Positive = 1e-5
    max_iterations: Count = 1000

    def values(self, problem: SelectionProblem) -> NDArray[np.float64]:
        """The mass that each candidate receives, float64 [N], summing to 1."""
        targets, epsilon = problem.targets, self.epsilon
        n, m = problem.n, len(targets)
        usable = np.concatenate([rows.any(dim=1).numpy() for _, rows in blocks(problem.candidates)])
        if not usable.any():
            raise InputError("candidates: every row is zero, so none can receive mass")
        log_share = torch.full((n,), -math.inf, dtype=torch.float64)
        log_share[torch.from_numpy(usable)] = -math.log(usable.sum())
        dtype = torch.float32 if self.tolerance >= _FLOAT32 else torch.float64  # which takes twice the time
        relaxed = self.rho / (self.rho + epsilon)

        f, g = torch.zeros(n, dtype=torch.float64), torch.zeros(m, dtype=torch.float64)  # in units of epsilon
        mass = np.full(n, np.inf)
        step = block_size(max(m, problem.candidates.shape[1]))
        for _ in range(self.max_iterations):
            before, sums = mass, torch.full((m,), -math.inf, dtype=torch.float64)
            mass = np.empty(n)
            for start, rows in blocks(problem.candidates, step, name="candidates"):
                here = slice(start, start + len(rows))
                kernel = (rows @ targets.T).to(dtype).sub_(1).div_(2 * epsilon)  # minus the cost
                reach = torch.logsumexp(kernel + g.to(dtype), dim=1).double() - math.log(m)
                mass[here] = (log_share[here] + f[here] + reach).exp().numpy()
                f[here] = -relaxed * reach
                kernel.add_((f[here] + log_share[here]).to(dtype)[:, None])
                sums = torch.logaddexp(sums, torch.logsumexp(kernel, dim=0).double())
            g = -sums
            if np.abs(mass - before).sum() <= self.tolerance:
                return mass
        raise ConvergenceError(
            f"uot: after {self.max_iterations} passes masses still change by {np.abs(mass - before).sum():.2g} of 1; "
            "raise max_iterations or epsilon, or lower rho"
        )

    def select(self, problem: SelectionProblem) -> Selection:
        return problem.best(self.values(problem), self.size, self.ratio, described(self))
