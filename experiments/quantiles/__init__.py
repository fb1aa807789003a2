"""Does nearness predict usefulness? Candidates from near to far, and what models make of each part of them."""

from experiments.quantiles.experiment import Quantiles

__all__ = ["Quantiles"]
