"""Labelled samples in one space: the cost C(z, z') = d(x, x') + label_weight W[y, y'] of LAVA (theory.md 5).

W[y, y'] is itself a transport distance, between the candidates' features of class y and the targets' of class y'
(Alvarez-Melis and Fusi, 2020). Classes are codes of one index over both sides, so no batch, and no class that one side
lacks, can shift them. A class with a single member is a point mass, and its distances are as well defined as any.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tarot.common import Count, InputError, NonNegative, Positive, check_options, progress
from tarot.features import Rows, blocks, read_block, read_rows
from tarot.selection import SelectionProblem
from tarot.space import distances, unit_norm
from tarot.transport import annealed_once, sinkhorn

Orders = Callable[[], tuple[NDArray[np.int64], NDArray[np.int64]]]
_LEAST = 2.0**-40  # of numbers whose squares, and those of what is much smaller, are far from the ends of float32


@dataclass(frozen=True, kw_only=True)
class LabelCosts:
    """How labelled samples are compared.

    feature_cost: "half_squared", 1/2 ||x - x'||^2 (as released), or "euclidean", ||x - x'|| (as printed).
    label_weight: of W beside the feature cost; 0.5 gives the released code's second halving of it.
    epsilon, label_epsilon: entropic regularisation of the transport between samples, and of that between classes. With
    scale "mean" they are in units of the mean feature cost of all pairs (its root mean square for "euclidean"), so
    that values scale with the features and rankings do not change; with None they are absolute numbers.
    normalise: compare rows scaled to unit norm. label_rows: at most so many rows stand for a class in W, evenly spaced
    by id, or by content where there are no ids; None: all of them. min_label_count: a class with fewer members on the
    side it occurs on is refused.
    match_classes: weigh the targets so that every class has the mass it has among the candidates they are compared with
    (ours; the papers do not). Otherwise a class that is a little over-represented by chance cannot be served within
    itself, which raises the price of all its members beyond what sets them apart. A class that the targets lack is
    served by all of them; one that the candidates lack counts as half of one of theirs.
    variant: "released" = the authors' transport (ledger LAVA (b), (f)): the epsilons are absolute, the label term
    counts half, classes are not matched, and potentials are those after one update at each epsilon of an annealing,
    which has not converged. `scale`, `match_classes` and `tolerance` then say nothing.
    tolerance: L1 error of the marginals at which a transport between samples counts as solved. The error of the values
    is linear in it, and at 1e-4 below 1% of the largest (0.03% on batches of 1024); iterations grow with its logarithm.
    """

    epsilon: Positive = 0.1
    label_epsilon: Positive = 0.1
    label_weight: NonNegative = 1.0
    feature_cost: Literal["half_squared", "euclidean"] = "half_squared"
    scale: Literal["mean"] | None = "mean"
    normalise: bool = False
    label_rows: Count | None = 1000
    min_label_count: Count = 1
    match_classes: bool = True
    variant: Literal["paper", "released"] = "paper"
    tolerance: Positive = 1e-4

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True)
class Columns:
    """Targets that costs are computed to: rows y [m, d] and, for each class, what does not depend on x [L, m]."""

    rows: Tensor
    base: Tensor


@dataclass(frozen=True)
class Box:
    """The smallest box with sides along the axes that holds some rows: its corners [d]."""

    least: Tensor
    most: Tensor

    @classmethod
    def of(cls, *parts: Tensor) -> Box:
        ends = [part.aminmax(dim=0) for part in parts]
        return cls(torch.stack([e.min for e in ends]).amin(0), torch.stack([e.max for e in ends]).amax(0))

    def with_rows(self, rows: Tensor) -> Box:
        return Box.of(self.least[None], self.most[None], rows)

    @property
    def diameter(self) -> float:
        return float((self.most - self.least).norm())


@dataclass(frozen=True)
class LabelledSpace:
    """One view of the candidates and the targets, ready to be compared.

    Rows are relative to the targets' mean, which changes no distance and keeps their squares small. label_costs:
    label_weight W, float32 [L, L] (candidates' class, targets' class); nan where a side lacks the class, which nobody
    reads. epsilon: absolute. divisor: of the features, so that squares of the tiny and the huge stay within float32.
    orders: of all candidates and all targets, in which they are drawn; without ids they take a pass over the rows.
    """

    candidates: Rows
    candidate_labels: NDArray[np.int64]
    targets: Tensor
    target_labels: NDArray[np.int64]
    centre: Tensor
    label_costs: Tensor
    epsilon: float
    options: LabelCosts
    orders: Orders
    divisor: float = 1.0

    @property
    def unit(self) -> float:
        """Of costs here, in those of the features as they are."""
        return self.divisor**2 if self.options.feature_cost == "half_squared" else self.divisor

    def rows(self, indices: NDArray[np.int64]) -> Tensor:
        """These candidates, float32 [k, d]."""
        return self._placed(read_rows(self.candidates, indices, "candidates"))

    def blocks(self, size: int) -> Iterator[tuple[int, Tensor]]:
        for start, block in blocks(self.candidates, size, "candidates"):
            yield start, self._placed(block)

    def _placed(self, block: Tensor) -> Tensor:
        return (unit_norm(block) if self.options.normalise else block / self.divisor) - self.centre

    def columns(self, part: NDArray[np.int64]) -> Columns:
        """The targets at these positions."""
        rows = self.targets[torch.from_numpy(part)]
        base = self.label_costs[:, torch.from_numpy(self.target_labels[part])]
        if self.options.feature_cost == "half_squared":
            base = base + rows.square().sum(1) / 2
        return Columns(rows, base)

    def masses(self, labels: NDArray[np.int64], part: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Marginal of the targets at these positions beside candidates of these labels, float64 [m]; None: uniform.

        With match_classes n_y / m_y each, where a class that the candidates lack counts half a member.
        """
        if not self.options.match_classes or self.options.variant == "released":
            return None
        wanted, classes = self.target_labels[part], len(self.label_costs)
        members = np.bincount(wanted, minlength=classes).clip(min=1)
        mass: NDArray[np.float64] = np.bincount(labels, minlength=classes).clip(min=0.5) / members
        of_targets = mass[wanted]
        of_targets /= of_targets.sum()
        return of_targets

    def cost(self, x: Tensor, labels: NDArray[np.int64], columns: Columns) -> Tensor:
        """C(z, z') of candidates x [b, d] with these labels [b] to the targets, float32 [b, m]."""
        cost = columns.base.index_select(0, torch.from_numpy(labels))
        if self.options.feature_cost == "euclidean":
            return cost.add_(distances(x, columns.rows))
        return cost.add_(x.square().sum(1, keepdim=True) / 2).addmm_(x, columns.rows.T, alpha=-1)


