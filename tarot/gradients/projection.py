"""Random projections of gradients: the same numbers on every device, in whatever blocks they are made.

Each entry of a random matrix is a pure function of (seed, parameter name, role, row, column), see
`tarot.gradients.random_numbers`, and no matrix of the size of the model is ever held.

Every projection S keeps inner products in expectation: E <S g, S h> = <g, h>.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from tarot.common import Count, InputError, check_options
from tarot.gradients.random_numbers import random_matrix, random_words
from tarot.gradients.tensor_sketch import Signs, TensorSketch

ProjectionKind = Literal["factored", "tensorsketch", "rademacher", "normal", "sjlt", "identity", "fast_jl"]
IN_PASS = ("factored", "tensorsketch")  # no weight gradient need exist whole; a wide enough one keeps gradients
NONZEROS = 4  # per coordinate of a sparse sign projection (Kane & Nelson 2014, block construction)
BLOCK = 1 << 22  # random numbers made at a time
HELD = 1 << 24  # a dense sketch of at most so many numbers is made once and kept
SMALLEST_SHARE = 4  # a matrix with less than so many dimensions of its own is sketched with the vectors


@dataclass(frozen=True)
class Projection:
    """What to project gradients with.

    kind: "factored" (each weight by P_out (x) P_in, inside the pass), "tensorsketch" (all weights into the same
        columns by products of transforms, inside the pass, as faithful as a dense one), a dense sketch of the whole
        gradient ("rademacher", "normal", "sjlt"), "identity" (none), or "fast_jl" (TRAK's CUDA kernel).
    dim: number of output columns, shared out over the parameters by size if factored; None for identity.
    seed: any integer; other seeds give independent projections.
    """

    kind: ProjectionKind = "tensorsketch"
    dim: Count | None = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        check_options(self, "projection")
        if self.kind == "identity":
            object.__setattr__(self, "dim", None)
        elif self.dim is None:
            raise InputError(f"projection.dim must be at least 1 for {self.kind}; it is null")
        elif self.kind == "fast_jl" and self.dim % 512:
            raise InputError(f"projection.dim must be a multiple of 512 for fast_jl; it is {self.dim}")

    @property
    def width(self) -> int:
        """`dim`, of every kind but identity, which has as many columns as gradients have: InputError."""
        if self.dim is None:
            raise InputError(f"projection.kind={self.kind} has no dim of its own")
        return self.dim

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


# --- sketches: one per parameter -----------------------------------------------------------------------------------


class Sketch(Protocol):
    """A linear map of one parameter's gradient."""

    @property
    def width(self) -> int: ...

    def __call__(self, gradient: Tensor) -> Tensor:
        """Gradients [B, size] -> [B, width], float32."""


@dataclass(frozen=True)
class Kept:
    """The gradient as it is."""

    width: int

    def __call__(self, gradient: Tensor) -> Tensor:
        return gradient.float()


@dataclass(frozen=True)
class Dense:
    """Gradient times a random matrix [size, width] / sqrt(width), made block by block."""

    distribution: str
    key: str
    size: int
    width: int
    _held: dict[torch.device, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def block(self, start: int, stop: int, device: torch.device) -> Tensor:
        """Columns start..stop of the sketch, [width, stop - start]."""
        if self.size * self.width > HELD:
            return random_matrix(self.distribution, self.key, (0, self.width), (start, stop), device)
        if device not in self._held:
            whole = (0, self.width), (0, self.size)
            self._held[device] = random_matrix(self.distribution, self.key, *whole, device)
        return self._held[device][:, start:stop]

    def __call__(self, gradient: Tensor) -> Tensor:
        gradient = gradient.float()
        step = max(64, BLOCK // self.width // 64 * 64)
        result = gradient.new_zeros(len(gradient), self.width)
        for start in range(0, self.size, step):
            stop = min(self.size, start + step)
            result.addmm_(gradient[:, start:stop], self.block(start, stop, gradient.device).T)
        return result.mul_(self.width**-0.5)


@dataclass(frozen=True)
class SparseSign:
    """Each coordinate is added, with a random sign, to one random column in each of `NONZEROS` bands of columns."""

    key: str
    size: int
    width: int

    def targets(self, start: int, stop: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Columns (int64) and signs (float32) of coordinates start..stop, both [bands, stop - start]."""
        bands = min(NONZEROS, self.width)
        edges = torch.tensor([band * self.width // bands for band in range(bands + 1)], device=device)
        words = random_words(self.key, (0, bands), (start, stop), device)
        column = edges[:-1, None] + ((words >> 1) & ((1 << 62) - 1)) % edges.diff()[:, None]
        return column, (words & 1).float().mul_(-2).add_(1)

    def __call__(self, gradient: Tensor) -> Tensor:
        gradient = gradient.float()
        result = gradient.new_zeros(self.width, len(gradient))
        step = max(1, BLOCK // len(gradient))
        for start in range(0, self.size, step):
            stop = min(self.size, start + step)
            columns, signs = self.targets(start, stop, gradient.device)
            for column, sign in zip(columns, signs, strict=True):
                result.index_add_(0, column, gradient[:, start:stop].T * sign[:, None])
        scale: float = min(NONZEROS, self.width) ** -0.5
        return result.T * scale


@dataclass(frozen=True)
class Factored:
    """vec(R G C^T) / sqrt(width) of a gradient G [rows, columns], R [r, rows] and C [c, columns] of random signs.

    That is (R (x) C) vec(G). Each of the r c entries is an unbiased sketch by itself, so where r c > width the last few
    are dropped and the width is exact. For a gradient that is a sum of outer products, sum_t a_t b_t^T, as those of
    linear layers and convolutions are, R G C^T = sum_t (R a_t)(C b_t)^T and G need never exist (`combine`).
    """

    key: str
    rows: int
    columns: int
    width: int
    _held: dict[tuple[str, torch.device], Tensor] = field(default_factory=dict, repr=False, compare=False)

    @property
    def grid(self) -> tuple[int, int]:
        """(r, c): nearly equal, at most (rows, columns), r c >= width."""
        r = min(self.rows, round(self.width**0.5))
        c = min(self.columns, math.ceil(self.width / r))
        return math.ceil(self.width / c), c

    def left(self, device: torch.device) -> Tensor:
        """R, float32 [r, rows]."""
        return self._signs("left", self.grid[0], self.rows, device)

    def right(self, device: torch.device) -> Tensor:
        """C, float32 [c, columns]."""
        return self._signs("right", self.grid[1], self.columns, device)

    def _signs(self, role: str, rows: int, columns: int, device: torch.device) -> Tensor:
        if (role, device) not in self._held:
            self._held[role, device] = random_matrix(
                "rademacher", f"{self.key}|{role}", (0, rows), (0, columns), device
            )
        return self._held[role, device]

    def combine(self, left: Tensor, right: Tensor) -> Tensor:
        """Projected factors R a [B, T, r] and C b [B, T, c] -> [B, width], summed over the T outer products."""
        return self._cut(left.float().transpose(1, 2) @ right.float())

    def __call__(self, gradient: Tensor) -> Tensor:
        gradient = gradient.float().reshape(-1, self.rows, self.columns)
        return self._cut(self.left(gradient.device) @ gradient @ self.right(gradient.device).T)

    def _cut(self, grid: Tensor) -> Tensor:
        scale: float = self.width**-0.5
        return grid.flatten(1)[:, : self.width] * scale


@dataclass(frozen=True, eq=False)
class Scaled:
    """A sketch of the gradient times a fixed number for each of its entries: scale, float32 [size]."""

    sketch: Sketch
    scale: Tensor

    @property
    def width(self) -> int:
        return self.sketch.width

    def __call__(self, gradient: Tensor) -> Tensor:
        return self.sketch(gradient.float() * self.scale)


@dataclass(frozen=True, eq=False, kw_only=True)
class ScaledFactored(Factored):
    """`Factored` of diag(row_scale) G diag(column_scale): R and C take the scales, and G need never exist either."""

    row_scale: Tensor
    column_scale: Tensor
    factor: float

    @classmethod
    def of(cls, sketch: Factored, row_scale: Tensor, column_scale: Tensor) -> ScaledFactored:
        """row_scale: positive, float32 [rows]; column_scale: likewise, [columns]."""
        # R and C are cast to the dtype of activations: their own sizes stay near 1, within float16's range.
        sizes = [float((scale.min() * scale.max()).sqrt()) for scale in (row_scale, column_scale)]
        return cls(
            *(sketch.key, sketch.rows, sketch.columns, sketch.width),
            row_scale=row_scale / sizes[0],
            column_scale=column_scale / sizes[1],
            factor=math.prod(sizes),
        )

    def left(self, device: torch.device) -> Tensor:
        return super().left(device) * self.row_scale.to(device)

    def right(self, device: torch.device) -> Tensor:
        return super().right(device) * self.column_scale.to(device)

    def _cut(self, grid: Tensor) -> Tensor:
        return super()._cut(grid) * self.factor


@dataclass(frozen=True)
class Plan:
    """Which sketch each parameter gets, and in which columns of the features its output is added up."""

    sketches: Mapping[str, Sketch]
    columns: Mapping[str, slice]
    width: int


def plan(projection: Projection, shapes: Mapping[str, tuple[int, ...]]) -> Plan:
    """Sketches for parameters of the given shapes. Depends on names and shapes alone, not on order or layer kinds."""
    sizes = {name: math.prod(shapes[name]) for name in sorted(shapes)}
    total = sum(sizes.values())
    dim = projection.dim
    if dim is None or projection.kind == "fast_jl" or (projection.kind in IN_PASS and dim >= total):
        return _side_by_side({name: Kept(sizes[name]) for name in shapes})  # in the model's own order
    keys = {name: f"{projection.seed}|{name}|{projection.kind}" for name in sizes}
    if projection.kind == "factored":
        return _factored_plan(dim, keys, shapes, sizes)
    if projection.kind == "tensorsketch":
        return _tensor_sketch_plan(dim, keys, shapes, sizes)
    sketches: dict[str, Sketch] = {}
    for name, size in sizes.items():
        if projection.kind == "sjlt":
            sketches[name] = SparseSign(keys[name], size, dim)
        else:
            sketches[name] = Dense(projection.kind, keys[name], size, dim)
    return Plan(sketches, dict.fromkeys(sketches, slice(0, dim)), dim)


def _factored_plan(
    dim: int, keys: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]], sizes: Mapping[str, int]
) -> Plan:
    """Columns by size: each large matrix its own, all that is small one share in common, sketched densely."""
    total = sum(sizes.values())
    large = [n for n in sizes if len(shapes[n]) > 1 and sizes[n] * dim >= SMALLEST_SHARE * total]
    small = [n for n in sizes if n not in large]
    shares = _largest_remainders(dim, [sizes[n] for n in large] + [sum(sizes[n] for n in small)] * bool(small))
    sketches: dict[str, Sketch] = {}
    for name, width in zip(large, shares, strict=False):
        rows = shapes[name][0]
        sketches[name] = Factored(keys[name], rows, sizes[name] // rows, width)
    own = _side_by_side(sketches)
    common: dict[str, Sketch] = {name: Dense("rademacher", keys[name], sizes[name], shares[-1]) for name in small}
    columns = {**own.columns, **dict.fromkeys(small, slice(own.width, dim))}
    return Plan({**sketches, **common}, columns, dim)


def _tensor_sketch_plan(
    dim: int, keys: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]], sizes: Mapping[str, int]
) -> Plan:
    """All parameters in the same columns: shares of their own would need to know how large their gradients are."""
    sketches: dict[str, Sketch] = {}
    columns: dict[str, slice] = {}
    for name, size in sizes.items():
        if size > dim:
            rows = shapes[name][0] if len(shapes[name]) > 1 else 1
            sketches[name], columns[name] = TensorSketch(keys[name], rows, size // rows, dim), slice(0, dim)
        else:
            signs = Signs(keys[name], size)
            start = signs.start(dim)
            sketches[name], columns[name] = signs, slice(start, start + size)
    return Plan(sketches, columns, dim)


def _largest_remainders(total: int, sizes: list[int]) -> list[int]:
    """Integers of sum `total` in proportion to `sizes`, each at least 1; at most one size may deserve less."""
    exact = [total * size / sum(sizes) for size in sizes]
    shares = [max(1, int(share)) for share in exact]
    order = sorted(range(len(sizes)), key=lambda i: (shares[i] - exact[i], i))
    for i in order[: total - sum(shares)]:
        shares[i] += 1
    return shares


def _side_by_side(sketches: Mapping[str, Sketch]) -> Plan:
    columns, start = {}, 0
    for name, sketch in sketches.items():
        columns[name] = slice(start, start + sketch.width)
        start += sketch.width
    return Plan(sketches, columns, start)


def fast_jl(projection: Projection, size: int, device: torch.device) -> Callable[[Tensor], Tensor]:
    """TRAK's CUDA kernel as a function of whole gradients: float32 [B, size] -> [B, dim], scaled by 1 / sqrt(dim).

    Its random signs depend on the kind of GPU, so that features made on different kinds do not mix. Raises InputError
    where the device is not a GPU, or where `traker` or `fast_jl` is not installed.
    """
    advice = "projection.kind=rademacher is the same kind of sketch without it"
    if device.type != "cuda":
        raise InputError(f"projection.kind=fast_jl needs a CUDA device, the model is on {device}; {advice}")
    try:
        from trak.projectors import CudaProjector, ProjectionType

        projector = CudaProjector(size, projection.width, projection.seed, ProjectionType.rademacher, device, 32)
    except ModuleNotFoundError as error:
        raise InputError(f"projection.kind=fast_jl needs the packages traker and fast_jl; {advice}") from error

    scale: float = projection.width**-0.5

    def project(gradients: Tensor) -> Tensor:
        projected: Tensor = projector.project(gradients, model_id=0)
        return projected.float() * scale

    return project
