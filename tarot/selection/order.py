"""Orders in which nothing depends on where rows stand."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tarot.common import InputError
from tarot.features import Rows
from tarot.space import content_order


def falling(
    values: NDArray[np.floating],
    candidates: NDArray[np.int64],
    ordered: Callable[[NDArray[np.int64]], NDArray[np.int64]],
) -> NDArray[np.int64]:
    """These candidates (different ones) by falling value [k], int64 [k]. Those of equal value, and they alone, are put
    in the order that `ordered` gives them."""
    by_value = np.argsort(-values, kind="stable")
    found, falls = candidates[by_value], values[by_value]
    same = np.flatnonzero(falls[1:] == falls[:-1])
    if not len(same):
        return found
    tied = np.union1d(same, same + 1)
    place = np.zeros(len(found), dtype=np.int64)
    in_order = ordered(found[tied])
    by_index = np.argsort(in_order)
    place[tied] = by_index[np.searchsorted(in_order[by_index], found[tied])]
    return found[np.lexsort((place, -falls))]


def codes(values: NDArray[Any] | None) -> list[NDArray[np.int64]]:
    """The sorted place of each value among the different ones, as a list of one; of none where there are no values."""
    if values is None:
        return []
    if values.dtype == object:
        values = values.astype(str)
    return [np.unique(values, return_inverse=True)[1].astype(np.int64)]


class InOrder:
    """What has candidates and targets, and orders of them in which nothing depends on where they stand."""

    candidate_views: tuple[Rows, ...]
    target_views: tuple[Rows, ...]
    candidate_ids: NDArray[Any] | None
    candidate_labels: NDArray[Any] | None
    target_labels: NDArray[Any] | None
    target_groups: NDArray[Any] | None

    @cached_property
    def candidate_order(self) -> NDArray[np.int64]:
        """All candidates, by id; where there are no ids by content, and equals as they stand: int64 [N]. Without ids
        all features are read."""
        if self.candidate_ids is not None:
            return np.argsort(self.candidate_ids, kind="stable").astype(np.int64, copy=False)
        return content_order(self.candidate_views, "candidates", None, codes(self.candidate_labels))

    @cached_property
    def target_order(self) -> NDArray[np.int64]:
        """All targets by content: int64 [M]."""
        ties = [*codes(self.target_labels), *codes(self.target_groups)]
        return content_order(self.target_views, "targets", None, ties)

    @cached_property
    def candidate_places(self) -> NDArray[np.int64]:
        """Where each candidate stands in `candidate_order`: int64 [N]."""
        return np.argsort(self.candidate_order)

    def ordered(self, candidates: NDArray[np.int64]) -> NDArray[np.int64]:
        """These candidates in the order of `candidate_order`, for which their own features are read alone: int64 [k].

        What is drawn, and what a solver is given, is in this order: permuting candidates permutes the choice."""
        if self.candidate_ids is not None or "candidate_order" in vars(self):
            return candidates[np.argsort(self.candidate_places[candidates])]
        if not len(candidates):
            return candidates
        own = np.sort(candidates)
        labels = None if self.candidate_labels is None else self.candidate_labels[own]
        return content_order(self.candidate_views, "candidates", own, codes(labels))

    def ranked(self, values: NDArray[np.floating], candidates: NDArray[np.int64]) -> NDArray[np.int64]:
        """These candidates by falling value [k], ties in the order of `candidate_order`: int64 [k]. Raises InputError
        where there is not one value for each of them, or one is NaN, which has no rank."""
        if np.shape(values) != candidates.shape:
            raise InputError(
                f"values must be one for each of {len(candidates)} candidates; their shape is {np.shape(values)}"
            )
        if np.isnan(values).any():
            first = int(candidates[np.isnan(values)][0])
            raise InputError(
                f"values must be numbers, by which candidates are ranked; that of candidate {first} is NaN"
            )
        return falling(values, candidates, self.ordered)
