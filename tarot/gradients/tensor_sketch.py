"""Tensor sketches of sums of outer products, made from the factors: no gradient need exist, and nothing is lost by it.

A count sketch adds each coordinate, with a random sign, to one of `width` columns, its bucket, and keeps inner products
in expectation. Let the sign of entry (i, j) of a matrix be a product, s_i s'_j, and its bucket a sum, h_i + h'_j modulo
`width`. The sketch of u v^T is then the cyclic convolution of the sketches of u and of v, an ordinary product of their
Fourier transforms (Pagh 2013; Pham, Pagh 2013), and that of sum_t u_t v_t^T takes one inverse transform for all t.

Buckets are not drawn one by one here. The longer side's are h'_j = j, the shorter side's h_i = stride i + offset, with
a random stride of at least the longer side that shares no divisor with the modulus. Two reasons:

- No two rows, and no two columns, that are fewer than `width` apart fall together whole. With drawn buckets some do,
  which adds to the variance for outer products; without, it is that of a dense sketch.
- A matrix that exists is sketched without an index: written in rows of `stride` numbers, cut into pieces of `width`,
  the pieces added up. So where positions are many, as in a large image, the matrix is formed first.

Each pair of entries of different rows falls together for about one stride in `width`, as with drawn buckets.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field, replace

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from tarot.gradients.random_numbers import random_matrix, random_words

PIECE = 1 << 19  # numbers at work at a time on a CPU: as many as its caches hold
LARGE_PIECE = 1 << 26  # the same on a GPU

# Nanoseconds on one CPU core at 1,024 columns, on which the choice between two ways to the same numbers depends.
TRANSFORM, READ = 0.8, 7.0  # per position: of each column and halving of it, of each number of the longer side
MULTIPLY, WRITE = 0.036, 3.0  # per entry of the matrix: for each position, once


def piece_size(device: torch.device) -> int:
    return PIECE if device.type == "cpu" else LARGE_PIECE


@dataclass(frozen=True)
class Signs:
    """A gradient that is no longer than the features are wide: a random sign for each of its numbers."""

    key: str
    size: int
    _held: dict[torch.device, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @property
    def width(self) -> int:
        return self.size

    def start(self, width: int) -> int:
        """The first of its columns among `width`."""
        return _drawn(self.key, 1)[0] % (width - self.size + 1)

    def __call__(self, gradient: Tensor) -> Tensor:
        device = gradient.device
        if device not in self._held:
            self._held[device] = random_matrix("rademacher", self.key, (0, 1), (0, self.size), device)
        return gradient.float() * self._held[device]


@dataclass(frozen=True, eq=False)
class TensorSketch:
    """The sketch of a gradient [rows, columns], itself or diag(row_scale) G diag(column_scale): see the module's text.

    row_scale, column_scale: float32 [rows] and [columns], or None.
    """

    key: str
    rows: int
    columns: int
    width: int
    row_scale: Tensor | None = None
    column_scale: Tensor | None = None
    _held: dict[torch.device, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    def scaled(self, row_scale: Tensor, column_scale: Tensor) -> TensorSketch:
        return replace(self, row_scale=row_scale, column_scale=column_scale, _held={})

    # --- three ways to the same numbers ----------------------------------------------------------------------------

    def __call__(self, gradient: Tensor) -> Tensor:
        """Of gradients that exist: [B, rows * columns] -> [B, width]."""
        matrices = gradient.reshape(-1, self.rows, self.columns)
        if self.is_tall:
            matrices = matrices.transpose(1, 2)
        short, long = self._weights(gradient.device)
        used = len(short) * self.stride
        pieces = math.ceil(used / self.modulus)
        sums = []
        for part in matrices.split(max(1, piece_size(gradient.device) // (pieces * self.modulus))):
            padded = part.new_zeros(len(part), pieces * self.modulus, dtype=torch.float32)
            laid_out = padded[:, :used].unflatten(1, (len(short), self.stride))[..., : len(long)]
            torch.mul(part.float(), short[:, None], out=laid_out)
            laid_out.mul_(long)
            sums.append(padded.unflatten(1, (pieces, self.modulus)).sum(1))
        return self._placed(torch.cat(sums))

    def of_products(self, left: Tensor, right: Tensor) -> Tensor:
        """Of sum_t left_t right_t^T by way of the matrix: [B, T, rows] and [B, T, columns] -> [B, width].

        The factors are signed, not the products, and these are written where `__call__` would lay them out.
        """
        sides = (right, left) if self.is_tall else (left, right)
        short, long = (side.float() * of for side, of in zip(sides, self._weights(left.device), strict=True))
        used = short.shape[-1] * self.stride
        pieces = math.ceil(used / self.modulus)
        sums = []
        step = max(1, piece_size(left.device) // (pieces * self.modulus))
        for some_short, some_long in zip(short.split(step), long.split(step), strict=True):
            padded = some_long.new_zeros(len(some_long), pieces * self.modulus)
            laid_out = padded[:, :used].unflatten(1, (short.shape[-1], self.stride))[..., : long.shape[-1]]
            torch.bmm(some_short.transpose(1, 2), some_long, out=laid_out)
            sums.append(padded.unflatten(1, (pieces, self.modulus)).sum(1))
        return self._placed(torch.cat(sums))

    def of_factors(self, left: Tensor, right: Tensor) -> Tensor:
        """Of sum_t left_t right_t^T: [B, T, rows] and [B, T, columns] -> [B, width]."""
        sides = (right, left) if self.is_tall else (left, right)
        signed = (side.float() * of for side, of in zip(sides, self._weights(left.device), strict=True))
        short, long = (_folded(side, self.modulus) for side in signed)
        at = torch.arange(short.shape[-1], device=short.device) * self.stride % self.modulus
        spectrum: Tensor | int = 0
        step = max(1, piece_size(left.device) // (len(left) * self.modulus))
        for some_short, some_long in zip(short.split(step, 1), long.split(step, 1), strict=True):
            spread = some_short.new_zeros(*some_short.shape[:2], self.modulus)
            spread.scatter_(2, at.expand_as(some_short), some_short)
            product = torch.fft.rfft(spread) * torch.fft.rfft(some_long, self.modulus)
            spectrum = spectrum + product.sum(1)
        return self._placed(torch.fft.irfft(spectrum, self.modulus))

    def of_rows(self, ids: Tensor, values: Tensor) -> Tensor:
        """Of sum_t e_(ids_t) values_t^T, e_i a one-hot vector: int64 [B, T] and [B, T, columns] -> [B, width]."""
        short, long = self._weights(values.device)
        of_row, of_column = (long, short) if self.is_tall else (short, long)
        steps = (1, self.stride) if self.is_tall else (self.stride, 1)
        columns = torch.arange(self.columns, device=values.device)
        buckets = (ids[..., None] * steps[0] + columns * steps[1]) % self.modulus
        signed = values.float() * of_row[ids][..., None] * of_column
        sums = signed.new_zeros(len(values), self.modulus)
        return self._placed(sums.scatter_add_(1, buckets.flatten(1), signed.flatten(1)))

    def factors_are_cheaper(self, positions: int) -> bool:
        """Whether transforming both factors at every position takes less time than forming the matrix once."""
        columns = self.modulus * math.log2(self.modulus)
        transformed = positions * (TRANSFORM * columns + READ * max(self.rows, self.columns))
        formed = self.rows * self.columns * (MULTIPLY * positions + WRITE)
        return transformed < formed

    # --- where entries go ------------------------------------------------------------------------------------------

    @property
    def is_tall(self) -> bool:
        """Whether rows are the longer side."""
        return self.rows > self.columns

    @functools.cached_property
    def modulus(self) -> int:
        """A little more than the width where Fourier transforms of the width itself are slow."""
        return int(next_fast_len(self.width, real=True))

    @functools.cached_property
    def stride(self) -> int:
        """How far a number of the shorter side moves those of the longer one."""
        longer = max(self.rows, self.columns)
        stride = longer + self._drawn[0] % (longer // 8 + 8)
        while math.gcd(stride, self.modulus) > 1:
            stride += 1
        return stride

    @functools.cached_property
    def _drawn(self) -> list[int]:
        return _drawn(self.key, 2)

    def _placed(self, sums: Tensor) -> Tensor:
        """[B, modulus] -> [B, width]: what is beyond the width goes around once more, and all moves by the offset."""
        result = sums[:, : self.width]
        beyond = self.modulus - self.width
        if beyond:
            result = result.clone()
            result[:, :beyond] += sums[:, self.width :]
        return result.roll(self._drawn[1] % self.width, 1)

    def _weights(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Signs times scales of the shorter and the longer side, float32."""
        if device not in self._held:
            rows = self._side("left", self.rows, self.row_scale, device)
            columns = self._side("right", self.columns, self.column_scale, device)
            self._held[device] = (columns, rows) if self.is_tall else (rows, columns)
        return self._held[device]

    def _side(self, role: str, size: int, scale: Tensor | None, device: torch.device) -> Tensor:
        signs = random_matrix("rademacher", f"{self.key}|{role}", (0, 1), (0, size), device)[0]
        return signs if scale is None else signs * scale.to(device)


def _drawn(key: str, count: int) -> list[int]:
    """Random integers of 62 bits."""
    words = random_words(f"{key}|layout", (0, 1), (0, count), "cpu")[0]
    drawn: list[int] = ((words >> 1) & ((1 << 62) - 1)).tolist()
    return drawn


def _folded(side: Tensor, modulus: int) -> Tensor:
    """[..., n] -> [..., at most modulus]: numbers that are a multiple of `modulus` apart are added up, in place."""
    result = side[..., :modulus]
    for start in range(modulus, side.shape[-1], modulus):
        part = side[..., start : start + modulus]
        result[..., : part.shape[-1]] += part
    return result
