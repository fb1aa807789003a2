"""LDS against scipy's Spearman and an interval that ranks every resample anew."""

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from tarot.attribution.datamodeling import choose, lds
from tarot.common.errors import InputError


@pytest.fixture
def problem():
    """Additive ground truth with noise: scores [N, M], masks [m, N] of half the candidates, outputs [m, M]."""
    rng = np.random.default_rng(0)
    n, targets, m = 40, 25, 60
    scores = rng.normal(size=(n, targets))
    masks = rng.random((m, n)).argsort(axis=1) < n // 2
    outputs = masks @ scores + 4 * rng.normal(size=(m, targets))
    return scores.astype(np.float32), masks, outputs


def test_the_additive_example_has_lds_one_and_minus_one_when_negated():
    tau = np.array([[1.0], [2], [3], [4]])
    masks = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1]], dtype=bool)
    outputs = masks @ tau
    assert float(lds(tau, masks, outputs)) == pytest.approx(1)
    assert float(lds(-tau, masks, outputs)) == pytest.approx(-1)


def test_equals_scipy_with_ties(problem):
    scores, masks, outputs = problem
    scores, outputs = np.round(scores), np.round(outputs)  # many ties
    predictions = masks @ scores.astype(np.float64)
    expected = [spearmanr(predictions[:, j], outputs[:, j]).statistic for j in range(scores.shape[1])]
    result = lds(scores, masks, outputs)
    np.testing.assert_allclose(result.per_target, expected, atol=1e-12)
    assert result.mean == pytest.approx(np.mean(expected)) and not result.skipped


def test_interval_matches_a_bootstrap_that_ranks_every_resample(problem):
    scores, masks, outputs = problem
    predictions = masks @ scores.astype(np.float64)
    rng, (m, targets), means = np.random.default_rng(1), outputs.shape, []
    for _ in range(400):
        rows, columns = rng.integers(m, size=m), rng.integers(targets, size=targets)
        ranks = [rankdata(values[rows][:, columns], axis=0) for values in (predictions, outputs)]
        means.append(np.mean([np.corrcoef(*pair)[0, 1] for pair in zip(ranks[0].T, ranks[1].T, strict=True)]))
    result = lds(scores, masks, outputs)
    np.testing.assert_allclose([result.low, result.high], np.percentile(means, [2.5, 97.5]), atol=0.015)
    assert result.low < result.mean < result.high


def test_paired_difference_is_tighter_than_the_difference_of_intervals(problem):
    scores, masks, outputs = problem
    noisy = scores + 0.3 * np.random.default_rng(2).normal(size=scores.shape)
    a, b = lds(scores, masks, outputs), lds(noisy, masks, outputs)
    mean, low, high = a.minus(b)
    assert mean == pytest.approx(a.mean - b.mean) and 0 < low < mean < high
    assert high - low < 0.7 * (a.high - a.low)
    assert a.minus(lds(scores, masks, outputs)) == (0, 0, 0)


def test_constant_columns_are_skipped_with_their_reason(problem):
    scores, masks, outputs = (array.copy() for array in problem)
    scores[:, 3], outputs[:, 5] = 0.1, 2.0  # equal-sized subsets: equal scores predict the same for all
    result = lds(scores, masks, outputs)
    assert set(result.skipped) == {3, 5}
    assert "prediction" in result.skipped[3] and "output" in result.skipped[5]
    assert np.flatnonzero(np.isnan(result.per_target)).tolist() == [3, 5]
    assert result.mean == pytest.approx(np.nanmean(result.per_target))
    everything = lds(np.ones_like(scores), masks, outputs)
    assert np.isnan(float(everything)) and len(everything.skipped) == scores.shape[1]


def test_does_not_depend_on_positive_scale_or_order(problem):
    scores, masks, outputs = problem
    permutation = np.random.default_rng(3).permutation(len(scores))
    again = lds(100 * scores[permutation], masks[:, permutation], np.exp(outputs / 10))
    np.testing.assert_allclose(again.per_target, lds(scores, masks, outputs).per_target)


def test_choose_finds_the_setting_that_generalises(problem):
    scores, masks, outputs = problem
    noise = np.random.default_rng(4).normal(size=scores.shape)
    choice = choose(lambda amount: scores + amount * noise, {"amount": [2.0, 0.0, 1.0]}, masks[:20], outputs[:20])
    assert choice.options == {"amount": 0.0} and len(choice.tried) == 3
    np.testing.assert_array_equal(choice.scores, scores)
    with pytest.raises(InputError, match="grid"):
        choose(lambda amount: scores, {"amount": []}, masks, outputs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, b, y: (s[:, 0], b, y), "scores"),
        (lambda s, b, y: (s, b[:, 1:], y), "masks"),
        (lambda s, b, y: (s, b * 2, y), "masks"),
        (lambda s, b, y: (s, b, y[1:]), "outputs"),
        (lambda s, b, y: (s, b[:1], y[:1]), "two"),
        (lambda s, b, y: (s, b, np.where(y == y[2, 1], np.nan, y)), "model 2, target 1"),
        (lambda s, b, y: (np.where(s == s[3, 4], np.inf, s), b, y), "candidate 3, target 4"),
    ],
)
def test_bad_input_is_named(problem, change, message):
    with pytest.raises(InputError, match=message):
        lds(*change(*problem))
