"""What a leaderboard wants: select, train on the selection, and write down what the model predicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from experiments.frame.repetitions import training_seed
from experiments.frame.run import Run
from experiments.report import Result, Tile, precision
from tarot.common import Count, Natural, check_options
from tasks.motion import MotionTask
from tasks.motion.submission import write_submission

FILE = "submission.json"


@dataclass(frozen=True)
class SubmissionExperiment:
    """nuScenes's prediction challenge: forecasts of all that is held out, by the model of one training. The selection
    and the model are those of `experiment=selection`, whose first training is training 0."""

    task_type: ClassVar = MotionTask
    unused: ClassVar[frozenset[str]] = frozenset()

    training: Natural = 0
    total: Count | None = None

    def __post_init__(self) -> None:
        check_options(self, "experiment")

    def run(self, run: Run[MotionTask]) -> Result:
        agents = run.task.challenged()  # what cannot be submitted is refused now, not after the training
        features = run.features()
        selection = run.select(self.total)
        with run.clock("train"):
            trained = run.bench.train(selection, training_seed(run.seed, self.training))
        with run.clock("submission"):
            forecasts = run.task.submission(run.bench.trained_model(trained))
            with run.outputs.file(FILE) as temporary:
                write_submission(temporary, forecasts)
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
            made_of={"features": features.fingerprint, "experiment": run.config["experiment"]},
        )
