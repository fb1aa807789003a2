"""Linear datamodeling score: how well attribution predicts what training on a part of the data does."""

from experiments.lds.experiment import LdsExperiment

__all__ = ["LdsExperiment"]
