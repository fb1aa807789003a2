import numpy as np
import pytest
import torch

import tarot
import tarot.space.covariance
from tarot.common.errors import InputError
from tarot.features.mean_rows import MeanRows
from tarot.space import JoinedRows, WhitenedRows, fit_whitener, unit_norm


def whiten(candidates, targets, method="cholesky", regularization=1e-3):
    """Of rows as long as they are, at a ridge of a thousandth, unless a test says otherwise: the formula's own."""
    return tarot.whiten(candidates, targets, method, regularization, norm=None)


def gaussian(n=400, m=60, d=7, seed=0):
    """Correlated candidates and targets with an offset, float64 [n, d], [m, d]."""
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(d, d)) + 2 * np.eye(d)
    return tuple(generator.normal(size=(k, d)) @ mixing + generator.normal(size=d) for k in (n, m))


def textbook(candidates, targets, regularization=1e-3):
    """Eq. 7-8 in NumPy and float64: centre on the union, relative ridge, inv(L), unit norm."""
    both = np.concatenate([candidates, targets])
    centred = both - both.mean(axis=0)
    covariance = centred.T @ centred / len(both)
    covariance += regularization * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    white = centred @ np.linalg.inv(np.linalg.cholesky(covariance)).T
    white /= np.linalg.norm(white, axis=1, keepdims=True)
    return white[: len(candidates)], white[len(candidates) :]


def distances(candidates, targets):
    return np.sqrt(np.maximum(0, 2 - 2 * np.asarray(candidates) @ np.asarray(targets).T))


def covariance_map(covariance):
    """The map fitted to points that have exactly this 2 x 2 covariance and mean zero."""
    root = np.linalg.cholesky(np.array(covariance))
    points = np.sqrt(2) * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]] * 3) @ root.T
    return fit_whitener(points[:2], points[2:], regularization=0)


def test_is_the_textbook_formula():
    c, t = gaussian()
    for mine, expected in zip(whiten(c, t), textbook(c, t), strict=True):
        np.testing.assert_allclose(mine, expected, atol=2e-6)


@pytest.mark.parametrize("method", ["cholesky", "zca"])
def test_whitened_covariance_is_the_identity(method):
    """Ledger L-01: the released code multiplies by the transpose, which does not whiten."""
    c, t = gaussian()
    whitener = fit_whitener(c, t, method, regularization=0)
    white = (np.concatenate([c, t]) - whitener.mean.numpy()) @ whitener.matrix.numpy()
    np.testing.assert_allclose(white.T @ white / len(white), np.eye(7), atol=1e-6)


@pytest.mark.parametrize(
    ("covariance", "cosine"), [([[1, 0.9], [0.9, 1]], -0.9), ([[4, 1], [1, 1]], -0.5), ([[1, 1], [1, 4]], -0.5)]
)
def test_worked_examples_of_the_ledger(covariance, cosine):
    """L-01: x = (1, 0), y = (0, 1); the released code gives -.669, -.243 and -.707."""
    x, y = covariance_map(covariance)(torch.eye(2))
    assert float(x @ y) == pytest.approx(cosine, abs=1e-6)


def test_cholesky_and_zca_differ_by_a_rotation():
    """Ledger L-02, in float64: W W^T is the same, so every inner product is."""
    c, t = gaussian()
    chol, zca = (fit_whitener(c, t, method).matrix.numpy() for method in ("cholesky", "zca"))
    np.testing.assert_allclose(chol @ chol.T, zca @ zca.T, atol=1e-10)
    np.testing.assert_allclose(distances(*whiten(c, t, "cholesky")), distances(*whiten(c, t, "zca")), atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x + 5,  # L-03
        lambda x: x * 1e-4,  # L-05
        lambda x: x * 1e6,
        lambda x: x[:, ::-1],  # L-01
        lambda x: x[:, [3, 0, 6, 1, 5, 2, 4]],
    ],
)
def test_distances_are_invariant(change):
    c, t = gaussian()
    np.testing.assert_allclose(distances(*whiten(change(c), change(t))), distances(*whiten(c, t)), atol=2e-5)


def test_distances_are_invariant_under_any_invertible_map_when_the_ridge_is_tiny():
    c, t = gaussian()
    mixing = np.random.default_rng(9).normal(size=(7, 7)) + 3 * np.eye(7)
    before, after = (distances(*whiten(*pair, regularization=1e-12)) for pair in ((c, t), (c @ mixing, t @ mixing)))
    np.testing.assert_allclose(after, before, atol=1e-4)


