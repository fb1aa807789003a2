"""The problem that selectors are given, and the selection that they return."""

from tarot.selection.problem import WHITENINGS, SelectionProblem
from tarot.selection.selection import Selection
from tarot.selection.weights import integer_weights

__all__ = ["WHITENINGS", "Selection", "SelectionProblem", "integer_weights"]
