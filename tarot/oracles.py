"""Per-sample gradients by the book: slow, plain, and what everything faster is tested against."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tarot.arrays import InputError
from tarot.batches import batch_size, map_tensors, take

Losses = Callable[[nn.Module, Any], Tensor]  # (model, batch) -> [B], one scalar per sample


@contextlib.contextmanager
def evaluating(model: nn.Module, trainable: set[str] | None = None) -> Iterator[None]:
    """Eval mode, and gradients for the parameters named in `trainable` alone (None: as they are); all put back after.

    PyTorch's fused attention is off meanwhile: it shows nothing to hooks and gives no gradients.
    """
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    fused = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        model.eval()
        if trainable is not None:
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name in trainable)
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def losses_of(model: nn.Module, losses: Losses, batch: Any, samples: int) -> Tensor:
    """losses(model, batch), [samples]. Raises InputError where it is not one number per sample."""
    values = losses(model, batch)
    shape = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
    if shape != [samples]:
        raise InputError(
            f"losses must return one value per sample, a tensor of shape [{samples}] for this batch; it returned "
            f"{shape}. Do not average over the batch (reduction='none')"
        )
    return values


def chosen_parameters(model: nn.Module, parameters: Callable[[str], bool] | None) -> dict[str, nn.Parameter]:
    """The trainable parameters whose name passes, each under the first of its names."""
    return {n: p for n, p in model.named_parameters() if p.requires_grad and (parameters is None or parameters(n))}


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
        return torch.func.functional_call(_LossModule(model, losses), named, (one,))

    with evaluating(model):
        values = {name: parameter.detach() for name, parameter in chosen.items()}
        return torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(values, tensors)
