"""Per-sample gradients by the book: slow, plain, and what everything faster is tested against."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tarot.gradients.batches import batch_size, map_tensors, take
from tarot.gradients.losses import Losses, chosen_parameters, evaluating, losses_of


def loop_gradients(
    model: nn.Module, losses: Losses, batch: Any, parameters: Callable[[str], bool] | None = None
) -> dict[str, Tensor]:
    """One backward pass per sample: name -> [B, *shape]. Eval mode; zero where a loss does not reach a parameter."""
    chosen = chosen_parameters(model, parameters)
    samples = batch_size(batch)
    rows: dict[str, list[Tensor]] = {name: [] for name in chosen}
    with torch.inference_mode(False), torch.enable_grad(), evaluating(model, set(chosen)):
        for i in range(samples):
            for name, gradient in sample_gradient(model, losses, take(batch, i, i + 1), chosen).items():
                rows[name].append(gradient)
    return {name: torch.stack(gradients) for name, gradients in rows.items()}


def sample_gradient(
    model: nn.Module, losses: Losses, sample: Any, chosen: dict[str, nn.Parameter]
) -> dict[str, Tensor]:
    """Gradient of a batch of one: name -> [*shape]."""
    total = losses_of(model, losses, sample, 1).sum()
    if not total.requires_grad:
        return {name: torch.zeros_like(parameter) for name, parameter in chosen.items()}
    gradients = torch.autograd.grad(total, list(chosen.values()), allow_unused=True, materialize_grads=True)
    return {name: gradient.to_dense() for name, gradient in zip(chosen, gradients, strict=True)}


class _LossModule(nn.Module):
    """The loss as a module, so that `functional_call` can exchange the parameters below it."""

    def __init__(self, model: nn.Module, losses: Losses) -> None:
        super().__init__()
        self.model, self.losses = model, losses

    def forward(self, batch: Any) -> Tensor:
        return self.losses(self.model, batch).squeeze(0)


def vmap_gradients(
    model: nn.Module, losses: Losses, batch: Any, parameters: Callable[[str], bool] | None = None
) -> dict[str, Tensor]:
    """`vmap(grad)`: name -> [B, *shape]. Holds all of it at once, and fails on operations that vmap does not know."""
    chosen = chosen_parameters(model, parameters)
    tensors: list[Tensor] = []
    map_tensors(batch, tensors.append)

    def loss(values: dict[str, Tensor], sample: list[Tensor]) -> Tensor:
        remaining = iter(sample)
        one = map_tensors(batch, lambda _: next(remaining).unsqueeze(0))
        named = {f"model.{name}": value for name, value in values.items()}
        value: Tensor = torch.func.functional_call(_LossModule(model, losses), named, (one,))
        return value

    with evaluating(model):
        values = {name: parameter.detach() for name, parameter in chosen.items()}
        gradients: dict[str, Tensor] = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(values, tensors)
        return gradients
