"""Convolutions of one, two and three dimensions: linear layers on unfolded patches; and their transposes.

Projecting the patches of a convolution is a convolution by itself. A transposed convolution reads what a convolution
would write and writes what that would read: its weight's gradient is that convolution's, with both in turned roles.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tarot.gradients.fold import Fold, LayoutError
from tarot.gradients.projection import Factored
from tarot.gradients.rules.rule import (
    Arguments,
    Call,
    Finish,
    Step,
    Target,
    at_least_single,
    factors_are_cheaper,
    materialised,
    total,
    transformed,
)
from tarot.gradients.tensor_sketch import TensorSketch

LARGE = 32  # positions from which on a convolution without groups is faster as one of as many groups as images


def convolution(call: Call) -> list[Step]:
    """`F.conv1d`, `F.conv2d`, `F.conv3d`"""
    given = call.named("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    steps: list[Step] = []
    if "weight" in given.targets:
        weight = given.targets["weight"]
        steps.append((weight, patches_of(call, given, weight).finish(call, weight, given.input())))
    return steps + bias_steps(given)


def transposed_convolution(call: Call) -> list[Step]:
    """`F.conv_transpose1d`, `F.conv_transpose2d`, `F.conv_transpose3d`"""
    given = call.named("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
    steps: list[Step] = []
    if "weight" in given.targets:
        weight = given.targets["weight"]
        patches, x = patches_of(call, given, weight), given.input()
        positions = math.prod(x.shape[2:])
        sketch = weight.sketch
        if isinstance(sketch, TensorSketch) and patches.groups == 1 and sketch.factors_are_cheaper(positions):
            finish = transformed(call, weight, x, lambda fold, x, d: patches.factors(fold, d, x), sketch.of_factors)
        else:
            finish = materialised(call, weight, x, lambda fold, x, d: patches.gradient(fold, d, x))
        steps.append((weight, finish))
    return steps + bias_steps(given)


def bias_steps(given: Arguments) -> list[Step]:
    if "bias" not in given.targets:
        return []
    bias = given.targets["bias"]

    def finish(d: Tensor, fold: Fold) -> Tensor:
        return bias.sketched(total(fold(d.flatten(2)), (1, 3)))

    return [(bias, finish)]


def patches_of(call: Call, given: Arguments, weight: Target) -> Patches:
    shape = weight.read_shape
    rank = len(shape) - 2
    if weight.transposed or given.input().ndim != rank + 2:  # a single sample without a batch dimension
        raise LayoutError(f"a convolution of {list(given.input().shape)} with {list(shape)}")
    stride, dilation = (each_side(given.get(name, 1), rank) for name in ("stride", "dilation"))
    padding = given.get("padding", 0)
    if padding == "same":
        widths = [step * (k - 1) for step, k in zip(dilation, shape[2:], strict=True)]
        sides = tuple((width // 2, width - width // 2) for width in widths)
    else:
        sides = tuple((n, n) for n in each_side(0 if padding == "valid" else padding, rank))
    return Patches(shape[2:], stride, sides, dilation, given.get("groups", 1), tuple(shape))


def each_side(value: int | Sequence[int], rank: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * rank if len(values) == 1 else values


@dataclass(frozen=True)
class Patches:
    """Which numbers of x each position of a convolution reads.

    padding: zeros before and after, of each dimension. shape: of the weight, [out, in / groups, *kernel].
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int
    shape: tuple[int, ...]

    def finish(self, call: Call, weight: Target, x: Tensor) -> Finish:
        positions = math.prod(n // stride for n, stride in zip(x.shape[2:], self.stride, strict=True))
        sketch = weight.sketch
        if isinstance(sketch, TensorSketch) and self.groups == 1 and sketch.factors_are_cheaper(positions):
            return transformed(call, weight, x, self.factors, sketch.of_factors)
        if weight.stop - weight.start != weight.shape[0] or not factors_are_cheaper(sketch, self.groups * positions):
            return materialised(call, weight, x, self.gradient)
        convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[len(self.kernel) - 1]
        filters = sketch.right(x.device).to(x.dtype).unflatten(1, self.shape[1:])
        filters = filters.repeat(self.groups, *(1,) * (len(self.kernel) + 1))
        x, padding = self.partly_padded(x.detach())
        right = convolve(x, filters, None, self.stride, padding, self.dilation, self.groups)
        return lambda d, fold: sketch.combine(
            self.by_position(fold, self.project_left(weight, sketch, d)),
            self.by_position(fold, right.unflatten(1, (self.groups, -1))),
        )

    def project_left(self, weight: Target, sketch: Factored, d: Tensor) -> Tensor:
        """[I, out, *size] -> [I, groups, r, *size]"""
        left = weight.left(sketch, d).unflatten(1, (self.groups, -1)).transpose(0, 1)  # [groups, r, out / groups]
        projected: Tensor = (left @ d.flatten(2).unflatten(1, (self.groups, -1))).unflatten(-1, d.shape[2:])
        return projected

    @staticmethod
    def by_position(fold: Fold, projected: Tensor) -> Tensor:
        """[I, groups, k, *size] -> [B, I / B * groups * positions, k]; groups are more positions."""
        return fold(projected.flatten(3)).transpose(-1, -2).flatten(1, -2)

    def gradient(self, fold: Fold, x: Tensor, d: Tensor) -> Tensor:
        """[B, out, in / groups, *kernel]"""
        x, d = at_least_single(x), at_least_single(d)
        if self.is_one_of_groups(x, d):
            return self.gradient_of_groups(fold, x, d)
        if self.groups == x.shape[1] == d.shape[1]:  # depthwise: products without a sum over channels
            size = range(3, d.ndim + 1)
            by_offset = [fold(window * d).sum((1, *size)) for window in self.windows(x, d)]
            return torch.stack(by_offset, 2).reshape(fold.samples, *self.shape)
        left, right = (fold(t.unflatten(1, (self.groups, -1))) for t in (by_channel(d), self.unfolded(x, d)))
        if left.shape[1] == 1:  # one image of each sample
            products = left[:, 0] @ right[:, 0].transpose(-1, -2)
        else:
            products = torch.einsum("btgon,btgin->bgoi", left, right)
        return products.reshape(fold.samples, *self.shape)

    def is_one_of_groups(self, x: Tensor, d: Tensor) -> bool:
        """Whether a CPU takes the gradient fastest as that of one convolution: of many positions, or of groups."""
        if x.device.type != "cpu" or x.dtype != torch.float32 or not torch.backends.mkldnn.is_available():
            return False
        if math.prod(self.kernel) == 1:
            return False
        if self.groups == x.shape[1] == d.shape[1]:
            return x.is_contiguous()
        return self.groups > 1 or math.prod(d.shape[2:]) >= LARGE

    def gradient_of_groups(self, fold: Fold, x: Tensor, d: Tensor) -> Tensor:
        """The batch as one image with as many groups for each of its images: the weight of that has a gradient for each
        image in a part of its own."""
        x, padding = self.partly_padded(x)
        images, none = len(x), [0] * len(self.kernel)
        weight = x.new_empty(1).expand(images * self.shape[0], *self.shape[1:])
        as_one = [t.reshape(1, -1, *t.shape[2:]) for t in (d, x)]
        where = (self.stride, padding, self.dilation, False, none, images * self.groups)
        _, by_image, _ = torch.ops.aten.convolution_backward(*as_one, weight, None, *where, (False, True, False))
        each = by_image.unflatten(0, (images, -1))
        gradient: Tensor = each if images == fold.samples else fold(each).sum(1)
        return gradient

    def unfolded(self, x: Tensor, d: Tensor) -> Tensor:
        """[I, in * kernel, positions]"""
        windows = list(self.windows(x, d))
        if len(windows) == 1:
            return by_channel(windows[0])
        patches = x.new_empty(len(x), x.shape[1], len(windows), *d.shape[2:])
        for offset, window in enumerate(windows):
            patches[:, :, offset] = window
        return patches.flatten(3).flatten(1, 2)

    def factors(self, fold: Fold, x: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        """Output gradients [B, T, out] and patches [B, T, in * kernel] of a convolution without groups."""
        left, right = (self.by_position(fold, t[:, None]) for t in (by_channel(d), self.unfolded(x, d)))
        return left, right

    def partly_padded(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """x and the zero padding that is still to be added on both sides."""
        if all(before == after for before, after in self.padding):
            return x, tuple(before for before, _ in self.padding)
        return self.padded(x), (0,) * len(self.padding)

    def padded(self, x: Tensor) -> Tensor:
        sides = [n for pair in reversed(self.padding) for n in pair]
        return functional.pad(x, sides) if any(sides) else x

    def windows(self, x: Tensor, d: Tensor) -> Iterator[Tensor]:
        """What each entry of the kernel is multiplied by, as views of the padded x: [I, in, *size of d]."""
        x = self.padded(x)
        for offset in itertools.product(*map(range, self.kernel)):
            axes = zip(offset, self.dilation, self.stride, d.shape[2:], strict=True)
            yield x[:, :, *(slice(o * dilation, o * dilation + s * (n - 1) + 1, s) for o, dilation, s, n in axes)]


def by_channel(x: Tensor) -> Tensor:
    """[I, channels, *size] -> [I, channels, positions], a view whether channels come first or last in memory."""
    last = x.movedim(1, -1)
    return last.flatten(1, -2).transpose(1, 2) if last.is_contiguous() else x.flatten(2)
