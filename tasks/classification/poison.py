"""Poison frogs: images that look like themselves and that an encoder takes for another one.

"Poison Frogs! Targeted Clean-Label Poisoning Attacks on Neural Networks" (Shafahi et al. 2018), Algorithm 1: the image
x minimises ||f(x) - f(victim)||^2 + beta ||x - base||^2 by gradient steps on the first term and proximal steps on the
second. All images are made side by side, each with a step size of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from tarot.common import progress

Encode = Callable[[Tensor], Tensor]  # float32 [B, C, H, W] on the scale 0..1 -> [B, d]

UNITS = 10.0  # the median distance of a base from the victim: makes the paper's thresholds those of any encoder
BETA = 0.25 * (2048 / 3072) ** 2
FIRST = (
    0.02  # the first step changes a pixel by this, in the root mean square; the paper's rate of 0.1 is its encoder's
)
MEMORY = 40
STOP = 2.9  # an image whose objective is this low is done
CONSTANTS = {"units": UNITS, "beta": BETA, "first": FIRST, "memory": MEMORY, "stop": STOP}
BLOCK = 256  # images made at a time: more of them fall out of a core's caches


def collide(
    encode: Encode, bases: Tensor, victim: Tensor, *, steps: int = 100, reach: float = 3.5
) -> tuple[np.ndarray, np.ndarray]:
    """The poisons, uint8 [n, C, H, W], and which of them collide with the victim, bool [n].

    encode: deterministic and differentiable. bases: uint8 [n, C, H, W]. victim: uint8 [C, H, W].
    A poison collides where its features, of the image as rounded to uint8, are nearer than `reach` to the victim's;
    distances are in units of a tenth of the median distance between the bases and the victim.
    """
    start = bases.float() / 255
    with torch.no_grad():
        goal = encode(victim[None].float() / 255)
        clean = torch.cat([encode(block) for block in start.split(BLOCK)])
        unit = (clean - goal).norm(dim=1).median().clamp_min(1e-12) / UNITS

        def distances(images: Tensor) -> Tensor:
            return (encode(images) - goal).norm(dim=1) / unit

        poisons, found = [], []
        with progress("poison frogs", len(bases), "images") as advance:
            for block in start.split(BLOCK):
                made = (_descend(distances, block, steps) * 255).round().clamp(0, 255)
                found.append(distances(made / 255) < reach)
                poisons.append(made.byte())
                advance(len(block))
    return torch.cat(poisons).cpu().numpy(), torch.cat(found).cpu().numpy()


def _descend(distances: Encode, bases: Tensor, steps: int) -> Tensor:
    """Forward-backward steps from the bases, [n, C, H, W]; where the objective is above its mean over the last steps,
    the step is taken back and the next ones are half as long."""
    images, result = bases.clone(), bases.clone()
    active = torch.arange(len(bases), device=bases.device)
    history: list[Tensor] = []
    slope, objective = _slope(distances, images, bases)
    rates = FIRST / slope.flatten(1).square().mean(1).sqrt().clamp_min(1e-12)
    for _ in range(steps):
        history = [*history, objective][-MEMORY:]
        rate = rates.view(-1, 1, 1, 1)
        moved = images - rate * slope
        moved = ((moved + rate * BETA * bases) / (1 + rate * BETA)).clamp(0, 1)
        new_slope, new_objective = _slope(distances, moved, bases)
        worse = new_objective > torch.stack(history).mean(0)
        rates = torch.where(worse, rates / 2, rates)
        images, slope = (torch.where(worse.view(-1, 1, 1, 1), *pair) for pair in ((images, moved), (slope, new_slope)))
        objective = torch.where(worse, objective, new_objective)
        result[active] = images
        going = objective > STOP
        if not going.any():
            break
        if not going.all():
            active, images, bases, slope, rates, objective = (
                tensor[going] for tensor in (active, images, bases, slope, rates, objective)
            )
            history = [tensor[going] for tensor in history]
    return result


def _slope(distances: Encode, images: Tensor, bases: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of the squared distance from the victim, and the objective that is watched, [n]: the distances
    themselves, as in the authors' code."""
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        apart = distances(images)
        slope = torch.autograd.grad((apart**2).sum(), images)[0]
    return slope, apart.detach() + BETA * (images.detach() - bases).flatten(1).norm(dim=1)
