"""What became of the rows of every split: how many were read, are used, and are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from tasks.instruction.data import Rows
from tasks.instruction.reading import Account
from tasks.instruction.tokens import Tokenized
from tasks.task import Split


def accounts_of(
    rows: Rows, splits: Mapping[Split, Tokenized], read: Mapping[Split, Account], max_length: int
) -> dict[Split, dict[str, Any]]:
    """Of every split: how many rows were `read` for it, how many are `used`, and why others are `left_out`; of those
    that are used, how many were `cut` to max_length, have answers that are not learned (`masked`), or say what another
    says (`alike`). rows: before they became tokens. read: of splits that have files of their own."""
    found: dict[Split, dict[str, Any]] = {}
    for split, used in splits.items():
        known = read.get(split, Account(len(rows[split])))
        looking_alike = len(rows[split]) - len(used) - len(used.dropped) - len(used.refused)
        left_out = known.left_out + used.left_out(max_length) + Counter({"looking like another": looking_alike})
        found[split] = {
            "read": known.read,
            "used": len(used),
            "left_out": dict(left_out.most_common()),
            "cut": used.truncated,
            "masked": sum(bool(row.masked) for row in used.rows),
            **({"alike": known.alike} if known.alike else {}),
        }
    return found
