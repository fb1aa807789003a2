"""Transport against POT: its network simplex, and its own log-domain Sinkhorn run to convergence."""

import math

import numpy as np
import ot
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import spearmanr

import tarot
from tarot.common.errors import InputError
from tarot.space.distance import distances
from tarot.space.whitening import unit_norm
from tarot.transport import costs
from tarot.transport import exact as simplex
from tarot.transport import solve as transport
from tarot.transport.costs import StreamedCost
from tarot.transport.entropic import Entropic, bracket, sinkhorn
from tarot.transport.exact import solve_exact
from tarot.transport.solve import calibrated, entropic_potentials, potentials


def cloud(n, d=5, seed=0, shift=0.0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32) + np.float32(shift)


def mixture(n, d=16, clusters=6, seed=0):
    """Unit-norm rows around `clusters` common centres, float32 [n, d]: what whitened features look like."""
    centres = np.random.default_rng(99).normal(size=(clusters, d))
    generator = np.random.default_rng(seed)
    rows = centres[generator.integers(0, clusters, n)] + 0.6 * generator.normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def cost_of(x, y):
    """||x - y|| in float64 by POT's own function."""
    return ot.dist(x.astype(np.float64), y.astype(np.float64), metric="euclidean")


def pot(x, y):
    """OT between uniform measures by POT's network simplex on the whole cost."""
    return ot.emd2(np.full(len(x), 1 / len(x)), np.full(len(y), 1 / len(y)), cost_of(x, y), numItermax=10**7)


def quick_logsumexp(x, axis):
    """SciPy's takes most of its time around the sum, where there are as few numbers as here."""
    largest = x.max(axis, keepdims=True)
    return np.log(np.exp(x - largest).sum(axis)) + largest.squeeze(axis)


def converged(cost, epsilon):
    """Newton's method on the concave semi-dual, annealed: f, g and OT_eps in float64, without any Sinkhorn step."""
    (n, m), last = cost.shape, {}

    def at(g, eps):
        """f and the coupling; the optimizer asks for a value, a gradient and a Hessian of one g."""
        if last.get("of") != (g.tobytes(), eps):
            f = -eps * (quick_logsumexp((g - cost) / eps, axis=1) - np.log(m))
            last["is"] = f, np.exp((f[:, None] + g - cost) / eps) / (n * m)
            last["of"] = g.tobytes(), eps
        return last["is"]

    def hessian(g, eps):
        _, p = at(g, eps)
        return (np.diag(p.sum(0)) - n * p.T @ p) / eps

    g, halvings = np.zeros(m), max(0, math.ceil(math.log2(cost.max() / epsilon)))
    for eps in epsilon * 2.0 ** np.arange(halvings, -1, -1):
        g = minimize(
            lambda g, eps=eps: -g.mean() - at(g, eps)[0].mean(),
            g,
            jac=lambda g, eps=eps: at(g, eps)[1].sum(0) - 1 / m,
            hess=lambda g, eps=eps: hessian(g, eps),
            method="trust-exact",
            options={"gtol": 1e-9, "maxiter": 2000},
        ).x
    f, coupling = at(g, epsilon)
    assert abs(coupling.sum(0) - 1 / m).sum() < 1e-7, "the oracle did not converge"
    return f, g, f.mean() + g.mean()


def row_error(cost, solution):
    """L1 distance of the coupling's row marginal from uniform, and of its column marginal, from the definition."""
    n, m = cost.shape
    coupling = np.exp((solution.f[:, None] + solution.g - cost) / solution.epsilon) / (n * m)
    return abs(coupling.sum(1) - 1 / n).sum(), abs(coupling.sum(0) - 1 / m).sum()


# --- exact -----------------------------------------------------------------------------------------------------------

SHAPES = [(1, 1), (1, 7), (7, 1), (40, 40), (30, 90), (90, 30), (250, 200), (210, 700), (900, 60)]


