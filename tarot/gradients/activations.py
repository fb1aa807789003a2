"""Embeddings in the place of per-sample gradients: rows that a forward pass gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tarot.common import InputError
from tarot.gradients.batches import batch_size
from tarot.gradients.losses import Losses, evaluating


class Activations:
    """`embed(model, batch)` -> [B, dim], with what `gradient_rows` asks of `GradientFeatures`.

    losses: the model's, by whose graph an automatic batch size is estimated (generously: nothing is differentiated).
    """

    row_kind = "embedding"
    largest_formed = 0

    def __init__(self, model: nn.Module, losses: Losses, embed: Callable[[nn.Module, Any], Tensor], dim: int) -> None:
        self.model, self.losses, self.embed, self.dim = model, losses, embed, dim
        self.trainable = {name for name, _ in model.named_parameters()}

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def __call__(self, batch: Any) -> Tensor:
        """Embeddings [B, dim], float32. Raises InputError where `embed` gives another shape."""
        with torch.no_grad(), evaluating(self.model):
            rows = self.embed(self.model, batch)
        if rows.shape != (batch_size(batch), self.dim):
            raise InputError(
                f"embeddings must be one row of {self.dim} numbers per sample, [{batch_size(batch)}, {self.dim}]; "
                f"their shape is {tuple(rows.shape)}"
            )
        return rows.float()


def penultimate(model: nn.Module, inputs: Tensor) -> Tensor:
    """What the model's last linear layer is given when it sees `inputs`, [B, d]; leaves the model as it was.

    Raises InputError where the model has no such layer.
    """
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise InputError(f"a {type(model).__name__} without a linear layer has no penultimate activations")
    seen: list[Tensor] = []
    hook = linear[-1].register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    try:
        model(inputs)
    finally:
        hook.remove()
    return torch.flatten(seen[-1], start_dim=1)
