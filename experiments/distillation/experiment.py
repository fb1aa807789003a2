"""How well a few images for each class train a network, by how they were come by, with hard and with soft labels."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import nn

from experiments.distillation.arms import ARMS, SYNTHETIC, Few
from experiments.distillation.findings import ALL, Cell, Findings
from experiments.distillation.pool import Pool
from experiments.distillation.report import result
from experiments.distillation.students import OWN, Labels, Lesson, School
from experiments.frame.methods import known
from experiments.frame.repetitions import training_seed
from experiments.frame.run import Run
from experiments.report import Result
from experiments.stages import train_surrogates
from tarot import InputError, Synthesis
from tarot.common import Count, NonNegative, check_options, fingerprint, progress
from tarot.distillation import batch_norms, check_classes, write_images
from tarot.transport import quantisation_cost
from tasks.classification import ClassificationTask, LabelledImages, Student
from tasks.common.weights import load_strictly

log = logging.getLogger("tarot")


@dataclass(frozen=True, eq=False)
class Taught:
    """What students of a cell are taught; see `Lesson`."""

    cell: Cell
    images: LabelledImages | None
    weights: np.ndarray
    made_of: str


@dataclass(frozen=True)
class DistillationExperiment:
    """conf/experiment/distillation.yaml says what each option means."""

    task_type: ClassVar = ClassificationTask
    unused: ClassVar[frozenset[str]] = frozenset({"selector", "selector.*", "features", "features.*"})

    per_class: Sequence[Count]
    arms: Sequence[str]
    synthesis: Synthesis
    student: Student
    labels: Sequence[Labels] = ("hard", "soft")
    seeds: Count = 3
    weights: Literal["uniform", "free"] = "uniform"
    starts: Count | None = None
    released_weight: NonNegative = 0.1
    students: Sequence[str] = ()
    teacher: str | None = None
    export: bool = False
    shown: Count = 10

    def __post_init__(self) -> None:
        check_options(self, "experiment")
        if not self.per_class or not self.arms or not self.labels:
            raise InputError("experiment.per_class, experiment.arms and experiment.labels must each name one or more")
        known("experiment.arms", self.arms, [*ARMS, ALL])
        known("experiment.labels", self.labels, ["hard", "soft"])
        if len(set(self.per_class)) < len(self.per_class):
            raise InputError(f"experiment.per_class names a number twice: {list(self.per_class)}")

    def run(self, run: Run[ClassificationTask]) -> Result:
        task = run.task
        check_classes(np.asarray(task.labels("candidates")), task.classes, max(self.per_class))
        for name in self.students:
            task.built(name)  # which says what networks there are
        with run.clock("teacher"):
            teacher = self._teacher(run)
        pool = Pool(task, teacher, self.weights, self.starts, run.cache, run.engine)
        school = School(task, teacher, self.student, run.cache, run.engine)
        found = Findings(
            arms=list(self.arms),
            per_class=sorted(self.per_class),
            labels=list(self.labels),
            students=[OWN, *self.students],
            seeds=self.seeds,
            seed=run.seed,
            names=task.classes,
            teacher=task.evaluate(teacher)["accuracy"],
        )
        with run.clock("features"):
            found.classes = pool.survey.statistics.counts.tolist()
        for m, arm in product(found.per_class, found.small):
            taught = [self._taught(run, found, pool, Cell(arm, m, number)) for number in range(self.seeds)]
            with run.clock("students"):
                self._train(found, school, taught)
        if ALL in self.arms:
            everyone = np.ones(len(pool.images))
            made_of = fingerprint({"data": task.recipe()["data"]})
            taught = [Taught(Cell(ALL, 0, number), None, everyone, made_of) for number in range(self.seeds)]
            with run.clock("students"):
                self._train(found, school, taught)
        with run.clock("figures"):
            return result(run, found, pool, self.shown)

    # --- the teacher -------------------------------------------------------------------------------------------------

    def _teacher(self, run: Run[ClassificationTask]) -> nn.Module:
        """Of the option's file, or the last checkpoint of the task's first surrogate; frozen, in eval mode."""
        task = run.task
        model = task.model()
        if any(arm in (*SYNTHETIC, "rded") for arm in self.arms):
            batch_norms(model)  # which says so where it has none
        if self.teacher is not None:
            load_strictly(model, self.teacher, "experiment.teacher")
        else:
            train_surrogates([task], run.cache, run.engine)
            checkpoints = task.checkpoints()
            model.load_state_dict(dict([one for one in checkpoints if one.run == checkpoints[0].run][-1].state))
        model.to(task.device).to(memory_format=torch.channels_last)  # faster convolutions on any device
        return model.eval().requires_grad_(False)

    def _options(self, arm: str) -> Synthesis:
        return self.synthesis.named(arm, self.released_weight) if arm in SYNTHETIC else self.synthesis

    # --- what comes of the images ------------------------------------------------------------------------------------

    def _taught(self, run: Run[ClassificationTask], found: Findings, pool: Pool, cell: Cell) -> Taught:
        """The images of a cell, which are looked at, and exported where that is asked for."""
        with run.clock("synthesis" if cell.arm in SYNTHETIC else "arms"):
            few = ARMS[cell.arm](pool, cell.m, run.seed + cell.number, self._options(cell.arm))
        with run.clock("distances"):
            self._look(found, pool, few, cell)
        if self.export and cell.number == 0:
            self._write(run, pool, few, cell.arm, cell.m)
        return Taught(cell, few.as_images(pool, cell.arm, cell.m), few.weights, few.fingerprint)

    def _look(self, found: Findings, pool: Pool, few: Few, cell: Cell) -> None:
        """How far the arm's features are from those of the classes."""
        if cell.number == 0:
            found.few[cell] = few
        positions = pool.features_of(few.images).astype(np.float64).reshape(len(pool.names), cell.m, -1)
        shares = few.weights.reshape(len(pool.names), cell.m)
        found.distances[cell] = [
            quantisation_cost(pool.survey.features[pool.labels == number], of_class, weights)
            for number, (of_class, weights) in enumerate(zip(positions, shares, strict=True))
        ]
        found.features[cell] = positions

    def _train(self, found: Findings, school: School, taught: Sequence[Taught]) -> None:
        """Students of every kind with every kind of labels, of each of these images of one arm."""
        lessons = [
            Lesson(one.images, one.weights, one.made_of, kind, labels, training_seed(found.seed + one.cell.number, 700))
            for one in taught
            for kind in found.students
            for labels in self.labels
        ]
        cell = taught[0].cell
        with progress(f"{cell.arm}, {cell.m or 'all'} per class", len(lessons), "students") as advance:
            accuracies = school.accuracies(lessons, advance)
        for lesson, accuracy in zip(lessons, accuracies, strict=True):
            found.accuracies.setdefault((cell.arm, lesson.kind, lesson.labels, cell.m), []).append(accuracy)

    def _write(self, run: Run[ClassificationTask], pool: Pool, few: Few, arm: str, m: int) -> None:
        """The images as folders of PNGs in the run's own folder."""
        folder = run.output / "images" / f"{arm}-{m}"
        if folder.exists():
            return
        labels = np.repeat(np.arange(len(pool.names)), m)
        write_images(folder, few.images, labels, few.weights, pool.names)
        log.info("%s", folder)
