"""SAVA and batch-wise LAVA against POT on every pair of batches, and against LAVA."""

import functools

import numpy as np
import ot
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

import tarot.selectors.hierarchical
from tarot.common.errors import InputError
from tarot.features.store import FeatureStore
from tarot.selection.problem import SelectionProblem
from tarot.selectors.hierarchical import (
    BatchTransports,
    batch_transports,
    mass_gradient,
    random_batches,
    transport_batches,
)
from tarot.selectors.labelled import LabelCosts, labelled_spaces
from tarot.selectors.lava import Lava
from tarot.selectors.options import random_generator
from tarot.selectors.sava import BatchwiseLava, Sava, released_batchwise_values, sava_values
from tarot.space.content import content_order


def problem(c, t, of_c, of_t, ids=None):
    known = {"candidate_labels": np.asarray(of_c), "target_labels": np.asarray(of_t)}
    return SelectionProblem((c,), (t,), candidate_ids=ids, **known)


def labelled(n, d=4, classes=3, seed=0, noise=0.0):
    generator = np.random.default_rng(seed)
    which = generator.integers(0, classes, n)
    rows = 2 * np.random.default_rng(99).normal(size=(classes, d))[which] + generator.normal(size=(n, d))
    wrong = generator.random(n) < noise
    return rows.astype(np.float32), np.where(wrong, (which + 1) % classes, which), wrong


def example(n=50, m=23):
    """With a class that is in one batch of each side at most (8, 9), and one that the other side lacks (7, 9)."""
    (c, of_c, _), (t, of_t, _) = labelled(n, noise=0.3), labelled(m, seed=1)
    of_c[:2], of_c[2], of_t[0], of_t[1] = 7, 8, 8, 9
    return c, t, of_c, of_t


def slow_feature_cost(x, y):
    return ((x.astype(float)[:, None] - y.astype(float)[None]) ** 2).sum(2) / 2


def pot_transport(cost, epsilon, a=None, b=None):
    """(OT_epsilon, coupling, calibrated gradient) by POT, converged, with KL(P || a b^T)."""
    n, m = cost.shape
    a, b = np.full(n, 1 / n) if a is None else a, np.full(m, 1 / m) if b is None else b
    plan, log = ot.sinkhorn(a, b, cost, epsilon, stopThr=1e-10, numItermax=20_000, log=True, warn=False)
    value = (plan * cost).sum() + epsilon * (plan * np.log(np.maximum(plan, 1e-300) / np.outer(a, b))).sum()
    f = epsilon * np.log(log["u"] / a)
    return value, plan, np.array([f[i] - np.delete(f, i).mean() for i in range(n)]) if n > 1 else np.zeros(1)


def slow_cost(c, t, of_c, of_t, relative_epsilon=0.1):
    """One table of label distances for all; (C [N, M], epsilon)."""
    features = slow_feature_cost(c, t)
    epsilon = relative_epsilon * features.mean()
    known = {
        (y, z): pot_transport(features[np.ix_(of_c == y, of_t == z)], epsilon)[0] for y in set(of_c) for z in set(of_t)
    }
    return features + np.array([[known[y, z] for z in of_t] for y in of_c]), epsilon


@functools.cache
def slow_pairs(batch_size, seed, scale=1.0):
    """(rows, columns, Cbar [I, J], cal [I][J]) of the batches that the seed gives of the example, scaled."""
    c, t, of_c, of_t = example()
    c, t = scale * c, scale * t
    generator = random_generator(seed)
    rows, columns = (
        random_batches(content_order([side], "rows"), batch_size, least, generator) for side, least in ((c, 2), (t, 1))
    )
    cost, epsilon = slow_cost(c, t, of_c, of_t)
    solved = [[pot_transport(cost[np.ix_(i, j)], epsilon) for j in columns] for i in rows]
    return rows, columns, np.array([[s[0] for s in row] for row in solved]), [[s[2] for s in row] for row in solved]


