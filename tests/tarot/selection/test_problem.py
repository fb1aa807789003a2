"""What selectors ask of a problem, against sorted distance matrices and one transport problem per question."""

import threading

import numpy as np
import ot
import pytest
import torch

import tarot.selection.problem
import tarot.space.neighbours
from tarot.common.errors import InputError
from tarot.selection.problem import SelectionProblem
from tarot.selectors import TarotFixed
from tarot.space import whiten
from tarot.transport.costs import StreamedCost, dense
from tests.tarot.transport.test_solve import converged


def unit(n, d=5, seed=0):
    rows = np.random.default_rng(seed).normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def pool(n=80, m=7, **options):
    return SelectionProblem((unit(n),), (unit(m, seed=1),), **options)


def distance_matrix(problem):
    """||x - y||, float64 [N, M'], of the two sides of the problem's space."""
    x, y = problem.candidates[:].double().numpy(), problem.targets.double().numpy()
    return np.linalg.norm(x[:, None] - y[None], axis=2)


def slow_layers(distance, targets=None):
    """theory.md 0.3 and 1.2: o_{k,j} by a stable sort of every column; layer k without what was seen."""
    order = np.argsort(distance[:, targets] if targets is not None else distance, axis=0, kind="stable")
    seen, layers = set(), []
    for row in order:
        layer = sorted(set(row.tolist()) - seen)
        seen |= set(layer)
        if layer:
            layers.append(layer)
    return layers


def uniform_ot(cost):
    return ot.emd2(np.full(len(cost), 1 / len(cost)), np.full(cost.shape[1], 1 / cost.shape[1]), cost)


# --- layers and neighbours -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", [None, [3], [0, 2, 6]])
@pytest.mark.parametrize("whole_table", [True, False])
def test_layers_are_the_kth_neighbours_not_seen_before(targets, whole_table, monkeypatch):
    """Whether all neighbours are known at once, or fetched two at a time, then four, ..."""
    if not whole_table:
        monkeypatch.setattr(tarot.selection.problem, "WHOLE_TABLE", 0)
        monkeypatch.setattr(tarot.selection.problem, "FIRST_NEIGHBOURS", 2)
    problem = pool()
    expected = slow_layers(distance_matrix(problem), targets)
    layers = list(problem.layers(None if targets is None else np.array(targets)))
    assert [layer.tolist() for layer in layers] == expected
    assert sorted(np.concatenate(layers)) == list(range(80))


def test_neighbours_are_fetched_when_layers_need_them(monkeypatch):
    monkeypatch.setattr(tarot.selection.problem, "WHOLE_TABLE", 0)
    monkeypatch.setattr(tarot.selection.problem, "FIRST_NEIGHBOURS", 4)
    asked = []
    search = tarot.selection.problem.nearest_in_parts
    monkeypatch.setattr(
        tarot.selection.problem, "nearest_in_parts", lambda c, t, k, *more: asked.append(k) or search(c, t, k, *more)
    )
    problem = pool()
    layers = problem.layers()
    assert asked == []
    next(layers)
    assert asked == [4]
    list(layers)
    assert asked == [4, 8, 16, 32, 64, 80]
    problem.neighbours(50), list(problem.layers())
    assert asked == [4, 8, 16, 32, 64, 80]


def test_ties_between_candidates_go_to_the_smaller_index():
    c = unit(10)
    problem = SelectionProblem((np.concatenate([c, c, c]),), (c,))
    layers = [layer.tolist() for layer in problem.layers()]
    assert layers[0] == list(range(10))
    assert layers[1] == list(range(10, 20)) and layers[2] == list(range(20, 30))


def test_candidates_without_features_are_in_no_layer():
    c = unit(20)
    c[[0, 7, 19]] = 0
    problem = SelectionProblem((c,), (unit(4, seed=1),))
    assert sorted(np.concatenate(list(problem.layers()))) == [i for i in range(20) if i not in (0, 7, 19)]
    assert len(list(problem.layers(expect=17))) > 0
    with pytest.raises(InputError, match="18 candidates are wanted, but only 17 of 20 are usable"):
        list(problem.layers(expect=18))


