"""Targets averaged with their neighbours: what is averaged, that held-out targets choose, and that it helps them."""

import numpy as np
import ot
import pytest

import tarot
from tarot.common.errors import InputError
from tarot.selection.problem import SelectionProblem
from tarot.selectors import TarotExact, TarotFixed
from tarot.space.content import content_order


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def clusters(n, m, kinds=3, d=24, noise=1.5, seed=0):
    """Unit-norm rows of ten Gaussian clusters, and targets of some of them: float32 [n, d], [m, d]."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(10, d))
    sides = [centres[generator.integers(most, size=k)] for most, k in ((10, n), (kinds, m))]
    return [unit(side + noise * generator.normal(size=side.shape)).astype(np.float32) for side in sides]


def averaged(targets, count):
    """The mean of each row and its `count` nearest others, of unit norm, by the definition."""
    squared = ((targets[:, None].astype(float) - targets[None]) ** 2).sum(2)
    return unit(np.stack([targets[np.argsort(row, kind="stable")[: count + 1]].mean(0) for row in squared]))


def distance(rows, targets):
    return ot.emd2([], [], ot.dist(rows.astype(float), targets.astype(float), metric="euclidean"))


@pytest.mark.parametrize("count", [0, 1, 5, 29, 100])
@pytest.mark.parametrize("selector", [TarotFixed, TarotExact])
def test_smoothing_is_selecting_for_averaged_targets(count, selector):
    c, t = clusters(200, 30)
    smooth = tarot.select(c, t, selector(size=25, smoothing=count), whitening=None)
    by_hand = tarot.select(c, averaged(t, count).astype(np.float32), selector(size=25), whitening=None)
    assert smooth.indices.tolist() == by_hand.indices.tolist()
    assert smooth.ot_distance == pytest.approx(distance(c[smooth.indices], t), abs=1e-5)  # to the targets as they are
    assert smooth.lower_bound <= smooth.ot_distance


def test_auto_is_the_count_of_least_held_out_distance():
    c, t = clusters(200, 20)
    t = t[content_order([t], "targets")]
    selection = tarot.select(c, t, TarotFixed(size=25, smoothing="auto"), whitening=None)
    folds = np.array_split(np.random.default_rng(0).permutation(20), 5)
    counts = [0, 1, 2, 5, 12]
    found = []
    for count in counts:
        of_folds = []
        for fold in folds:
            rest = np.setdiff1d(np.arange(20), fold)
            targets = averaged(t[rest], count).astype(np.float32)
            chosen = tarot.select(c, targets, TarotFixed(size=25), whitening=None).indices
            of_folds.append(distance(c[chosen], t[fold]))
        found.append(np.mean(of_folds))
    assert selection.curve["smoothing"] == counts
    np.testing.assert_allclose(selection.curve["distance_held_out"], found, atol=1e-5)
    best = counts[int(np.argmin(found))]
    assert selection.curve["smoothing_chosen"] == [best]
    fixed = tarot.select(c, t, TarotFixed(size=25, smoothing=best), whitening=None)
    assert selection.indices.tolist() == fixed.indices.tolist()


@pytest.mark.parametrize("selector", [TarotFixed, TarotExact])
def test_smoothing_brings_selections_nearer_to_targets_that_did_not_select(selector):
    won = []
    for seed in range(4):
        c, t = clusters(400, 100, noise=2.0, seed=seed)
        plain, auto = (
            tarot.select(c, t[:50], selector(size=40, smoothing=s), whitening=None).indices for s in (0, "auto")
        )
        won.append(distance(c[plain], t[50:]) - distance(c[auto], t[50:]))
    assert np.mean(won) > 0 and np.sum(np.array(won) > 0) >= 3


def test_few_targets_and_bad_options():
    c, t = clusters(60, 2)
    assert tarot.select(c, t, TarotFixed(size=5, smoothing="auto"), whitening=None).curve["smoothing"] == [0]
    with pytest.raises(InputError, match="at least 2 of them; give a number"):
        TarotFixed(size=5, smoothing="auto").select(SelectionProblem(c, t[:1], whitening=None))
    for bad in (-1, 1.5, "all"):
        with pytest.raises(InputError, match="smoothing must be"):
            TarotFixed(size=5, smoothing=bad)
    with pytest.raises(InputError, match="smoothing needs a size"):
        TarotExact(size="auto", smoothing=2)
