"""The space in which rows are compared: what was asked for, and what was chosen by a look at candidates and targets.

No whitening is right for all data. "chosen" compares local whitening at several ridges, and rows as they are, by how
well targets find one another among the candidates (`agreement`); where that cannot tell, it stays with the first.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tarot.common import InputError
from tarot.features import FeatureStore, MatrixLike, Rows, as_rows, blocks, read_rows
from tarot.space.agreement import agreement
from tarot.space.local import content_sample
from tarot.space.norm import NORMS, Norm, RowMap, unit_norm
from tarot.space.whitening import JoinedRows, WhitenedRows, check_norm, check_regularization, fit_spread, fit_whitener

Whitening = Literal["chosen", "local", "cholesky", "zca", "paper"] | None
WHITENINGS: tuple[Whitening, ...] = ("chosen", "local", "cholesky", "zca", "paper", None)

PAPER_RIDGE = 1e-3  # the paper has none, and a covariance of few rows needs one
RIDGES: tuple[float | None, ...] = (None, 1.0, 10.0)  # that are compared; None: `oracle_ridge`
COMPARED = 2000  # candidates at most that targets are sought among
SHOWN = 400  # targets at most that are sought
STRANGERS = 0.45  # agreement below which targets are said not to look like one another; .5 is chance
Pairs = Sequence[tuple[Rows, Rows]]  # candidates and targets of each model
Maps = list[RowMap]  # of each model


@dataclass(frozen=True)
class Space:
    """In which space rows were compared.

    whitening: "local", "cholesky", "zca", "paper" or None (rows as they are). norm: of rows before that.
    centre: the rows whose mean is subtracted; None without whitening. regularization: the relative ridge of each
    model's whitening. chosen: whether all this was chosen by `agreement`: the choices by name, and how well targets
    found one another in each, from .5 (no better than candidates) to 1.
    """

    whitening: Whitening
    norm: Norm | None
    centre: Literal["union"] | None
    regularization: tuple[float, ...]
    chosen: bool = False
    agreement: dict[str, float] | None = None

    @property
    def name(self) -> str:
        """For a person: "local whitening, ridge 0.2"."""
        if self.whitening is None:
            return "unit norm alone"
        return f"{self.whitening} whitening, ridge {' / '.join(f'{ridge:.2g}' for ridge in self.regularization)}"

    def as_dict(self) -> dict[str, Any]:
        """As plain data, for a file."""
        return {**asdict(self), "regularization": list(self.regularization)}

    @classmethod
    def of_dict(cls, saved: Any) -> Space:
        """What `as_dict` made. Raises InputError where it is not that."""
        try:
            space = cls(**{**saved, "regularization": tuple(float(ridge) for ridge in saved["regularization"])})
        except (TypeError, ValueError, KeyError) as error:
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
    """What "auto" stands for: `auto`, or "local" in place of "chosen" where a ridge is given."""
    if whitening not in ("auto", *WHITENINGS):
        raise InputError(f"whitening must be one of {('auto', *WHITENINGS)}; it is {whitening!r}")
    if whitening != "auto":
        return whitening
    return "local" if auto == "chosen" and regularization is not None else auto


def check_space(whitening: object, regularization: float | None, norm: object) -> None:
    """Raises InputError unless `fit_space` can be asked for it."""
    if whitening not in WHITENINGS:
        raise InputError(f"whitening must be one of {WHITENINGS}; it is {whitening!r}")
    check_regularization(regularization)
    check_norm(norm)
    if whitening == "chosen" and regularization is not None:
        raise InputError(
            f'whitening="chosen" chooses its ridge, too; with regularization={regularization:g} ask for "local"'
        )


def fit_space(pairs: Pairs, whitening: Whitening, regularization: float | None, norm: Norm | None) -> FittedSpace:
    """regularization: None: chosen. "paper" is Cholesky's at a ridge of 1e-3, of rows as long as they are."""
    if whitening is None:
        return FittedSpace(Space(None, None, None, ()), [unit_norm for _ in pairs])
    if whitening == "chosen":
        return _chosen(pairs, norm)
    if whitening == "paper":
        norm, regularization = None, PAPER_RIDGE if regularization is None else regularization
    method = "cholesky" if whitening == "paper" else whitening
    maps = [fit_whitener(c, t, method, regularization, "union", norm) for c, t in pairs]
    ridges = tuple(fitted.regularization for fitted in maps)
    return FittedSpace(Space(whitening, norm, "union", ridges), list(maps))


def in_space(rows: Sequence[Rows], maps: Maps, name: str) -> Rows:
    """The rows [n, d] of each model, mapped as they are read and joined."""
    mapped = [WhitenedRows(view, mapping, name) for view, mapping in zip(rows, maps, strict=True)]
    return mapped[0] if len(mapped) == 1 else JoinedRows(mapped, name)


