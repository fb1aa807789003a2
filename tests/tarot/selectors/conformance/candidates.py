"""Which candidates it selects: valid ones, whatever their order and their names, and by its seed alone."""

from __future__ import annotations

from itertools import product

import numpy as np

from tests.tarot.selectors.conformance.subjects import (
    MANY,
    SIZE,
    M,
    N,
    NotPromised,
    Subject,
    assert_same,
    pool,
    refused,
    rows_of,
    usual,
)


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
    """Permuting candidates permutes the result, whether they have names or not; in a pool that is read at once, and
    in one whose first rows could be taken for the whole."""
    sizes = [{"size": size} for size in (M // 2, SIZE, 2 * M)] if subject.sized else [{}]
    few = [(seed, N, size, named) for (seed, size), named in product(enumerate(sizes), (True, False))]
    many = [(3, MANY, size, True) for size in ([sizes[-1], {"size": 9 * MANY // 10}] if subject.sized else sizes)]
    for seed, n, size, named in [*few, *many]:
        known, order = pool(seed, n=n), np.random.default_rng(seed + 5).permutation(n)
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
