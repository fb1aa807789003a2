"""LESS and TracIn against their formulas written out; every example of theory.md 2 and 7.2 about them."""

import dataclasses

import numpy as np
import pytest
import torch

from tarot.attribution.scores import dsdm_scores, graddot_scores, less_scores, tracin_scores, tracin_values
from tarot.common.errors import InputError
from tarot.selection.problem import SelectionProblem
from tarot.selectors.less import Less
from tarot.selectors.tracin import TracIn

N, M, D, T = 40, 9, 6, 3
RATES = (1.6877e-5, 1.2859e-5, 7.7030e-6)
GROUPS = np.array(["b", "a", "b", "c", "b", "b", "a", "b", "b"])  # of sizes 2, 6, 1


@pytest.fixture
def views():
    rng = np.random.default_rng(0)
    candidates = [rng.normal(size=(N, D)).astype(np.float32) for _ in range(T)]
    targets = [(rng.normal(size=(M, D)) * 10 ** rng.uniform(-1, 1, (M, 1))).astype(np.float32) for _ in range(T)]
    return candidates, targets


def cos(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def direct_less(candidates, targets, rates, groups, variant):
    """The formula, one number at a time."""
    names = sorted(set(groups))
    scores = np.zeros((len(candidates[0]), len(names)))
    for i in range(len(candidates[0])):
        for j, name in enumerate(names):
            for z, x, rate in zip(candidates, targets, rates, strict=True):
                members = x[groups == name].astype(np.float64)
                if variant == "paper":
                    scores[i, j] += rate * cos(members.mean(0), z[i])
                else:
                    scores[i, j] += rate / sum(rates) * np.mean([cos(member, z[i]) for member in members])
    return scores


def problem(candidates, targets, **more):
    as_views = lambda side: tuple(side) if isinstance(side, list) else (np.asarray(side, np.float32),)  # noqa: E731
    return SelectionProblem(as_views(candidates), as_views(targets), **more)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_less_is_its_formula_with_subtasks_of_unequal_size(views, variant):
    scores = less_scores(*views, RATES, GROUPS, variant=variant)
    assert scores.dtype == np.float64 and scores.shape == (N, 3)
    wanted = direct_less(*views, RATES, GROUPS, variant)
    np.testing.assert_allclose(scores, wanted, atol=1e-6 * abs(wanted).max())
    values = Less(size=5, variant=variant).values(problem(*views, target_groups=GROUPS, learning_rates=RATES))
    np.testing.assert_allclose(values, wanted.max(1), atol=1e-6 * abs(wanted).max())


def test_without_groups_all_targets_are_one_subtask(views):
    one = less_scores(*views, RATES)
    assert one.shape == (N, 1)
    np.testing.assert_array_equal(one, less_scores(*views, RATES, np.zeros(M, int)))
    np.testing.assert_allclose(less_scores(*views)[:, 0], less_scores(*views, [1 / T] * T)[:, 0])


def test_L22_less_takes_the_maximum_over_subtasks_where_a_mean_takes_another():
    """Subtasks A = (1, 0), B = (0, 1); candidate 0 is (1, 0), candidate 1 is (.6, .6)."""
    candidates, targets, groups = np.array([[1, 0], [0.6, 0.6]]), np.array([[1, 0], [0, 1]]), ["A", "B"]
    scores = less_scores(candidates, targets, groups=groups)
    np.testing.assert_allclose(scores, [[1, 0], [0.5**0.5, 0.5**0.5]], atol=1e-7)
    seen = problem(candidates, targets, target_groups=np.array(groups))
    assert Less(size=1).select(seen).indices.tolist() == [0]
    assert scores.mean(1).argmax() == 1
    mean_of_scores = dsdm_scores(candidates, targets, regularization=1e6)
    assert mean_of_scores.argmax() == 1  # DsDm, the mean over targets, picks the other


def test_paper_averages_gradients_and_released_code_cosines():
    """Ledger LESS (b): target gradients (10, 0), (0, 1) and z = (1, 0)."""
    z, targets = np.array([[1.0, 0.0]]), np.array([[10.0, 0.0], [0.0, 1.0]])
    assert less_scores(z, targets)[0, 0] == pytest.approx(0.995, abs=5e-4)
    assert less_scores(z, targets, variant="released")[0, 0] == pytest.approx(0.5)


def test_released_learning_rates_are_normalised(views):
    """The four checkpoints' rates of theory.md 2: their size does not matter, their ratios do."""
    rates = [1.6877e-5, 1.2859e-5, 7.7030e-6, 2.5616e-6]
    four = [[*side, side[0][::-1].copy()] for side in views]
    scores = less_scores(*four, rates, GROUPS, variant="released")
    np.testing.assert_allclose(scores, less_scores(*four, [1e3 * r for r in rates], GROUPS, variant="released"))
    paper = less_scores(*four, rates, GROUPS)
    np.testing.assert_allclose(1e3 * paper, less_scores(*four, [1e3 * r for r in rates], GROUPS))
    assert np.ptp(less_scores(*four, [1, 0, 0, 0], GROUPS) - less_scores(four[0][0], four[1][0], [1], GROUPS)) == 0


def test_the_maximum_is_taken_after_the_sum_over_checkpoints():
    """Ledger LESS (f): +1 and -1 on subtask A, 0.2 twice on B: B wins."""
    angle = np.array([[0.2, 0.96**0.5]])
    checkpoints = [np.array([[1.0, 0.0]]), np.array([[-1.0, 0.0]])]
    targets = [np.concatenate([[[1.0, 0.0]], sign * angle]) for sign in (1, -1)]
    scores = less_scores(checkpoints, targets, [0.5, 0.5], ["A", "B"])
    np.testing.assert_allclose(scores, [[0, 0.2]], atol=1e-7)


def test_a_released_selection_is_the_floor_of_the_share(views):
    chosen = Less(ratio=0.18).select(problem(*views, target_groups=GROUPS, learning_rates=RATES))
    assert len(chosen.indices) == 7 and set(chosen.weights) == {1}  # floor(.18 * 40)
    best = np.argsort(-direct_less(*views, RATES, GROUPS, "paper").max(1), kind="stable")[:7]
    assert chosen.indices.tolist() == sorted(best)


@pytest.mark.parametrize("selector", [Less(size=6), Less(size=6, variant="released"), TracIn(size=6)])
def test_order_of_candidates_does_not_matter_and_ties_go_to_the_first(views, selector):
    candidates, targets = views
    more = {"target_groups": GROUPS, "learning_rates": RATES}
    values = selector.values(problem(candidates, targets, **more))
    order = np.random.default_rng(1).permutation(N)
    np.testing.assert_allclose(
        selector.values(problem([z[order] for z in candidates], targets, **more)), values[order], rtol=1e-6
    )
    np.testing.assert_array_equal(selector.values(problem(candidates, targets, **more)), values)
    copies = problem([np.repeat(z[:1], 8, 0) for z in candidates], targets, **more)
    assert selector.select(copies).indices.tolist() == [0, 1, 2, 3, 4, 5]


def test_rows_are_read_by_blocks(views, monkeypatch):
    """No candidate is read beyond its block, and blocks change nothing."""
    whole = less_scores(*views, RATES, GROUPS), tracin_values(*views, RATES), tracin_scores(*views, RATES)
    monkeypatch.setattr("tarot.features.arrays.block_size", lambda columns, block_bytes=0: 7)
    largest = []

    class Streamed:
        def __init__(self, rows):
            self.rows, self.shape, self.dtype = rows, rows.shape, rows.dtype

        def __getitem__(self, index):
            largest.append(index.stop - index.start)
            return self.rows[index]

    streamed = [[Streamed(view) for view in side] for side in views]
    blocked = less_scores(*streamed, RATES, GROUPS), tracin_values(*streamed, RATES), tracin_scores(*streamed, RATES)
    assert max(largest) == 7
    for a, b in zip(whole, blocked, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * abs(a).max())


def test_half_precision_one_candidate_and_one_target(views):
    candidates, targets = views
    halves = [[view.astype(np.float16) for view in side] for side in views]
    np.testing.assert_allclose(
        less_scores(*halves, None, GROUPS), less_scores(candidates, targets, None, GROUPS), atol=5e-3
    )
    tiny = problem([candidates[0][:1]], [targets[0][:1]])
    for selector in Less(size=1), TracIn(size=1):
        assert selector.select(tiny).indices.tolist() == [0]
    tensors = [[torch.from_numpy(view) for view in side] for side in views]
    np.testing.assert_array_equal(less_scores(*tensors, RATES, GROUPS), less_scores(*views, RATES, GROUPS))


def test_zero_rows_come_last(views):
    candidates, targets = views
    candidates = [view.copy() for view in candidates]
    for view in candidates:
        view[3] = 0
    candidates[0][5] = 0  # at one checkpoint only: it counts by the others
    scores = less_scores(candidates, targets, RATES, GROUPS)
    assert (scores[3] == -sum(RATES)).all() and scores[3].max() < scores[np.arange(N) != 3].min()
    others = less_scores(candidates[1:], targets[1:], RATES[1:], GROUPS)
    np.testing.assert_allclose(scores[5], others[5], rtol=1e-6)
    assert tracin_values(candidates, targets, RATES)[3] == 0


def test_subtasks_without_a_direction_are_left_out_and_said():
    z, groups = np.array([[-1.0, -0.1], [-1.0, 0.1]]), ["A", "B", "B"]
    targets = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])  # B's gradients cancel
    with pytest.warns(UserWarning, match="subtasks B: they are left out"):
        scores = less_scores(z, targets, groups=groups)
    assert scores[:, 1].tolist() == [-1, -1] and (scores.max(1) == scores[:, 0]).all()
    with pytest.raises(InputError, match="every subtask's mean gradient is zero"):
        less_scores(z, targets[1:], groups=["B", "B"])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"learning_rates": [1.0]}, r"one per checkpoint, 3; their shape is \[1\]"),
        ({"learning_rates": [1.0, -1.0, 1.0]}, "not negative"),
        ({"learning_rates": [1.0, np.nan, 1.0]}, "finite"),
        ({"learning_rates": [0.0, 0.0, 0.0]}, "not all zero"),
        ({"groups": [1, 2]}, r"subtask of each of the 9 targets; their shape is \[2\]"),
        ({"variant": "mean"}, '"paper" or "released"'),
    ],
)
def test_less_refuses(views, arguments, message):
    with pytest.raises(InputError, match=message):
        less_scores(*views, **arguments)


