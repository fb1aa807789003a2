"""What it hands over: weights, potentials, distances, a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tarot import Selection
from tests.tarot.selectors.conformance.subjects import N, NotPromised, Subject, assert_same, planted, pool, usual

VALUES = ("indices", "weights", "potentials", "nearest_target", "nearest_distance")


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
