"""The space in which rows are compared: what was asked for, and what was chosen by a look at candidates and targets.

No whitening is right for all data. "chosen" compares rows that are whitened by near neighbours, with their lengths or
without, centred alone, and as they are, by how well targets agree on candidates.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tarot.common import CPU, InputError, check_option, selection_device
from tarot.features import FeatureStore, MatrixLike, Rows, as_rows, blocks, read_rows
from tarot.space.content import content_sample
from tarot.space.norm import NORMS, AskedNorm, Norm, RowMap, unit_norm
from tarot.space.target_agreement import agreement, repetition
from tarot.space.whitening import (
    Centred,
    JoinedRows,
    WhitenedRows,
    check_norm,
    check_regularization,
    fit_centre,
    fit_whitener,
)
from tarot.workers import LOCAL, Workers, check_workers

Whitening = Literal["chosen", "local", "centred", "cholesky", "zca", "paper"] | None
WHITENINGS: tuple[Whitening, ...] = ("chosen", "local", "centred", "cholesky", "zca", "paper", None)

PAPER_RIDGE = 1e-3  # the paper has none, and a covariance of few rows needs one
COMPARED = 2000  # candidates at most that targets are sought among
SHOWN = 400  # targets at most that are sought
STRANGERS = 0.45  # agreement below which targets are said not to look like one another; .5 is chance
Pairs = Sequence[tuple[Rows, Rows]]  # candidates and targets of each model
Maps = list[RowMap]  # of each model


@dataclass(frozen=True)
class Space:
    """In which space rows were compared.

    whitening: "local", "centred" (its mean is subtracted, and that is all), "cholesky", "zca", "paper" or None (rows as
    they are). norm: of rows before that. centre: the rows whose mean is subtracted; None where nothing is.
    regularization: the relative ridge of each model's whitening. chosen: whether all this was chosen by how well
    targets agree on candidates: the `agreement` (chance is .5) and `repetition` of each choice; None where they were
    not asked.
    """

    whitening: Whitening
    norm: Norm | None
    centre: Literal["union"] | None
    regularization: tuple[float, ...]
    chosen: bool = False
    agreement: dict[str, float] | None = None
    repetition: dict[str, float] | None = None

    @property
    def name(self) -> str:
        """For a person: "local whitening, ridge 0.2"."""
        if self.whitening is None:
            return "unit norm alone"
        if self.whitening == "centred":
            return "centred, not whitened"
        kind = {"local": "local", "cholesky": "Cholesky", "zca": "ZCA", "paper": "the paper's"}[self.whitening]
        lengths = " of clipped rows" if self.norm == "clip" else ""
        return f"{kind} whitening{lengths}, ridge {' / '.join(f'{ridge:.2g}' for ridge in self.regularization)}"

    def as_dict(self) -> dict[str, Any]:
        """As plain data, for a file."""
        return {**asdict(self), "regularization": list(self.regularization)}

    @classmethod
    def of_dict(cls, saved: Any) -> Space:
        """What `as_dict` made. Raises InputError where it is not that."""
        try:
            space = cls(**{**saved, "regularization": tuple(float(ridge) for ridge in saved["regularization"])})
        except (ArithmeticError, TypeError, ValueError, KeyError) as error:
            raise InputError(f"its space is not one: {error}") from error
        if space.whitening not in WHITENINGS or space.norm not in NORMS or not isinstance(space.chosen, bool):
            raise InputError(f"its space is not one: {saved}")
        return space


@dataclass(frozen=True, eq=False)
class FittedSpace:
    """A space and the map of each model's rows [b, d] into it."""

    space: Space
    maps: Maps


def resolved(
    whitening: Whitening | Literal["auto"], regularization: float | None, auto: Whitening = "chosen"
) -> Whitening:
    """What "auto" stands for: `auto`, or "local" in place of "chosen" where a ridge is given. Raises InputError where
    one is given to what is asked for by name and has none."""
    check_option("whitening", whitening, Literal["auto"] | Whitening)
    if whitening in (None, "centred") and regularization is not None:
        raise InputError(
            f"regularization is the ridge of a whitening, and {whitening or 'none'} has no ridge: leave it out, or "
            f'ask for "local"; it is {regularization}'
        )
    if whitening != "auto":
        return whitening
    return "local" if auto == "chosen" and regularization is not None else auto


