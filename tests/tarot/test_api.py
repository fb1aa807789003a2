"""The public Python API exactly as it is documented, its defaults, and what it says to bad input."""

import inspect
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import scipy.sparse
import torch

import tarot
from tarot.common.errors import InputError
from tarot.features.store import FeatureStore

GENERATOR = np.random.default_rng(0)
MIX = GENERATOR.normal(size=(6, 6))
CANDIDATES, TARGETS = GENERATOR.normal(size=(90, 6)) @ MIX + 2, GENERATOR.normal(size=(12, 6)) @ MIX + 2


# --- the names -------------------------------------------------------------------------------------------------------


def test_every_public_name_exists():
    for name in tarot.__all__:
        assert getattr(tarot, name) is not None
    named = "select selectors Selection whiten nearest ot_distance potentials integer_weights lds FeatureStore"
    assert set(named.split()) <= set(tarot.__all__)


def test_signatures_are_those_of_the_design():
    def parameters(function):
        return list(inspect.signature(function).parameters.values())

    select = inspect.signature(tarot.select).parameters
    assert list(select)[:3] == ["candidates", "targets", "selector"]
    keywords = {"whitening": "auto", "regularization": None, "norm": "auto", "total": None}
    keywords |= dict.fromkeys(["candidate_labels", "target_labels", "target_groups", "candidate_ids", "candidate_tags"])
    for name, default in keywords.items():
        assert select[name].kind is inspect.Parameter.KEYWORD_ONLY and select[name].default == default
    assert [p.name for p in parameters(tarot.whiten)] == [
        "candidates",
        "targets",
        "method",
        "regularization",
        "norm",
        "device",
        "engine",
    ]
    assert [p.name for p in parameters(tarot.nearest)][:3] == ["candidates", "targets", "k"]
    assert inspect.signature(tarot.nearest).parameters["k"].default == 100
    assert inspect.signature(tarot.ot_distance).parameters["epsilon"].default == 0.0
    assert inspect.signature(tarot.potentials).parameters["epsilon"].default == 0.01
    assert [p.name for p in parameters(tarot.integer_weights)][:2] == ["potentials", "total"]
    assert [p.name for p in parameters(tarot.lds)][:3] == ["scores", "masks", "outputs"]


def test_the_designs_example_runs_as_it_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    candidates, targets = CANDIDATES, TARGETS
    s = tarot.select(candidates, targets, "tarot_fixed", size=50)
    s = tarot.select(candidates, targets, tarot.selectors.TarotOTM(folds=10, side="fold", seed=0))
    assert s.indices.dtype == np.int64 and (np.diff(s.indices) > 0).all() and s.indices.min() >= 0
    assert s.weights.dtype == np.int64 and s.weights.min() >= 1 and s.weights.shape == s.indices.shape
    assert s.potentials.dtype == np.float64 and s.potentials.shape == s.indices.shape
    assert isinstance(s.ot_distance, float) and isinstance(s.lower_bound, float)
    assert 0 < s.lower_bound <= s.ot_distance
    assert s.nearest_target.dtype == np.int64 and s.nearest_distance.shape == s.indices.shape
    s.save("selection.parquet")
    loaded = tarot.Selection.load("selection.parquet")
    assert loaded.indices.tolist() == s.indices.tolist() and loaded.ot_distance == s.ot_distance

    c, t = tarot.whiten(candidates, targets)
    np.testing.assert_allclose(np.linalg.norm(c, axis=1), 1, atol=1e-6)
    d, i = tarot.nearest(candidates, targets, k=10)
    assert d.shape == i.shape == (12, 10) and (np.diff(d, axis=1) >= 0).all()
    np.testing.assert_allclose(d[3, 2], np.linalg.norm(c[i[3, 2]] - t[3]), atol=1e-6)
    assert tarot.ot_distance(c, t, epsilon=0.0) == pytest.approx(tarot.ot_distance(c, t))
    f, g = tarot.potentials(c, t, epsilon=0.01)
    assert f.shape == (90,) and g.shape == (12,)
    assert tarot.integer_weights(f, 500).sum() == 500
    masks = np.random.default_rng(0).random((8, 90)) < 0.5
    assert float(tarot.lds(c @ t.T, masks, masks @ (c @ t.T))) == pytest.approx(1)