def test_views_that_do_not_belong_together_are_refused(views):
    candidates, targets = views
    for scores in less_scores, tracin_scores, tracin_values:
        with pytest.raises(InputError, match="3 models and targets of 2"):
            scores(candidates, targets[:2])
        with pytest.raises(InputError, match="6 feature dimensions and targets 5"):
            scores(candidates, [x[:, :5] for x in targets])
    with pytest.raises(InputError, match="one per checkpoint"):
        tracin_values(candidates, targets, [1.0])


# --- TracIn ----------------------------------------------------------------------------------------------------------


def test_tracin_is_its_formula(views):
    candidates, targets = views
    wanted = sum(
        rate * z.astype(np.float64) @ x.T.astype(np.float64)
        for rate, z, x in zip(RATES, candidates, targets, strict=True)
    )
    scores = tracin_scores(candidates, targets, RATES)
    assert scores.shape == (N, M)
    np.testing.assert_allclose(scores, wanted, atol=1e-6 * abs(wanted).max())
    values = tracin_values(candidates, targets, RATES)
    assert values.dtype == np.float64
    np.testing.assert_allclose(values, wanted.sum(1), atol=2e-6 * abs(wanted.sum(1)).max())
    np.testing.assert_array_equal(TracIn(size=3).values(problem(*views, learning_rates=RATES)), values)
    np.testing.assert_allclose(tracin_scores(*views), graddot_scores(*views), rtol=1e-5, atol=1e-4)