@pytest.mark.parametrize("cosine", [-1.0, 0.0, 0.5, 0.9])
def test_min_cos_leaves_out_pairs_of_a_smaller_cosine(cosine):
    problem = pool()
    similar = (unit(80).astype(float) @ unit(7, seed=1).T.astype(float) >= cosine).any(axis=1)
    found = [i for layer in problem.layers(min_cos=cosine) for i in layer.tolist()]
    assert sorted(found) == np.flatnonzero(similar).tolist()


def test_threads_share_one_table(monkeypatch):
    monkeypatch.setattr(tarot.selection.problem, "WHOLE_TABLE", 0)
    problem, results = pool(), {}
    expected = slow_layers(distance_matrix(problem))
    calls = []
    search = tarot.selection.problem.nearest_in_parts
    monkeypatch.setattr(
        tarot.selection.problem, "nearest_in_parts", lambda c, t, k, *more: calls.append(k) or search(c, t, k, *more)
    )

    def work(name):
        results[name] = [layer.tolist() for layer in problem.layers()]

    threads = [threading.Thread(target=work, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(results[name] == expected for name in range(6))
    assert len(calls) == len(set(calls))


# --- what cannot be a problem ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"candidate_views": unit(80)[0]}, "candidates must have two dimensions"),
        ({"candidate_views": unit(80)[:0]}, "candidates is empty"),
        ({"target_views": (unit(7), unit(7))}, "candidates come from 1 models and targets from 2"),
        ({"candidate_views": unit(80, d=4)}, "candidates have 4 dimensions and targets 5"),
        (
            {"candidate_views": (unit(80), unit(79)), "target_views": (unit(7), unit(7))},
            r"candidates: the models must have seen the same rows; they have \[79, 80\]",
        ),
        ({"whitening": "pca"}, "whitening must be chosen, .*, paper or null; it is 'pca'"),
        ({"whitening": "auto"}, "whitening must be chosen, .*, paper or null; it is 'auto'"),
        ({"regularization": -1.0}, "regularization must be at least 0 or null; it is -1.0"),
        ({"regularization": float("nan")}, "regularization must be at least 0 or null"),
        ({"regularization": "small"}, "regularization must be a number of at least 0 or null; it is 'small'"),
        ({"total": 0}, "total must be a positive integer; it is 0"),
        ({"total": True}, "total must be a positive integer; it is True"),
        ({"candidate_ids": ["a"] * 80}, "candidate_ids must be unique; 'a' stands 80 times"),
        ({"candidate_labels": [1]}, "candidate_labels must have one entry for each of the 80 rows"),
        ({"target_labels": [1] * 80}, "target_labels must have one entry for each of the 7 rows"),
        ({"target_groups": np.ones((7, 2))}, "target_groups must have one entry"),
        ({"candidate_tags": ["target"]}, "candidate_tags must have one entry"),
        ({"candidate_residuals": (np.ones(80), np.ones(80))}, "candidate_residuals come from 2 models"),
        ({"candidate_scores": np.full(80, np.inf)}, "candidate_scores must be finite; that of candidate 0 is inf"),
        ({"learning_rates": (0.0,)}, "learning_rates must be finite, at least 0 and not all 0"),
    ],
)
def test_a_problem_that_is_made_by_hand_is_checked(given, message):
    with pytest.raises(InputError, match=message):
        SelectionProblem(**{"candidate_views": unit(80), "target_views": unit(7), **given})


def test_a_problem_takes_one_matrix_or_one_for_each_model_and_plain_lists():
    one = SelectionProblem(unit(8), unit(3), candidate_labels=[1] * 8, learning_rates=[1], candidate_scores=range(8))
    assert len(one.candidate_views) == len(one.target_views) == 1 and one.n == 8 and one.m == 3
    assert one.candidate_labels.shape == (8,) and one.learning_rates == (1.0,)
    assert one.candidate_scores[0].dtype == np.float64
    assert len(SelectionProblem([unit(8), unit(8)], [unit(3), unit(3)]).candidate_views) == 2


# --- the space -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["chosen", "local", "centred", "cholesky", "zca", "paper", None])
def test_the_space_is_the_public_whitening(method):
    generator = np.random.default_rng(0)
    c, t = generator.normal(size=(50, 4)) * [1, 5, 0.1, 2] + 3, generator.normal(size=(9, 4)) + 3
    problem = SelectionProblem((c,), (t,), whitening=method)
    expected = whiten(c, t, method)
    np.testing.assert_allclose(problem.candidates[:], expected[0], atol=1e-6)
    np.testing.assert_allclose(problem.targets, expected[1], atol=1e-6)


