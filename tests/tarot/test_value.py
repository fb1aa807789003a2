"""`tarot.value`, and what all methods have in common: shapes, order, requirements, selection by value."""

from __future__ import annotations

import dataclasses
import inspect

import numpy as np
import pytest
import torch

import tarot
from experiments.command.errors import message_of
from tarot import InputError
from tarot.selectors import SELECTORS
from tarot.selectors.contract import Valuing
from tarot.transport.entropic import sinkhorn

METHODS = sorted(name for name, kind in SELECTORS.items() if issubclass(kind, Valuing))
ORDER_MATTERS = {"sava", "batchwise_lava"}  # through their random batches, where there are several


def given(seed: int = 0, n: int = 60, m: int = 12, d: int = 5) -> dict:
    rng = np.random.default_rng(seed)
    return {
        "candidates": rng.normal(size=(n, d)).astype(np.float32),
        "targets": rng.normal(size=(m, d)).astype(np.float32) + 0.5,
        "candidate_labels": rng.integers(0, 3, n),
        "target_labels": rng.integers(0, 3, m),
        "target_groups": rng.integers(0, 2, m),
        "candidate_residuals": rng.random(n),
        "candidate_scores": rng.random(n),
        "learning_rates": [1e-3],
    }


def given_to(method: str, *args, **sizes) -> dict:
    """What a method can read: counts, where it compares these."""
    known = given(*args, **sizes)
    counted = ("candidates", "targets") if method == "dsir" else ()
    return known | {name: np.floor(np.abs(4 * known[name])) for name in counted}


def value(method: str, known: dict, **changed) -> np.ndarray:
    return tarot.value(**(known | changed), selector=method)


@pytest.mark.parametrize("method", METHODS)
def test_a_value_for_every_candidate_and_the_best_are_selected(method):
    known = given_to(method)
    values = value(method, known)
    assert values.dtype == np.float64 and values.shape == (60,) and np.isfinite(values).all()
    np.testing.assert_array_equal(value(method, known), values)  # no hidden state
    if method not in ("tsds", "dsir", "tarot_fixed"):  # which draw by their values, and cover all targets
        chosen = tarot.select(**known, selector=method, size=15)
        np.testing.assert_array_equal(chosen.indices, np.sort(np.argsort(-values, kind="stable")[:15]))
        assert (chosen.weights == 1).all()


@pytest.mark.parametrize("method", sorted(set(METHODS)))
def test_values_move_with_their_candidates(method):
    known, order = given_to(method, 1), np.random.default_rng(5).permutation(60)
    moved = {k: v[order] if k.startswith("candidate") and v is not None else v for k, v in known.items()}
    np.testing.assert_allclose(value(method, moved), value(method, known)[order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_one_candidate_and_one_target(method):
    assert value(method, given_to(method, 2, n=1, m=1)).shape == (1,) if method != "tsds" else True


@pytest.mark.parametrize("method", METHODS)
def test_half_precision_features(method):
    known = given_to(method, 3)
    halves = {name: known[name].astype(np.float16) for name in ("candidates", "targets")}
    exact = {name: half.astype(np.float32) for name, half in halves.items()}
    np.testing.assert_allclose(value(method, known | halves), value(method, known | exact), rtol=1e-4, atol=1e-5)


def test_methods_that_choose_without_valuing_say_so():
    with pytest.raises(
        InputError, match=r"Random gives candidates no values; these do: batchwise_lava, doubly_greedy, dsdm"
    ):
        value("random", given())
    with pytest.raises(InputError, match="there is no selector 'lavva'"):
        value("lavva", given())


@pytest.mark.parametrize(
    ("method", "missing", "message"),
    [
        ("lava", "candidate_labels", "lava .* needs candidate_labels"),
        ("sava", "target_labels", "sava .* needs target_labels"),
        ("batchwise_lava", "target_labels", "batchwise_lava .* needs target_labels"),
        ("knn_shapley", "candidate_labels", "knn_shapley .* needs candidate_labels"),
        ("el2n", "candidate_scores", "el2n needs candidate_scores"),
        ("influence", "candidate_scores", "influence needs candidate_scores"),
    ],
)
def test_what_is_missing_is_named(method, missing, message):
    with pytest.raises(InputError, match=message):
        value(method, given(), **{missing: None})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"learning_rates": [1e-3, 1e-4]}, r"learning_rates must be one per model, \[1\]"),
        ({"learning_rates": [-1.0]}, "at least 0"),
        ({"learning_rates": [float("nan")]}, "finite"),
        ({"candidate_scores": np.full(60, np.nan)}, "candidate_scores must be finite; that of candidate 0 is nan"),
        ({"candidate_scores": np.zeros(59)}, "candidate_scores must have one entry for each of the 60 rows"),
        ({"candidate_scores": [np.zeros(60)] * 2}, "candidate_scores come from 2 models"),
        ({"candidate_labels": np.array(["a"] * 60)}, "give one type"),
        ({"candidate_labels": np.array(["a", None] * 30)}, "candidate_labels must be all strings or all numbers"),
        ({"candidate_labels": np.where(np.arange(60) == 7, np.nan, 1.0)}, "the label of row 7 is nan"),
        ({"learning_rates": ["fast"]}, "learning_rates must be numbers"),
        ({"candidate_scores": []}, "candidate_scores must have one entry"),
    ],
)
def test_bad_input_is_refused(changed, message):
    with pytest.raises(InputError, match=message):
        value("less" if "learning_rates" in changed else "knn_shapley", given(), **changed)


