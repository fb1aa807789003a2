"""What a selector is given: the pool, the target, and the questions that selectors ask of them.

One problem may be seen by several independently trained models: candidates and targets are then lists of feature
matrices, one per model, whitened each and joined, so that squared distances are averaged (`per_ckpt`, theory.md 1.1).
"""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from tarot.common import CPU, InputError, check_option, selection_device
from tarot.features import PartRows, Rows, block_size, common_ids, read_rows
from tarot.selection import knowledge
from tarot.selection.budget import Allowance, Budget, too_few
from tarot.selection.marginal_cost import by_potentials, by_transports
from tarot.selection.order import InOrder
from tarot.selection.selection import Selection, check_total
from tarot.space import (
    AskedNorm,
    Closest,
    FittedSpace,
    Space,
    Whitening,
    check_space,
    distances,
    fit_space,
    in_space,
    nearest_in_parts,
    unit_norm,
)
from tarot.transport import (
    DENSE_PAIRS,
    CapacityPlan,
    Cost,
    StreamedCost,
    solve_capacity,
)
from tarot.workers import LOCAL, Workers, check_workers

WHOLE_TABLE = 100_000_000  # multiplications of all candidates with all targets
_FARTHEST = 2.0  # that unit vectors can be from each other
_AT_ONCE = 4096  # candidates of an order
FIRST_NEIGHBOURS = 32  # of every target, at least, in a pass over the pool
_ORDERS = ("candidate_order", "candidate_places")  # cached, and the same whatever the targets are


