"""The loss of every sample, in the state in which its gradient is taken, and the parameters it is taken of."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tarot.common import InputError

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
