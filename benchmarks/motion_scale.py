"""What samples of motion take of memory, by their number: while scenes are read, features taken, a model trained.

    OMP_NUM_THREADS=1 python benchmarks/motion_scale.py                     # 2,000, 6,000 and 20,000 samples: minutes
    OMP_NUM_THREADS=1 python benchmarks/motion_scale.py --stages read batches features train --rows 500 2000    # longer

The paper's size is 3,032,000 samples. A few simulated scenes are written again and again under other names, as
ScenarioNet writes them; they are seen as the paper's AutoBots sees them, by a model that is small. Each stage is
measured in a process of its own, which finds what the ones before it have left in the cache. Two peaks are told: the
resident set (ru_maxrss) and, of it, the memory of the process' own (RssAnon, looked at fifty times a second).

read: scenes are read, and samples kept. batches: all samples, in an order of chance, as trainings are given them.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
from own_memory import Memory

from experiments.stages import FeatureRecipe, Workbench
from tarot import Selection
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
STAGES = ("read", "batches", "features", "train")
PROFILE = Profile(name="paper_autobot", past=21, future=60, agents=15, segments=256, points=20, lines=("lane",))
MIB = 2**20


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


def stage(name: str, folder: Path) -> dict[str, float]:
    task, memory, start = task_of(folder), Memory(), time.process_time()
    memory.start()
    n = len(task.candidates())
    if name == "batches":
        for chosen in np.array_split(np.random.default_rng(0).permutation(n), -(-n // 256)):
            task.candidates().batch(chosen)
    elif name != "read":
        recipe = FeatureRecipe(
            kind="wfd",
            gradient="loss",
            layers=None,
            encoder=None,
            checkpoints="all",
            preconditioner=None,
            scores=None,
            influence={},
            dim=64,
            projection="factored",
            projection_seed=0,
            aggregate="mean",
            whitening="cholesky",
            regularization=1e-3,
            norm=None,
            dtype="float32",
            batch_size=64,
            autocast=None,
            on_nonfinite="raise",
            workers=0,
        )
        bench = Workbench(task, recipe, folder / "cache", "cpu")
        if name == "features":
            bench.features()
        else:
            bench.evaluate(bench.train(Selection(np.arange(0, n, 3), n, len(task.targets()), {}), 0))
    memory.done.set()
    return {
        "samples": n,
        "own": memory.own,
        "resident": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "CPU seconds": time.process_time() - start,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[2_000, 6_000, 20_000])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=["read", "batches"])
    parser.add_argument("--measure", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(stage(options.measure, Path(options.folder))))
        return
    print(f"{'':9s}{'samples':>9s}{'resident':>10s}{'own':>8s}   MiB{'CPU s':>9s}{'on disk':>9s} MiB")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in options.stages}
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            written(Path(folder), rows)
            for name in options.stages:
                command = [sys.executable, __file__, "--measure", name, "--folder", folder]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                one = json.loads(done.stdout.splitlines()[-1])
                kept = sum(file.stat().st_size for file in (Path(folder) / "cache" / "motion").glob("*.npz"))
                found[name].append(one)
                print(
                    f"{name:9s}{one['samples']:9,d}{one['resident'] / MIB:10.0f}{one['own'] / MIB:8.0f}      "
                    f"{one['CPU seconds']:9.1f}{kept / MIB:9.0f}",
                    flush=True,
                )
    if len(options.rows) > 1:
        print(f"\nslope over samples, and what it makes of {PAPER:,}")
        for name, ones in found.items():
            x, y = ([one[key] for one in ones] for key in ("samples", "own"))
            slope, begin = np.polyfit(x, y, 1)
            print(f"{name:9s}{slope / 1024:8.2f} KiB a sample{(begin + slope * PAPER) / 2**30:8.2f} GiB")


if __name__ == "__main__":
    main()
