"""Students: networks trained from scratch on an arm's images, each by itself and once, by an engine's workers."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import nn

from tarot.common import fingerprint, hash_tensors
from tarot.workers import LOCAL, Local, Workers
from tasks.classification import ClassificationTask, LabelledImages, Student, train_student
from tasks.common.cache import kept
from tasks.common.code import parts_of, source_hash
from tasks.common.training import trainers

Labels = Literal["hard", "soft"]
OWN = "teacher's kind"


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a student learns. images: None: all candidates. weights: float64 [n], how much each image counts. made_of:
    what determines both. kind: of its network."""

    images: LabelledImages | None
    weights: np.ndarray
    made_of: str
    kind: str
    labels: Labels
    seed: int


@dataclass(frozen=True, eq=False)
class School:
    """Whose task it is, whom soft labels are of, how students are trained, where accuracies are kept, who trains."""

    task: ClassificationTask
    teacher: nn.Module
    student: Student
    cache: Path
    engine: Workers = LOCAL

    def accuracies(self, lessons: Sequence[Lesson], advance: Callable[[int], object]) -> list[float]:
        """On test, of a student of each lesson. advance: told of each that is there."""
        paths = [self._path(lesson) for lesson in lessons]
        missing = [lesson for lesson, path in zip(lessons, paths, strict=True) if not path.exists()]
        advance(len(lessons) - len(missing))
        engine = trainers(self.engine)
        if missing:
            engine.shares(self.cache)
            self.task.samples("test")  # read before the task is sent to workers, not by each of them
        sent = self if isinstance(engine, Local) else replace(self, teacher=copy.deepcopy(self.teacher).cpu())
        for _ in engine.map(_train, missing, sent, setup=_moved):
            advance(1)
        return [self.accuracy(lesson) for lesson in lessons]

    def accuracy(self, lesson: Lesson) -> float:
        """On test, at the end of the training."""
        return float(kept(self._path(lesson), lambda path: self._write(lesson, path), _number))

    def _write(self, lesson: Lesson, path: Path) -> None:
        model = train_student(
            self.task.model if lesson.kind == OWN else lambda: self.task.built(lesson.kind),
            self.task.candidates() if lesson.images is None else lesson.images,
            lesson.weights,
            self.student,
            teacher=self.teacher if lesson.labels == "soft" else None,
            seed=lesson.seed,
            device=self.task.device,
        )
        path.write_text(json.dumps(self.task.evaluate(model)["accuracy"]))

    def _path(self, lesson: Lesson) -> Path:
        everything = {
            **self._made_of,
            "images": lesson.made_of,
            "teacher": self._teacher if lesson.labels == "soft" else None,
            "student": {**asdict(self.student), "kind": lesson.kind},
            "labels": lesson.labels,
            "seed": lesson.seed,
        }
        return self.cache / "students" / f"{self.task.name}-{fingerprint(everything)}.json"

    @cached_property
    def _made_of(self) -> dict[str, Any]:
        """What determines every student."""
        recipe = self.task.recipe()
        return {
            "code": source_hash(*parts_of(self.task), train_student, alone=(__name__,)),
            "task": {key: recipe[key] for key in ("name", "data", "model")},
        }

    @cached_property
    def _teacher(self) -> str:
        return hash_tensors(self.teacher.state_dict())


def _moved(school: School) -> School:
    return replace(school, teacher=school.teacher.to(school.task.device))


def _train(lesson: Lesson, school: School, _: School) -> None:
    school.accuracy(lesson)


def _number(path: Path) -> Any:
    return json.loads(path.read_text())
