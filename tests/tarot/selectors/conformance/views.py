"""What it makes of rows from several models."""

from __future__ import annotations

import numpy as np

from tarot.selectors.contract import Valuing
from tests.tarot.selectors.conformance.subjects import NotPromised, Subject, pool


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
