"""Why a pickle is not read."""

from __future__ import annotations


class Malformed(Exception):
    """The bytes are no pickle of plain data, or out of proportion. Its text says why."""


class Forbidden(Exception):
    """The pickle names something that plain data does not need. Its text is that name."""
