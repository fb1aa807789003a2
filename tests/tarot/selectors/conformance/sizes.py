"""How many it selects."""

from __future__ import annotations

import numpy as np

from tests.tarot.selectors.conformance.subjects import SIZE, N, NotPromised, Subject, pool, refused, rows_of

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
    unasked = {} if subject.kind.reference else {"neither size nor ratio": {"size": None, "ratio": None}}
    for what, budget in {**IMPOSSIBLE, **unasked}.items():  # an arm that all others are compared with may have a size
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
    if subject.draws:
        return
    twins = {**rows_of(known, np.arange(N) // 2), "candidate_ids": known["candidate_ids"]}
    everyone = subject.select(twins, subject.made(size=N))
    assert len(everyone) == N, f"of {N} candidates in pairs of equals, all asked for, it selects {len(everyone)}"
