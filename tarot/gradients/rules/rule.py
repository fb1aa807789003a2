"""What every rule is made of: the tensor that an operation reads, and how its gradient gets to its sketch."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.nn import functional

from tarot.common import InputError
from tarot.gradients.fold import Fold, LayoutError
from tarot.gradients.projection import Factored, Sketch
from tarot.gradients.tensor_sketch import TensorSketch, piece_size

Finish = Callable[[Tensor, Fold], Tensor]  # (gradient of what was written, whose rows are whose) -> [B, width]


@dataclass(frozen=True)
class AsItIs:
    """No sketch: of a gradient that is taken further."""

    width: int

    def __call__(self, gradient: Tensor) -> Tensor:
        return gradient


@dataclass(frozen=True)
class Target:
    """A parameter as an operation reads it: whole, some of its rows, or the transpose of either.

    key: what its gradient is known by. sketch: of the whole parameter, which has `shape`. start, stop: the rows.
    """

    key: Hashable
    sketch: Sketch
    shape: tuple[int, ...]
    start: int
    stop: int
    transposed: bool = False

    @classmethod
    def whole(cls, key: Hashable, sketch: Sketch, shape: torch.Size) -> Target:
        return cls(key, sketch, tuple(shape), 0, shape[0] if shape else 1)

    @property
    def read_shape(self) -> tuple[int, ...]:
        """Of what the operation reads."""
        shape = (self.stop - self.start, *self.shape[1:]) if self.shape else ()
        return (*shape[:-2], shape[-1], shape[-2]) if self.transposed else shape

    @property
    def is_matrix(self) -> bool:
        """Whether its gradient, as a sum of outer products, can be sketched by their factors."""
        return len(self.shape) == 2

    def sketched(self, gradient: Tensor) -> Tensor:
        """The sketch of a gradient of what was read, [B, *read_shape] -> [B, width]."""
        if self.transposed:
            gradient = gradient.mT
        if self.shape and (self.start, self.stop) != (0, self.shape[0]):
            after = (0, 0) * (gradient.ndim - 2)
            gradient = functional.pad(gradient, (*after, self.start, self.shape[0] - self.stop))
        return self.sketch(gradient.flatten(1))

    def sides(self, written: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
        """Factors [.., rows] and [.., columns] of outer products whose first side is the operation's output."""
        return (read, written) if self.transposed else (written, read)

    def sketched_factors(self, written: Tensor, read: Tensor, way: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """The sketch, made in this way, of sum_t written_t read_t^T, [B, T, out] and [B, T, in] -> [B, width]."""
        left, right = self.sides(written, read)
        return way(functional.pad(left, (self.start, self.shape[0] - self.stop)), right)

    def left(self, sketch: Factored, like: Tensor) -> Tensor:
        """The columns of R that belong to the rows, [r, stop - start]."""
        return sketch.left(like.device)[:, self.start : self.stop].to(like.dtype)


Step = tuple[Target, Finish]


@dataclass(frozen=True)
class Call:
    """One operation in which parameters meet samples.

    operation: its name. site: of this use, for errors. args, kwargs: what it was given, without what is known of
    parameters. targets: what is, by the position or keyword of the argument. y: what it wrote.
    """

    operation: str
    site: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    targets: Mapping[int | str, Target]
    y: Tensor

    def named(self, *names: str) -> Arguments:
        """Arguments under their names, whether they were given by position or by keyword."""
        if len(self.args) > len(names):
            raise LayoutError(f"{self.operation} was given {len(self.args)} arguments, {len(names)} are known")
        values = {**dict(zip(names, self.args, strict=False)), **self.kwargs}
        targets = {names[key] if isinstance(key, int) else key: target for key, target in self.targets.items()}
        return Arguments(values, targets)

    def arguments(self) -> list[tuple[int | str, Any]]:
        """By position or keyword."""
        return [*enumerate(self.args), *self.kwargs.items()]

    def argument(self, key: int | str) -> Any:
        return self.args[key] if isinstance(key, int) else self.kwargs[key]

    def again(self, changed: Mapping[int | str, Any]) -> Tensor:
        """The operation with other values of some arguments."""
        args = [changed.get(i, value) for i, value in enumerate(self.args)]
        kwargs = {name: changed.get(name, value) for name, value in self.kwargs.items()}
        y: Tensor = self.function(*args, **kwargs)
        return y

    def reading(self, tensor: Tensor) -> Callable[[], Tensor]:
        """Reads a tensor in the backward pass; raises where an in-place operation has overwritten it since."""
        tensor, version = tensor.detach(), tensor._version

        def read() -> Tensor:
            if tensor._version != version:
                raise InputError(
                    f"the input of {self.site} was changed in place after it was read; its gradient is lost"
                )
            return tensor

        return read


@dataclass(frozen=True)
class Arguments:
    values: Mapping[str, Any]
    targets: Mapping[str, Target] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self.values.get(name, default)

    def input(self, name: str = "input") -> Tensor:
        """A tensor of samples. Raises LayoutError where it is made of parameters."""
        if name in self.targets:
            raise LayoutError("what it reads is made of parameters, too")
        tensor: Tensor = self.values[name]
        return tensor


Rule = Callable[[Call], list[Step]]


def at_least_single(tensor: Tensor) -> Tensor:
    """In float32, or in float64 where it is that already."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def total(tensor: Tensor, dims: int | tuple[int, ...]) -> Tensor:
    """The sum in float32 or float64."""
    return tensor.sum(dims, dtype=torch.float64 if tensor.dtype == torch.float64 else torch.float32)


def materialised(call: Call, target: Target, x: Tensor, gradient: Callable[[Fold, Tensor, Tensor], Tensor]) -> Finish:
    """By way of the gradient itself: gradient(fold, x, d) -> [B, *target.read_shape]."""
    read = call.reading(x)

    def whole(fold: Fold, x: Tensor, d: Tensor) -> Tensor:
        return target.sketched(gradient(fold, x, d))

    if isinstance(target.sketch, TensorSketch) and len(target.shape) > 1:
        return lambda d, fold: in_pieces(whole, target, fold, read(), d)
    return lambda d, fold: whole(fold, read(), d)


def transformed(
    call: Call,
    target: Target,
    x: Tensor,
    factors: Callable[[Fold, Tensor, Tensor], tuple[Tensor, Tensor]],
    way: Callable[[Tensor, Tensor], Tensor],
) -> Finish:
    """By way of the factors of its outer products: factors(fold, x, d) -> [B, T, out] and [B, T, in]."""
    read = call.reading(x)

    def sketched(fold: Fold, x: Tensor, d: Tensor) -> Tensor:
        return target.sketched_factors(*factors(fold, x, d), way)

    return lambda d, fold: in_pieces(sketched, target, fold, read(), d)


def in_pieces(
    work: Callable[[Fold, Tensor, Tensor], Tensor], target: Target, fold: Fold, x: Tensor, d: Tensor
) -> Tensor:
    """`work` of as many samples at a time as caches hold what it makes of x."""
    size = 1
    for n in target.shape:
        size *= n
    out, columns = target.read_shape[0], size // target.shape[0]
    positions = d.numel() // fold.samples // max(1, out)
    largest = max(positions * columns, min(positions * target.sketch.width, size))
    step = max(1, piece_size(d.device) // max(1, largest))
    return torch.cat([work(some, *tensors) for some, tensors in fold.pieces(step, x, d)])


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
