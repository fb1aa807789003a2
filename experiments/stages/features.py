"""What a selector is given of the samples: views of candidates and targets, and what is to be said about them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from tarot import InputError
from tarot.common import fingerprint
from tarot.features import PartRows, Rows, blocks
from tasks.features.task import FeatureTask

log = logging.getLogger("tarot")
Value = TypeVar("Value")


@dataclass(frozen=True, eq=False)
class Features:
    """What a selector is given, and what is to be said about it.

    candidates, targets: one matrix per view: per independently trained model, or per checkpoint.
    fingerprint: of everything that made them. runs: which training each view belongs to.
    residuals: [N] per view (TRAK's Q), where the task has them. scores: [N] per view, of what was measured on the model
    itself. learning_rates: of each view's checkpoints. preconditioner: of the candidates' gradients. excluded:
    parameter -> why it is left out. zero: rows without a gradient, by split, in the worst view. skipped: rows left out,
    by reason.
    """

    candidates: tuple[Rows, ...]
    targets: tuple[Rows, ...]
    fingerprint: str
    runs: tuple[int, ...] = ()
    residuals: tuple[np.ndarray, ...] | None = None
    scores: tuple[np.ndarray, ...] | None = None
    learning_rates: tuple[float, ...] | None = None
    preconditioner: str | None = None
    excluded: dict[str, str] | None = None
    zero: dict[str, int] | None = None
    skipped: dict[str, int] | None = None

    @property
    def dim(self) -> int:
        return self.candidates[0].shape[1]

    def of_runs(self, count: int) -> Features:
        """The views of the first `count` independently trained models."""
        views = [view for view, run in enumerate(self.runs) if run in sorted(set(self.runs))[:count]]
        return replace(
            self,
            candidates=tuple(self.candidates[view] for view in views),
            targets=tuple(self.targets[view] for view in views),
            runs=tuple(self.runs[view] for view in views),
            residuals=_of(views, self.residuals),
            scores=_of(views, self.scores),
            learning_rates=_of(views, self.learning_rates),
        )

    def part(self, indices: np.ndarray) -> Features:
        """The same features with these candidates alone, int64 [n]."""

        def rows(vectors: tuple[np.ndarray, ...] | None) -> tuple[np.ndarray, ...] | None:
            return None if vectors is None else tuple(vector[indices] for vector in vectors)

        return replace(
            self,
            candidates=tuple(PartRows(view, indices) for view in self.candidates),
            residuals=rows(self.residuals),
            scores=rows(self.scores),
            fingerprint=fingerprint({"features": self.fingerprint, "candidates": indices.tolist()}),
        )

    def arguments(self) -> dict[str, Any]:
        """What `tarot.select` and `tarot.value` are given of them."""
        return {
            "candidates": list(self.candidates),
            "targets": list(self.targets),
            "candidate_residuals": None if self.residuals is None else list(self.residuals),
            "candidate_scores": None if self.scores is None else list(self.scores),
            "learning_rates": self.learning_rates,
        }

    def facts(self) -> dict[str, Any]:
        """What metrics.json says about features."""
        return {
            "dim": self.dim,
            "views": len(self.candidates),
            "preconditioner": self.preconditioner,
            "excluded_parameters": self.excluded or {},
            "zero_gradients": self.zero or {},
            "skipped": self.skipped or {},
        }


def _of(views: Sequence[int], values: tuple[Value, ...] | None) -> tuple[Value, ...] | None:
    """What is known of each of these views."""
    return None if values is None else tuple(values[view] for view in views)


def given_features(task: FeatureTask) -> Features:
    """The user's own feature matrices."""
    candidates, targets = task.features()
    zero = {
        split: max(_zero_rows(rows, f"task.{split}") for rows in views)
        for split, views in (("candidates", candidates), ("targets", targets))
    }
    report_zero(zero, {"candidates": candidates[0].shape[0], "targets": targets[0].shape[0]})
    recipe = fingerprint(task.recipe())
    return Features(tuple(candidates), tuple(targets), recipe, learning_rates=task.learning_rates, zero=zero)


def _zero_rows(rows: Rows, name: str) -> int:
    return sum(int((~block.any(dim=1)).sum()) for _, block in blocks(rows, name=name))


def report_zero(zero: dict[str, int], of: dict[str, int]) -> None:
    """A zero row is near to nothing. Some of them are said; raises InputError where there is nothing else."""
    for split, count in zero.items():
        if count == of[split]:
            raise InputError(f"{split}: every one of the {count} rows is zero (no gradient), so nothing can be near")
        if count:
            log.warning("warning: %d of %d %s are zero rows (no gradient) and left out", count, of[split], split)
