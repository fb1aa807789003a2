"""How well valuation finds corrupted candidates, and what it is worth to leave out those of lowest value."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, ClassVar

import hydra
import pyarrow as pa
import pyarrow.parquet as pq

from experiments.case import Case
from experiments.corruption_report import Findings, Found, result
from experiments.features import FeatureRecipe, Features, gradient_features
from experiments.pruning import Incremental, Prune
from experiments.report import Result
from experiments.run import Run
from experiments.valuation import computed_in
from tarot import InputError
from tarot.detection import detection
from tarot.files import atomic_file
from tarot.progress import progress
from tarot.selectors import SELECTORS, Selector
from tasks.classification.corruption import FRACTIONS
from tasks.classification.domain_task import DomainTask

log = logging.getLogger("tarot")


@dataclass(frozen=True)
class CorruptionExperiment:
    """conf/experiment/corruption.yaml says what each option means."""

    task_type: ClassVar = DomainTask  # it has the domain of corrupted images

    methods: Sequence[str]
    recipes: Mapping[str, FeatureRecipe]
    options: Mapping[str, Mapping[str, Any]] | None = None
    kinds: Sequence[str] = tuple(FRACTIONS)
    fraction: float | None = None
    seeds: int = 3
    prune: Prune | None = None
    incremental: Incremental | None = None

    def __post_init__(self) -> None:
        if not self.methods or not self.kinds:
            raise InputError("experiment.methods and experiment.kinds must each name one or more")
        _known("experiment.methods", self.methods, valuation_methods())
        _known("experiment.options", self.options or {}, self.methods)
        _known("experiment.kinds", self.kinds, FRACTIONS)
        if isinstance(self.seeds, bool) or not isinstance(self.seeds, int) or self.seeds < 1:
            raise InputError(f"experiment.seeds must be a positive integer; it is {self.seeds!r}")
        if self.fraction is not None and not 0 < self.fraction < 1:
            raise InputError(f"experiment.fraction must be between 0 and 1, or null; it is {self.fraction!r}")
        for name, retraining in (("prune", self.prune), ("incremental", self.incremental)):
            if retraining is not None:
                _known(f"experiment.{name}.kinds", retraining.kinds, self.kinds)
                _known(f"experiment.{name}.methods", retraining.methods, self.methods)
        self._methods(0)  # options that a method does not take are said before anything is computed

    def run(self, run: Run) -> Result:
        self._refuse(run)
        found = Findings(self.seeds)
        retrainings = {"prune": self.prune, "incremental": self.incremental}
        for case in self._cases(run, found):
            with run.clock("value"):
                self._value(case, found)
            asked = {name: one for name, one in retrainings.items() if one is not None and case.kind in one.kinds}
            total = sum(one.trainings for one in asked.values())
            with run.clock("train"), progress(f"{case.kind}, seed {case.seed}", total, "models") as advance:
                for name, retraining in asked.items():
                    found.retrained[name].setdefault(case.kind, []).append(retraining.run(case, advance))
        for name, table in found.values.items():
            with atomic_file(run.output / "values" / f"{name}.parquet") as temporary:
                pq.write_table(table, temporary)
        with run.clock("figures"):
            return result(run, found, self.prune, self.incremental)

    def _refuse(self, run: Run) -> None:
        """Requirements that can be known before a model is trained. Raises InputError by method."""
        for name in self.methods:
            recipe = SELECTORS[name].features
            if recipe not in self.recipes:
                raise InputError(
                    f"{name} wants the features {recipe!r}, which experiment.recipes has not: {', '.join(self.recipes)}"
                )
            optimizer = run.task.training.optimizer
            if self.recipes[recipe].preconditioner and not optimizer.startswith("adam"):
                raise InputError(
                    f"{name} needs Adam's moments in the surrogates' checkpoints, and task.train.optimizer is "
                    f"{optimizer}: set task.train.optimizer=adamw, or leave {name} out of experiment.methods"
                )

    def _methods(self, seed: int) -> dict[str, Selector]:
        return {name: _method(name, (self.options or {}).get(name, {}), seed) for name in self.methods}

    def _cases(self, run: Run, found: Findings) -> Iterator[Case]:
        """One kind after another, each with every seed, built when it is its turn."""
        for kind, repetition in product(dict.fromkeys(self.kinds), range(self.seeds)):
            seed = run.seed + repetition
            corrupted = {"kind": kind} | ({} if self.fraction is None else {"fraction": self.fraction})
            changes = {"domain": "corrupted", "corrupted": corrupted, "seed": seed}
            task = hydra.utils.instantiate(run.config["task"], **changes)
            log.info("%s, seed %d: %d candidates", kind, seed, len(task.candidates()))
            methods = self._methods(seed)
            wanted = dict.fromkeys(method.features for method in methods.values())
            recipes = {
                name: replace(self.recipes[name], projection_seed=self.recipes[name].projection_seed + repetition)
                for name in wanted
            }
            with run.clock("checkpoints"):
                checkpoints = task.checkpoints()
            features: dict[str, Features] = {}
            with run.clock("features"):
                for name, recipe in recipes.items():
                    start = time.perf_counter()
                    made = gradient_features(task, checkpoints, recipe, run.cache, run.config["device"])
                    took = computed_in(made, time.perf_counter() - start, run.cache)
                    found.recipes.setdefault(name, []).append(made.facts() | {"seconds": took})
                    features[name] = made
            yield Case(kind, seed, task, recipes, features, methods, run.config["device"], run.cache)

    def _value(self, case: Case, found: Findings) -> None:
        """Every method's values, and how well they detect."""
        columns: dict[str, Any] = {
            "id": case.task.ids("candidates"),
            "label": case.task.labels("candidates"),
            "tag": case.task.candidate_tags().tolist(),
        }
        for name in self.methods:
            valued = case.value(name)
            columns[name] = valued.values
            found.methods.append(Found(name, case.kind, detection(valued.values, case.corrupted), valued.seconds))
        found.fractions.setdefault(case.kind, []).append(float(case.corrupted.mean()))
        found.values[f"{case.kind}-seed{case.seed}"] = pa.table(columns)
        found.first.setdefault(case.kind, case)


def valuation_methods() -> list[str]:
    """Names of the methods that give every candidate a value."""
    return sorted(name for name, kind in SELECTORS.items() if hasattr(kind, "values"))


def _known(where: str, given: Any, allowed: Any) -> None:
    """Raises InputError where something given is not allowed, or given twice."""
    for name in given:
        if name not in allowed:
            raise InputError(f"{where} names {name!r}; there are {', '.join(allowed)}")
    if len(set(given)) < len(list(given)):
        raise InputError(f"{where} names something twice: {', '.join(given)}")


def _method(name: str, options: Mapping[str, Any], seed: int) -> Selector:
    """With the repetition's seed, where the method has one and the options do not."""
    kind = SELECTORS[name]
    seeded = {"seed": seed} if "seed" in {field.name for field in dataclasses.fields(kind)} else {}
    try:
        return kind(**{**seeded, **options})
    except TypeError as error:
        raise InputError(f"experiment.options.{name}: {error}") from error
