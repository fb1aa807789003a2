"""Views: the checkpoints that are averaged into one space, and the features that all of them make."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experiments.stages.features import Features, report_zero
from experiments.stages.recipe import FeatureRecipe
from experiments.stages.sources import Seen
from tarot.common import fingerprint
from tarot.features import FeatureStore, MeanRows, Rows
from tasks.task import Checkpoint, Split


def views_of(checkpoints: list[Checkpoint], aggregate: str, which: str = "all") -> list[list[Checkpoint]]:
    """The checkpoints whose features are averaged: those of one run (their gradients are of nearly the same weights),
    or each alone. Features of independently trained models are never averaged; their similarities are. which: all,
    or the first or last of every run."""
    kept = {"all": slice(None), "first": slice(1), "last": slice(-1, None)}[which]
    by_run = dict.fromkeys(checkpoint.run for checkpoint in checkpoints)
    groups = [[c for c in checkpoints if c.run == run][kept] for run in by_run]
    return [[c] for group in groups for c in group] if aggregate == "per_checkpoint" else groups


def view_seed(seed: int, view: int) -> int:
    """A projection seed per view; `seed + view` would give neighbouring runs the same projections."""
    return int(np.random.SeedSequence((seed, view)).generate_state(1)[0])


def joined(views: Sequence[Sequence[Seen]], recipe: FeatureRecipe) -> Features:
    """What selectors are given of them; each view is the mean over its checkpoints."""
    candidates, targets = _stores(views, "candidates"), _stores(views, "targets")
    every = [store for view in (*candidates, *targets) for store in view]
    learning_rates = tuple(float(np.mean([seen.learning_rate for seen in view])) for view in views)
    return Features(
        candidates=tuple(_mean(view) for view in candidates),
        targets=tuple(_mean(view) for view in targets),
        fingerprint=fingerprint(
            {
                "stores": [store.manifest["fingerprint"] for store in every],
                "influence": dict(recipe.influence) if recipe.scores == "influence" else None,
                "learning_rates": list(learning_rates),
            }
        ),
        runs=tuple(view[0].run for view in views),
        residuals=_column("residual", candidates),
        scores=_influences(views) or _column("error_norm", candidates),
        learning_rates=learning_rates,
        preconditioner=recipe.preconditioner,
        excluded=every[0].manifest["notes"]["excluded_parameters"],
        zero=_zero(candidates, targets),
        skipped=_skipped(every),
    )


def _stores(views: Sequence[Sequence[Seen]], split: Split) -> list[list[FeatureStore]]:
    return [[seen.stores[split] for seen in view] for view in views]


def _mean(stores: list[FeatureStore]) -> Rows:
    return stores[0] if len(stores) == 1 else MeanRows(stores)


def _column(name: str, views: list[list[FeatureStore]]) -> tuple[np.ndarray, ...] | None:
    """A column of the stores, [N] per view: the mean over its checkpoints."""
    if name not in views[0][0].columns:
        return None
    return tuple(np.mean([store.columns[name] for store in view], axis=0) for view in views)


def _influences(views: Sequence[Sequence[Seen]]) -> tuple[np.ndarray, ...] | None:
    """The same of influences."""
    known = [[seen.influences for seen in view if seen.influences is not None] for view in views]
    return tuple(np.mean(view, axis=0) for view in known) if all(known) else None


def _zero(candidates: list[list[FeatureStore]], targets: list[list[FeatureStore]]) -> dict[str, int]:
    """Rows without a gradient, by split, in the worst store. Raises InputError where there are no others."""
    by_split = {"candidates": candidates, "targets": targets}
    stores = {split: [store for view in views for store in view] for split, views in by_split.items()}
    zero = {split: max(store.manifest["zero_rows"] for store in of_split) for split, of_split in stores.items()}
    report_zero(zero, {split: of_split[0].shape[0] for split, of_split in stores.items()})
    return zero


def _skipped(stores: list[FeatureStore]) -> dict[str, int]:
    """Rows that were left out, by reason."""
    dropped = sum(int(store.columns["dropped"].sum()) for store in stores if "dropped" in store.columns)
    return {"gradient not finite": dropped} if dropped else {}
