"""TSDS against the linear programme it solves, its closed form, and a slow transcription of its events."""

import heapq
import warnings

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

import tarot
from tarot.common.errors import InputError
from tarot.selection.problem import SelectionProblem
from tarot.selectors.tsds import Tsds, kernel_density, tsds_probabilities
from tarot.space.content import content_order


def unit(n, d=5, seed=0, duplicates=0):
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(n, d))
    if duplicates:
        rows[:duplicates] = rows[0] + 0.05 * generator.normal(size=(duplicates, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def table(c, t, k=None):
    """Sorted distances and indices [M, K] by brute force."""
    distance = np.linalg.norm(t[:, None].astype(float) - c[None].astype(float), axis=2)
    index = np.argsort(distance, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distance, index, axis=1), index


def slow_density(c, sigma, k):
    squared = ((c[:, None].astype(float) - c[None].astype(float)) ** 2).sum(2)
    return np.array([sum(max(0.0, 1 - x / sigma**2) for x in sorted(row)[:k]) for row in squared])


def slow_events(d, index, rho, n, alpha, C):
    """theory.md 4, event by event."""
    m, k = d.shape
    heap = [(1 / rho[j, 0], 1, j) for j in range(m)]
    heapq.heapify(heap)
    cost, last, s = [0.0] * m, [0] * m, None
    while heap:
        s, count, j = heapq.heappop(heap)
        if count == k:  # no neighbour is left to send mass to
            break
        full = sum(1 / rho[j, x] for x in range(count))
        cost[j] = d[j, count] * full - sum(d[j, x] / rho[j, x] for x in range(count))
        if alpha / C * sum(cost) >= (1 - alpha) * m:
            break
        last[j] = count
        heapq.heappush(heap, (full + 1 / rho[j, count], count + 1, j))
    p = np.zeros(n)
    for j in range(m):
        for x in range(last[j]):
            p[index[j, x]] += 1 / (m * s * rho[j, x])
        p[index[j, last[j]]] += 1 / m - sum(1 / (m * s * rho[j, x]) for x in range(last[j]))
    return p


def programme(distance, rho, alpha, C, two_sided=False, marginal=None):
    """Least objective over all couplings [M, N]; of those with this candidate marginal, where one is given."""
    m, n = distance.shape
    pairs = m * n
    objective = np.append(alpha / C * distance.ravel(), (1 - alpha) * m)
    centre = 1 / pairs if two_sided else 0.0
    upper = np.hstack([np.diag(np.tile(rho, m)), -np.ones((pairs, 1))])
    limits = np.full(pairs, centre)
    if two_sided:
        upper = np.vstack([upper, np.hstack([-np.eye(pairs), -np.ones((pairs, 1))])])
        limits = np.append(limits, np.full(pairs, -centre))
    equal = np.hstack([np.kron(np.eye(m), np.ones(n)), np.zeros((m, 1))])
    right = np.full(m, 1 / m)
    if marginal is not None:
        equal = np.vstack([equal, np.hstack([np.tile(np.eye(n), m), np.zeros((n, 1))])])
        right = np.append(right, marginal)
    result = linprog(objective, upper, limits, equal, right)
    assert result.success, result.message
    return result.fun


CASES = [(alpha, C, seed) for alpha in (0.05, 0.3, 0.5, 0.8, 0.97) for C in (0.3, 5.0) for seed in (0, 1)]


@pytest.mark.parametrize(("alpha", "C", "seed"), CASES)
def test_the_measure_is_an_optimum_of_the_linear_programme(alpha, C, seed):
    c, t = unit(12, 3, seed, duplicates=5), unit(3, 3, seed + 10)
    d, index = table(c, t)
    whole = np.empty_like(d)
    np.put_along_axis(whole, index, d, axis=1)
    for rho in (np.ones(12), slow_density(c, 0.75, 12)):
        p = tsds_probabilities(d, index, rho[index], 12, alpha, C)
        assert programme(whole, rho, alpha, C, marginal=p) == pytest.approx(programme(whole, rho, alpha, C), abs=1e-9)


@pytest.mark.parametrize(("alpha", "C"), [(0.5, 0.3), (0.8, 0.3), (0.5, 1.0), (0.9, 5.0)])
def test_uniform_is_an_optimum_of_the_published_two_sided_objective(alpha, C):
    c, t = unit(12, 3, 2), unit(2, 3, 3)
    d, index = table(c, t)
    whole = np.empty_like(d)
    np.put_along_axis(whole, index, d, axis=1)
    p = tsds_probabilities(d, index, None, 12, alpha, C)
    assert p.max() >= 2 / 12 / 2  # 1 / (M s) with s <= N / 2: no pair is below its share 1 / (M N) by more than the cap
    best = programme(whole, np.ones(12), alpha, C, two_sided=True)
    assert programme(whole, np.ones(12), alpha, C, two_sided=True, marginal=p) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize(("alpha", "C", "seed"), CASES)
def test_equals_the_event_algorithm(alpha, C, seed):
    c, t = unit(60, 4, seed, duplicates=20), unit(7, 4, seed + 10)
    d, index = table(c, t, 30)
    rho = slow_density(c, 0.75, 10)[index]
    expected = slow_events(d, index, rho, 60, alpha, C)
    assert tsds_probabilities(d, index, rho, 60, alpha, C) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("alpha", "C", "seed"), CASES)
def test_equals_the_closed_form_where_the_density_is_uniform(alpha, C, seed):
    c, t = unit(40, 4, seed), unit(6, 4, seed + 10)
    d, index = table(c, t)
    s = next(
        s
        for s in range(1, 41)
        if s == 40 or alpha / C * sum(d[j, s] - d[j, x] for j in range(6) for x in range(s)) >= (1 - alpha) * 6
    )
    expected = np.bincount(index[:, :s].ravel(), minlength=40) / (6 * s)
    assert tsds_probabilities(d, index, None, 40, alpha, C) == pytest.approx(expected, abs=1e-12)
    assert tsds_probabilities(d, index, np.ones_like(d), 40, alpha, C) == pytest.approx(expected, abs=1e-12)
    # A density that is uniform, but not 1, multiplies the second term of the objective, as a larger C does.
    doubled = tsds_probabilities(d, index, np.full_like(d, 2.0), 40, alpha, C)
    assert doubled == pytest.approx(tsds_probabilities(d, index, None, 40, alpha, 2 * C), abs=1e-12)


def test_alpha_one_takes_the_nearest_and_sums_to_one():
    # One crowded and one lonely nearest neighbour: the released code gives 1.0975 in such a case.
    d, index = np.array([[0.1, 0.5, 0.6], [0.2, 0.3, 0.9]]), np.array([[0, 1, 2], [3, 1, 2]])
    rho = np.array([[1.5, 1.0, 1.0], [1.2, 1.0, 1.0]])
    p = tsds_probabilities(d, index, rho, 4, 1.0, 5.0)
    assert p.sum() == pytest.approx(1)
    assert p[3] <= 0.5 + 1e-12
    # s = 1 / 1.5, so target 0 is filled by candidate 0, and target 1 (1 / 1.2 > s) is capped at 1 / M
    assert p == pytest.approx([0.5, 0, 0, 0.5])


def test_alpha_zero_uses_every_neighbour():
    c, t = unit(20, 4, 0, duplicates=8), unit(3, 4, 1)
    problem = SelectionProblem((c,), (t,))
    assert Tsds(alpha=0.0, kde=False, max_k=20).values(problem) == pytest.approx(np.full(20, 1 / 20))
    rho = slow_density(c, 0.75, 20)
    assert Tsds(alpha=0.0, max_k=20, kde_k=20).values(problem) == pytest.approx(1 / rho / (1 / rho).sum(), rel=1e-5)


def test_duplicates_share_one_candidates_mass():
    base = unit(30, 6, 0)
    c = np.concatenate([base, np.repeat(base[:1], 9, axis=0)])  # candidate 0 stands there ten times
    t = unit(4, 6, 1)
    options = {"sigma": 0.1, "kde_k": 39, "alpha": 0.3}
    once = Tsds(max_k=30, **options).values(SelectionProblem((base,), (t,)))
    ten = Tsds(max_k=39, **options).values(SelectionProblem((c,), (t,)))
    copies = np.append(0, np.arange(30, 39))
    assert ten[copies].sum() == pytest.approx(once[0], abs=1e-6)
    assert ten[1:30] == pytest.approx(once[1:], abs=1e-6)


@pytest.mark.parametrize("sigma", [0.03, 0.75, 3.0])
@pytest.mark.parametrize("k", [1, 4, 50])
def test_density(sigma, k):
    c = unit(50, 4, 3, duplicates=20)
    density = kernel_density(torch.from_numpy(c), sigma, k)
    assert density == pytest.approx(slow_density(c, sigma, k), rel=1e-4)
    assert (density >= 1).all()


def test_density_does_not_depend_on_blocks(monkeypatch):
    c = torch.from_numpy(unit(50, 4, 3, duplicates=20))
    whole = kernel_density(c, 0.75, 10)
    monkeypatch.setattr("tarot.selectors.tsds.KERNEL_VALUES", 120)
    assert kernel_density(c, 0.75, 10) == pytest.approx(whole, rel=1e-6)


def test_values_are_those_of_the_transcription():
    c, t = unit(200, 6, 4, duplicates=60), unit(9, 6, 5)
    d, index = table(c, t, 20)  # max_k: N // 10
    prefetched = np.unique(index)
    rho = np.zeros(200)
    rho[prefetched] = slow_density(c[prefetched], 0.75, 20)
    values = Tsds().values(SelectionProblem((3 * c,), (t,)))
    assert values == pytest.approx(slow_events(d, index, rho[index], 200, 0.5, 5.0), abs=1e-6)
    assert values.dtype == np.float64
    assert values.sum() == pytest.approx(1)


@pytest.mark.parametrize("kde", [True, False])
def test_permuting_candidates_and_targets_permutes_the_values(kde):
    c, t = unit(80, 5, 6, duplicates=20), unit(6, 5, 7)
    generator = np.random.default_rng(0)
    p, q = generator.permutation(80), generator.permutation(6)
    selector = Tsds(kde=kde, max_k=40, alpha=0.7)
    values = selector.values(SelectionProblem((c,), (t,)))
    assert selector.values(SelectionProblem((c[p],), (t[q],))) == pytest.approx(values[p], rel=1e-5)


def test_selects_draws_with_counts_as_weights():
    c, t = unit(100, 5), unit(4, 5, 1)
    problem = SelectionProblem((c,), (t,))
    chosen = Tsds(size=60, seed=3).select(problem)
    assert chosen.weights.sum() == 60
    assert (chosen.weights >= 1).all()
    assert len(chosen) < 60
    assert (Tsds().values(problem)[chosen.indices] > 0).all()
    order = content_order([c], "candidates")
    expected = np.random.default_rng(3).multinomial(60, Tsds().values(problem)[order])
    assert np.array_equal(expected[np.argsort(order)[chosen.indices]], chosen.weights)
    again, other = Tsds(size=60, seed=3).select(problem), Tsds(size=60, seed=4).select(problem)
    assert np.array_equal(again.indices, chosen.indices)
    assert np.array_equal(again.weights, chosen.weights)
    assert not (np.array_equal(other.indices, chosen.indices) and np.array_equal(other.weights, chosen.weights))


def test_neighbours_are_clamped_and_it_is_said():
    c, t = unit(30), unit(4, seed=1)
    with pytest.warns(UserWarning, match="max_k 5000 is clamped to the 30 candidates"):
        clamped = Tsds(max_k=5000).values(SelectionProblem((c,), (t,)))
    assert clamped == pytest.approx(Tsds(max_k=30).values(SelectionProblem((c,), (t,))))
    c[20:] = 0
    with pytest.warns(UserWarning, match="max_k 25 is clamped to the 20 candidates with features"):
        values = Tsds(max_k=25).values(SelectionProblem((c,), (t,)))
    assert (values[20:] == 0).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Tsds().values(SelectionProblem((unit(30),), (t,)))


def test_tiny_pools():
    t = unit(3, seed=1)
    assert Tsds().values(SelectionProblem((unit(1),), (t,))) == pytest.approx([1])
    assert Tsds().values(SelectionProblem((unit(2),), (t[:1],))).sum() == pytest.approx(1)
    same = np.repeat(unit(1), 6, axis=0)
    assert Tsds(max_k=6).values(SelectionProblem((same,), (t,))) == pytest.approx(np.full(6, 1 / 6))
    with pytest.raises(InputError, match="zero"):
        Tsds().values(SelectionProblem((np.zeros((4, 5), dtype=np.float32),), (t,)))


def test_a_half_precision_store_gives_the_same_measure():
    c, t = unit(80, 8, duplicates=20), unit(5, 8, 1)
    half = c.astype(np.float16)
    values = Tsds().values(SelectionProblem((half,), (t,)))
    assert values == pytest.approx(Tsds().values(SelectionProblem((half.astype(np.float32),), (t,))))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -0.1}, "alpha must be in"),
        ({"alpha": 1.5}, "alpha must be in"),
        ({"C": 0.0}, "C must be positive"),
        ({"sigma": -1.0}, "sigma must be at least 0"),
        ({"sigma": float("nan")}, "sigma must be at least 0"),
        ({"max_k": 1}, "max_k must be at least 2"),
        ({"kde_k": 0}, "kde_k must be at least 1"),
        ({"max_k": 3.5}, "max_k must be an integer"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        Tsds(**options).values(SelectionProblem((unit(10),), (unit(3),)))


def test_a_total_is_shared_out_in_proportion_to_the_draws():
    rows = np.random.default_rng(0).normal(size=(200, 8))
    drawn = tarot.select(rows[10:], rows[:10], "tsds", size=15)
    shared = tarot.select(rows[10:], rows[:10], "tsds", size=15, total=1500)
    assert shared.indices.tolist() == drawn.indices.tolist()
    np.testing.assert_array_equal(shared.weights, 100 * drawn.weights)