def test_the_ridge_is_relative():
    """Ledger L-05: standard deviations (10, .1) are whitened to the same numbers at every scale."""
    generator = np.random.default_rng(0)
    points = generator.normal(size=(500, 2)) * [10, 0.1]
    for scale in (1, 1e-2, 1e-4):
        scaled = points * scale
        whitener = fit_whitener(scaled[:400], scaled[400:], regularization=1e-12)
        white = (scaled - whitener.mean.numpy()) @ whitener.matrix.numpy()
        np.testing.assert_allclose(white.std(axis=0), [1, 1], rtol=1e-3)


def test_the_aggregate_over_checkpoints_is_used():
    """Ledger L-04: with g1 = -g2 + noise, the mean is the noise, whatever the last checkpoint holds."""
    generator = np.random.default_rng(0)
    first, noise = generator.normal(size=(2, 50, 4)).astype(np.float32)
    mean = MeanRows([first, 2 * noise - first])
    np.testing.assert_allclose(mean[:], noise, atol=1e-6)
    np.testing.assert_allclose(mean[np.array([7, 3])], noise[[7, 3]], atol=1e-6)
    np.testing.assert_allclose(mean[10:40:7], noise[10:40:7], atol=1e-6)
    np.testing.assert_allclose(whiten(mean, mean)[0], whiten(noise, noise)[0], atol=1e-4)


def test_reading_a_mean_does_not_write_into_its_parts():
    first, second = np.ones((3, 2), np.float32), np.full((3, 2), 3, np.float32)
    assert (MeanRows([first, second])[:] == 2).all()
    assert (first == 1).all()


def test_joined_rows_average_squared_distances():
    views = [tuple(torch.from_numpy(x) for x in whiten(*gaussian(seed=seed))) for seed in range(3)]
    candidates, targets = (JoinedRows([view[side] for view in views]) for side in (0, 1))
    joined = distances(candidates[:], targets[:]) ** 2
    np.testing.assert_allclose(joined, np.mean([distances(*view) ** 2 for view in views], axis=0), atol=1e-5)
    np.testing.assert_allclose(candidates[np.array([5, 2])], candidates[:][[5, 2]])


def test_a_zero_row_stays_zero_and_changes_nothing_for_the_others():
    c, t = gaussian()
    with_zeros = np.insert(c, [0, 100, 400], 0, axis=0)
    white, white_t = whiten(with_zeros, t)
    zero = np.flatnonzero((with_zeros == 0).all(axis=1))
    assert (white[zero] == 0).all()
    expected, expected_t = whiten(c, t)
    np.testing.assert_allclose(np.delete(white, zero, axis=0), expected, atol=1e-6)
    np.testing.assert_allclose(white_t, expected_t, atol=1e-6)


