"""A selection's numbers against brute force; what is computed when; files."""

import json
import pickle

import numpy as np
import ot
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import spearmanr

import tarot
import tarot.selection.selection
from tarot.common.errors import InputError
from tarot.selection.problem import SelectionProblem
from tarot.selection.selection import Selection
from tarot.selection.weights import integer_weights
from tarot.transport.entropic import sinkhorn
from tests.tarot.transport.test_solve import converged

# --- a selection's numbers -------------------------------------------------------------------------------------------


def unit(n, d=5, seed=0):
    rows = np.random.default_rng(seed).normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


CANDIDATES, TARGETS = unit(60), unit(9, seed=1)


def fixed(size=20, **options):
    return tarot.select(CANDIDATES, TARGETS, "tarot_fixed", size=size, whitening=None, **options)


def test_distance_potentials_and_nearest_are_those_of_the_selected_rows():
    s = fixed()
    cost = ot.dist(CANDIDATES[s.indices].astype(float), TARGETS.astype(float), metric="euclidean")
    assert s.ot_distance == pytest.approx(ot.emd2(np.full(20, 1 / 20), np.full(9, 1 / 9), cost), abs=1e-6)
    assert s.ot_bracket.lower == s.ot_bracket.upper == s.ot_distance
    np.testing.assert_array_equal(s.nearest_target, cost.argmin(1))
    np.testing.assert_allclose(s.nearest_distance, cost.min(1), atol=1e-6)
    f, _, _ = converged(cost, 0.01)
    np.testing.assert_allclose(s.potentials, f - f.mean(), atol=5e-3)
    np.testing.assert_array_equal(s.weights, integer_weights(s.potentials, 60))
    assert spearmanr(s.weights, s.potentials).statistic < -0.9


def test_types_are_those_of_the_design():
    s = fixed()
    for name, dtype in {"indices": np.int64, "weights": np.int64, "nearest_target": np.int64}.items():
        assert getattr(s, name).dtype == dtype and getattr(s, name).shape == (20,)
    assert s.potentials.dtype == s.nearest_distance.dtype == np.float64
    assert isinstance(s.ot_distance, float) and isinstance(s.lower_bound, float)
    assert (np.diff(s.indices) > 0).all()
    assert (s.n, s.m, len(s)) == (60, 9, 20)


def test_targets_without_features_are_left_out_and_the_numbering_stays():
    targets = TARGETS.copy()
    targets[[0, 4]] = 0
    with pytest.warns(UserWarning, match="2 of 9 targets have zero features"):
        s = tarot.select(CANDIDATES, targets, "tarot_fixed", size=20, whitening=None)
        nearest = s.nearest_target
    cost = ot.dist(CANDIDATES[s.indices].astype(float), targets.astype(float), metric="euclidean")
    cost[:, [0, 4]] = np.inf
    np.testing.assert_array_equal(nearest, cost.argmin(1))
    without = tarot.select(CANDIDATES, np.delete(targets, [0, 4], axis=0), "tarot_fixed", size=20, whitening=None)
    np.testing.assert_array_equal(s.indices, without.indices)
    assert s.ot_distance == pytest.approx(without.ot_distance)
    assert s.lower_bound == pytest.approx(without.lower_bound)
    np.testing.assert_array_equal(s.weights, without.weights)


def test_a_cost_too_large_for_memory_is_bracketed(monkeypatch):
    exactly = fixed()
    monkeypatch.setattr("tarot.selection.problem.DENSE_PAIRS", 10)
    s = fixed()
    assert s.ot_bracket.lower <= exactly.ot_distance <= s.ot_bracket.upper == s.ot_distance
    assert s.ot_distance < 1.02 * exactly.ot_distance
    np.testing.assert_array_equal(s.nearest_target, exactly.nearest_target)
    np.testing.assert_allclose(s.nearest_distance, exactly.nearest_distance, atol=1e-6)
    assert spearmanr(s.potentials, exactly.potentials).statistic > 0.95
    assert s.lower_bound == pytest.approx(exactly.lower_bound)


