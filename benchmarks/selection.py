"""Selection against one matrix product of the same size, in one process: the floor that nearest neighbours stand on.

    python benchmarks/selection.py            # N = 100,000, M = 1,000, d = 512 in memory
    python benchmarks/selection.py --scale    # N = 1,000,000, M = 10,000, d = 256, float16 on disk (512 MB)

Prints medians in seconds, ratios to the product, and the peak memory of the process.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import tarot
from tarot.selectors import TarotExact, TarotFixed, TarotOTM


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def clustered(n: int, d: int, centres: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    which = torch.randint(0, len(centres), (n,), generator=generator)
    rows = centres[which] + 1.5 * torch.randn(n, d, generator=generator)
    return rows / rows.norm(dim=1, keepdim=True)


def in_memory(rounds: int) -> None:
    generator = torch.Generator().manual_seed(0)
    n, m, d = 100_000, 1_000, 512
    centres = torch.randn(20, d, generator=generator)
    candidates, targets = clustered(n, d, centres, generator), clustered(m, d, centres[:5], generator)
    arms: dict[str, Callable[[], object]] = {
        "candidates @ targets.T": lambda: candidates @ targets.T,
        "nearest, k = 32": lambda: tarot.nearest(candidates, targets, k=32, whitening=None),
        "tarot_fixed 5%": lambda: tarot.select(candidates, targets, TarotFixed(ratio=0.05), whitening=None).weights,
        "tarot_otm": lambda: tarot.select(candidates, targets, TarotOTM(), whitening=None).weights,
        "tarot_exact 5%": lambda: tarot.select(candidates, targets, TarotExact(ratio=0.05), whitening=None).weights,
    }
    for work in arms.values():
        work()
    times = {name: [] for name in arms}
    for _ in range(rounds):
        for name, work in arms.items():
            times[name].append(seconds(work))
    floor = statistics.median(times["candidates @ targets.T"])
    print(f"N = {n:,}, M = {m:,}, d = {d}, weights included; median of {rounds} rounds")
    for name, measured in times.items():
        print(f"  {name:24s} {statistics.median(measured):7.2f} s  {statistics.median(measured) / floor:6.2f}x")


def on_disk() -> None:
    generator = torch.Generator().manual_seed(0)
    n, m, d, size, part = 1_000_000, 10_000, 256, 20_000, 50_000
    centres = torch.randn(50, d, generator=generator)
    targets = clustered(m, d, centres[:15], generator)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "candidates.npy"
        store = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(n, d))
        for start in range(0, n, part):
            store[start : start + part] = clustered(part, d, centres, generator).half().numpy()
        store.flush()
        del store
        block = torch.from_numpy(np.load(path, mmap_mode="r", allow_pickle=False)[:part].astype(np.float32))
        product = statistics.median(seconds(lambda: block @ targets.T) for _ in range(3)) * n / part
        before = peak_gb()
        selection = None

        def work() -> None:
            nonlocal selection
            pool = np.load(path, mmap_mode="r", allow_pickle=False)
            selection = tarot.select(pool, targets, TarotFixed(size=size), whitening="cholesky")
            selection.weights  # noqa: B018

        took = seconds(work)
        print(f"N = {n:,}, M = {m:,}, d = {d}, float16 on disk, S = {size:,}, whitening and weights included")
        print(f"  product {product:.0f} s, selection {took:.0f} s = {took / product:.2f}x")
        print(f"  peak {peak_gb():.1f} GB, before {before:.1f} GB")
        certificate = seconds(lambda: (selection.ot_distance, selection.lower_bound))
        print(
            f"  OT distance {selection.ot_distance:.4f}, lower bound {selection.lower_bound:.4f}: {certificate:.0f} s"
        )


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--scale", action="store_true")
    arguments.add_argument("--rounds", type=int, default=3)
    options = arguments.parse_args()
    on_disk() if options.scale else in_memory(options.rounds)
