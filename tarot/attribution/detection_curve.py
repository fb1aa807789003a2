"""How well values find corrupted samples: the detection curve, its area, and opendataval's F1 (theory.md 6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tarot.common import InputError


@dataclass(frozen=True, eq=False)
class Detection:
    """The share of the corrupted samples found among the t of lowest value, for every t.

    rates: float64 [N + 1], rates[t] for t = 0..N. corrupted: how many samples are. Samples of equal value are taken in
    random order: a rate is the expectation over that order, so that no order of the rows can help or hurt.
    """

    rates: NDArray[np.float64]
    corrupted: int

    @property
    def n(self) -> int:
        return len(self.rates) - 1

    @property
    def area(self) -> float:
        """Mean rate over t = 0..N: 0.5 for random values, 1 - (c + 1) / (2 N + 2) at best with c corrupted samples."""
        return float(self.rates.mean())

    @property
    def rate(self) -> float:
        """The rate at t = the number of corrupted samples: precision and recall of taking that many."""
        return float(self.rates[self.corrupted])

    @property
    def random(self) -> NDArray[np.float64]:
        """The rates that random values have on average, float64 [N + 1]: t / N."""
        return np.arange(self.n + 1) / self.n

    def at(self, fraction: float) -> float:
        """The rate among this fraction of the samples, those of lowest value; linear between whole samples."""
        if not 0 <= fraction <= 1:
            raise InputError(f"fraction must be in [0, 1]; it is {fraction!r}")
        return float(np.interp(fraction * self.n, np.arange(self.n + 1), self.rates))


def detection(values: ArrayLike, corrupted: ArrayLike) -> Detection:
    """The detection curve of values [N] (higher = more valuable; infinities allowed) for corrupted samples, bool [N].

    Raises InputError where there is no corrupted sample, a value is NaN, or the two do not fit.
    """
    values, corrupted = _checked(values, corrupted)
    order = np.argsort(values, kind="stable")
    ranked, found = values[order], np.append(0, np.cumsum(corrupted[order]))
    # Where runs of equal values end: there the count is certain, and between, the expected count is linear.
    ends = np.concatenate([[0], np.flatnonzero(ranked[1:] != ranked[:-1]) + 1, [len(values)]])
    expected = np.interp(np.arange(len(values) + 1), ends, found[ends])
    return Detection(expected / found[-1], int(found[-1]))


def detection_f1(values: ArrayLike, corrupted: ArrayLike) -> float:
    """F1 of calling the lower of two clusters of values corrupted: exact 1-D 2-means (opendataval's noisy_detection).

    Raises InputError as `detection`, and where values are infinite; 0 where all values are equal (no cluster).
    """
    values, corrupted = _checked(values, corrupted)
    if not np.isfinite(values).all():
        raise InputError("values must be finite to be clustered")
    order = np.argsort(values, kind="stable")
    ranked = values[order] - values.mean()
    size = np.arange(1, len(values))
    low, cuts = np.cumsum(ranked)[:-1], np.diff(ranked) > 0
    if not cuts.any():
        return 0.0
    # Least variance within = most between, and the centred sums of the two sides are opposite.
    between = np.where(cuts, low**2 * (1 / size + 1 / (len(values) - size)), -1)
    flagged = corrupted[order][: int(between.argmax()) + 1]
    return float(2 * flagged.sum() / (len(flagged) + corrupted.sum()))


def _checked(values: ArrayLike, corrupted: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    values, corrupted = np.asarray(values, dtype=np.float64), np.asarray(corrupted)
    if values.ndim != 1 or values.shape != corrupted.shape:
        raise InputError(f"values and corrupted must be vectors of one length; {values.shape} and {corrupted.shape}")
    if corrupted.dtype != bool:
        raise InputError(f"corrupted must be booleans; its dtype is {corrupted.dtype}")
    if np.isnan(values).any():
        raise InputError(f"values must not be NaN; that of sample {int(np.flatnonzero(np.isnan(values))[0])} is")
    if not corrupted.any():
        raise InputError("no sample is corrupted, so there is nothing to detect")
    return values, corrupted
