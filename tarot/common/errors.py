"""What is raised where an argument cannot be used."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

MOST = 1000
"""Characters of a message. Files that are broken have names and numbers without end."""


def first_line(error: BaseException) -> str:
    """Of what another library's error says; what kind it is where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class InputError(ValueError):
    """An argument that cannot be used; the message names the argument, what it was and what is allowed. It is one line
    that a terminal can show, also where it quotes another library's several, or what stands in a broken file."""

    def __str__(self) -> str:
        line = re.sub(r"\s*\n\s*", " ", super().__str__().strip())
        if len(line) > MOST:
            line = f"{line[: MOST * 3 // 4]} ... {line[-MOST // 5 :]}"
        if line.isprintable():
            return line
        return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)[:MOST]


def no_such(what: str, name: str, known: Iterable[str]) -> str:
    """The line for a name that there is not: the one that it is like, where there is one, and all that there are."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"there is no {what} {name!r}{f' (do you mean {near[0]}?)' if near else ''}; there are {', '.join(known)}"