@pytest.mark.parametrize(("n", "m"), SHAPES)
def test_exact_is_pots_network_simplex(n, m):
    x, y = mixture(n), mixture(m, seed=1)
    assert tarot.ot_distance(x, y) == pytest.approx(pot(x, y), abs=1e-6)


def test_the_shapes_above_reach_the_sparse_solver():
    assert sum(n * m > simplex.DENSE_SIMPLEX_PAIRS for n, m in SHAPES) >= 3


@pytest.mark.parametrize("case", ["unnormalised", "ties", "duplicates", "grid", "one point", "shifted apart"])
@pytest.mark.parametrize("sparse", [False, True])
def test_exact_on_degenerate_problems(case, sparse, monkeypatch):
    """Every cost equal, many equal costs, rows that are copies: column generation must neither cycle nor stop early."""
    x, y = {
        "unnormalised": (1000 * cloud(60), 1000 * cloud(45, seed=1)),
        "ties": (np.eye(60, dtype=np.float32), -np.eye(60, dtype=np.float32)[:40]),
        "duplicates": (np.repeat(cloud(6), 11, axis=0), np.repeat(cloud(6), 9, axis=0)),
        "grid": (np.indices((8, 8)).reshape(2, -1).T.astype(np.float32), np.indices((5, 9)).reshape(2, -1).T + 2.0),
        "one point": (np.ones((50, 3), np.float32), np.ones((20, 3), np.float32)),
        "shifted apart": (cloud(80), cloud(30, seed=1, shift=50.0)),
    }[case]
    if sparse:
        monkeypatch.setattr(simplex, "DENSE_SIMPLEX_PAIRS", 0)
    expected = pot(x, y)
    assert tarot.ot_distance(x, y) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("marginals", ["uniform", "given"])
def test_the_plan_proves_itself(sparse, marginals, monkeypatch):
    """Feasible coupling, feasible duals, equal values, and mass only where f + g = C."""
    monkeypatch.setattr(simplex, "DENSE_SIMPLEX_PAIRS", 0 if sparse else 10**9)
    x, y = mixture(120), mixture(70, seed=1)
    a = b = None
    if marginals == "given":
        a, b = (np.random.default_rng(s).dirichlet(np.ones(k)) for s, k in ((0, 120), (1, 70)))
    cost = distances(torch.from_numpy(x), torch.from_numpy(y))
    plan = solve_exact(cost, a, b)
    a, b = np.full(120, 1 / 120) if a is None else a, np.full(70, 1 / 70) if b is None else b
    coupling, c = plan.coupling.toarray(), cost.double().numpy()
    np.testing.assert_allclose(coupling.sum(1), a, atol=1e-12)
    np.testing.assert_allclose(coupling.sum(0), b, atol=1e-12)
    assert coupling.min() >= 0
    slack = c - plan.f[:, None] - plan.g
    assert slack.min() > -3e-6
    assert abs(slack[coupling > 1e-12]).max() < 1e-9
    assert plan.value == pytest.approx((coupling * c).sum(), abs=1e-9)
    assert a @ plan.f + b @ plan.g == pytest.approx(plan.value, abs=1e-9)
    assert plan.value == pytest.approx(ot.emd2(a, b, c), abs=1e-6)


@pytest.mark.parametrize("hint", ["good", "zero", "noise", "absurd"])
def test_a_hint_changes_the_way_but_not_the_value(hint, monkeypatch):
    monkeypatch.setattr(simplex, "DENSE_SIMPLEX_PAIRS", 0)
    x, y = mixture(150), mixture(60, seed=1)
    cost = distances(torch.from_numpy(x), torch.from_numpy(y))
    g = {
        "good": solve_exact(cost).g,
        "zero": np.zeros(60),
        "noise": np.random.default_rng(0).normal(size=60),
        "absurd": np.r_[1e3, np.zeros(59)],
    }[hint]
    assert solve_exact(cost, g=g).value == pytest.approx(pot(x, y), abs=1e-6)


