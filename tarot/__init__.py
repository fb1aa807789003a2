"""Targeted data selection by optimal transport: which candidates to train on, and how often to repeat each."""

from importlib.metadata import PackageNotFoundError, version

from tarot import selectors
from tarot.activations import Activations
from tarot.api import select, value
from tarot.arrays import InputError, Rows, blocks
from tarot.attribution import (
    dsdm_scores,
    gradcos_scores,
    graddot_scores,
    less_scores,
    tempered_scores,
    tracin_scores,
    trak_scores,
    wfd_scores,
)
from tarot.feature_rows import gradient_rows
from tarot.featurize import featurize
from tarot.gradients import GradientFeatures
from tarot.influence import Influences, influence_scores
from tarot.lds import LDS, lds
from tarot.neighbours import nearest
from tarot.oracles import loop_gradients
from tarot.preconditioning import adam_features
from tarot.problem import SelectionProblem
from tarot.projection import Projection
from tarot.selection import Selection, integer_weights
from tarot.selectors import Selector
from tarot.selectors.options import described
from tarot.store import FeatureStore, MeanRows, StoreError, open_features
from tarot.transport import ot_distance, potentials
from tarot.whitening import whiten

try:
    __version__ = version("tarot-select")  # as pyproject.toml says
except PackageNotFoundError:  # a checkout on the path that was never installed
    __version__ = "0+unknown"

__all__ = [
    "LDS",
    "Activations",
    "FeatureStore",
    "GradientFeatures",
    "Influences",
    "InputError",
    "MeanRows",
    "Projection",
    "Rows",
    "Selection",
    "SelectionProblem",
    "Selector",
    "StoreError",
    "__version__",
    "adam_features",
    "blocks",
    "described",
    "dsdm_scores",
    "featurize",
    "gradcos_scores",
    "graddot_scores",
    "gradient_rows",
    "influence_scores",
    "integer_weights",
    "lds",
    "less_scores",
    "loop_gradients",
    "nearest",
    "open_features",
    "ot_distance",
    "potentials",
    "select",
    "selectors",
    "tempered_scores",
    "tracin_scores",
    "trak_scores",
    "value",
    "wfd_scores",
    "whiten",
]
