"""Which rows of an operation's tensors belong to which sample."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


class LayoutError(Exception):
    """An operation's rows cannot be told apart by sample."""


@dataclass(frozen=True)
class Fold:
    """Splits a tensor by sample: dimension `axis` runs over the samples, in equal runs of consecutive rows."""

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


@dataclass(frozen=True, eq=False)
class OwnedRows(Fold):
    """Dimension 0 runs over rows of which each sample has any number: owners, int64 [rows], says whose each is.

    Rows are put side by side and filled up with zeros. A row of zeros adds nothing to any gradient, since every rule is
    linear in the gradient of what was written.
    """

    owners: Tensor | None = None

    def __call__(self, tensor: Tensor) -> Tensor:
        """[rows, ...] -> [samples, most rows of a sample, ...]"""
        owners = self.owners
        if owners is None or tensor.shape[:1] != owners.shape:
            raise LayoutError(f"{list(tensor.shape)} has not one row for each that was routed")
        counts = owners.bincount(minlength=self.samples)
        order = owners.argsort(stable=True)
        sorted_owners = owners[order]
        place = torch.arange(len(owners), device=owners.device) - (counts.cumsum(0) - counts)[sorted_owners]
        filled = tensor.new_zeros(self.samples, max(1, int(counts.max())), *tensor.shape[1:])
        filled[sorted_owners, place] = tensor[order]
        return filled

    def pieces(self, size: int, *tensors: Tensor) -> Iterator[tuple[Fold, list[Tensor]]]:
        filled = [self(tensor) for tensor in tensors]
        for start in range(0, self.samples, size):
            parts = [tensor[start : start + size] for tensor in filled]
            yield Fold(len(parts[0])), [part.flatten(0, 1) for part in parts]
