"""What checks are written with: a selector as it is tested, problems to give it, and how answers are compared."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

import tarot
from tarot import InputError, Selection
from tarot.selectors import Selector

N, M, DIMENSIONS, SIZE = 60, 12, 5, 14
MANY = 400  # candidates or targets, where few do not show it


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


_counts: ContextVar[bool] = ContextVar("counts", default=False)


@contextmanager
def rows_for(subject: Subject) -> Iterator[None]:
    """Within, `rows_of_it` are such as this subject reads."""
    before = _counts.set(subject.counts)
    try:
        yield
    finally:
        _counts.reset(before)


def rows_of_it(rows: np.ndarray) -> np.ndarray:
    """Random rows, or whole numbers in their place, in the same order, where the subject reads counts."""
    return np.floor(4 * np.exp(rows)).astype(rows.dtype) if _counts.get() else rows


@cache
def usual(subject: Subject, seed: int = 0) -> Selection:
    """What it selects of `pool(seed)`, for checks of how that is, and of what must not change it."""
    return subject.select(pool(seed))


@cache
def usual_values(subject: Subject, seed: int = 0) -> np.ndarray:
    """Of `pool(seed)`."""
    return subject.values(pool(seed))


def pool(seed: int = 0, views: int = 1, n: int = N, m: int = M) -> dict[str, Any]:
    """A problem without ties in which everything is known that a method may ask for."""
    rng = np.random.default_rng(seed)
    return {
        "candidates": [rows_of_it(rng.normal(size=(n, DIMENSIONS + view)).astype(np.float32)) for view in range(views)],
        "targets": [
            rows_of_it(rng.normal(size=(m, DIMENSIONS + view)).astype(np.float32) + 0.5) for view in range(views)
        ],
        "candidate_labels": rng.integers(0, 3, n) % 2,  # of two classes: some methods solve a transport for each pair
        "target_labels": rng.integers(0, 3, m) % 2,
        "target_groups": np.arange(m) % 2,
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
    known["candidates"] = [rows_of_it(np.where(made_for[:, None], center, -center) + rng.normal(size=(N, DIMENSIONS)))]
    known["targets"] = [rows_of_it(center + rng.normal(size=(M, DIMENSIONS)))]
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


def assert_same(one: Selection, other: Selection, what: str) -> None:
    assert one.indices.tolist() == other.indices.tolist(), f"{what}: {one.indices} and {other.indices}"
    assert one.weights.tolist() == other.weights.tolist(), f"{what}: weights {one.weights} and {other.weights}"
