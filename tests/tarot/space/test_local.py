import numpy as np
import pytest
import torch

import tarot
import tarot.space.local
from tarot import InputError
from tarot.space import fit_whitener, unit_norm
from tarot.space.content import content_sample
from tarot.space.covariance import inverse_root, oracle_ridge, ridged
from tarot.space.local import local_covariance


def clusters(n=600, m=60, d=24, groups=6, noise=1.0, seed=0):
    """Candidates [n, d], targets [m, d] of two of the groups, and the candidates' groups [n]."""
    generator = np.random.default_rng(seed)
    centres = 3 * generator.normal(size=(groups, d))
    group = generator.integers(0, groups, n)
    sides = [centres[g] + noise * generator.normal(size=(len(g), d)) for g in (group, generator.integers(0, 2, m))]
    return sides[0].astype(np.float32), sides[1].astype(np.float32), group


def by_loops(rows, neighbours=5):
    """The definition, pair by pair, with the second search in the space that the first found."""
    rows = rows.double()

    def scatter(compared):
        total = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
        for i in range(len(rows)):
            cosine = compared @ compared[i]
            cosine[i] = -2
            for j in cosine.argsort(descending=True)[:neighbours]:
                total += torch.outer(rows[i] - rows[j], rows[i] - rows[j])
        return total / (2 * neighbours * len(rows))

    first = scatter(unit_norm(rows))
    root = inverse_root(ridged(first, oracle_ridge(first, len(rows))), "cholesky")
    return scatter(unit_norm((rows - rows.mean(dim=0)) @ root))


def test_is_the_mean_over_near_neighbours():
    rows = unit_norm(torch.from_numpy(clusters(n=90, d=7)[0]))
    torch.testing.assert_close(local_covariance(rows), by_loops(rows), rtol=1e-9, atol=1e-12)


def test_blocks_of_the_search_change_nothing(monkeypatch):
    rows = unit_norm(torch.from_numpy(clusters(n=90, d=7)[0]))
    expected = local_covariance(rows)
    monkeypatch.setattr(tarot.space.local, "SIMILARITIES", 7 * 90)
    torch.testing.assert_close(local_covariance(rows), expected, rtol=1e-9, atol=1e-12)


def test_finds_what_varies_within_groups_without_knowing_them():
    """Between the groups there is 30 times the variance; near neighbours see none of it."""
    candidates, _, group = clusters(n=2000)
    centres = np.stack([candidates[group == g].mean(axis=0) for g in range(6)])
    across = torch.from_numpy(centres - centres.mean(axis=0)).double()
    local = local_covariance(torch.from_numpy(candidates))
    pooled = torch.cov(torch.from_numpy(candidates).double().T)
    along = [float(((across @ c) * across).sum() / across.square().sum()) for c in (local, pooled)]
    mean = [float(c.diagonal().mean()) for c in (local, pooled)]
    assert along[0] / mean[0] < 1.3 and along[1] / mean[1] > 3


def test_oracle_ridge_is_as_good_as_knowing_the_covariance():
    """The mean squared error of the shrunk covariance is within 5% of the least of any shrinkage, or 1% of none."""
    generator = np.random.default_rng(0)
    for variances in (np.ones(20), np.geomspace(1, 30, 20), np.r_[np.full(2, 50.0), np.ones(18)]):
        true = torch.diag(torch.from_numpy(variances))
        errors = {}
        for _ in range(30):
            rows = torch.from_numpy(generator.normal(size=(60, 20)) * np.sqrt(variances))
            covariance = rows.T @ rows / 60
            ridges = {"oracle": oracle_ridge(covariance, 60), **{s: s / (1 - s) for s in np.linspace(0, 0.99, 100)}}
            for name, ridge in ridges.items():
                shrunk = ridged(covariance, ridge) / (1 + ridge)
                errors[name] = errors.get(name, 0) + float((shrunk - true).square().sum())
        found = errors.pop("oracle")
        assert found < 1.05 * min(errors.values()) + 0.01 * errors[0]


def test_a_flat_spectrum_is_left_alone_and_a_steep_one_is_whitened():
    generator = np.random.default_rng(0)
    flat = torch.from_numpy(generator.normal(size=(300, 40)))
    steep = flat * torch.from_numpy(np.geomspace(1, 100, 40))
    ridges = [oracle_ridge(torch.cov(rows.T), 300) for rows in (flat, steep)]
    assert ridges[0] > 10 and ridges[1] < 0.05


def test_clusters_stay_apart():
    """What whitening by the covariance of all rows does to them, and this does not."""
    candidates, targets, group = clusters(n=2000, m=100, d=128, groups=20, noise=3.0)
    share = {}
    for whitening in ("local", "chosen", "paper", None):
        chosen = tarot.select(candidates, targets, "tarot_fixed", size=150, whitening=whitening).indices
        share[whitening] = np.isin(group[chosen], [0, 1]).mean()
    assert share["local"] > 0.97 * share[None] and share["chosen"] > 0.97 * share[None]
    assert share["paper"] < 0.8 * share[None]


def test_the_order_of_rows_and_duplicates_decide_nothing(monkeypatch):
    monkeypatch.setattr(tarot.space.local, "SAMPLE", 200)  # of 660
    candidates, targets, _ = clusters()
    generator = np.random.default_rng(1)
    expected = fit_whitener(candidates, targets, "local", None, norm="unit")
    order, other = generator.permutation(600), generator.permutation(60)
    permuted = fit_whitener(candidates[order], targets[other], "local", None, norm="unit")
    assert permuted.regularization == pytest.approx(expected.regularization, rel=1e-9)
    torch.testing.assert_close(permuted.matrix, expected.matrix, rtol=1e-8, atol=1e-10)
    twice = fit_whitener(np.concatenate([candidates, candidates[:300]]), targets, "local", None, norm="unit")
    torch.testing.assert_close(twice.matrix, expected.matrix, rtol=1e-8, atol=1e-10)


def test_a_sample_by_content_is_of_rows_not_of_places():
    candidates, _, _ = clusters()
    order = np.random.default_rng(1).permutation(600)
    drawn = content_sample(candidates, 50, "candidates")
    assert len(np.unique(drawn)) == 50
    assert set(order[content_sample(candidates[order], 50, "candidates")]) == set(drawn)
    everything = content_sample(candidates, 600, "candidates")
    np.testing.assert_array_equal(np.sort(everything), np.arange(600))
    np.testing.assert_array_equal(order[content_sample(candidates[order], 600, "candidates")], everything)


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_fewer_rows_than_neighbours(n):
    rows = torch.from_numpy(clusters(n=n, d=4)[0])
    covariance = local_covariance(rows)
    assert covariance.shape == (4, 4) and (torch.linalg.eigvalsh(covariance) > -1e-9).all()


def test_rows_that_do_not_vary_are_refused():
    with pytest.raises(InputError, match="do not vary: all their non-zero rows point the same way"):
        tarot.select(np.ones((9, 3)) * np.arange(1, 10)[:, None], np.ones((2, 3)), "tarot_fixed", size=3)