@pytest.mark.parametrize("batch_epsilon", [0.01, 0.0])
def test_values_are_the_explicit_hierarchical_transport(batch_epsilon):
    """Algorithm 1, with batches of 13, 13, 12, 12 candidates and 12, 11 targets, some of which lack a class."""
    c, t, of_c, of_t = example()
    rows, columns, between, gradients = slow_pairs(13, 4)
    assert [len(i) for i in rows] == [13, 13, 12, 12] and [len(j) for j in columns] == [12, 11]
    assert any(set(of_c[i]) != set(of_c) for i in rows)
    p, q = np.array([13, 13, 12, 12]) / 50, np.array([12, 11]) / 23
    if batch_epsilon:
        coupling = pot_transport(between, batch_epsilon * between.max(), p, q)[1]
    else:
        coupling = ot.emd(p, q, between)
    expected = np.empty(50)
    for i, members in enumerate(rows):
        expected[members] = -sum(coupling[i, j] / p[i] * gradients[i][j] for j in range(len(columns)))

    for tolerance, error in ((1e-4, 1e-2), (1e-6, 2e-4)):
        selector = Sava(batch_size=13, batch_epsilon=batch_epsilon, seed=4, tolerance=tolerance, match_classes=False)
        values = selector.values(problem(c, t, of_c, of_t))
        np.testing.assert_allclose(values, expected, atol=error * np.abs(expected).max())
    plain = np.empty(50)
    for i, members in enumerate(rows):
        plain[members] = -np.mean(gradients[i], axis=0)
    values = BatchwiseLava(batch_size=13, seed=4, tolerance=1e-6, match_classes=False).values(problem(c, t, of_c, of_t))
    np.testing.assert_allclose(values, plain, atol=2e-4 * np.abs(plain).max())

    space = next(labelled_spaces(problem(c, t, of_c, of_t), LabelCosts(match_classes=False), "sava"))
    solved = batch_transports(space, 13, random_generator(4))
    np.testing.assert_allclose(solved.cost, between, rtol=1e-4)
    upper = transport_batches(solved, batch_epsilon)
    np.testing.assert_allclose(upper.coupling, coupling, atol=2e-3 * coupling.max())
    np.testing.assert_allclose(upper.coupling.sum(0), q, atol=1e-6)


@pytest.mark.parametrize("selector", [Sava, BatchwiseLava])
@pytest.mark.parametrize("feature_cost", ["half_squared", "euclidean"])
def test_one_batch_is_lava(selector, feature_cost):
    c, t, of_c, of_t = example()
    posed = problem(c, t, of_c, of_t)
    values = Lava(feature_cost=feature_cost).values(posed)
    np.testing.assert_allclose(selector(feature_cost=feature_cost).values(posed), values, atol=1e-5)
    order = np.random.default_rng(0).permutation(50)
    moved = selector(feature_cost=feature_cost).values(problem(c[order], t, of_c[order], of_t))
    np.testing.assert_allclose(moved, values[order], atol=1e-3)


@pytest.mark.parametrize("batch_size", [9, 20, 50])
def test_hierarchical_transport_bounds_the_transport_of_all(batch_size):
    """HOT >= OT, with equality at one batch. OT_epsilon of a pair is above its OT, so HOT bounds the exact OT too."""
    c, t, of_c, of_t = example()
    for epsilon in (0.1, 0.05):
        space = next(
            labelled_spaces(problem(c, t, of_c, of_t), LabelCosts(epsilon=epsilon, match_classes=False), "sava")
        )
        cost = space.cost(space.rows(np.arange(50)), space.candidate_labels, space.columns(np.arange(23)))
        whole = mass_gradient(cost, space.epsilon, tolerance=1e-6).value
        solved = batch_transports(space, batch_size, random_generator(0))
        for batch_epsilon in (0.0, 0.01):
            upper = transport_batches(solved, batch_epsilon)
            assert upper.bound >= whole * (1 - 1e-4)
            assert upper.bound >= upper.value * (1 - 1e-9)
            if batch_size == 50:
                assert upper.bound == pytest.approx(whole, rel=1e-4)
            assert upper.value >= ot.emd2([], [], cost.double().numpy()) * (1 - 1e-4)


