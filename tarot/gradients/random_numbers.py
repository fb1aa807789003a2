"""Random numbers that are the same on every device, in whatever blocks they are made.

Each is a pure function of (key, row, column): SplitMix64 (Steele, Lea, Flood 2014), a counter-based generator, in
wrapping int64 arithmetic, which CPUs and GPUs do alike. More rows or columns leave the others as they were.
"""

from __future__ import annotations

import functools
import hashlib
import math

import torch
from torch import Tensor


def _int64(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


_GOLDEN = _int64(0x9E3779B97F4A7C15)


def _mix(z: Tensor) -> Tensor:
    """SplitMix64's output function on int64: a bijection whose output bits all depend on all input bits."""
    for shift, factor in (30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1):
        # >> copies the sign bit; the mask makes it the logical shift of the published function.
        z = (z ^ ((z >> shift) & ((1 << (64 - shift)) - 1))) * _int64(factor)
    return z


def random_words(key: str, rows: tuple[int, int], columns: tuple[int, int], device: torch.device | str) -> Tensor:
    """64 random bits, as int64, for each (row, column) in the two half-open ranges; each row is its own stream."""
    start = _int64(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little"))
    streams = _mix(start + _GOLDEN * torch.arange(rows[0] + 1, rows[1] + 1, device=device))
    return _mix(streams[:, None] + _GOLDEN * torch.arange(columns[0] + 1, columns[1] + 1, device=device))


@functools.cache
def _normal_quantiles() -> Tensor:
    """2^16 equally likely values, float32, of unit variance: normal to 4.2 sigma without a device's own log or cos."""
    values: Tensor = torch.special.ndtri((torch.arange(1 << 16, dtype=torch.float64) + 0.5) / (1 << 16))
    return (values / values.square().mean().sqrt()).float()


def random_matrix(
    distribution: str, key: str, rows: tuple[int, int], columns: tuple[int, int], device: torch.device | str
) -> Tensor:
    """Independent entries of mean 0 and variance 1, float32: "rademacher" (+1 or -1) or "normal"."""
    lanes = {"rademacher": 64, "normal": 4}[distribution]
    first = columns[0] // lanes
    words = random_words(key, rows, (first, math.ceil(columns[1] / lanes)), device)
    shifts = torch.arange(lanes, device=device) * (64 // lanes)
    drawn = (words[:, :, None] >> shifts).flatten(1)[:, columns[0] - first * lanes : columns[1] - first * lanes]
    if distribution == "rademacher":
        return (drawn & 1).float().mul_(-2).add_(1)
    return _normal_quantiles().to(device)[drawn & 0xFFFF]
