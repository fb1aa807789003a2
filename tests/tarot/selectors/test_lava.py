"""LAVA against a slow float64 transcription of its formulas, exact transport, and what must not change a value."""

import numpy as np
import ot
import pytest
import torch
from scipy.special import logsumexp
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

import tarot.selectors.lava
from tarot.common.errors import InputError
from tarot.selection.problem import SelectionProblem
from tarot.selectors.hierarchical import mass_gradient
from tarot.selectors.labelled import LabelCosts, labelled_spaces
from tarot.selectors.lava import Lava
from tarot.selectors.sava import Sava
from tarot.space.content import content_order
from tarot.transport import calibrated


def problem(c, t, of_c, of_t, **known):
    views = [tuple(side) if isinstance(side, list) else (side,) for side in (c, t)]
    return SelectionProblem(*views, candidate_labels=np.asarray(of_c), target_labels=np.asarray(of_t), **known)


def labelled(n, d=4, classes="abc", seed=0, noise=0.0):
    """Gaussian classes; a share `noise` of the labels is wrong. (features, labels, wrong)"""
    generator = np.random.default_rng(seed)
    which = generator.integers(0, len(classes), n)
    centres = 2 * np.random.default_rng(99).normal(size=(10, d))
    rows = (centres[which] + generator.normal(size=(n, d))).astype(np.float32)
    wrong = generator.random(n) < noise
    shift = generator.integers(1, max(2, len(classes)), n)
    return rows, np.array(list(classes))[np.where(wrong, (which + shift) % len(classes), which)], wrong


def slow_transport(cost, epsilon, a=None):
    """(value, f): Sinkhorn in the log domain, float64, until the marginals are exact."""
    n, m = cost.shape
    a = np.full(n, 1 / n) if a is None else a
    g, f = np.zeros(m), np.zeros(n)
    for _ in range(100_000):
        f_new = -epsilon * (logsumexp((g - cost) / epsilon, axis=1) - np.log(m))
        g = -epsilon * logsumexp((f_new[:, None] - cost) / epsilon + np.log(a)[:, None], axis=0)
        if np.abs(f_new - f).max() < 1e-12 * (1 + np.abs(f).max()):
            break
        f = f_new
    return a @ f + g.mean(), f


def slow_feature_cost(x, y, kind):
    squares = ((x.astype(float)[:, None] - y.astype(float)[None]) ** 2).sum(2)
    return squares / 2 if kind == "half_squared" else np.sqrt(squares)


def slow_cost(c, t, of_c, of_t, *, kind="half_squared", weight=1.0, epsilon=0.1, relative=True):
    """(C [N, M], absolute epsilon), every label distance anew for the pair of samples it is wanted for."""
    features = slow_feature_cost(c, t, kind)
    unit = 1.0
    if relative:
        unit = features.mean() if kind == "half_squared" else np.sqrt((features**2).mean())
    known = {}
    for y in set(of_c):
        for z in set(of_t):
            known[y, z] = slow_transport(features[np.ix_(of_c == y, of_t == z)], epsilon * unit)[0]
    return features + weight * np.array([[known[y, z] for z in of_t] for y in of_c]), epsilon * unit


def slow_lava(c, t, of_c, of_t, **options):
    f = slow_transport(*slow_cost(c, t, of_c, of_t, **options))[1]
    return -np.array([f[i] - np.delete(f, i).mean() for i in range(len(f))])


CASES = [
    ("half_squared", 1.0, 0.1, True),
    ("euclidean", 1.0, 0.1, True),
    ("half_squared", 0.5, 0.05, True),
    ("half_squared", 1.0, 2.0, False),
]


@pytest.mark.parametrize(("kind", "weight", "epsilon", "relative"), CASES)
def test_lava_is_a_transcription_of_its_formulas(kind, weight, epsilon, relative):
    """Also with a class that the targets lack (c), one that the candidates lack (d), and one with a single member."""
    (c, of_c, _), (t, of_t, _) = labelled(25, classes="abc"), labelled(14, classes="abd", seed=1)
    of_c[0], of_t[0] = "e", "f"
    options = {"kind": kind, "weight": weight, "epsilon": epsilon, "relative": relative}
    expected = slow_lava(c, t, of_c, of_t, **options)
    selector = Lava(
        epsilon=epsilon,
        label_epsilon=epsilon,
        label_weight=weight,
        feature_cost=kind,
        scale="mean" if relative else None,
        match_classes=False,
    )
    values = selector.values(problem(c, t, of_c, of_t))
    assert values.dtype == np.float64 and values.shape == (25,)
    np.testing.assert_allclose(values, expected, atol=2e-3 * np.abs(expected).max())
    assert abs(values.sum()) < 1e-9 * np.abs(values).sum()