def test_a_short_batch_is_not_weighed_down():
    """theory.md 6: P_ij is divided by the mass of the batch, so a candidate's value does not shrink with its batch."""
    rows, columns = [np.array([0, 2, 3, 5]), np.array([1, 4])], [np.array([0]), np.array([1])]
    gradients = np.array([[1, 5, -2, 3, -5, -2], [3, 1, -4, 2, -1, -1]], dtype=np.float32)
    solved = BatchTransports(rows, columns, np.ones((2, 2)), gradients, 0.1)
    np.testing.assert_allclose(sava_values(solved, 0.01), -gradients.mean(0), atol=1e-6)
    np.testing.assert_allclose(solved.masses()[0], [2 / 3, 1 / 3])
    # The first batch belongs to the first target, the second to the second one, as far as their masses allow.
    solved = BatchTransports(rows, columns, np.array([[0.0, 1], [1, 0]]), gradients, 0.1)
    exact = sava_values(solved, 0.0)
    np.testing.assert_allclose(exact[rows[1]], -gradients[1, rows[1]], atol=1e-6)
    np.testing.assert_allclose(exact[rows[0]], -(0.75 * gradients[0] + 0.25 * gradients[1])[rows[0]], atol=1e-6)


def test_batches_are_nearly_equal_and_nobody_is_alone():
    generator = np.random.default_rng(0)
    for n, size, least, sizes in [(10, 4, 2, [4, 3, 3]), (3, 2, 2, [3]), (3, 2, 1, [2, 1]), (1, 2, 2, [1])]:
        batches = random_batches(np.arange(n), size, least, generator)
        assert [len(b) for b in batches] == sizes
        assert np.array_equal(np.sort(np.concatenate(batches)), np.arange(n))
        assert all((np.diff(b) > 0).all() for b in batches)


def test_released_batchwise_average():
    """theory.md 6: (tanh(cal) + 1) / 2 sums to one inside each batch of candidates, for every batch of targets."""
    c, t, of_c, of_t = example()
    c, t = 0.2 * c, 0.2 * t
    space = next(labelled_spaces(problem(c, t, of_c, of_t), LabelCosts(variant="released"), "batchwise_lava"))
    solved = batch_transports(space, 13, random_generator(0))
    rows, columns = solved.rows, solved.columns
    expected = np.empty(50)
    for members in rows:
        shares = [(np.tanh(g) + 1) / 2 for g in solved.gradients[:, members].astype(np.float64)]
        expected[members] = -np.mean([s / s.sum() for s in shares], axis=0)
        assert expected[members].sum() == pytest.approx(-1)
    assert len(columns) == 2
    values = BatchwiseLava(batch_size=13, variant="released").values(problem(c, t, of_c, of_t))
    np.testing.assert_allclose(values, expected, atol=1e-12)
    huge = BatchTransports(rows, columns, np.ones((4, 2)), 1e30 * np.ones((2, 50), np.float32), 0.1)
    assert np.isfinite(released_batchwise_values(huge)).all()


def test_rankings_do_not_depend_on_the_scale_or_the_names_of_classes():
    (c, of_c, _), (t, of_t, _) = labelled(200, noise=0.3), labelled(60, seed=1)
    selector = Sava(batch_size=40)
    values = selector.values(problem(c, t, of_c, of_t))
    scaled = selector.values(problem(30 * c, 30 * t, of_c, of_t))
    np.testing.assert_allclose(scaled, 900 * values, atol=0.9 * np.abs(values).max())
    names = np.array(["tree", "ant", "bird"])
    np.testing.assert_allclose(selector.values(problem(c, t, names[of_c], names[of_t])), values, atol=1e-3)
    assert np.array_equal(selector.values(problem(c, t, of_c, of_t)), values)
    assert not np.allclose(Sava(batch_size=40, seed=1).values(problem(c, t, of_c, of_t)), values)


