"""What every selector promises, as checks that a test runs on one: nothing here knows a method by name.

A `Subject` is a selector's class and what it is given in a test. A check raises AssertionError, or what the selector
raised, where the promise is broken, and `NotPromised` where the selector makes no such promise.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import io
import json
import os
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

import tarot
from tarot import FeatureStore, InputError, Selection
from tarot.selectors import Selector
from tarot.selectors.contract import Valuing, check_selector
from tarot.selectors.options import described

N, M, DIMENSIONS, SIZE = 60, 12, 5, 14
VALUES = ("indices", "weights", "potentials", "nearest_target", "nearest_distance")
NEEDED = ("candidate_labels", "target_labels", "candidate_tags", "candidate_scores")  # by methods that are made of them
REFINING = ("target_groups", "candidate_residuals", "learning_rates")  # a method that knows them may choose otherwise


class NotPromised(Exception):
    """The check is about an ability that this selector does not have."""


@contextmanager
def quiet() -> Iterator[None]:
    """Without warnings of zero targets and clamped neighbours, which are not what is tested here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


@dataclass(frozen=True, eq=False)
class Subject:
    """kind: the class. options: given to every object of it. draws: its `size` is of draws with replacement, so that
    fewer candidates are selected and their weights sum to it. by_name: it draws candidates, by their ids where there
    are ids. counts: its rows are whole numbers of at least 0."""

    kind: type[Selector]
    options: Mapping[str, Any] = field(default_factory=dict)
    draws: bool = False
    by_name: bool = False
    counts: bool = False

    @property
    def fields(self) -> set[str]:
        return {one.name for one in dataclasses.fields(self.kind)}

    @property
    def sized(self) -> bool:
        return {"size", "ratio"} <= self.fields

    @property
    def looks_at_features(self) -> bool:
        return self.kind.features is not None

    def made(self, **options: Any) -> Selector:
        """An object of it; of a small size, where it takes one and is given none."""
        size = {"size": SIZE} if self.sized and not {"size", "ratio"} & options.keys() else {}
        return self.kind(**{**self.options, **size, **options})

    def select(self, known: Mapping[str, Any], selector: Selector | None = None, **more: Any) -> Selection:
        with quiet():
            return tarot.select(**{**known, **more}, selector=selector or self.made())

    def values(self, known: Mapping[str, Any]) -> np.ndarray:
        taken = {key: one for key, one in known.items() if key != "candidate_tags"}
        with quiet():
            return tarot.value(**taken, selector=self.made())


_rows: ContextVar[Callable[[np.ndarray], np.ndarray]] = ContextVar("rows", default=lambda rows: rows)
"""What becomes of random rows before a subject is given them."""


def counted(rows: np.ndarray) -> np.ndarray:
    """Whole numbers in their place, in the same order."""
    return np.floor(4 * np.exp(rows)).astype(rows.dtype)


@cache
def usual(subject: Subject, seed: int = 0) -> Selection:
    """What it selects of `pool(seed)`, for checks of how that is, and of what must not change it."""
    return subject.select(pool(seed))


@cache
def usual_values(subject: Subject, seed: int = 0) -> np.ndarray:
    """Of `pool(seed)`."""
    return subject.values(pool(seed))


def pool(seed: int = 0, views: int = 1, n: int = N) -> dict[str, Any]:
    """A problem without ties in which everything is known that a method may ask for."""
    rng = np.random.default_rng(seed)
    return {
        "candidates": [
            _rows.get()(rng.normal(size=(n, DIMENSIONS + view)).astype(np.float32)) for view in range(views)
        ],
        "targets": [
            _rows.get()(rng.normal(size=(M, DIMENSIONS + view)).astype(np.float32) + 0.5) for view in range(views)
        ],
        "candidate_labels": rng.integers(0, 3, n) % 2,  # of two classes: some methods solve a transport for each pair
        "target_labels": rng.integers(0, 3, M) % 2,
        "target_groups": np.arange(M) % 2,
        "candidate_ids": np.array([f"candidate {i}" for i in range(n)]),
        "candidate_tags": np.where(rng.random(n) < 0.5, "target", "noise"),
        "candidate_residuals": [rng.random(n) for _ in range(views)],
        "candidate_scores": [rng.random(n) for _ in range(views)],
        "learning_rates": np.linspace(1e-3, 2e-3, views),
    }


