"""What pairs of images and labels take of memory, by their number, in task=segmentation/paper.

    OMP_NUM_THREADS=1 python benchmarks/segmentation_scale.py           # opened and read: 500, 2,000 and 5,000 pairs
    OMP_NUM_THREADS=1 python benchmarks/segmentation_scale.py --stages open batches features train              # longer

GTA5 has 24,966. Pairs are made, each of its own pixels, in GTA5's and Cityscapes' layouts, and are small: 64 x 32, for
what is asked is how memory grows with how many there are. The network is small as well.

open: folders are walked, every header is checked, all contents are hashed. batches: all pairs, in an order of chance,
as trainings are given them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from memory_by_size import compare
from PIL import Image

from tasks.common.training import Surrogate
from tasks.segmentation import Architecture, GTA5ToCityscapes, SegmentationTask, SegmentationTraining

PAPER = 24_966
HEIGHT, WIDTH = 32, 64
ROAD, SKY, CAR = 7, 23, 26  # label ids of both


def write_pair(image: Path, label: Path, rng: np.random.Generator) -> None:
    for path in (image, label):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(image)
    ids = np.array([ROAD, SKY, CAR], np.uint8)[rng.integers(0, 3, (HEIGHT // 8, WIDTH // 8))]
    Image.fromarray(ids.repeat(8, 0).repeat(8, 1)).save(label)


def written(folder: Path, pairs: int) -> None:
    rng = np.random.default_rng(0)
    for number in range(1, pairs + 1):
        write_pair(*(folder / "gta5" / part / f"{number:05d}.png" for part in ("images", "labels")), rng)
    for split, frames in (("train", 100), ("val", 20)):
        for frame in range(frames):
            name = f"ulm_{frame:06d}_000019"
            image = folder / "cityscapes" / "leftImg8bit" / split / "ulm" / f"{name}_leftImg8bit.png"
            label = folder / "cityscapes" / "gtFine" / split / "ulm" / f"{name}_gtFine_labelIds.png"
            write_pair(image, label, rng)


def task_of(folder: Path) -> SegmentationTask:
    places = {part: str(folder / part) for part in ("gta5", "cityscapes")}
    data = GTA5ToCityscapes(**places, height=HEIGHT, width=WIDTH, disjoint=False, full_labels=True)
    task = SegmentationTask(
        data=data,
        architecture=Architecture("small"),
        surrogate=Surrogate(checkpoints=1),
        train=SegmentationTraining(steps=20, batch_size=16, validations=2, choose="best", merge_targets="max"),
        name="segmentation-scale",
        cache_dir=folder / "cache",
        device="cpu",
    )
    task.recipe()  # with the hash of all contents
    return task


def read(task: SegmentationTask, order: np.ndarray) -> None:
    for index in order:
        task.candidates()[int(index)]


def kept(folder: Path) -> int:
    return sum(file.stat().st_size for file in (folder / "cache").rglob("*") if file.is_file())


if __name__ == "__main__":
    compare(__doc__, __file__, written, task_of, read, kept, "open", "pairs", [500, 2_000, 5_000], PAPER)