def check_space(whitening: object, regularization: float | None, norm: object) -> None:
    """Raises InputError unless `fit_space` can be asked for it."""
    check_option("whitening", whitening, Whitening)
    check_regularization(regularization)
    check_norm(norm)
    if whitening == "chosen" and regularization is not None:
        raise InputError(
            f'whitening="chosen" chooses its ridge, too; with regularization={regularization:g} ask for "local"'
        )


def fit_space(
    pairs: Pairs,
    whitening: Whitening,
    regularization: float | None,
    norm: AskedNorm,
    device: torch.device = CPU,
    engine: Workers = LOCAL,
) -> FittedSpace:
    """regularization: None: chosen. norm: "auto": none before "cholesky", "zca" and "paper", as in the paper, one of
    "unit" and "clip" where all is chosen, and unit before the rest. "paper" is Cholesky's at a ridge of 1e-3, of rows
    as long as they are. The maps are of rows on `device`."""
    if whitening is None:
        return FittedSpace(Space(None, None, None, ()), [unit_norm for _ in pairs])
    if whitening == "chosen":
        return _chosen(pairs, norm, device, engine)
    if norm == "auto":
        norm = None if whitening in ("cholesky", "zca", "paper") else "unit"
    if whitening == "centred":
        return FittedSpace(
            Space("centred", norm, "union", ()), [fit_centre(c, t, norm, device, engine) for c, t in pairs]
        )
    if whitening == "paper":
        norm, regularization = None, PAPER_RIDGE if regularization is None else regularization
    method = "cholesky" if whitening == "paper" else whitening
    maps = [fit_whitener(c, t, method, regularization, "union", norm, device, engine) for c, t in pairs]
    ridges = tuple(fitted.regularization for fitted in maps)
    return FittedSpace(Space(whitening, norm, "union", ridges), list(maps))


def in_space(rows: Sequence[Rows], maps: Maps, name: str, device: torch.device = CPU) -> Rows:
    """The rows [n, d] of each model, mapped on the device of the maps as they are read, and joined."""
    mapped = [WhitenedRows(view, mapping, name, device) for view, mapping in zip(rows, maps, strict=True)]
    return mapped[0] if len(mapped) == 1 else JoinedRows(mapped, name, device=device)


