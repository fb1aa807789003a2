"""Targeted data selection by optimal transport: which candidates to train on, and how often to repeat each."""

from importlib.metadata import PackageNotFoundError, version

from tarot.api import select, value
from tarot.attribution import (
    LDS,
    dsdm_scores,
    gradcos_scores,
    graddot_scores,
    lds,
    less_scores,
    tempered_scores,
    tracin_scores,
    trak_scores,
    wfd_scores,
)
from tarot.common import InputError
from tarot.distillation import ClassStatistics, Distilled, Synthesis, class_statistics, distill
from tarot.features import FeatureStore, MeanRows, Rows, StoreError, blocks, open_features
from tarot.featurize import featurize
from tarot.gradients import Activations, GradientFeatures, Projection, adam_features, gradient_rows, loop_gradients
from tarot.influence import Influences, influence_scores
from tarot.selection import Selection, SelectionProblem, integer_weights
from tarot.selectors import Selector, described
from tarot.space import nearest, whiten
from tarot.transport import Barycenter, barycenter, matched, ot_distance, potentials

try:
    __version__ = version("tarot-select")  # as pyproject.toml says
except PackageNotFoundError:  # a checkout on the path that was never installed
    __version__ = "0+unknown"

__all__ = [
    "LDS",
    "Activations",
    "Barycenter",
    "ClassStatistics",
    "Distilled",
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
    "Synthesis",
    "__version__",
    "adam_features",
    "barycenter",
    "blocks",
    "class_statistics",
    "described",
    "distill",
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
    "matched",
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
