"""What a leaderboard wants: select, train on the selection, and write down what the model predicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from experiments.frame.run import Run
from experiments.report import Result, Tile, precision
from experiments.stages import gradient_features, select, train, trained_model, training_seed
from tarot.common import Count, Natural, check_options
from tasks.motion import MotionTask
from tasks.motion.submission import write_submission

FILE = "submission.json"


@dataclass(frozen=True)
class SubmissionExperiment:
    """nuScenes's prediction challenge: forecasts of all that is held out, by the model of one training. The selection
    and the model are those of `experiment=selection`, whose first training is training 0."""

    task_type: ClassVar = MotionTask

    training: Natural = 0
    total: Count | None = None

    def __post_init__(self) -> None:
        check_options(self, "experiment")

    def run(self, run: Run) -> Result:
        agents = run.task.challenged()  # what cannot be submitted is refused now, not after the training
        with run.clock("checkpoints"):
            checkpoints = run.task.checkpoints()
        with run.clock("features"):
            features = gradient_features(run.task, checkpoints, run.recipe, run.cache, run.config["device"])
        with run.clock("select"):
            selection = select(run.task, features, run.recipe, run.selector, self.total, run.cache)
        with run.clock("train"):
            trained = train(run.task, selection, training_seed(run.seed, self.training), run.cache)
        with run.clock("submission"):
            model = trained_model(run.task, trained, run.config["device"])
            write_submission(run.output / FILE, run.task.submission(model))
        share = precision(run.task, selection)
        return Result(
            title=f"{run.name['task']}, {run.name['selector']}",
            metrics={
                "agents": len(agents),
                "size": len(selection),
                **({} if share is None else {"precision": share}),
                "features": features.facts(),
            },
            summary=f"{FILE} holds forecasts of {len(agents):,} agents, by a model trained on {len(selection):,} "
            f"of {selection.n:,} candidates.",
            tiles=[
                Tile("agents", f"{len(agents):,}", f"in {FILE}"),
                Tile("selected", f"{len(selection):,}", f"of {selection.n:,} candidates"),
            ],
            selection=selection,
            made_of={"features": features.fingerprint, "experiment": run.config["experiment"]},
        )
