"""Select, train on the selection, evaluate; beside it the arms that a reader compares with."""

from experiments.selection.experiment import SelectionExperiment

__all__ = ["SelectionExperiment"]
