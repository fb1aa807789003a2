"""What a comparison of selections found: its arms, what each selected, and what models made of it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np

from experiments.report.statistics import Interval, explain_repetitions, mean_interval, over_repetitions
from tarot import InputError, Selection
from tarot.selectors import REFERENCES
from tasks.task import Task, TaskData

UNTRAINED = "untrained"  # the arm of a model that has learnt nothing
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Arm:
    """at: the ratio it is given; or the selector that chose the size for it; None: it has its own. features: that it
    looks at, where they are not known from the selector's name."""

    selector: str
    at: float | str | None = None
    features: str | None = None

    @property
    def reference(self) -> bool:
        """Whether it is there to be compared with."""
        return self.selector in (*REFERENCES, UNTRAINED)

    @property
    def name(self) -> str:
        """Without its size."""
        return self.selector if self.features is None else f"{self.selector} on {self.features}"

    def __str__(self) -> str:
        if isinstance(self.at, str):
            return f"{self.name}, as many as {self.at}"
        return self.name if self.at is None else f"{self.name}, {100 * self.at:.3g}%"


@dataclass(frozen=True, eq=False)
class Outcome:
    """Of one arm in one repetition. distance: of its selection to the targets, in the space common to all arms.
    metrics: the task's, one for each training."""

    task: Task
    selection: Selection
    distance: float
    metrics: Sequence[Mapping[str, float]]

    def fact(self, name: str) -> float:
        """`size`, `ratio`, `ot_distance` or `precision`; NaN where there is none."""
        if name == "precision":
            share = precision(self.task, self.selection)
            return float("nan") if share is None else share
        size = len(self.selection)
        return {"size": size, "ratio": size / self.selection.n, "ot_distance": self.distance}[name]


@dataclass(frozen=True, eq=False)
class Outcomes(Generic[Key]):
    """outcomes: of each arm, one for each repetition.

    What intervals are over, and what is compared pair by pair: repetitions, or the trainings of a single one.
    """

    outcomes: Mapping[Key, Sequence[Outcome]]

    @property
    def arms(self) -> list[Key]:
        return list(self.outcomes)

    @cached_property
    def first(self) -> Sequence[Outcome]:
        return next(iter(self.outcomes.values()))

    @cached_property
    def metric_names(self) -> list[str]:
        """Those that every model has, the headline metric first."""
        every = [metrics for of_arm in self.outcomes.values() for one in of_arm for metrics in one.metrics]
        return [name for name in every[0] if all(name in metrics for metrics in every)]

    @property
    def headline(self) -> str:
        return self.metric_names[0]

    def metrics(self, further: Sequence[str]) -> list[str]:
        """The headline and those that an experiment names beside it. Raises InputError for one that there is not."""
        refuse_unknown_metrics(self.first[0].task.name, further, self.metric_names)
        return list(dict.fromkeys([self.headline, *further]))

    @property
    def how(self) -> str:
        return explain_repetitions(len(self.first), len(self.first[0].metrics))

    def numbers(self, arm: Key, metric: str) -> np.ndarray:
        """One for each repetition, or for each training of a single one."""
        return over_repetitions(np.array([[metrics[metric] for metrics in one.metrics] for one in self.outcomes[arm]]))

    def score(self, arm: Key, metric: str | None = None) -> Interval:
        return mean_interval(self.numbers(arm, metric or self.headline))

    def difference(self, arm: Key, other: Key, metric: str | None = None) -> Interval:
        """How far a metric (default: the headline) of `arm` is above that of `other`, pair by pair."""
        metric = metric or self.headline
        return mean_interval(self.numbers(arm, metric) - self.numbers(other, metric))

    def ahead(self, arm: Key, other: Key) -> int:
        """In how many pairs the headline metric of `arm` is better than that of `other`."""
        sign = -1 if self.lower_is_better() else 1
        return int((sign * self.numbers(arm, self.headline) > sign * self.numbers(other, self.headline)).sum())

    def lower_is_better(self, metric: str | None = None) -> bool:
        return self.first[0].task.lower_is_better(metric or self.headline)

    def facts(self, arm: Key, name: str) -> np.ndarray:
        """Of the selection, one number for each repetition."""
        return np.array([one.fact(name) for one in self.outcomes[arm]], dtype=np.float64)

    def fact(self, arm: Key, name: str) -> Interval:
        return mean_interval(self.facts(arm, name))

    @property
    def tagged(self) -> bool:
        return self.first[0].task.candidate_tags() is not None

    @property
    def pool_precision(self) -> float:
        """Share of the pool that resembles the targets; mean over repetitions."""
        return float(np.mean([np.mean(one.task.candidate_tags() == "target") for one in self.first]))


@dataclass(frozen=True, eq=False)
class Findings(Outcomes[Arm]):
    """sized: selectors that are told how many to select."""

    sized: Sequence[str]

    @property
    def selectors(self) -> list[str]:
        return list(dict.fromkeys(arm.selector for arm in self.outcomes))

    @property
    def of_own_size(self) -> list[Arm]:
        """Of selectors that choose one."""
        return [arm for arm in self.outcomes if arm.at is None and not arm.reference]

    def counterpart(self, arm: Arm, selector: str) -> Arm | None:
        """The arm of `selector` that is as large as `arm`, on the same features or on none, or the one that it has;
        None where there is none."""
        at = arm.selector if arm in self.of_own_size else arm.at
        same = Arm(selector, at, arm.features), Arm(selector, at), Arm(selector)
        found = next((one for one in same if one in self.outcomes), None)
        return None if found == arm else found


def refuse_unknown_metrics(task: str, further: Sequence[str], there: Sequence[str]) -> None:
    for name in further:
        if name not in there:
            raise InputError(f"experiment.metrics: {task} has no metric {name!r}; it has {', '.join(there)}")


def precision(task: TaskData, selection: Selection) -> float | None:
    """Which share of the selected resembles the targets; None without tags or without a selection."""
    tags = task.candidate_tags()
    return None if tags is None or not len(selection) else float(np.mean(tags[selection.indices] == "target"))


def sources_of(task: TaskData) -> np.ndarray | None:
    """The dataset of each candidate, str [N], where there are several."""
    sources = task.candidate_sources()
    return None if sources is None or len(np.unique(sources)) < 2 else sources


def selected_by_source(sources: np.ndarray, selection: Selection) -> dict[str, dict[str, float]]:
    """How much of each dataset (str [N]) is selected; shares of the selected are NaN where nothing is."""
    chosen = sources[selection.indices]
    return {
        name: {
            "candidates": int(np.sum(sources == name)),
            "selected": int(np.sum(chosen == name)),
            "share_of_candidates": float(np.mean(sources == name)),
            "share_of_selected": float(np.mean(chosen == name)) if len(chosen) else float("nan"),
        }
        for name in dict.fromkeys(sources.tolist())
    }
