"""How well a few images for each class train a network, by how they were come by, with hard and with soft labels."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import nn

from experiments.distillation.arms import ARMS, SYNTHETIC, Few
from experiments.distillation.findings import ALL, Cell, Findings
from experiments.distillation.pool import Pool
from experiments.distillation.report import result
from experiments.frame.methods import known
from experiments.frame.repetitions import training_seed
from experiments.frame.run import Run
from experiments.report import Result
from tarot import InputError, Synthesis
from tarot.common import Count, NonNegative, check_options, fingerprint, hash_tensors, progress
from tarot.distillation import batch_norms, check_classes, write_images
from tarot.transport import quantisation_cost
from tasks.classification import ClassificationTask, LabelledImages, Student, train_student
from tasks.common.cache import kept
from tasks.common.code import parts_of, source_hash
from tasks.common.weights import load_strictly

log = logging.getLogger("tarot")
Labels = Literal["hard", "soft"]
OWN = "teacher's kind"


@dataclass(frozen=True)
class DistillationExperiment:
    """conf/experiment/distillation.yaml says what each option means."""

    task_type: ClassVar = ClassificationTask

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
        with run.clock("teacher"):
            teacher = self._teacher(task)
        pool = Pool(task, teacher, self.weights, self.starts, run.cache)
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
        for arm, m, number in self._cells(found):
            with run.clock("synthesis" if arm in SYNTHETIC else "arms"):
                few = ARMS[arm](pool, m, run.seed + number, self._options(arm))
            with run.clock("distances"):
                self._look(found, pool, few, Cell(arm, m, number))
            if self.export and number == 0:
                self._write(run, pool, few, arm, m)
            with run.clock("students"):
                images = few.as_images(pool, arm, m)
                self._train(found, pool, images, few.weights, few.fingerprint, Cell(arm, m, number), run)
        if ALL in self.arms:
            with run.clock("students"):
                everyone = np.ones(len(pool.images))
                for number in range(self.seeds):
                    made_of = fingerprint({"data": task.recipe()["data"]})
                    self._train(found, pool, pool.images, everyone, made_of, Cell(ALL, 0, number), run)
        with run.clock("figures"):
            return result(run, found, pool, self.shown)

    # --- the teacher -------------------------------------------------------------------------------------------------

    def _teacher(self, task: ClassificationTask) -> nn.Module:
        """Of the option's file, or the last checkpoint of the task's first surrogate; frozen, in eval mode."""
        model = task.model()
        if any(arm in (*SYNTHETIC, "rded") for arm in self.arms):
            batch_norms(model)  # which says so where it has none
        if self.teacher is not None:
            load_strictly(model, self.teacher, "experiment.teacher")
        else:
            checkpoints = task.checkpoints()
            model.load_state_dict(dict([one for one in checkpoints if one.run == checkpoints[0].run][-1].state))
        model.to(task.device, memory_format=torch.channels_last)  # faster convolutions on any device
        return model.eval().requires_grad_(False)

    def _options(self, arm: str) -> Synthesis:
        return self.synthesis.named(arm, self.released_weight) if arm in SYNTHETIC else self.synthesis

    def _cells(self, found: Findings) -> Iterator[tuple[str, int, int]]:
        """Every arm but `all`, at every number of images, with every seed."""
        for m in found.per_class:
            for arm in self.arms:
                if arm != ALL:
                    yield from ((arm, m, number) for number in range(self.seeds))

    # --- what comes of the images ------------------------------------------------------------------------------------

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

    def _train(
        self,
        found: Findings,
        pool: Pool,
        images: LabelledImages,
        weights: np.ndarray,
        made_of: str,
        cell: Cell,
        run: Run[ClassificationTask],
    ) -> None:
        """Students of every kind with every kind of labels; each is trained once."""
        makes: dict[str, Callable[[], nn.Module]] = {OWN: pool.task.model}
        for name in self.students:
            makes[name] = lambda name=name: pool.task.built(name)  # type: ignore[misc]
        total = len(makes) * len(self.labels)
        what = f"{cell.arm}, {cell.m or 'all'} per class, seed {cell.number}"
        with progress(what, total, "students") as advance:
            for kind, make in makes.items():
                for labels in self.labels:
                    accuracy = self._student(pool, images, weights, made_of, cell, kind, make, labels, run)
                    found.accuracies.setdefault((cell.arm, kind, labels, cell.m), []).append(accuracy)
                    advance(1)

    def _student(
        self,
        pool: Pool,
        images: LabelledImages,
        weights: np.ndarray,
        made_of: str,
        cell: Cell,
        kind: str,
        make: Callable[[], nn.Module],
        labels: Labels,
        run: Run[ClassificationTask],
    ) -> float:
        """Accuracy on test at the end of the training."""
        task, seed = pool.task, training_seed(run.seed + cell.number, 700)
        recipe = task.recipe()
        everything = {
            "code": source_hash(*parts_of(task), train_student, alone=(__name__,)),
            "task": {key: recipe[key] for key in ("name", "data", "model")},
            "images": made_of,
            "teacher": hash_tensors(pool.teacher.state_dict()) if labels == "soft" else None,
            "student": {**asdict(self.student), "kind": kind},
            "labels": labels,
            "seed": seed,
        }

        def write(path: Path) -> None:
            teacher = pool.teacher if labels == "soft" else None
            model = train_student(make, images, weights, self.student, teacher=teacher, seed=seed, device=task.device)
            path.write_text(json.dumps(task.evaluate(model)["accuracy"]))

        path = run.cache / "students" / f"{task.name}-{fingerprint(everything)}.json"
        return float(kept(path, write, lambda there: json.loads(there.read_text())))

    def _write(self, run: Run[ClassificationTask], pool: Pool, few: Few, arm: str, m: int) -> None:
        """The images as folders of PNGs in the run's own folder."""
        folder = run.output / "images" / f"{arm}-{m}"
        if folder.exists():
            return
        labels = np.repeat(np.arange(len(pool.names)), m)
        write_images(folder, few.images, labels, few.weights, pool.names)
        log.info("%s", folder)