def test_the_certificate_makes_it_exact(monkeypatch):
    monkeypatch.setattr(simplex, "DENSE_SIMPLEX_PAIRS", 0)
    monkeypatch.setattr(simplex, "ARCS_PER_NODE", 1)
    x, y = mixture(150), mixture(60, seed=1)
    cost = distances(torch.from_numpy(x), torch.from_numpy(y))
    g = np.random.default_rng(0).normal(size=60)
    assert solve_exact(cost, g=g).value == pytest.approx(pot(x, y), abs=1e-6)
    monkeypatch.setattr(simplex, "violations", lambda cost, plan: torch.zeros_like(cost, dtype=torch.bool))
    assert solve_exact(cost, g=g).value > pot(x, y) + 1e-4


def test_distance_is_a_metric_on_measures():
    x, y, z = mixture(30), mixture(20, seed=1), mixture(25, seed=2)
    assert tarot.ot_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert tarot.ot_distance(x, np.repeat(x, 3, axis=0)) == pytest.approx(0, abs=1e-9)
    assert tarot.ot_distance(x, y) == pytest.approx(tarot.ot_distance(y, x), abs=1e-6)
    assert tarot.ot_distance(x, z) <= tarot.ot_distance(x, y) + tarot.ot_distance(y, z) + 1e-6


def test_distances_are_euclidean_and_zero_to_a_copy(monkeypatch):
    x, y = cloud(300), np.concatenate([cloud(20, seed=1), cloud(300)[:5]])
    expected = cost_of(x, y)
    for small in (math.inf, 0):  # by differences in float64; by one matrix product in blocks
        monkeypatch.setattr(tarot.space.distance, "SMALL", small)
        monkeypatch.setattr(tarot.space.distance, "BLOCK", 1000)
        mine = distances(torch.from_numpy(x), torch.from_numpy(y)).numpy()
        np.testing.assert_allclose(mine, expected, atol=2e-5)
        assert [mine[i, 20 + i] for i in range(5)] == [0] * 5


def test_near_duplicates_survive_the_matrix_product(monkeypatch):
    """Distances of 1e-5 between unit vectors are below the resolution of 2 - 2 cos in float32."""
    monkeypatch.setattr(tarot.space.distance, "SMALL", 0)
    angle = torch.tensor([1e-5, 2e-5, 4e-4])
    x, y = torch.stack([angle.cos(), angle.sin()], 1), torch.tensor([[1.0, 0.0]])
    torch.testing.assert_close(distances(x, y)[:, 0], angle, rtol=1e-4, atol=0)


# --- entropic --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [1.0, 0.1, 0.02])
@pytest.mark.parametrize(("n", "m"), [(40, 40), (25, 80), (80, 25)])
def test_sinkhorn_is_pots_converged_sinkhorn(n, m, epsilon):
    x, y = mixture(n), mixture(m, seed=1)
    c, a, b = cost_of(x, y), np.full(n, 1 / n), np.full(m, 1 / m)
    coupling = ot.sinkhorn(a, b, c, epsilon, method="sinkhorn_log", stopThr=1e-10, numItermax=50_000)
    kl = (coupling * np.log(np.maximum(coupling, 1e-300) / np.outer(a, b))).sum()
    expected = (coupling * c).sum() + epsilon * kl
    assert tarot.ot_distance(x, y, epsilon=epsilon) == pytest.approx(expected, rel=1e-4)
    stated = sinkhorn(torch.from_numpy(c).float(), epsilon)  # at its default accuracy
    assert stated.value == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("epsilon", [0.05, 0.005, 0.002])
