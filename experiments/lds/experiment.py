"""How well attribution predicts what models trained on subsets will do: LDS of several estimators, by ensemble size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from experiments.frame.run import Run
from experiments.report import Interval, Result, Table, Tile, figures
from experiments.stages import FeatureRecipe, Features, Workbench
from tarot import InputError
from tarot.attribution import (
    BETA,
    LDS,
    RIDGE,
    choose,
    gradcos_scores,
    graddot_scores,
    lds,
    temper,
    tempered_scores,
    trak_scores,
    wfd_scores,
)
from tarot.common import Count, Natural, at_least, check_options, fingerprint, within
from tasks.common.subset_models import subset_masks, subset_outputs
from tasks.task import MeasuresSubsets, Task, able

RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
BETAS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, eq=False)
class Seen:
    """The features of some models, and their whitened similarities, which several estimators and every beta share."""

    features: Features
    _similarity: dict[float, np.ndarray] = field(default_factory=dict)

    def tempered(self, beta: float = BETA, regularization: float = RIDGE) -> np.ndarray:
        """`tempered_scores` of these features; with beta = 1, `trak_scores`."""
        f = self.features
        if regularization not in self._similarity:
            self._similarity[regularization] = tempered_scores(
                f.candidates, f.targets, beta=0, regularization=regularization
            )
        return temper(self._similarity[regularization], f.residuals, beta)

    def plain(self, scores: Callable[..., np.ndarray], **options: Any) -> np.ndarray:
        """Of an estimator that knows no residuals."""
        return scores(self.features.candidates, self.features.targets, **options)

    def wfd(self, **options: Any) -> np.ndarray:
        """`wfd_scores` of these features."""
        return self.plain(wfd_scores, **options)


@dataclass(frozen=True)
class Estimator:
    """scores: of what models saw, and options. gradient: of what. grid: options, chosen on held-back models.

    ceiling: chosen on the reported models themselves instead. No honest choice does better: something to be compared
    with, not a result.
    """

    scores: Callable[..., np.ndarray]
    gradient: Literal["loss", "measurement"]
    meaning: str
    grid: dict[str, Sequence[float]] = field(default_factory=dict)
    ceiling: bool = False


ESTIMATORS = {
    "tempered": Estimator(
        Seen.tempered,
        "measurement",
        "ours: whitened similarity times a power of the residual, ridge and power chosen on held-back models",
        {"regularization": RIDGES, "beta": BETAS},
    ),
    "tempered_default": Estimator(
        Seen.tempered, "measurement", "ours with its default ridge and power, nothing chosen"
    ),
    "trak_best": Estimator(
        partial(Seen.tempered, beta=1),
        "measurement",
        "TRAK with the ridge that is best on the reported models themselves, which nobody can know",
        {"regularization": RIDGES},
        ceiling=True,
    ),
    "trak_ridge": Estimator(
        partial(Seen.tempered, beta=1),
        "measurement",
        "TRAK with the ridge chosen on the same held-back models",
        {"regularization": RIDGES},
    ),
    "trak": Estimator(
        lambda seen: trak_scores(seen.features.candidates, seen.features.targets, seen.features.residuals),
        "measurement",
        "TRAK as published, without a ridge",
    ),
    "wfd": Estimator(Seen.wfd, "loss", "whitened feature distance as the TAROT paper prints it, with our ridge, 1e-3"),
    "wfd_ridge": Estimator(
        Seen.wfd, "loss", "the same with the ridge chosen on held-back models", {"regularization": RIDGES}
    ),
    "wfd_small_ridge": Estimator(
        partial(Seen.wfd, regularization=1e-5), "loss", "the same with a ridge of 1e-5, the number that is printed"
    ),
    "wfd_zca": Estimator(partial(Seen.wfd, whitening="zca"), "loss", "the same whitened by ZCA, not by Cholesky"),
    "wfd_unwhitened": Estimator(
        partial(Seen.wfd, whitening=None), "loss", "distance of gradients of unit norm, neither centred nor whitened"
    ),
    "wfd_unnormalised": Estimator(
        partial(Seen.wfd, normalise=False), "loss", "distance of whitened gradients of any norm"
    ),
    "wfd_neither": Estimator(
        partial(Seen.wfd, whitening=None, normalise=False), "loss", "distance of gradients as they are"
    ),
    "gradcos": Estimator(lambda seen: seen.plain(gradcos_scores), "loss", "cosine of loss gradients"),
    "graddot": Estimator(lambda seen: seen.plain(graddot_scores), "loss", "inner product of loss gradients"),
}


@dataclass(frozen=True)
class Score:
    """An estimator's LDS with this many models, or the reason why it has none; options: those that were chosen."""

    estimator: str
    models: int
    lds: LDS | None
    options: dict[str, float]
    reason: str = ""

    @property
    def interval(self) -> Interval:
        return Interval(float("nan")) if self.lds is None else Interval(self.lds.mean, self.lds.low, self.lds.high)


