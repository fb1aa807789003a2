"""What samples of motion take of memory, by their number: while scenes are read, features taken, a model trained.

    OMP_NUM_THREADS=1 python benchmarks/motion_scale.py                     # 2,000, 6,000 and 20,000 samples: minutes
    OMP_NUM_THREADS=1 python benchmarks/motion_scale.py --stages read batches features train --rows 500 2000    # longer

The paper's size is 3,032,000 samples. A few simulated scenes are written again and again under other names, as
ScenarioNet writes them; they are seen as the paper's AutoBots sees them, by a model that is small.

read: scenes are read, and samples kept. batches: all samples, in an order of chance, as trainings are given them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
from memory_by_size import compare

from tasks.motion import (
    AutoBotArchitecture,
    Databases,
    Forecaster,
    LossWeights,
    MotionTask,
    MotionTraining,
    Profile,
)
from tasks.motion.formats import Scenario
from tasks.motion.formats.scenarionet_writer import write_database
from tasks.motion.simulator import database

PAPER = 3_032_000
PROFILE = Profile(name="paper_autobot", past=21, future=60, agents=15, segments=256, points=20, lines=("lane",))


def repeated(name: str, samples: int) -> Iterator[Scenario]:
    """Scenes with at least so many vehicles to predict."""
    scenes, left = database(name, 60, 0), samples
    for number in count():
        if left <= 0:
            return
        scene = scenes[number % len(scenes)]
        left -= len(scene.to_predict)
        yield replace(scene, name=f"{name}{number}_0_0")


def written(folder: Path, samples: int) -> None:
    for name, part, of in (("cand_crossing", "waymo", samples), ("target_train", "t", 100), ("target_val", "v", 100)):
        write_database(folder / part, repeated(name, of))


def task_of(folder: Path) -> MotionTask:
    forecaster = Forecaster(
        AutoBotArchitecture(
            width=16, heads=2, map_heads=2, feedforward=16, encoder_layers=1, decoder_layers=1, modes=2
        ),
        PROFILE,
        LossWeights(),
    )
    data = Databases({"waymo": str(folder / "waymo")}, "nuscenes", str(folder / "t"), str(folder / "v"), scene_fields=2)
    training = MotionTraining(steps=20, batch_size=64)
    return MotionTask(
        data=data,
        forecasters={"autobot": forecaster},
        select_with="autobot",
        learn_with="autobot",
        name="motion-scale",
        train=training,
        cache_dir=folder / "cache",
        device="cpu",
    )


def read(task: MotionTask, order: np.ndarray) -> None:
    for chosen in np.array_split(order, -(-len(order) // 256)):
        task.candidates().batch(chosen)


def kept(folder: Path) -> int:
    return sum(file.stat().st_size for file in (folder / "cache" / "motion").glob("*.npz"))


if __name__ == "__main__":
    compare(__doc__, __file__, written, task_of, read, kept, "read", "samples", [2_000, 6_000, 20_000], PAPER)
