"""The table of what selections depend on has a row of every method, and is what the contract of selectors holds."""

import re
from pathlib import Path

from tarot.selectors import SELECTORS
from tests.tarot.selectors.test_contract import EXEMPT

PAGE = Path(__file__).parents[2] / "docs" / "order.md"
ORDERS = {
    "follows_its_candidates": 0,
    "orders_equals_by_id": 0,
    "follows_no_order_of_targets": 1,
}  # columns of the table


def test_every_selector_is_measured():
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted(SELECTORS)
    owed = {(name, ORDERS[check]) for name, check in EXEMPT if check in ORDERS}
    for name, cells in rows:
        shares = [float(cell.strip().removesuffix("%")) for cell in cells.split("|")]
        assert len(shares) == 5
        assert all(share == 100 or (name, column) in owed for column, share in enumerate(shares[:2])), name
