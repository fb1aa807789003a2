"""Who finds corrupted data, and what is it worth to training without it?"""

from experiments.corruption.experiment import CorruptionExperiment
from experiments.corruption.pruning import Incremental, Prune

__all__ = ["CorruptionExperiment", "Incremental", "Prune"]
