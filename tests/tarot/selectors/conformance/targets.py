"""For whom it selects."""

from __future__ import annotations

from itertools import product

import numpy as np

from tarot.selectors.contract import Valuing
from tests.tarot.selectors.conformance.subjects import (
    DIMENSIONS,
    MANY,
    SIZE,
    M,
    N,
    NotPromised,
    Subject,
    assert_same,
    planted,
    pool,
    quiet,
    rows_of_it,
    targets_of,
    usual,
)


def follows_no_order_of_targets(subject: Subject) -> None:
    """Targets are a set: none is served because it stands first, few or many."""
    for seed in range(3):
        known, order = pool(seed), np.random.default_rng(seed + 5).permutation(M)
        assert_same(usual(subject, seed), subject.select(targets_of(known, order)), "another order of targets")
    many, order = pool(3, m=MANY), np.random.default_rng(8).permutation(MANY)
    assert_same(subject.select(many), subject.select(targets_of(many, order)), "another order of many targets")


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


def goes_by_the_space_that_it_names(subject: Subject) -> None:
    """Rows of which one column drowns the others are chosen otherwise where they are whitened: who says "chosen" and
    reads them as they were given does not."""
    if not subject.looks_at_features or subject.kind.whitening is None:
        raise NotPromised("it asks for no whitening")
    known = pool()
    for side in ("candidates", "targets"):
        known[side] = [rows_of_it(known[side][0] * np.where(np.arange(DIMENSIONS) == 0, 30, 1).astype(np.float32))]
    found = [subject.select(known, whitening=whitening) for whitening in (None, "cholesky")]
    assert found[0].indices.tolist() != found[1].indices.tolist(), "whitened rows are chosen as they were given"


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
        few[side] = [rows_of_it(np.random.default_rng(n).normal(size=(n, 7)))]
        few[side][0][:, 3] = 1
    few["targets"][0][:] = few["targets"][0][0]
    for known, size in ((one_target, SIZE), (one_candidate, 1), (few, 2)):
        known["candidate_tags"][:] = "target"
        selection = subject.select(known, subject.made(size=size) if subject.sized else None)
        if len(selection):
            assert np.isfinite(selection.ot_distance) and np.isfinite(selection.potentials).all()
