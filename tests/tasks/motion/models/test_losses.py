"""Closed forms beside `torch.distributions`, and what must not change a loss."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Categorical, Independent, Laplace, MultivariateNormal, kl_divergence

from tarot import InputError
from tasks.motion.models.losses import MINI_LOSS, PAPER_LOSS, LossWeights, autobot_losses, wayformer_losses
from tasks.motion.models.prediction import Prediction

B, K, F = 3, 4, 5


def case(seed: int = 0) -> tuple[Prediction, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    parts = [2 * numbers(B, K, F, 2), 0.3 + numbers(B, K, F, 2).exp(), 0.9 * numbers(B, K, F, 1).tanh()]
    valid = torch.rand(B, F, generator=generator) < 0.7
    valid[0] = True
    return Prediction(torch.cat(parts, -1), numbers(B, K)), {"future": numbers(B, F, 4), "future_valid": valid}


def normals(trajectories: torch.Tensor) -> MultivariateNormal:
    """[..., 5] -> of two dimensions."""
    sx, sy, rho = trajectories[..., 2], trajectories[..., 3], trajectories[..., 4]
    rows = torch.stack([sx**2, rho * sx * sy], -1), torch.stack([rho * sx * sy, sy**2], -1)
    return MultivariateNormal(trajectories[..., :2], torch.stack(rows, -2))


def euclidean(prediction: Prediction, batch: dict, b: int, k: int, t: int) -> float:
    known = float(batch["future_valid"][b, t])
    return known * (batch["future"][b, t, :2] - prediction.trajectories[b, k, t, :2]).norm().item()


def expected_distances(prediction: Prediction, batch: dict) -> torch.Tensor:
    """As specified, one number at a time."""
    found = []
    for b in range(B):
        of_modes = []
        for k in range(K):
            steps = [euclidean(prediction, batch, b, k, t) for t in range(F)]
            of_modes.append(steps[-1] + sum(steps) / F)
        found.append(min(of_modes))
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("weights", [PAPER_LOSS, MINI_LOSS, LossWeights(0, 0, 0)])
def test_autobots_loss(seed, weights):
    prediction, batch = case(seed)
    trajectories = prediction.trajectories
    laplace = Independent(Laplace(trajectories[..., :2], trajectories[..., 2:4]), 1)
    by_step = laplace.log_prob(batch["future"][:, None, :, :2])
    likelihood = (by_step * batch["future_valid"][:, None]).sum(-1)
    prior = Categorical(logits=prediction.logits)
    posterior = Categorical(logits=likelihood + prior.logits)
    expected = -(posterior.probs * likelihood).sum(-1)
    expected += weights.divergence * kl_divergence(posterior, prior)
    expected += weights.entropy * normals(trajectories).entropy().sum(-1).amax(-1)
    expected += weights.distance * expected_distances(prediction, batch)
    assert torch.allclose(autobot_losses(prediction, batch, weights), expected)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("distance", [0.0, 2.0])
def test_wayformers_loss(seed, distance):
    prediction, batch = case(seed)
    by_step = normals(prediction.trajectories).log_prob(batch["future"][:, None, :, :2])
    constant = torch.log(torch.tensor(2 * torch.pi, dtype=torch.float64))
    valid = batch["future_valid"]
    regression = -((by_step + constant) * valid[:, None]).sum(-1)
    expected = []
    for b in range(B):
        lengths = [sum(euclidean(prediction, batch, b, k, t) for t in range(F)) for k in range(K)]
        nearest = lengths.index(min(lengths))
        choice = torch.nn.functional.cross_entropy(prediction.logits[b], torch.tensor(nearest))
        expected.append(regression[b, nearest] + choice)
    expected = torch.stack(expected) + distance * expected_distances(prediction, batch)
    assert torch.allclose(wayformer_losses(prediction, batch, LossWeights(distance=distance)), expected)


@pytest.mark.parametrize("losses", [autobot_losses, wayformer_losses])
def test_what_is_not_known_does_not_matter(losses):
    prediction, batch = case()
    batch["future_valid"][1] = False
    leaf = prediction.trajectories.clone().requires_grad_()
    other = torch.where(batch["future_valid"][..., None], batch["future"], torch.nan)
    found = losses(Prediction(leaf, prediction.logits), {**batch, "future": other})
    assert torch.equal(found, losses(prediction, batch)) and found.isfinite().all()
    found.sum().backward()
    assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("losses", [autobot_losses, wayformer_losses])
def test_a_perfect_future_has_a_finite_gradient(losses):
    prediction, batch = case()
    leaf = prediction.trajectories.clone()
    leaf[:, 0, :, :2] = batch["future"][..., :2]
    leaf.requires_grad_()
    losses(Prediction(leaf, prediction.logits), batch, LossWeights()).sum().backward()
    assert leaf.grad.isfinite().all()


def test_the_posterior_is_a_constant():
    """The gradient of -sum_k q_k l_k is -sum_k q_k dl_k, which is also that of -log sum_k p_k exp l_k."""
    prediction, batch = case()
    trajectories = prediction.trajectories.clone().requires_grad_()
    autobot_losses(Prediction(trajectories, prediction.logits), batch, LossWeights(0, 0, 0)).sum().backward()
    other = prediction.trajectories.clone().requires_grad_()
    laplace = Independent(Laplace(other[..., :2], other[..., 2:4]), 1)
    likelihood = (laplace.log_prob(batch["future"][:, None, :, :2]) * batch["future_valid"][:, None]).sum(-1)
    (-(likelihood + prediction.logits.log_softmax(-1)).logsumexp(-1)).sum().backward()
    assert torch.allclose(trajectories.grad, other.grad)


@pytest.mark.parametrize("losses", [autobot_losses, wayformer_losses])
def test_another_unit_of_length_leaves_the_gradient(losses):
    """Weights of distances are per metre: 1 in metres is 10 in units of 10 m. What else differs is constant."""
    unit = torch.tensor([10.0, 10, 10, 10, 1], dtype=torch.float64)
    gradients = []
    for scale, weight in ((1.0, 1.0), (10.0, 10.0)):
        prediction, batch = case()
        own = (prediction.trajectories / unit).requires_grad_()  # in units of 10 m
        metres = own * (unit if scale == 1 else 1)
        future = batch["future"] / scale
        losses(
            Prediction(metres, prediction.logits), {**batch, "future": future}, LossWeights(1, 1, weight)
        ).sum().backward()
        gradients.append(own.grad)
    assert torch.allclose(*gradients)


def test_weights_are_not_negative():
    with pytest.raises(InputError, match="must be at least 0"):
        LossWeights(entropy=-1)
