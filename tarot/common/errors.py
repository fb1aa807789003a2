"""What is raised where an argument cannot be used."""

from __future__ import annotations


class InputError(ValueError):
    """An argument that cannot be used; the message names the argument, what it was and what is allowed."""
