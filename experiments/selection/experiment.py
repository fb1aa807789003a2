"""The main job: select, train on the selection, evaluate, beside the arms that a reader compares with."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import nn

from experiments.frame.methods import method, refuse_lacking, refuse_on
from experiments.frame.repetitions import Repetition, training_seed
from experiments.frame.run import Run, has_model
from experiments.frame.trainings import evaluate_all, train_all
from experiments.report import (
    Arm,
    Figure,
    Interval,
    Result,
    Table,
    Tile,
    explain,
    figures,
    mean_interval,
    pictures,
    precision,
    selected_by_source,
    sources_of,
)
from tarot import InputError, Selection
from tarot.common import Count, Natural, check_options, no_such, resolve_device
from tarot.selectors import SELECTORS
from tarot.space import Space
from tasks.task import DrawsPredictions, Task, TaskData

log = logging.getLogger("tarot")
Scores = dict[str, dict[str, Interval]]  # arm -> metric -> over trainings; empty where the task has no model


@dataclass(frozen=True)
class SelectionExperiment:
    """trainings: of each arm, with seeds of their own, over which the intervals are; 0 ends with the selection. arms:
    selectors to compare with, at the size that the run's own chose. total: what its weights sum to. tsne_points:
    candidates drawn."""

    task_type: ClassVar = TaskData  # any; without a model it ends after the selection
    unused: ClassVar[frozenset[str]] = frozenset()

    trainings: Natural = 5
    arms: Sequence[str] = ()
    total: Count | None = None
    tsne_points: Natural = 1500

    def __post_init__(self) -> None:
        check_options(self, "experiment")
        unknown = sorted(set(self.arms) - set(SELECTORS))
        if unknown:
            raise InputError(f"experiment.arms: {no_such('selector', unknown[0], sorted(SELECTORS))}")

    def run(self, run: Run) -> Result:
        refuse_lacking("selector", run.name["selector"], run.selector, run.task)
        for name in self.arms:
            refuse_lacking("experiment.arms", name, SELECTORS[name], run.task)
            if has_model(run):
                refuse_on("experiment.arms", name, run.recipe)
        if self.trainings and has_model(run) and not run.task.ids("test"):
            raise InputError(
                f"experiment.trainings={self.trainings}, and nothing is held out to judge models by: give it files "
                "(task.test, or task.data.test) or a share of the targets (task.held_out), where the task has such an "
                "option, or end with the selection (experiment.trainings=0)"
            )
        features = run.features()
        arms = self._select(run)
        scores = self._train(run, arms) if self.trainings and has_model(run) else {}
        with run.clock("figures"):
            drawn = self._figures(run, arms, scores)
        return Result(
            title=f"{run.name['task']}, {run.name['selector']}",
            metrics={**_metrics(run, arms, scores, self._how()), "features": features.facts()},
            summary=_summary(run, arms, scores),
            tiles=_tiles(run, arms, scores),
            tables=[_table(run, arms, scores, self._how()), *_source_table(run, arms)],
            figures=drawn,
            made_of={"features": features.fingerprint, "experiment": run.config["experiment"]},
        )

    def _how(self) -> str:
        return explain(self.trainings, "training seed") if self.trainings else "Nothing was trained."

    def _select(self, run: Run) -> dict[str, Selection]:
        """The run's own selection, and the other arms at its size."""
        own = run.name["selector"]
        chosen = {own: run.select(self.total)}
        size = len(chosen[own])
        others = [name for name in dict.fromkeys(self.arms) if name != own and (size or SELECTORS[name].reference)]
        if others:
            with run.clock("other arms"):
                chosen |= {_label(run, name): self._arm(run, name, size) for name in others}
        return chosen

    def _arm(self, run: Run, name: str, size: int) -> Selection:
        """Another selector's choice of this size. Raises InputError with its name where it refuses."""
        try:
            return run.bench.select(method(name, {}, run.seed, size=size))
        except InputError as error:
            raise InputError(f"experiment.arms: {name}: {error}") from error

    def _train(self, run: Run[Task], arms: dict[str, Selection]) -> Scores:
        """The task's metrics of models trained on each arm."""
        of_each = ", ".join(f"{name} ({len(selection):,} candidates)" for name, selection in arms.items())
        log.info("to train: %d models, %d on each of %s", len(arms) * self.trainings, self.trainings, of_each)
        alone = [Repetition(run.seed, run.task, {run.name["features"]: run.bench}, {})]
        chosen = {name: [selection] * self.trainings for name, selection in arms.items()}
        (outcomes,) = evaluate_all(run, alone, train_all(run, alone, [chosen]))
        return {
            name: {metric: mean_interval([outcome[metric] for outcome in found]) for metric in found[0]}
            for name, found in outcomes.items()
        }

    def _figures(self, run: Run, arms: dict[str, Selection], scores: Scores) -> list[Figure]:
        own = arms[run.name["selector"]]
        problem = run.bench.problem()
        headline = _headline(scores)
        drawn: list[Figure] = []
        if isinstance(run.task, Task) and headline:
            results = {name: score[headline] for name, score in scores.items()}
            drawn.append(pictures.overview(run.task, own, headline, results, self._how(), run.seed))
            if isinstance(run.task, DrawsPredictions):
                drawn.append(pictures.predictions(run.task, self._before_and_after(run, arms), run.seed))
        tags, sources = run.task.candidate_tags(), sources_of(run.task)
        if tags is not None and len(own):
            drawn.append(figures.tags(tags, own))
        if sources is not None and len(own):
            drawn.append(figures.sources(sources, own))
        known = {name: selection for name, selection in arms.items() if len(selection)}
        if known:
            drawn.append(
                figures.certificate(
                    {name: selection.ot_distance for name, selection in known.items()},
                    {name: selection.lower_bound for name, selection in known.items()},
                )
            )
        drawn.append(figures.embedding(problem, own, self.tsne_points, run.seed))
        if isinstance(run.task, Task):
            drawn.append(pictures.neighbours(run.task, problem, own, run.seed))
        if len(own):
            drawn.append(figures.weights(own))
        curve = own.curve or {}
        if "held_out" in curve:
            drawn.append(figures.held_out_curve(curve))
        if "ot_by_layer" in curve:
            drawn.append(figures.layer_curves(curve["ot_by_layer"]))
        return drawn

    def _before_and_after(self, run: Run, arms: dict[str, Selection]) -> dict[str, nn.Module]:
        """The model of a random selection, or the surrogate where there is none; and that of the run's own."""

        def model(name: str) -> nn.Module:
            return run.bench.trained_model(run.bench.train(arms[name], training_seed(run.seed, 0)))

        own = run.name["selector"]
        if "random" in arms and own != "random":
            return {"random": model("random"), own: model(own)}
        surrogate = run.task.model()
        surrogate.load_state_dict(dict(run.task.checkpoints()[-1].state))
        return {"surrogate": surrogate.to(resolve_device(run.device)).eval(), own: model(own)}