def test_rows_may_lie_on_disk(tmp_path, monkeypatch):
    (c, of_c, _), (t, of_t, _) = labelled(180), labelled(40, seed=1)
    ids = [str(i) for i in range(180)]
    expected = Sava(batch_size=40).values(problem(c, t, of_c, of_t, ids))
    np.save(tmp_path / "rows.npy", c)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r", allow_pickle=False)
    store = FeatureStore.build(
        tmp_path / "store",
        recipe={"rows": "test"},
        ids=ids,
        dim=4,
        compute=lambda start, stop: {"features": torch.from_numpy(c[start:stop])},
        rows_per_shard=64,
    )
    monkeypatch.setattr(tarot.selectors.hierarchical, "BLOCK_BYTES", 4 * 4 * 40 * 3)  # three batches are read at once
    for rows in (mapped, store, torch.from_numpy(c)):
        np.testing.assert_allclose(Sava(batch_size=40).values(problem(rows, t, of_c, of_t, ids)), expected, atol=1e-6)


def test_threads_are_left_as_they_were_and_change_nothing():
    c, t, of_c, of_t = example()
    before = torch.get_num_threads()
    try:
        values = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            values.append(Sava(batch_size=13).values(problem(c, t, of_c, of_t)))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(*values)


def test_wrong_labels_of_digits_are_found():
    rows, labels = load_digits(return_X_y=True)
    generator = np.random.default_rng(0)
    order = generator.permutation(len(rows))
    rows, labels = rows[order].astype(np.float32), labels[order]
    wrong = generator.random(1200) < 0.3
    noisy = np.where(wrong, (labels[:1200] + generator.integers(1, 10, 1200)) % 10, labels[:1200])
    posed = problem(rows[:1200], rows[1200:], noisy, labels[1200:])
    assert roc_auc_score(wrong, -Sava().values(posed)) > 0.9  # a random order: 0.5
    assert roc_auc_score(wrong, -Sava(batch_size=300).values(posed)) > 0.8
    assert roc_auc_score(wrong, -BatchwiseLava(batch_size=300).values(posed)) > 0.8


def test_the_smallest_inputs_work():
    one, three = np.ones((1, 2), np.float32), np.array([[0.0, 0], [1, 1], [1.5, 1.5]], np.float32)
    for selector in (Sava(batch_size=2), BatchwiseLava(batch_size=2)):
        assert np.array_equal(selector.values(problem(one, one, [0], [0])), [0.0])
        values = selector.values(problem(three, one, [3, 5, 5], [5]))
        assert values.argmax() == 1 and values.sum() == pytest.approx(0, abs=1e-6)
        same = problem(np.ones((4, 2), np.float32), np.ones((3, 2), np.float32), [0] * 4, [0] * 3)
        assert np.array_equal(selector.values(same), np.zeros(4))
    chosen = Sava(size=2, batch_size=2).select(problem(three, one, [3, 5, 5], [5]))
    assert np.array_equal(chosen.indices, [1, 2]) and chosen.selector["batch_size"] == 2


def test_what_cannot_be_used_is_refused_by_name():
    c, t, of_c, of_t = example()
    posed = problem(c, t, of_c, of_t)
    for option, bad in {
        "batch_size": 1,
        "batch_epsilon": -0.1,
        "seed": -1,
        "tolerance": 0.0,
        "label_rows": 1.5,
    }.items():
        with pytest.raises(InputError, match=option):
            Sava(**{option: bad}).values(posed)
    with pytest.raises(InputError, match="batch_size"):
        BatchwiseLava(batch_size=True).values(posed)
    for selector, name in ((Sava(), "sava"), (BatchwiseLava(), "batchwise_lava")):
        with pytest.raises(InputError, match=f"{name}.*target_labels"):
            selector.values(SelectionProblem((c,), (t,), candidate_labels=of_c))
        with pytest.raises(InputError, match=f"{name}: class 8 has 1 candidate"):
            type(selector)(min_label_count=2).values(posed)
