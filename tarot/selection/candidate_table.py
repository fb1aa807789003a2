"""What a selection knows of every candidate of the pool, those included that it left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tarot.common import InputError

if TYPE_CHECKING:
    from tarot.selection.problem import SelectionProblem
    from tarot.selection.selection import Selection

_LOOKED_AT = 32  # neighbours of every target at least


def candidate_table(
    selection: Selection, problem: SelectionProblem, target_ids: Sequence[str] | None = None
) -> pa.Table:
    """One row per candidate; `Selection.save_scores` says what the columns are."""
    if target_ids is not None and len(target_ids) != problem.m:
        raise InputError(f"target_ids must name each of the {problem.m} targets; there are {len(target_ids)}")
    distance, target = problem.closest()
    layer, chosen = _layers(problem), selection.indices
    near = np.isfinite(distance)
    known = near[chosen]  # what was chosen blindly may have zero features
    distance[chosen[known]] = selection.nearest_distance[known]
    target[chosen[known]] = selection.nearest_target[known]
    selected, weight = np.zeros(problem.n, dtype=bool), np.zeros(problem.n, dtype=np.int64)
    selected[chosen], weight[chosen] = True, selection.weights
    potential = np.zeros(problem.n)
    potential[chosen] = selection.potentials
    columns = {
        "index": pa.array(np.arange(problem.n)),
        **({} if problem.candidate_ids is None else {"id": pa.array(problem.candidate_ids.tolist())}),
        "nearest_target": pa.array(target, mask=~near),
        **({} if target_ids is None else {"nearest_target_id": _named(target, target_ids, near)}),
        "nearest_distance": pa.array(distance, mask=~near),
        "layer": pa.array(layer, mask=layer == 0),
        **({} if selection.values is None else {"value": pa.array(selection.values)}),
        "selected": pa.array(selected),
        "weight": pa.array(weight),
        "potential": pa.array(potential, mask=~selected),
    }
    return pa.table(columns)


def _named(target: NDArray[np.int64], names: Sequence[str], near: NDArray[np.bool_]) -> pa.Array:
    return pa.array([names[i] if known else None for i, known in zip(target.tolist(), near.tolist(), strict=True)])


def _layers(problem: SelectionProblem) -> NDArray[np.int64]:
    """In which layer every candidate enters, from 1: the least k of which it is some target's k-th nearest; 0 where
    nobody has looked so far."""
    index = problem.neighbours(_LOOKED_AT)[1].numpy()
    nowhere = index.shape[1] + 1
    layer = np.full(problem.n, nowhere)
    ranks = np.broadcast_to(np.arange(1, nowhere), index.shape)
    np.minimum.at(layer, index[index >= 0], ranks[index >= 0])
    return np.where(layer == nowhere, 0, layer)