def _elsewhere(run: Run, name: str) -> bool:
    """Whether a selector looks at other features in this run than its method's own recipe."""
    return isinstance(run.task, Task) and SELECTORS[name].features not in (None, run.name["features"])


def _label(run: Run, name: str) -> str:
    """An arm by its selector, and by what it was made on where that is not what its name says."""
    return str(Arm(name, features=run.name["features"] if _elsewhere(run, name) else None))


def _made_in(run: Run, arm: str, selection: Selection) -> str | None:
    """The features and the space that an arm was chosen in; None where it looked at none."""
    if SELECTORS[arm.partition(" on ")[0]].features is None:
        return None
    return ", ".join([run.name["features"], *([] if selection.space is None else [selection.space.name])])


def _headline(scores: Scores) -> str | None:
    """The metric that the task names first."""
    return next(iter(next(iter(scores.values()), {})), None)


def _facts(task: TaskData, selection: Selection) -> dict[str, Any]:
    sources = sources_of(task)
    return {
        "size": len(selection),
        "ratio": len(selection) / selection.n,
        "ot_distance": selection.ot_distance,
        "lower_bound": selection.lower_bound,
        "space": None if selection.space is None else selection.space.as_dict(),
        **({} if task.candidate_tags() is None else {"precision": precision(task, selection)}),
        **({} if sources is None else {"sources": selected_by_source(sources, selection)}),
    }


def _metrics(run: Run, arms: dict[str, Selection], scores: Scores, how: str) -> dict[str, Any]:
    def of_arm(name: str) -> dict[str, Any]:
        return {
            "metrics": {metric: score.mean for metric, score in scores.get(name, {}).items()},
            "intervals": {metric: [score.low, score.high] for metric, score in scores.get(name, {}).items()},
            "selection": {**_facts(run.task, arms[name]), "made_in": _made_in(run, name, arms[name])},
        }

    own = run.name["selector"]
    others = {name: of_arm(name) for name in arms if name != own}
    return {**of_arm(own), "interval": how, "arms": others}


def _gap(selection: Selection) -> str:
    distance, bound = selection.ot_distance, selection.lower_bound
    return f"{distance / bound - 1:+.1%}" if bound > 0 else "–"


