"""Methods that look at all cosines: small examples, brute force, and what is held against what is computed again."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import ot
import pytest

import tarot
from tarot.selection import SelectionProblem
from tarot.selectors import Bids, DoublyGreedy, FacilityLocation, RoundRobin, Uot, similarities
from tarot.selectors.facility_location import covering
from tarot.selectors.similarities import Similarities
from tarot.transport import ConvergenceError

GREEDY = (RoundRobin, DoublyGreedy, FacilityLocation, Bids, Uot)


def directions(*degrees: float) -> np.ndarray:
    """Unit rows in the plane, float32."""
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def rows(n: int, m: int, seed: int, d: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    both = rng.normal(size=(n + m, d))
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    return both[:n].astype(np.float32), both[n:].astype(np.float32)


def chosen(selector, candidates, targets, **known) -> list[int]:
    return tarot.select(candidates, targets, selector, **known).indices.tolist()


# --- round robin and doubly greedy -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "expected"), [(2, {0, 2}), (3, {0, 1, 2}), (4, {0, 1, 2, 3})])
def test_targets_take_turns(size, expected):
    candidates, targets = directions(0, 10, 100, 110), directions(0, 100)
    assert {*chosen(RoundRobin(size=size), candidates, targets)} == expected


def test_doubly_greedy_does_not_care_how_many_targets_stand_in_one_place():
    candidates = directions(0, 10, 100, 110)
    for targets in (directions(0, 100), directions(0, 0, 100)):
        assert {*chosen(DoublyGreedy(size=2), candidates, targets)} == {0, 2}


def by_turns(cosines: np.ndarray, size: int, order: list[int]) -> list[int]:
    """One turn after another, by looking at everything that is left."""
    left, taken = set(range(len(cosines))), []
    for turn in range(size):
        target = order[turn % len(order)]
        taken.append(max(sorted(left), key=lambda i: cosines[i, target]))
        left.remove(taken[-1])
    return taken


@pytest.mark.parametrize("seed", range(4))
def test_round_robin_is_the_obvious_loop(seed):
    candidates, targets = rows(40, 7, seed)
    cosines = candidates.astype(float) @ targets.T.astype(float)
    for size in (1, 5, 23, 40):
        found = chosen(RoundRobin(size=size), candidates, targets)
        assert sorted(found) == sorted(by_turns(cosines, size, list(range(7))))


def test_groups_take_turns_before_their_targets():
    candidates, targets = rows(40, 4, 0)
    cosines = candidates.astype(float) @ targets.T.astype(float)
    groups = np.array(["b", "a", "b", "b"])
    order = [0, 1, 2, 1, 3, 1]  # b's targets in turn; a's only one each time
    for size in (2, 3, 9, 17):
        found = chosen(RoundRobin(size=size), candidates, targets, target_groups=groups)
        assert sorted(found) == sorted(by_turns(cosines, size, order))


def test_round_robin_looks_deeper_where_targets_agree(monkeypatch):
    candidates, targets = rows(300, 3, 0)
    targets = np.repeat(targets[:1], 3, axis=0)
    cosines = candidates.astype(float) @ targets.T.astype(float)
    monkeypatch.setattr("tarot.selection.problem.WHOLE_TABLE", 0)  # as where the pool is large
    found = chosen(RoundRobin(size=150), candidates, targets)
    assert sorted(found) == sorted(np.argsort(-cosines[:, 0])[:150].tolist())


# --- facility location -----------------------------------------------------------------------------------------------


def coverage(cosines: np.ndarray, subset) -> float:
    return float(np.maximum(cosines[list(subset)], 0).max(axis=0).sum())


@pytest.mark.parametrize("seed", range(5))
def test_facility_location_is_the_brute_force_greedy_and_near_the_optimum(seed):
    candidates, targets = rows(10, 6, seed)
    cosines = candidates.astype(float) @ targets.T.astype(float)
    greedy: list[int] = []
    for size in range(1, 5):
        gains = [coverage(cosines, [*greedy, i]) if i not in greedy else -1 for i in range(10)]
        greedy.append(int(np.argmax(gains)))
        selection = tarot.select(candidates, targets, FacilityLocation(size=size))
        assert sorted(selection.indices.tolist()) == sorted(greedy)
        assert selection.curve["covered"][-1] == pytest.approx(coverage(cosines, greedy), abs=1e-5)
        best = max(coverage(cosines, subset) for subset in combinations(range(10), size))
        assert selection.curve["covered"][-1] >= (1 - 1 / np.e) * best


def test_where_nothing_adds_anything_the_rest_are_those_of_highest_mean():
    candidates, targets = directions(0, 180, 80, 20, 60), directions(0)
    assert chosen(FacilityLocation(size=3), candidates, targets) == [0, 3, 4]


# --- BIDS ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_bids_is_the_obvious_loop(seed):
    candidates, targets = rows(30, 3, seed)
    cosines = candidates.astype(float) @ targets.T.astype(float)
    influence = (cosines - cosines.mean(0)) / cosines.std(0)
    taken: list[int] = []
    for size in range(1, 13):
        average = influence[taken].mean(0) if taken else np.zeros(3)
        lead = (influence - average).max(axis=1)
        lead[taken] = -np.inf
        taken.append(int(np.argmax(lead)))
        assert sorted(chosen(Bids(size=size), candidates, targets)) == sorted(taken)


def test_a_target_that_all_candidates_are_alike_to_counts_for_nothing():
    candidates, targets = rows(20, 2, 0, d=3)
    candidates, targets = (np.pad(side, ((0, 0), (0, 1))) for side in (candidates, targets))
    alone = chosen(Bids(size=6), candidates, targets)
    apart = np.concatenate([targets, [[0, 0, 0, 1]]]).astype(np.float32)  # at a right angle to every candidate
    rest = chosen(Bids(size=1), candidates, apart)
    assert rest == chosen(Bids(size=1), candidates, targets) and rest[0] in alone


# --- unbalanced transport --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rho", "epsilon"), [(1e-4, 0.01), (0.1, 0.05), (5.0, 0.1)])
def test_masses_are_pots(rho, epsilon):
    candidates, targets = rows(30, 6, 0)
    cost = (1 - candidates.astype(float) @ targets.T.astype(float)) / 2
    uniform = np.full(30, 1 / 30), np.full(6, 1 / 6)
    expected = ot.unbalanced.sinkhorn_unbalanced(
        *uniform, cost, epsilon, (rho, float("inf")), reg_type="kl", method="sinkhorn_stabilized",
        numItermax=100_000, stopThr=1e-13,
    ).sum(axis=1)  # fmt: skip
    found = tarot.value(candidates, targets, Uot(size=5, rho=rho, epsilon=epsilon, tolerance=1e-9))
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert found.sum() == pytest.approx(1, abs=1e-9)


def test_a_high_price_balances_the_masses():
    candidates, targets = rows(40, 8, 0)
    masses = tarot.value(candidates, targets, Uot(size=5, rho=1e4, epsilon=0.05, tolerance=1e-9))
    np.testing.assert_allclose(masses, 1 / 40, rtol=1e-3)


def test_costs_of_one_are_no_zeros_at_a_small_epsilon():
    """exp(-1 / .01) is less than the smallest float32."""
    candidates, targets = directions(180, 180.5, 181), directions(0, 1)
    masses = tarot.value(candidates, targets, Uot(size=1))
    assert np.isfinite(masses).all() and masses.sum() == pytest.approx(1, abs=1e-5)


def test_what_does_not_converge_is_refused():
    with pytest.raises(ConvergenceError, match="after 2 passes masses still change"):
        tarot.value(*rows(40, 8, 0), Uot(size=5, rho=1.0, epsilon=0.01, max_iterations=2))


# --- all of them -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("selector", [FacilityLocation, Bids, Uot, DoublyGreedy, RoundRobin])
def test_a_pool_that_is_not_held_gives_the_same(selector, monkeypatch):
    candidates, targets = rows(200, 9, 3)
    candidates[[3, 50]] = 0
    held = chosen(selector(size=40), candidates, targets)
    assert not {3, 50} & {*held}
    monkeypatch.setattr(similarities, "HELD", 0)
    for where in ("tarot.features.arrays", "tarot.selectors.similarities", "tarot.selectors.uot"):
        monkeypatch.setattr(f"{where}.block_size", lambda *_: 32)
    assert chosen(selector(size=40), candidates, targets) == held


def test_few_gains_are_computed_anew(monkeypatch):
    of_problem = Similarities(SelectionProblem(*rows(2000, 20, 0, d=16), whitening=None))
    asked: list[int] = []
    of = of_problem.of
    monkeypatch.setattr(of_problem, "of", lambda some: asked.extend(some) or of(some))
    covering(of_problem, 100)
    assert len(asked) < 0.1 * 2000 * 100
