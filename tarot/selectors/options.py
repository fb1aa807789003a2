"""A selector's configuration is its dataclass fields; what several of them check."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from tarot.common import InputError


def described(selector: Any) -> dict[str, Any]:
    """The selector's class name and options as plain data, kept in its Selection; tuples become lists, as in a file."""
    options = dataclasses.asdict(selector)
    return {
        "class": type(selector).__name__,
        **{name: list(option) if isinstance(option, tuple) else option for name, option in options.items()},
    }


def random_generator(seed: int) -> np.random.Generator:
    """The generator that all of a selector's chance comes from. Raises InputError unless seed is an integer >= 0."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed must be a non-negative integer; it is {seed!r}")
    return np.random.default_rng(seed)


def check_number(name: str, value: float) -> None:
    """Raises InputError unless value is a finite number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value < math.inf:
        raise InputError(f"{name} must be a finite number of at least 0; it is {value!r}")


def check_count(name: str, value: int, least: int) -> None:
    """Raises InputError unless value is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name} must be an integer of at least {least}; it is {value!r}")
