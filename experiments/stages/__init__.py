"""The cached stages that experiments are made of."""

from experiments.stages.encoders import ImageEncoder, NGrams, SentenceEncoder
from experiments.stages.features import Features
from experiments.stages.recipe import FeatureRecipe
from experiments.stages.workbench import Valued, Workbench

__all__ = [
    "FeatureRecipe",
    "Features",
    "ImageEncoder",
    "NGrams",
    "SentenceEncoder",
    "Valued",
    "Workbench",
]
