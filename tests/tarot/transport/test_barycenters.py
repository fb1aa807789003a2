"""Barycenters against what is known by hand, against POT, scikit-learn and SciPy, and against what may not matter."""

import numpy as np
import ot
import pytest
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans

import tarot
from benchmarks.barycenters import released_weighted, released_weights
from tarot import InputError
from tarot.transport import Barycenter, barycenter, barycenters, matched


def column(*values):
    return np.array(values, dtype=np.float32)[:, None]


def cloud(n=60, d=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def squared(x, y):
    return np.square(x[:, None].astype(float) - y[None].astype(float)).sum(2)


def ordered(found):
    order = np.lexsort(found.positions.T)
    return found.positions[order], found.weights[order]


# --- known by hand ---------------------------------------------------------------------------------------------------

BY_HAND = [
    ((0, 1, 2, 3, 10, 11), "uniform", (1, 8), (1 / 2, 1 / 2), 20 / 3),
    ((0, 1, 2, 3, 10, 11), "free", (1.5, 10.5), (2 / 3, 1 / 3), 11 / 12),
    ((0, 1, 2), "uniform", (1 / 3, 5 / 3), (1 / 2, 1 / 2), 2 / 9),  # rows are split
    ((0,) * 9 + (10,), "free", (0, 10), (0.9, 0.1), 0),
    ((0,) * 9 + (10,), "uniform", (0, 2), (1 / 2, 1 / 2), 8),
]


@pytest.mark.parametrize("rows, weights, positions, shares, cost", BY_HAND)
def test_D01_D04_small_measures_have_the_barycenter_that_is_worked_out_by_hand(rows, weights, positions, shares, cost):
    found = barycenter(column(*rows), 2, weights)
    x, w = ordered(found)
    np.testing.assert_allclose(x[:, 0], positions, atol=1e-12)
    np.testing.assert_allclose(w, shares, atol=1e-12)
    assert found.cost == pytest.approx(cost, abs=1e-12)
    assert found.converged


@pytest.mark.parametrize("weights", ["uniform", "free"])
def test_D03_one_atom_is_the_mean_and_as_many_as_rows_are_the_rows(weights):
    rows = cloud(9)
    one = barycenter(rows, 1, weights)
    np.testing.assert_allclose(one.positions[0], rows.astype(float).mean(0), atol=1e-12)
    assert one.cost == pytest.approx(np.trace(np.cov(rows.T.astype(float), bias=True)), abs=1e-12)
    every = barycenter(rows, 9, weights)
    np.testing.assert_allclose(ordered(every)[0], rows[np.lexsort(rows.T)], atol=1e-12)
    np.testing.assert_allclose(every.weights, 1 / 9, atol=1e-12)
    assert every.cost == pytest.approx(0, abs=1e-12)


def test_in_one_dimension_atoms_are_means_of_quantile_bins_after_one_step():
    rows = cloud(24, 1)
    bins = np.sort(rows[:, 0].astype(float)).reshape(4, 6).mean(1)
    for seed in range(3):
        found = barycenter(rows, 4, starts=1, max_iterations=1, seed=seed)
        np.testing.assert_allclose(np.sort(found.positions[:, 0]), bins, atol=1e-12)


def test_D02_the_full_step_leaves_nothing_of_the_start():
    rows = cloud() + 50
    x, w = released_weighted(rows.astype(float), 4)  # .2 of the way, ten times
    np.testing.assert_allclose(w @ x / rows.mean(0), 1 - 0.8**10, atol=0.01)
    found = barycenter(rows, 4, "free")
    np.testing.assert_allclose(found.weights @ found.positions, rows.astype(float).mean(0), atol=1e-12)
    assert ot.emd2(w, np.full(60, 1 / 60), squared(x, rows)) > 10 * found.cost


def test_D03_released_weights_of_one_atom_never_change_so_that_the_first_step_is_the_last():
    rows = column(10, 10, 10)
    assert released_weighted(rows.astype(float), 1)[0].item() == pytest.approx(3.41, abs=0.005)
    assert barycenter(rows, 1, "free").positions.item() == 10


def test_D04_released_weights_of_fixed_atoms_go_to_and_fro():
    rows, atoms = column(*[0] * 9, 10), np.array([[0.0], [10.0]])
    np.testing.assert_allclose(released_weights(rows.astype(float), atoms), [0.5, 0.5], atol=1e-3)
    found = barycenter(rows, 2, "free", init=atoms)
    np.testing.assert_allclose(found.weights, [0.9, 0.1])
    assert found.cost == 0


def test_the_masses_of_cells_are_the_weights_of_least_cost_and_no_atoms_beat_the_small_eigenvalues():
    rows = cloud(40, 5)
    found = barycenter(rows, 3, "free")
    costs = squared(found.positions, rows)
    for weights in np.random.default_rng(0).dirichlet(np.ones(3), 20):
        assert ot.emd2(weights, np.full(40, 1 / 40), costs) >= found.cost
    variances = np.linalg.eigvalsh(np.cov(rows.T.astype(float), bias=True))  # ascending
    assert found.cost >= variances[: 5 - (3 - 1)].sum() > 0


# --- other implementations -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shares", [None, (0.1, 0.2, 0.3, 0.4)])
def test_given_weights_agree_with_pot_from_the_same_start(shares):
    rows, start = cloud(40), cloud(4, seed=1).astype(float)
    w = np.full(4, 1 / 4) if shares is None else np.array(shares)
    b = np.full(40, 1 / 40)
    theirs = ot.lp.free_support_barycenter([rows.astype(float)], [b], start, b=w, numItermax=500, stopThr=1e-30)
    ours = barycenter(rows, 4, "uniform" if shares is None else shares, init=start, tolerance=0)
    np.testing.assert_allclose(ours.positions, theirs, atol=1e-12)
    exact = ot.emd2(ours.weights, b, squared(ours.positions, rows))
    assert ours.cost == pytest.approx(exact, rel=1e-12)


def test_free_weights_agree_with_k_means_from_the_same_start():
    rows, start = cloud(200), cloud(6, seed=1).astype(float)
    theirs = KMeans(6, init=start, n_init=1, tol=0, algorithm="lloyd").fit(rows.astype(float))
    ours = barycenter(rows, 6, "free", init=start, tolerance=0)
    np.testing.assert_allclose(ours.positions, theirs.cluster_centers_, atol=1e-12)
    assert ours.cost == pytest.approx(theirs.inertia_ / 200, rel=1e-12)
    np.testing.assert_allclose(ours.weights, np.bincount(theirs.labels_) / 200)
    assert ours.cost == pytest.approx(ot.emd2(ours.weights, np.full(200, 1 / 200), squared(ours.positions, rows)))


def test_matching_agrees_with_the_assignment_on_the_whole_matrix():
    for seed in range(4):
        rows = cloud(50, seed=seed)
        crowded = 0.3 * cloud(12, seed=seed + 9).astype(float)  # so that several want the same row
        for found in (barycenter(rows, 12, starts=1), Barycenter(crowded, np.full(12, 1 / 12), 0.0, True, 0)):
            cost = squared(found.positions, rows)
            chosen = matched(rows, found)
            assert len(set(chosen.tolist())) == 12 and chosen.dtype == np.int64
            best = cost[linear_sum_assignment(cost)].sum()
            assert cost[np.arange(12), chosen].sum() == pytest.approx(best, rel=1e-12)
        assert best > cost.min(axis=1).sum()


def test_atoms_that_are_rows_are_matched_with_themselves():
    rows = cloud(9)
    found = barycenter(rows, 9)
    np.testing.assert_array_equal(rows[matched(rows, found)], found.positions.astype(np.float32))


# --- what changes it, and what does not ------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["uniform", "free"])
def test_order_repetition_place_and_scale(weights):
    rows = np.round(cloud(40) * 64) / 64  # so that a shift is exact in float32
    one = barycenter(rows, 5, weights)
    order = np.random.default_rng(5).permutation(40)
    for same in (rows[order], np.repeat(rows, 2, axis=0)):
        again = barycenter(same, 5, weights)
        np.testing.assert_allclose(again.positions, one.positions, rtol=0, atol=1e-12)
        np.testing.assert_allclose(again.weights, one.weights, atol=1e-12)
    assert sorted(order[matched(rows[order], one)]) == sorted(matched(rows, one))
    start = one.positions + 0.1
    here = barycenter(rows, 5, weights, init=start)
    there = barycenter(rows + 8, 5, weights, init=start + 8)
    np.testing.assert_allclose(there.positions, here.positions + 8, atol=1e-10)
    twice = barycenter(2 * rows, 5, weights, init=2 * start)
    assert twice.cost == pytest.approx(4 * here.cost, rel=1e-10)


@pytest.mark.parametrize("weights", ["uniform", "free"])
def test_masses_are_repetitions(weights):
    rows, often = cloud(20), np.arange(20) % 3
    by_mass = barycenter(rows, 4, weights, masses=often)
    repeated = barycenter(np.repeat(rows, often, axis=0), 4, weights)
    np.testing.assert_allclose(by_mass.positions, repeated.positions, atol=1e-12)
    np.testing.assert_allclose(by_mass.weights, repeated.weights, atol=1e-12)
    assert by_mass.cost == pytest.approx(repeated.cost, rel=1e-12)


def test_free_weights_never_cost_more_than_uniform_ones_from_their_solution():
    rows = cloud(80)
    uniform = barycenter(rows, 7)
    assert barycenter(rows, 7, "free", init=uniform.positions).cost <= uniform.cost


def test_the_seed_decides_and_more_starts_are_no_worse():
    rows = cloud(100)
    one = barycenter(rows, 8, "free", starts=1, seed=3)
    np.testing.assert_array_equal(barycenter(rows, 8, "free", starts=1, seed=3).positions, one.positions)
    costs = {barycenter(rows, 8, "free", starts=1, seed=seed).cost for seed in range(5)}
    assert len(costs) > 1
    assert barycenter(rows, 8, "free", starts=10, seed=3).cost <= one.cost


def test_whether_it_converged_is_said():
    rows = cloud(200)
    assert not barycenter(rows, 8, "free", starts=1, max_iterations=2).converged
    ended = barycenter(rows, 8, "free", starts=1)
    assert ended.converged and ended.iterations < 300


@pytest.mark.parametrize("weights", ["uniform", "free"])
def test_more_atoms_than_distinct_rows_coincide_and_share(weights):
    found = barycenter(column(0, 0, 0, 5), 3, weights)
    assert found.cost == pytest.approx(0 if weights == "free" else 25 * (1 / 3 - 1 / 4) * 0.75, abs=1e-9)
    assert (found.weights > 0).all() and found.weights.sum() == pytest.approx(1)


def test_an_atom_without_a_row_moves_to_the_farthest():
    found = barycenter(column(0, 1, 10, 11), 2, "free", init=[[0.5], [1000.0]])
    np.testing.assert_allclose(ordered(found)[0][:, 0], [0.5, 10.5])


def test_rows_that_do_not_fit_in_memory_give_the_same(monkeypatch):
    rows, start = cloud(300), cloud(6, seed=1).astype(float)
    whole = barycenter(rows, 6, "free", init=start, tolerance=0)
    drawn = barycenter(rows, 6, "free", starts=2)
    monkeypatch.setattr(barycenters, "WHOLE_BYTES", 0)
    streamed = barycenter(rows, 6, "free", init=start, tolerance=0)
    np.testing.assert_allclose(streamed.positions, whole.positions, atol=1e-12)
    assert streamed.cost == pytest.approx(whole.cost, rel=1e-12)
    assert barycenter(rows, 6, "free", starts=2).cost == pytest.approx(drawn.cost, rel=1e-12)


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"atoms": 0}, "atoms must be at least 1"),
        ({"starts": 0}, "starts must be at least 1"),
        ({"tolerance": -1.0}, "tolerance must be at least 0"),
        ({"weights": "sharp"}, 'weights must be "uniform", "free" or 3 positive numbers'),
        ({"weights": [1, 2]}, "weights must be one number per atom"),
        ({"weights": [1, 2, 0]}, "weights must be positive; that of atom 2 is 0"),
        ({"masses": np.ones(59)}, "masses must be one number per row"),
        ({"masses": np.arange(60) - 1.0}, "masses must be at least 0; that of row 0 is -1"),
        ({"masses": np.zeros(60)}, "masses sum to 0"),
        ({"init": np.zeros((3, 2))}, r"init must be positions of shape \(3, 3\)"),
        ({"init": np.full((3, 3), np.nan)}, "init: the position of atom 0 is not finite"),
    ],
)
def test_what_cannot_be_is_refused_by_name(arguments, message):
    with pytest.raises(InputError, match=message):
        tarot.barycenter(cloud(), **{"atoms": 3, **arguments})


def test_rows_that_are_not_finite_and_too_few_rows_are_refused():
    rows = cloud()
    rows[7, 1] = np.inf
    with pytest.raises(InputError, match="row 7"):
        tarot.barycenter(rows, 3)
    found = barycenter(cloud(), 5)
    with pytest.raises(InputError, match="5 atoms cannot be matched"):
        matched(cloud(4), found)
    with pytest.raises(InputError, match="rows have 2 dimensions and atoms 3"):
        matched(cloud(9, 2), found)
