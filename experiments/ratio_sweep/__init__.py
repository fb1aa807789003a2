"""How much to select, by method."""

from experiments.ratio_sweep.experiment import RatioSweep

__all__ = ["RatioSweep"]
