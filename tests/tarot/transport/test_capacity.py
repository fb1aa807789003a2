"""The capacity-constrained bound against a linear program in SciPy, and against every subset there is."""

from itertools import combinations

import numpy as np
import ot
import pytest
import torch
from scipy.optimize import linprog

import tarot
from tarot.selection.problem import SelectionProblem
from tarot.space.distance import distances
from tarot.space.neighbours import nearest_unit
from tarot.space.whitening import unit_norm
from tarot.transport import capacity
from tarot.transport.capacity import solve_capacity


def unit(n, d=4, seed=0):
    return unit_norm(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)))


def mixture(n, seed, d=8, clusters=5):
    centres = torch.randn(clusters, d, generator=torch.Generator().manual_seed(77))
    generator = torch.Generator().manual_seed(seed)
    return unit_norm(
        centres[torch.randint(clusters, (n,), generator=generator)] + 0.5 * torch.randn(n, d, generator=generator)
    )


def linear_program(cost, size):
    """min <C, pi>, row sums <= 1/S, column sums = 1/M, pi >= 0, by SciPy's HiGHS."""
    n, m = cost.shape
    rows, columns = np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))
    solution = linprog(cost.ravel(), rows, np.full(n, 1 / size), columns, np.full(m, 1 / m), method="highs")
    assert solution.status == 0
    return solution.fun


def plan_of(candidates, targets, size):
    """The plan from a table that holds only as many neighbours as are asked for."""
    asked = []

    def neighbours(k):
        asked.append(k)
        return nearest_unit(candidates, targets, k)

    return solve_capacity(neighbours, len(candidates), len(targets), size), asked


def cost_of(candidates, targets):
    return distances(candidates, targets).double().numpy()


def ot_to_targets(cost):
    return ot.emd2(np.full(len(cost), 1 / len(cost)), np.full(cost.shape[1], 1 / cost.shape[1]), cost)


@pytest.mark.parametrize("size", [1, 3, 6, 7, 12, 25, 59, 60])
def test_bound_and_mass_are_the_linear_programs(size):
    candidates, targets = mixture(60, 0), mixture(6, 1)
    plan, _ = plan_of(candidates, targets, size)
    assert plan.exact
    assert plan.lower_bound == pytest.approx(linear_program(cost_of(candidates, targets), size), rel=2e-6)
    assert plan.mass.shape == (60,) and plan.mass.min() >= 0
    assert plan.mass.max() <= 1 / size + 1e-12
    assert plan.mass.sum() == pytest.approx(1)


@pytest.mark.parametrize("size", [2, 9, 40, 200])
def test_neighbours_are_added_until_the_duals_prove_the_rest_irrelevant(size, monkeypatch):
    """All targets in one spot and capacity for more than their first neighbours: the first graph cannot do."""
    monkeypatch.setattr(capacity, "FIRST_NEIGHBOURS", 2)
    candidates, targets = unit(300), unit_norm(unit(1, seed=1) + 0.05 * unit(12, seed=2))
    plan, asked = plan_of(candidates, targets, size)
    assert plan.exact and plan.k == asked[-1]
    assert asked == sorted(set(asked)) and (len(asked) > 1) == (size > 2)
    assert plan.lower_bound == pytest.approx(linear_program(cost_of(candidates, targets), size), rel=2e-6)


def test_the_proof_is_needed(monkeypatch):
    """What the first graph alone gives, as an optimum of its own arcs, is above the true bound."""
    candidates, targets = unit(300), unit_norm(unit(1, seed=1) + 0.05 * unit(12, seed=2))
    distance, index = nearest_unit(candidates, targets, 20)
    graph = capacity._graph(distance, index, 300, None)
    flow, g = capacity._solve_exactly(graph, 200)
    assert not (g <= graph.reach + 1e-9).all() and flow.sum() < 1 - 1e-6
    clipped = capacity._dual_value(graph, np.minimum(g, graph.reach), 200)
    assert clipped <= linear_program(cost_of(candidates, targets), 200)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("zero_rows", [0, 2])
def test_no_subset_at_all_is_below_the_bound(seed, zero_rows):
    """Every subset of every size; the best of a size that is a multiple of M meets the bound."""
    candidates, targets = unit(9, seed=seed), unit(3, seed=100 + seed)
    candidates[:zero_rows] = 0
    cost = cost_of(candidates, targets)
    for size in range(1, 10):
        best = min(ot_to_targets(cost[list(subset)]) for subset in combinations(range(9), size))
        bound = plan_of(candidates, targets, size)[0].lower_bound
        assert bound <= best
        if size % 3 == 0:
            assert bound == pytest.approx(best, rel=2e-6)


def test_mass_is_integral_where_size_is_a_multiple_of_the_targets():
    candidates, targets = mixture(80, 0), mixture(7, 1)
    for size in (7, 21):
        mass = plan_of(candidates, targets, size)[0].mass
        assert np.count_nonzero(mass) == size
        np.testing.assert_allclose(mass[mass > 0], 1 / size)


def test_selecting_everything_leaves_no_choice():
    candidates, targets = mixture(30, 0), mixture(6, 1)
    bound = plan_of(candidates, targets, 30)[0].lower_bound
    assert bound == pytest.approx(ot_to_targets(cost_of(candidates, targets)), rel=2e-6)


