"""The table of what selections depend on has a row of every method, is what the contract of selectors holds, and says
what becomes of a target whose row is zero."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest

import tarot
from tarot.selectors import SELECTORS
from tests.docs.pages import DOCS
from tests.tarot.selectors.test_contract import EXEMPT

ORDERS = {
    "follows_its_candidates": 0,
    "orders_equals_by_id": 0,
    "follows_no_order_of_targets": 1,
}  # columns of the table
BLIND = {"all", "oracle", "target_only"}  # they take no size, or tags alone
ROWS = {
    name: [cell.strip() for cell in cells.split("|")]
    for name, cells in re.findall(r"^\| `(\w+)` \| (.+) \|$", (DOCS / "order.md").read_text("utf-8"), re.MULTILINE)
}


def test_every_selector_is_measured():
    missing = sorted(set(SELECTORS) ^ set(ROWS))
    assert not missing, (
        f"docs/order.md and SELECTORS differ in {missing}: `python benchmarks/order.py NAME` prints a row"
    )
    assert list(ROWS) == sorted(SELECTORS), "the rows of docs/order.md are not in order"
    assert {ROWS[name][-1] for name in BLIND} == {"not looked at"}
    owed = {(name, ORDERS[check]) for name, check in EXEMPT if check in ORDERS}
    for name, cells in ROWS.items():
        shares = [float(cell.removesuffix("%")) for cell in cells[:-1]]
        assert len(shares) == 5
        broken = [column for column, share in enumerate(shares[:2]) if share < 100 and (name, column) not in owed]
        assert not broken, f"docs/order.md says that {name} breaks a promise in column {broken[0] + 1}: see EXEMPT"


@pytest.mark.parametrize("name", sorted(set(SELECTORS) - BLIND))
def test_a_zero_target_is_left_out_or_taken_as_the_table_says(name):
    assert name in ROWS, f"docs/order.md has no row of it: `python benchmarks/order.py {name}` prints one"
    rng = np.random.default_rng(0)
    candidates, targets = rng.normal(size=(60, 8)), rng.normal(size=(12, 8))
    if name == "dsir":  # which reads counts
        candidates, targets = (np.floor(np.exp(rows)) for rows in (candidates, targets))
    known = {
        "candidate_labels": rng.integers(0, 3, 60),
        "target_labels": rng.integers(0, 3, 12),
        "candidate_scores": rng.random(60),
    }
    options = {} if name == "tarot_otm" else {"size": 12}

    def select(targets: np.ndarray) -> tarot.Selection:
        return tarot.select(candidates, targets, name, **options, **known)

    usual, mirrored = select(targets), select(targets.max() - targets)
    zero = targets.copy()
    zero[3] = 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        selection = select(zero)
        warned = any("left out" in str(one.message) for one in caught)
        assert selection.ot_distance > 0
    assert any("left out" in str(one.message) for one in caught), "the reported distance is without it"
    unseen = usual.indices.tolist() == mirrored.indices.tolist()
    assert ROWS[name][-1] == ("not looked at" if unseen else "left out" if warned else "taken as it is")
