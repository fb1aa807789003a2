"""How each kind of layer turns what it read and the gradient of what it wrote into per-sample parameter gradients.

A layer with input x and output y contributes, for a loss with dL/dy = d, to its weight's gradient: `Linear` sum_t d_t
x_t^T over its positions t; a convolution the same with x_t the unfolded patch; `Embedding` the same with x_t one-hot; a
norm sum_t d_t * normalised(x_t); and to its bias's gradient sum_t d_t. Contributions of several calls add up.

Each rule is two steps. In the forward pass `weight(x, sketch)` takes what it needs of x, projected at once where that
is cheaper, and returns the function that finishes the work in the backward pass, (d, fold) -> [B, sketch.width].
`fold` says which rows belong to which sample. No rule is trusted: see `tarot.gradients.preflight`.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd

from tarot.common import InputError
from tarot.gradients.fold import Fold, LayoutError
from tarot.gradients.projection import Factored, Sketch
from tarot.gradients.tensor_sketch import TensorSketch, piece_size

Finish = Callable[[Tensor, Fold], Tensor]


@dataclass(frozen=True)
class Part:
    """Rows start..stop of the parameter `name`, which has `rows` in all: `MultiheadAttention` packs three in one."""

    name: str
    rows: int
    start: int
    stop: int

    @classmethod
    def whole(cls, name: str, parameter: Tensor) -> Part:
        return cls(name, len(parameter), 0, len(parameter))

    def embed(self, gradient: Tensor) -> Tensor:
        """[B, stop - start, ...] -> [B, rows, ...], zero elsewhere."""
        if (self.start, self.stop) == (0, self.rows):
            return gradient
        after = (0, 0) * (gradient.ndim - 2)
        return functional.pad(gradient, (*after, self.start, self.rows - self.stop))


@dataclass(frozen=True)
class Layer(ABC):
    """One use of a weight and a bias; None where the gradient is not wanted."""

    site: str
    module: nn.Module
    weight_part: Part | None
    bias_part: Part | None
    kind = "layer"

    @property
    def names(self) -> set[str]:
        """The parameters it contributes to."""
        return {part.name for part in (self.weight_part, self.bias_part) if part is not None}

    def begin(self, x: Tensor, sketches: Mapping[str, Sketch]) -> list[tuple[str, Finish]]:
        """What to do in the backward pass: (parameter name, how to finish)."""
        steps: list[tuple[str, Finish]] = []
        if self.weight_part is not None:
            steps.append((self.weight_part.name, self.weight(x, sketches[self.weight_part.name])))
        if self.bias_part is not None:
            part, sketch = self.bias_part, sketches[self.bias_part.name]
            steps.append((part.name, lambda d, fold: sketch(part.embed(self.bias(fold, d)).flatten(1))))
        return steps

    def demand(self, x: object, y: object) -> tuple[Tensor, Tensor]:
        """A call's input and output. Raises LayoutError where they are not what the rule is about."""
        if not (isinstance(x, Tensor) and isinstance(y, Tensor) and self.fits(x.shape, y.shape)):
            raise LayoutError(f"{type(self.module).__name__} does not read and write what a {self.kind} layer does")
        return x, y

    @abstractmethod
    def fits(self, x: torch.Size, y: torch.Size) -> bool:
        """Whether input and output have the shapes that the rule expects."""

    @abstractmethod
    def weight(self, x: Tensor, sketch: Sketch) -> Finish: ...

    @abstractmethod
    def bias(self, fold: Fold, d: Tensor) -> Tensor:
        """[B, rows]"""

    def materialised(self, x: Tensor, sketch: Sketch, gradient: Callable[[Fold, Tensor, Tensor], Tensor]) -> Finish:
        """By way of the gradient itself, [B, rows, ...]."""
        read, part = unchanged(x, self.site), self.wanted_part

        def whole(fold: Fold, x: Tensor, d: Tensor) -> Tensor:
            return sketch(part.embed(gradient(fold, x, d)).flatten(1))

        if isinstance(sketch, TensorSketch):
            return lambda d, fold: self.in_pieces(whole, sketch, fold, read(), d)
        return lambda d, fold: whole(fold, read(), d)

    def transformed(
        self, x: Tensor, sketch: TensorSketch, factors: Callable[[Fold, Tensor, Tensor], tuple[Tensor, Tensor]]
    ) -> Finish:
        """By way of the factors of its outer products, [B, T, stop - start] and [B, T, columns]."""
        read, part = unchanged(x, self.site), self.wanted_part

        def sketched(fold: Fold, x: Tensor, d: Tensor) -> Tensor:
            left, right = factors(fold, x, d)
            return sketch.of_factors(functional.pad(left, (part.start, part.rows - part.stop)), right)

        return lambda d, fold: self.in_pieces(sketched, sketch, fold, read(), d)

    def in_pieces(
        self, work: Callable[[Fold, Tensor, Tensor], Tensor], sketch: TensorSketch, fold: Fold, x: Tensor, d: Tensor
    ) -> Tensor:
        """`work` of as many samples at a time as caches hold what it makes of x."""
        part = self.wanted_part
        positions = d.numel() // fold.samples // (part.stop - part.start)
        largest = max(positions * sketch.columns, min(positions * sketch.width, sketch.rows * sketch.columns))
        step = max(1, piece_size(d.device) // max(1, largest))
        return torch.cat([work(some, *tensors) for some, tensors in fold.pieces(step, x, d)])

    def left(self, sketch: Factored, like: Tensor) -> Tensor:
        """The columns of R that belong to this part's rows, [r, stop - start]."""
        part = self.wanted_part
        return sketch.left(like.device)[:, part.start : part.stop].to(like.dtype)

    @property
    def wanted_part(self) -> Part:
        """The weight's, in the steps that only a weight whose gradient is wanted takes."""
        if self.weight_part is None:
            raise LookupError(f"{self.site}: the weight's gradient is not wanted")
        return self.weight_part


def unchanged(x: Tensor, site: str) -> Callable[[], Tensor]:
    """Reads x in the backward pass; raises where an in-place operation has overwritten it since."""
    x, version = x.detach(), x._version

    def read() -> Tensor:
        if x._version != version:
            raise InputError(f"the input of {site} was changed in place after it was read; its gradient is lost")
        return x

    return read


def is_formed(sketch: Sketch) -> bool:
    """Whether gradients of all samples at once may be formed whole, whatever the number of positions.

    Before a tensor sketch they may be formed, too, but of as few samples as caches hold.
    """
    return not isinstance(sketch, TensorSketch) and not factors_are_cheaper(sketch, 1 << 30)


def factors_are_cheaper(sketch: Sketch, positions: int) -> TypeGuard[Factored]:
    """Whether projecting both factors at every position takes fewer operations than forming the gradient once."""
    if not isinstance(sketch, Factored):
        return False
    r, c = sketch.grid
    projected = positions * (r * sketch.rows + c * sketch.columns + r * c)
    formed = sketch.rows * sketch.columns * (positions + c) + r * c * sketch.rows
    return projected <= formed


class Linear(Layer):
    """y = x W^T + b over the last dimension, whatever the ones before."""

    kind = "linear"

    def fits(self, x: torch.Size, y: torch.Size) -> bool:
        m = self.module
        return isinstance(m, nn.Linear) and x[-1:] == (m.in_features,) and y == (*x[:-1], m.out_features)

    def weight(self, x: Tensor, sketch: Sketch) -> Finish:
        positions = math.prod(x.shape[1:-1])
        if isinstance(sketch, TensorSketch) and sketch.factors_are_cheaper(positions):
            return self.transformed(x, sketch, lambda fold, x, d: (fold.positions(d), fold.positions(x)))
        if not factors_are_cheaper(sketch, positions):
            return self.materialised(x, sketch, self.gradient)
        right = x.detach() @ sketch.right(x.device).to(x.dtype).T
        return lambda d, fold: sketch.combine(fold.positions(d @ self.left(sketch, d).T), fold.positions(right))

    @staticmethod
    def gradient(fold: Fold, x: Tensor, d: Tensor) -> Tensor:
        return fold.positions(d).float().transpose(1, 2) @ fold.positions(x).float()

    def bias(self, fold: Fold, d: Tensor) -> Tensor:
        return fold.positions(d).sum(1, dtype=torch.float32)


class Embedding(Layer):
    """Rows of a table: a linear layer that reads one-hot vectors. `padding_idx` learns nothing."""

    kind = "embedding"
    module: nn.Embedding

    def fits(self, x: torch.Size, y: torch.Size) -> bool:
        return y == (*x, self.module.embedding_dim)

    def weight(self, x: Tensor, sketch: Sketch) -> Finish:
        read = unchanged(x, self.site)
        if isinstance(sketch, TensorSketch):
            return lambda d, fold: sketch.of_rows(
                fold(read()).flatten(1), fold.positions(self.without_padding(read(), d))
            )
        if not isinstance(sketch, Factored):
            return lambda d, fold: sketch(self.gradient(fold, read(), d).flatten(1))

        def finish(d: Tensor, fold: Fold) -> Tensor:
            ids, d = read(), self.without_padding(read(), d)
            left, right = functional.embedding(ids, self.left(sketch, d).T), d @ sketch.right(d.device).to(d.dtype).T
            return sketch.combine(fold.positions(left), fold.positions(right))

        return finish

    def without_padding(self, ids: Tensor, d: Tensor) -> Tensor:
        padding = self.module.padding_idx
        return d if padding is None else d.masked_fill((ids == padding)[..., None], 0)

    def gradient(self, fold: Fold, ids: Tensor, d: Tensor) -> Tensor:
        d = fold.positions(self.without_padding(ids, d)).float()
        rows = self.wanted_part.rows
        table = d.new_zeros(fold.samples * rows, d.shape[-1])
        first = torch.arange(fold.samples, device=d.device)[:, None] * rows
        table.index_add_(0, (fold(ids).flatten(1) + first).flatten(), d.flatten(0, 1))
        by_sample: Tensor = table.unflatten(0, (fold.samples, rows))
        return by_sample

    def bias(self, fold: Fold, d: Tensor) -> Tensor:
        raise NotImplementedError("an embedding has no bias")


class Convolution(Layer):
    """Conv1d, Conv2d, Conv3d: a linear layer on unfolded patches, and projecting those is a convolution by itself."""

    kind = "convolution"
    module: _ConvNd

    def fits(self, x: torch.Size, y: torch.Size) -> bool:
        if len(x) != self.rank + 2:  # a single sample without a batch dimension
            return False
        m, sides = self.module, self.module._reversed_padding_repeated_twice[::-1]
        axes = zip(x[2:], sides[::2], sides[1::2], m.dilation, m.kernel_size, m.stride, strict=True)
        size = [(n + a + b - dilation * (k - 1) - 1) // stride + 1 for n, a, b, dilation, k, stride in axes]
        return x[1] == m.in_channels and y == (x[0], m.out_channels, *size)

    @property
    def rank(self) -> int:
        return len(self.module.kernel_size)

    def padded(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """x and the zero padding that is still to be added on both sides."""
        module = self.module
        if module.padding_mode == "zeros" and not isinstance(module.padding, str):
            return x, module.padding
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        return functional.pad(x, module._reversed_padding_repeated_twice, mode=mode), (0,) * self.rank

    def weight(self, x: Tensor, sketch: Sketch) -> Finish:
        module, groups = self.module, self.module.groups
        size = zip(x.shape[2:], module.stride, strict=True)
        positions = math.prod(n // stride for n, stride in size)
        if isinstance(sketch, TensorSketch) and groups == 1 and sketch.factors_are_cheaper(positions):
            return self.transformed(x, sketch, self.factors)
        if not factors_are_cheaper(sketch, groups * positions):
            return self.materialised(x, sketch, self.gradient)
        x, padding = self.padded(x.detach())
        convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[self.rank - 1]
        filters = sketch.right(x.device).to(x.dtype).unflatten(1, module.weight.shape[1:])
        filters = filters.repeat(groups, *(1,) * (self.rank + 1))
        right = convolve(x, filters, None, module.stride, padding, module.dilation, groups)
        return lambda d, fold: sketch.combine(
            self.by_position(fold, self.project_left(sketch, d)),
            self.by_position(fold, right.unflatten(1, (groups, -1))),
        )

    def project_left(self, sketch: Factored, d: Tensor) -> Tensor:
        """[I, out, *size] -> [I, groups, r, *size]"""
        left = self.left(sketch, d).unflatten(1, (self.module.groups, -1)).transpose(0, 1)  # [groups, r, out / groups]
        projected: Tensor = (left @ d.flatten(2).unflatten(1, (self.module.groups, -1))).unflatten(-1, d.shape[2:])
        return projected

    @staticmethod
    def by_position(fold: Fold, projected: Tensor) -> Tensor:
        """[I, groups, k, *size] -> [B, I / B * groups * positions, k]; groups are more positions."""
        return fold(projected.flatten(3)).transpose(-1, -2).flatten(1, -2)

    def gradient(self, fold: Fold, x: Tensor, d: Tensor) -> Tensor:
        """[B, out, in / groups * kernel]"""
        m, x, d = self.module, x.float(), d.float()
        if m.groups == m.in_channels == m.out_channels:  # depthwise: products without a sum over channels
            size = range(3, d.ndim + 1)
            return torch.stack([fold(window * d).sum((1, *size)) for window in self.windows(x, d)], 2)
        left, right = (fold(t.unflatten(1, (m.groups, -1))) for t in (by_channel(d), self.patches(x, d)))
        if left.shape[1] == 1:  # one image of each sample
            return (left[:, 0] @ right[:, 0].transpose(-1, -2)).flatten(1, 2)
        return torch.einsum("btgon,btgin->bgoi", left, right).flatten(1, 2)

    def patches(self, x: Tensor, d: Tensor) -> Tensor:
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
        left, right = (self.by_position(fold, t[:, None]) for t in (by_channel(d), self.patches(x, d)))
        return left, right

    def windows(self, x: Tensor, d: Tensor) -> Iterator[Tensor]:
        """What each entry of the kernel is multiplied by, as views of the padded x: [I, in, *size of d]."""
        module = self.module
        x, padding = self.padded(x)
        if any(padding):
            x = functional.pad(x, [side for width in reversed(padding) for side in (width, width)])
        for offset in itertools.product(*map(range, module.kernel_size)):
            axes = zip(offset, module.dilation, module.stride, d.shape[2:], strict=True)
            yield x[:, :, *(slice(o * dilation, o * dilation + s * (n - 1) + 1, s) for o, dilation, s, n in axes)]

    def bias(self, fold: Fold, d: Tensor) -> Tensor:
        return fold(d.flatten(2)).sum((1, 3), dtype=torch.float32)


def by_channel(x: Tensor) -> Tensor:
    """[I, channels, *size] -> [I, channels, positions], a view whether channels come first or last in memory."""
    last = x.movedim(1, -1)
    return last.flatten(1, -2).transpose(1, 2) if last.is_contiguous() else x.flatten(2)


class Norm(Layer):
    """y = w * normalised(x) + b. Features are the last dimensions (LayerNorm, RMSNorm) or dimension 1 (the others)."""

    kind = "norm"
    module: nn.LayerNorm | nn.RMSNorm | nn.GroupNorm | _NormBase

    def fits(self, x: torch.Size, y: torch.Size) -> bool:
        m = self.module
        if isinstance(m, nn.LayerNorm | nn.RMSNorm):
            return y == x and x[-len(m.normalized_shape) :] == m.normalized_shape
        return y == x and x[1:2] == (m.num_channels if isinstance(m, nn.GroupNorm) else m.num_features,)

    def weight(self, x: Tensor, sketch: Sketch) -> Finish:
        return self.materialised(x, sketch, lambda fold, x, d: self.summed(fold, d * self.normalised(x.float())))

    def normalised(self, x: Tensor) -> Tensor:
        """The module without its weight and bias."""
        m = self.module
        match m:
            case nn.LayerNorm():
                return functional.layer_norm(x, m.normalized_shape, eps=m.eps)
            case nn.RMSNorm():
                return functional.rms_norm(x, m.normalized_shape, eps=m.eps)
            case nn.GroupNorm():
                return functional.group_norm(x, m.num_groups, eps=m.eps)
        if m.running_mean is None or m.running_var is None:
            return functional.instance_norm(x, eps=m.eps)
        return functional.batch_norm(x, m.running_mean.to(x.dtype), m.running_var.to(x.dtype), eps=m.eps)

    def summed(self, fold: Fold, t: Tensor) -> Tensor:
        """Sum over positions: [B, *weight shape]."""
        if isinstance(self.module, nn.LayerNorm | nn.RMSNorm):
            shape = self.module.normalized_shape
            return fold(t).flatten(1, -1 - len(shape)).sum(1, dtype=torch.float32)
        return fold(t.flatten(2) if t.ndim > 2 else t[..., None]).sum((1, 3), dtype=torch.float32)

    def bias(self, fold: Fold, d: Tensor) -> Tensor:
        return self.summed(fold, d).flatten(1)


# By subclass: the first class of a module's ancestry that is found here decides.
RULES: dict[type[nn.Module], type[Layer]] = {
    nn.Linear: Linear,
    nn.Embedding: Embedding,
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), Convolution),
    **dict.fromkeys((nn.LayerNorm, nn.RMSNorm, nn.GroupNorm), Norm),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm), Norm),
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), Norm),
}


def rule(module: nn.Module) -> type[Layer] | None:
    """The rule for a module or its nearest ancestor class; None where there is none, or its options are beyond it."""
    found = next((RULES[ancestor] for ancestor in type(module).__mro__ if ancestor in RULES), None)
    if isinstance(module, nn.Embedding) and module.scale_grad_by_freq:
        return None
    if isinstance(module, _BatchNorm) and module.running_mean is None:
        return None  # it normalises by the batch even in eval mode
    return found
