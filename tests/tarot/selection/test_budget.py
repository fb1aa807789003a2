"""Budgets of candidates and of tokens, quotas and caps by source, and shares of groups of targets."""

from __future__ import annotations

import numpy as np
import pytest

import tarot
from tarot import InputError
from tarot.selection import Budget, SelectionProblem
from tarot.selection.budget import Allowance
from tarot.selectors import SELECTORS, Ordered, Random

N, M = 60, 6
rng = np.random.default_rng(0)
CANDIDATES, TARGETS = rng.normal(size=(N, 8)), rng.normal(size=(M, 8))
COSTS = rng.integers(1, 20, N).astype(float)
SOURCES = np.array(["a", "b", "c"])[np.arange(N) % 3]
GROUPS = np.array(["x", "x", "x", "x", "y", "y"])
ORDERED = ["tarot_fixed", "less", "dsdm", "prototypes", "random", "el2n"]
SCORES = rng.random(N)  # what el2n goes by
KNOWN = {
    "candidate_costs": COSTS,
    "candidate_sources": SOURCES,
    "candidate_scores": SCORES,
    "whitening": None,
}


def select(name: str, **options):
    known = {key: options.pop(key) for key in ("target_groups", "group_weights") if key in options}
    return tarot.select(CANDIDATES, TARGETS, name, **KNOWN, **known, **options)


def of_source(selection, source: str) -> int:
    return int((SOURCES[selection.indices] == source).sum())


@pytest.mark.parametrize("name", ORDERED)
def test_tokens_are_the_beginning_of_the_order(name):
    """The next candidate of the order would be too much."""
    selection = select(name, tokens=150.0)
    assert 150 - 19 < COSTS[selection.indices].sum() <= 150
    more = select(name, tokens=170.0)
    assert set(selection.indices) <= set(more.indices)
    if name in ("less", "dsdm", "prototypes", "el2n"):
        values = tarot.value(CANDIDATES, TARGETS, name, candidate_scores=SCORES)
        order = np.argsort(-values, kind="stable")
        count = int((COSTS[order].cumsum() <= 150).sum())
        assert selection.indices.tolist() == sorted(order[:count].tolist())


@pytest.mark.parametrize("name", ORDERED)
def test_a_budget_of_ones_is_a_size(name):
    one = select(name, size=17)
    other = tarot.select(CANDIDATES, TARGETS, name, tokens=17.0, **{**KNOWN, "candidate_costs": np.ones(N)})
    if name == "random":  # draws otherwise
        assert len(other) == 17
    else:
        assert one.indices.tolist() == other.indices.tolist()