def test_a_selection_is_of_the_whitened_space():
    """ot_distance, potentials and nearest of a selection are the public functions on whitened rows."""
    s = tarot.select(CANDIDATES, TARGETS, "tarot_fixed", size=30)
    c, t = tarot.whiten(CANDIDATES, TARGETS)
    assert s.ot_distance == pytest.approx(tarot.ot_distance(c[s.indices], t), abs=1e-6)
    f, _ = tarot.potentials(c[s.indices], t)
    np.testing.assert_allclose(s.potentials - s.potentials.mean(), f - f.mean(), atol=1e-4)
    np.testing.assert_allclose(
        s.nearest_distance, np.linalg.norm(c[s.indices] - t[s.nearest_target], axis=1), atol=1e-6
    )


# --- defaults --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(tarot.selectors.SELECTORS))
def test_whitening_auto_is_what_the_selector_says(name):
    rng = np.random.default_rng(3)
    options = {} if name in ("all", "target_only", "oracle", "tarot_otm") else {"size": 24}
    options |= {"candidate_tags": ["target", "noise"] * 45} if name == "oracle" else {}
    options |= {"candidate_labels": rng.integers(0, 3, 90), "target_labels": rng.integers(0, 3, len(TARGETS))}
    options |= {"candidate_scores": rng.random(90)}
    explicit = tarot.selectors.SELECTORS[name].whitening
    given = [np.floor(np.abs(4 * rows)) if name == "dsir" else rows for rows in (CANDIDATES, TARGETS)]
    auto = tarot.select(*given, name, **options)
    same = tarot.select(*given, name, whitening=explicit, **options)
    other = tarot.select(*given, name, whitening=None if explicit else "cholesky", **options)
    assert auto.indices.tolist() == same.indices.tolist()
    if name != "target_only":
        assert auto.ot_distance == pytest.approx(same.ot_distance, abs=1e-9)
        assert auto.ot_distance != pytest.approx(other.ot_distance, abs=1e-3)


def test_a_selector_object_gets_the_same_default_as_its_name():
    by_name = tarot.select(CANDIDATES, TARGETS, "tarot_fixed", size=9)
    by_object = tarot.select(CANDIDATES, TARGETS, tarot.selectors.TarotFixed(size=9))
    assert by_name.indices.tolist() == by_object.indices.tolist() and by_name.ot_distance == by_object.ot_distance
    assert by_name.selector == by_object.selector


def test_what_a_selector_is_called_decides_nothing():
    class FacilityLocation:
        features, whitening, reference = "wfd", None, False

        def select(self, problem):
            similar = problem.candidates[:] @ problem.targets.T
            return problem.selection(similar.amax(1).argsort(descending=True)[:30].numpy(), {})

    class TarotFL(FacilityLocation):
        pass

    class Whitened(FacilityLocation):
        whitening = "cholesky"

    chosen = {kind: tarot.select(CANDIDATES, TARGETS, kind()) for kind in (FacilityLocation, TarotFL, Whitened)}
    assert chosen[FacilityLocation].indices.tolist() == chosen[TarotFL].indices.tolist()
    assert chosen[FacilityLocation].problem.whitening is None and chosen[Whitened].problem.whitening == "cholesky"
    assert chosen[Whitened].indices.tolist() != chosen[TarotFL].indices.tolist()


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({}, "the selector Mine declares no features and no whitening and no reference: give its class"),
        (
            {"features": "wfd", "reference": False},
            r"declares no whitening: give its class whitening = one of \('chosen', 'local', 'centred', ",
        ),
        (
            {"features": 3, "whitening": None, "reference": False},
            "declare features = a recipe's name or None; it is 3",
        ),
        ({"features": None, "whitening": "pca", "reference": False}, "must declare whitening .* it is 'pca'"),
        (
            {"features": None, "whitening": None, "reference": "all"},
            "declare reference = True or False; it is 'all'",
        ),
    ],
)
def test_a_selector_without_its_facts_is_refused(facts, message):
    mine = type("Mine", (), {**facts, "select": lambda self, problem: problem.selection([0], {})})
    with pytest.raises(tarot.InputError, match=message):
        tarot.select(CANDIDATES, TARGETS, mine())