@pytest.mark.parametrize("streamed", [False, True])
def test_sinkhorn_at_a_small_epsilon(epsilon, streamed):
    """Where exp(-C / eps) underflows: against Newton's method, and against the exact value it tends to."""
    x, y = mixture(24), mixture(18, seed=1)
    _, _, value = converged(cost_of(x, y), epsilon)
    cost = StreamedCost(x, torch.from_numpy(y)) if streamed else distances(*map(torch.from_numpy, (x, y)))
    mine = sinkhorn(cost, epsilon)
    assert mine.value == pytest.approx(value, rel=1e-3)
    assert -1e-3 <= mine.value - pot(x, y) <= epsilon * np.log(24 * 18)
    assert entropic_potentials(cost, epsilon).value == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize(
    ("streamed", "epsilon", "tolerance"),
    [(False, epsilon, tolerance) for epsilon in (0.2, 0.01) for tolerance in (1e-2, 1e-3, 1e-5, 1e-7)]
    + [(True, 0.2, 1e-2), (True, 0.2, 1e-5), (True, 0.01, 1e-2), (True, 0.01, 1e-3)],
)
def test_the_stated_marginal_error_is_met(streamed, epsilon, tolerance):
    x, y = mixture(50), mixture(35, seed=1)
    cost = StreamedCost(x, torch.from_numpy(y)) if streamed else distances(*map(torch.from_numpy, (x, y)))
    solution = sinkhorn(cost, epsilon, tolerance=tolerance)
    assert solution.error <= tolerance
    rows, columns = row_error(cost_of(x, y), solution)
    noise = 2e-6 / epsilon  # of float32 costs and sums
    assert rows <= tolerance + noise and columns <= tolerance + noise
    assert rows + columns > 0


@pytest.mark.parametrize("epsilon", [0.5, 0.05])
def test_marginals_may_be_given(epsilon):
    x, y = mixture(20), mixture(15, seed=1)
    a, b = (np.random.default_rng(s).dirichlet(np.ones(k)) for s, k in ((0, 20), (1, 15)))
    c = cost_of(x, y)
    coupling = ot.sinkhorn(a, b, c, epsilon, method="sinkhorn_log", stopThr=1e-11, numItermax=50_000)
    for cost in (torch.from_numpy(c).float(), StreamedCost(x, torch.from_numpy(y))):
        mine = sinkhorn(cost, epsilon, a, b, tolerance=1e-5)
        plan = a[:, None] * b * np.exp((mine.f[:, None] + mine.g - c) / epsilon)
        np.testing.assert_allclose(plan, coupling, atol=1e-4)


def test_streamed_is_dense(monkeypatch):
    monkeypatch.setattr(costs, "block_size", lambda columns: 13)  # 5 blocks, the last one short
    x, y = mixture(60), mixture(25, seed=1)
    streamed = StreamedCost(x, torch.from_numpy(y))
    assert len(list(streamed.blocks())) == 5
    whole = transport.dense(streamed)
    np.testing.assert_allclose(whole, cost_of(x, y), atol=1e-6)
    one, other = sinkhorn(whole, 0.05, tolerance=1e-5), sinkhorn(streamed, 0.05, tolerance=1e-5)
    assert one.value == pytest.approx(other.value, rel=1e-5)
    np.testing.assert_allclose(one.f - one.f.mean(), other.f - other.f.mean(), atol=1e-4)
    np.testing.assert_allclose(one.g - one.g.mean(), other.g - other.g.mean(), atol=1e-4)
    one, other = bracket(whole, one), bracket(streamed, one)
    assert one.lower == pytest.approx(other.lower, abs=1e-6) and one.upper == pytest.approx(other.upper, abs=1e-6)


def test_public_functions_stream_what_is_too_large_for_memory(monkeypatch):
    x, y = mixture(60), mixture(25, seed=1)
    expected, f = tarot.ot_distance(x, y, epsilon=0.1), potentials(x, y, 0.1)[0]
    monkeypatch.setattr(transport, "DENSE_PAIRS", 100)
    with monkeypatch.context() as entropic:
        entropic.setattr(transport, "dense", lambda cost: pytest.fail("the whole cost is in memory"))
        assert tarot.ot_distance(x, y, epsilon=0.1) == pytest.approx(expected, rel=1e-4)
        streamed = potentials(x, y, 0.1)[0]
    np.testing.assert_allclose(streamed - streamed.mean(), f - f.mean(), atol=5e-3)
    assert tarot.ot_distance(x, y) == pytest.approx(pot(x, y), abs=1e-6)


