"""`tarot_otm` against a slow, obvious transcription of its specification."""

import time
import warnings
from itertools import count

import numpy as np
import pytest

from tarot.common.errors import InputError
from tarot.selection.problem import SelectionProblem
from tarot.selectors import TarotOTM
from tarot.selectors import tarot_otm as otm_module
from tarot.transport.exact import Plan
from tests.tarot.selectors.problems import distance_matrix, mixture, select, uniform_ot, unit


def sides_and_distances(c, t, **options):
    """The folds of targets, as positions in an order of their content, and the distances to targets in that order."""
    problem = SelectionProblem(c, t).with_targets_in_order()
    return TarotOTM(**options)._sides(problem), distance_matrix(c, t[problem.usable_targets])


def slow_otm(distance, sides, tolerance=0.0, min_cos=None, stop="least"):
    """theory.md 1.3, line by line, with POT's exact distance."""
    union = set()
    for sel, ev in sides:
        order = np.argsort(distance[:, sel], axis=0, kind="stable")
        grown, kept, reference = set(), set(), np.inf
        for row in order:
            near = [
                i for i, j in zip(row, sel, strict=True) if min_cos is None or 1 - distance[i, j] ** 2 / 2 >= min_cos
            ]
            new = grown | {int(i) for i in near}
            if new == grown:
                continue
            now = uniform_ot(distance[np.ix_(sorted(new), ev)])
            if now > reference * (1 + tolerance + 1e-9):
                break
            grown = new
            if stop == "paper" or now <= reference * (1 + 1e-9):
                kept, reference = grown, now
        union |= kept
    return sorted(union)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("side", ["fold", "rest"])
@pytest.mark.parametrize("folds", [1, 2, 5, 12])
def test_otm_is_the_algorithm(folds, side, seed):
    c, t = mixture(60, 12, seed=seed)
    sides, distance = sides_and_distances(c, t, folds=folds, side=side, seed=seed)
    s = select(c, t, "tarot_otm", folds=folds, side=side, seed=seed)
    assert s.indices.tolist() == slow_otm(distance, sides)


@pytest.mark.parametrize("folds", [2, 3, 5, 7])
def test_folds_are_equal_disjoint_and_seeded(folds):
    problem = SelectionProblem(*mixture(20, 17))
    for side in ("fold", "rest"):
        sides = TarotOTM(folds=folds, side=side)._sides(problem)
        assert len(sides) == folds
        small = [pair[0] if side == "fold" else pair[1] for pair in sides]
        assert sorted(np.concatenate(small)) == list(range(17))
        assert max(map(len, small)) - min(map(len, small)) <= 1
        for one, other in sides:
            assert sorted([*one, *other]) == list(range(17))
    first, again, other = (TarotOTM(folds=folds, seed=s)._sides(problem) for s in (0, 0, 1))
    assert all((a[0] == b[0]).all() for a, b in zip(first, again, strict=True))
    assert any(a[0].tolist() != b[0].tolist() for a, b in zip(first, other, strict=True))


def test_one_fold_selects_and_evaluates_on_all_targets():
    c, t = mixture(60, 12)
    everyone = np.arange(12)
    assert select(c, t, "tarot_otm", folds=1).indices.tolist() == slow_otm(
        distance_matrix(c, t), [(everyone, everyone)]
    )
    single = select(c, t[:1], "tarot_otm")  # M < K: one target cannot be split
    assert single.indices.tolist() == slow_otm(distance_matrix(c, t[:1]), [(everyone[:1], everyone[:1])])


def test_otm_stops_all_folds_where_one_fails(monkeypatch):
    """As an interrupt does: what still runs would keep the process for as long as it takes."""
    calls = count()

    def never_enough(cost, g):
        call = next(calls)
        if call == 0:
            raise RuntimeError("no memory")
        time.sleep(0.01)
        return Plan(-float(call), None, None, None)

    monkeypatch.setattr("tarot.selectors.layer_judges.solve_exact", never_enough)
    c, t = np.random.default_rng(0).normal(size=(3000, 4)), np.random.default_rng(1).normal(size=(10, 4))
    with pytest.raises(RuntimeError, match="no memory"):
        select(c, t, "tarot_otm", folds=10)
    assert next(calls) < 300  # of 27,000 layers


@pytest.mark.parametrize("stop", ["least", "paper"])
@pytest.mark.parametrize("tolerance", [-0.05, -0.002, 0.0, 1e-4, 0.05, 10.0])
def test_otm_stops_where_the_distance_rises_by_more_than_the_tolerance(tolerance, stop):
    c, t = mixture(50, 9)
    options = {"folds": 3, "side": "fold", "tolerance": tolerance, "stop": stop}
    s = select(c, t, "tarot_otm", **options)
    sides, distance = sides_and_distances(c, t, **options)
    assert s.indices.tolist() == slow_otm(distance, sides, tolerance=tolerance, stop=stop)
    if tolerance == 10.0:
        assert all(len(fold) > 10 for fold in s.curve["ot_by_layer"])  # to the end of the pool
        assert (len(s) == 50) == (stop == "paper")
    for fold in s.curve["ot_by_layer"]:
        before = fold[:-1] if stop == "paper" else np.minimum.accumulate(fold)[:-1]
        rises = np.array(fold[1:]) > np.array(before) * (1 + tolerance + 1e-9)
        assert not rises[:-1].any()


def test_otm_reads_every_candidate_once(monkeypatch):
    """Folds share most of their layers, and a row is whitened whenever it is read."""
    c, t = mixture(200, 30)
    problem = SelectionProblem(c, t, whitening="cholesky")
    problem.neighbours(32)
    read = []
    read_rows = otm_module.read_rows

    def counted(rows, candidates, *args):
        read.extend(candidates.tolist())
        return read_rows(rows, candidates, *args)

    monkeypatch.setattr(otm_module, "read_rows", counted)
    TarotOTM().select(problem)
    assert len(read) > 50 and len(set(read)) == len(read)


def test_otm_warns_where_it_swallows_the_pool():
    """Targets and candidates of one noise: whatever is added brings the selection a little nearer."""
    c, t = unit(120, d=60), unit(100, d=60, seed=1)
    with pytest.warns(UserWarning, match=r"tarot_otm selected \d+ of 120 candidates"):
        select(c, t, "tarot_otm")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        select(*mixture(200, 12), "tarot_otm")


@pytest.mark.parametrize("min_cos", [0.0, 0.4, 0.7])
def test_otm_with_a_similarity_threshold(min_cos):
    c, t = mixture(50, 9)
    sides, distance = sides_and_distances(c, t, folds=3)
    s = select(c, t, "tarot_otm", folds=3, min_cos=min_cos)
    assert s.indices.tolist() == slow_otm(distance, sides, min_cos=min_cos)


def test_otm_refuses_what_it_cannot_do():
    c, t = unit(20), unit(4, seed=1)
    for options, message in [
        ({"folds": 0}, "folds must be at least 1"),
        ({"side": "left"}, "side must be"),
        ({"stop": "first"}, "stop must be"),
        ({"tolerance": -1.0}, "tolerance must be .*above -1"),
        ({"min_cos": 1.0}, "no candidate is within min_cos 1.0"),
    ]:
        with pytest.raises(InputError, match=message):
            select(c, t, "tarot_otm", **options)
