"""The cached stages that experiments are made of."""

from experiments.stages.encoders import ImageEncoder, NGrams, SentenceEncoder
from experiments.stages.features import Features
from experiments.stages.recipe import OF_ONE_RECIPE, SPACE, FeatureRecipe, recipe_options
from experiments.stages.trainings import Evaluation, Training, evaluate_each, train_each, train_surrogates
from experiments.stages.workbench import Valued, Workbench

__all__ = [
    "OF_ONE_RECIPE",
    "SPACE",
    "Evaluation",
    "FeatureRecipe",
    "Features",
    "ImageEncoder",
    "NGrams",
    "SentenceEncoder",
    "Training",
    "Valued",
    "Workbench",
    "evaluate_each",
    "recipe_options",
    "train_each",
    "train_surrogates",
]