@pytest.mark.parametrize("streamed", [False, True])
def test_seeding_from_some_of_the_rows_changes_little(streamed, monkeypatch):
    x, y = mixture(60), mixture(25, seed=1)
    cost = StreamedCost(x, torch.from_numpy(y)) if streamed else distances(*map(torch.from_numpy, (x, y)))
    expected = converged(cost_of(x, y), 0.01)[0]
    monkeypatch.setattr(transport, "SEED_PAIRS", 300)  # every fifth row
    assert spearmanr(entropic_potentials(cost).f, expected).statistic >= 0.95
    if streamed:
        np.testing.assert_allclose(cost.rows(5), cost_of(x[::5], y), atol=1e-6)


@pytest.mark.parametrize("epsilon", [0.1, 0.01])
@pytest.mark.parametrize("tolerance", [0.3, 1e-2, 1e-4])
@pytest.mark.parametrize("streamed", [False, True])
def test_the_bracket_encloses_the_exact_value(epsilon, tolerance, streamed):
    """However badly converged: both ends are certified, and they close in."""
    x, y = mixture(90), mixture(40, seed=1)
    cost = StreamedCost(x, torch.from_numpy(y)) if streamed else distances(*map(torch.from_numpy, (x, y)))
    ends, value = bracket(cost, sinkhorn(cost, epsilon, tolerance=tolerance)), pot(x, y)
    assert ends.lower <= value + 1e-6 and value <= ends.upper + 1e-6
    if epsilon == 0.01 and tolerance <= 1e-2:
        assert ends.upper - ends.lower < 0.05 * value


def test_the_bracket_of_unconverged_duals_still_holds():
    x, y = mixture(30), mixture(20, seed=1)
    cost, value, generator = distances(*map(torch.from_numpy, (x, y))), pot(x, y), np.random.default_rng(0)
    for _ in range(5):
        guess = Entropic(generator.normal(size=30), generator.normal(size=20), 0.5, 0.0, 9.0, 0)
        ends = bracket(cost, guess)
        assert ends.lower < value < ends.upper


# --- potentials ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 2, 4])
@pytest.mark.parametrize(("n", "m"), [(60, 40), (40, 60), (300, 40)])
def test_potentials_rank_as_converged_ones_do(n, m, seed, monkeypatch):
    """The defaults (epsilon .01, error 1e-3) against Newton's method, dense and streamed; and against epsilon .001."""
    x, y = mixture(n, seed=seed), mixture(m, seed=seed + 1)
    expected_f, expected_g, _ = converged(cost_of(x, y), 0.01)
    sharper, _, _ = converged(cost_of(x, y), 0.001)
    for pairs in (transport.DENSE_PAIRS, 0):
        monkeypatch.setattr(transport, "DENSE_PAIRS", pairs)
        f, g = tarot.potentials(x, y)
        assert f.shape == (n,) and g.shape == (m,) and f.dtype == g.dtype == np.float64
        assert spearmanr(f, expected_f).statistic >= 0.97
        assert spearmanr(g, expected_g).statistic >= 0.97
        assert spearmanr(f, sharper).statistic >= 0.95


@pytest.mark.parametrize("case", [((1, 2, 91, 130), (0, 90)), ((180, 160, 60, 200), (111, 181))])
def test_potentials_of_commensurate_masses_are_the_converged_ones(case):
    """n a multiple of m: the exact plan falls apart, and its duals are one of many (theory.md 0.2)."""
    x, y = (np.stack([np.cos(r), np.sin(r)], 1).astype(np.float32) for r in map(np.deg2rad, case))
    expected = converged(cost_of(x, y), 0.01)[0]
    f = potentials(x, y)[0]
    np.testing.assert_allclose(f - f.mean(), expected - expected.mean(), atol=0.02)


