"""Predictions in the form of nuScenes's prediction challenge."""

from experiments.submission.experiment import SubmissionExperiment

__all__ = ["SubmissionExperiment"]
