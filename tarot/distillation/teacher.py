"""What a trained classifier says of images on its way to their classes: features, and what its BatchNorm layers see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tarot.common import InputError


@dataclass(frozen=True, eq=False)
class Seen:
    """Of a batch of B images. features: [B, d], what the last linear layer is given. logits: [B, classes]. means,
    variances: of the input of each BatchNorm layer over an image's positions, [B, channels] by the layer's name."""

    features: Tensor
    logits: Tensor
    means: dict[str, Tensor]
    variances: dict[str, Tensor]


See = Callable[[Tensor], Seen]


def last_linear(model: nn.Module) -> nn.Linear:
    """The layer whose input is a model's features. Raises InputError where it has none."""
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise InputError(f"a {type(model).__name__} without a linear layer has no features that classes are told by")
    return linear[-1]


def batch_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """The BatchNorm layers by name, in the model's order. Raises InputError where there are none."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}
    if not found:
        raise InputError(
            f"the {type(model).__name__} has no BatchNorm layer, whose statistics images are synthesised by; take a "
            "model that has, or arms that need none: random, wasserstein_coreset, herding, k_center"
        )
    return found


@contextmanager
def watched(model: nn.Module) -> Iterator[See]:
    """A function that shows images [B, channels, H, W] to the model and returns what it saw, with gradients to the
    images alone. Meanwhile the model is in eval mode and its parameters are frozen; afterwards it is as it was.

    Raises InputError for a model without BatchNorm or without a linear layer, and, when images are shown, for a
    BatchNorm layer that is used twice.
    """
    head, norms = last_linear(model), batch_norms(model)
    seen: dict[str, Tensor] = {}
    features: list[Tensor] = []

    def keep_features(_: nn.Module, given: tuple[Any, ...]) -> None:
        features[:] = [torch.flatten(given[0], start_dim=1)]

    def keep(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_: nn.Module, given: tuple[Any, ...]) -> None:
            if name in seen:
                raise InputError(
                    f"the BatchNorm layer {name} is used twice for one image, so that its statistics are not of one "
                    "place in the model; give each place a layer of its own"
                )
            seen[name] = given[0]

        return hook

    def see(images: Tensor) -> Seen:
        seen.clear()
        logits = model(images)
        moments = {name: _moments(given) for name, given in seen.items()}
        return Seen(
            features[0],
            logits,
            {name: mean for name, (mean, _) in moments.items()},
            {name: variance for name, (_, variance) in moments.items()},
        )

    modes = {module: module.training for module in model.modules()}
    wanted = {parameter: parameter.requires_grad for parameter in model.parameters()}
    with ExitStack() as stack:
        stack.enter_context(head.register_forward_pre_hook(keep_features))
        for name, norm in norms.items():
            stack.enter_context(norm.register_forward_pre_hook(keep(name)))
        try:
            model.eval().requires_grad_(False)
            yield see
        finally:
            for module, training in modes.items():
                module.training = training
            for parameter, asked in wanted.items():
                parameter.requires_grad_(asked)


def _moments(given: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance over all dimensions behind the channels: [B, channels] each."""
    positions = given.flatten(2) if given.dim() > 2 else given[:, :, None]
    mean = positions.mean(dim=2)
    return mean, (positions - mean[:, :, None]).square().mean(dim=2)
