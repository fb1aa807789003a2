"""Those who sum up the pool: the Wasserstein coreset, herding and k-center."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

import tarot
from tarot import InputError
from tarot.selectors import Herding, KCenter, WassersteinCoreset, pool
from tarot.selectors.pool import dealt

KINDS = [WassersteinCoreset, Herding, KCenter]


def known(n=40, d=4, seed=0, labels=True):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, d)).astype(np.float32)
    return {"candidates": rows, "targets": rows[:2]} | ({"candidate_labels": np.arange(n) % 4} if labels else {})


@pytest.mark.parametrize(
    "sizes, total, shares",
    [
        ((10, 10), 7, (4, 3)),  # ties by label
        ((9, 10), 7, (3, 4)),  # to the largest
        ((10, 9, 8, 1), 9, (3, 3, 2, 1)),  # what the small one lacks is dealt again
        ((2, 2, 9), 9, (2, 2, 5)),
        ((3, 0, 3), 6, (3, 0, 3)),
        ((5, 5), 1, (1, 0)),
    ],
)
def test_budgets_are_dealt_to_classes(sizes, total, shares):
    assert dealt(np.array(sizes), total).tolist() == list(shares)


@pytest.mark.parametrize("kind", KINDS)
def test_classes_get_equal_shares_and_do_not_depend_on_one_another(kind):
    given = known()
    chosen = tarot.select(**given, selector=kind(size=12)).indices
    labels = given["candidate_labels"]
    assert np.bincount(labels[chosen]).tolist() == [3, 3, 3, 3]
    changed = given["candidates"].copy()
    changed[labels != 2] *= 3
    again = tarot.select(**{**given, "candidates": changed}, selector=kind(size=12)).indices
    assert again[labels[again] == 2].tolist() == chosen[labels[chosen] == 2].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_everybody_is_chosen_where_all_are_wanted(kind):
    assert len(tarot.select(**known(), selector=kind(size=40))) == 40


def test_the_coreset_is_the_barycenters_nearest_rows():
    given = known(labels=False)
    rows = given["candidates"].astype(float)
    selector = WassersteinCoreset(size=6, seed=4)
    seed = int(np.random.SeedSequence((4, 0)).generate_state(1)[0])
    atoms = tarot.barycenter(given["candidates"], 6, seed=seed).positions
    cost = np.square(rows[:, None] - atoms).sum(2)
    expected = sorted(linear_sum_assignment(cost)[0])
    assert tarot.select(**given, selector=selector).indices.tolist() == expected


def test_weights_of_the_coreset_sum_to_the_pool():
    given = known()
    uniform = tarot.select(**given, selector=WassersteinCoreset(size=8)).weights
    assert uniform.tolist() == [5] * 8
    free = tarot.select(**given, selector=WassersteinCoreset(size=8, weights="free")).weights
    assert free.sum() == 40 and np.ptp(free) > 0
    one_class = known(n=11, labels=False)
    one_class["candidates"][:] = 0.5 + np.arange(11)[:, None] / 1e3
    one_class["candidates"][10] = 10
    weighed = tarot.select(**one_class, selector=WassersteinCoreset(size=2, weights="free"))
    assert weighed.weights[weighed.indices == 10] < weighed.weights[weighed.indices != 10]


def slow_herding(rows, count):
    rows, chosen = rows.astype(float), []
    for _ in range(count):
        left = [i for i in range(len(rows)) if i not in chosen]
        gaps = [np.linalg.norm(rows[[*chosen, i]].mean(0) - rows.mean(0)) for i in left]
        chosen.append(left[int(np.argmin(gaps))])
    return sorted(chosen)


def slow_k_center(rows, count):
    rows = rows.astype(float)
    chosen = [int(np.argmin(np.linalg.norm(rows - rows.mean(0), axis=1)))]
    while len(chosen) < count:
        gaps = np.linalg.norm(rows[:, None] - rows[chosen], axis=2).min(1)
        chosen.append(int(np.argmax(gaps)))
    return sorted(chosen)


@pytest.mark.parametrize("kind, slow", [(Herding, slow_herding), (KCenter, slow_k_center)])
@pytest.mark.parametrize("limit", [pool.WHOLE_BYTES, 0])
def test_fast_equals_slow_and_obvious(kind, slow, limit, monkeypatch):
    monkeypatch.setattr(pool, "WHOLE_BYTES", limit)
    given = known(labels=False)
    assert tarot.select(**given, selector=kind(size=9)).indices.tolist() == slow(given["candidates"], 9)


def test_herding_is_nearer_to_its_class_than_the_longest_rows():
    rows = known(n=200, labels=False)["candidates"]
    rows[0] *= 50
    assert 0 not in tarot.select(rows, rows[:2], Herding(size=5)).indices


@pytest.mark.parametrize("kind", KINDS)
def test_copies_are_chosen_once_each(kind):
    rows = np.ones((6, 2), dtype=np.float32)
    assert len(tarot.select(rows, rows, kind(size=4))) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_candidates_without_features_are_counted_out(kind):
    given = known(labels=False)
    given["candidates"][:30] = 0
    with pytest.raises(InputError, match="only 10 of 40 are usable"):
        tarot.select(**given, selector=kind(size=11))
