"""Parts of a sum that do not depend on who adds them up: ranges of fixed size, and pairs of fixed shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

Value = TypeVar("Value")


def ranges(n: int, size: int) -> list[tuple[int, int]]:
    """0..n in consecutive parts (start, stop) of `size`, the last one of what is left."""
    return [(start, min(n, start + size)) for start in range(0, n, size)]


def pairwise(add: Callable[[Value, Value], Value], values: Iterable[Value]) -> Value:
    """The sum of one or more values: of neighbours, then of neighbouring sums, and so on.

    Which are added to which depends on their number alone, so that a sum of floats has the same bits whoever made its
    parts; and as many are held as there are binary digits in the number. `add` may change and return its first.
    """
    sums: list[tuple[int, Value]] = []  # (how often it was doubled, the sum), ever smaller
    for value in values:
        level, total = 0, value
        while sums and sums[-1][0] == level:
            total = add(sums.pop()[1], total)
            level += 1
        sums.append((level, total))
    _, total = sums.pop()
    while sums:
        total = add(sums.pop()[1], total)
    return total
