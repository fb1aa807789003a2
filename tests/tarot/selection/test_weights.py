"""Integer weights against exact fractions."""

from fractions import Fraction

import numpy as np
import pytest

from tarot.common.errors import InputError
from tarot.selection.weights import allocate, integer_weights


def largest_remainder(utilities, total):
    """theory.md 0.4 in exact fractions."""
    u = [Fraction(x) for x in utilities]
    extra = total - len(u)
    shares = [extra * x / sum(u) if sum(u) else Fraction(extra, len(u)) for x in u]
    weights = [1 + int(s) for s in shares]
    ranked = sorted(range(len(u)), key=lambda i: (-(shares[i] - int(shares[i])), i))
    for i in ranked[: total - sum(weights)]:
        weights[i] += 1
    return weights


def test_the_example_of_the_theory():
    assert allocate([0.1, 0.2, 0.7], 5).tolist() == [1, 2, 2]
    assert allocate([0.1, 0.2, 0.7], 10).tolist() == [2, 2, 6]


@pytest.mark.parametrize("seed", range(30))
def test_allocation_is_largest_remainder_in_exact_fractions(seed):
    """Integer utilities with many ties: the order of equal remainders must not be decided by rounding."""
    generator = np.random.default_rng(seed)
    size = int(generator.integers(1, 40))
    utilities = generator.integers(0, 6, size)
    total = size + int(generator.integers(0, 200))
    assert allocate(utilities, total).tolist() == largest_remainder(utilities.tolist(), total)


def test_equal_remainders_of_unequal_shares_go_by_index():
    """2 1/3 and 1/3 have the same remainder, though not in floating point."""
    for utilities in ([1, 4, 7], [1, 7, 4], [4, 1, 7], [1, 11, 3, 6], [2, 5, 8, 11, 4], [1, 10, 19]):
        for extra in range(1, 60):
            total = len(utilities) + extra
            assert allocate(utilities, total).tolist() == largest_remainder(utilities, total)


@pytest.mark.parametrize("seed", range(30))
def test_weights_are_positive_sum_to_the_total_and_fall_with_the_potential(seed):
    generator = np.random.default_rng(seed)
    size = int(generator.integers(1, 60))
    potentials = generator.choice([generator.normal(size=size), generator.integers(-2, 3, size) * 0.1])
    for total in (size, size + 1, 3 * size, 1000 * size + 7):
        weights = integer_weights(potentials, total)
        assert weights.dtype == np.int64 and weights.shape == (size,)
        assert weights.min() >= 1 and weights.sum() == total
        for value in set(potentials):
            assert np.ptp(weights[potentials == value]) <= 1
            higher = weights[potentials > value]
            assert not len(higher) or weights[potentials == value].min() >= higher.max()


def test_the_benefit_keeps_a_share_for_the_worst():
    """u = (max f - f) + delta (max f - min f): with f = (0, 1), u = (1.1, .1), so 12 to share are 11 and 1."""
    assert integer_weights([0.0, 1.0], 14).tolist() == [12, 2]
    assert integer_weights([0.0, 1.0], 14, delta=0).tolist() == [13, 1]
    assert integer_weights([5.0, 5.0, 5.0], 8).tolist() == [3, 3, 2]


def test_weights_do_not_change_with_the_gauge_or_scale_of_potentials():
    f = np.random.default_rng(0).normal(size=40)
    expected = integer_weights(f, 137)
    for same in (f + 3, 100 * f, 0.01 * f - 1):
        np.testing.assert_array_equal(integer_weights(same, 137), expected)


@pytest.mark.parametrize(
    ("potentials", "total", "message"),
    [
        ([0.0, 1.0, 2.0], 2, "total 2 cannot give each of 3"),
        ([0.0, 1.0], 3.5, "total must be an integer"),
        ([0.0, np.nan], 3, "potentials"),
        ([], 3, "potentials"),
        ([[0.0, 1.0]], 3, "potentials"),
    ],
)
def test_weights_that_cannot_be(potentials, total, message):
    with pytest.raises(InputError, match=message):
        integer_weights(potentials, total)