def test_blocks_of_any_size_give_the_same(monkeypatch):
    c, t = gaussian()
    reference = fit_whitener(c, t)
    monkeypatch.setattr(tarot.space.covariance, "block_size", lambda d: 4 * 33)
    by_parts = fit_whitener(c, t)
    torch.testing.assert_close(by_parts.mean, reference.mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(by_parts.matrix, reference.matrix, rtol=1e-9, atol=1e-9)
    rows = WhitenedRows(c, reference)
    torch.testing.assert_close(rows[30:90], rows[:][30:90], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(rows[np.array([3, 1])], rows[:][[3, 1]], rtol=1e-6, atol=1e-6)


def test_accumulation_is_exact_where_float32_is_not():
    """A mean of 1000 standard deviations: float32 sums would lose the covariance altogether."""
    generator = np.random.default_rng(0)
    spread = generator.normal(size=(3000, 3)).round(2)
    c = (spread + 1000).astype(np.float32)
    whitener = fit_whitener(c[:2000], c[2000:], regularization=0)
    expected = np.cov(c.astype(np.float64).T, bias=True)
    np.testing.assert_allclose(np.linalg.inv(whitener.matrix @ whitener.matrix.T), expected, rtol=1e-6, atol=1e-9)
    white = whitener(torch.from_numpy(c)).numpy()
    exact = (c.astype(np.float64) - whitener.mean.numpy()) @ whitener.matrix.numpy()
    np.testing.assert_allclose(white, exact / np.linalg.norm(exact, axis=1, keepdims=True), atol=1e-5)


def test_float16_features_whiten_like_their_float32_copy():
    """Ledger L-16: nothing is accumulated or factored in half precision."""
    c, t = (x.astype(np.float16) for x in gaussian())
    for mine, expected in zip(whiten(c, t), textbook(c.astype(float), t.astype(float)), strict=True):
        np.testing.assert_allclose(mine, expected, atol=2e-6)
    large = (c.astype(np.float32) * 2000).clip(-6e4, 6e4).astype(np.float16)  # squares overflow float16
    assert np.isfinite(whiten(large, t)[0]).all()


@pytest.mark.filterwarnings("ignore:.*nearly equidistant")
def test_a_constant_column_and_more_dimensions_than_rows_need_only_the_ridge():
    c, t = gaussian()
    c[:, 2] = t[:, 2] = 3
    np.testing.assert_allclose(whiten(c, t)[0], textbook(c, t)[0], atol=2e-6)
    wide, few = (np.random.default_rng(s).normal(size=(n, 30)) for s, n in ((0, 8), (1, 4)))
    np.testing.assert_allclose(whiten(wide, few)[0], textbook(wide, few)[0], atol=1e-5)
    for method in ("cholesky", "zca"):
        with pytest.raises(InputError, match="singular"):
            whiten(wide, few, method, regularization=0)


def test_near_equidistance_is_warned_of():
    """Three points in the plane, no ridge: every distance is sqrt(3)."""
    points = np.array([[1.0, 0], [3, 1], [1, 5]])
    with pytest.warns(UserWarning, match="3 rows in 2 dimensions"):
        c, t = whiten(points[:2], points[2:], regularization=0)
    np.testing.assert_allclose(distances(c, t), np.sqrt(3), atol=1e-6)


def test_centre_chooses_the_rows():
    c, t = (torch.from_numpy(x) for x in gaussian())
    torch.testing.assert_close(fit_whitener(c, t, centre="candidates").mean, c.float().double().mean(0))
    torch.testing.assert_close(fit_whitener(c, t).mean, torch.cat([c, t]).float().double().mean(0))
    uncentred = fit_whitener(c, t, centre="none", regularization=0)
    assert (uncentred.mean == 0).all()
    both = torch.cat([c, t]).float().double()
    torch.testing.assert_close(uncentred.matrix @ uncentred.matrix.T, (both.T @ both / len(both)).inverse())


def test_unit_norm_at_the_ends_of_float32():
    block = torch.tensor([[3e-30, 4e-30], [3e30, 4e30], [0.0, 0.0], [3.0, 4.0]])
    torch.testing.assert_close(unit_norm(block), torch.tensor([[0.6, 0.8], [0.6, 0.8], [0.0, 0.0], [0.6, 0.8]]))


def test_torch_in_torch_out_and_nothing_is_overwritten():
    c, t = (torch.from_numpy(x).float() for x in gaussian())
    before = c.clone()
    white = whiten(c, t)[0]
    assert isinstance(white, torch.Tensor) and white.dtype == torch.float32
    assert isinstance(whiten(c.numpy(), t.numpy())[0], np.ndarray)
    torch.testing.assert_close(whiten(c, t, None, regularization=None)[0], c / c.norm(dim=1, keepdim=True))
    assert torch.equal(c, before)


def test_bad_arguments_are_named():
    c, t = gaussian()
    for arguments, words in [
        ((c, t[:, :3]), "candidates have 7 feature dimensions and targets 3"),
        ((c, t, "pca"), "pca"),
        ((c, t, "zca", -1.0), "regularization"),
        ((np.ones((5, 2)), np.ones((2, 2))), "do not vary"),
        ((np.zeros((5, 2)), np.zeros((2, 2))), "only zero rows"),
        ((c[0], t), "two dimensions"),
        ((c, np.where(t > 2, np.nan, t)), "targets row"),
    ]:
        with pytest.raises(InputError, match=words):
            whiten(*arguments)
    with pytest.raises(InputError, match="centre"):
        fit_whitener(c, t, centre="targets")
    with pytest.raises(InputError, match="same rows"):
        JoinedRows([torch.ones(2, 3), torch.ones(3, 3)])
    with pytest.raises(InputError, match="one shape"):
        MeanRows([c, t])
