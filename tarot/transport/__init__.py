"""Optimal transport: exact, entropic, capacity-constrained; costs dense or streamed; barycenters."""

from tarot.transport.annealing import annealed_once, soft_transform
from tarot.transport.barycenters import Barycenter, barycenter, matched, quantisation_cost
from tarot.transport.capacity import CapacityPlan, solve_capacity
from tarot.transport.costs import DENSE_PAIRS, Cost, Grown, HeldCost, StreamedCost, blocks_of, dense
from tarot.transport.entropic import Bracket, ConvergenceError, Entropic, bracket, proven, sinkhorn
from tarot.transport.exact import Plan, solve_exact
from tarot.transport.solve import calibrated, entropic_potentials, ot_distance, potentials

__all__ = [
    "DENSE_PAIRS",
    "Barycenter",
    "Bracket",
    "CapacityPlan",
    "ConvergenceError",
    "Cost",
    "Entropic",
    "Grown",
    "HeldCost",
    "Plan",
    "StreamedCost",
    "annealed_once",
    "barycenter",
    "blocks_of",
    "bracket",
    "calibrated",
    "dense",
    "entropic_potentials",
    "matched",
    "ot_distance",
    "potentials",
    "proven",
    "quantisation_cost",
    "sinkhorn",
    "soft_transform",
    "solve_capacity",
    "solve_exact",
]