@pytest.mark.parametrize(("weight", "cost"), [(1.0, 4.0), (0.5, 3.0)])
def test_congruent_and_released_label_weight(weight, cost):
    """Ledger LAVA (b): classes A at 0 and B at 2; C(A, B') = 2 + 2 = 4, and 2 + 1 = 3 with the second halving."""
    c, t = np.array([[0.0], [0], [2], [2]], dtype=np.float32), np.array([[0.0], [2]], dtype=np.float32)
    of_c, of_t = ["A", "A", "B", "B"], ["A", "B"]
    space = next(labelled_spaces(problem(c, t, of_c, of_t), LabelCosts(label_weight=weight), "lava"))
    matrix = space.cost(space.rows(np.arange(4)), space.candidate_labels, space.columns(np.arange(2)))
    np.testing.assert_allclose(matrix.numpy(), [[0, cost]] * 2 + [[cost, 0]] * 2, atol=1e-6)


def test_calibrated_gradient_is_the_change_of_transport_with_mass():
    """theory.md 5: moving h of mass onto candidate i, from all others alike, changes OT_epsilon by h cal_i."""
    c, of_c, _ = labelled(8)
    t, of_t, _ = labelled(6, seed=1)
    cost, epsilon = slow_cost(c, t, of_c, of_t)
    values = Lava(match_classes=False).values(problem(c, t, of_c, of_t))
    h = 1e-5
    for i in range(8):
        step = np.full(8, -h / 7)
        step[i] = h
        up, down = (slow_transport(cost, epsilon, 1 / 8 + s * step)[0] for s in (1, -1))
        assert -values[i] == pytest.approx((up - down) / (2 * h), abs=3e-3 * np.abs(values).max())


def test_tiny_epsilon_is_the_linear_program():
    """7 candidates and 5 targets: masses are incommensurate, so the duals of the exact transport are unique."""
    c, of_c, _ = labelled(7)
    t, of_t, _ = labelled(5, seed=1)
    features = slow_feature_cost(c, t, "half_squared")
    cost = features.copy()
    for y in set(of_c):
        for z in set(of_t):
            block = np.ix_(of_c == y, of_t == z)
            cost[block] += ot.emd2([], [], np.ascontiguousarray(features[block]))
    value, log = ot.emd2([], [], cost, log=True)
    solved = mass_gradient(torch.from_numpy(cost).float(), 1e-3 * features.mean(), 1e-6)
    assert solved.value == pytest.approx(value, rel=5e-3)
    values = Lava(epsilon=1e-3, label_epsilon=1e-3, match_classes=False).values(problem(c, t, of_c, of_t))
    expected = -(log["u"] - log["u"].mean()) * 7 / 6
    np.testing.assert_allclose(values, expected, atol=0.02 * np.abs(expected).max())


def test_the_example_of_calibration():
    """theory.md 0.2: f = (1, 2, 4) gives (-2, -0.5, 2.5); with one target f is the cost, whatever epsilon."""
    solved = mass_gradient(torch.tensor([[1.0], [2.0], [4.0]]), 0.7, 1e-4)
    np.testing.assert_allclose(solved.calibrated, [-2, -0.5, 2.5], atol=1e-6)
    assert solved.value == pytest.approx(7 / 3)


@pytest.mark.parametrize(("kind", "power"), [("half_squared", 2), ("euclidean", 1)])
def test_values_scale_with_the_features_and_do_not_see_their_origin(kind, power):
    c, of_c, _ = labelled(60, noise=0.2)
    t, of_t, _ = labelled(40, seed=1)
    selector = Lava(feature_cost=kind)
    values = selector.values(problem(c, t, of_c, of_t))
    scaled = selector.values(problem(100 * c, 100 * t, of_c, of_t))
    np.testing.assert_allclose(scaled, 100**power * values, rtol=1e-3, atol=1e-4 * 100**power * np.abs(values).max())
    moved = selector.values(problem(c + 50, t + 50, of_c, of_t))
    np.testing.assert_allclose(moved, values, atol=1e-3 * np.abs(values).max())


