"""Cost of `nearest_unit` beside the matrix product that it cannot do without. Rough where the machine is shared.

python benchmarks/neighbours.py                                  # N = 100,000, M = 1,000, d = 512, in memory
python benchmarks/neighbours.py --stored features.npy --n 1000000 --m 10000 --d 256   # float16 memory map
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from tarot.space import nearest_unit, unit_norm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--m", type=int, default=1_000)
    parser.add_argument("--d", type=int, default=512)
    parser.add_argument("--k", type=int, nargs="+", default=[1, 10, 128])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--stored", type=Path, help="keep the candidates here, as a float16 .npy read by memory map")
    options = parser.parse_args()

    targets = unit_norm(torch.randn(options.m, options.d, generator=torch.Generator().manual_seed(1)))
    candidates = stored(options.stored, options.n, options.d) if options.stored else random_rows(options.n, options.d)
    runs: dict[str, Callable[[], object]] = {"product": lambda: product(candidates, targets)}
    for k in options.k:
        runs[f"nearest k={k}"] = lambda k=k: nearest_unit(candidates, targets, k)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.repeats):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begin)
    base = statistics.median(seconds["product"])
    for name, values in seconds.items():
        print(f"{name:16} median {statistics.median(values):7.2f} s  ratio {statistics.median(values) / base:5.2f}")
    print(f"peak resident memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


def random_rows(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return unit_norm(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)))


def stored(path: Path, n: int, d: int, rows: int = 50_000) -> np.ndarray:
    """Random unit rows in a float16 .npy of shape [n, d], written on first use."""
    if not path.exists():
        written = np.lib.format.open_memmap(path, "w+", np.float16, (n, d))
        for start in range(0, n, rows):
            stop = min(n, start + rows)
            written[start:stop] = random_rows(stop - start, d, seed=start).numpy()
        written.flush()
    return np.load(path, mmap_mode="r", allow_pickle=False)


def product(candidates: torch.Tensor | np.ndarray, targets: torch.Tensor) -> None:
    """candidates @ targets.T: in one piece where it is in memory, else by blocks whose results are dropped."""
    if isinstance(candidates, torch.Tensor):
        candidates @ targets.T
        return
    for start in range(0, len(candidates), 8192):
        torch.from_numpy(np.asarray(candidates[start : start + 8192], dtype=np.float32)) @ targets.T


if __name__ == "__main__":
    main()
