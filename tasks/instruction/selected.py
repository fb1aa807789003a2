"""What is selected, as a file that trl, LLaMA-Factory and axolotl train on."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tarot import Selection
from tarot.common import atomic_file
from tasks.instruction.reading import Row

COLUMNS = ("weight", "nearest_target", "distance")
# JSON allows them inside of a string, but programs that split text into lines break it there
_BREAKS = str.maketrans({mark: f"\\u{ord(mark):04x}" for mark in "\u0085\u2028\u2029"})


def write_selected(rows: Sequence[Row], targets: Sequence[str], selection: Selection, path: Path) -> None:
    """The selected rows as they were read, in the order of the candidates, one JSON object per line, each with

    weight: how often it is repeated in an epoch. nearest_target: the id of the target that it is nearest to.
    distance: its distance to that target, null where it has none (a zero gradient).

    Where some row has a field of such a name, ours is called tarot_weight and so on, in all rows.
    rows: all candidates. targets: the ids of the targets. The file appears whole or not at all.
    """
    chosen = [rows[i] for i in selection.indices.tolist()]
    taken = set().union(*(row.raw for row in chosen))
    names = [f"tarot_{name}" if name in taken else name for name in COLUMNS]
    found = zip(
        selection.weights.tolist(),
        selection.nearest_target.tolist(),
        selection.nearest_distance.tolist(),
        strict=True,
    )
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        for row, (weight, target, distance) in zip(chosen, found, strict=True):
            values = (weight, targets[target], distance if math.isfinite(distance) else None)
            file.write(_line({**row.raw, **dict(zip(names, values, strict=True))}) + b"\n")


def _line(content: dict[str, Any]) -> bytes:
    """As readable as it can be; what is no character of Unicode stays escaped. The hub has columns of other types than
    JSON, such as dates: they become text."""
    try:
        return json.dumps(content, ensure_ascii=False, default=str).translate(_BREAKS).encode()
    except UnicodeEncodeError:
        return json.dumps(content, default=str).encode()
