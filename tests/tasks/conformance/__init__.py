"""What every task promises, as checks of any task: `CHECKS`, by name. Each raises AssertionError, and says why."""

from __future__ import annotations

from tests.tasks.conformance import data, models, results, training
from tests.tasks.conformance.tools import REGISTERED, Builder, selection

__all__ = ["CHECKS", "OF_DATA", "Builder", "selection"]

CHECKS = {
    name: one
    for room in (data, models, training, results)
    for name, one in REGISTERED.items()
    if one.__module__ == room.__name__
}
OF_DATA = tuple(name for name, one in CHECKS.items() if one.__module__ == data.__name__)  # which train nothing