@overload
def whiten(
    candidates: Tensor,
    targets: Tensor,
    method: Whitening | Literal["auto"] = "auto",
    regularization: float | None = None,
    norm: Norm | None = "unit",
) -> tuple[Tensor, Tensor]: ...
@overload
def whiten(
    candidates: NDArray[Any] | FeatureStore,
    targets: NDArray[Any] | FeatureStore,
    method: Whitening | Literal["auto"] = "auto",
    regularization: float | None = None,
    norm: Norm | None = "unit",
) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...
@overload
def whiten(
    candidates: MatrixLike,
    targets: MatrixLike,
    method: Whitening | Literal["auto"] = "auto",
    regularization: float | None = None,
    norm: Norm | None = "unit",
) -> tuple[NDArray[np.float32] | Tensor, NDArray[np.float32] | Tensor]: ...
def whiten(
    candidates: MatrixLike,
    targets: MatrixLike,
    method: Whitening | Literal["auto"] = "auto",
    regularization: float | None = None,
    norm: Norm | None = "unit",
) -> tuple[NDArray[np.float32] | Tensor, NDArray[np.float32] | Tensor]:
    """Whitened, unit-norm candidates [N, d] and targets [M, d], float32; torch for torch input, else NumPy.

    method, regularization, norm: as `tarot.select` describes whitening, regularization and norm, and by default in the
    space that it uses for `tarot_*`. `method=None` only normalises. Zero rows stay zero. Raises InputError on unequal
    dimensions, an unknown option, features that do not vary, or a covariance that is singular without a larger ridge.
    """
    sources = {"candidates": as_rows(candidates, "candidates"), "targets": as_rows(targets, "targets")}
    asked = resolved(method, regularization)
    check_space(asked, regularization, norm)
    pair = sources["candidates"], sources["targets"]
    (mapping,) = fit_space([pair], asked, regularization, norm).maps
    results: list[NDArray[np.float32] | Tensor] = []
    for name, rows in sources.items():
        white = torch.empty(tuple(rows.shape))
        for start, block in blocks(rows, name=name):
            white[start : start + len(block)] = mapping(block)
        results.append(white.to(rows.device) if isinstance(rows, Tensor) else white.numpy())
    return results[0], results[1]


def _chosen(pairs: Pairs, norm: Norm | None) -> FittedSpace:
    spreads = [fit_spread(c, t, "local", "union", norm) for c, t in pairs]
    choices: list[FittedSpace] = []
    for ridge in RIDGES:
        maps = [spread.whitener(ridge) for spread in spreads]
        ridges = tuple(fitted.regularization for fitted in maps)
        choices.append(FittedSpace(Space("local", norm, "union", ridges, chosen=True), list(maps)))
    choices.append(FittedSpace(Space(None, None, None, (), chosen=True), [unit_norm for _ in pairs]))
    found = _agreements(pairs, choices)
    if found is None:
        return choices[0]
    means = {choice.space.name: float(values.mean()) for choice, values in zip(choices, found, strict=True)}
    best = choices[_preferred(found)]
    _warn_of_strangers(max(found, key=lambda values: float(values.mean())))
    return FittedSpace(Space(**{**vars(best.space), "agreement": means}), best.maps)


def _agreements(pairs: Pairs, choices: Sequence[FittedSpace]) -> list[NDArray[np.float64]] | None:
    """Of each choice, over the same targets; None where there are fewer than two of these."""
    candidates, targets = ([pair[side] for pair in pairs] for side in (0, 1))
    among = content_sample(candidates[0], COMPARED, "candidates")
    sought = content_sample(targets[0], SHOWN, "targets")
    found = []
    for choice in choices:
        z = read_rows(in_space(candidates, choice.maps, "candidates"), among, "candidates")
        x = read_rows(in_space(targets, choice.maps, "targets"), sought, "targets")
        z, x = z[z.any(dim=1)], x[x.any(dim=1)]
        if len(x) < 2 or not len(z):
            return None
        found.append(agreement(z, x))
    return found


def _preferred(found: Sequence[NDArray[np.float64]]) -> int:
    """The first choice that is no worse than the best by more than one standard error of their difference."""
    best = max(found, key=lambda values: float(values.mean()))
    for position, values in enumerate(found):
        behind = best - values
        if behind.mean() <= behind.std(ddof=1) / len(behind) ** 0.5:
            return position
    raise AssertionError("the best is not behind itself")


def _warn_of_strangers(found: NDArray[np.float64]) -> None:
    """found: of each target, in the best of the spaces."""
    if found.mean() < STRANGERS and found.mean() + 2 * found.std(ddof=1) / len(found) ** 0.5 < 0.5:
        warnings.warn(
            f"targets do not look like one another: a selection for all but one of them would find that one later than "
            f"an average candidate (agreement {found.mean():.2f}, .5 is chance). Are these the right targets, and do "
            "these features tell what you want?",
            stacklevel=2,
        )