def test_total_is_the_callers_or_the_selectors():
    assert fixed().weights.sum() == 60
    assert fixed(total=25).weights.sum() == 25
    assert fixed(total=20).weights.tolist() == [1] * 20
    with pytest.raises(InputError, match="total 19 is less than the 20"):
        fixed(total=19)
    with pytest.raises(InputError, match="total 3 is less than"):
        tarot.select(CANDIDATES, TARGETS, "all", total=3)


def test_a_total_may_give_way_to_a_larger_selection():
    for total in 19, 20, 25:
        grown = fixed(size=20, total=total, total_may_grow=True)
        assert grown.total == grown.weights.sum() == max(20, total)
        assert grown.weights.tolist() == fixed(size=20, total=max(20, total)).weights.tolist()
    own = tarot.select(CANDIDATES, TARGETS, "tarot_otm", folds=3)
    otm = tarot.select(CANDIDATES, TARGETS, "tarot_otm", folds=3, total=1, total_may_grow=True)
    assert otm.indices.tolist() == own.indices.tolist() and otm.weights.tolist() == [1] * len(own)
    assert tarot.select(CANDIDATES, TARGETS, "all", total=3, total_may_grow=True).weights.tolist() == [1] * 60
    assert fixed(total_may_grow=True).weights.tolist() == fixed().weights.tolist()  # the selector's own, as ever


@pytest.mark.parametrize(
    ("selector", "options"),
    [("random", {"size": 20}), ("dsdm", {"size": 20}), ("all", {}), ("oracle", {"candidate_tags": ["target"] * 60})],
)
def test_baselines_weigh_one_each_and_repeat_uniformly_up_to_a_total(selector, options):
    """theory.md 1.4: baselines use uniform repetition to the same R."""
    s = tarot.select(CANDIDATES, TARGETS, selector, **options)
    assert s.weights.tolist() == [1] * len(s)
    repeated = tarot.select(CANDIDATES, TARGETS, selector, total=2 * len(s) + 3, **options)
    assert sorted(repeated.weights.tolist()) == [2] * (len(s) - 3) + [3] * 3


def test_what_a_selector_knows_is_aligned_with_the_indices():
    problem = SelectionProblem((CANDIDATES,), (TARGETS,), candidate_ids=np.array([f"c{i}" for i in range(60)]))
    known = {"potentials": np.array([3.0, 1.0, 2.0]), "weights": np.array([1, 5, 2]), "lower_bound": 0.25}
    s = Selection.of(problem, np.array([30, 7, 11]), {"class": "Mine"}, **known)
    assert s.indices.tolist() == [7, 11, 30] and s.ids.tolist() == ["c7", "c11", "c30"]
    assert s.potentials.tolist() == [1, 2, 3] and s.weights.tolist() == [5, 2, 1] and s.lower_bound == 0.25


# --- what cannot be a selection --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ([3, 3, 5], "indices must be unique; candidate 3 stands 2 times"),
        ([-1, 2], r"indices must be of the 60 candidates, 0\.\.59; -1 is not"),
        ([2, 60], "60 is not"),
        ([0.7, 1.2], "indices must be a vector of integers .* dtype float64"),
        (np.arange(60) < 3, "dtype bool"),
        ([[1, 2], [3, 4]], r"their shape is \(2, 2\)"),
        (["a", "b"], "dtype <U1"),
    ],
)
def test_a_choice_that_is_none_is_refused(chosen, message):
    problem = SelectionProblem(CANDIDATES, TARGETS)
    for made in (
        lambda: problem.selection(chosen, {}),
        lambda: problem.selection(chosen, {}, blind=True),
        lambda: Selection(np.asarray(chosen), 60, len(TARGETS), {}),
    ):
        with pytest.raises(InputError, match=message):
            made()


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"weights": [1, 0, 2]}, "weights must be at least 1; one is 0"),
        ({"weights": [1, 2]}, r"one for each of the 3 selected; their shape is \(2,\)"),
        ({"weights": [1.0, 2.0, 2.5]}, "weights must be integers.*dtype float64"),
        ({"potentials": [0.1, np.nan, 0.2]}, "potentials must be finite"),
        ({"potentials": [0.1]}, "one for each of the 3 selected"),
        ({"total": 2}, "total 2 is less than the 3 candidates"),
        ({"total": 4.5}, "total must be a positive integer; it is 4.5"),
    ],
)
def test_what_a_selector_says_of_its_choice_is_checked(known, message):
    with pytest.raises(InputError, match=message):
        SelectionProblem(CANDIDATES, TARGETS).selection(np.array([4, 1, 9]), {}, **known)
    with pytest.raises(TypeError, match="wieghts"):
        SelectionProblem(CANDIDATES, TARGETS).selection(np.array([4]), {}, wieghts=[1])


