"""Detection curves against counting, over all orders of tied samples where there are any."""

from itertools import pairwise, permutations

import numpy as np
import pytest

from tarot.attribution.detection_curve import detection, detection_f1
from tarot.common.errors import InputError


def counted(values, corrupted):
    """Rates with ties in random order: the mean over all orders that sort the values."""
    n = len(values)
    orders = [p for p in permutations(range(n)) if all(values[a] <= values[b] for a, b in pairwise(p))]
    found = [[corrupted[list(p[:t])].sum() for t in range(n + 1)] for p in orders]
    return np.mean(found, axis=0) / corrupted.sum()


def test_equals_counting():
    generator = np.random.default_rng(0)
    for _ in range(30):
        values = generator.integers(0, 4, 6).astype(float)
        corrupted = generator.permutation(6) < generator.integers(1, 7)
        found = detection(values, corrupted)
        expected = counted(values, corrupted)
        assert found.rates == pytest.approx(expected)
        assert found.area == pytest.approx(expected.mean())
        assert found.rate == pytest.approx(expected[corrupted.sum()])
        assert found.at(0.5) == pytest.approx(expected[3])
        assert found.at(0.25) == pytest.approx((expected[1] + expected[2]) / 2)


def test_perfect_worst_and_tied_values():
    corrupted = np.arange(10) < 3
    perfect = detection(np.arange(10), corrupted)
    assert perfect.rates[:5] == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])
    assert perfect.rate == 1
    assert perfect.area == pytest.approx(1 - 4 / 22)
    worst = detection(-np.arange(10), corrupted)
    assert worst.rate == 0
    assert worst.area == pytest.approx(4 / 22)
    tied = detection(np.zeros(10), corrupted)
    assert tied.rates == pytest.approx(tied.random)
    assert tied.area == pytest.approx(0.5)
    assert tied.rate == pytest.approx(0.3)
    assert (tied.at(0), tied.at(1)) == (0, 1)


def test_random_values_find_their_share():
    generator = np.random.default_rng(0)
    corrupted = generator.random(500) < 0.2
    curves = [detection(generator.normal(size=500), corrupted).rates for _ in range(300)]
    assert np.abs(np.mean(curves, axis=0) - np.arange(501) / 500).max() < 0.02


def test_only_the_order_counts_and_not_the_order_of_rows():
    generator = np.random.default_rng(1)
    values, corrupted = generator.integers(0, 20, 100).astype(float), generator.random(100) < 0.3
    rates = detection(values, corrupted).rates
    p = generator.permutation(100)
    assert detection(values[p], corrupted[p]).rates == pytest.approx(rates)
    assert detection(np.exp(values / 3), corrupted).rates == pytest.approx(rates)
    values[values == values.max()], values[values == values.min()] = np.inf, -np.inf
    assert detection(values, corrupted).rates == pytest.approx(rates)


def slow_f1(values, corrupted):
    best, flagged = np.inf, None
    for edge in np.unique(values)[:-1]:
        low = values <= edge
        within = sum(((values[s] - values[s].mean()) ** 2).sum() for s in (low, ~low))
        if within < best - 1e-12:
            best, flagged = within, low
    hits = (flagged & corrupted).sum()
    return 2 * hits / (flagged.sum() + corrupted.sum())


def test_f1_of_two_clusters():
    generator = np.random.default_rng(2)
    for n in (2, 3, 20, 200):
        corrupted = np.arange(n) < max(1, n // 4)
        values = generator.normal(size=n) + 2.0 * ~corrupted + 100
        assert detection_f1(values, corrupted) == pytest.approx(slow_f1(values, corrupted))
    assert detection_f1([0, 0.1, 5, 6], np.array([True, True, False, False])) == 1
    assert detection_f1([5, 6, 0, 0.1], np.array([True, True, False, False])) == 0
    assert detection_f1(np.ones(4), np.array([True, False, False, False])) == 0
    assert detection_f1([0, 0, 1, 1, 1], np.array([True, False, False, False, False])) == pytest.approx(2 / 3)


def test_what_cannot_be_measured_is_refused():
    some = np.array([True, False, False])
    for values, corrupted, message in [
        (np.zeros(3), np.zeros(3, dtype=bool), "no sample is corrupted"),
        (np.zeros(4), some, "one length"),
        (np.zeros((3, 1)), some, "one length"),
        (np.array([0, np.nan, 1]), some, "NaN; that of sample 1"),
        (np.zeros(3), np.array([1, 0, 2]), "must be booleans"),
    ]:
        with pytest.raises(InputError, match=message):
            detection(values, corrupted)
        with pytest.raises(InputError, match=message):
            detection_f1(values, corrupted)
    with pytest.raises(InputError, match="finite"):
        detection_f1([0, 1, np.inf], some)
    with pytest.raises(InputError, match="fraction"):
        detection(np.zeros(3), some).at(1.5)