@pytest.mark.parametrize("size", [2, 5, 6, 9, 12])
def test_candidates_with_zero_features_count_in_the_bound(size):
    """Five usable candidates of twelve: a zero row is at distance 1 of every unit vector, and may be needed."""
    candidates, targets = unit(12), unit(3, seed=1)
    candidates[5:] = 0
    plan, _ = plan_of(candidates, targets, size)
    assert plan.exact
    assert plan.lower_bound == pytest.approx(linear_program(cost_of(candidates, targets), size), rel=2e-6)
    assert (plan.mass[5:] == 0).all()


def test_a_zero_row_nearer_than_every_candidate_lowers_the_bound():
    """Candidates opposite to the targets are at distance 2, a zero row at 1."""
    targets = unit(1).repeat(4, 1)
    candidates = torch.cat([-targets, torch.zeros(4, 4)])
    assert plan_of(candidates, targets, 4)[0].lower_bound == pytest.approx(1, rel=2e-6)


@pytest.mark.parametrize("size", [5, 12, 40, 150])
def test_the_entropic_fallback_is_a_bound_close_below_the_exact_one(size, monkeypatch):
    candidates, targets = mixture(400, 0), mixture(10, 1)
    optimum = linear_program(cost_of(candidates, targets), size)
    exactly = plan_of(candidates, targets, size)[0]
    monkeypatch.setattr(capacity, "EXACT_ARCS", 50)
    plan, asked = plan_of(candidates, targets, size)
    assert not plan.exact and len(asked) == 1
    assert 0.97 * optimum <= plan.lower_bound <= optimum
    assert plan.mass.max() <= 1 / size * (1 + 1e-9) and plan.mass.sum() == pytest.approx(1, abs=0.02)
    shared = np.intersect1d(np.argsort(-plan.mass)[:size], np.flatnonzero(exactly.mass))
    assert len(shared) >= 0.9 * size


def test_the_fallback_stays_a_bound_where_its_graph_is_too_narrow(monkeypatch):
    """Prices above a target's reach would take the candidates left out for farther than they are."""
    monkeypatch.setattr(capacity, "FIRST_NEIGHBOURS", 2)
    monkeypatch.setattr(capacity, "EXACT_ARCS", 1)
    candidates, targets = unit(300), unit_norm(unit(1, seed=1) + 0.05 * unit(12, seed=2))
    for size in (9, 40, 200):
        bound = plan_of(candidates, targets, size)[0].lower_bound
        assert bound <= linear_program(cost_of(candidates, targets), size)


def test_the_fallback_bounds_every_subset_with_zero_rows_too(monkeypatch):
    monkeypatch.setattr(capacity, "EXACT_ARCS", 1)
    for seed in range(3):
        candidates, targets = unit(7, seed=seed), unit(3, seed=50 + seed)
        candidates[0] = 0
        cost = cost_of(candidates, targets)
        for size in range(1, 8):
            best = min(ot_to_targets(cost[list(subset)]) for subset in combinations(range(7), size))
            assert plan_of(candidates, targets, size)[0].lower_bound <= best


def test_any_prices_give_a_bound():
    """`_dual_value` is below the optimum for every g within reach: that is what makes the bound certified."""
    candidates, targets = mixture(50, 0), mixture(6, 1)
    optimum = linear_program(cost_of(candidates, targets), 9)
    graph = capacity._graph(*nearest_unit(candidates, targets, 20), 50, None)
    generator = np.random.default_rng(0)
    for _ in range(200):
        g = np.minimum(generator.normal(scale=0.5, size=6) + 0.5, graph.reach)
        assert capacity._dual_value(graph, g, 9) <= optimum


def test_the_bound_does_not_depend_on_the_order_of_rows():
    candidates, targets = mixture(60, 0), mixture(6, 1)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(3))
    one, other = plan_of(candidates, targets, 12)[0], plan_of(candidates[order], targets.flip(0), 12)[0]
    assert other.lower_bound == pytest.approx(one.lower_bound, rel=1e-6)
    np.testing.assert_allclose(other.mass, one.mass[order.numpy()], atol=1e-9)


def test_the_bound_falls_with_a_richer_pool_and_rises_with_the_size():
    candidates, targets = mixture(60, 0), mixture(6, 1)
    by_size = [plan_of(candidates, targets, size)[0].lower_bound for size in (1, 4, 6, 15, 30, 60)]
    assert by_size == sorted(by_size)
    assert plan_of(candidates[:40], targets, 10)[0].lower_bound >= plan_of(candidates, targets, 10)[0].lower_bound


@pytest.mark.parametrize("fallback", [False, True])
def test_a_problem_asks_its_neighbours(fallback, monkeypatch):
    """Through the public way: any selector's lower_bound is at most its distance and is the program's optimum."""
    if fallback:
        monkeypatch.setattr(capacity, "EXACT_ARCS", 50)
    candidates, targets = mixture(120, 0), mixture(8, 1)
    optimum = linear_program(cost_of(candidates, targets), 20)
    for selector in ("tarot_fixed", "tarot_exact", "random"):
        s = tarot.select(candidates, targets, selector, size=20, whitening=None)
        assert s.lower_bound == pytest.approx(optimum, rel=0.03 if fallback else 2e-6)
        assert s.lower_bound <= optimum and s.lower_bound <= s.ot_distance
    assert SelectionProblem((candidates,), (targets,)).capacity_plan(20).exact is not fallback
