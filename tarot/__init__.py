"""Targeted data selection by optimal transport: which candidates to train on, and how often to repeat each."""

from tarot import selectors
from tarot.api import select
from tarot.arrays import InputError
from tarot.neighbours import nearest
from tarot.selection import Selection, integer_weights
from tarot.transport import ot_distance, potentials
from tarot.whitening import whiten

__all__ = [
    "InputError",
    "Selection",
    "integer_weights",
    "nearest",
    "ot_distance",
    "potentials",
    "select",
    "selectors",
    "whiten",
]
