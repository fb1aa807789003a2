"""Batches of made-up agents and lanes, in the layout of tasks/motion, for tests of what reads them."""

from __future__ import annotations

import torch
from torch import Tensor


def motion_batch(
    samples: int = 4,
    *,
    agents: int = 6,
    past: int = 5,
    lanes: int = 24,
    points: int = 10,
    future: int = 12,
    seed: int = 0,
    scale: float = 10.0,
) -> dict[str, Tensor]:
    """Some steps, points and whole rows are not valid, and zero; the target's last step always is."""
    generator = torch.Generator().manual_seed(seed)

    def numbers(*shape: int) -> Tensor:
        return scale * torch.randn(shape, generator=generator)

    def mostly(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator) < 0.8

    agents_valid = mostly(samples, agents, past) & mostly(samples, agents, 1)
    agents_valid[:, 0, -1] = True
    lanes_valid = mostly(samples, lanes, points) & mostly(samples, lanes, 1)
    future_valid = mostly(samples, future)
    return {
        "agents": numbers(samples, agents, past, past + 18) * agents_valid[..., None],
        "agents_valid": agents_valid,
        "lanes": numbers(samples, lanes, points, 29) * lanes_valid[..., None],
        "lanes_valid": lanes_valid,
        "future": numbers(samples, future, 4) * future_valid[..., None],
        "future_valid": future_valid,
    }
