"""What is raised where an argument cannot be used."""

from __future__ import annotations

import re


class InputError(ValueError):
    """An argument that cannot be used; the message names the argument, what it was and what is allowed. It is one line,
    also where it quotes another library's several."""

    def __str__(self) -> str:
        return re.sub(r"\s*\n\s*", " ", super().__str__().strip())
