"""The documentation's pages, as the tests read them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
HOW_TO = sorted((DOCS / "how-to").glob("*.md"))
TUTORIALS = sorted((DOCS / "tutorials").glob("*.ipynb"))
REFERENCE = sorted((DOCS / "reference").glob("*.md"))

_BLOCK = re.compile(r"(?:^(?P<before>[^\n]+)\n\n?)?^```python\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
_NOT_RUN = re.compile(r"<!-- not run: (?P<why>.+) -->")
_FILE = re.compile(r"`[\w/.]+\.py`")


@dataclass(frozen=True)
class Block:
    """A block of Python on a page. line: where its code begins. is_file: its path stands above it.

    not_run: the reason in a comment above it, `<!-- not run: reason -->`, or None.
    """

    code: str
    line: int
    is_file: bool
    not_run: str | None


def blocks(page: str) -> list[Block]:
    """The blocks of a page of Markdown, in order."""
    found = []
    for match in _BLOCK.finditer(page):
        before = match["before"] or ""
        reason = _NOT_RUN.fullmatch(before)
        line = page.count("\n", 0, match.start("code")) + 1
        found.append(Block(match["code"], line, bool(_FILE.fullmatch(before)), reason and reason["why"]))
    return found
