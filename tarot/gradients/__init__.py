"""Per-sample gradients, projected while they are made; the slow reference beside them."""

from tarot.gradients.activations import Activations, penultimate
from tarot.gradients.batches import Fitting, batch_size, collated, in_halves, map_tensors, take, to_device
from tarot.gradients.dataset_rows import Engine, Samples, batches_by_cost, gradient_rows
from tarot.gradients.losses import Losses, chosen_parameters, evaluating, losses_of
from tarot.gradients.per_sample import GradientFeatures
from tarot.gradients.preconditioning import AdamGradients, OptimizerState, RankOneAdamGradients, adam_features
from tarot.gradients.preflight import refuse_mixing
from tarot.gradients.projection import Plan, Projection, ProjectionKind, plan
from tarot.gradients.reference import loop_gradients, sample_gradient
from tarot.gradients.sharded import shard_frozen

__all__ = [
    "Activations",
    "AdamGradients",
    "Engine",
    "Fitting",
    "GradientFeatures",
    "Losses",
    "OptimizerState",
    "Plan",
    "Projection",
    "ProjectionKind",
    "RankOneAdamGradients",
    "Samples",
    "adam_features",
    "batch_size",
    "batches_by_cost",
    "chosen_parameters",
    "collated",
    "evaluating",
    "gradient_rows",
    "in_halves",
    "loop_gradients",
    "losses_of",
    "map_tensors",
    "penultimate",
    "plan",
    "refuse_mixing",
    "sample_gradient",
    "shard_frozen",
    "take",
    "to_device",
]