@overload
def whiten(
    candidates: Tensor,
    targets: Tensor,
    method: Whitening | Literal["auto"] = "auto",
    regularization: float | None = None,
    norm: AskedNorm = "auto",
    device: str = "auto",
    engine: Workers = LOCAL,
) -> tuple[Tensor, Tensor]: ...
@overload
def whiten(
    candidates: NDArray[Any] | FeatureStore,
    targets: NDArray[Any] | FeatureStore,
    method: Whitening | Literal["auto"] = "auto",
    regularization: float | None = None,
    norm: AskedNorm = "auto",
    device: str = "auto",
    engine: Workers = LOCAL,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...
@overload
def whiten(
    candidates: MatrixLike,
    targets: MatrixLike,
    method: Whitening | Literal["auto"] = "auto",
    regularization: float | None = None,
    norm: AskedNorm = "auto",
    device: str = "auto",
    engine: Workers = LOCAL,
) -> tuple[NDArray[np.float32] | Tensor, NDArray[np.float32] | Tensor]: ...
def whiten(
    candidates: MatrixLike,
    targets: MatrixLike,
    method: Whitening | Literal["auto"] = "auto",
    regularization: float | None = None,
    norm: AskedNorm = "auto",
    device: str = "auto",
    engine: Workers = LOCAL,
) -> tuple[NDArray[np.float32] | Tensor, NDArray[np.float32] | Tensor]:
    """Whitened, unit-norm candidates [N, d] and targets [M, d], float32; torch for torch input, else NumPy.

    method, regularization, norm: as `tarot.select` describes whitening, regularization and norm, and by default in the
    space that it uses for `tarot_*`. `method=None` only normalises. Zero rows stay zero. Raises InputError on unequal
    dimensions, an unknown option, features that do not vary, or a covariance that is singular without a larger ridge.
    device: what computes, "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", ...
    engine: whose workers go over the rows to find the space, where that is the CPU; it changes no result.
    """
    check_workers(engine)
    check_option("method", method, Literal["auto"] | Whitening)
    sources = {"candidates": as_rows(candidates, "candidates"), "targets": as_rows(targets, "targets")}
    asked = resolved(method, regularization)
    check_space(asked, regularization, norm)
    pair = sources["candidates"], sources["targets"]
    place = selection_device(device)
    workers = engine if place == CPU else LOCAL
    (mapping,) = fit_space([pair], asked, regularization, norm, place, workers).maps
    results: list[NDArray[np.float32] | Tensor] = []
    for name, rows in sources.items():
        home = rows.device if isinstance(rows, Tensor) else CPU
        white = torch.empty(tuple(rows.shape), device=home)
        for start, block in blocks(rows, None, name, place):
            white[start : start + len(block)] = mapping(block)
        results.append(white if isinstance(rows, Tensor) else white.numpy())
    return results[0], results[1]


def _chosen(pairs: Pairs, norm: AskedNorm, device: torch.device, engine: Workers) -> FittedSpace:
    choices: dict[str, FittedSpace] = {}
    kinds: tuple[Norm | None, ...] = ("unit", "clip") if norm == "auto" else (norm,)
    for kept in kinds:
        whitened = [fit_whitener(c, t, "local", None, "union", kept, device, engine) for c, t in pairs]
        ridges = tuple(fitted.regularization for fitted in whitened)
        name = "local" if kept == "unit" else f"local, {kept or 'any'} norm"
        choices[name] = FittedSpace(Space("local", kept, "union", ridges), list(whitened))
        if "centred" not in choices:
            centred: Maps = [Centred(fitted.mean, fitted.prepare) for fitted in whitened]
            choices["centred"] = FittedSpace(Space("centred", kept, "union", ()), centred)
    choices["none"] = fit_space(pairs, None, None, None, device)
    asked = _asked(pairs, list(choices.values()), device)
    if asked is None:
        first = next(iter(choices.values()))
        return FittedSpace(replace(first.space, chosen=True), first.maps)
    agreed = {name: each for name, (each, _) in zip(choices, asked, strict=True)}
    found = {name: float(of_targets.mean()) for name, of_targets in agreed.items()}
    repeated = {name: again for name, (_, again) in zip(choices, asked, strict=True)}
    best = max(choices, key=lambda name: found[name] + repeated[name])  # the first of equals
    _warn_of_strangers(agreed[best])
    space = replace(choices[best].space, chosen=True, agreement=found, repetition=repeated)
    return FittedSpace(space, choices[best].maps)


def _asked(
    pairs: Pairs, spaces: Sequence[FittedSpace], device: torch.device
) -> list[tuple[NDArray[np.float64], float]] | None:
    """`agreement` and `repetition` of the same targets in each space; None where there are fewer than two of these, or
    no candidate."""
    candidates, targets = ([pair[side] for pair in pairs] for side in (0, 1))
    z = _drawn(candidates, COMPARED, spaces, "candidates", device)
    x = _drawn(targets, SHOWN, spaces, "targets", device)
    usable = [torch.stack([rows.any(dim=1) for rows in side]).all(dim=0) for side in (z, x)]
    if not usable[0].any() or usable[1].sum() < 2:
        return None
    sides = [(c[usable[0]], t[usable[1]]) for c, t in zip(z, x, strict=True)]
    return [(agreement(*side), repetition(*side)) for side in sides]


def _drawn(
    views: Sequence[Rows], size: int, spaces: Sequence[FittedSpace], name: str, device: torch.device
) -> list[Tensor]:
    """So many rows [n, d] in each space, the same in all, read once; in the CPU's memory."""
    which = content_sample(views[0], size, name)
    rows = [read_rows(view, which, name) for view in views]
    return [in_space(rows, space.maps, name, device)[:].cpu() for space in spaces]


def _warn_of_strangers(found: NDArray[np.float64]) -> None:
    """found: of each target, in the space that was chosen."""
    if found.mean() < STRANGERS and found.mean() + 2 * found.std(ddof=1) / len(found) ** 0.5 < 0.5:
        warnings.warn(
            f"targets do not look like one another: a selection for all but one of them would find that one later than "
            f"an average candidate (agreement {found.mean():.2f}, .5 is chance). Are these the right targets, and do "
            "these features tell what you want?",
            stacklevel=2,
        )