def test_a_selection_is_in_order_however_it_is_made():
    with pytest.raises(InputError, match="indices must ascend; 1 stands after 4"):
        Selection(np.array([4, 1]), 60, 8, {})
    with pytest.raises(InputError, match="n must be a positive integer; it is 0"):
        Selection(np.array([], dtype=np.int64), 0, 8, {})
    with pytest.raises(InputError, match="2 are selected, and the shape of their ids"):
        Selection(np.array([1, 4]), 60, 8, {}, ids=np.array(["a"]))
    found = SelectionProblem(CANDIDATES, TARGETS).selection([4, 1], {})
    assert found.indices.tolist() == [1, 4] and found.indices.dtype == np.int64
    assert len(SelectionProblem(CANDIDATES, TARGETS).selection([], {})) == 0
    assert Selection(np.array([1, 4], dtype=np.int32), 60, 8, {}).indices.dtype == np.int64


def test_candidates_without_features_are_not_selected_but_blindly():
    """theory.md 0.2: a zero gradient is never selected; arms that do not look at features take the pool as it is."""
    candidates = CANDIDATES.copy()
    candidates[[5, 11]] = 0
    problem = SelectionProblem(candidates, TARGETS)
    assert problem.zero_rows(np.array([4, 5, 11, 12])).tolist() == [False, True, True, False]
    assert problem.first_usable(np.array([5, 3, 11, 8, 2]), 2).tolist() == [3, 8]
    with pytest.raises(InputError, match="3 candidates are wanted, but only 2 of 4 are usable"):
        problem.first_usable(np.array([5, 3, 11, 8]), 3)
    with pytest.raises(InputError, match="candidate 5 is selected, and its features are zero"):
        problem.selection(np.array([30, 11, 5]), {})
    assert problem.selection(np.array([30, 11, 5]), {}, blind=True).indices.tolist() == [5, 11, 30]
    for name in ("all", "random"):
        options = {"size": 60} if name == "random" else {}
        assert len(tarot.select(candidates, TARGETS, name, **options)) == 60
    one_view = SelectionProblem([candidates, CANDIDATES], [TARGETS, TARGETS])
    assert not one_view.zero_rows(np.arange(60)).any()  # the other view has something to go by


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ({"lower_bound": -1.0}, "lower_bound must be a distance"),
        ({"lower_bound": float("nan")}, "lower_bound must be a distance"),
        ({"ot_distance": "x"}, "ot_distance must be a distance"),
        ({"ot_distance": float("inf")}, "ot_distance must be a distance"),
    ],
)
def test_what_a_selector_hands_over_is_a_distance(known, words):
    with pytest.raises(InputError, match=words):
        SelectionProblem(CANDIDATES, TARGETS).selection(np.array([3, 7]), {}, **known)


def test_a_total_that_no_float_holds_is_refused():
    with pytest.raises(InputError, match=r"total must be at most 2\*\*53"):
        SelectionProblem(CANDIDATES, TARGETS, total=10**30)


def test_a_selection_is_of_its_own_problem():
    with pytest.raises(InputError, match="n and m are 70"):
        Selection(np.array([65]), 70, len(TARGETS), {}, problem=SelectionProblem(CANDIDATES, TARGETS))


def test_own_weights_beside_an_own_total_are_shared_out_to_the_callers():
    problem = SelectionProblem(CANDIDATES, TARGETS, total=20)
    found = problem.selection(np.array([7, 3]), {}, weights=np.array([9, 1]), total=10)
    assert found.total == 20 and found.weights.tolist() == [2, 18]


# --- computed when first read ----------------------------------------------------------------------------------------


