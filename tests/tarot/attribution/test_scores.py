"""Attribution estimators against direct formulas and against the `traker` package's own score computer."""

import numpy as np
import pytest
import torch

import tarot
from tarot.attribution.scores import (
    dsdm_scores,
    gradcos_scores,
    graddot_scores,
    temper,
    tempered_scores,
    trak_scores,
    wfd_scores,
)
from tarot.common.errors import InputError

N, M, D, T = 60, 7, 5, 3


@pytest.fixture
def ensemble():
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(D, D))
    candidates = [(rng.normal(size=(N, D)) @ mix).astype(np.float32) for _ in range(T)]
    targets = [(rng.normal(size=(M, D)) @ mix).astype(np.float32) for _ in range(T)]
    return candidates, targets, rng.random((T, N))


def direct_trak(candidates, targets, residuals, ridge=0.0):
    similarity = []
    for z, x in zip(candidates, targets, strict=True):
        gram = z.astype(np.float64).T @ z
        gram += ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
        similarity.append(z @ np.linalg.inv(gram) @ x.T)
    return np.mean(similarity, axis=0) * np.mean(residuals, axis=0)[:, None]


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_trak_is_the_product_of_two_averages(ensemble, ridge):
    scores = trak_scores(*ensemble, regularization=ridge)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, direct_trak(*ensemble, ridge), rtol=1e-4, atol=1e-7)
    each = [trak_scores(z, x, q, regularization=ridge) for z, x, q in zip(*ensemble, strict=True)]
    assert not np.allclose(scores, np.mean(each, axis=0), rtol=1e-2)  # not the average of products


def test_trak_agrees_with_the_traker_package(ensemble):
    computer_module = pytest.importorskip("trak.score_computers", reason="traker is not installed")
    candidates, targets, residuals = ensemble
    scores = torch.zeros(N, M)
    for z, x in zip(candidates, targets, strict=True):  # as TRAKer.finalize_features and finalize_scores do
        computer = computer_module.BasicScoreComputer(dtype=torch.float32, device=torch.device("cpu"))
        z, x = torch.from_numpy(z), torch.from_numpy(x)
        computer.get_scores(computer.get_x_xtx_inv(z, computer.get_xtx(z)), x, accumulator=scores)
    expected = (scores / T).numpy() * residuals.mean(axis=0)[:, None]
    np.testing.assert_allclose(
        trak_scores(*ensemble, rescale=True), expected, rtol=1e-3, atol=1e-5 * abs(expected).max()
    )


def test_trak_without_ridge_refuses_a_singular_matrix(ensemble):
    candidates, targets, residuals = ensemble
    with pytest.raises(InputError, match="regularization"):
        trak_scores(candidates[0][:3], targets[0], residuals[0, :3])
    assert np.isfinite(trak_scores(candidates[0][:3], targets[0], residuals[0, :3], regularization=0.1)).all()


def test_dsdm_is_the_mean_trak_score(ensemble):
    scores = dsdm_scores(*ensemble, regularization=0.1)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, trak_scores(*ensemble, regularization=0.1).mean(axis=1), rtol=1e-3, atol=1e-6)