def _tiles(run: Run, arms: dict[str, Selection], scores: Scores) -> list[Tile]:
    name = run.name["selector"]
    own, headline, tiles = arms[name], _headline(scores), []
    if headline:
        score = scores[name][headline]
        interval = (
            f"95% interval {score.low:.3f} – {score.high:.3f}"
            if score.known
            else f"mean of {max(1, len(score.values))}"
        )
        tiles.append(Tile(headline, f"{score.mean:.3f}", interval))
    tiles.append(Tile("selected", f"{len(own):,}", f"of {own.n:,} candidates ({len(own) / own.n:.1%})"))
    share = precision(run.task, own)
    if share is not None:
        base = float(np.mean(run.task.candidate_tags() == "target"))
        tiles.append(Tile("precision", f"{share:.0%}", f"resemble the targets; {base:.0%} of the pool do"))
    if len(own):
        tiles.append(
            Tile("OT distance", f"{own.ot_distance:.3f}", f"{_gap(own)} above the lower bound {own.lower_bound:.3f}")
        )
    if own.space is not None:
        tiles.append(Tile("space", own.space.name, _why(own.space)))
    return tiles


def _why(space: Space) -> str:
    """For a person: how the space came about."""
    if space.agreement is None:
        return "chosen: there are too few targets to ask them" if space.chosen else "given"
    repeated = space.repetition or {}
    found = "; ".join(f"{name} {value:.2f} + {repeated.get(name, 0):.2f}" for name, value in space.agreement.items())
    return f"in which targets agree best on candidates (they find one another + halves select the same): {found}"


def _table(run: Run, arms: dict[str, Selection], scores: Scores, how: str) -> Table:
    metrics = list(next(iter(scores.values()), {}))[:2]
    tagged = run.task.candidate_tags() is not None

    elsewhere = any(_elsewhere(run, name.partition(" on ")[0]) for name in arms)

    def row(name: str) -> list[str]:
        selection, share = arms[name], precision(run.task, arms[name])
        cells = [name, *(str(scores[name][metric]) for metric in metrics), f"{len(selection):,}"]
        cells[1:1] = [_made_in(run, name, selection) or "–"] if elsewhere else []
        cells += [f"{share:.0%}" if share is not None else "–"] if tagged else []
        known = len(selection) > 0
        return cells + (
            [f"{selection.ot_distance:.3f}", f"{selection.lower_bound:.3f}", _gap(selection)] if known else ["–"] * 3
        )

    columns = [
        "",
        *(["made in"] if elsewhere else []),
        *metrics,
        "selected",
        *(["precision"] if tagged else []),
        "OT distance",
        "lower bound",
        "gap",
    ]
    space = arms[run.name["selector"]].space
    spaces = [] if space is None else [f"OT distances are in one space: {run.name['features']}, {space.name}."]
    caption = " ".join([*([how] if metrics else []), *spaces])
    return Table("Comparison", caption, columns, [row(name) for name in arms], strong=0)


def _source_table(run: Run, arms: dict[str, Selection]) -> list[Table]:
    """How much of each dataset the run's own selection has; of the other arms, their shares."""
    sources = sources_of(run.task)
    if sources is None:
        return []
    found = {name: selected_by_source(sources, selection) for name, selection in arms.items()}
    own, *others = found

    def row(source: str) -> list[str]:
        facts = found[own][source]
        counts = [f"{facts['candidates']:,}", _percent(facts["share_of_candidates"]), f"{facts['selected']:,}"]
        shares = [_percent(found[name][source]["share_of_selected"]) for name in (own, *others)]
        return [source, *counts, shares[0], _percent(facts["selected"] / facts["candidates"]), *shares[1:]]

    columns = ["", "candidates", "share", "selected", "share of the selected", "selected of it"]
    caption = "Where the selected come from, in candidates, not in weight. Of other arms: shares of what they select."
    rows = [row(source) for source in found[own]]
    return [Table("Selected share by dataset", caption, [*columns, *others], rows)]


def _percent(share: float) -> str:
    return "–" if np.isnan(share) else f"{share:.1%}"


def _summary(run: Run, arms: dict[str, Selection], scores: Scores) -> str:
    name = run.name["selector"]
    own, headline = arms[name], _headline(scores)
    words = f"{name} selects {len(own):,} of {own.n:,} candidates for {own.m:,} targets"
    if not headline:
        return f"{words}."
    others = [f"{scores[other][headline].mean:.3f} with {other}" for other in arms if other != name]
    beside = f" ({', '.join(others)})" if others else ""
    reached = f"{words}; models trained on them reach {headline} {scores[name][headline].mean:.3f}{beside}."
    note = run.recipe.note(run.task.surrogate_optimizer()) if has_model(run) else None
    return f"{reached} {note}" if note else reached