def test_independently_trained_models_average_squared_distances():
    """per_ckpt of theory.md 1.1; dimensions may differ between models."""
    generator = np.random.default_rng(0)
    views = [(generator.normal(size=(40, d)), generator.normal(size=(6, d))) for d in (3, 5, 4)]
    candidates, targets = zip(*views, strict=True)
    joined = SelectionProblem(candidates, targets, whitening="cholesky")
    squares = [distance_matrix(SelectionProblem((c,), (t,), whitening="cholesky")) ** 2 for c, t in views]
    np.testing.assert_allclose(distance_matrix(joined), np.sqrt(np.mean(squares, axis=0)), atol=1e-5)
    assert [layer.tolist() for layer in joined.layers()] == slow_layers(np.sqrt(np.mean(squares, axis=0)))


def test_targets_without_features_are_left_out():
    t = unit(6, seed=1)
    t[[1, 4]] = 0
    problem = SelectionProblem((unit(20),), (t,))
    with pytest.warns(UserWarning, match="2 of 6 targets"):
        assert problem.usable_targets.tolist() == [0, 2, 3, 5]
    np.testing.assert_allclose(problem.targets, t[[0, 2, 3, 5]], atol=1e-6)
    assert problem.m == 6
    t[:] = 0
    with pytest.raises(InputError, match="targets: every row is zero"):
        next(SelectionProblem((unit(20),), (t,)).layers())


def test_costs_are_distances_of_the_rows_asked_for(monkeypatch):
    problem = pool()
    expected = distance_matrix(problem)
    rows, columns = np.array([9, 3, 77]), np.array([5, 0])
    np.testing.assert_allclose(problem.cost(rows), expected[rows], atol=1e-6)
    np.testing.assert_allclose(problem.cost(rows, columns), expected[np.ix_(rows, columns)], atol=1e-6)
    monkeypatch.setattr(tarot.selection.problem, "DENSE_PAIRS", 5)
    streamed = problem.cost(rows, columns)
    assert isinstance(streamed, StreamedCost)
    np.testing.assert_allclose(dense(streamed), expected[np.ix_(rows, columns)], atol=1e-6)


@pytest.mark.parametrize("table_first", [False, True])
def test_a_restricted_problem_sees_some_targets_in_the_same_space(table_first):
    problem = pool(whitening="cholesky")
    if table_first:
        problem.neighbours(3)
    part = problem.restricted(np.array([1, 4, 5]))
    assert torch.equal(part.targets, problem.targets[[1, 4, 5]])
    np.testing.assert_allclose(distance_matrix(part), distance_matrix(problem)[:, [1, 4, 5]])
    assert [layer.tolist() for layer in part.layers()] == slow_layers(distance_matrix(problem), [1, 4, 5])
    assert part.usable_targets.tolist() == [1, 4, 5]


def test_the_bound_of_a_restricted_problem_is_of_its_own_targets():
    problem = pool()
    problem.neighbours(3)
    keep = np.array([1, 4, 5])
    alone = SelectionProblem((unit(80),), (unit(7, seed=1)[keep],))
    assert problem.restricted(keep).capacity_plan(9).lower_bound == pytest.approx(alone.capacity_plan(9).lower_bound)


# --- marginal costs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chosen", [[], [3], [0, 5, 9, 11, 30]])
def test_exact_marginal_cost_is_one_transport_problem_per_candidate(chosen):
    """Eq. 13: OT(uniform on chosen + z, targets)."""
    problem = pool()
    layer = np.array([2, 40, 41, 77])
    cost = distance_matrix(problem)
    expected = [uniform_ot(cost[[*chosen, z]]) for z in layer]
    found = problem.marginal_cost(np.array(chosen, dtype=np.int64), layer, exact=True)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_exact_marginal_cost_of_costs_that_are_streamed(monkeypatch):
    """Beyond the limit for dense costs the same numbers, and the same selection."""
    c, t = unit(80), unit(7, seed=1)
    chosen, layer = np.array([0, 5, 9]), np.array([2, 40, 41, 77])
    expected = pool().marginal_cost(chosen, layer, exact=True)
    selected = TarotFixed(size=17, exact=True).select(SelectionProblem(c, t))
    monkeypatch.setattr(tarot.selection.problem, "DENSE_PAIRS", 0)
    assert isinstance(pool().cost(layer), StreamedCost)
    np.testing.assert_allclose(pool().marginal_cost(chosen, layer, exact=True), expected, atol=1e-7)
    np.testing.assert_allclose(
        pool().marginal_cost(chosen[:0], layer, exact=True), [uniform_ot(distance_matrix(pool())[[z]]) for z in layer],
        atol=1e-6,
    )  # fmt: skip
    streamed = TarotFixed(size=17, exact=True).select(SelectionProblem(c, t))
    assert streamed.indices.tolist() == selected.indices.tolist()
    assert streamed.ot_bracket.lower <= selected.ot_distance + 1e-6 <= streamed.ot_distance + 2e-6