def selector_that_returns(selection=None, values=None):
    """An object of a class `Mine` that answers any problem with what these make of it."""
    facts = {"features": "wfd", "whitening": None, "reference": False}
    methods = {"select": lambda self, problem: selection(problem), "values": lambda self, problem: values(problem)}
    return type("Mine", (), {**facts, **methods})()


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (lambda problem: None, "returned a NoneType instead of a Selection: end its `select` with"),
        (lambda problem: [0, 1], "returned a list instead of a Selection"),
        (lambda problem: np.arange(3), "returned a ndarray instead of a Selection"),
        (
            lambda problem: tarot.Selection([0, 1], problem.n - 1, problem.m, {}),
            "returned a Selection from 89 candidates, and the problem has 90",
        ),
    ],
)
def test_a_selector_that_returns_no_selection_of_the_pool_is_refused(selection, message):
    with pytest.raises(tarot.InputError, match=f"^the selector Mine {message}[^\n]*$"):
        tarot.select(CANDIDATES, TARGETS, selector_that_returns(selection))


def test_a_selector_of_ones_own_may_return_any_selection_of_the_pool():
    def selection(problem):
        return problem.selection([5, 3], {})

    assert tarot.select(CANDIDATES, TARGETS, selector_that_returns(selection)).indices.tolist() == [3, 5]


def values_with(number):
    return lambda problem: np.where(np.arange(problem.n) == 7, number, 1.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (lambda problem: None, "returned a NoneType as values: they must be a NumPy array"),
        (lambda problem: [0.5] * problem.n, "returned a list as values: they must be a NumPy array"),
        (lambda problem: torch.zeros(problem.n), "returned a Tensor as values: they must be a NumPy array"),
        (lambda problem: np.zeros(problem.n - 1), r"returned values of float64 and shape \(89,\)"),
        (lambda problem: np.zeros((problem.n, 1)), r"returned values of float64 and shape \(90, 1\)"),
        (lambda problem: np.zeros(problem.n, np.float32), r"returned values of float32 .* must be float64 of shape"),
        (lambda problem: np.zeros(problem.n, int), "returned values of int64"),
        (values_with(np.nan), "values candidate 7 at nan"),
        (values_with(np.inf), "values candidate 7 at inf"),
    ],
)
def test_values_that_are_no_numbers_one_each_are_refused(values, message):
    with pytest.raises(tarot.InputError, match=f"^the selector Mine {message}[^\n]*$"):
        tarot.value(CANDIDATES, TARGETS, selector_that_returns(values=values))


def test_values_may_be_minus_infinity():
    found = tarot.value(CANDIDATES, TARGETS, selector_that_returns(values=values_with(-np.inf)))
    assert found[7] == -np.inf and np.isfinite(np.delete(found, 7)).all()


def test_zca_and_cholesky_select_the_same():
    one, other = (tarot.select(CANDIDATES, TARGETS, "tarot_otm", whitening=w) for w in ("cholesky", "zca"))
    assert one.indices.tolist() == other.indices.tolist()


def test_a_ridge_that_is_given_is_of_local_whitening():
    chosen, given, local = (
        tarot.select(CANDIDATES, TARGETS, "tarot_fixed", size=9, **options)
        for options in ({}, {"regularization": 0.5}, {"whitening": "local", "regularization": 0.5})
    )
    assert chosen.space.chosen and not given.space.chosen
    assert given.space == local.space and given.space.regularization == (0.5,)
    assert given.ot_distance == local.ot_distance
    with pytest.raises(tarot.InputError, match='whitening="chosen" chooses its ridge, too'):
        tarot.select(CANDIDATES, TARGETS, "tarot_fixed", size=9, whitening="chosen", regularization=0.5)