def test_labels_may_be_words_and_classes_may_be_absent_on_a_side():
    known = given(4)
    words = np.array(["cat", "dog", "frog"])
    spelled = {name: words[known[name]] for name in ("candidate_labels", "target_labels")}
    np.testing.assert_allclose(value("lava", known, **spelled), value("lava", known), rtol=1e-6, atol=1e-8)
    known["target_labels"] = np.zeros(12, dtype=int)
    for method in ("lava", "sava", "knn_shapley"):
        assert np.isfinite(value(method, known)).all()


def test_strings_of_any_kind_are_one_kind_and_spelling_matters():
    known = given(4)
    words = np.array(["cat", "dog", "frog"])
    spelled = {
        "candidate_labels": words[known["candidate_labels"]].astype(object),  # as pandas holds them
        "target_labels": words[known["target_labels"]],
    }
    np.testing.assert_allclose(value("knn_shapley", known, **spelled), value("knn_shapley", known))
    with pytest.warns(UserWarning, match="no class in common"):
        value("knn_shapley", known, target_labels=np.full(12, 9))


def test_no_option_of_a_method_hides_behind_one_of_the_functions():
    shared = set(inspect.signature(tarot.select).parameters) | set(inspect.signature(tarot.value).parameters)
    for name, kind in SELECTORS.items():
        assert not shared & {field.name for field in dataclasses.fields(kind)}, name
    known = given(8)
    assert not np.allclose(value("dsdm", known, ridge=0.1), value("dsdm", known, ridge=10.0))


@pytest.mark.parametrize(
    ("method", "option"), [("tsds", {"alpha": "high"}), ("tsds", {"C": "5"}), ("tsds", {"sigma": None})]
)
def test_options_of_a_wrong_type_are_named(method, option):
    with pytest.raises(InputError, match=next(iter(option))):
        value(method, given(), **option)


def test_a_transport_that_cannot_be_solved_is_one_sentence():
    cost = torch.from_numpy(np.random.default_rng(0).random((40, 30)).astype(np.float32))
    with pytest.raises(InputError, match="use a larger epsilon") as caught:
        sinkhorn(cost, 1e-4, tolerance=1e-9, max_iterations=20)
    assert message_of(caught.value)


def test_a_total_is_shared_out_by_the_counts_of_tsds():
    known = given(6)
    alone = tarot.select(**known, selector="tsds", size=40, max_k=20)
    assert alone.weights.sum() == 40 and len(alone) <= 40 and alone.weights.max() > 1
    np.testing.assert_array_equal(
        tarot.select(**known, selector="tsds", size=40, max_k=20, total=40).weights, alone.weights
    )
    doubled = tarot.select(**known, selector="tsds", size=40, max_k=20, total=80).weights
    assert doubled.sum() == 80 and (np.diff(doubled[np.argsort(alone.weights, kind="stable")]) >= -1).all()


def test_tarot_values_are_minus_the_potentials_of_the_whole_pool():
    known = given(7)
    c, t = tarot.whiten(known["candidates"], known["targets"])
    f, _ = tarot.potentials(c, t)
    values = value("tarot_fixed", known)
    np.testing.assert_allclose(values - values.mean(), -(f - f.mean()), atol=1e-4)
    known["candidates"][3] = 0
    values = tarot.value(known["candidates"], known["targets"], "tarot_fixed", whitening=None)
    assert values[3] == values.min()
