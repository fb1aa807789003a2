"""How often each selected candidate is repeated: potentials become positive integers of a given sum."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tarot.common import InputError

LARGEST_TOTAL = 2**53  # to which float64 holds integers exactly
DELTA = 0.1  # the worst selected candidate keeps this share of the range of benefits (theory.md 1.4)


def integer_weights(potentials: ArrayLike, total: int, delta: float = DELTA) -> NDArray[np.int64]:
    """Positive integers, int64 [S], that sum to `total` and fall as the potentials float [S] rise.

    Benefit u_i = max f - f_i + delta (max f - min f); everyone gets one, the rest is shared out in proportion to u by
    largest remainder, ties by index (theory.md 0.4, 1.4; ledger L-06, L-18). Raises InputError where total < S.
    """
    f = np.asarray(potentials, dtype=np.float64)
    if f.ndim != 1 or not len(f):
        raise InputError(f"potentials must be a non-empty vector of finite numbers; its shape is {f.shape}")
    if not np.isfinite(f).all():
        wrong = int(np.flatnonzero(~np.isfinite(f))[0])
        raise InputError(f"potentials must be finite; that of candidate {wrong} is {f[wrong]}")
    return allocate(f.max() - f + delta * np.ptp(f), total)


def allocate(utilities: ArrayLike, total: int) -> NDArray[np.int64]:
    """Integer weights >= 1, int64 [S], of non-negative utilities [S], summing to `total` (theory.md 0.4)."""
    u = np.asarray(utilities, dtype=np.float64)
    if total != int(total):
        raise InputError(f"total must be an integer; it is {total!r}")
    if total > LARGEST_TOTAL:
        raise InputError(f"total must be at most 2**53; it is {total}")
    extra = int(total) - len(u)
    if extra < 0:
        raise InputError(f"total {total} cannot give each of {len(u)} candidates a weight of at least 1")
    share = extra * (u / u.sum() if u.sum() > 0 else np.full(len(u), 1 / len(u)))
    # 1e-9: equal utilities must not be told apart by the rounding of their share
    weights = np.floor(share + 1e-9).astype(np.int64)
    fraction = np.round(share - weights, 9)
    left = extra - int(weights.sum())
    weights[np.argsort(-fraction, kind="stable")[:left]] += 1
    return weights + 1
