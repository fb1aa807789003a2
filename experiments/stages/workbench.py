"""What every experiment does with a task: features, selections, values, models and their metrics, each made once.

A result is a file, named by the fingerprint of all that made it.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import tarot
from experiments.stages.features import Features, given_features
from experiments.stages.recipe import FeatureRecipe
from experiments.stages.sources import EncodedSource, Source, Surrogate, look
from experiments.stages.views import joined, view_seed, views_of
from tarot import InputError, Selection
from tarot.api import chosen
from tarot.common import fingerprint, resolve_device
from tarot.gradients import Projection
from tarot.selection import SelectionProblem
from tarot.selectors import Selector, check_selector, described
from tarot.space import resolved
from tarot.workers import LOCAL, Workers
from tasks.common.cache import cached_arrays, checked, kept, made, read_tensors, remove_damaged, write_tensors
from tasks.common.code import parts_of, source_hash
from tasks.common.training import seeded
from tasks.features.task import FeatureTask
from tasks.task import Checkpoint, Model, SharesModels, Split, Task, TaskData, able

log = logging.getLogger("tarot")
_STAGES = ("tarot.api", "experiments.stages.features", "experiments.stages.views", __name__)
T = TypeVar("T", bound=TaskData, covariant=True)


@dataclass(frozen=True, eq=False)
class Valued:
    """values: float64 [n], higher = more valuable. seconds: that they took when they were computed, without the
    features."""

    values: np.ndarray
    seconds: float


@dataclass(frozen=True, eq=False)
class Workbench(Generic[T]):
    """A task, and the features of one recipe by which its candidates are looked at.

    cache: the folder that results are kept in. device: where models are. engine: whose workers share the work, which
    changes no result. What is trained and evaluated depends on no recipe, and asks for a task with a model. Raises
    InputError where the recipe asks for what a model in parts cannot give.
    """

    task: T
    recipe: FeatureRecipe
    cache: Path
    device: str
    engine: Workers = LOCAL
    _features: list[Features] = field(default_factory=list, init=False, repr=False)  # one, once they are there
    _problems: dict[str, SelectionProblem] = field(default_factory=dict, init=False, repr=False)  # by space and total
    _selections: dict[str, Selection] = field(default_factory=dict, init=False, repr=False)  # the last one made

    def check(self) -> None:
        """Raises InputError, before anything is trained, where the task does not give what rows are made of, or where
        they need a whole model and its weights are shared out."""
        if isinstance(self.task, Task):
            for ability in self.recipe.needs:
                able(self.task, ability)
        if isinstance(self.task, SharesModels) and self.task.sharing():
            if self.recipe.batch_size == "auto":
                raise InputError("features.batch_size must be a number where the weights of a model are shared out")
            if self.recipe.scores == "influence":
                raise InputError("features=influence needs the whole model: its weights cannot be shared out")

    def features(self, checkpoints: list[Checkpoint] | None = None) -> Features:
        """Of all candidates and targets: read from the cache, computed where they are not there yet, or the user's own.

        checkpoints: the task's, where they are at hand. They are not kept here: they may take as much memory as all
        that is trained later.
        """
        if not self._features:
            self._features.append(self._look(checkpoints))
        return self._features[0]

    def _look(self, checkpoints: list[Checkpoint] | None) -> Features:
        if isinstance(self.task, FeatureTask):
            return given_features(self.task)
        if not isinstance(self.task, Task):
            raise InputError(f"task {self.task.name} has neither features nor a model to take them of")
        if self.recipe.without_surrogates is not None:
            where = resolve_device(self.device)
            return joined([[EncodedSource(self.task, self.recipe, where).seen(self.cache, self.engine)]], self.recipe)
        return self._gradient_features(self.task, self.task.checkpoints() if checkpoints is None else checkpoints)

    def _gradient_features(self, task: Task, checkpoints: list[Checkpoint]) -> Features:
        """Where features are averaged they share a projection; views are projected independently of one another."""
        optimizer = task.surrogate_optimizer()
        recipe = self.recipe.of_optimizer(optimizer)
        if note := self.recipe.note(optimizer):
            log.info(note)
        if recipe.checkpoints == "first" and len(checkpoints) == len({c.run for c in checkpoints}):
            log.warning(
                "warning: features.checkpoints=first, and every run has one checkpoint, at its end: for one that is "
                "early ask for more (task.surrogate.checkpoints=4)"
            )
        dim = recipe.dim_for(len(task.ids("candidates")), len(task.ids("targets")))
        groups = views_of(checkpoints, recipe.aggregate, recipe.checkpoints)
        projections = [
            Projection(recipe.projection, dim, view_seed(recipe.projection_seed, view)) for view in range(len(groups))
        ]
        sources = [
            Source(task, checkpoint, recipe, projection)
            for group, projection in zip(groups, projections, strict=True)
            for checkpoint in group
        ]
        seen = iter(look(sources, self.cache, Surrogate(task, self.device), self.engine))
        return joined([[next(seen) for _ in group] for group in groups], recipe)

    def problem(self) -> SelectionProblem:
        """Candidates and targets in the space of the features, for distances and pictures: with nothing else known."""
        features = self.features()
        return SelectionProblem(
            features.candidates,
            features.targets,
            whitening=self.recipe.whitening,
            regularization=self.recipe.regularization,
            norm=self.recipe.norm,
            device=self.device,
        )

    def select(self, selector: Selector, total: int | None = None) -> Selection:
        """The selector's choice, with everything about it that takes a transport problem to know.

        total: what its weights sum to, an error where they are more; None: what the task says, or one each where a
        selection is larger than that, else the selector's own choice.
        """
        made_of = self._selection_made_of(selector, total)
        # read back even where it was just made, so that a first run and a second see the same
        path = self._path("selections", made_of, "parquet")
        return kept(path, lambda temporary: self._chosen(selector, total).save(temporary), Selection.load)

    def scores(self, selector: Selector, total: int | None = None) -> Path:
        """Where the table is of what `select` knows of every candidate (`tarot.Selection.save_scores`)."""
        path = self._path("scores", self._selection_made_of(selector, total), "parquet")

        def make(temporary: Path) -> None:
            self._chosen(selector, total).save_scores(temporary, self.task.ids("targets"))

        remove_damaged(path)
        found = made(path, make)
        self.release()
        return found

    def _chosen(self, selector: Selector, total: int | None) -> Selection:
        """As it was made, with its problem; the last one is at hand for whoever asks about it next."""
        key = fingerprint(self._selection_made_of(selector, total))
        if key not in self._selections:
            self._selections.clear()
            self._selections[key] = self._choose(selector, total)
        return self._selections[key]

    def _choose(self, selector: Selector, total: int | None) -> Selection:
        check_selector(selector)
        return chosen(selector, self._posed(selector, total))

    def _posed(self, selector: Selector, total: int | None) -> SelectionProblem:
        """What the selector chooses from: fitted and looked through once for all that share a space."""
        task, recipe = self.task, self.recipe
        at_least = task.total() if total is None else None
        whitening = resolved(recipe.whitening, recipe.regularization, selector.whitening)
        key = fingerprint({"whitening": whitening, "total": total, "at_least": at_least})
        if key not in self._problems:
            features = self.features().arguments()
            self._problems[key] = SelectionProblem(
                tuple(features.pop("candidates")),
                tuple(features.pop("targets")),
                **features,
                engine=self.engine,
                whitening=whitening,
                regularization=recipe.regularization,
                norm=recipe.norm,
                device=self.device,
                total=total if at_least is None else at_least,
                total_may_grow=at_least is not None,
                candidate_labels=task.labels("candidates"),
                target_labels=task.labels("targets"),
                target_groups=task.target_groups(),
                candidate_ids=np.asarray(task.ids("candidates")),
                candidate_tags=task.candidate_tags(),
                candidate_costs=task.candidate_costs(),
                candidate_sources=task.candidate_sources(),
                group_weights=task.target_weights(),
            )
        return self._problems[key]

    def release(self) -> None:
        """Lets go of what choosing needs and training does not: spaces and tables of neighbours."""
        self._problems.clear()
        self._selections.clear()

    def _selection_made_of(self, selector: Selector, total: int | None) -> dict[str, Any]:
        task, named = self.task, described(selector)
        at_least = task.total() if total is None else None
        known = {
            "costs": task.candidate_costs() if named.get("tokens") else None,
            "sources": task.candidate_sources() if named.get("quota") or named.get("cap") else None,
            "groups": task.target_groups() if task.target_weights() else None,
        }
        return {
            **self._made_of(self.features(), selector),
            "selector": named,
            "weights": dict(task.target_weights() or {}),
            "known": {name: fingerprint({"": values.tolist()}) for name, values in known.items() if values is not None},
            "total": total if at_least is None else {"at_least": at_least},
        }

    def distance(self, selection: Selection) -> float:
        """The OT distance of a selection to the targets in the space of these features, whichever it was made in."""
        return self.distances([selection])[0]

    def distances(self, selections: Sequence[Selection]) -> list[float]:
        """Those of several, NaN of one without candidates; the space is fitted once."""
        problems: list[SelectionProblem] = []

        def measured(selection: Selection) -> float:
            made_of = {**self._made_of(self.features()), "indices": selection.indices.tolist()}

            def make(path: Path) -> None:
                if not problems:
                    problems.append(self.problem())
                path.write_text(json.dumps(problems[0].selection(selection.indices, {}, blind=True).ot_distance))

            return float(kept(self._path("distances", made_of, "json"), make, _json))

        return [measured(selection) for selection in selections]

    def strata(self, selectors: Sequence[Selector]) -> np.ndarray:
        """In which of several growing selections each candidate is chosen first, int64 [N]; how many selectors there
        are for those that none of them chooses. Raises InputError where one does not have all that the one before it
        has: who selects so has no order."""
        made_of = {**self._made_of(self.features(), *selectors), "strata": [described(one) for one in selectors]}

        def make() -> dict[str, np.ndarray]:
            first = np.full(len(self.task.ids("candidates")), len(selectors))
            before = np.empty(0, dtype=np.int64)
            for place, selector in enumerate(selectors):
                chosen = self._choose(selector, None).indices
                if not np.isin(before, chosen).all():
                    raise InputError(
                        f"{type(selector).__name__} has no order of candidates: {len(chosen)} selected are not all of "
                        f"{len(before)} and some more"
                    )
                first[chosen] = np.minimum(first[chosen], place)
                before = chosen
            return {"first": first}

        return cached_arrays(self._path("strata", made_of, "npz"), make)["first"]

    def value(self, method: Selector, name: str, candidates: np.ndarray | None = None) -> Valued:
        """What `method` makes of the candidates (of these alone, int64 [n], where they are given).

        Raises InputError with the method's name where it refuses.
        """
        task = self.task
        features = self.features() if candidates is None else self.features().part(candidates)
        chosen = np.arange(len(task.ids("candidates"))) if candidates is None else candidates
        made_of = {**self._made_of(features, method), "method": described(method)}

        def make(path: Path) -> None:
            labels = task.labels("candidates")
            start = time.perf_counter()
            try:
                values = tarot.value(
                    **features.arguments(),
                    selector=method,
                    whitening=self.recipe.whitening,
                    regularization=self.recipe.regularization,
                    norm=self.recipe.norm,
                    candidate_ids=np.asarray(task.ids("candidates"))[chosen],
                    candidate_labels=None if labels is None else labels[chosen],
                    target_labels=task.labels("targets"),
                    target_groups=task.target_groups(),
                )
            except InputError as error:
                raise InputError(f"{name}: {error}") from error
            seconds = time.perf_counter() - start
            ids = np.asarray(task.ids("candidates"))[chosen]
            table = pa.table({"id": pa.array(ids.tolist()), "value": pa.array(values, pa.float64())})
            pq.write_table(table.replace_schema_metadata({"method": name, "seconds": f"{seconds:.4f}"}), path)

        # read back even where it was just made, so that a first run and a second see the same
        table = kept(self._path("values", made_of, "parquet", name), make, pq.read_table)
        return Valued(table["value"].to_numpy(), float(table.schema.metadata[b"seconds"]))

    def model_of(self: Workbench[Task], selection: Selection | None, seed: int) -> Path:
        """Where the downstream model is that was trained on the selection (None: on nothing at all), or will be."""
        recipe = self.task.recipe()
        learnt: dict[str, Any] = {"untrained": True}
        if selection is not None:
            learnt = {"indices": selection.indices.tolist(), "weights": selection.weights.tolist()}
        made_of = {
            "code": self._task_code(),
            "task": {key: recipe[key] for key in ("name", "data", "model", "train")},
            **learnt,
            "seed": seed,
        }
        return self._path("models", made_of, "safetensors")

    def train(self: Workbench[Task], selection: Selection | None, seed: int) -> Path:
        """Where the downstream model is that was trained on the selection, or before it learns anything: its
        state_dict."""

        def make(path: Path) -> None:
            if selection is not None:
                write_tensors(path, self.task.train(selection, seed).state_dict())
                return
            with seeded(seed):
                write_tensors(path, self.task.downstream().state_dict())

        return made(self.model_of(selection, seed), make)

    def trained_model(self: Workbench[Task[Model]], trained: Path) -> Model:
        """The model of a state_dict on disk, in eval mode. Raises InputError where the file is damaged."""
        model = self.task.downstream()
        model.load_state_dict(read_tensors(checked(trained))[0])
        return model.to(resolve_device(self.device)).eval()

    def evaluate(self: Workbench[Task], trained: Path, split: Split = "test") -> dict[str, float]:
        """The task's metrics of a trained model; the headline metric first. Other splits than test may have fewer."""

        def make(path: Path) -> None:
            path.write_text(json.dumps(self.task.evaluate(self.trained_model(trained), split)))

        return kept(self.metrics_of(trained, split), make, _json)

    def metrics_of(self: Workbench[Task], trained: Path, split: Split = "test") -> Path:
        """Where the task's metrics of a model are, or will be."""
        asked = self.task.recipe().get("evaluation")
        how = [fingerprint({"evaluation": asked, "code": self._task_code()})]
        name = "-".join([trained.stem, *([] if split == "test" else [split]), *how])
        return self.cache / "metrics" / f"{name}.json"

    def _task_code(self) -> str:
        """What trains and evaluates."""
        return source_hash(*parts_of(self.task), alone=(__name__,))

    def _made_of(self, features: Features, *methods: Selector) -> dict[str, Any]:
        """What every stage that looks at features depends on. methods: what it does with them."""
        return {
            "code": source_hash(SelectionProblem, *methods, alone=_STAGES),
            "features": features.fingerprint,
            "task": self.task.recipe()["data"],
            "space": [self.recipe.whitening, self.recipe.regularization, self.recipe.norm],
        }

    def _path(self, folder: str, made_of: dict[str, Any], suffix: str, *words: str) -> Path:
        name = "-".join([self.task.name, *words, fingerprint(made_of)])
        return self.cache / folder / f"{name}.{suffix}"


def _json(path: Path) -> Any:
    return json.loads(path.read_text())