def test_dsdm_averages_subtasks_of_any_size(ensemble):
    m = len(ensemble[1][0])
    groups = np.where(np.arange(m) < m // 4, "few", "many")
    trak = trak_scores(*ensemble, regularization=0.1)
    expected = (trak[:, : m // 4].mean(axis=1) + trak[:, m // 4 :].mean(axis=1)) / 2
    scores = dsdm_scores(*ensemble, regularization=0.1, groups=groups)
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-6)
    assert not np.allclose(scores, trak.mean(axis=1), rtol=1e-2)


def test_tempered_is_trak_at_beta_one_and_ignores_residuals_at_beta_zero(ensemble):
    candidates, targets, residuals = ensemble
    trak = trak_scores(*ensemble, regularization=0.3)
    ours = tempered_scores(*ensemble, beta=1, regularization=0.3, covariance="candidates")
    np.testing.assert_allclose(ours, trak, rtol=1e-5)
    flat = tempered_scores(*ensemble, beta=0, regularization=0.3, covariance="candidates")
    np.testing.assert_allclose(flat, trak_scores(candidates, targets, regularization=0.3), rtol=1e-5)
    half = tempered_scores(*ensemble, beta=0.5, regularization=0.3, covariance="candidates")
    np.testing.assert_allclose(half, flat * np.sqrt(residuals.mean(axis=0))[:, None], rtol=1e-5)


def test_temper_makes_tempered_scores_of_a_similarity(ensemble):
    candidates, targets, residuals = ensemble
    similarity = tempered_scores(candidates, targets, beta=0, regularization=0.1)
    before = similarity.copy()
    expected = tempered_scores(candidates, targets, residuals, beta=0.5, regularization=0.1)
    np.testing.assert_allclose(temper(similarity, residuals, 0.5), expected, rtol=1e-6)
    np.testing.assert_array_equal(similarity, before)


@pytest.mark.parametrize("estimator", [tempered_scores, trak_scores, dsdm_scores])
def test_reads_a_memory_map_and_torch_alike(ensemble, tmp_path, estimator):
    candidates, targets, residuals = ensemble
    half = candidates[0].astype(np.float16)
    np.save(tmp_path / "candidates.npy", half)
    mapped = np.load(tmp_path / "candidates.npy", mmap_mode="r")
    expected = estimator(half.astype(np.float32), targets[0], residuals[0], regularization=0.1)
    for rows in (mapped, torch.from_numpy(half)):
        np.testing.assert_array_equal(estimator(rows, targets[0], residuals[0], regularization=0.1), expected)


def test_does_not_depend_on_blocks_or_order(ensemble, monkeypatch):
    candidates, targets, residuals = ensemble
    expected = tempered_scores(candidates, targets, residuals)
    distances = wfd_scores(candidates, targets, regularization=0.1)
    monkeypatch.setattr("tarot.features.arrays.block_size", lambda columns, block_bytes=0: 7)
    np.testing.assert_allclose(tempered_scores(candidates, targets, residuals), expected, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(wfd_scores(candidates, targets, regularization=0.1), distances, atol=1e-5)
    order = np.random.default_rng(1).permutation(N)
    shuffled = tempered_scores([z[order] for z in candidates], targets, residuals[:, order])
    np.testing.assert_allclose(shuffled, expected[order], rtol=1e-4, atol=1e-7)


def test_graddot_and_gradcos(ensemble):
    candidates, targets, _ = ensemble
    products = [z @ x.T for z, x in zip(candidates, targets, strict=True)]
    np.testing.assert_allclose(graddot_scores(candidates, targets), np.mean(products, axis=0), rtol=1e-4, atol=1e-4)
    norms = [np.outer(*(np.linalg.norm(r, axis=1) for r in pair)) for pair in zip(candidates, targets, strict=True)]
    cosines = [p / n for p, n in zip(products, norms, strict=True)]
    np.testing.assert_allclose(gradcos_scores(candidates, targets), np.mean(cosines, axis=0), atol=1e-6)


@pytest.mark.parametrize("aggregate", ["mean", "per_checkpoint"])
def test_wfd_is_minus_the_distance_between_whitened_unit_rows(ensemble, aggregate):
    candidates, targets, _ = ensemble
    scores = wfd_scores(candidates, targets, regularization=0.1, aggregate=aggregate)
    if aggregate == "mean":
        candidates, targets = [np.mean(candidates, axis=0)], [np.mean(targets, axis=0)]
    squared = []
    for z, x in zip(candidates, targets, strict=True):
        white_z, white_x = tarot.whiten(z, x, "zca", regularization=0.1, norm=None)
        squared.append(((white_z[:, None] - white_x[None]) ** 2).sum(-1))
    np.testing.assert_allclose(scores, -np.sqrt(np.mean(squared, axis=0)), atol=1e-4)


def test_wfd_puts_a_zero_gradient_last_and_a_copy_at_distance_zero(ensemble):
    z, x = ensemble[0][0].copy(), ensemble[1][0].copy()
    z[3], z[4] = 0, x[2]
    scores = wfd_scores(z, x)
    assert (scores[3] == -2).all() and scores[4, 2] == 0


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (lambda z, x, q: trak_scores(z, x[:2], q), "models"),
        (lambda z, x, q: trak_scores(z[0], x[0][:, :2], q[0]), "dimensions"),
        (lambda z, x, q: trak_scores([z[0], z[1][:5]], x[:2], q[:2]), "candidates"),
        (lambda z, x, q: trak_scores(z, x, q[:, :-1]), "residuals"),
        (lambda z, x, q: trak_scores(z, x, np.full_like(q, np.nan)), "finite"),
        (lambda z, x, q: trak_scores(z, x, q, regularization=-1), "regularization"),
        (lambda z, x, q: tempered_scores(z, x, q, beta=2), "beta"),
        (lambda z, x, q: tempered_scores(z, x, q, covariance="all"), "covariance"),
        (lambda z, x, q: wfd_scores(z, x, aggregate="sum"), "aggregate"),
        (lambda z, x, q: graddot_scores(np.full_like(z[0], np.inf), x[0]), "finite"),
    ],
)
def test_bad_input_is_named(ensemble, estimator, message):
    with pytest.raises(InputError, match=message):
        estimator(*ensemble)


def slow_wfd(candidates, targets, *, whitened, normalised, ridge=0.1):
    """Table 2's distances, pair by pair in float64: centre, whiten by the inverse root, normalise, as far as asked."""
    squared = np.zeros((len(candidates[0]), len(targets[0])))
    for z, x in zip(candidates, targets, strict=True):
        z, x = z.astype(np.float64), x.astype(np.float64)
        if whitened:
            both = np.concatenate([z, x])
            mean = both.mean(axis=0)
            covariance = sum(np.outer(row - mean, row - mean) for row in both) / len(both)
            covariance += ridge * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
            values, vectors = np.linalg.eigh(covariance)
            root = vectors @ np.diag(values**-0.5) @ vectors.T
            z, x = (z - mean) @ root, (x - mean) @ root
        for i, one in enumerate(z):
            for j, other in enumerate(x):
                a, b = (one / np.linalg.norm(one), other / np.linalg.norm(other)) if normalised else (one, other)
                squared[i, j] += np.sum((a - b) ** 2) / len(candidates)
    return -np.sqrt(squared)


@pytest.mark.parametrize("whitening", ["cholesky", "zca", None])
@pytest.mark.parametrize("normalised", [True, False])
def test_wfd_without_its_parts_is_the_slow_one(ensemble, whitening, normalised):
    candidates, targets, _ = ensemble
    scores = wfd_scores(candidates, targets, whitening=whitening, normalise=normalised, regularization=0.1)
    expected = slow_wfd(candidates, targets, whitened=whitening is not None, normalised=normalised)
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("whitening", ["cholesky", None])
def test_a_zero_gradient_is_as_far_as_any_other_where_distances_have_no_bound(ensemble, whitening):
    candidates, targets, _ = ensemble
    candidates = [z.copy() for z in candidates]
    for z in candidates:
        z[3] = 0
    scores = wfd_scores(candidates, targets, whitening=whitening, normalise=False, regularization=0.1)
    rest = np.delete(scores, 3, axis=0)
    assert (scores[3] == rest.min()).all() and np.isfinite(scores).all()
    assert (wfd_scores(candidates, targets, whitening=whitening, regularization=0.1)[3] == -2).all()
