"""The keys of a dict, without what they stand for: a summary of half a million records takes gigabytes as a whole."""

from __future__ import annotations

from typing import Any

from tasks.common.safe_pickle.machine import Machine
from tasks.common.safe_pickle.names import DICTS
from tasks.common.safe_pickle.refusals import Malformed

_GONE = object()
_FORGOTTEN = {str, bytes, bytearray, list, tuple, set, frozenset, *DICTS}


class Outline(Machine):
    """Makes the outermost dict with None for every value. Other containers stay empty, and after each of the portions
    in which a dict is written, what was remembered within it is forgotten.

    It does not know all that the whole machine knows. Whatever it stumbles over, such as something forgotten that is
    asked for again where it matters, is left to that one: it raises Malformed, or what Python raises.
    """

    forgotten = 1  # places of the memo; the first is the outermost dict's

    def run(self) -> dict[str, None]:
        found = super().run()
        if type(found) not in DICTS or not found:
            raise Malformed("it is no dict, or one that was not made key by key")
        return found

    def append(self, at: int) -> int:
        self.stack.pop()
        self._top(list)
        return at

    def appends(self, at: int) -> int:
        self._since_mark()
        self._top(list)
        return at

    def additems(self, at: int) -> int:
        self._since_mark()
        self._top(set)
        return at

    def _set_items(self, items: list[Any]) -> None:
        if len(items) % 2:
            raise Malformed("it has a key without a value")
        target = self._top(*DICTS)
        if len(self.stack) > 1:
            return
        if any(type(key) is not str for key in items[::2]):
            raise Malformed("a key is no text, or was forgotten")
        target.update(dict.fromkeys(items[::2]))
        memo = self.memo
        for place in range(self.forgotten, len(memo)):
            if type(memo[place]) in _FORGOTTEN:
                memo[place] = _GONE
        self.forgotten = max(self.forgotten, len(memo))

    def stack_global(self, at: int) -> int:
        if _GONE in self.stack[-2:]:
            raise Malformed("a name was forgotten")
        return super().stack_global(at)
