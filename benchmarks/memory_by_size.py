"""What stages of a run take of memory, by how many samples there are: the frame of motion_scale and segmentation_scale.

Each stage is measured in a process of its own, which finds what the ones before it have left in the cache. Two peaks
are told: the resident set (ru_maxrss) and, of it, the memory of the process' own (RssAnon, looked at fifty times a
second).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from own_memory import Memory

from experiments.stages import FeatureRecipe, Workbench
from tarot import Selection
from tasks.task import Task

MIB = 2**20
RECIPE = FeatureRecipe(
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


def compare(
    description: str,
    script: str,
    written: Callable[[Path, int], None],
    opened: Callable[[Path], Task],
    read: Callable[[Task, np.ndarray], None],
    kept: Callable[[Path], int],
    first: str,
    unit: str,
    sizes: Sequence[int],
    paper: int,
) -> None:
    """Prints a table, and what its slope makes of the paper's size.

    written(folder, rows): makes the data. opened(folder): the task of it, with its cache in `folder`/cache.
    read(task, order): all candidates in this order, as trainings are given them. kept(folder): bytes of what the cache
    has of them. first: what the stage is called that opens the task and does no more.
    """
    stages = (first, "batches", "features", "train")
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=sizes)
    parser.add_argument("--stages", nargs="+", choices=stages, default=stages[:2])
    parser.add_argument("--measure", choices=stages, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(_measured(lambda: _stage(options.measure, Path(options.folder), opened, read))))
        return
    print(f"{'':9s}{unit:>9s}{'resident':>10s}{'own':>8s}   MiB{'CPU s':>9s}{'on disk':>9s} MiB")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in options.stages}
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            written(Path(folder), rows)
            for name in options.stages:
                command = [sys.executable, script, "--measure", name, "--folder", folder]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                one = json.loads(done.stdout.splitlines()[-1])
                found[name].append(one)
                print(
                    f"{name:9s}{one['samples']:9,d}{one['resident'] / MIB:10.0f}{one['own'] / MIB:8.0f}      "
                    f"{one['CPU seconds']:9.1f}{kept(Path(folder)) / MIB:9.0f}",
                    flush=True,
                )
    if len(options.rows) > 1:
        print(f"\nslope over {unit}, and what it makes of {paper:,}")
        for name, ones in found.items():
            x, y = ([one[key] for one in ones] for key in ("samples", "own"))
            slope, begin = np.polyfit(x, y, 1)
            print(f"{name:9s}{slope / 1024:8.2f} KiB each{(begin + slope * paper) / 2**30:8.2f} GiB")


def _stage(name: str, folder: Path, opened: Callable[[Path], Task], read: Callable[[Task, np.ndarray], None]) -> int:
    """Does the work of one; how many candidates there are."""
    task = opened(folder)
    n = len(task.candidates())
    bench = Workbench(task, RECIPE, folder / "cache", "cpu")
    if name == "batches":
        read(task, np.random.default_rng(0).permutation(n))
    elif name == "features":
        bench.features()
    elif name == "train":
        bench.evaluate(bench.train(Selection(np.arange(0, n, 3), n, len(task.targets()), {}), 0))
    return n


def _measured(work: Callable[[], int]) -> dict[str, float]:
    memory, start = Memory(), time.process_time()
    memory.start()
    samples = work()
    memory.look()
    memory.done.set()
    return {
        "samples": samples,
        "own": memory.own,
        "resident": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "CPU seconds": time.process_time() - start,
    }
