"""Rows that cannot be learned from: why, how many, and where the first of them are."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field

from tarot import InputError

NAMED = 10
"""So many bad rows are named; the rest are counted."""
ROW = '{"prompt": "...", "response": "..."}'
"""What a row may look like, for advice."""
UTF8 = "save it in UTF-8 (iconv -f latin1 -t utf-8)"
log = logging.getLogger("tarot")


class BadRowError(InputError):
    """One row that cannot be used. reason: of which kind, in a few words; the message says where, and what it is.
    advice: what to do, where the message leaves it open; told where the row ends the run, once for all of its kind."""

    def __init__(self, where: str, reason: str, detail: str, advice: str = "") -> None:
        super().__init__(f"{where}: {detail}")
        self.where, self.reason, self.detail, self.advice = where, reason, detail, advice

    def advised(self) -> BadRowError:
        """The same, the advice in its message."""
        return BadRowError(self.where, self.reason, f"{self.detail}; {self.advice}") if self.advice else self


@dataclass
class Account:
    """What became of the rows of several places.

    read: how many there were. left_out: why rows are not used, and how many are not. alike: of those that are used, how
    many say what another says, by the way in which they are told (`task.deduplicate`).
    """

    read: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    alike: dict[str, int] = field(default_factory=dict)


@dataclass
class Faults:
    """The bad rows of one place.

    strict: the first bad row is raised. read: how many rows were looked at, good or bad. first: the first bad one, in
    full.
    """

    place: str
    strict: bool = False
    read: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    named: list[str] = field(default_factory=list)
    first: str = ""

    def add(self, error: BadRowError) -> None:
        """Raises the error itself where rows are read strictly."""
        if self.strict:
            raise error.advised()
        self.first = self.first or str(error.advised())
        self.reasons[error.reason] += 1
        if len(self.named) < NAMED:
            self.named.append(str(error))

    def say(self) -> None:
        """To the log. Raises InputError where every row was bad, or there was none."""
        if not self.read:
            raise InputError(f"{self.place} is empty: give a file with at least one row, such as {ROW}")
        if not self.reasons:
            return
        count = self.reasons.total()
        why = ", ".join(f"{number:,} {reason}" for reason, number in self.reasons.most_common())
        if count == self.read:
            raise InputError(
                f"none of the {count:,} rows of {self.place} can be learned from ({why}); the first: {self.first}"
                if count > 1
                else self.first
            )
        log.warning("warning: %s of %s rows of %s are left out: %s", f"{count:,}", f"{self.read:,}", self.place, why)
        for line in self.named:
            log.warning("    %s", line)
        if count > len(self.named):
            log.warning("    ... and %s more", f"{count - len(self.named):,}")
