"""y = w f(x) + b, f a normalisation. Features are the last dimensions (layer and RMS norms) or dimension 1 (others)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from tarot.gradients.fold import Fold, LayoutError
from tarot.gradients.rules.broadcast import summed_to
from tarot.gradients.rules.rule import Arguments, Call, Step, at_least_single, materialised


def layer_norm(call: Call) -> list[Step]:
    given = call.named("input", "normalized_shape", "weight", "bias", "eps")
    shape, eps = given["normalized_shape"], given.get("eps", 1e-5)
    return norm(call, given, lambda x: functional.layer_norm(x, shape, eps=eps), by_channel=False)


def rms_norm(call: Call) -> list[Step]:
    given = call.named("input", "normalized_shape", "weight", "eps")
    shape, eps = given["normalized_shape"], given.get("eps")
    return norm(call, given, lambda x: functional.rms_norm(x, shape, eps=eps), by_channel=False)


def group_norm(call: Call) -> list[Step]:
    given = call.named("input", "num_groups", "weight", "bias", "eps")
    groups, eps = given["num_groups"], given.get("eps", 1e-5)
    return norm(call, given, lambda x: functional.group_norm(x, groups, eps=eps), by_channel=True)


def batch_norm(call: Call) -> list[Step]:
    given = call.named("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    if given.get("training"):
        raise LayoutError("a batch norm that normalises by the batch")
    mean, variance, eps = given["running_mean"], given["running_var"], given.get("eps", 1e-5)
    return norm(
        call,
        given,
        lambda x: functional.batch_norm(x, mean.to(x.dtype), variance.to(x.dtype), eps=eps),
        by_channel=True,
    )


def instance_norm(call: Call) -> list[Step]:
    given = call.named("input", "running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum", "eps")
    mean, variance, eps = given.get("running_mean"), given.get("running_var"), given.get("eps", 1e-5)

    def normalised(x: Tensor) -> Tensor:
        if given.get("use_input_stats", True):
            return functional.instance_norm(x, eps=eps)
        return functional.batch_norm(x, mean.to(x.dtype), variance.to(x.dtype), eps=eps)

    return norm(call, given, normalised, by_channel=True)


def prelu(call: Call) -> list[Step]:
    """max(x, 0) + w * min(x, 0), of which w multiplies the part below zero."""
    given = call.named("input", "weight")
    return norm(call, given, lambda x: x.clamp(max=0), by_channel=True)


def norm(call: Call, given: Arguments, normalised: Callable[[Tensor], Tensor], *, by_channel: bool) -> list[Step]:
    """normalised: the operation without its weight and bias."""
    x, trailing = given.input(), max(0, given.input().ndim - 2) if by_channel else 0

    def summed(shape: tuple[int, ...], fold: Fold, t: Tensor) -> Tensor:
        return summed_to((*shape, *(1,) * trailing), fold, t).reshape(fold.samples, *shape)

    steps: list[Step] = []
    if "weight" in given.targets:
        weight = given.targets["weight"]

        def gradient(fold: Fold, x: Tensor, d: Tensor) -> Tensor:
            return summed(weight.read_shape, fold, d * normalised(at_least_single(x)))

        steps.append((weight, materialised(call, weight, x, gradient)))
    if "bias" in given.targets:
        bias = given.targets["bias"]
        steps.append((bias, lambda d, fold: bias.sketched(summed(bias.read_shape, fold, d))))
    return steps