@pytest.fixture
def solved(monkeypatch):
    """The names of the problems that were solved, in order."""
    calls = []

    def counted(name, function):
        return lambda *given, **named: calls.append(name) or function(*given, **named)

    for name in ("solve_exact", "entropic_potentials", "bracket", "sinkhorn"):
        monkeypatch.setattr(tarot.selection.selection, name, counted(name, getattr(tarot.selection.selection, name)))
    for name in ("capacity_plan", "neighbours", "cost"):
        monkeypatch.setattr(SelectionProblem, name, counted(name, getattr(SelectionProblem, name)))
    return calls


def test_nothing_is_solved_until_it_is_read_and_then_once(solved):
    s = tarot.select(CANDIDATES, TARGETS, "random", size=20)
    assert s.weights.sum() == 20 and len(s.indices) == 20
    assert solved == []
    assert len(s.nearest_target) == len(s.nearest_distance) == 20
    assert solved == ["cost"]
    assert s.potentials is s.potentials
    assert solved == ["cost", "entropic_potentials"]
    assert s.ot_distance == s.ot_bracket.upper
    assert solved == ["cost", "entropic_potentials", "solve_exact"]
    assert s.lower_bound == s.lower_bound > 0
    assert solved == ["cost", "entropic_potentials", "solve_exact", "capacity_plan", "neighbours"]


def test_weights_cost_one_entropic_solve(solved):
    s = fixed(size=9)
    assert not {"solve_exact", "entropic_potentials", "capacity_plan"} & set(solved)
    assert s.weights.sum() == 60
    assert solved.count("entropic_potentials") == 1 and "solve_exact" not in solved and "capacity_plan" not in solved


# --- files -----------------------------------------------------------------------------------------------------------

VALUES = ("indices", "weights", "potentials", "nearest_target", "nearest_distance")


def test_what_a_saved_selection_calls_itself_is_a_promise_to_the_files_there_are(tmp_path):
    rows = np.random.default_rng(0).normal(size=(12, 3))
    tarot.select(rows[2:], rows[:2], "tarot_fixed", size=3).save(tmp_path / "s.parquet")
    assert pq.read_schema(tmp_path / "s.parquet").metadata[b"format"] == b"tarot.selection/1"


@pytest.mark.parametrize(
    ("selector", "options"),
    [
        ("tarot_fixed", {"size": 20}),
        ("tarot_fixed", {"ratio": 0.2, "total": 99, "candidate_ids": [f"sample {i}" for i in range(60)]}),
        ("tarot_otm", {"folds": 3, "candidate_ids": np.arange(60)[::-1]}),
        ("tarot_exact", {"size": "auto"}),
        ("random", {"size": 3, "seed": 4}),
        ("all", {}),
        ("target_only", {}),
    ],
)
def test_a_saved_selection_is_loaded_whole(selector, options, tmp_path):
    s = tarot.select(CANDIDATES, TARGETS, selector, **options)
    s.save(tmp_path / "new" / "selection.parquet")
    loaded = Selection.load(tmp_path / "new" / "selection.parquet")
    for name in VALUES:
        np.testing.assert_array_equal(getattr(loaded, name), getattr(s, name))
        assert getattr(loaded, name).dtype == getattr(s, name).dtype
    for name in ("n", "m", "total", "selector", "curve"):
        assert getattr(loaded, name) == getattr(s, name)
    np.testing.assert_array_equal([loaded.ot_distance, loaded.lower_bound], [s.ot_distance, s.lower_bound])
    assert (loaded.ids is None) == (s.ids is None)
    if s.ids is not None:
        assert loaded.ids.tolist() == np.asarray(options["candidate_ids"])[s.indices].tolist()
    loaded.save(tmp_path / "again.parquet")  # a loaded selection needs no problem
    np.testing.assert_array_equal(Selection.load(tmp_path / "again.parquet").weights, s.weights)


def test_the_file_is_a_plain_table(tmp_path):
    s = fixed(candidate_ids=[f"c{i}" for i in range(60)])
    s.save(tmp_path / "s.parquet")
    table = pq.read_table(tmp_path / "s.parquet").to_pandas()
    assert set(table) == {"index", "id", "weight", "potential", "nearest_target", "nearest_distance"}
    assert table["id"].tolist() == [f"c{i}" for i in s.indices]