def labelled_spaces(problem: SelectionProblem, options: LabelCosts, method: str) -> Iterator[LabelledSpace]:
    """Every view of the problem as a LabelledSpace; `method` is who asks, in errors.

    Raises InputError on missing labels, and classes with fewer members than options.min_label_count.
    """
    of_candidates, of_targets = problem.labels(method)
    for side, names, codes in (
        ("candidate", problem.candidate_labels, of_candidates),
        ("target", problem.target_labels, of_targets),
    ):
        assert names is not None  # `problem.labels` has them
        _check_counts(names, codes, options.min_label_count, side, method)

    def orders() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return problem.candidate_order, problem.target_order

    for candidates, targets in zip(problem.candidate_views, problem.target_views, strict=True):
        rows = read_block(targets, 0, problem.m, "targets")
        yield _space(candidates, of_candidates, rows, of_targets, options, orders)


def _check_counts(names: NDArray[Any], codes: NDArray[np.int64], least: int, side: str, method: str) -> None:
    counts = np.bincount(codes)
    few = np.flatnonzero((counts > 0) & (counts < least))
    if len(few):
        name = np.asarray(names)[np.flatnonzero(codes == few[0])[0]].item()
        raise InputError(
            f"{method}: class {name!r} has {counts[few[0]]} {side}{'s' if counts[few[0]] > 1 else ''}, fewer than "
            f"min_label_count={least}; remove the class or lower min_label_count (1 is enough for the mathematics)"
        )


