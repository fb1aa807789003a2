"""Parameters that are broadcast: scales, tokens, positions, tables; y = p + x, y = p x, or p itself for each sample."""

from __future__ import annotations

import torch
from torch import Tensor

from tarot.gradients.fold import Fold, LayoutError
from tarot.gradients.rules.rule import Call, Finish, Step, Target, at_least_single, total


def summed_to(shape: tuple[int, ...], fold: Fold, t: Tensor) -> Tensor:
    """Sums a tensor of y's shape over what a tensor of `shape` was broadcast along, sample by sample: [B, *shape]."""
    lead = t.ndim - len(shape)
    axis = fold.axis
    along = shape[axis - lead] if axis >= lead else 1
    by_sample = fold(t)  # [B, T, what is left]
    if along != 1 and by_sample.shape[1] != along:
        raise LayoutError(f"a tensor of shape {list(shape)} is not broadcast along the samples of {list(t.shape)}")
    by_sample = by_sample.movedim(1, axis + 1)
    dims = [i for i in range(t.ndim) if i < lead or (shape[i - lead] == 1 and by_sample.shape[i + 1] != 1)]
    if not dims:
        return at_least_single(by_sample).reshape(len(by_sample), *shape)
    return total(by_sample, tuple(i + 1 for i in dims)).reshape(len(by_sample), *shape)


def added(call: Call) -> list[Step]:
    """y = x + p, x - p or p - x; in place, too, since nothing is read again."""
    factor = float(call.kwargs.get("alpha", 1))
    signs = {"sub": (1.0, -factor), "rsub": (-factor, 1.0)}.get(call.operation, (1.0, factor))

    def finish(target: Target, sign: float) -> Finish:
        def finished(d: Tensor, fold: Fold) -> Tensor:
            rows = target.sketched(summed_to(target.read_shape, fold, d))
            return rows if sign == 1 else rows * sign

        return finished

    positions = {"input": 0, "other": 1}
    return [(t, finish(t, signs[positions[k] if isinstance(k, str) else k])) for k, t in call.targets.items()]


def multiplied(call: Call) -> list[Step]:
    """y = p * x"""
    if len(call.targets) != 1:
        return elementwise(call)
    given = call.named("input", "other")
    ((name, target),) = given.targets.items()
    x = given["other" if name == "input" else "input"]
    if not isinstance(x, Tensor):
        raise LayoutError("a product with a number has no samples")
    read = call.reading(x)

    def finish(d: Tensor, fold: Fold) -> Tensor:
        return target.sketched(summed_to(target.read_shape, fold, at_least_single(d) * read()))

    return [(target, finish)]


def elementwise(call: Call) -> list[Step]:
    """Any function of numbers, each entry of y being one of the same entries of its broadcast arguments."""
    readers = {key: call.reading(a) for key, a in call.arguments() if isinstance(a, Tensor) and key not in call.targets}

    def finish(key: int | str, target: Target) -> Finish:
        def finished(d: Tensor, fold: Fold) -> Tensor:
            own = call.argument(key).detach().expand(d.shape).clone().requires_grad_()
            values = {other: read() for other, read in readers.items()}
            with torch.enable_grad():
                y = call.again({**values, key: own})
            (gradient,) = torch.autograd.grad(y, own, d.to(y.dtype))
            return target.sketched(summed_to(target.read_shape, fold, gradient))

        return finished

    return [(target, finish(key, target)) for key, target in call.targets.items()]


def repeated(call: Call) -> list[Step]:
    """p for each sample: `expand`, `repeat`, `broadcast_to`."""
    (target,) = call.targets.values()
    shape = target.read_shape

    def finish(d: Tensor, fold: Fold) -> Tensor:
        return target.sketched(of_copies(shape, fold, d))

    return [(target, finish)]


def of_copies(shape: tuple[int, ...], fold: Fold, d: Tensor) -> Tensor:
    """The sum over copies of a tensor of `shape` that stand one after another along any dimension: [B, *shape]."""
    by_sample = fold(d).movedim(1, fold.axis + 1)  # [B, *y's shape, of one sample]
    shape = (*(1,) * (d.ndim - len(shape)), *shape)
    split: list[int] = []
    for size, own in zip(by_sample.shape[1:], shape, strict=True):
        if size % own:
            raise LayoutError(f"{list(d.shape)} is not made of copies of {list(shape)}")
        split += [size // own, own]
    copies = by_sample.reshape(len(by_sample), *split)
    return total(copies, tuple(range(1, copies.ndim, 2)))