def slowly_annealed(cost, epsilon):
    """f of plain log-domain Sinkhorn in float64, epsilon lowered by 5% every 300 iterations: what leaks, it sees."""
    (n, m), g, eps = cost.shape, np.zeros(cost.shape[1]), cost.max()
    while True:
        for _ in range(300):
            f = np.log(m) * eps - eps * quick_logsumexp((g - cost) / eps, axis=1)
            g = np.log(n) * eps - eps * quick_logsumexp((f[:, None] - cost) / eps, axis=0)
        if eps == epsilon:
            return f
        eps = max(epsilon, eps / 1.05)


@pytest.mark.parametrize("multiple", [1, 2])
def test_potentials_of_targets_that_share_no_candidate_rank_as_annealed_ones(multiple):
    """tarot_exact, S = k M: every target has k candidates of its own, and the exact duals say nothing of the rest."""
    pool, y = mixture(200, d=32), mixture(20, d=32, seed=50)
    chosen = tarot.select(pool, y, "tarot_exact", size=20 * multiple, whitening=None)
    cost = cost_of(pool[chosen.indices], y)
    assert spearmanr(potentials(pool[chosen.indices], y)[0], slowly_annealed(cost, 0.01)).statistic >= 0.95


def test_seeded_potentials_are_the_unseeded_ones():
    """The exact duals that seed the solve do not show in its result."""
    x, y = mixture(50), mixture(30, seed=1)
    cost = distances(*map(torch.from_numpy, (x, y)))
    for g in (None, np.random.default_rng(0).normal(size=30)):
        seeded = entropic_potentials(cost, 0.05, g=g, tolerance=1e-7)
        plain = sinkhorn(cost, 0.05, tolerance=1e-7)
        np.testing.assert_allclose(seeded.f - seeded.f.mean(), plain.f - plain.f.mean(), atol=1e-5)


@pytest.mark.parametrize(("n", "m", "most"), [(50, 5, 100), (48, 6, 10_000), (60, 60, 40_000)])
def test_an_entropic_distance_is_solved_from_the_exact_duals(n, m, most, monkeypatch):
    """At 0.001 Sinkhorn from zero needs up to 100 times the iterations, or never reaches the stated error."""
    x, y = mixture(n), mixture(m, seed=1)
    solved = []

    def counting(*arguments, **options):
        solved.append(sinkhorn(*arguments, **options))
        return solved[-1]

    monkeypatch.setattr(transport, "sinkhorn", counting)
    value = tarot.ot_distance(x, y, epsilon=0.001)
    cost = distances(*map(torch.from_numpy, (x, y)))
    assert value == pytest.approx(converged(cost.double().numpy(), 0.001)[2], rel=1e-6)
    assert solved[-1].iterations <= most
    if most <= 10_000:  # of the third it takes as long as all else here
        plain = sinkhorn(cost, 0.001, tolerance=1e-6, max_iterations=2 * most, strict=False)  # from zero
        assert plain.iterations >= 2 * most and plain.error > 1e-6


def test_calibrated_gradient_is_the_change_of_the_distance_with_the_mass():
    """d OT_eps / d a along e_i - uniform, by central differences of the converged value."""
    x, y = mixture(12), mixture(9, seed=1)
    cost, a, b, step = distances(*map(torch.from_numpy, (x, y))), np.full(12, 1 / 12), np.full(9, 1 / 9), 1e-4
    f = sinkhorn(cost, 0.05, tolerance=1e-9).f
    others = np.full((12, 12), 1 / 11) * (1 - np.eye(12))
    for i in range(12):
        towards = step * (np.eye(12)[i] - others[i])  # mass moves to i from all others
        up, down = (sinkhorn(cost, 0.05, a + sign * towards, b, tolerance=1e-10).value for sign in (1, -1))
        assert (up - down) / (2 * step) == pytest.approx(calibrated(f)[i], abs=1e-4)
    assert calibrated(f).sum() == pytest.approx(0, abs=1e-12)


def test_calibrated_example_of_the_spec():
    np.testing.assert_allclose(calibrated(np.array([1.0, 2.0, 4.0])), [-2, -0.5, 2.5])
    np.testing.assert_array_equal(calibrated(np.array([7.0])), [0])


