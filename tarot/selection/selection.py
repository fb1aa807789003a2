"""What a selector returns: which candidates, how often each, and how good that is.

Weights: potentials become integer repetition counts (theory.md 0.4 and 1.4). Quality: the transport distance to the
targets beside a lower bound that no subset of the size can beat (theory.md 10). What costs a transport problem is
computed when it is first read, and saved with the rest.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from tarot.common import InputError, atomic_file
from tarot.features import BAD_PARQUET
from tarot.selection.candidate_table import candidate_table
from tarot.selection.weights import LARGEST_TOTAL, allocate, integer_weights
from tarot.space import Space
from tarot.transport import Bracket, Cost, Entropic, bracket, entropic_potentials, sinkhorn, solve_exact

if TYPE_CHECKING:
    from tarot.selection.problem import SelectionProblem

_NO_SELECTION = (ArithmeticError, KeyError, TypeError, ValueError, RecursionError)  # an InputError is a ValueError
_FORMAT = "tarot.selection/1"  # of the file, whatever module writes it


@dataclass(frozen=True, eq=False)
class Selection:
    """S of N candidates, ascending and unique, with integer weights.

    indices: int64 [S], in 0..n-1. n, m: how many candidates and targets there were. total: what the weights sum to.
    selector: its name and options. curve: what a selector measured on its way (`size="auto"`: the
    held-out distance by size; OTM: the distance by layer), name -> list. ids: [S], where the pool had ids. values: what
    the selector made of every candidate, float64 [n], higher = more valuable, where it chose by that; not in a file.
    """

    indices: NDArray[np.int64]
    n: int
    m: int
    selector: dict[str, Any]
    ids: NDArray[Any] | None = None
    curve: dict[str, list[Any]] | None = None
    total: int | None = None
    problem: SelectionProblem | None = field(default=None, repr=False)
    values: NDArray[np.float64] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name, value in (("n", self.n), ("m", self.m)):
            _check_positive(name, value)
        if self.total is not None:
            check_total(self.total)
        object.__setattr__(self, "indices", _checked_indices(self.indices, self.n))  # frozen for everybody else
        if self.ids is not None and np.shape(self.ids) != self.indices.shape:
            raise InputError(f"{len(self.indices)} are selected, and the shape of their ids is {np.shape(self.ids)}")
        if self.total is not None and self.total < len(self.indices):
            raise InputError(
                f"total {self.total} is less than the {len(self.indices)} candidates selected, each repeated once"
            )
        if self.problem is not None and (self.n, self.m) != (self.problem.n, self.problem.m):
            raise InputError(
                f"n and m are {self.n} and {self.m}, and the problem has {self.problem.n} candidates and "
                f"{self.problem.m} targets"
            )

    @classmethod
    def of(
        cls,
        problem: SelectionProblem,
        chosen: ArrayLike,
        selector: Mapping[str, Any],
        *,
        blind: bool = False,
        weights: ArrayLike | None = None,
        potentials: ArrayLike | None = None,
        ot_distance: float | None = None,
        lower_bound: float | None = None,
        curve: dict[str, list[Any]] | None = None,
        total: int | None = None,
        values: NDArray[np.float64] | None = None,
    ) -> Selection:
        """Order the chosen, int64 [S], and attach what the selector already knows, aligned with them.

        A `total` of the selector's own choice gives way to the caller's, which is shared out in proportion to `weights`
        where the selector has its own, else to all alike (theory.md 1.4).

        Raises InputError where the chosen are not different candidates of the problem; where one of them has zero
        features, unless the choice was `blind` to features; where weights are not integers of at least 1; and where
        the total is less than one each, unless the problem lets it grow.
        """
        candidates = _integers(chosen)
        order = np.argsort(candidates, kind="stable")
        indices = _checked_indices(candidates[order], problem.n)
        if not blind and (zero := problem.zero_rows(indices)).any():
            raise InputError(
                f"candidate {indices[zero][0]} is selected, and its features are zero: a selector that looks at "
                "features has nothing to go by there"
            )
        own, total = total, total if problem.total is None else problem.total
        if total is not None and problem.total_may_grow:
            total = max(total, len(indices))
        ids = None if problem.candidate_ids is None else problem.candidate_ids[indices]
        selection = cls(indices, problem.n, problem.m, dict(selector), ids, curve, total, problem, values)
        repeats: NDArray[np.int64] | None = None
        if weights is not None:
            repeats = _checked_weights(weights, len(indices))[order]
        elif own is None and total is not None:
            repeats = np.ones(len(indices), dtype=np.int64)
        if repeats is not None and total is not None and len(indices):
            proportional = repeats * (total / repeats.sum())
            by_order = np.searchsorted(indices, problem.ordered(indices))  # in which equal shares are rounded
            repeats = np.empty(len(indices), dtype=np.int64)
            repeats[by_order] = allocate(np.maximum(proportional[by_order] - 1, 0), total)  # one each, then the rest
        known = {
            "weights": repeats,
            "potentials": None if potentials is None else _checked_potentials(potentials, len(indices))[order],
            "ot_bracket": None if ot_distance is None else _checked_bracket(ot_distance, ot_distance),
            "lower_bound": None if lower_bound is None else _checked_distance("lower_bound", lower_bound),
        }
        for name, value in known.items():
            if value is not None:
                selection._remember(name, value)
        return selection

    def _remember(self, name: str, value: Any) -> None:
        vars(self)[name] = value  # where functools.cached_property looks first

    def __len__(self) -> int:
        return len(self.indices)

    # --- computed when first read ------------------------------------------------------------------------------------

    @cached_property
    def weights(self) -> NDArray[np.int64]:
        """How often each is repeated in an epoch: int64 [S], >= 1, summing to `total`; all 1 without a total."""
        if self.total is None or not len(self):
            return np.ones(len(self), dtype=np.int64)
        return integer_weights(self.potentials, self.total)

    @cached_property
    def potentials(self) -> NDArray[np.float64]:
        """Dual potential of each selected candidate, float64 [S]; lower = more useful. Entropic, epsilon 0.01."""
        return self._entropic.f - self._entropic.f.mean() if len(self) else np.empty(0)

    @cached_property
    def ot_distance(self) -> float:
        """OT(uniform over the selected, uniform over the targets); where only bracketed, the upper end."""
        return self.ot_bracket.upper

    @cached_property
    def ot_bracket(self) -> Bracket:
        """Certified bounds on the OT distance; both ends are equal where it was solved exactly."""
        if not len(self):
            return Bracket(float("nan"), float("nan"))
        if isinstance(self._cost, Tensor):  # it fits in memory, so the network simplex is affordable
            value = solve_exact(self._cost).value
            return Bracket(value, value)
        return bracket(self._cost, sinkhorn(self._cost, 0.003, g=self._entropic.g, tolerance=0.01))

    @cached_property
    def lower_bound(self) -> float:
        """No subset of this size is nearer to the targets: the capacity-constrained OT distance (theory.md 10)."""
        return self._problem().capacity_plan(len(self)).lower_bound if len(self) else float("nan")

    @cached_property
    def space(self) -> Space | None:
        """In which space its distances are, and what was chosen for it; None where a file does not say."""
        return self._problem().space

    @cached_property
    def nearest_target(self) -> NDArray[np.int64]:
        """Index of each selected candidate's nearest target, int64 [S]."""
        return self._nearest[1]

    @cached_property
    def nearest_distance(self) -> NDArray[np.float64]:
        """Its distance, float64 [S]."""
        return self._nearest[0]

    @cached_property
    def _nearest(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        if not len(self):
            return np.empty(0), np.empty(0, dtype=np.int64)
        cost = self._cost
        blocks = [(0, cost)] if isinstance(cost, Tensor) else cost.blocks()
        pairs = [block.min(dim=1) for _, block in blocks]
        distance = torch.cat([p.values for p in pairs]).double().cpu().numpy()
        return distance, self._problem().usable_targets[torch.cat([p.indices for p in pairs]).cpu().numpy()]

    @cached_property
    def _cost(self) -> Cost:
        return self._problem().cost(self.indices)

    @cached_property
    def _entropic(self) -> Entropic:
        return entropic_potentials(self._cost)

    def _problem(self) -> SelectionProblem:
        if self.problem is None:
            raise InputError("this selection was loaded without that value, and its candidates are not at hand")
        return self.problem

    # --- on disk -----------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write everything, computing what was not read yet, as a parquet table: one row per selected candidate."""
        columns = {
            "index": self.indices,
            "weight": self.weights,
            "potential": self.potentials,
            "nearest_target": self.nearest_target,
            "nearest_distance": self.nearest_distance,
        }
        if self.ids is not None:
            columns["id"] = self.ids
        facts = {
            "n": self.n,
            "m": self.m,
            "selector": self.selector,
            "curve": self.curve,
            "total": self.total,
            "ot_bracket": [self.ot_bracket.lower, self.ot_bracket.upper],
            "lower_bound": self.lower_bound,
            "space": None if self.space is None else self.space.as_dict(),
        }
        table = pa.table(columns).replace_schema_metadata({"format": _FORMAT, "selection": json.dumps(facts)})
        with atomic_file(path) as temporary:
            pq.write_table(table, temporary)

    def save_scores(self, path: str | Path, target_ids: Sequence[str] | None = None) -> None:
        """Write what is known of every candidate, selected or not, as a parquet table of n rows.

        index, id (where there are ids). nearest_target, nearest_distance: null for a candidate whose features are zero.
        layer: in which of the layers of nearest candidates it enters, from 1; null where nobody has looked so far.
        value: the selector's, where it chose by values. selected. weight: 0 where it is not. potential: null where it
        is not. target_ids: the names of the m targets, for the column nearest_target_id.

        Raises InputError where the candidates are not at hand.
        """
        with atomic_file(path) as temporary:
            pq.write_table(candidate_table(self, self._problem(), target_ids), temporary)

    @classmethod
    def load(cls, path: str | Path) -> Selection:
        """A saved selection. Raises InputError where the file is not one."""
        if not os.path.lexists(path):
            raise InputError(f"{path} is not a selection saved by tarot: it is not there")
        if Path(path).is_dir():
            raise InputError(f"{path} is a folder, and not a selection saved by tarot: name the file in it")
        try:
            table = pq.read_table(path)
        except BAD_PARQUET as error:
            raise InputError(f"{path} is not a selection saved by tarot: {error}") from error
        metadata = table.schema.metadata or {}
        if metadata.get(b"format") != _FORMAT.encode():
            raise InputError(f"{path} is a parquet file, but not a selection saved by tarot ({_FORMAT})")
        try:
            return cls._loaded({name: table[name].to_numpy() for name in table.column_names}, metadata[b"selection"])
        except _NO_SELECTION as error:
            raise InputError(f"{path} is damaged, and not a selection saved by tarot any more: {error}") from error

    @classmethod
    def _loaded(cls, column: Mapping[str, NDArray[Any]], described: bytes) -> Selection:
        """From the columns of a saved table and its facts as JSON; everything is checked again."""
        facts = json.loads(described)
        if not isinstance(facts["selector"], dict) or not isinstance(facts["curve"], dict | None):
            raise InputError("its selector or its curve is no mapping")
        selection = cls(
            column["index"], facts["n"], facts["m"], facts["selector"], column.get("id"), facts["curve"], facts["total"]
        )
        space = facts.get("space")  # of which older files say nothing
        selection._remember("space", None if space is None else Space.of_dict(space))
        size = len(selection)
        weights = _checked_weights(column["weight"], size)
        if selection.total is not None and size and weights.sum() != selection.total:
            raise InputError(f"its weights sum to {weights.sum()} and its total is {selection.total}")
        selection._remember("weights", weights)
        selection._remember("potentials", _checked_potentials(column["potential"], size))
        selection._remember("nearest_target", _checked_targets(column["nearest_target"], selection.m))
        selection._remember("nearest_distance", _checked_distances(column["nearest_distance"]))
        if size:
            lower, upper = facts["ot_bracket"]
            selection._remember("ot_bracket", _checked_bracket(lower, upper))
            selection._remember("lower_bound", _checked_distance("lower_bound", facts["lower_bound"]))
        return selection


def _check_positive(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InputError(f"{name} must be a positive integer; it is {value!r}")


def check_total(total: Any) -> None:
    """Raises InputError unless it is a positive integer that a float64 holds exactly."""
    _check_positive("total", total)
    if total > LARGEST_TOTAL:
        raise InputError(f"total must be at most 2**53; it is {total}")


def _checked_distance(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, float | int | np.number) or not 0 <= value < math.inf:
        raise InputError(f"{name} must be a distance, finite and at least 0; it is {value!r}")
    return float(value)


def _checked_bracket(lower: Any, upper: Any) -> Bracket:
    found = Bracket(_checked_distance("ot_distance", lower), _checked_distance("ot_distance", upper))
    if found.lower > found.upper:
        raise InputError(f"ot_distance cannot be at least {lower} and at most {upper}")
    return found


def _checked_distances(given: NDArray[Any]) -> NDArray[np.float64]:
    """Finite and at least 0, float64 [S]."""
    if given.dtype.kind != "f" or not ((given >= 0) & (given < math.inf)).all():
        raise InputError("nearest_distance must be distances, finite and at least 0")
    return given


def _integers(given: Any) -> NDArray[np.int64]:
    """A vector of integers, int64 [S]."""
    indices = np.asarray(given)
    if indices.ndim != 1 or (indices.size and indices.dtype.kind not in "iu"):  # an empty list is of floats
        raise InputError(
            f"indices must be a vector of integers [S]; their shape is {indices.shape} and their dtype {indices.dtype}"
        )
    return indices.astype(np.int64, copy=False)


def _checked_indices(given: ArrayLike, n: int) -> NDArray[np.int64]:
    """Different candidates in ascending order, int64 [S]."""
    indices = _integers(given)
    outside = indices[(indices < 0) | (indices >= n)]
    if len(outside):
        raise InputError(f"indices must be of the {n} candidates, 0..{n - 1}; {outside[0]} is not")
    step = np.diff(indices)
    if (step == 0).any():
        twice = indices[1:][step == 0][0]
        raise InputError(f"indices must be unique; candidate {twice} stands {(indices == twice).sum()} times")
    if (step < 0).any():
        raise InputError(f"indices must ascend; {indices[1:][step < 0][0]} stands after {indices[:-1][step < 0][0]}")
    return indices


def _checked_weights(given: ArrayLike, size: int) -> NDArray[np.int64]:
    """Integers of at least 1, int64 [S]."""
    weights = np.asarray(given)
    if weights.shape != (size,) or (size and weights.dtype.kind not in "iu"):
        raise InputError(
            f"weights must be integers, one for each of the {size} selected; their shape is {weights.shape} and their "
            f"dtype {weights.dtype}"
        )
    if (weights < 1).any():
        raise InputError(f"weights must be at least 1; one is {weights.min()}")
    return weights.astype(np.int64, copy=False)


def _checked_potentials(given: ArrayLike, size: int) -> NDArray[np.float64]:
    """Finite numbers, float64 [S]."""
    potentials = np.asarray(given, dtype=np.float64)
    if potentials.shape != (size,) or not np.isfinite(potentials).all():
        raise InputError(
            f"potentials must be finite numbers, one for each of the {size} selected; their shape is {potentials.shape}"
        )
    return potentials


def _checked_targets(targets: NDArray[Any], m: int) -> NDArray[np.int64]:
    """Positions of targets, int64 [S]."""
    if targets.dtype.kind not in "iu" or not ((targets >= 0) & (targets < m)).all():
        raise InputError(f"nearest_target must be positions of the {m} targets, 0..{m - 1}")
    return targets
