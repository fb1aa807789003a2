"""The cached stages that experiments are made of."""

from experiments.stages.cache import made
from experiments.stages.features import FeatureRecipe, Features, given_features, gradient_features
from experiments.stages.stages import arm, distance, evaluate, select, train, trained_model, training_seed
from experiments.stages.valuation import Valued, value

__all__ = [
    "FeatureRecipe",
    "Features",
    "Valued",
    "arm",
    "distance",
    "evaluate",
    "given_features",
    "gradient_features",
    "made",
    "select",
    "train",
    "trained_model",
    "training_seed",
    "value",
]
