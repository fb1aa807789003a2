"""Which part of a distillation matters: one thing left out or changed at a time, on a task and its settings.

    python benchmarks/distillation.py experiment=distillation                    # digits
    python benchmarks/distillation.py experiment=distillation task=cifar10 +per_class=10 +seeds=1

`+per_class` (default 1) images of each class, `+seeds` (default 3); what is trained is the task's teacher, and students
of its kind with hard and with soft labels. Accuracy on test, mean and 95% interval over seeds.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

import tarot
from experiments.command.resolvers import register_resolvers
from experiments.report import mean_interval
from tarot import Distilled, Synthesis
from tasks.classification import ImageSet, Student, train_student

CONF = Path(__file__).parents[1] / "conf"
OWN = ("per_class", "seeds")


def variants(options: Synthesis, student: Student) -> Iterator[tuple[str, Synthesis, Student, str]]:
    """(what is other, how images are made, how students are trained, the weights of a class's atoms)"""

    def made(said: str, weights: str = "uniform", **changed: Any) -> tuple[str, Synthesis, Student, str]:
        return said, replace(options, **changed), student, weights

    yield made("wmdd, as it is")
    yield made("the coreset it starts from", iterations=0)
    yield made("no distance to the atoms", feature_weight=0.0)
    yield made("no statistics", statistics_weight=0.0)
    yield made("statistics of all classes", statistics="global")
    yield made("from other real images", init="random")
    yield made("from noise", init="noise")
    yield made("free weights", weights="free")
    for factor in (0.01, 0.1, 10.0):
        weight = options.statistics_weight * factor
        yield made(f"lambda {weight:g} for {options.statistics_weight:g}", statistics_weight=weight)
    for temperature in (1.0, 20.0):
        yield (
            f"T {temperature:g} for {student.temperature:g}",
            options,
            replace(student, temperature=temperature),
            "uniform",
        )


def main() -> None:
    own = dict(one.lstrip("+").split("=") for one in sys.argv[1:] if one.startswith(tuple(f"+{name}=" for name in OWN)))
    overrides = [one for one in sys.argv[1:] if not one.startswith(tuple(f"+{name}=" for name in OWN))]
    per_class, seeds = int(own.get("per_class", 1)), int(own.get("seeds", 3))
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=overrides)
    task, experiment = instantiate(config.task), config.experiment
    pool = task.candidates()
    teacher = task.model().to(task.device)
    teacher.load_state_dict(dict(task.checkpoints()[-1].state))
    teacher.eval()
    pixels, labels = pool.pixels(np.arange(len(pool))), np.asarray(pool.labels)
    options, student = instantiate(experiment.synthesis), instantiate(experiment.student)
    print(
        f"{len(pool):,} candidates, teacher {task.evaluate(teacher)['accuracy']:.3f}, {per_class} per class", flush=True
    )

    made: dict[tuple[Synthesis, str, int], Distilled] = {}
    for said, synthesis, how, weights in variants(options, student):
        accuracies: dict[str, list[float]] = {"hard": [], "soft": []}
        for seed in range(seeds):
            key = synthesis, weights, seed
            if key not in made:
                made[key] = tarot.distill(
                    teacher,
                    pixels,
                    labels,
                    per_class=per_class,
                    mean=pool.mean,
                    std=pool.std,
                    weights=weights,  # type: ignore[arg-type]
                    synthesis=synthesis,
                    device=str(task.device),
                    seed=seed,
                )
            found = made[key]
            ids = np.array([f"distilled-{number}" for number in range(len(found.labels))])
            images = ImageSet(found.images, found.labels, ids, np.full(len(ids), ""), pool.mean, pool.std)
            for kind, told in (("hard", None), ("soft", teacher)):
                model = train_student(
                    task.model, images, found.weights, how, teacher=told, seed=seed, device=task.device
                )
                accuracies[kind].append(task.evaluate(model)["accuracy"])
        cells = " | ".join(str(mean_interval(values)) for values in accuracies.values())
        print(f"| {said} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
