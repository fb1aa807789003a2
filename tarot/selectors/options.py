"""A selector's configuration is its dataclass fields."""

from __future__ import annotations

import dataclasses
from typing import Any


def described(selector: Any) -> dict[str, Any]:
    """The selector's class name and options as plain data, kept in its Selection."""
    return {"class": type(selector).__name__, **dataclasses.asdict(selector)}