@pytest.mark.parametrize("whitening", [None, "centred"])
def test_a_ridge_is_not_given_to_what_has_none(whitening):
    with pytest.raises(tarot.InputError, match=f"{whitening or 'none'} has no ridge: leave it out, or ask for"):
        tarot.select(CANDIDATES, TARGETS, "tarot_fixed", size=9, whitening=whitening, regularization=0.5)


def test_the_papers_setting_is_one_option_away():
    """Centred on the union, Cholesky at a thousandth, unit norm last and not first."""
    s = tarot.select(CANDIDATES, TARGETS, "tarot_fixed", size=9, whitening="paper")
    union = np.concatenate([CANDIDATES, TARGETS]).astype(np.float64)
    centred = union - union.mean(axis=0)
    covariance = centred.T @ centred / len(union)
    covariance += 1e-3 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    white = centred @ np.linalg.inv(np.linalg.cholesky(covariance)).T
    white /= np.linalg.norm(white, axis=1, keepdims=True)
    np.testing.assert_allclose(s.problem.candidates[:], white[:90], atol=1e-5)
    assert (s.space.whitening, s.space.norm, s.space.centre) == ("paper", None, "union")


@pytest.mark.parametrize("name", ["tarot_fixed", "tarot_otm", "tarot_exact"])
def test_weights_of_ours_sum_to_the_pool_by_default(name):
    options = {} if name == "tarot_otm" else {"ratio": 0.2}
    s = tarot.select(CANDIDATES, TARGETS, name, **options)
    assert s.weights.sum() == 90
    assert tarot.select(CANDIDATES, TARGETS, name, total=90 + 12, **options).weights.sum() == 102


def test_the_names_of_the_design_are_the_registry():
    """Those of other issues may join; none may leave."""
    ours = {"all", "target_only", "oracle", "random", "tarot_fixed", "tarot_otm", "tarot_exact", "dsdm"}
    assert ours <= set(tarot.selectors.SELECTORS)
    for name, kind in tarot.selectors.SELECTORS.items():
        assert "".join(part.capitalize() for part in name.split("_")).lower() == kind.__name__.lower()
        assert getattr(tarot.selectors, kind.__name__) is kind


# --- what may be given -----------------------------------------------------------------------------------------------


def test_a_list_of_views_is_one_matrix_per_model():
    """Whitened each; the transport is between rows side by side, divided by sqrt(T)."""
    views = [(CANDIDATES, TARGETS), (CANDIDATES[:, ::2] ** 3, TARGETS[:, ::2] ** 3)]
    s = tarot.select([c for c, _ in views], [t for _, t in views], "tarot_fixed", size=20, whitening="local")
    white = [tarot.whiten(c, t, "local") for c, t in views]
    joined = [np.concatenate([pair[side] for pair in white], axis=1) / np.sqrt(2) for side in (0, 1)]
    expected = tarot.select(*joined, "tarot_fixed", size=20, whitening=None)
    assert s.indices.tolist() == expected.indices.tolist()
    assert s.ot_distance == pytest.approx(expected.ot_distance, abs=1e-6)
    one = tarot.select([CANDIDATES], [TARGETS], "tarot_fixed", size=20)
    assert one.indices.tolist() == tarot.select(CANDIDATES, TARGETS, "tarot_fixed", size=20).indices.tolist()


def test_ids_come_back_with_the_selected():
    ids = [f"image-{i:03}.png" for i in range(90)]
    s = tarot.select(CANDIDATES, TARGETS, "tarot_fixed", size=9, candidate_ids=ids)
    assert s.ids.tolist() == [ids[i] for i in s.indices]
    assert tarot.select(CANDIDATES, TARGETS, "tarot_fixed", size=9).ids is None


