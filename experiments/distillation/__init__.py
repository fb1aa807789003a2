"""A few images for each class that train a network nearly as well as all: real ones, and ones made for the purpose."""

from experiments.distillation.experiment import DistillationExperiment

__all__ = ["DistillationExperiment"]
