"""The problem that selectors are given, and the selection that they return."""

from tarot.selection.problem import SelectionProblem
from tarot.selection.selection import Selection
from tarot.selection.weights import allocate, integer_weights

__all__ = ["Selection", "SelectionProblem", "allocate", "integer_weights"]