@pytest.mark.parametrize("name", ORDERED)
@pytest.mark.parametrize(("quota", "size", "expected"), [
    ({"a": 0.5}, 20, {"a": 10}),
    ({"a": 0.0}, 20, {"a": 0}),
    ({"a": 0.25, "b": 0.25, "c": 0.5}, 21, {"a": 5, "b": 5, "c": 11}),
    ({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, 20, {}),
])  # fmt: skip
def test_a_quota_is_what_a_source_has(name, quota, size, expected):
    selection = select(name, size=size, quota=quota)
    assert len(selection) == size
    assert {source: of_source(selection, source) for source in expected} == expected
    if not expected:
        assert sorted(of_source(selection, source) for source in "abc") == [6, 7, 7]


@pytest.mark.parametrize("name", ORDERED)
def test_a_cap_is_the_most_that_a_source_has(name):
    selection = select(name, size=20, cap={"a": 0.1, "b": 0.2})
    assert len(selection) == 20 and of_source(selection, "a") <= 2 and of_source(selection, "b") <= 4
    tokens = select(name, tokens=200.0, cap={"a": 0.1})
    assert COSTS[tokens.indices][SOURCES[tokens.indices] == "a"].sum() <= 20
    free = select(name, size=20, cap={"a": 1.0})
    if name != "random":
        assert free.indices.tolist() == select(name, size=20).indices.tolist()


def test_within_a_source_the_order_stays():
    values = tarot.value(CANDIDATES, TARGETS, "less")
    selection = select("less", size=20, quota={"b": 0.7})
    for chosen, others in ((SOURCES == "b", 14), (SOURCES != "b", 6)):
        places = np.flatnonzero(chosen)
        best = places[np.argsort(-values[places], kind="stable")[:others]]
        assert sorted(best) == [i for i in selection.indices if chosen[i]]


def test_a_window_is_a_part_of_the_order():
    """Of which a budget takes the beginning."""
    window = select("el2n", window=(0.25, 0.75))
    assert len(window) == N // 2
    some = select("el2n", window=(0.25, 0.75), tokens=100.0)
    assert 100 - 19 < COSTS[some.indices].sum() <= 100 and set(some.indices) <= set(window.indices)
    assert SCORES[some.indices].max() < SCORES[np.setdiff1d(window.indices, some.indices)].max()
    with pytest.raises(InputError, match="are left when all usable candidates are taken"):
        select("el2n", window=(0.25, 0.75), tokens=COSTS.sum() - 1)


def test_draws_cost_what_is_drawn():
    """A candidate that is drawn twice is trained on twice; quotas and caps are of the draws, too."""
    drawn = select("tsds", tokens=400.0)
    assert 400 - 19 < COSTS[drawn.indices] @ drawn.weights <= 400 and drawn.weights.max() > 1
    counted = tarot.select(CANDIDATES, TARGETS, "tsds", tokens=40.0, **{**KNOWN, "candidate_costs": np.ones(N)})
    assert counted.weights.sum() == 40
    mixed = select("tsds", size=40, quota={"a": 0.5}, cap={"b": 0.1}, max_k=N)
    weight = {source: mixed.weights[SOURCES[mixed.indices] == source].sum() for source in "abc"}
    assert weight["a"] == 20 and weight["b"] <= 4 and sum(weight.values()) == 40


@pytest.mark.parametrize("weights", [None, {"x": 1, "y": 3}, {"x": 0, "y": 1}])
def test_draws_of_many_are_of_the_measure(weights):
    """Within what chance allows, whatever draws cost; of groups with weights it is the mean of theirs."""
    groups = {} if weights is None else {"target_groups": GROUPS, "group_weights": weights}
    drawn = tarot.select(
        CANDIDATES, TARGETS, "tsds", tokens=20_000.0, whitening=None, candidate_costs=np.full(N, 2.0), **groups
    )
    counts = np.zeros(N)
    counts[drawn.indices] = drawn.weights

    def measure(targets: np.ndarray) -> np.ndarray:
        return tarot.value(CANDIDATES, targets, "tsds", whitening=None)

    parts = {group: measure(TARGETS[group == GROUPS]) for group in "xy"}
    given = weights or {}
    expected = sum(given[g] * parts[g] for g in given) / sum(given.values()) if given else measure(TARGETS)
    assert counts.sum() == 10_000 and not counts[expected == 0].any()
    assert (np.abs(counts / 1e4 - expected) <= 3.5 * np.sqrt(expected / 1e4)).all()


def test_draws_end_where_nothing_that_is_drawn_costs_anything():
    """Candidates of a are nobody's neighbours."""
    far = np.where((SOURCES == "a")[:, None], -TARGETS.sum(axis=0), TARGETS[0] + 0.01 * CANDIDATES)
    known = {**KNOWN, "candidate_costs": np.where(SOURCES == "a", 1.0, 0.0)}
    with pytest.raises(InputError, match="the budget is 5, of which 5 are left"):
        tarot.select(far, TARGETS[:1], "tsds", tokens=5.0, **known)
    with pytest.raises(InputError, match="the quota of a is 5, of which 5 are left"):
        tarot.select(far, TARGETS[:1], "tsds", size=10, quota={"a": 0.5}, **known)


def test_the_best_subset_within_a_budget():
    """The size found is the last that the budget is enough for."""
    found = select("tarot_exact", tokens=150.0, swaps=5)
    size = len(found)
    same, more = (select("tarot_exact", size=count, swaps=5) for count in (size, size + 1))
    assert found.indices.tolist() == same.indices.tolist() and found.lower_bound == same.lower_bound
    assert COSTS[found.indices].sum() <= 150 < COSTS[more.indices].sum()


def test_what_chooses_its_own_size_stays_below_a_budget():
    """As it is where that is enough; else the nearest of it."""
    own = select("tarot_otm", folds=3)
    cost = COSTS[own.indices].sum()
    enough = select("tarot_otm", folds=3, tokens=cost)
    assert enough.indices.tolist() == own.indices.tolist() and "before_tokens" not in enough.selector
    less = select("tarot_otm", folds=3, tokens=cost / 2)
    assert set(less.indices) < set(own.indices) and cost / 2 - 19 < COSTS[less.indices].sum() <= cost / 2
    assert less.selector["before_tokens"] == len(own) and less.weights.sum() == N
    whole = select("tarot_fixed", tokens=cost / 2)  # the first layers of all targets are layers of every fold
    assert set(whole.indices) == set(less.indices)
    with pytest.raises(InputError, match="less than its first candidate"):
        select("tarot_otm", tokens=0.5)
    with pytest.raises(InputError, match="needs candidate_costs"):
        tarot.select(CANDIDATES, TARGETS, "tarot_otm", tokens=9.0)


@pytest.mark.parametrize("name", ["tarot_fixed", "less", "dsdm"])
def test_groups_have_their_shares(name):
    """With all of the weight at one group the selection is that of its targets alone."""
    given = {"target_groups": GROUPS}
    alone = tarot.select(CANDIDATES, TARGETS[4:], name, size=12, whitening=None, candidate_costs=COSTS)
    all_to_y = select(name, size=12, group_weights={"x": 0, "y": 3}, **given)
    assert all_to_y.indices.tolist() == alone.indices.tolist()
    both = select(name, size=12, group_weights={"x": 1, "y": 1}, **given)
    few = tarot.select(CANDIDATES, TARGETS[4:], name, size=6, whitening=None)
    assert len(both) == 12 and len(set(few.indices) & set(both.indices)) >= 4
    tokens = select(name, tokens=300.0, group_weights={"x": 2, "y": 1}, **given)
    assert 250 < COSTS[tokens.indices].sum() <= 300


def test_numbers_may_name_groups():
    """As they do where groups are a vector of integers, and as weights of NumPy's are."""
    named = select("less", size=12, target_groups=GROUPS, group_weights={"x": 1, "y": 3})
    numbers = np.where(GROUPS == "x", 0, 1)
    counted = select("less", size=12, target_groups=numbers, group_weights={0: np.float32(1), 1: 3})
    assert counted.indices.tolist() == named.indices.tolist()


def test_zero_rows_are_passed_over():
    candidates = CANDIDATES.copy()
    candidates[::2] = 0
    for options in ({"size": 10, "quota": {"a": 0.5}}, {"size": 10, "group_weights": {"x": 1, "y": 1}}):
        groups = {"target_groups": GROUPS} if "group_weights" in options else {}
        for name in ("less", "tarot_fixed"):
            selection = tarot.select(candidates, TARGETS, name, **KNOWN, **groups, **options)
            assert len(selection) == 10 and (selection.indices % 2 == 1).all()


BAD = {
    "two budgets": ({"size": 3, "tokens": 5.0}, "give one of size, ratio and tokens"),
    "too little": ({"tokens": 0.5}, "the budget of 0.5 is less than its first candidate"),
    "too much": ({"tokens": 1e6}, r"the budget is 1e\+06, of which .* are left when all usable candidates are taken"),
    "a quota too large": ({"size": 50, "quota": {"a": 0.9}}, "the quota of a is 45, of which 25 are left"),
    "quotas above 1": ({"size": 9, "quota": {"a": 0.9, "b": 0.2}}, "sum to 1.1"),
    "quota and cap": ({"size": 9, "quota": {"a": 0.9}, "cap": {"a": 0.9}}, "a has a quota"),
    "no such source": ({"size": 9, "quota": {"d": 0.9}}, "no candidate is of the source 'd'; there are a, b, c"),
    "caps too small": ({"size": 40, "cap": {"a": 0.1, "b": 0.1}}, "beside what is capped"),
    "a share": ({"size": 9, "cap": {"a": 2.0}}, "cap"),
    "weights without groups": ({"size": 9, "group_weights": {"x": 1}}, "no target_groups"),
    "a group unknown": ({"size": 9, "target_groups": GROUPS, "group_weights": {"x": 1, "y": 1, "z": 1}}, "'z' is no"),
    "a group forgotten": ({"size": 9, "target_groups": GROUPS, "group_weights": {"x": 1}}, "'y' has no weight"),
    "no weight": ({"size": 9, "target_groups": GROUPS, "group_weights": {"x": 0, "y": 0}}, "above 0"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_is_refused(what):
    options, words = BAD[what]
    for name in ("tarot_fixed", "less", "el2n"):
        if name == "el2n" and "group_weights" in options and "target_groups" not in options:
            continue
        with pytest.raises(InputError, match=words):
            select(name, **options)


def test_what_is_not_known_is_asked_for():
    with pytest.raises(InputError, match="needs candidate_costs"):
        tarot.select(CANDIDATES, TARGETS, "tarot_fixed", tokens=9.0)
    with pytest.raises(InputError, match="need candidate_sources"):
        tarot.select(CANDIDATES, TARGETS, "less", size=9, quota={"a": 0.5})
    with pytest.raises(InputError, match="at least 0"):
        tarot.select(CANDIDATES, TARGETS, "less", tokens=9.0, candidate_costs=-COSTS)
    with pytest.raises(InputError, match=r"TarotOTM shares out no budget; these do: .*tarot_fixed"):
        select("tarot_otm", target_groups=GROUPS, group_weights={"x": 1, "y": 1})


def test_selectors_with_an_order():
    ordered = {name for name, kind in SELECTORS.items() if issubclass(kind, Ordered)}
    assert ordered == {
        *("tarot_fixed", "less", "dsdm", "tracin", "influence", "lava", "sava", "batchwise_lava", "knn_shapley"),
        *("prototypes", "random", "el2n", "tsds"),
    }


def test_an_allowance_takes_what_fits():
    """By hand: of 10 units, at most 4 of a; what does not fit closes its part."""
    problem = SelectionProblem(
        (CANDIDATES[:6],), (TARGETS,), candidate_costs=[3, 2, 1, 4, 5, 1], candidate_sources=[*"aaabbb"]
    )
    allowance = Allowance.of(problem, Budget(tokens=10.0, cap={"a": 0.4}))
    assert allowance.take(np.array([0, 1, 2, 3])).tolist() == [0, 3] and not allowance.done
    assert allowance.may(np.array([2, 5])).tolist() == [False, True]
    assert allowance.take(np.array([4, 5])).tolist() == [] and allowance.done  # 3 are left, and 4 costs 5
    assert Random(tokens=3.0).budget() == Budget(tokens=3.0)
