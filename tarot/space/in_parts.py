"""Nearest candidates by parts of the pool, which several workers look through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tarot.common import CPU, InputError, check_option, selection_device
from tarot.features import MatrixLike, Rows, as_rows
from tarot.space.choice import Whitening, check_space, fit_space, resolved
from tarot.space.neighbours import Closest, nearest_unit, tf32_screen
from tarot.space.norm import AskedNorm
from tarot.space.whitening import WhitenedRows
from tarot.workers import LOCAL, Workers, check_workers, ranges

PART = 131_072  # candidates: many, since each part looks again at the k nearest of every target in it


@dataclass(frozen=True, eq=False)
class _Range:
    """Rows start..stop of others."""

    rows: Rows
    start: int
    stop: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.stop - self.start, *self.rows.shape[1:])

    @property
    def dtype(self) -> Any:
        return self.rows.dtype

    def __getitem__(self, index: slice | NDArray[np.int64]) -> Any:
        if isinstance(index, slice):
            start, stop, step = index.indices(self.shape[0])
            return self.rows[self.start + start : self.start + stop : step]
        return self.rows[np.asarray(index) + self.start]


def nearest(
    candidates: MatrixLike,
    targets: MatrixLike,
    k: int = 100,
    whitening: Whitening | Literal["auto"] = "auto",
    regularization: float | None = None,
    norm: AskedNorm = "auto",
    device: str = "auto",
    engine: Workers = LOCAL,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Distances (float32 [M, k], ascending) and indices (int64 [M, k]) of each target's k nearest candidates.

    Distances are between unit-norm rows, sqrt(2 - 2 cos), after whitening as `tarot.select` describes it; "auto" is
    what it uses for `tarot_*`, None takes the rows as they are. Exact; ties go to the smaller index. Zero rows are
    nobody's neighbours: places that no usable candidate fills, and all places of a zero target, hold distance +inf and
    index -1. device: what computes, "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", ...
    engine: whose workers go over the candidates, where that is the CPU; it changes no result.

    Raises InputError for a k outside 1..N and as `fit_whitener` does.
    """
    check_workers(engine)
    candidates, targets = as_rows(candidates, "candidates"), as_rows(targets, "targets")
    check_option("k", k, int)
    if not 1 <= k <= candidates.shape[0]:
        raise InputError(f"k must be between 1 and the number of candidates, {candidates.shape[0]}; it is {k!r}")
    asked = resolved(whitening, regularization)
    check_space(asked, regularization, norm)
    place = selection_device(device)
    workers = engine if place == CPU else LOCAL
    (mapping,) = fit_space([(candidates, targets)], asked, regularization, norm, place, workers).maps
    white = WhitenedRows(targets, mapping, "targets", place)[:]
    pool = WhitenedRows(candidates, mapping, "candidates", place)
    if place == CPU:
        distance, index = nearest_in_parts(pool, white, k, engine=workers)
    else:
        distance, index = nearest_unit(pool, white, k, screen=tf32_screen(candidates.shape[1]))
    return distance.numpy(), index.numpy()


def nearest_in_parts(
    candidates: Rows,
    targets: Tensor,
    k: int,
    places: NDArray[np.int64] | None = None,
    closest: Closest | None = None,
    engine: Workers = LOCAL,
) -> tuple[Tensor, Tensor]:
    """`nearest_unit` of parts of fixed size, which the engine's workers look through; the same result."""
    parts = ranges(candidates.shape[0], PART)
    if len(parts) == 1:
        return nearest_unit(candidates, targets, k, places=places, closest=closest)
    distance, index = torch.empty(len(targets), 0), torch.empty(len(targets), 0, dtype=torch.int64)
    found = engine.map(_nearest_in, parts, candidates, targets, k, places, closest is not None)
    for (start, stop), (part_distance, part_index, seen) in zip(parts, found, strict=True):
        if closest is not None and seen is not None:
            closest.distance[start:stop], closest.target[start:stop] = seen.distance, seen.target
        distance, index = torch.cat([distance, part_distance], 1), torch.cat([index, part_index], 1)
        by_place = (index if places is None else torch.from_numpy(places)[index]).argsort(dim=1)
        distance, order = distance.gather(1, by_place).sort(dim=1, stable=True)  # stable: ties by place
        index = index.gather(1, by_place).gather(1, order)
        distance, index = distance[:, :k], index[:, :k]
    return distance, index


def _nearest_in(
    part: tuple[int, int],
    state: None,
    candidates: Rows,
    targets: Tensor,
    k: int,
    places: NDArray[np.int64] | None,
    closest: bool,
) -> tuple[Tensor, Tensor, Closest | None]:
    start, stop = part
    seen = Closest.unknown(stop - start, targets.device) if closest else None
    rows, within = _Range(candidates, start, stop), None if places is None else places[start:stop]
    distance, index = nearest_unit(rows, targets, min(k, stop - start), places=within, closest=seen)
    return distance, index.where(index < 0, index + start), seen