def test_absolute_and_relative_epsilon_are_the_same_number_in_two_units():
    c, of_c, _ = labelled(30)
    t, of_t, _ = labelled(20, seed=1)
    unit = slow_feature_cost(c, t, "half_squared").mean()
    one = Lava().values(problem(c, t, of_c, of_t))
    other = Lava(scale=None, epsilon=0.1 * unit, label_epsilon=0.1 * unit).values(problem(c, t, of_c, of_t))
    np.testing.assert_allclose(one, other, atol=1e-4 * np.abs(one).max())


def test_permuting_candidates_permutes_values_and_the_names_of_classes_do_not_matter():
    c, of_c, _ = labelled(50, noise=0.3)
    t, of_t, _ = labelled(30, seed=1)
    values = Lava().values(problem(c, t, of_c, of_t))
    order = np.random.default_rng(3).permutation(50)
    np.testing.assert_allclose(Lava().values(problem(c[order], t, of_c[order], of_t)), values[order], atol=1e-3)
    codes = {"a": 7, "b": -1, "c": 40}
    renamed = problem(c, t, [codes[y] for y in of_c], [codes[y] for y in of_t])
    np.testing.assert_allclose(Lava().values(renamed), values, atol=1e-3)


def test_wrong_labels_of_digits_are_found():
    rows, labels = load_digits(return_X_y=True)
    generator = np.random.default_rng(0)
    order = generator.permutation(len(rows))
    rows, labels = rows[order].astype(np.float32), labels[order]
    wrong = generator.random(1200) < 0.3
    noisy = np.where(wrong, (labels[:1200] + generator.integers(1, 10, 1200)) % 10, labels[:1200])
    values = Lava().values(problem(rows[:1200], rows[1200:], noisy, labels[1200:]))
    assert roc_auc_score(wrong, -values) > 0.9  # a random order: 0.5


def test_equal_candidates_have_equal_values_and_are_selected_by_index():
    c, of_c, _ = labelled(20)
    t, of_t, _ = labelled(20, seed=1)
    twice = problem(np.repeat(c, 2, axis=0), t, np.repeat(of_c, 2), of_t)
    values = Lava().values(twice)
    np.testing.assert_allclose(values[::2], values[1::2], atol=1e-9)
    same = problem(np.ones((6, 3), np.float32), np.ones((2, 3), np.float32), [0] * 6, [0] * 2)
    assert np.array_equal(Lava().values(same), np.zeros(6))
    assert np.array_equal(Lava(size=4).select(same).indices, [0, 1, 2, 3])


def test_select_takes_the_most_valuable():
    c, of_c, _ = labelled(30)
    t, of_t, _ = labelled(20, seed=1)
    posed = problem(c, t, of_c, of_t)
    chosen = Lava(ratio=0.5).select(posed)
    assert set(chosen.indices) == set(np.argsort(-Lava().values(posed))[:15])
    assert chosen.selector["class"] == "Lava" and chosen.selector["epsilon"] == 0.1


def test_several_views_are_averaged_and_any_store_of_rows_will_do(monkeypatch):
    (c, of_c, _), (t, of_t, _) = labelled(600), labelled(30, seed=1)
    (other, _, _), (other_t, _, _) = labelled(600, seed=5), labelled(30, seed=6)
    single = [Lava().values(problem(a, b, of_c, of_t)) for a, b in ((c, t), (other, other_t))]
    both = Lava().values(problem([c, other], [t, other_t], of_c, of_t))
    np.testing.assert_allclose(both, np.mean(single, axis=0), atol=1e-9)
    monkeypatch.setattr(tarot.selectors.lava, "block_size", lambda columns: 77)
    np.testing.assert_allclose(Lava().values(problem(c, t, of_c, of_t)), single[0], atol=1e-3)
    half = problem(c.astype(np.float16), torch.from_numpy(t).half(), of_c, of_t)
    assert np.corrcoef(Lava().values(half), single[0])[0, 1] > 0.9999