def test_fast_marginal_cost_finds_the_best_of_a_layer_or_nearly():
    """theory.md 1.2: the lowest potential of the union is near Eq. 13's best; that of the layer alone is not."""
    union, alone, same = [], [], 0
    for seed in range(30):
        problem = SelectionProblem((unit(40, seed=seed),), (unit(10, seed=100 + seed),))
        layers = problem.layers()
        chosen, layer = next(layers), next(layers)
        costs = problem.marginal_cost(chosen, layer, exact=True)
        fast = problem.marginal_cost(chosen, layer)
        assert fast.shape == layer.shape
        converged_f = converged(distance_matrix(problem)[np.concatenate([chosen, layer])], 0.01)[0][len(chosen) :]
        same += fast.argmin() == converged_f.argmin()
        union.append(costs[fast.argmin()] / costs.min() - 1)
        alone.append(costs[problem.marginal_cost(chosen[:0], layer).argmin()] / costs.min() - 1)
    assert same >= 28
    assert np.mean(union) < 0.015 and np.mean(union) < np.mean(alone) / 3


# --- budgets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "ratio", "size"),
    [
        (100, 0.29, 29),
        (100, 0.5, 50),
        (7, 0.5, 3),
        (7, 1.0, 7),
        (10, 0.1, 1),
        (1000, 0.057, 57),
        (3, 0.99, 2),
        (80, 1, 80),
    ],
)
def test_a_ratio_is_floored_but_not_by_rounding(n, ratio, size):
    """floor(ratio N + 1e-9): .29 * 100 is 28.999999999999996."""
    assert pool(n).budget(None, ratio) == size


@pytest.mark.parametrize("size", [1, 17, 80, np.int64(5)])
def test_a_size_is_taken_as_it_is(size):
    assert pool().budget(size, None) == size


@pytest.mark.parametrize(
    ("size", "ratio", "message"),
    [
        (None, None, "either size or ratio, not neither"),
        (3, 0.5, "either size or ratio, not both"),
        (0, None, "size must be between 1 and the number of candidates, 80; it is 0"),
        (-1, None, "size must be between 1"),
        (81, None, "it is 81"),
        (3.0, None, "size must be an integer; it is 3.0"),
        (True, None, "size must be an integer"),
        ("3", None, "size must be an integer"),
        (None, 0.0, r"ratio must be in \(0, 1\]; it is 0.0"),
        (None, -0.1, "ratio must be in"),
        (None, 1.01, "ratio must be in"),
        (None, float("nan"), "ratio must be in"),
        (None, 0.001, "ratio 0.001 of 80 candidates selects none"),
    ],
)
def test_budgets_that_cannot_be(size, ratio, message):
    with pytest.raises(InputError, match=message):
        pool().budget(size, ratio)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda problem: problem.capacity_plan(0), r"size must be in \[1, 20\]; it is 0"),
        (lambda problem: problem.capacity_plan(21), r"size must be in \[1, 20\]; it is 21"),
        (lambda problem: problem.best(np.arange(3.0), 2, None, {}), r"one for each of 20 candidates.*\(3,\)"),
        (lambda problem: problem.best(np.r_[np.zeros(19), np.nan], 2, None, {}), "that of candidate 19 is NaN"),
    ],
)
def test_what_a_selector_may_not_ask_is_refused(ask, message):
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match=message):
        ask(SelectionProblem([rng.normal(size=(20, 5))], [rng.normal(size=(4, 5))]))


def test_a_total_below_the_budget_is_refused_before_any_work():
    with pytest.raises(InputError, match="total 9 is less than the 10"):
        pool(total=9).budget(10, None)
    assert pool(total=10).budget(10, None) == 10