def test_labels_and_groups_are_passed_on():
    """To methods that ask for them; here, a selector that takes one group's targets and one label's candidates."""

    class OneGroup:
        features, whitening, reference = "wfd", None, False

        def select(self, problem):
            assert problem.target_groups.tolist() == ["a", "b"] * 6 and problem.target_labels.tolist() == [1] * 12
            return problem.selection(np.flatnonzero(problem.candidate_labels == 2), {"class": "OneGroup"})

    labels = np.arange(90) % 5
    s = tarot.select(
        CANDIDATES, TARGETS, OneGroup(), candidate_labels=labels, target_labels=[1] * 12, target_groups=["a", "b"] * 6
    )
    assert s.indices.tolist() == list(range(2, 90, 5))


def test_targets_may_outnumber_candidates():
    s = tarot.select(TARGETS, CANDIDATES, "tarot_fixed", size=5)
    assert len(s) == 5 and s.lower_bound <= s.ot_distance
    assert len(tarot.select(TARGETS, CANDIDATES, "tarot_otm")) >= 1


def test_one_candidate_and_one_target():
    c, t = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    for selector in ("tarot_otm", "all", tarot.selectors.TarotFixed(size=1), tarot.selectors.TarotExact(ratio=1.0)):
        s = tarot.select(c, t, selector, whitening=None)
        assert s.indices.tolist() == [0] and s.weights.tolist() == [1]
        assert s.ot_distance == pytest.approx(2**0.5) and s.lower_bound == pytest.approx(2**0.5, rel=2e-6)


def test_inputs_are_not_written_to():
    c, t = torch.from_numpy(CANDIDATES.copy()).requires_grad_(), TARGETS.copy()
    for name in ("tarot_fixed", "tarot_exact", "dsdm", "random"):
        s = tarot.select(c, t, name, size=9)
        assert len(s.weights) == 9 and s.lower_bound <= s.ot_distance
    np.testing.assert_array_equal(c.detach(), CANDIDATES)
    np.testing.assert_array_equal(t, TARGETS)


# --- bad input -------------------------------------------------------------------------------------------------------


def changed(array, row, column, value):
    array = array.copy()
    array[row, column] = value
    return array


@pytest.mark.parametrize("side", ["candidates", "targets"])
def test_sparse_and_masked_features_are_read_or_refused_on_either_side(side):
    given = {"candidates": CANDIDATES, "targets": TARGETS}
    expected = tarot.select(**given, selector="tarot_fixed", size=9)
    sparse = given | {side: scipy.sparse.csr_array(given[side])}
    assert tarot.select(**sparse, selector="tarot_fixed", size=9).indices.tolist() == expected.indices.tolist()
    masked = given | {side: np.ma.masked_greater(given[side], np.sort(given[side].ravel())[-2])}
    with pytest.raises(InputError, match=f"{side} row .* is masked"):
        tarot.select(**masked, selector="tarot_fixed", size=9)
    labels = {"candidate_labels": np.zeros(len(CANDIDATES), int), "target_labels": np.zeros(len(TARGETS), int)}
    name = f"{side[:-1]}_labels"
    labels[name] = np.ma.masked_array(labels[name], mask=np.arange(len(given[side])) == 2)
    with pytest.raises(InputError, match=f"{name} row 2 is masked"):
        tarot.value(**given, selector="lava", **labels)


def call(candidates=CANDIDATES, targets=TARGETS, selector="tarot_fixed", **options) -> Callable[[], object]:
    if selector == "tarot_fixed" and not {"size", "ratio"} & set(options):
        options["size"] = 9
    return lambda: tarot.select(candidates, targets, selector, **options).weights