def test_only_so_many_rows_stand_for_a_class():
    (c, of_c, _), (t, of_t, _) = labelled(40, classes="ab"), labelled(30, classes="ab", seed=1)

    def label_costs(c, t, of_c, of_t, rows):
        options = LabelCosts(scale=None, epsilon=1.0, label_epsilon=1.0, label_rows=rows)
        return next(labelled_spaces(problem(c, t, of_c, of_t), options, "lava")).label_costs.numpy()

    everything = label_costs(c, t, of_c, of_t, None)
    np.testing.assert_allclose(label_costs(c, t, of_c, of_t, 40), everything)
    few, few_t = (
        np.concatenate([order[labels[order] == y][np.arange(3) * (labels == y).sum() // 3] for y in "ab"])
        for labels, order in ((of_c, content_order([c], "candidates")), (of_t, content_order([t], "targets")))
    )
    expected = label_costs(c[few], t[few_t], of_c[few], of_t[few_t], None)
    np.testing.assert_allclose(label_costs(c, t, of_c, of_t, 3), expected, rtol=1e-3)


def test_matched_classes_are_targets_repeated_until_the_classes_have_the_candidates_shares():
    """6 : 3 candidates and 2 : 4 targets: every target of the first class counts as 4 of the second."""
    (c, _, _), (t, _, _) = labelled(9), labelled(6, seed=1)
    of_c, of_t = np.array(list("aabaababa")), np.array(list("abbabb"))
    repeats = np.where(of_t == "a", 4, 1)
    options = {"scale": None, "epsilon": 0.7, "label_epsilon": 0.7, "tolerance": 1e-7}
    matched = Lava(**options).values(problem(c, t, of_c, of_t))
    plain = Lava(match_classes=False, **options)
    repeated = plain.values(problem(c, t.repeat(repeats, axis=0), of_c, of_t.repeat(repeats)))
    np.testing.assert_allclose(matched, repeated, rtol=1e-4, atol=1e-5)
    assert np.abs(matched - plain.values(problem(c, t, of_c, of_t))).max() > 0.1


def test_classes_that_one_side_lacks_take_what_the_others_leave():
    """6 a and 3 z, 2 a and 4 b: what matches weighs 6 : 0.5 among the targets, and z is served by them."""
    (c, _, _), (t, _, _) = labelled(9), labelled(6, seed=1)
    of_c, of_t = np.array(list("aazaazaza")), np.array(list("abbabb"))
    space = next(labelled_spaces(problem(c, t, of_c, of_t), LabelCosts(), "lava"))
    masses = space.masses(space.candidate_labels, np.arange(6))
    np.testing.assert_allclose(masses, np.where(of_t == "a", 6 / 2, 0.5 / 4) / 6.5)
    assert np.isfinite(Lava().values(problem(c, t, of_c, of_t))).all()
    with pytest.warns(UserWarning, match="no class in common"):
        values = Lava().values(problem(c, t, np.where(of_c == "a", "x", "z"), of_t))
    assert np.isfinite(values).all()


def slow_annealing(x, y, cost, epsilon):
    """geomloss's loop for p = 2, scaling = 0.5, debias = False, line by line: f, g of uniform measures."""
    n, m = cost.shape
    rows = np.concatenate([x, y]).astype(float)
    diameter = np.linalg.norm(rows.max(0) - rows.min(0))
    between = np.exp(np.arange(2 * np.log(diameter), np.log(epsilon), 2 * np.log(0.5)))

    def softmin(eps, c, h):
        return -eps * logsumexp(h[None, :] - c / eps, axis=1)

    a, b = np.full(n, -np.log(n)), np.full(m, -np.log(m))
    g, f = softmin(diameter**2, cost.T, a), softmin(diameter**2, cost, b)
    for eps in [diameter**2, *between, epsilon]:
        new_g, new_f = softmin(eps, cost.T, a + f / eps), softmin(eps, cost, b + g / eps)
        g, f = 0.5 * (g + new_g), 0.5 * (f + new_f)
    return softmin(epsilon, cost, b + g / epsilon), softmin(epsilon, cost.T, a + f / epsilon)


@pytest.mark.parametrize("epsilon", [0.1, 3.0])
def test_the_released_variant_is_a_transcription_of_its_annealing(epsilon):
    (c, of_c, _), (t, of_t, _) = labelled(25, classes="abc"), labelled(14, classes="abd", seed=1)
    features = slow_feature_cost(c, t, "half_squared")
    cost = features.copy()
    for y in set(of_c):
        for z in set(of_t):
            pair = np.ix_(of_c == y, of_t == z)
            f, g = slow_annealing(c[of_c == y], t[of_t == z], features[pair], epsilon)
            cost[pair] += (f.mean() + g.mean()) / 2
    f, _ = slow_annealing(c, t, cost, epsilon)
    selector = Lava(variant="released", epsilon=epsilon, label_epsilon=epsilon)
    values = selector.values(problem(c, t, of_c, of_t))
    expected = -calibrated(f)
    np.testing.assert_allclose(values, expected, atol=1e-4 * np.abs(expected).max())
    idle = Lava(variant="released", epsilon=epsilon, label_epsilon=epsilon, scale=None, match_classes=False)
    assert np.array_equal(idle.values(problem(c, t, of_c, of_t)), values)
    one_batch = Sava(variant="released", epsilon=epsilon, label_epsilon=epsilon)
    np.testing.assert_allclose(one_batch.values(problem(c, t, of_c, of_t)), values, atol=1e-4)


def test_matched_classes_find_more_wrong_labels_where_classes_differ_in_size():
    digits = load_digits()
    rows, found = (digits.data / 16).astype(np.float32), []
    for seed in range(2):
        generator = np.random.default_rng(seed)
        chosen = generator.permutation(len(rows))[:800]
        pool, targets = chosen[:600], chosen[600:]
        wrong = generator.random(600) < 0.3
        labels = np.where(wrong, (digits.target[pool] + generator.integers(1, 10, 600)) % 10, digits.target[pool])
        seen = problem(rows[pool], rows[targets], labels, digits.target[targets])
        found.append([roc_auc_score(wrong, -Lava(match_classes=m).values(seen)) for m in (False, True)])
    plain, matched = np.array(found).T
    assert (matched > plain).all() and matched.mean() > 0.92


def test_unit_norm_rows_are_an_option():
    (c, of_c, _), (t, of_t, _) = labelled(30), labelled(20, seed=1)
    lengths = np.random.default_rng(0).uniform(1, 9, (30, 1)).astype(np.float32)
    values = [Lava(normalise=True).values(problem(rows, t, of_c, of_t)) for rows in (c, lengths * c)]
    np.testing.assert_allclose(values[0], values[1], atol=1e-4 * np.abs(values[0]).max())


def test_the_smallest_inputs_work():
    one, two = np.ones((1, 2), np.float32), np.array([[0.0, 0], [1, 1]], np.float32)
    assert np.array_equal(Lava().values(problem(one, one, [0], [0])), [0.0])
    assert np.array_equal(Lava().values(problem(one, two, [0], [0, 1])), [0.0])
    far, near = Lava().values(problem(two, one, [3, 5], [5]))
    assert near > 0 > far


def test_what_cannot_be_used_is_refused_by_name(monkeypatch):
    (c, of_c, _), (t, of_t, _) = labelled(30), labelled(20, seed=1)
    for option, bad in {
        "epsilon": 0.0,
        "label_epsilon": -1.0,
        "label_weight": float("nan"),
        "feature_cost": "cosine",
        "scale": "max",
        "label_rows": 0,
        "min_label_count": 0.5,
    }.items():
        with pytest.raises(InputError, match=option):
            Lava(**{option: bad}).values(problem(c, t, of_c, of_t))
    with pytest.raises(InputError, match="candidate_labels"):
        Lava().values(SelectionProblem((c,), (t,), target_labels=of_t))
    with pytest.raises(InputError, match="target_labels"):
        Lava().values(SelectionProblem((c,), (t,), candidate_labels=of_c))
    names = np.where(np.arange(30) == 4, "rare", of_c)
    with pytest.raises(InputError, match=r"class 'rare' has 1 candidate, .*min_label_count=2"):
        Lava(min_label_count=2).values(problem(c, t, names, of_t))
    with pytest.raises(InputError, match=r"row 3 column 1 is nan"):
        Lava().values(problem(np.where(np.arange(120).reshape(30, 4) == 13, np.nan, c), t, of_c, of_t))
    monkeypatch.setattr(tarot.selectors.lava, "memory_limit", lambda: 9000)
    with pytest.raises(InputError, match=r"30 x 20 pairs, .* GB.*sava"):
        Lava().values(problem(c, t, of_c, of_t))
