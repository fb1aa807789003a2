"""Each agent's loss in closed form, [B]: nothing of `torch.distributions`, so that `vmap` takes it, too.

Both are of a `Prediction` in metres. To measure in another length adds a constant to log-likelihoods and entropies, and
multiplies distances: weights of a loss of distances in units of 10 m are 10 times those in metres.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tarot.common import NonNegative, check_options
from tasks.motion.models.prediction import Prediction


@dataclass(frozen=True)
class LossWeights:
    """Of AutoBot's entropy, of the divergence between its probabilities and the posterior, and of its distances in
    metres, beside the likelihood's 1. By default UniTraj's with 60 steps; `MINI_LOSS` for 12."""

    entropy: NonNegative = 40.0
    divergence: NonNegative = 20.0
    distance: NonNegative = 100.0

    def __post_init__(self) -> None:
        check_options(self, "loss")


PAPER_LOSS = LossWeights()
MINI_LOSS = LossWeights(1.0, 1.0, 1.0)


def autobot_losses(prediction: Prediction, batch: Mapping[str, Tensor], weights: LossWeights = PAPER_LOSS) -> Tensor:
    """Of a mixture of independent Laplace distributions: -sum_k q_k l_k, with l_k the log-likelihood of the true future
    under future k and q its posterior, a constant; plus weighted
    the entropy max_k sum_t of normal distributions with the same scales and correlation (spread is thus discouraged);
    KL(q || p), which teaches the probabilities p; and `distances`. float32 [B].
    """
    residual, valid = residuals(prediction, batch)
    scales, correlation = prediction.trajectories[..., 2:4], prediction.trajectories[..., 4]
    by_step = (torch.log(2 * scales) + residual.abs() / scales).sum(-1)
    likelihood = -(by_step * valid).sum(-1)  # [B, K]

    log_prior = torch.log_softmax(prediction.logits, -1)
    log_posterior = torch.log_softmax(likelihood.detach() + log_prior.detach(), -1)
    posterior = log_posterior.exp()
    nll = -(posterior * likelihood).sum(-1)
    divergence = (posterior * (log_posterior - log_prior)).sum(-1)

    entropy = 1 + math.log(2 * math.pi) + scales.log().sum(-1) + 0.5 * torch.log1p(-correlation.square())
    entropy = entropy.sum(-1).amax(-1)
    return (
        nll
        + weights.entropy * entropy
        + weights.divergence * divergence
        + weights.distance * distances(residual, valid)
    )


def wayformer_losses(
    prediction: Prediction, batch: Mapping[str, Tensor], weights: LossWeights = LossWeights(distance=0.0)
) -> Tensor:
    """Negative log-likelihood of the future that is nearest, as two-dimensional normal distributions without their
    constant, plus the cross-entropy of having to say which that is; plus `distances`, weighted. float32 [B].
    """
    residual, valid = residuals(prediction, batch)
    nearest = (lengths(residual.detach()) * valid).sum(-1).argmin(-1)  # [B]
    rows = nearest[:, None, None, None].expand(-1, 1, *residual.shape[2:])
    dx, dy = residual.gather(1, rows).squeeze(1).unbind(-1)
    rows = nearest[:, None, None, None].expand(-1, 1, *prediction.trajectories.shape[2:])
    *_, sx, sy, rho = prediction.trajectories.gather(1, rows).squeeze(1).unbind(-1)
    free = 1 - rho.square()
    zx, zy = dx / sx, dy / sy
    by_step = sx.log() + sy.log() + 0.5 * free.log() + (zx.square() + zy.square() - 2 * rho * zx * zy) / (2 * free)
    regression = (by_step * valid[:, 0]).sum(-1)
    choice = -torch.log_softmax(prediction.logits, -1).gather(1, nearest[:, None]).squeeze(1)
    total = regression + choice
    return total + weights.distance * distances(residual, valid) if weights.distance else total


def residuals(prediction: Prediction, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """What each future lacks of the truth, metres [B, K, F, 2], 0 where that is not known; and where it is, float
    [B, 1, F]."""
    valid = batch["future_valid"][:, None]
    difference = batch["future"][:, None, :, :2] - prediction.trajectories[..., :2]
    return torch.where(valid[..., None], difference, 0.0), valid.to(difference.dtype)


def distances(residual: Tensor, valid: Tensor) -> Tensor:
    """min_k of the distance at the last step plus the mean one over all steps, as far as they are known, [B]."""
    by_step = lengths(residual) * valid
    return (by_step[..., -1] + by_step.mean(-1)).amin(-1)


def lengths(residual: Tensor) -> Tensor:
    return torch.linalg.vector_norm(residual, dim=-1)
