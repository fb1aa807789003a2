"""`random`, `dsdm` and the arms of comparison against their specification; what every selection says of itself."""

import numpy as np
import pytest

import tarot
from tarot.common.errors import InputError
from tarot.selection.problem import SelectionProblem
from tarot.selectors import Oracle, Random
from tests.tarot.selectors.problems import mixture, select, unit


@pytest.mark.parametrize("ids", [None, [f"candidate {i}" for i in (3, 1, 4, 15, 9, 2, 6, 5, 35, 8, 97, 93)]])
@pytest.mark.parametrize("alike", [False, True])
def test_random_is_uniform_whatever_it_draws_by(ids, alike):
    """Every candidate as often as every other, and every pair: also where all hold the same, so that content tells
    nobody apart."""
    c = np.ones_like(unit(12)) if alike else unit(12)
    problem = SelectionProblem(c, unit(2, seed=1), candidate_ids=ids)
    draws, pairs = 800, np.zeros((12, 12))
    for seed in range(draws):
        chosen = Random(size=4, seed=seed).select(problem).indices
        pairs[np.ix_(chosen, chosen)] += 1
    for counts, share in ((pairs.diagonal(), 4 / 12), (pairs[np.triu_indices(12, 1)], 4 * 3 / (12 * 11))):
        deviation = np.sqrt(draws * share * (1 - share))
        assert np.abs(counts - draws * share).max() < 4.5 * deviation
        assert counts.std() > 0.4 * deviation  # and it is drawn


def test_random_is_a_uniform_sample_of_its_seed():
    c, t = unit(20), unit(3, seed=1)
    draws = [select(c, t, "random", size=5, seed=seed).indices for seed in range(400)]
    assert all(len(set(d.tolist())) == 5 for d in draws)
    assert (select(c, t, "random", size=5, seed=7).indices == draws[7]).all()
    assert len({tuple(d) for d in draws}) > 380
    counts = np.bincount(np.concatenate(draws), minlength=20)  # 100 each; standard deviation 8.7
    assert counts.min() > 60 and counts.max() < 140


def test_dsdm_takes_the_highest_mean_trak_scores():
    generator = np.random.default_rng(0)
    c, t, q = generator.normal(size=(50, 4)), generator.normal(size=(6, 4)), generator.random(50)
    gram = c.T @ c + 0.1 * np.trace(c.T @ c) / 4 * np.eye(4)
    scores = q * (c @ np.linalg.solve(gram, t.T)).mean(1)
    for size in (1, 13, 50):
        s = tarot.select(c, t, "dsdm", size=size, candidate_residuals=q)
        assert s.indices.tolist() == sorted(np.argsort(-scores)[:size].tolist())
        assert s.weights.tolist() == [1] * size
    plain = tarot.select(c, t, "dsdm", size=13)
    assert plain.indices.tolist() == sorted(np.argsort(-scores / q)[:13].tolist())


def test_dsdm_of_several_models_is_a_product_of_averages():
    generator = np.random.default_rng(0)
    c, t, q = generator.normal(size=(2, 50, 4)), generator.normal(size=(2, 6, 4)), generator.random((2, 50))
    similarity = [
        ci @ np.linalg.solve(ci.T @ ci + 0.1 * np.trace(ci.T @ ci) / 4 * np.eye(4), ti.mean(0))
        for ci, ti in zip(c, t, strict=True)
    ]
    s = tarot.select(list(c), list(t), "dsdm", size=9, candidate_residuals=list(q))
    assert s.indices.tolist() == sorted(np.argsort(-np.mean(similarity, 0) * q.mean(0))[:9].tolist())


def test_the_arms():
    c, t = unit(12), unit(3, seed=1)
    assert select(c, t, "all").indices.tolist() == list(range(12))
    assert select(c, t, "target_only").indices.tolist() == []
    tags = np.where(np.arange(12) % 3 == 0, "target", "noise")
    assert select(c, t, "oracle", candidate_tags=tags).indices.tolist() == [0, 3, 6, 9]
    assert select(c, t, Oracle(tag="noise"), candidate_tags=tags).indices.tolist() == [1, 2, 4, 5, 7, 8, 10, 11]
    some = [select(c, t, "oracle", candidate_tags=tags, size=2, seed=seed).indices.tolist() for seed in range(20)]
    assert all(len(set(s)) == 2 and set(s) <= {0, 3, 6, 9} for s in some) and len(set(map(tuple, some))) > 1
    assert select(c, t, "oracle", candidate_tags=tags, size=9).indices.tolist() == [0, 3, 6, 9]
    with pytest.raises(InputError, match="candidate_tags"):
        select(c, t, "oracle")
    with pytest.raises(InputError, match="no candidate has the tag 'target'"):
        select(c, t, "oracle", candidate_tags=["noise"] * 12)


def test_a_selection_says_what_made_it():
    c, t = unit(12), unit(3, seed=1)
    s = select(c, t, "tarot_otm", folds=2, seed=3)
    assert s.selector["class"] == "TarotOTM" and s.selector["folds"] == 2 and s.selector["seed"] == 3


def test_no_selector_but_the_oracle_sees_the_tags():
    c, t = mixture(40, 6)
    for name, options in {
        "tarot_fixed": {"size": 9},
        "tarot_otm": {},
        "tarot_exact": {"size": 9},
        "dsdm": {"size": 9},
    }.items():
        with_tags = tarot.select(c, t, name, candidate_tags=["target"] * 20 + ["noise"] * 20, **options)
        assert with_tags.indices.tolist() == tarot.select(c, t, name, **options).indices.tolist()
