"""How well valuation finds corrupted candidates, and what it is worth to leave out those of lowest value."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from experiments.corruption.case import Case
from experiments.corruption.pruning import Incremental, Prune
from experiments.corruption.report import Findings, Found, result
from experiments.frame.methods import features_of, known, method, refuse
from experiments.frame.repetitions import repeated
from experiments.frame.run import Run
from experiments.report import Result
from experiments.stages import OF_ONE_RECIPE, FeatureRecipe
from tarot import InputError
from tarot.attribution import detection
from tarot.common import Count, check_options, progress, within
from tarot.selectors import SELECTORS, Selector, Valuing
from tasks.classification.corruption import FRACTIONS
from tasks.classification.domain_task import DomainTask

log = logging.getLogger("tarot")


@dataclass(frozen=True)
class CorruptionExperiment:
    """conf/experiment/corruption.yaml says what each option means."""

    task_type: ClassVar = DomainTask  # it has the domain of corrupted images
    unused: ClassVar[frozenset[str]] = frozenset({"selector", "selector.*", *OF_ONE_RECIPE})

    methods: Sequence[str]
    recipes: Mapping[str, FeatureRecipe]
    options: Mapping[str, Mapping[str, Any]] | None = None
    kinds: Sequence[str] = tuple(FRACTIONS)
    fraction: Annotated[float, within("(0, 1)")] | None = None
    seeds: Count = 3
    prune: Prune | None = None
    incremental: Incremental | None = None

    def __post_init__(self) -> None:
        check_options(self, "experiment")
        if not self.methods or not self.kinds:
            raise InputError("experiment.methods and experiment.kinds must each name one or more")
        known("experiment.methods", self.methods, valuation_methods())
        known("experiment.options", self.options or {}, self.methods)
        known("experiment.kinds", self.kinds, FRACTIONS)
        for name, retraining in (("prune", self.prune), ("incremental", self.incremental)):
            if retraining is not None:
                known(f"experiment.{name}.kinds", retraining.kinds, self.kinds)
                known(f"experiment.{name}.methods", retraining.methods, self.methods)
        self._methods(0)  # options that a method does not take are said before anything is computed

    def run(self, run: Run[DomainTask]) -> Result:
        refuse("experiment.methods", self.methods, self.recipes, run.task)
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
            with run.outputs.file(f"values/{name}.parquet") as temporary:
                pq.write_table(table, temporary)
        with run.clock("figures"):
            return result(run, found, self.prune, self.incremental)

    def _methods(self, seed: int) -> dict[str, Selector]:
        return {name: method(name, (self.options or {}).get(name, {}), seed) for name in self.methods}

    def _cases(self, run: Run[DomainTask], found: Findings) -> Iterator[Case]:
        """One kind after another, each with every seed, built when it is its turn."""
        wanted = dict.fromkeys(features_of(name) for name in self.methods)
        for kind in dict.fromkeys(self.kinds):
            log.info("%s", kind)
            corrupted = {"kind": kind} | ({} if self.fraction is None else {"fraction": self.fraction})
            for one in repeated(run, self.seeds, self.recipes, wanted, domain="corrupted", corrupted=corrupted):
                for name, bench in one.benches.items():
                    facts = bench.features().facts() | {"seconds": one.seconds[name]}
                    found.recipes.setdefault(name, []).append(facts)
                yield Case(kind, one, self._methods(one.seed))

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
    return sorted(name for name, kind in SELECTORS.items() if issubclass(kind, Valuing))