def _space(
    candidates: Rows,
    of_candidates: NDArray[np.int64],
    targets: Tensor,
    of_targets: NDArray[np.int64],
    options: LabelCosts,
    orders: Orders,
) -> LabelledSpace:
    released = options.variant == "released"
    relative = options.scale == "mean" and not released and not options.normalise
    divisor = _divisor(targets) if relative else 1.0
    targets = unit_norm(targets) if options.normalise else targets / divisor
    centre = targets.double().mean(0).float()
    classes = 1 + int(max(of_candidates.max(), of_targets.max()))
    no_costs = torch.zeros(classes, classes)
    space = LabelledSpace(
        candidates, of_candidates, targets - centre, of_targets, centre, no_costs, 1.0, options, orders, divisor
    )
    unit = mean_feature_cost(space) if options.scale == "mean" and not released else 1.0
    weight = options.label_weight / 2 if released else options.label_weight
    label_costs = weight * label_distances(space, options.label_epsilon * unit)
    return replace(space, label_costs=torch.from_numpy(label_costs).float(), epsilon=options.epsilon * unit)


def _divisor(targets: Tensor) -> float:
    """1, or a power of two near the largest number, where its square is near the ends of float32."""
    largest = max(float(end.abs()) for end in targets.aminmax())
    if largest == 0 or _LEAST < largest < 1 / _LEAST:
        return 1.0
    return 2.0 ** math.floor(math.log2(largest))


def mean_feature_cost(space: LabelledSpace) -> float:
    """E 1/2 ||x - x'||^2 over all pairs, or sqrt(E ||x - x'||^2) for the Euclidean cost; one pass over the candidates.

    1 where all points are one.
    """
    n = space.candidates.shape[0]
    total, squares = torch.zeros(space.targets.shape[1], dtype=torch.float64), 0.0
    for _, block in space.blocks(8192):
        block = block.double()
        total += block.sum(0)
        squares += float(block.square().sum())
    targets = space.targets.double()
    mean = (squares / n + float(targets.square().sum(1).mean())) / 2 - float(total / n @ targets.mean(0))
    if mean <= 0:
        return 1.0
    return mean if space.options.feature_cost == "half_squared" else math.sqrt(2 * mean)


def label_distances(space: LabelledSpace, epsilon: float) -> NDArray[np.float64]:
    """W[y, y'] = OT_epsilon(candidates of class y, targets of class y') with the feature cost, float64 [L, L].

    nan where a side has no member of the class; zero where label_weight is, so that nothing is computed in vain.
    """
    classes = len(space.label_costs)
    if space.options.label_weight == 0:
        return np.zeros((classes, classes))
    found = np.full((classes, classes), np.nan)
    features = replace(space, label_costs=torch.zeros(classes, classes))
    members = _members(space.candidate_labels, space.options.label_rows, lambda: space.orders()[0])
    wanted = _members(space.target_labels, space.options.label_rows, lambda: space.orders()[1])
    columns = {label: features.columns(part) for label, part in wanted.items()}
    with progress("distances between classes", len(members) * len(wanted), "pairs") as advance:
        for label, part in members.items():
            rows, labels = features.rows(part), space.candidate_labels[part]
            for other, targets in columns.items():
                found[label, other] = _class_distance(features, rows, labels, targets, epsilon)
                advance(1)
    return found


def _class_distance(
    features: LabelledSpace, rows: Tensor, labels: NDArray[np.int64], targets: Columns, epsilon: float
) -> float:
    cost = features.cost(rows, labels, targets)
    if features.options.variant == "paper":
        return sinkhorn(cost, epsilon).value
    f, g = annealed_once(cost, epsilon, Box.of(rows, targets.rows).diameter)
    return float(f.mean() + g.mean())


def _members(
    labels: NDArray[np.int64], most: int | None, all_in_order: Callable[[], NDArray[np.int64]]
) -> dict[int, NDArray[np.int64]]:
    """The positions of every class that occurs, ascending; at most so many, evenly spaced in an order of all."""
    order = np.argsort(labels, kind="stable")
    cuts = np.flatnonzero(np.diff(labels[order])) + 1
    members = {int(labels[part[0]]): part for part in np.split(order, cuts)}
    if most is None or max(map(len, members.values())) <= most:
        return members
    in_order = all_in_order()
    return {
        label: part if len(part) <= most else np.sort(_spaced(in_order[labels[in_order] == label], most))
        for label, part in members.items()
    }


def _spaced(part: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    return part[np.arange(count) * len(part) // count]