def test_potential_differences_approximate_the_marginal_costs_of_eq_13():
    """Potentials of the union order the candidates z of a layer by OT(chosen + z, targets)."""
    near_best, correlation = 0, []
    for seed in range(10):
        pool, y = mixture(40, seed=seed), mixture(12, seed=100 + seed)
        chosen, layer = pool[:20], pool[20:]
        costs = np.array([pot(np.concatenate([chosen, z[None]]), y) for z in layer])
        f = tarot.potentials(np.concatenate([chosen, layer]), y)[0][20:]
        correlation.append(spearmanr(f, costs).statistic)
        near_best += np.argsort(costs).tolist().index(int(f.argmin())) < 3
    assert np.mean(correlation) > 0.8 and near_best >= 8


def test_potentials_do_not_change_with_a_shift_or_an_added_constant():
    x, y = cloud(30), cloud(20, seed=1)
    f = potentials(x, y, 0.1)[0]
    moved = potentials(x + 3, y + 3, 0.1)
    np.testing.assert_allclose(moved[0] - moved[0].mean(), f - f.mean(), atol=1e-3)
    cost = distances(*map(torch.from_numpy, (x, y)))
    one, other = sinkhorn(cost, 0.1, tolerance=1e-7), sinkhorn(cost + 7, 0.1, tolerance=1e-7)
    assert other.value - one.value == pytest.approx(7, abs=1e-4)
    np.testing.assert_allclose(other.f - other.f.mean(), one.f - one.f.mean(), atol=1e-4)


def test_epsilon_scales_with_the_cost():
    cost = distances(*map(torch.from_numpy, (mixture(30), mixture(20, seed=1)))).double()
    one, other = sinkhorn(cost, 0.02, tolerance=1e-8), sinkhorn(1000 * cost, 20, tolerance=1e-8)
    assert other.value == pytest.approx(1000 * one.value, rel=1e-6)
    np.testing.assert_allclose(other.f - other.f.mean(), 1000 * (one.f - one.f.mean()), atol=1e-2)


@pytest.mark.parametrize("epsilon", [0.0, 0.05])
def test_permuting_rows_and_columns_permutes_the_potentials(epsilon, monkeypatch):
    monkeypatch.setattr(simplex, "DENSE_SIMPLEX_PAIRS", 0)
    x, y = mixture(45), mixture(30, seed=1)
    generator = np.random.default_rng(3)
    rows, columns = generator.permutation(45), generator.permutation(30)
    assert tarot.ot_distance(x[rows], y[columns], epsilon) == pytest.approx(tarot.ot_distance(x, y, epsilon), abs=1e-6)
    if epsilon:
        cost = distances(*map(torch.from_numpy, (x, y)))
        one = sinkhorn(cost, epsilon, tolerance=1e-8)
        other = sinkhorn(cost[rows][:, columns], epsilon, tolerance=1e-8)
        gauge = (other.f - one.f[rows]).mean()
        np.testing.assert_allclose(other.f - gauge, one.f[rows], atol=1e-6)
        np.testing.assert_allclose(other.g + gauge, one.g[columns], atol=1e-6)


def test_swapping_the_sides_swaps_the_potentials():
    x, y = mixture(30), mixture(20, seed=1)
    there = sinkhorn(distances(*map(torch.from_numpy, (x, y))), 0.05, tolerance=1e-8)
    back = sinkhorn(distances(*map(torch.from_numpy, (y, x))), 0.05, tolerance=1e-8)
    np.testing.assert_allclose(back.g - back.g.mean(), there.f - there.f.mean(), atol=1e-6)
    np.testing.assert_allclose(back.f - back.f.mean(), there.g - there.g.mean(), atol=1e-6)