@dataclass(frozen=True)
class LdsExperiment:
    """conf/experiment/lds.yaml says what each option means."""

    task_type: ClassVar = Task  # that trains models of subsets
    unused: ClassVar[frozenset[str]] = frozenset({"selector", "selector.*"})

    subsets: Annotated[int, at_least(2)]  # LDS ranks them
    held_back: Annotated[int, at_least(2)]
    share: Annotated[float, within("(0, 1)")]
    repeats: Count
    ensembles: Sequence[Count]
    estimators: Sequence[str]
    bootstrap: Natural
    workers: Count | None = None

    def __post_init__(self) -> None:
        check_options(self, "experiment")
        unknown = sorted(set(self.estimators) - set(ESTIMATORS))
        if unknown or not self.estimators:
            raise InputError(f"experiment.estimators must be some of {', '.join(ESTIMATORS)}; {unknown} are not")
        if not self.ensembles:
            raise InputError("experiment.ensembles must name one or more numbers of models")

    def run(self, run: Run[Task]) -> Result:
        able(run.task, MeasuresSubsets)
        checkpoints = run.checkpoints(run.task)
        models = len({checkpoint.run for checkpoint in checkpoints})
        if max(self.ensembles) > models:
            raise InputError(
                f"an ensemble of {max(self.ensembles)} needs as many surrogates; task.surrogate.runs={models}"
            )
        with run.clock("features"):
            features = {
                gradient: Workbench(run.task, recipe, run.cache, run.device, run.engine).features(checkpoints)
                for gradient, recipe in self._recipes(run).items()
            }
        with run.clock("subset models"):
            n = len(run.task.candidates())
            masks = subset_masks(n, self.held_back + self.subsets, self.share, run.seed)
            outputs = subset_outputs(
                run.task, masks, run.cache, repeats=self.repeats, workers=self.workers, engine=run.engine
            )
        with run.clock("attribution"):
            seen = {(kind, size): Seen(features[kind].of_runs(size)) for kind in features for size in self.ensembles}
            scores = [
                self._score(name, seen[ESTIMATORS[name].gradient, size], size, masks, outputs)
                for name in self.estimators
                for size in self.ensembles
            ]
        return self._result(run, scores, features)

    def _recipes(self, run: Run) -> dict[str, FeatureRecipe]:
        """One kind of features for every gradient that is asked for."""
        wanted = dict.fromkeys(ESTIMATORS[name].gradient for name in self.estimators)
        return {gradient: replace(run.recipe, gradient=gradient) for gradient in wanted}

    def _score(self, name: str, seen: Seen, models: int, masks: np.ndarray, outputs: np.ndarray) -> Score:
        """LDS on the reported models; options are chosen on the others, but for a ceiling."""
        estimator, back = ESTIMATORS[name], self.held_back
        judges = slice(back, None) if estimator.ceiling else slice(back)
        try:
            if estimator.grid:
                choice = choose(
                    lambda **options: estimator.scores(seen, **options),
                    estimator.grid,
                    masks[judges],
                    outputs[judges],
                )
                options, values = choice.options, choice.scores
            else:
                options, values = {}, estimator.scores(seen)
        except InputError as error:  # TRAK's matrix may be singular without a ridge: said in the table
            return Score(name, models, None, {}, str(error))
        return Score(name, models, lds(values, masks[back:], outputs[back:], bootstrap=self.bootstrap), options)

    def _result(self, run: Run, scores: list[Score], features: dict[str, Features]) -> Result:
        how = (
            f"LDS: mean over {_targets(scores)} targets of the rank correlation between predicted and true outputs "
            f"of {self.subsets} models, each trained on {self.share:.0%} of the candidates. 95% intervals by bootstrap "
            f"over models and targets. Options were chosen on {self.held_back} further models, which are not reported."
        )
        largest = {s.estimator: s for s in scores if s.models == max(self.ensembles) and s.lds is not None}
        by_estimator = {
            name: [s for s in scores if s.estimator == name and s.lds is not None] for name in self.estimators
        }
        if not largest:
            raise InputError("no estimator has a score: " + "; ".join(f"{s.estimator}: {s.reason}" for s in scores))
        best = max(largest.values(), key=lambda s: (not ESTIMATORS[s.estimator].ceiling, s.interval.mean))
        curves = {name: [(s.models, s.interval) for s in found] for name, found in by_estimator.items() if found}
        return Result(
            title=f"{run.name['task']}, attribution",
            metrics={
                "metrics": {name: score.interval.mean for name, score in largest.items()},
                "intervals": {name: [s.interval.low, s.interval.high] for name, s in largest.items()},
                "interval": "95% bootstrap over subset models and targets",
                "lds": {name: {s.models: _facts(s) for s in scores if s.estimator == name} for name in self.estimators},
                "differences": _differences(scores),
                "features": next(iter(features.values())).facts(),
            },
            summary=f"{best.estimator} predicts best: LDS {best.interval} with {best.models} models.",
            tiles=[
                Tile(name, f"{s.interval.mean:.3f}", f"{s.interval.low:.3f} – {s.interval.high:.3f}")
                for name, s in largest.items()
            ],
            tables=[_table(self.estimators, self.ensembles, scores, how), *_difference_table(scores)],
            figures=[figures.lds_curves(curves, how)],
            made_of={
                "experiment": run.config["experiment"],
                "features": fingerprint({kind: of_kind.fingerprint for kind, of_kind in features.items()}),
            },
        )