def rows_of(known: Mapping[str, Any], order: np.ndarray) -> dict[str, Any]:
    """The same problem with its candidates in this order."""

    def moved(value: Any) -> Any:
        return [one[order] for one in value] if isinstance(value, list) else value[order]

    return {key: moved(value) if key.startswith("candidate") else value for key, value in known.items()}


def targets_of(known: Mapping[str, Any], order: np.ndarray) -> dict[str, Any]:
    """The same problem with its targets in this order."""

    def moved(value: Any) -> Any:
        return [one[order] for one in value] if isinstance(value, list) else value[order]

    return {key: moved(value) if key.startswith("target") else value for key, value in known.items()}


def planted(seed: int, column: int | None = None) -> tuple[dict[str, Any], np.ndarray]:
    """A problem that half of the pool is made for, and which half: it lies around the targets and is of their class,
    and what was measured on the model speaks for it; the other half lies on the opposite side, by this column alone
    where there is one."""
    rng = np.random.default_rng(seed)
    made_for = np.zeros(N, dtype=bool)
    made_for[rng.choice(N, N // 2, replace=False)] = True
    center = 3 * rng.normal(size=DIMENSIONS) if column is None else 6 * np.eye(DIMENSIONS)[column]
    known = pool(seed)
    known["candidates"] = [_rows.get()(np.where(made_for[:, None], center, -center) + rng.normal(size=(N, DIMENSIONS)))]
    known["targets"] = [_rows.get()(center + rng.normal(size=(M, DIMENSIONS)))]
    known["candidate_labels"] = np.where(made_for, 0, 1)
    known["target_labels"] = np.zeros(M, dtype=np.int64)
    known["candidate_scores"] = [made_for + rng.random(N)]
    return known, made_for


def refused(what: str, function: Callable[[], Any], *words: str) -> None:
    """Asserts that it raises an InputError of one line that has these words."""
    try:
        function()
    except InputError as error:
        message = str(error)
        assert "\n" not in message and len(message) > 20, f"{what} is refused, but not in one clear line: {message!r}"
        missing = [word for word in words if word not in message]
        assert not missing, f"{what} is refused without naming {missing}: {message!r}"
        return
    raise AssertionError(f"{what} is not refused")


# --- what it is ------------------------------------------------------------------------------------------------------


def declares_its_facts(subject: Subject) -> None:
    check_selector(subject.kind)
    assert isinstance(subject.made(), Selector)
    stray = {"features", "whitening", "reference"} & subject.fields
    assert not stray, f"{sorted(stray)} are facts of the class, not options"


def describes_itself(subject: Subject) -> None:
    """As plain data, in its Selection, from which it can be made again. Of an option that is "auto" it says what that
    came to."""
    selector = subject.made()
    found = subject.select(pool(), selector).selector
    chosen = {key: "auto" for key, value in described(selector).items() if value == "auto" and key in found}
    assert {**found, **chosen} == described(selector), f"its selection is described as {found}"
    assert json.loads(json.dumps(found))["class"] == subject.kind.__name__
    again = subject.kind(**{key: value for key, value in found.items() if key != "class"})
    assert described(again) == found
    assert_same(subject.select(pool(), again), subject.select(pool(), selector), "made again it selects others")


def keeps_no_state(subject: Subject) -> None:
    selector, known = subject.made(), pool(views=2)
    given = copy.deepcopy(known)
    first = subject.select(known, selector)
    subject.select(pool(1, n=N - 7), selector)
    again = subject.select(known, selector)
    assert_same(first, again, "a second call differs from the first")
    for key, before in given.items():
        np.testing.assert_equal(known[key], before, err_msg=f"it wrote into {key}")


def answers_the_problem_at_hand(subject: Subject) -> None:
    """Another problem of the same shape, or other numbers in the same arrays, gets its own answer: who remembers a
    problem by its size or its arrays answers an earlier question."""
    if not subject.looks_at_features:
        raise NotPromised("it does not look at features, and may choose alike in all problems of a size")
    one, other = pool(2), pool(3)
    first, second = subject.select(one), subject.select(other)
    assert first.indices.tolist() != second.indices.tolist(), "two problems of one shape have the same answer"
    for key in ("candidates", "targets", "candidate_scores", "candidate_residuals"):
        one[key][0][...] = other[key][0]
    labels = {key: other[key] for key in ("candidate_labels", "target_labels", "candidate_tags")}
    assert_same(second, subject.select({**one, **labels}), "other numbers in the same arrays")


def leaves_global_state_alone(subject: Subject) -> None:
    """A choice that depends on the global generators is nobody's to repeat, and one that moves them, or a setting,
    changes the training after it. What is printed spoils the output of whoever calls."""

    def generators() -> list[Any]:
        _, words, *position = np.random.get_state()  # noqa: NPY002  (the old generator is what is watched)
        return [random.getstate(), words.tolist(), position, torch.get_rng_state().tolist()]

    ours = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    found, printed, selections = settings(), io.StringIO(), []
    try:
        for seed in range(2):
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            torch.manual_seed(seed)
            before = generators()
            with redirect_stdout(printed):
                selections.append(subject.select(pool()))
            moved = generators() != before  # not within the assert, which would compare thousands of words one by one
            assert not moved, "it moved a global generator"
    finally:
        left = settings()
        random.setstate(ours[0])
        np.random.set_state(ours[1])  # noqa: NPY002
        torch.set_rng_state(ours[2])
        torch.set_grad_enabled(found["gradients"])
        torch.set_default_dtype(found["default dtype"])
        torch.set_num_threads(found["threads"])
        np.seterr(**found["NumPy's errors"])
    changed = [name for name in found if found[name] != left[name]]
    assert not changed, f"it changed {changed} for everybody"
    assert not printed.getvalue(), f"it prints {printed.getvalue()!r}"
    assert_same(selections[0], selections[1], "other seeds of the global generators")


def settings() -> dict[str, Any]:
    """Of the process."""
    return {
        "gradients": torch.is_grad_enabled(),
        "default dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "NumPy's errors": np.geterr(),
        "the environment": dict(os.environ),
        "the working directory": os.getcwd(),
    }


# --- how many --------------------------------------------------------------------------------------------------------

IMPOSSIBLE = {
    "size=-3": {"size": -3},
    "size=0": {"size": 0},
    "size > N": {"size": N + 1},
    "size=True": {"size": True},
    "size=14.0": {"size": 14.0},
    "ratio=0": {"ratio": 0.0},
    "ratio=-0.1": {"ratio": -0.1},
    "ratio=1.01": {"ratio": 1.01},
    "ratio=nan": {"ratio": float("nan")},
    "ratio=True": {"ratio": True},
    "a ratio that selects none": {"ratio": 0.5 / N},
    "size and ratio together": {"size": SIZE, "ratio": 0.5},
}


def refuses_impossible_budgets(subject: Subject) -> None:
    if not subject.sized:
        raise NotPromised("it takes no size")
    for what, budget in IMPOSSIBLE.items():
        options = {**subject.options, **budget}
        refused(what, lambda options=options: subject.select(pool(), subject.kind(**options)), *budget)
    total = {"total": SIZE - 1}
    refused("a total below the size", lambda: subject.select(pool(), **total), "total", str(SIZE - 1))


def meets_its_size(subject: Subject) -> None:
    if not subject.sized:
        raise NotPromised("it takes no size")
    known = pool()
    known["candidate_tags"] = np.full(N, "target")  # whoever selects by tags has enough of them
    for budget, size in (
        ({"size": 1}, 1),
        ({"size": SIZE}, SIZE),
        ({"size": N}, N),
        ({"ratio": 0.29}, 17),
        ({"ratio": 0.297}, 17),
    ):
        selection = subject.select(known, subject.made(**budget))
        found = int(selection.weights.sum()) if subject.draws else len(selection)
        assert found == size, f"{budget} of {N} selects {found}, not {size}"


# --- which -----------------------------------------------------------------------------------------------------------


def selects_valid_candidates(subject: Subject) -> None:
    """int64, ascending, unique, of the pool; with their ids; and it is a choice."""
    for seed in range(3):
        selection = usual(subject, seed)
        indices = selection.indices
        assert indices.dtype == np.int64 and indices.ndim == 1
        assert (np.diff(indices) > 0).all(), "not ascending and unique"
        assert len(indices) == 0 or (indices[0] >= 0 and indices[-1] < N), "outside the pool"
        assert selection.ids.tolist() == [f"candidate {i}" for i in indices]
        assert selection.n == N and selection.m == M


def never_selects_zero_rows(subject: Subject) -> None:
    """Features that are zero in every view have nothing to go by; in one of several views they may be."""
    if not subject.looks_at_features:
        raise NotPromised("it does not look at features")
    for seed, views in ((0, 1), (1, 1), (2, 2)):
        known = pool(seed, views)
        empty = np.random.default_rng(seed).choice(N, 12, replace=False)
        for view in known["candidates"]:
            view[empty] = 0
        best = {"size": N - len(empty)} if subject.sized else {}
        chosen = subject.select(known, subject.made(**best)).indices
        assert not np.isin(empty, chosen).any(), f"zero rows {sorted(set(empty) & set(chosen))} are selected"
        if subject.sized and not subject.draws:
            more = subject.made(size=N - len(empty) + 1)
            refused("a size that needs zero rows", lambda known=known, more=more: subject.select(known, more), "zero")


def follows_its_candidates(subject: Subject) -> None:
    """Permuting candidates permutes the result, whether they have names or not."""
    sizes = [{"size": size} for size in (M // 2, SIZE, 2 * M)] if subject.sized else [{}]
    for (seed, size), named in product(enumerate(sizes), (True, False)):
        known, order = pool(seed), np.random.default_rng(seed + 5).permutation(N)
        if not named:
            del known["candidate_ids"]
        selector = subject.made(**size)
        one, other = subject.select(known, selector), subject.select(rows_of(known, order), selector)
        assert sorted(order[other.indices].tolist()) == one.indices.tolist(), "another order selects others"
        by_order = np.argsort(order[other.indices])
        assert other.weights[by_order].tolist() == one.weights.tolist(), "another order weighs them differently"


def follows_its_seed(subject: Subject) -> None:
    """The same seed the same choice, in two objects; and what is no seed is refused."""
    if "seed" not in subject.fields:
        raise NotPromised("it takes no seed")
    known = pool()
    assert_same(subject.select(known, subject.made(seed=3)), subject.select(known, subject.made(seed=3)), "seed 3")
    for bad in (-1, 0.5, True, "one"):
        refused(f"seed={bad!r}", lambda bad=bad: subject.select(known, subject.made(seed=bad)), "seed")


def differs_by_seed(subject: Subject) -> None:
    """Six seeds make more than one choice."""
    if "seed" not in subject.fields:
        raise NotPromised("it takes no seed")
    known = pool()
    selections = [subject.select(known, subject.made(seed=seed)) for seed in range(6)]
    different = {(tuple(one.indices.tolist()), tuple(one.weights.tolist())) for one in selections}
    assert len(different) > 1, "six seeds select the same"


def is_the_same_in_every_kind_of_array(subject: Subject) -> None:
    known, one = pool(), usual(subject)
    doubled = {key: [view.astype(np.float64) for view in known[key]] for key in ("candidates", "targets")}
    assert_same(one, subject.select({**known, **doubled}), "float64 features")
    alone = {key: known[key][0] for key in ("candidates", "targets")}
    assert_same(one, subject.select({**known, **alone}), "a matrix instead of a list of one")


def reads_every_precision(subject: Subject) -> None:
    """The same numbers in half and double precision: stores keep halves, and NumPy makes doubles."""
    half = pool()
    for key in ("candidates", "targets"):
        half[key] = [view.astype(np.float16) for view in half[key]]
    for precision in (np.float32, np.float64):
        wider = {key: [view.astype(precision) for view in half[key]] for key in ("candidates", "targets")}
        assert_same(subject.select(half), subject.select({**half, **wider}), f"float16 as {precision.__name__}")


def reads_rows_wherever_they_are(subject: Subject, folder: Path) -> None:
    """On disk, in a store, in torch, in Fortran's order, or not to be written to: a pool does not always fit in
    memory, nor belong to who selects from it."""
    known, one = pool(), usual(subject)

    def mapped(name: str, rows: np.ndarray) -> np.ndarray:
        np.save(folder / f"{name}.npy", rows)
        return np.load(folder / f"{name}.npy", mmap_mode="r")

    def stored(name: str, rows: np.ndarray) -> FeatureStore:
        return FeatureStore.build(
            folder / name,
            recipe={"kind": "test"},
            ids=[str(i) for i in range(len(rows))],
            dim=DIMENSIONS,
            rows_per_shard=len(rows) // 2,
            dtype="float32",
            compute=lambda start, stop: {"features": torch.from_numpy(rows[start:stop])},
        )

    def locked(name: str, rows: np.ndarray) -> np.ndarray:
        rows = rows.copy()
        rows.flags.writeable = False
        return rows

    kinds: dict[str, Callable[[str, np.ndarray], Any]] = {
        "a memory map": mapped,
        "a store": stored,
        "a torch tensor": lambda name, rows: torch.from_numpy(rows.copy()),
        "rows in Fortran's order": lambda name, rows: np.asfortranarray(rows),
        "read-only rows": locked,
    }
    for what, kind in kinds.items():
        rows = {key: [kind(key, known[key][0])] for key in ("candidates", "targets")}
        assert_same(one, subject.select({**known, **rows}), what)
    with mock.patch("tarot.features.arrays.block_size", lambda *_: 7):  # as many as a pool has that fills the memory
        assert_same(one, subject.select(known), "a few rows at a time")


def does_not_look_at_ids(subject: Subject) -> None:
    """An id is a name, which says nothing about what a candidate is worth."""
    if subject.by_name:
        raise NotPromised("it draws candidates by their names, not by where they stand")
    known, one = pool(), usual(subject)
    backwards = subject.select({**known, "candidate_ids": known["candidate_ids"][::-1]})
    assert_same(one, backwards, "ids in another order")
    nameless = {key: value for key, value in known.items() if key != "candidate_ids"}
    assert_same(one, subject.select(nameless), "no ids")


def orders_equals_by_id(subject: Subject) -> None:
    """Of two candidates that are the same but for their names, it is not the place that decides."""
    known = pool()
    for key in (key for key in known if key.startswith("candidate") and key != "candidate_ids"):
        values = known[key][0] if isinstance(known[key], list) else known[key]
        values[N // 2 :] = values[: N // 2]
    for size in (5, SIZE - 1) if subject.sized else (None,):
        selector = subject.made() if size is None else subject.made(size=size)
        order = np.random.default_rng(size).permutation(N)
        one, other = subject.select(known, selector), subject.select(rows_of(known, order), selector)
        assert set(other.ids) == set(one.ids), "another order selects other names"


def follows_no_scale(subject: Subject) -> None:
    """Features in other units make the same choice, however near to the ends of float32."""
    known, one = pool(), usual(subject)
    for scale in (1e-30, 1e10):
        sides = {side: [view * np.float32(scale) for view in known[side]] for side in ("candidates", "targets")}
        assert_same(one, subject.select({**known, **sides}), f"features times {scale:g}")


# --- for whom --------------------------------------------------------------------------------------------------------


def follows_no_order_of_targets(subject: Subject) -> None:
    """Targets are a set: none is served because it stands first."""
    for seed in range(3):
        known, order = pool(seed), np.random.default_rng(seed + 5).permutation(M)
        assert_same(usual(subject, seed), subject.select(targets_of(known, order)), "another order of targets")


def looks_at_its_targets(subject: Subject) -> None:
    """The opposite targets make another choice: whoever ranks by the pool alone, such as by its norms, is not
    targeted. Norms may count beside the targets, as in a scalar product."""
    if not subject.looks_at_features:
        raise NotPromised("it does not look at features")
    known = pool()
    mirrored = [view.max() - view if subject.counts else -view for view in known["targets"]]
    opposite = subject.select({**known, "targets": mirrored})
    one = usual(subject)
    assert one.indices.tolist() != opposite.indices.tolist(), "the opposite targets select the same"


def serves_its_targets(subject: Subject) -> None:
    """At every size, those that are made for the targets come first: who selects the worst fails here."""
    if not subject.looks_at_features:
        raise NotPromised("it does not look at features")
    sizes = (5, N // 2 - 5) if subject.sized else (None,)
    cases = [*product(range(2), (None,), sizes), *((2, column, sizes[0]) for column in (0, DIMENSIONS - 1))]
    for seed, column, size in cases:
        known, made_for = planted(seed, column)
        selector = subject.made() if size is None else subject.made(size=size)
        share = float(made_for[subject.select(known, selector).indices].mean())
        assert share > 0.8, f"of {size} selected, a share of {share:.2f} is made for the targets"


def survives_a_zero_target(subject: Subject) -> None:
    """A target whose gradient vanished is no reason to stop, nor to serve the others worse."""
    known, made_for = planted(0)
    before = subject.select(known)
    known["targets"][0][[0, 4]] = 0
    after = subject.select(known)
    with quiet():  # what is computed when it is first read
        assert np.isfinite(after.ot_distance) or not len(after)
        assert np.isfinite(after.potentials).all(), "potentials that are not finite"
    if len(after):
        shares = [made_for[one.indices].mean() for one in (before, after)]
        assert shares[1] > shares[0] - 0.2, "of {:.2f} made for the targets, {:.2f} are left".format(*shares)
    if isinstance(subject.made(), Valuing):
        assert np.isfinite(subject.values(known)).all(), "values that are not finite"


def survives_little_data(subject: Subject) -> None:
    """One target, one candidate, or fewer candidates than columns of which one is constant, for targets all alike."""
    one_target, one_candidate, few = pool(), pool(n=1), pool(n=4)
    for key, value in one_target.items():
        if key.startswith("target"):
            one_target[key] = [value[0][:1]] if isinstance(value, list) else value[:1]
    for side, n in (("candidates", 4), ("targets", M)):
        few[side] = [_rows.get()(np.random.default_rng(n).normal(size=(n, 7)))]
        few[side][0][:, 3] = 1
    few["targets"][0][:] = few["targets"][0][0]
    for known, size in ((one_target, SIZE), (one_candidate, 1), (few, 2)):
        known["candidate_tags"][:] = "target"
        selection = subject.select(known, subject.made(size=size) if subject.sized else None)
        if len(selection):
            assert np.isfinite(selection.ot_distance) and np.isfinite(selection.potentials).all()


def refuses_candidates_that_are_not_finite(subject: Subject) -> None:
    if not subject.looks_at_features:
        raise NotPromised("it does not look at features")
    for number in (np.nan, np.inf):
        known = pool()
        known["candidates"][0][7, 2] = number
        refused(f"a candidate with {number}", lambda known=known: subject.select(known), "candidates", "row 7")


# --- from several models ---------------------------------------------------------------------------------------------


def works_with_several_views(subject: Subject) -> None:
    """It runs, and every view has a say."""
    known = pool(views=3)
    selection = subject.select(known)
    assert np.isfinite(selection.ot_distance) or not len(selection)
    if not subject.looks_at_features or not isinstance(subject.made(), Valuing):
        return
    other = pool(7, views=3)
    last = {
        "candidates": [*known["candidates"][:2], other["candidates"][2]],
        "candidate_scores": [*known["candidate_scores"][:2], other["candidate_scores"][2]],
    }
    changed = subject.values({**known, **last})
    assert not np.array_equal(changed, subject.values(known)), "the last view does not matter"


def hears_every_view(subject: Subject) -> None:
    """Another first, and another last model makes another choice, also of a method that gives no values."""
    if not subject.looks_at_features:
        raise NotPromised("it does not look at features")
    known, other = pool(views=2), pool(7, views=2)
    one = subject.select(known)
    for view, what in ((0, "first"), (1, "last")):
        changed = dict(known)
        for key in ("candidates", "candidate_scores"):
            changed[key] = [*known[key]]
            changed[key][view] = other[key][view]
        assert subject.select(changed).indices.tolist() != one.indices.tolist(), f"the {what} view has no say"


# --- what it cannot do without ---------------------------------------------------------------------------------------


def refuses_what_is_missing_by_name(subject: Subject) -> None:
    """Without something that it needs, one line that names it; without what it does not need, the same choice."""
    known, one = pool(), usual(subject)
    for name in NEEDED + REFINING:
        rest = {key: value for key, value in known.items() if key != name}
        try:
            other = subject.select(rest)
        except InputError as error:
            assert name in str(error) and "\n" not in str(error), f"without {name} it says {str(error)!r}"
        except Exception as error:
            raise AssertionError(f"without {name}: {type(error).__name__}: {error}") from error
        else:
            if name in NEEDED:
                assert_same(one, other, f"it needs no {name}, but selects others without")


def does_not_look_at_tags_unless_it_needs_them(subject: Subject) -> None:
    """Tags are for diagnosis: who selects by them must refuse a pool without (the check above says so by name)."""
    known = pool()
    without = {key: value for key, value in known.items() if key != "candidate_tags"}
    try:
        one = subject.select(without)
    except InputError:
        raise NotPromised("it selects by tags, and says so") from None
    assert_same(one, usual(subject), "tags change its choice")


# --- how often -------------------------------------------------------------------------------------------------------


def weighs_up_to_a_total(subject: Subject) -> None:
    known, own = pool(), usual(subject)
    for total in (N, 3 * N + 1):
        selection = subject.select(known, total=total)
        assert selection.indices.tolist() == own.indices.tolist(), "a total changes who is selected"
        weights = selection.weights
        assert weights.dtype == np.int64 and weights.shape == selection.indices.shape and (weights >= 1).all()
        if not len(selection):
            continue
        assert weights.sum() == total, f"the weights sum to {weights.sum()}, and a total of {total} was asked for"
        if not subject.draws:
            falling = weights[np.lexsort((selection.potentials, -own.weights))]
            rise = (falling - np.minimum.accumulate(falling)).max()  # equal shares differ by one where they are rounded
            assert rise <= 1, "who has the lower weight by itself, or is less useful, is repeated more often"
    assert (own.weights >= 1).all() and own.weights.dtype == np.int64


def hands_over_usable_potentials(subject: Subject) -> None:
    """They tell the selected apart, since a total is shared out by them: NaN spoils that, one constant hides it, and
    the wrong sign turns it around."""
    selection = usual(subject)
    potentials = selection.potentials
    assert potentials.dtype == np.float64 and potentials.shape == selection.indices.shape
    assert np.isfinite(potentials).all(), "potentials that are not finite"
    assert len(selection) < 2 or np.ptp(potentials) > 0, "candidates that differ all have the same potential"
    if subject.looks_at_features:
        known, made_for = planted(0)
        most = subject.select(known, subject.made(size=N - 5) if subject.sized else None)
        mine = made_for[most.indices]
        if mine.any() and not mine.all():
            useful, useless = most.potentials[mine].mean(), most.potentials[~mine].mean()
            assert useful < useless, "the useless have the lower potentials: lower is more useful"


# --- on disk ---------------------------------------------------------------------------------------------------------


def survives_a_file(subject: Subject, folder: Path) -> None:
    selection = usual(subject)
    selection.save(folder / "selection.parquet")
    loaded = Selection.load(folder / "selection.parquet")
    assert_same(selection, loaded, "what is read is not what was written")
    for name in VALUES:
        one, other = getattr(selection, name), getattr(loaded, name)
        np.testing.assert_array_equal(other, one, err_msg=name)
        assert other.dtype == one.dtype, name
    for name in ("n", "m", "total", "selector", "curve"):
        assert getattr(loaded, name) == getattr(selection, name), name
    np.testing.assert_array_equal(loaded.ids, selection.ids)
    for name in ("ot_distance", "lower_bound"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(selection, name), err_msg=name)


def is_judged_by_the_transport(subject: Subject) -> None:
    """Its distance is not below what any subset of its size can have."""
    selection = usual(subject)
    if not len(selection):
        raise NotPromised("it selects nobody")
    assert selection.lower_bound <= selection.ot_distance * (1 + 1e-6)
    plain = selection.problem.selection(selection.indices, {}, blind=True)
    np.testing.assert_allclose(selection.ot_distance, plain.ot_distance, rtol=1e-6)
    np.testing.assert_allclose(selection.lower_bound, plain.lower_bound, rtol=1e-4)


# --- what candidates are worth ---------------------------------------------------------------------------------------


def values_every_candidate(subject: Subject) -> None:
    if not isinstance(subject.made(), Valuing):
        raise NotPromised("it gives no values")
    for seed, views in ((0, 1), (1, 2)):
        values = subject.values(pool(seed, views))
        assert isinstance(values, np.ndarray) and values.dtype == np.float64, f"{type(values)} {values.dtype}"
        assert values.shape == (N,), f"values have the shape {values.shape}"
        assert np.isfinite(values).all(), "values that are not finite"
        np.testing.assert_array_equal(
            subject.values(pool(seed, views)), values, err_msg="other values when asked again"
        )


def selects_what_it_values(subject: Subject) -> None:
    """Those that it selects are worth more, on average, than those that it leaves."""
    if not isinstance(subject.made(), Valuing):
        raise NotPromised("it gives no values")
    for seed in range(2):
        values, chosen = usual_values(subject, seed), usual(subject, seed).indices
        left = np.setdiff1d(np.arange(N), chosen)
        assert values[chosen].mean() > values[left].mean(), "it selects those of low value: higher must be better"


def selects_the_most_valuable(subject: Subject) -> None:
    """Nobody that it leaves is worth more than one that it selects; higher is better."""
    if not isinstance(subject.made(), Valuing):
        raise NotPromised("it gives no values")
    for seed in range(2):
        values, chosen = usual_values(subject, seed), usual(subject, seed).indices
        left = np.setdiff1d(np.arange(N), chosen)
        assert values[chosen].min() >= values[left].max(), "it leaves some that it values more than some that it takes"


CHECKS: tuple[Callable[..., None], ...] = (
    declares_its_facts,
    describes_itself,
    keeps_no_state,
    answers_the_problem_at_hand,
    leaves_global_state_alone,
    refuses_impossible_budgets,
    meets_its_size,
    selects_valid_candidates,
    never_selects_zero_rows,
    follows_its_candidates,
    follows_its_seed,
    differs_by_seed,
    is_the_same_in_every_kind_of_array,
    reads_every_precision,
    reads_rows_wherever_they_are,
    does_not_look_at_ids,
    orders_equals_by_id,
    follows_no_scale,
    follows_no_order_of_targets,
    looks_at_its_targets,
    serves_its_targets,
    survives_a_zero_target,
    survives_little_data,
    refuses_candidates_that_are_not_finite,
    works_with_several_views,
    hears_every_view,
    refuses_what_is_missing_by_name,
    does_not_look_at_tags_unless_it_needs_them,
    weighs_up_to_a_total,
    hands_over_usable_potentials,
    survives_a_file,
    is_judged_by_the_transport,
    values_every_candidate,
    selects_what_it_values,
    selects_the_most_valuable,
)


def run(check: Callable[..., None], subject: Subject, folder: Path) -> None:
    """One check of one selector; folder: an empty one to write in."""
    writes = "folder" in inspect.signature(check).parameters
    before = _rows.set(counted) if subject.counts else None
    try:
        check(subject, folder) if writes else check(subject)
    finally:
        if before is not None:
            _rows.reset(before)


def assert_same(one: Selection, other: Selection, what: str) -> None:
    assert one.indices.tolist() == other.indices.tolist(), f"{what}: {one.indices} and {other.indices}"
    assert one.weights.tolist() == other.weights.tolist(), f"{what}: weights {one.weights} and {other.weights}"
