"""What must not change a selection: order, scale, threads, kinds of arrays, blocks, copies."""

import os
from functools import cache

import numpy as np
import pytest
import torch

import tarot
from tarot.common.errors import InputError
from tarot.features.store import FeatureStore
from tarot.selection.problem import SelectionProblem
from tarot.selectors import All, Dsdm, Random, TargetOnly, TarotExact, TarotFixed, TarotOTM
from tests.tarot.selectors.problems import mixture, select, unit

SELECTORS = {
    "fixed": TarotFixed(size=17),
    "fixed, Eq. 13": TarotFixed(size=17, exact=True),
    "otm": TarotOTM(folds=4),
    "exact": TarotExact(size=17),
    "exact, S = 2 M": TarotExact(size=18),
    "dsdm": Dsdm(size=17),
}


@pytest.fixture(params=SELECTORS)
def selector(request):
    return SELECTORS[request.param]


@pytest.mark.parametrize("whitening", ["cholesky", None])
def test_permuting_candidates_permutes_the_selection(selector, whitening):
    c, t = mixture(70, 9)
    order = np.random.default_rng(5).permutation(70)
    one = tarot.select(c, t, selector, whitening=whitening)
    other = tarot.select(c[order], t, selector, whitening=whitening)
    assert sorted(order[other.indices].tolist()) == one.indices.tolist()
    assert other.ot_distance == pytest.approx(one.ot_distance, abs=1e-6)


def test_permuting_targets_changes_nothing_without_folds():
    c, t = mixture(70, 9)
    order = np.random.default_rng(5).permutation(9)
    for selector in (TarotFixed(size=17), TarotOTM(folds=1), TarotExact(size=18), Dsdm(size=17)):
        one, other = (tarot.select(c, targets, selector) for targets in (t, t[order]))
        assert one.indices.tolist() == other.indices.tolist()
        assert order[other.nearest_target].tolist() == one.nearest_target.tolist()


def test_scale_of_rows_does_not_matter(selector):
    """Distances are between unit-norm rows; TRAK's features are not normalised, so there one scale for all."""
    c, t = mixture(70, 9)
    generator = np.random.default_rng(5)
    scale = 1000.0 if isinstance(selector, Dsdm) else 0.01 + generator.random((70, 1))
    one, other = (tarot.select(x, t, selector, whitening=None) for x in (c, (c * scale).astype(np.float32)))
    assert one.indices.tolist() == other.indices.tolist()


def test_threads_do_not_change_a_selection(selector, monkeypatch):
    c, t = mixture(70, 9)
    threads = torch.get_num_threads()
    results = []
    try:
        for number in (1, 4):
            torch.set_num_threads(number)
            monkeypatch.setattr(os, "cpu_count", lambda number=number: number)
            results.append(tarot.select(c, t, selector))
    finally:
        torch.set_num_threads(threads)
    assert results[0].indices.tolist() == results[1].indices.tolist()
    assert results[0].weights.tolist() == results[1].weights.tolist()