BAD = {
    "NaN candidate": (call(changed(CANDIDATES, 7, 2, np.nan)), "candidates row 7 column 2 is nan"),
    "NaN candidate, not whitened": (
        call(changed(CANDIDATES, 7, 2, np.nan), whitening=None),
        "candidates row 7 column 2 is nan",
    ),
    "infinite target": (call(targets=changed(TARGETS, 3, 0, -np.inf)), "targets row 3 column 0 is -inf"),
    "infinite target, not whitened": (
        call(targets=changed(TARGETS, 3, 0, -np.inf), whitening=None),
        "targets row 3 column 0 is -inf",
    ),
    "NaN, dsdm": (
        call(changed(CANDIDATES, 7, 2, np.nan), selector="dsdm", size=3),
        "(candidates|features) row 7 column 2 is nan",
    ),
    "all candidates zero": (call(0 * CANDIDATES, whitening=None), "only 0 of 90 are usable: the features"),
    "all targets zero": (call(targets=0 * TARGETS), "targets: every row is zero"),
    "all targets zero, not whitened": (call(targets=0 * TARGETS, whitening=None), "targets: every row is zero"),
    "everything zero": (call(0 * CANDIDATES, 0 * TARGETS), "hold only zero rows"),
    "everything equal": (call(np.ones((9, 3)), np.ones((4, 3)), size=2), "do not vary"),
    "N < S": (call(size=91), "size must be between 1 and the number of candidates, 90; it is 91"),
    "S = 0": (call(size=0), "size must be at least 1 or null; it is 0"),
    "S < 0": (call(size=-3), "it is -3"),
    "S of another type": (call(size=2.5), "size must be an integer of at least 1 or null; it is 2.5"),
    "auto where it is not known": (call(size="auto"), "size must be an integer of at least 1 or null; it is 'auto'"),
    "ratio above 1": (call(ratio=1.5), r"ratio must be in \(0, 1\] or null; it is 1.5"),
    "ratio 0": (call(ratio=0), "ratio must be in"),
    "ratio as text": (call(ratio="0.5"), "ratio must be a number.*'0.5'"),
    "ratio too small": (call(ratio=0.01), "ratio 0.01 of 90 candidates selects none"),
    "size and ratio": (call(size=3, ratio=0.5), "either size or ratio, not both"),
    "neither": (call(selector=tarot.selectors.TarotFixed()), "either size or ratio, not neither"),
    "no targets": (call(targets=TARGETS[:0]), r"targets is empty: its shape is \(0, 6\)"),
    "no candidates": (call(CANDIDATES[:0]), r"candidates is empty"),
    "no dimensions": (call(CANDIDATES[:, :0], TARGETS[:, :0]), "candidates is empty"),
    "mismatched dimensions": (call(targets=TARGETS[:, :5]), "candidates have 6 dimensions and targets 5"),
    "one-dimensional": (call(CANDIDATES[0]), "candidates must have two dimensions"),
    "three-dimensional": (call(CANDIDATES[None]), "candidates must have two dimensions"),
    "None": (call(None), "candidates must be a matrix .* it is None"),
    "text": (call(CANDIDATES.astype(str)), "candidates must hold real numbers; its dtype is <U"),
    "objects": (call(CANDIDATES.astype(object)), "candidates must hold real numbers; its dtype is object"),
    "complex": (call(targets=TARGETS + 0j), "targets must hold real numbers; its dtype is complex"),
    "a pickle": (call(pickle.dumps(CANDIDATES)), "candidates must have two dimensions"),
    "a path": (call("candidates.npy"), "candidates is the path 'candidates.npy', not rows: give tarot.open_features"),
    "ragged": (call([[1.0, 2.0], [3.0]]), "candidates is not a matrix"),
    "no views": (call([]), "candidates must have two dimensions"),
    "views of other models": (
        call([CANDIDATES] * 2, [TARGETS] * 3),
        "candidates come from 2 models and targets from 3",
    ),
    "views with other rows": (
        call([CANDIDATES, CANDIDATES[:80]], [TARGETS] * 2),
        r"candidates: the models must have seen the same rows; they have \[80, 90\]",
    ),
    "an empty view": (call([CANDIDATES, CANDIDATES[:0]], [TARGETS] * 2), r"candidates\[1\] is empty"),
    "views of other dimensions": (
        call([CANDIDATES, CANDIDATES], [TARGETS, TARGETS[:, :2]]),
        "candidates have 6 dimensions and targets 2",
    ),
    "duplicate ids": (call(candidate_ids=["a", "b", "a"] + [str(i) for i in range(87)]), "candidate_ids must be .*'a'"),
    "too few ids": (call(candidate_ids=["a"]), r"candidate_ids must have one entry for each of the 90 rows.*\(1,\)"),
    "too few labels": (call(candidate_labels=[1]), "candidate_labels must have one entry for each of the 90 rows"),
    "target labels of candidates": (call(target_labels=[1] * 90), "target_labels must .* each of the 12 rows"),
    "groups as a matrix": (call(target_groups=np.ones((12, 2))), "target_groups must"),
    "too few tags": (call(candidate_tags=["target"]), "candidate_tags must"),
    "residuals of another model": (
        call(selector="dsdm", size=3, candidate_residuals=[np.ones(90)] * 2),
        "candidate_residuals come from 2 models and candidates from 1",
    ),
    "too few residuals": (call(selector="dsdm", size=3, candidate_residuals=np.ones(3)), "candidate_residuals must"),
    "NaN residual": (
        call(selector="dsdm", size=3, candidate_residuals=changed(np.ones((90, 1)), 5, 0, np.nan)[:, 0]),
        "candidate_residuals must be finite; that of candidate 5",
    ),
    "residuals as text": (
        call(selector="dsdm", size=3, candidate_residuals=np.array(["a"] * 90)),
        "candidate_residuals must hold real numbers",
    ),
    "oracle without tags": (call(selector="oracle"), "candidate_tags"),
    "unknown selector": (
        call(selector="tarot_fixt"),
        r"there is no selector 'tarot_fixt' \(do you mean tarot_fixed\?\); there are all, batchwise_lava, ",
    ),
    "a class": (call(selector=tarot.selectors.All), "selector must be"),
    "no selector": (call(selector=None), "selector must be a name or have a `select` method"),
    "unknown option": (call(sizes=3, size=3), "selector 'tarot_fixed' has no option 'sizes'; its options are: size"),
    "no targets given": (lambda: tarot.select(CANDIDATES), r"^select\(\): missing a required argument: 'targets'"),
    "a class of workers": (call(engine=tarot.workers.Threads), "engine must be one of tarot.workers"),
    "whether a total may grow": (call(total=9, total_may_grow="yes"), "total_may_grow must be true or false"),
    "ids that are none": (call(candidate_ids=[None] * 90), "candidate_ids must be strings or integers; .* is None"),
    "weights in a list": (call(target_groups=[0] * 12, group_weights=[1]), "group_weights must be a mapping such as"),
    "options beside an object": (call(selector=tarot.selectors.TarotFixed(size=3), folds=3), r"options \['folds'\]"),
    "unknown whitening": (call(whitening="pca"), "whitening must be auto, chosen, .*, paper or null; it is 'pca'"),
    "negative ridge": (call(regularization=-1.0), "regularization must be at least 0 or null; it is -1.0"),
    "NaN ridge": (call(regularization=float("nan")), "regularization must be at least 0 or null"),
    "total below S": (call(total=8), "total 8 is less than the 9"),
    "total 0": (call(total=0), "total must be a positive integer; it is 0"),
    "total of another type": (call(total=100.5), "total must be a positive integer; it is 100.5"),
    "no folds": (call(selector="tarot_otm", folds=0), "folds must be at least 1"),
    "folds of another type": (call(selector="tarot_otm", folds=2.5), "folds must be an integer of at least 1; .* 2.5"),
    "unknown side": (call(selector="tarot_otm", side="both"), "side must be"),
    "negative seed": (call(selector="random", size=3, seed=-1), "seed must be .* -1"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_with_a_sentence_that_names_the_argument(case):
    function, message = BAD[case]
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        function()
    assert len(str(caught.value)) > 20


def test_a_store_of_another_projection_is_not_mixed_up(tmp_path):
    """Another seed of the projection has the same shape: the store's recipe tells them apart."""

    def build(seed):
        return FeatureStore.build(
            tmp_path / "candidates",
            recipe={"projection": {"kind": "factored", "seed": seed}},
            ids=[str(i) for i in range(90)],
            dim=6,
            compute=lambda start, stop: {"features": torch.from_numpy(CANDIDATES[start:stop]).float()},
        )

    s = tarot.select(build(0), TARGETS, "tarot_fixed", size=9)
    assert s.indices.tolist() == tarot.select(CANDIDATES, TARGETS, "tarot_fixed", size=9).indices.tolist()
    with pytest.raises(tarot.InputError, match="seed"):
        build(1)


def test_rows_that_have_names_give_them_to_the_selection(tmp_path):
    stores = [
        FeatureStore.build(
            tmp_path / first,
            recipe={},
            ids=[f"{first}{i}" for i in range(90)],
            dim=6,
            compute=lambda start, stop: {"features": torch.from_numpy(CANDIDATES[start:stop]).float()},
        )
        for first in ("a", "b")
    ]
    for candidates, targets in ((stores[0], TARGETS), ([CANDIDATES, stores[0]], [TARGETS] * 2)):
        s = tarot.select(candidates, targets, "tarot_fixed", size=9)
        assert s.ids.tolist() == [f"a{i}" for i in s.indices]
        named = tarot.select(candidates, targets, "tarot_fixed", size=9, candidate_ids=range(90))
        assert named.ids.tolist() == named.indices.tolist()
    mean = tarot.MeanRows([CANDIDATES, stores[1]])
    assert tarot.select(mean, TARGETS, "tarot_fixed", size=9).ids[0].startswith("b")
    with pytest.raises(tarot.InputError, match="candidates: row 0 is 'a0' in one matrix and 'b0' in another"):
        tarot.select(stores, [TARGETS] * 2, "tarot_fixed", size=9)


def test_a_damaged_store_stops_the_selection(tmp_path):
    store = FeatureStore.build(
        tmp_path / "store",
        recipe={"kind": "test"},
        ids=[str(i) for i in range(90)],
        dim=6,
        rows_per_shard=40,
        compute=lambda start, stop: {"features": torch.from_numpy(CANDIDATES[start:stop]).float()},
    )
    shard = sorted(store.path.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-50])
    with pytest.raises(tarot.InputError, match=shard.name):
        tarot.select(FeatureStore.open(store.path), TARGETS, "tarot_fixed", size=9)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: tarot.whiten(CANDIDATES, TARGETS[:, :3]), "candidates have 6 .* targets 3"),
        (lambda: tarot.whiten(CANDIDATES, TARGETS[:0]), "targets is empty"),
        (lambda: tarot.whiten(CANDIDATES, TARGETS, method="pca"), "method must be auto, chosen"),
        (lambda: tarot.nearest(CANDIDATES, TARGETS, k=2.5), "k must be an integer; it is 2.5"),
        (lambda: tarot.ot_distance(CANDIDATES, TARGETS, epsilon="a"), "epsilon must be a positive number; it is 'a'"),
        (lambda: tarot.potentials(CANDIDATES, TARGETS, epsilon=None), "epsilon must be a positive number"),
        (lambda: tarot.integer_weights([0.1, 0.2], 10**20), r"total must be at most 2\*\*53"),
        (lambda: tarot.integer_weights([0.1, np.nan], 3), "that of candidate 1 is nan"),
        (lambda: tarot.nearest(CANDIDATES, TARGETS, k=0), "k must be between 1"),
        (lambda: tarot.nearest(CANDIDATES, TARGETS, k=91), "k must be between 1"),
        (lambda: tarot.ot_distance(CANDIDATES, TARGETS[:, :3]), "x has 6 dimensions and y has 3"),
        (lambda: tarot.potentials(CANDIDATES, TARGETS, epsilon=0), "epsilon must be positive"),
        (lambda: tarot.integer_weights([0.1, 0.2], 1), "total 1 cannot give"),
        (
            lambda: tarot.Selection.load("missing.parquet"),
            "missing.parquet is not a selection .*not there",
        ),
        (lambda: tarot.open_features("missing.npy"), "missing.npy does not exist"),
        (lambda: tarot.lds(np.ones((3, 2)), np.ones((4, 2)), np.ones((4, 2))), "masks"),
    ],
)
def test_the_other_functions_name_what_is_wrong_too(function, message):
    with pytest.raises((ValueError, TypeError), match=message):
        function()