def test_L26_tracin_is_what_a_small_step_on_the_candidate_takes_off_the_targets_loss():
    """Its sign and its size: loss(x; th - eta grad l(z)) = loss(x) - eta <grad l(z), grad l(x)> + ..."""
    rng = np.random.default_rng(2)
    weight = rng.normal(size=4)
    inputs, labels = rng.normal(size=(7, 4)), rng.normal(size=7)

    def loss(w, i):
        return (inputs[i] @ w - labels[i]) ** 2 / 2

    gradients = (inputs @ weight - labels)[:, None] * inputs
    rate = 1e-5
    scores = tracin_scores(gradients[:4], gradients[4:], [rate])
    for i in range(4):
        for j in range(3):
            fall = loss(weight, 4 + j) - loss(weight - rate * gradients[i], 4 + j)
            assert fall == pytest.approx(scores[i, j], rel=1e-2, abs=1e-9)


# --- the selectors as configuration ----------------------------------------------------------------------------------


def test_options_are_fields_and_recipes_are_not():
    assert [f.name for f in dataclasses.fields(Less)] == ["size", "ratio", "tokens", "quota", "cap", "variant"]
    assert [f.name for f in dataclasses.fields(TracIn)] == ["size", "ratio", "tokens", "quota", "cap"]
    assert (Less.features, TracIn.features) == ("less", "gradients")