@pytest.mark.parametrize("kind", ["torch", "float64", "memmap", "store", "list"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_kind_of_array_does_not_change_a_selection(selector, kind, dtype, tmp_path):
    c, t = (x.astype(dtype) for x in mixture(70, 9))
    np.save(tmp_path / "c.npy", c)
    given = {
        "torch": lambda: torch.from_numpy(c),
        "float64": lambda: c.astype(np.float64),
        "memmap": lambda: np.load(tmp_path / "c.npy", mmap_mode="r"),
        "list": lambda: c.tolist(),
        "store": lambda: FeatureStore.build(
            tmp_path / "store",
            recipe={"kind": "test"},
            ids=[str(i) for i in range(70)],
            dim=12,
            dtype=dtype,
            rows_per_shard=13,
            compute=lambda start, stop: {"features": torch.from_numpy(c[start:stop])},
        ),
    }[kind]()
    one, other = of_arrays(selector, dtype), tarot.select(given, t, selector)
    assert one.indices.tolist() == other.indices.tolist()
    assert one.weights.tolist() == other.weights.tolist()


@cache
def of_arrays(selector, dtype):
    return tarot.select(*(x.astype(dtype) for x in mixture(70, 9)), selector)


def test_small_blocks_do_not_change_a_selection(selector, monkeypatch):
    """As for a pool larger than memory: a few rows at a time, neighbours a few at a time."""
    c, t = mixture(700, 9)
    one = tarot.select(c, t, selector)
    monkeypatch.setattr(tarot.features.arrays, "BLOCK_BYTES", 1)
    monkeypatch.setattr(tarot.space.neighbours, "BLOCK_SIMILARITIES", 100)
    monkeypatch.setattr(tarot.selection.problem, "WHOLE_TABLE", 0)
    monkeypatch.setattr(tarot.selection.problem, "FIRST_NEIGHBOURS", 3)
    assert tarot.select(c, t, selector).indices.tolist() == one.indices.tolist()


@pytest.mark.parametrize("selector", [TarotFixed(size=16), TarotOTM(folds=3), TarotExact(size=16), TarotExact(size=12)])
def test_copies_of_candidates_come_after_the_originals(selector):
    """Ties go to the smaller index, so no copy is taken without its original; and copies can only help."""
    c, t = mixture(30, 6)
    doubled = np.concatenate([c, c])
    s = select(doubled, t, selector)
    assert len(set(s.indices.tolist())) == len(s)
    if not isinstance(selector, TarotExact):
        copies = s.indices[s.indices >= 30]
        assert set((copies - 30).tolist()) <= set(s.indices.tolist())
    else:
        assert s.ot_distance <= select(c, t, selector).ot_distance + 1e-6
    np.testing.assert_array_equal(s.indices, select(doubled, t, selector).indices)


def test_identical_candidates_and_targets_are_no_special_case():
    same, t = np.ones((20, 4), np.float32), np.ones((5, 4), np.float32)
    for selector in (TarotFixed(size=7), TarotOTM(), TarotExact(size=7), TarotExact(size=5), Random(size=7)):
        s = select(same, t, selector)
        assert s.ot_distance == pytest.approx(0, abs=1e-6) and s.lower_bound == pytest.approx(0, abs=1e-6)
        assert s.weights.sum() == (len(s) if isinstance(selector, Random) else 20)
    assert select(same, t, TarotFixed(size=7)).indices.tolist() == list(range(7))


def test_selectors_keep_no_state():
    c, t = mixture(40, 6)
    other_c, other_t = mixture(30, 5, seed=9)
    for selector in (*SELECTORS.values(), Random(size=5), All(), TargetOnly()):
        first = tarot.select(c, t, selector).indices.tolist()
        tarot.select(other_c, other_t, selector)
        assert tarot.select(c, t, selector).indices.tolist() == first


@pytest.mark.parametrize("name", ["tarot_fixed", "tarot_exact", "random", "dsdm", "oracle"])
def test_budgets_are_the_problems(name):
    c, t = mixture(100, 9)
    tags = {"candidate_tags": ["target"] * 100}
    assert len(tarot.select(c, t, name, ratio=0.29, **tags)) == 29
    assert len(tarot.select(c, t, name, size=31, **tags)) == 31
    for options in ({"size": 0}, {"size": 101}, {"ratio": 0.0}, {"ratio": 1.5}, {"ratio": 0.001}):
        with pytest.raises(InputError):
            tarot.select(c, t, name, **options, **tags)
    for options in ({"size": 3, "ratio": 0.5},) if name == "oracle" else ({}, {"size": 3, "ratio": 0.5}):
        with pytest.raises(InputError, match="either size or ratio"):
            tarot.select(c, t, name, **options, **tags)


def test_a_selector_is_anything_that_selects():
    class Everyother:
        features, whitening, reference = "wfd", None, False

        def select(self, problem: SelectionProblem) -> tarot.Selection:
            return problem.selection(np.arange(0, problem.n, 2)[::-1], {"class": "Everyother"})

    s = tarot.select(unit(9), unit(3, seed=1), Everyother())
    assert s.indices.tolist() == [0, 2, 4, 6, 8] and s.selector == {"class": "Everyother"}
