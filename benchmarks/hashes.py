"""How long it takes to know which files a task has: `python benchmarks/hashes.py [FOLDER]`, which needs 400 MB there.

25,000 pairs of an image and a label in 100 folders, and 3,000 pickles in one, of the sizes given below, are hashed with
a cache that knows none of them (cold: their bytes are in memory, as they have just been written) and with one that
knows all of them (warm): the least of three.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tasks.common import contents

PAIRS, PICKLES = 25_000, 3_000
BYTES = {"image": 6_000, "label": 1_000, "pickle": 60_000}


def written(folder: Path) -> dict[str, list[Path]]:
    """The files, by kind of data set."""
    found: dict[str, list[Path]] = {f"{PAIRS:,} pairs of images and labels": [], f"{PICKLES:,} pickles": []}
    pairs, pickles = found.values()
    for number in range(PAIRS):
        for kind in ("image", "label"):
            pairs.append(folder / f"{kind}s" / f"{number % 100:02d}" / f"frame_{number:06d}_leftImg8bit.png")
    pickles += [folder / "database" / f"sd_nuscenes_v1.0_scene-{number:04d}.pkl" for number in range(PICKLES)]
    for kind, paths in (("image", pairs[::2]), ("label", pairs[1::2]), ("pickle", pickles)):
        for number, path in enumerate(paths):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(number.to_bytes(4, "big") + bytes(BYTES[kind] - 4))
    return found


def measured(paths: list[Path], cache: Path) -> tuple[float, float]:
    """Seconds by the clock, and of the processor, as a new process needs them."""
    contents._memories.clear()
    wall, cpu = time.perf_counter(), time.process_time()
    assert None not in contents.hash_files(paths, cache)
    return time.perf_counter() - wall, time.process_time() - cpu


def main(folder: Path) -> None:
    contents.YOUNG = 0  # the files have been there for a while
    print("| files | cold, s | of the processor | warm, s | of the processor |")
    print("|---|---|---|---|---|")
    for name, paths in written(folder).items():
        time.sleep(0.1)
        cold, warm = [], []
        for number in range(3):
            cache = folder / f"cache {name} {number}"
            cold.append(measured(paths, cache))
            warm.append(measured(paths, cache))
        numbers = [f"{seconds:.2f}" for times in (cold, warm) for seconds in map(min, zip(*times, strict=True))]
        print(f"| {name} | {' | '.join(numbers)} |", flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as place:
        main(Path(place))
