"""Entropic potentials as geomloss finds them (Feydy et al., 2019): epsilon is annealed, one averaged update at each.

That many updates do not converge. It is here because published methods rest on it (ledger LAVA (f)); `entropic` has
what converges.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tarot.transport.costs import blocks_of

_STEP = 4.0  # from one epsilon to the next: geomloss's scaling of 0.5, squared as its costs are


def soft_transform(cost: Tensor, g: Tensor, epsilon: float) -> Tensor:
    """f_i = -epsilon log sum_j exp((g_j - C_ij) / epsilon), float64 [n], for cost [n, m] and g [m]."""
    f, g = torch.empty(len(cost), dtype=torch.float64), g.to(cost.dtype)
    for start, block in blocks_of(cost):
        kernel = torch.sub(g, block)
        top = kernel.amax(1, keepdim=True)
        sums = kernel.sub_(top).div_(epsilon).exp_().sum(1).double()
        f[start : start + len(block)] = -top[:, 0].double() - epsilon * sums.log()
    return f


def annealed_once(cost: Tensor, epsilon: float, diameter: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Potentials f float64 [n], g float64 [m] between uniform measures under cost float32 [n, m].

    Epsilon falls from diameter^2 by quarters to `epsilon`. At each, both potentials move half of the way to the other's
    soft c-transform; at the end all of it. diameter: of the box that bounds the rows of both sides.
    """
    n, m = cost.shape
    turned = cost.T.contiguous()

    def of_rows(g: Tensor, eps: float) -> Tensor:
        return soft_transform(cost, g - eps * math.log(m), eps)

    def of_columns(f: Tensor, eps: float) -> Tensor:
        return soft_transform(turned, f - eps * math.log(n), eps)

    schedule = _schedule(epsilon, diameter)
    f = of_rows(torch.zeros(m, dtype=torch.float64), schedule[0])
    g = of_columns(torch.zeros(n, dtype=torch.float64), schedule[0])
    for eps in schedule:
        f, g = (f + of_rows(g, eps)) / 2, (g + of_columns(f, eps)) / 2
    f, g = of_rows(g, epsilon), of_columns(f, epsilon)
    return f.numpy(), g.numpy()


def _schedule(epsilon: float, diameter: float) -> list[float]:
    """diameter^2, twice; its quarters above epsilon; epsilon."""
    start = diameter**2
    steps = math.ceil(math.log(start / epsilon) / math.log(_STEP) - 1e-12) if start > epsilon else 0
    return [start or epsilon, *(start / _STEP**k for k in range(steps)), epsilon]
