"""What a selector returns: which candidates, how often each, and how good that is.

Weights: potentials become integer repetition counts (selectors.md 0.4 and 1.4). Quality: the transport distance to the
targets beside a lower bound that no subset of the size can beat (section 10). What costs a transport problem is
computed when it is first read, and saved with the rest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from tarot.arrays import InputError
from tarot.costs import StreamedCost
from tarot.files import atomic_file
from tarot.simplex import exact
from tarot.sinkhorn import Bracket, Entropic, bracket, sinkhorn
from tarot.transport import entropic_potentials

if TYPE_CHECKING:
    from tarot.problem import SelectionProblem

DELTA = 0.1  # the worst selected candidate keeps this share of the range of benefits (selectors.md 1.4)
_FORMAT = "tarot.selection/1"


def integer_weights(potentials: Any, total: int, delta: float = DELTA) -> np.ndarray:
    """Positive integers, int64 [S], that sum to `total` and fall as the potentials float [S] rise.

    Benefit u_i = max f - f_i + delta (max f - min f); everyone gets one, the rest is shared out in proportion to u by
    largest remainder, ties by index (selectors.md 0.4, 1.4; ledger L-06, L-18). Raises InputError where total < S.
    """
    f = np.asarray(potentials, dtype=np.float64)
    if f.ndim != 1 or not len(f) or not np.isfinite(f).all():
        raise InputError(f"potentials must be a non-empty vector of finite numbers; its shape is {f.shape}")
    return allocate(f.max() - f + delta * np.ptp(f), total)


def allocate(utilities: Any, total: int) -> np.ndarray:
    """Integer weights >= 1, int64 [S], of non-negative utilities [S], summing to `total` (selectors.md 0.4)."""
    u = np.asarray(utilities, dtype=np.float64)
    if total != int(total):
        raise InputError(f"total must be an integer; it is {total!r}")
    extra = int(total) - len(u)
    if extra < 0:
        raise InputError(f"total {total} cannot give each of {len(u)} candidates a weight of at least 1")
    share = extra * (u / u.sum() if u.sum() > 0 else np.full(len(u), 1 / len(u)))
    # 1e-9: equal utilities must not be told apart by the rounding of their share
    weights = np.floor(share + 1e-9).astype(np.int64)
    fraction = np.round(share - weights, 9)
    left = extra - int(weights.sum())
    weights[np.argsort(-fraction, kind="stable")[:left]] += 1
    return weights + 1


@dataclass(frozen=True, eq=False)
class Selection:
    """S of N candidates, ascending and unique, with integer weights.

    indices: int64 [S]. selector: its name and options. curve: what a selector measured on its way (`size="auto"`: the
    held-out distance by size; OTM: the distance by layer), name -> list. ids: [S], where the pool had ids.
    """

    indices: np.ndarray
    n: int
    m: int
    selector: dict[str, Any]
    ids: np.ndarray | None = None
    curve: dict[str, list] | None = None
    total: int | None = None
    problem: SelectionProblem | None = field(default=None, repr=False)

    @classmethod
    def of(cls, problem: SelectionProblem, chosen: np.ndarray, selector: Mapping[str, Any], **known: Any) -> Selection:
        """Order the chosen and attach what the selector already knows, aligned with `chosen`: `weights`, `potentials`,
        `ot_distance`, `lower_bound`, `curve`. A `total` of the selector's own choice gives way to the caller's, which
        is shared out in proportion to `weights` where the selector has its own, else to all alike (selectors.md 1.4).
        Raises InputError where it is less than one each, unless the problem lets it grow.
        """
        order = np.argsort(chosen, kind="stable")
        indices = np.asarray(chosen, dtype=np.int64)[order]
        own, curve = known.pop("total", None), known.pop("curve", None)
        total = own if problem.total is None else problem.total
        if total is not None and problem.total_may_grow:
            total = max(total, len(indices))
        if total is not None and total < len(indices):
            raise InputError(f"total {total} is less than the {len(indices)} candidates selected, each repeated once")
        ids = None if problem.candidate_ids is None else np.asarray(problem.candidate_ids)[indices]
        selection = cls(indices, problem.n, problem.m, dict(selector), ids, curve, total, problem)
        for name, value in known.items():
            aligned = isinstance(value, np.ndarray)
            selection._remember(name, value[order] if aligned else value)
        if own is None and total is not None and len(indices):
            counts = vars(selection).get("weights", np.ones(len(indices)))
            selection._remember("weights", allocate(counts - 1, total))
        return selection

    def _remember(self, name: str, value: Any) -> None:
        vars(self)[name] = value  # where functools.cached_property looks first

    def __len__(self) -> int:
        return len(self.indices)

    # --- computed when first read ------------------------------------------------------------------------------------

    @cached_property
    def weights(self) -> np.ndarray:
        """How often each is repeated in an epoch: int64 [S], >= 1, summing to `total`; all 1 without a total."""
        if self.total is None or not len(self):
            return np.ones(len(self), dtype=np.int64)
        return integer_weights(self.potentials, self.total)

    @cached_property
    def potentials(self) -> np.ndarray:
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
            value = exact(self._cost).value
            return Bracket(value, value)
        return bracket(self._cost, sinkhorn(self._cost, 0.003, g=self._entropic.g, tolerance=0.01))

    @cached_property
    def lower_bound(self) -> float:
        """No subset of this size is nearer to the targets: the capacity-constrained OT distance (selectors.md 10)."""
        return self._problem().capacity_plan(len(self)).lower_bound if len(self) else float("nan")

    @cached_property
    def nearest_target(self) -> np.ndarray:
        """Index of each selected candidate's nearest target, int64 [S]."""
        return self._nearest[1]

    @cached_property
    def nearest_distance(self) -> np.ndarray:
        """Its distance, float64 [S]."""
        return self._nearest[0]

    @cached_property
    def _nearest(self) -> tuple[np.ndarray, np.ndarray]:
        if not len(self):
            return np.empty(0), np.empty(0, dtype=np.int64)
        blocks = self._cost.blocks() if isinstance(self._cost, StreamedCost) else [(0, self._cost)]
        pairs = [block.min(dim=1) for _, block in blocks]
        distance = torch.cat([p.values for p in pairs]).double().numpy()
        return distance, self._problem().usable_targets[torch.cat([p.indices for p in pairs]).numpy()]

    @cached_property
    def _cost(self) -> Tensor | StreamedCost:
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
        }
        table = pa.table(columns).replace_schema_metadata({"format": _FORMAT, "selection": json.dumps(facts)})
        with atomic_file(path) as temporary:
            pq.write_table(table, temporary)

    @classmethod
    def load(cls, path: str | Path) -> Selection:
        """A saved selection. Raises InputError where the file is not one."""
        try:
            table = pq.read_table(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{path} is not a selection saved by tarot: {error}") from error
        metadata = table.schema.metadata or {}
        if metadata.get(b"format", b"").decode() != _FORMAT:
            raise InputError(f"{path} is a parquet file, but not a selection saved by tarot ({_FORMAT})")
        facts = json.loads(metadata[b"selection"])
        column = {name: table[name].to_numpy() for name in table.column_names}
        selection = cls(
            column["index"], facts["n"], facts["m"], facts["selector"], column.get("id"), facts["curve"], facts["total"]
        )
        selection._remember("weights", column["weight"])
        selection._remember("potentials", column["potential"])
        selection._remember("nearest_target", column["nearest_target"])
        selection._remember("nearest_distance", column["nearest_distance"])
        selection._remember("ot_bracket", Bracket(*facts["ot_bracket"]))
        selection._remember("lower_bound", facts["lower_bound"])
        return selection
