"""The problem that selectors are given, and the selection that they return."""

from tarot.selection.budget import Allowance, Budget, too_few
from tarot.selection.problem import SelectionProblem
from tarot.selection.selection import Selection
from tarot.selection.sharing import Price, layers_in_turns, orders_in_turns, shares
from tarot.selection.weights import allocate, integer_weights

__all__ = [
    "Allowance",
    "Budget",
    "Price",
    "Selection",
    "SelectionProblem",
    "allocate",
    "integer_weights",
    "layers_in_turns",
    "orders_in_turns",
    "shares",
    "too_few",
]