@dataclass(frozen=True, eq=False)
class SelectionProblem(InOrder):
    """N candidates [N, d] and M targets [M, d] per model, with what the caller knows about their rows.

    whitening: "chosen" (of "local", "centred" and None, where targets agree best on candidates), "local", "centred",
    "cholesky", "zca", "paper" or None (rows as they are, unit norm only). regularization: its relative ridge; None:
    chosen by shrinkage. norm: of rows before that, "unit", "clip", None, or "auto" (see `tarot.select`). total: the sum
    of the selection's weights, None where the selector decides; total_may_grow: it becomes the size of a selection that
    is larger. labels [N], [M]; groups [M] (subtasks); ids [N] (None: those of the rows, where they have names, as a
    store's have); tags [N] (diagnosis, and the `oracle` arm); residuals: one [N] per model (TRAK's Q); scores: one [N]
    per model of what was measured on the model itself and features do not say (EL2N's error norms, influences);
    learning_rates: one per model (None: all alike). costs [N]: what a budget of tokens counts; sources [N]: what quotas
    and caps are of; group_weights: of every group of the targets, in which proportion the budget is shared out to them.
    engine: where passes over the candidates are computed. device: what computes, "auto" (a GPU where there is one),
    "cpu", "cuda", "cuda:1", ...; for any other kind the CPU does.

    candidate_views and target_views may be given as one matrix where there is one model. Everything is checked here:
    InputError or TypeError says what was wrong with which argument. That features are finite is checked as they are
    read.
    """

    candidate_views: tuple[Rows, ...]
    target_views: tuple[Rows, ...]
    whitening: Whitening = None
    regularization: float | None = None
    norm: AskedNorm = "auto"
    total: int | None = None
    total_may_grow: bool = False
    candidate_labels: NDArray[Any] | None = None
    target_labels: NDArray[Any] | None = None
    target_groups: NDArray[Any] | None = None
    candidate_ids: NDArray[Any] | None = None
    candidate_tags: NDArray[Any] | None = None
    candidate_residuals: tuple[NDArray[np.float64], ...] | None = None
    candidate_scores: tuple[NDArray[np.float64], ...] | None = None
    candidate_costs: NDArray[np.float64] | None = None
    candidate_sources: NDArray[Any] | None = None
    group_weights: Mapping[str, float] | None = None
    learning_rates: tuple[float, ...] | None = None
    engine: Workers = LOCAL
    device: str = "auto"
    _table: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _whole: tuple[SelectionProblem, NDArray[np.int64]] | None = field(default=None, repr=False)  # see `restricted`

    def __post_init__(self) -> None:
        candidates = knowledge.views(self.candidate_views, "candidates")
        targets = knowledge.views(self.target_views, "targets")
        knowledge.check_one_space(candidates, targets)
        models, n, m = len(candidates), candidates[0].shape[0], targets[0].shape[0]
        ids = common_ids(candidates, "candidates") if self.candidate_ids is None else self.candidate_ids
        check_space(self.whitening, self.regularization, self.norm)
        selection_device(self.device)
        if self.total is not None:
            check_total(self.total)
        check_option("total_may_grow", self.total_may_grow, bool)
        known = {
            "candidate_views": candidates,
            "target_views": targets,
            "candidate_labels": knowledge.per_row(self.candidate_labels, n, "candidate_labels"),
            "target_labels": knowledge.per_row(self.target_labels, m, "target_labels"),
            "target_groups": knowledge.per_row(self.target_groups, m, "target_groups"),
            "candidate_ids": knowledge.unique_ids(ids, n, "candidate_ids"),
            "candidate_tags": knowledge.per_row(self.candidate_tags, n, "candidate_tags"),
            "candidate_residuals": knowledge.numbers(self.candidate_residuals, models, n, "candidate_residuals"),
            "candidate_scores": knowledge.numbers(self.candidate_scores, models, n, "candidate_scores"),
            "candidate_costs": knowledge.costs(self.candidate_costs, n, "candidate_costs"),
            "candidate_sources": knowledge.per_row(self.candidate_sources, n, "candidate_sources"),
            "learning_rates": knowledge.rates(self.learning_rates, models, "learning_rates"),
            "group_weights": knowledge.weights(self.group_weights, self.target_groups),
        }
        for name, value in known.items():
            object.__setattr__(self, name, value)  # the dataclass is frozen for everybody else
        check_workers(self.engine)

    @property
    def n(self) -> int:
        return self.candidate_views[0].shape[0]

    @property
    def m(self) -> int:
        return self.target_views[0].shape[0]

    @cached_property
    def place(self) -> torch.device:
        """Where distances and transports are computed."""
        return selection_device(self.device)

    @property
    def workers(self) -> Workers:
        """Who goes over the candidates: the engine's, or this process where it has a GPU for that."""
        return self.engine if self.place == CPU else LOCAL

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    # --- the two sides in one unit-norm space ------------------------------------------------------------------------

    @cached_property
    def _fitted(self) -> FittedSpace:
        pairs = list(zip(self.candidate_views, self.target_views, strict=True))
        return fit_space(pairs, self.whitening, self.regularization, self.norm, self.place, self.workers)

    @property
    def space(self) -> Space:
        """What rows are compared in, with what was chosen for it."""
        return self._fitted.space

    @cached_property
    def _spaces(self) -> tuple[Rows, Rows]:
        maps = self._fitted.maps
        return (
            in_space(self.candidate_views, maps, "candidates", self.place),
            in_space(self.target_views, maps, "targets", self.place),
        )

    @property
    def candidates(self) -> Rows:
        """Unit-norm rows [N, d], computed as they are read; a zero gradient stays a zero row and is never selected."""
        return self._spaces[0]

    @cached_property
    def usable_targets(self) -> NDArray[np.int64]:
        """Indices of the targets whose gradient is not zero, int64."""
        rows: Tensor = self._spaces[1][:]
        usable: NDArray[np.int64] = (rows != 0).any(dim=1).nonzero()[:, 0].cpu().numpy()
        if len(usable) == 0:
            raise InputError("targets: every row is zero, so nothing can be near them")
        if len(usable) < self.m:
            warnings.warn(
                f"{self.m - len(usable)} of {self.m} targets have zero features and are left out", stacklevel=2
            )
        return usable

    @cached_property
    def targets(self) -> Tensor:
        """The usable targets as unit-norm rows, float32 [M', d]."""
        rows: Tensor = self._spaces[1][:].cpu()
        return rows[self.usable_targets]

    @cached_property
    def _targets(self) -> Tensor:
        """The same where distances are computed."""
        return self.targets.to(self.place)

    def with_targets_in_order(self) -> SelectionProblem:
        """The same problem with its usable targets in the order of `target_order`: for draws of them, and solvers."""
        return self.restricted(np.argsort(np.argsort(self.target_order)[self.usable_targets]))

    # --- what selectors ask ------------------------------------------------------------------------------------------

    def budget(self, size: int | None, ratio: float | None) -> int:
        """How many candidates to select. Raises InputError unless exactly one of the two is given and is possible."""
        if (size is None) == (ratio is None):
            raise InputError(f"give either size or ratio, not {'both' if ratio is not None else 'neither'}")
        if ratio is not None:
            if isinstance(ratio, bool) or not isinstance(ratio, int | float | np.number):
                raise InputError(f"ratio must be a number in (0, 1]; it is {ratio!r}")
            if not 0 < ratio <= 1:
                raise InputError(f"ratio must be in (0, 1]; it is {ratio}")
            size = math.floor(ratio * self.n + 1e-9)
            if size < 1:
                raise InputError(f"ratio {ratio} of {self.n} candidates selects none")
        if isinstance(size, bool) or not isinstance(size, int | np.integer):
            raise InputError(f"size must be an integer; it is {size!r}")
        if not 1 <= size <= self.n:
            raise InputError(f"size must be between 1 and the number of candidates, {self.n}; it is {size}")
        if self.total is not None and self.total < size and not self.total_may_grow:
            raise InputError(f"total {self.total} is less than the {size} candidates it must repeat at least once each")
        return int(size)

    def group(self, name: str) -> NDArray[np.int64]:
        """Positions of a group's targets among the usable ones, int64."""
        groups = np.asarray(self.target_groups).astype(np.str_)[self.usable_targets]
        found: NDArray[np.int64] = np.flatnonzero(groups == name)
        if not len(found):
            raise InputError(f"group_weights: every target of {name!r} has zero features, so nothing can be near them")
        return found

    def of_group(self, name: str) -> SelectionProblem:
        """The same pool in the same space, with the targets of this group alone."""
        part = self.restricted(self.group(name))
        rows = part.usable_targets
        views = tuple(read_rows(view, rows, "targets") for view in self.target_views)
        labels = None if self.target_labels is None else self.target_labels[rows]
        alone = replace(
            part, target_views=views, target_labels=labels, target_groups=None, group_weights=None, _table=part._table
        )
        kept = {name: vars(part)[name] for name in ("_fitted", "_spaces", "targets")}
        vars(alone).update({**kept, "usable_targets": np.arange(len(rows))})
        return alone

    def labels(self, method: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Classes of candidates int64 [N] and targets int64 [M], as codes of one index: 0..(classes of either) - 1."""
        return knowledge.codes(self.candidate_labels, self.target_labels, method)

    def best(
        self,
        values: NDArray[np.floating],
        size: int | None,
        ratio: float | None,
        selector: Mapping[str, Any],
        *,
        budget: Budget | None = None,
    ) -> Selection:
        """The candidates of highest value [N], ties as in `candidate_order`: how every valuation method selects.

        Those with zero features are passed over. budget: in the place of size and ratio, one of tokens, or by source.
        Raises InputError where too few others are left.
        """
        ranked = self.ranked(values, np.arange(self.n))
        chosen = self.first_within(ranked, Budget(size, ratio) if budget is None else budget)
        return self.selection(chosen, selector, values=values)

    def zero_rows(self, candidates: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Which of these candidates have zero features in every view: bool [len(candidates)]. Reads their rows."""
        indices = np.asarray(candidates, dtype=np.int64)
        zero = np.ones(len(indices), dtype=bool)
        for view in self.candidate_views:
            step = block_size(view.shape[1])
            for start in range(0, len(indices), step):
                part = slice(start, start + step)
                zero[part] &= ~read_rows(view, indices[part], "candidates").any(dim=1).numpy()
        return zero

    def usable_parts(self, ranked: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Those of these candidates whose features are not zero, in their order, some at a time: int64."""
        for start in range(0, len(ranked), _AT_ONCE):
            part = ranked[start : start + _AT_ONCE]
            yield part[~self.zero_rows(part)]

    def first_usable(self, ranked: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """The first `count` of these candidates, best first, whose features are not zero: int64 [count].

        Raises InputError where there are fewer.
        """
        usable, start = np.empty(0, dtype=np.int64), 0
        while len(usable) < count and start < len(ranked):
            part = ranked[start : start + count - len(usable)]
            usable = np.concatenate([usable, part[~self.zero_rows(part)]])
            start += len(part)
        if len(usable) < count:
            raise too_few(count, len(usable), len(ranked))
        return usable

    def first_within(self, ranked: NDArray[np.int64], budget: Budget) -> NDArray[np.int64]:
        """Of these candidates, best first, those that the budget is enough for: int64. Those with zero features are
        passed over. Raises InputError where they run out before the budget."""
        if budget.plain:
            return self.first_usable(ranked, self.budget(budget.size, budget.ratio))
        allowance, parts = Allowance.of(self, budget), []
        for part in self.usable_parts(ranked):
            parts.append(allowance.take(part))
            if allowance.done:
                break
        chosen = np.concatenate([np.empty(0, dtype=np.int64), *parts])
        allowance.check_spent(chosen)
        return chosen

    def neighbours(self, k: int) -> tuple[Tensor, Tensor]:
        """Distances float32 and indices int64 [M', >= k] of the nearest candidates of every target, computed once."""
        if self._whole is not None:
            whole, targets = self._whole
            distance, index = whole.neighbours(k)
            return distance[targets], index[targets]
        small = self.n * self.targets.numel() <= WHOLE_TABLE  # then all of them cost no more than a few
        k = self.n if small else min(max(k, FIRST_NEIGHBOURS), self.n)
        with self._lock:
            known = self._table.get("nearest")
            if known is None or known[0].shape[1] < k:
                closest = None if "closest" in self._table else Closest.unknown(self.n, self.place)
                places = None if self.candidate_ids is None else self.candidate_places  # else equals are the same
                nearest = nearest_in_parts(self.candidates, self._targets, k, places, closest, self.workers)
                known = self._table["nearest"] = nearest
                if closest is not None:
                    self._table["closest"] = (closest.distance.cpu(), closest.target.cpu())
        return known

    def closest(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Of every candidate, the distance to its nearest target, float64 [N], and which that is, int64 [N]; +inf and
        -1 where its features are zero."""
        self.neighbours(1)
        with self._lock:
            if "closest" not in self._table:  # neighbours of a larger problem, which were looked for there
                found = Closest.unknown(self.n, self.place)
                nearest_in_parts(self.candidates, self._targets, 1, closest=found, engine=self.workers)
                self._table["closest"] = (found.distance.cpu(), found.target.cpu())
            distance, position = (column.numpy() for column in self._table["closest"])
        target = np.where(position < 0, -1, self.usable_targets[position])
        return distance.astype(np.float64), target

    def layers(
        self,
        targets: NDArray[np.int64] | None = None,
        expect: int = 0,
        min_cos: float | None = None,
        likely: int = 0,
    ) -> Iterator[NDArray[np.int64]]:
        """Layer k = the k-th nearest candidates of the targets (all, or these positions) not seen in a layer before.

        Ascending indices; layers that would be empty are skipped; ends when every usable candidate was in one. Raises
        InputError where they are fewer than `expect`. likely: about how many will be asked for. min_cos leaves out
        pairs of a smaller cosine (ledger L-13).
        """
        targets = np.arange(len(self.targets)) if targets is None else targets
        far = math.inf if min_cos is None else math.sqrt(max(0.0, 2 - 2 * min_cos))
        seen = np.zeros(self.n, dtype=bool)
        depth = max(FIRST_NEIGHBOURS, math.ceil(4 * max(expect, likely) / len(targets)))
        distance = index = np.empty((len(targets), 0))
        for k in range(self.n):
            if k == distance.shape[1]:
                distance, index = (table.numpy()[targets] for table in self.neighbours(depth))
                depth = 2 * distance.shape[1]
            reachable = (index[:, k] >= 0) & (distance[:, k] <= far)
            if not reachable.any():
                break
            layer = np.unique(index[reachable, k])
            layer = layer[~seen[layer]]
            seen[layer] = True
            if len(layer):
                yield layer
        if seen.sum() < expect:
            raise too_few(expect, int(seen.sum()), self.n)

    def cost(self, candidates: NDArray[np.int64], targets: NDArray[np.int64] | None = None) -> Cost:
        """Distances float32 [len(candidates), M'] from these candidates to the targets (all, or these positions), on
        `place`; where they do not fit in memory they are computed from rows that are read as they are needed."""
        chosen = self._targets if targets is None else self._targets[torch.from_numpy(targets).to(self.place)]
        if len(candidates) * len(chosen) > DENSE_PAIRS:
            return StreamedCost(PartRows(self.candidates, candidates), chosen, top=_FARTHEST)
        return distances(read_rows(self.candidates, candidates, "candidates", self.place), chosen)

    def restricted(self, targets: NDArray[np.int64]) -> SelectionProblem:
        """The same pool and space with only these (positions of usable) targets; nothing is whitened again."""
        part = self._with_targets(self.targets[targets], self.usable_targets[targets])
        object.__setattr__(part, "_whole", (self, targets))  # which looks for neighbours of all targets at once
        return part

    def smoothed(self, count: int) -> SelectionProblem:
        """The same pool, each target averaged with the `count` other targets nearest to it, of unit norm again."""
        if count == 0:
            return self
        near = (
            distances(self.targets, self.targets)
            .fill_diagonal_(-1)
            .topk(min(count + 1, len(self.targets)), dim=1, largest=False)
        )
        means = torch.stack([unit_norm(self.targets[i].mean(0, keepdim=True))[0] for i in near.indices])
        return self._with_targets(means, self.usable_targets)

    def _with_targets(self, targets: Tensor, usable: NDArray[np.int64]) -> SelectionProblem:
        """The same pool and space, as fitted, with these targets [M'', d] in the place of ours."""
        part = replace(self, total=None, _table={}, _lock=threading.Lock(), _whole=None)
        vars(part).update(  # where functools.cached_property looks first
            {"_fitted": self._fitted, "_spaces": self._spaces, "targets": targets, "usable_targets": usable}
        )
        vars(part).update({name: vars(self)[name] for name in _ORDERS if name in vars(self)})
        return part

    def capacity_plan(self, size: int, *, in_order: bool = False) -> CapacityPlan:
        """The transport of theory.md 10: every candidate may send at most 1/size. Its value bounds every selection.

        in_order: the solver is given candidates as `ordered` has them, so that which of several optima it finds does
        not depend on where they stand."""
        ordered = self.ordered if in_order else None
        return solve_capacity(self.neighbours, self.n, len(self.targets), size, ordered, self.place)

    def marginal_cost(
        self, chosen: NDArray[np.int64], layer: NDArray[np.int64], exact: bool = False
    ) -> NDArray[np.float64]:
        """What each candidate z of `layer` costs beside `chosen`: float64 [len(layer)], lower = take it first.

        exact: OT(uniform on chosen + z, targets) for every z (Eq. 13). Otherwise z's potential in one entropic solve of
        chosen + layer: to first order the same, up to a constant (ledger L-06, L-08).
        """
        return by_transports(self, chosen, layer) if exact else by_potentials(self, chosen, layer)

    def selection(
        self, chosen: ArrayLike, selector: Mapping[str, Any], *, blind: bool = False, **known: Any
    ) -> Selection:
        """The Selection of these candidates (int64, any order, unique); `known`: results that a selector has already
        computed, see `Selection.of`.

        blind: they were chosen without a look at these features, so that some of them may be zero. Otherwise
        InputError names the first whose are.
        """
        return Selection.of(self, chosen, selector, blind=blind, **known)
