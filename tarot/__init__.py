"""Targeted data selection by optimal transport: which candidates to train on, and how often to repeat each."""

from tarot import selectors
from tarot.api import select, value
from tarot.arrays import InputError
from tarot.gradients import GradientFeatures
from tarot.lds import LDS, lds
from tarot.neighbours import nearest
from tarot.projection import Projection
from tarot.selection import Selection, integer_weights
from tarot.store import FeatureStore, open_features
from tarot.transport import ot_distance, potentials
from tarot.whitening import whiten

__all__ = [
    "LDS",
    "FeatureStore",
    "GradientFeatures",
    "InputError",
    "Projection",
    "Selection",
    "integer_weights",
    "lds",
    "nearest",
    "open_features",
    "ot_distance",
    "potentials",
    "select",
    "selectors",
    "value",
    "whiten",
]