@pytest.mark.parametrize("kind", ["float64", "float16", "torch", "list", "memmap", "transposed"])
def test_any_kind_of_array_gives_the_same(kind, tmp_path):
    x, y = mixture(30).astype(np.float16).astype(np.float32), mixture(20, seed=1)
    np.save(tmp_path / "x.npy", x)
    other = {
        "float64": lambda: x.astype(np.float64),
        "float16": lambda: x.astype(np.float16),
        "torch": lambda: torch.from_numpy(x).double(),
        "list": lambda: x.tolist(),
        "memmap": lambda: np.load(tmp_path / "x.npy", mmap_mode="r"),
        "transposed": lambda: np.asfortranarray(x),
    }[kind]()
    assert tarot.ot_distance(other, y) == pytest.approx(pot(x, y), abs=1e-6)
    np.testing.assert_allclose(potentials(other, y)[0], potentials(x, y)[0], atol=1e-12)


def test_threads_do_not_change_the_result():
    x, y = mixture(300), mixture(200, seed=1)
    threads = torch.get_num_threads()
    results = []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            results.append((tarot.ot_distance(x, y), *potentials(x, y, 0.05)))
    finally:
        torch.set_num_threads(threads)
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-9)
    np.testing.assert_allclose(results[0][1], results[1][1], atol=1e-5)


def test_inputs_are_not_written_to():
    x, y = mixture(30), mixture(20, seed=1)
    copies = x.copy(), y.copy()
    potentials(x, y)
    tarot.ot_distance(x, y)
    cost = distances(*map(torch.from_numpy, (x, y)))
    before = cost.clone()
    solve_exact(cost)
    sinkhorn(cost, 0.05)
    assert (x == copies[0]).all() and (y == copies[1]).all() and torch.equal(cost, before)


def test_extreme_problems_are_solved_not_guessed():
    single = sinkhorn(torch.tensor([[2.5]]), 0.01)
    assert single.value == pytest.approx(2.5)
    zero = sinkhorn(torch.zeros(4, 3), 0.1)
    assert zero.value == pytest.approx(0, abs=1e-7) and np.isfinite(zero.f).all()
    far = unit_norm(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]))
    assert sinkhorn(1e4 * distances(far, far), 0.01).value == pytest.approx(0.01 * math.log(3), abs=1e-3)


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [tarot.ot_distance, tarot.potentials])
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (cloud(4, 3), cloud(4, 2), "x has 3 dimensions and y has 2"),
        (np.empty((0, 3)), cloud(4, 3), "x is empty"),
        (cloud(4, 3), np.empty((0, 3)), "y is empty"),
        (np.where(np.arange(12).reshape(4, 3) == 7, np.nan, 1.0), cloud(4, 3), "x row 2 column 1 is nan"),
        (cloud(4, 3), np.where(np.arange(12).reshape(4, 3) == 3, np.inf, 1.0), "y row 1 column 0 is inf"),
        (cloud(4, 3)[0], cloud(4, 3), "x must have two dimensions"),
        (cloud(4, 3), np.array([["a", "b", "c"]]), "y must hold real numbers"),
        (cloud(4, 3) + 1j, cloud(4, 3), "x must hold real numbers"),
        ([[1.0, 2.0], [3.0]], cloud(4, 2), "x is not a matrix"),
    ],
)
def test_bad_arrays_are_named(function, x, y, message):
    with pytest.raises(InputError, match=message):
        function(x, y)


@pytest.mark.parametrize("epsilon", [-0.1, float("nan")])
def test_epsilon_must_be_positive(epsilon):
    for function in (tarot.ot_distance, tarot.potentials):
        with pytest.raises(InputError, match="epsilon must be positive"):
            function(cloud(4), cloud(3), epsilon)
    with pytest.raises(InputError, match="epsilon must be positive"):
        tarot.potentials(cloud(4), cloud(3), 0.0)


def test_what_does_not_converge_says_so():
    cost = distances(*map(torch.from_numpy, (mixture(30), mixture(20, seed=1))))
    with pytest.raises(RuntimeError, match="larger epsilon or tolerance"):
        sinkhorn(cost, 0.001, tolerance=1e-8, max_iterations=10)
    rough = sinkhorn(cost, 0.001, tolerance=1e-8, max_iterations=10, strict=False)
    assert rough.error > 1e-8
