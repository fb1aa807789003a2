"""How much may be made of a file: work and memory in proportion to its length."""

from __future__ import annotations

from tasks.common.safe_pickle.refusals import Malformed

CONTAINER = 32
"""What a list or tuple costs. One can be had for a byte, and takes about 64."""
TABLE = 128
"""What a dict, a set or an array costs before its content: these take about 250."""

_PER_BYTE = 8
_AT_LEAST = 4 * 2**20
_TUPLE_KEYS = 2000


class Budget:
    """Counts down what the making of values costs, in bytes that are copied and in containers."""

    __slots__ = ("_left", "_tuple_keys")

    def __init__(self, length: int) -> None:
        """length: of the file, in bytes."""
        self._left = _AT_LEAST + _PER_BYTE * length
        self._tuple_keys = _TUPLE_KEYS

    def spend(self, cost: int) -> None:
        """Raises Malformed where it is used up."""
        self._left -= cost
        if self._left < 0:
            raise Malformed("it holds far more than its length allows")

    def spend_tuple_key(self) -> None:
        """Hashes of tuples can be made to collide at will, and a table of such keys takes time by the square."""
        self._tuple_keys -= 1
        if self._tuple_keys < 0:
            raise Malformed(f"it has more than {_TUPLE_KEYS} tuples as keys")
