"""What it says that candidates are worth."""

from __future__ import annotations

import numpy as np

from tarot.selectors.contract import Valuing
from tests.tarot.selectors.conformance.subjects import N, NotPromised, Subject, pool, usual, usual_values


def values_every_candidate(subject: Subject) -> None:
    if not isinstance(subject.made(), Valuing):
        raise NotPromised("it gives no values")
    for seed, views in ((0, 1), (1, 2)):
        values = subject.values(pool(seed, views))
        assert isinstance(values, np.ndarray) and values.dtype == np.float64, f"{type(values)} {values.dtype}"
        assert values.shape == (N,), f"values have the shape {values.shape}"
        assert np.isfinite(values).all(), "values that are not finite"
        np.testing.assert_array_equal(
            subject.values(pool(seed, views)), values, err_msg="other values when asked again"
        )


def selects_what_it_values(subject: Subject) -> None:
    """Those that it selects are worth more, on average, than those that it leaves."""
    if not isinstance(subject.made(), Valuing):
        raise NotPromised("it gives no values")
    for seed in range(2):
        values, chosen = usual_values(subject, seed), usual(subject, seed).indices
        left = np.setdiff1d(np.arange(N), chosen)
        assert values[chosen].mean() > values[left].mean(), "it selects those of low value: higher must be better"


def selects_the_most_valuable(subject: Subject) -> None:
    """Nobody that it leaves is worth more than one that it selects; higher is better."""
    if not isinstance(subject.made(), Valuing):
        raise NotPromised("it gives no values")
    for seed in range(2):
        values, chosen = usual_values(subject, seed), usual(subject, seed).indices
        left = np.setdiff1d(np.arange(N), chosen)
        assert values[chosen].min() >= values[left].max(), "it leaves some that it values more than some that it takes"
