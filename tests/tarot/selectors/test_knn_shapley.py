"""KNN-Shapley against the definition of the Shapley value, over all subsets."""

from itertools import combinations
from math import factorial

import numpy as np
import pytest

from tarot.common.errors import InputError
from tarot.selection.problem import SelectionProblem
from tarot.selectors.knn_shapley import KnnShapley, knn_shapley


def utility(subset, match, k):
    """Members are named by their rank in distance."""
    return sum(match[i] for i in sorted(subset)[:k]) / k


def brute_force(match, k):
    n = len(match)
    values = np.zeros(n)
    for i in range(n):
        others = [x for x in range(n) if x != i]
        for size in range(n):
            share = factorial(size) * factorial(n - size - 1) / factorial(n)
            for s in combinations(others, size):
                values[i] += share * (utility((*s, i), match, k) - utility(s, match, k))
    return values


def of_matches(match, k):
    """Candidates in order of distance to one target of class 1."""
    return knn_shapley(np.arange(len(match))[None], np.asarray(match), np.array([1]), k)


def data(n=60, m=9, d=4, classes=3, seed=0):
    g = np.random.default_rng(seed)
    return g.normal(size=(n, d)), g.normal(size=(m, d)), g.integers(0, classes, n), g.integers(0, classes, m)


@pytest.mark.parametrize("n", range(1, 9))
def test_equals_the_definition(n):
    generator = np.random.default_rng(n)
    for k in range(1, n + 4):
        match = generator.integers(0, 2, n)
        assert of_matches(match, k) == pytest.approx(brute_force(match, k), abs=1e-12), (match, k)


@pytest.mark.parametrize(
    ("k", "expected"), [(1, (5 / 6, -1 / 6, 1 / 3)), (2, (1 / 3, -1 / 6, 1 / 3)), (5, (0.2, 0, 0.2))]
)
def test_the_published_examples(k, expected):
    assert of_matches([1, 0, 1], k) == pytest.approx(expected)
    assert brute_force([1, 0, 1], k) == pytest.approx(expected)


@pytest.mark.parametrize("k", [1, 7, 60, 200])
def test_features_equal_the_definitions_recursion(k):
    c, t, y, wanted = data()
    expected = np.zeros(60)
    for row, label in zip(t, wanted, strict=True):
        order = np.argsort(np.linalg.norm(c - row, axis=1), kind="stable")
        match = (y[order] == label).astype(float)
        s = match[-1] * min(k, 60) / (k * 60)
        expected[order[-1]] += s
        for i in range(59, 0, -1):
            s += (match[i - 1] - match[i]) / k * min(k, i) / i
            expected[order[i - 1]] += s
    problem = SelectionProblem((c,), (t,), candidate_labels=y, target_labels=wanted)
    values = KnnShapley(k=k).values(problem)
    assert values.dtype == np.float64
    assert values == pytest.approx(expected / 9, abs=1e-12)


@pytest.mark.parametrize("k", [1, 5, 80])
def test_values_share_out_the_utility_of_the_pool(k):
    c, t, y, wanted = data(seed=1)
    values = KnnShapley(k=k).values(SelectionProblem((c,), (t,), candidate_labels=y, target_labels=wanted))
    distance = np.linalg.norm(t[:, None] - c[None], axis=2)
    nearest = np.argsort(distance, axis=1)[:, :k]
    assert values.sum() == pytest.approx((y[nearest] == wanted[:, None]).sum(1).mean() / k)


@pytest.mark.parametrize(
    ("ids", "order"), [(list("abcd"), [0, 1, 2, 3]), (list("dabc"), [1, 2, 3, 0]), (None, [0, 3, 1, 2])]
)
def test_equal_distances_are_ordered_by_id_and_else_by_content(ids, order):
    c = np.ones((4, 2))
    labels, known = np.array([0, 1, 1, 0]), {"candidate_labels": np.array([0, 1, 1, 0]), "target_labels": np.array([1])}
    problem = SelectionProblem((c,), (np.zeros((1, 2)),), candidate_ids=ids, **known)
    assert KnnShapley(k=1).values(problem)[order] == pytest.approx(brute_force(labels[order].tolist(), 1))


def test_neither_blocks_nor_store_precision_matter(monkeypatch):
    c, t, y, wanted = data(n=300, m=20, seed=2)

    def values(rows):
        return KnnShapley(k=5).values(SelectionProblem((rows,), (t,), candidate_labels=y, target_labels=wanted))

    whole, half = values(c), c.astype(np.float16)
    assert values(half) == pytest.approx(values(half.astype(np.float32)))
    for memory in (1, 4 * 300 * 7):
        monkeypatch.setattr("tarot.selectors.knn_shapley.MEMORY_BYTES", memory)
        assert values(c) == pytest.approx(whole, abs=1e-12)


def test_permuting_the_pool_permutes_the_values():
    c, t, y, wanted = data(seed=3)
    p, q = np.random.default_rng(0).permutation(60), np.random.default_rng(1).permutation(9)
    a = KnnShapley().values(SelectionProblem((c,), (t,), candidate_labels=y, target_labels=wanted))
    b = KnnShapley().values(SelectionProblem((c[p],), (t[q],), candidate_labels=y[p], target_labels=wanted[q]))
    assert b == pytest.approx(a[p], abs=1e-12)


def test_views_are_averaged_and_labels_may_be_names():
    c, t, y, wanted = data(seed=4)
    c2, t2 = data(seed=5)[:2]
    names = np.array(["ant", "bee", "cat"])
    one, two = (
        KnnShapley().values(SelectionProblem((a,), (b,), candidate_labels=y, target_labels=wanted))
        for a, b in [(c, t), (c2, t2)]
    )
    both = SelectionProblem((c, c2), (t, t2), candidate_labels=names[y], target_labels=names[wanted])
    assert KnnShapley().values(both) == pytest.approx((one + two) / 2)


def test_finds_mislabelled_candidates_and_selects_the_others():
    g = np.random.default_rng(0)
    y, wanted = g.integers(0, 2, 200), g.integers(0, 2, 50)
    c, t = (3.0 * label[:, None] + g.normal(size=(len(label), 2)) for label in (y, wanted))
    wrong = g.permutation(200)[:40]
    y[wrong] = 1 - y[wrong]
    problem = SelectionProblem((c,), (t,), candidate_labels=y, target_labels=wanted)
    chosen = KnnShapley(size=160).select(problem)
    assert np.isin(wrong, chosen.indices).sum() <= 4
    assert (chosen.weights == 1).all()


def test_a_target_class_that_no_candidate_has_is_worth_nothing():
    c, t, y, _ = data()
    problem = SelectionProblem((c,), (t,), candidate_labels=y, target_labels=np.full(9, 7))
    assert (KnnShapley().values(problem) == 0).all()


def test_what_is_missing_is_named():
    c, t, y, wanted = data()
    with pytest.raises(InputError, match=r"knn_shapley.*candidate_labels"):
        KnnShapley().values(SelectionProblem((c,), (t,)))
    for k in (0, -1, 2.5, True):
        with pytest.raises(InputError, match=r"^k must be (an integer of )?at least 1; it is"):
            KnnShapley(k=k).values(SelectionProblem((c,), (t,), candidate_labels=y, target_labels=wanted))
