"""Which rows of a layer's tensors belong to which sample."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor


class LayoutError(Exception):
    """A layer's rows cannot be told apart by sample."""


@dataclass(frozen=True)
class Fold:
    """Splits a layer's tensors by sample: dimension `axis` runs over the samples, in equal runs of consecutive rows."""

    samples: int
    axis: int = 0

    def __call__(self, tensor: Tensor) -> Tensor:
        """[.., samples * T, ..] -> [samples, T, ...] with the other dimensions in their order."""
        self._demand(tensor)
        folded: Tensor = tensor.movedim(self.axis, 0).unflatten(0, (self.samples, -1))
        return folded

    def positions(self, tensor: Tensor) -> Tensor:
        """[..., features] -> [samples, positions, features]"""
        return self(tensor).flatten(1, -2)

    def pieces(self, size: int, *tensors: Tensor) -> Iterator[tuple[Fold, list[Tensor]]]:
        """The tensors, `size` samples at a time, each time with the fold of so many."""
        for start in range(0, self.samples, size):
            stop = min(self.samples, start + size)
            yield Fold(stop - start, self.axis), [self._rows(tensor, start, stop) for tensor in tensors]

    def _rows(self, tensor: Tensor, start: int, stop: int) -> Tensor:
        """Those of samples start..stop."""
        self._demand(tensor)
        each = tensor.shape[self.axis] // self.samples
        return tensor.narrow(self.axis, start * each, (stop - start) * each)

    def _demand(self, tensor: Tensor) -> None:
        if tensor.ndim <= self.axis or tensor.shape[self.axis] % self.samples:
            raise LayoutError(f"dimension {self.axis} of {list(tensor.shape)} is not made of {self.samples} samples")
