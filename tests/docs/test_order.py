"""The table of what selections depend on has a row of every method, and says of none that it depends on the order."""

import re
from pathlib import Path

from tarot.selectors import SELECTORS

PAGE = Path(__file__).parents[2] / "docs" / "order.md"


def test_every_selector_is_measured():
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted(SELECTORS)
    for name, cells in rows:
        shares = [float(cell.strip().removesuffix("%")) for cell in cells.split("|")]
        assert len(shares) == 5 and shares[:2] == [100, 100] and min(shares) > 90, name