def test_an_arm_without_candidates_has_no_distance():
    s = tarot.select(CANDIDATES, TARGETS, "target_only", total=60)
    assert len(s) == len(s.indices) == len(s.weights) == len(s.potentials) == len(s.nearest_target) == 0
    assert np.isnan(s.ot_distance) and np.isnan(s.lower_bound)
    assert s.indices.dtype == s.weights.dtype == s.nearest_target.dtype == np.int64


def test_files_that_are_not_selections_are_refused(tmp_path):
    fixed().save(tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    pq.write_table(pa.table({"index": [1, 2]}), tmp_path / "other.parquet")
    (tmp_path / "truncated.parquet").write_bytes(whole[:-100])
    (tmp_path / "pickle.parquet").write_bytes(pickle.dumps([1, 2, 3]))
    (tmp_path / "empty.parquet").write_bytes(b"")
    for name in ("other", "truncated", "pickle", "empty", "missing"):
        with pytest.raises(InputError, match=rf"{name}.parquet is .*not a selection saved by tarot"):
            Selection.load(tmp_path / f"{name}.parquet")


def _second(table, column, value):
    values = table[column].to_pylist()
    values[1] = value
    return table.set_column(table.column_names.index(column), column, pa.array(values))


def _with_facts(table, **changed):
    facts = json.loads(table.schema.metadata[b"selection"]) | changed
    return table.replace_schema_metadata({**table.schema.metadata, b"selection": json.dumps(facts)})


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (lambda t: _second(t, "index", 10_000), "indices must be of the 60 candidates"),
        (lambda t: _second(t, "index", t["index"][0].as_py()), "indices must be unique"),
        (lambda t: _second(t, "index", -4), "-4 is not"),
        (
            lambda t: t.set_column(0, "index", pa.array(t["index"].to_numpy() + 0.5)),
            "indices must be a vector of integers",
        ),
        (lambda t: t.take(list(range(len(t)))[::-1]), "indices must ascend"),
        (lambda t: _second(t, "weight", 0), "weights must be at least 1"),
        (lambda t: _second(t, "weight", 99), "its weights sum to .* and its total is 60"),
        (lambda t: _second(t, "potential", float("nan")), "potentials must be finite"),
        (lambda t: _second(t, "nearest_target", 700), "nearest_target must be positions of the"),
        (lambda t: t.drop_columns(["weight"]), "weight"),
        (lambda t: _with_facts(t, n=3), "indices must be of the 3 candidates"),
        (lambda t: _with_facts(t, n="60"), "n must be a positive integer; it is '60'"),
        (lambda t: _with_facts(t, total=61), "its total is 61"),
        (lambda t: _with_facts(t, ot_bracket=None), "NoneType"),
        (lambda t: t.replace_schema_metadata({**t.schema.metadata, b"selection": b"{"}), "Expecting property name"),
    ],
)
def test_a_file_that_was_tampered_with_is_refused(tamper, message, tmp_path):
    fixed(size=9).save(tmp_path / "s.parquet")
    whole = pq.read_table(tmp_path / "s.parquet")
    changed = tamper(whole)
    metadata = {**whole.schema.metadata, **(changed.schema.metadata or {})}
    pq.write_table(changed.replace_schema_metadata(metadata), tmp_path / "changed.parquet")
    with pytest.raises(InputError, match=f"changed.parquet is damaged.*{message}"):
        Selection.load(tmp_path / "changed.parquet")


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    fixed().save(tmp_path / "s.parquet")
    before = (tmp_path / "s.parquet").read_bytes()

    def full(table, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OSError, match="No space left"):
        fixed(size=5).save(tmp_path / "s.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["s.parquet"]
    assert (tmp_path / "s.parquet").read_bytes() == before


def test_ot_of_the_entropic_value_is_not_reported_as_the_distance():
    """Ledger L-15: a biased entropic value is never shown; a set is at distance 0 of itself."""
    s = tarot.select(TARGETS, TARGETS, "all", whitening=None)
    assert s.ot_distance == pytest.approx(0, abs=1e-9)
    assert sinkhorn(s._cost, 0.01).value > 1e-4