def _targets(scores: list[Score]) -> int:
    """How many targets there are."""
    return next((len(score.lds.per_target) for score in scores if score.lds is not None), 0)


def _facts(score: Score) -> dict[str, Any]:
    if score.lds is None:
        return {"reason": score.reason}
    skipped = list(score.lds.skipped.values())
    interval = score.interval
    return {
        "lds": interval.mean,
        "interval": [interval.low, interval.high],
        "options": score.options,
        "skipped": {reason: skipped.count(reason) for reason in dict.fromkeys(skipped)},
    }


def _differences(scores: list[Score]) -> dict[str, dict[int, list[float]]]:
    """The first estimator's LDS less that of each other one, with its paired interval, by ensemble size."""
    first = scores[0].estimator
    known = [(score.estimator, score.models, score.lds) for score in scores if score.lds is not None]
    ours = {models: one for estimator, models, one in known if estimator == first}
    found: dict[str, dict[int, list[float]]] = {}
    for estimator, models, other in known:
        if estimator != first and models in ours:
            found.setdefault(estimator, {})[models] = list(ours[models].minus(other))
    return found


def _table(estimators: Sequence[str], ensembles: Sequence[int], scores: list[Score], how: str) -> Table:
    cells = {(s.estimator, s.models): str(s.interval) if s.lds is not None else "no score" for s in scores}
    chosen = {s.estimator: s.options for s in scores if s.models == max(ensembles)}

    def row(name: str) -> list[str]:
        options = ", ".join(f"{key} {value:g}" for key, value in chosen[name].items())
        return [name, *(cells[name, size] for size in ensembles), options or "–"]

    notes = " ".join(f"{name}: {ESTIMATORS[name].meaning}." for name in estimators)
    reasons = " ".join(dict.fromkeys(f"{s.estimator} has no score: {s.reason}." for s in scores if s.reason))
    columns = ["", *(f"{size} model{'s' * (size > 1)}" for size in ensembles), "chosen"]
    return Table(
        "LDS by number of models", f"{how} {notes} {reasons}", columns, [row(name) for name in estimators], strong=0
    )


def _difference_table(scores: list[Score]) -> list[Table]:
    found = _differences(scores)
    if not found:
        return []
    sizes = sorted({size for by_size in found.values() for size in by_size})

    def cell(difference: list[float] | None) -> str:
        if difference is None:
            return "–"
        mean, low, high = difference
        return str(Interval(mean, low, high))

    rows = [
        [f"{scores[0].estimator} − {name}", *(cell(by_size.get(size)) for size in sizes)]
        for name, by_size in found.items()
    ]
    caption = "On the same models and targets, so that what they share cancels; 95% intervals by paired bootstrap."
    return [Table("Differences", caption, ["", *(f"{s} model{'s' * (s > 1)}" for s in sizes)], rows)]
