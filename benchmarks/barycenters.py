"""Barycenters of real features beside those of WMDD's released code, of POT and of scikit-learn, and what size costs.

    python benchmarks/barycenters.py compare --features features.npz --atoms 1 10 50   # `features` [n, d], `labels` [n]
    python benchmarks/barycenters.py size --n 5000 --d 512 --atoms 50
    python benchmarks/barycenters.py size --n 1000000 --d 512 --atoms 1000 --weights free --stored rows.npy

All methods take turns in one process; seconds are the processor's. `released_uniform` and `released_weighted` are what
the released code computes, formula by formula (docs/wmdd.md, D-02 to D-04).
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import ot
from sklearn.cluster import KMeans

from tarot.transport import barycenter

Atoms = tuple[np.ndarray, np.ndarray]  # positions [m, d], weights [m]
LARGEST = 20_000  # rows that are drawn at once


# --- what the released code computes ---------------------------------------------------------------------------------


def released_uniform(rows: np.ndarray, atoms: int, seed: int = 0) -> Atoms:
    """POT's free-support solver from Gaussian noise, with its own defaults."""
    start = np.random.RandomState(seed).randn(atoms, rows.shape[1])
    weights = np.full(atoms, 1 / atoms)
    return ot.lp.free_support_barycenter([rows], [_alike(rows)], start, b=weights), weights


def released_weighted(rows: np.ndarray, atoms: int, seed: int = 0, steps: int = 10, share: float = 0.2) -> Atoms:
    """From Gaussian noise: weights at fixed atoms, then a fifth of the way to the free-support solution of these
    weights; until the weights cease to change, and ten times at most."""
    x = np.random.RandomState(seed).randn(atoms, rows.shape[1])
    weights = np.full(atoms, 1 / atoms)
    before = None
    for _ in range(steps):
        weights = released_weights(rows, x)
        if before is not None and np.linalg.norm(weights - before) < 1e-6:
            break
        before = weights
        x = (1 - share) * x + share * ot.lp.free_support_barycenter([rows], [_alike(rows)], x, b=weights)
    return x, weights


def released_weights(rows: np.ndarray, x: np.ndarray, rate: float = 10, steps: int = 100) -> np.ndarray:
    """Of atoms at fixed positions: mirror descent along the duals, at one rate; the last iterate."""
    cost = ot.dist(x, rows)
    cost /= cost.max()
    weights = np.full(len(x), 1 / len(x))
    for _ in range(steps):
        before = weights
        _, log = ot.emd(weights, _alike(rows), cost, log=True)
        weights = weights * np.exp(-rate * log["u"])
        weights = weights / weights.sum()
        if np.abs(weights - before).sum() < 1e-9:
            break
    return weights


def _alike(rows: np.ndarray) -> np.ndarray:
    return np.full(len(rows), 1 / len(rows))


# --- beside one another ----------------------------------------------------------------------------------------------


def ours(weights: str) -> Callable[[np.ndarray, int, int], Atoms]:
    def found(rows: np.ndarray, atoms: int, seed: int) -> Atoms:
        one = barycenter(rows.astype(np.float32), atoms, weights, seed=seed)
        return one.positions, one.weights

    return found


def pot(rows: np.ndarray, atoms: int, seed: int) -> Atoms:
    """From as many rows, and until nothing moves."""
    start = rows[np.random.RandomState(seed).choice(len(rows), atoms, replace=False)]
    weights = np.full(atoms, 1 / atoms)
    return ot.lp.free_support_barycenter([rows], [_alike(rows)], start, b=weights, numItermax=300), weights


def k_means(rows: np.ndarray, atoms: int, seed: int) -> Atoms:
    found = KMeans(atoms, n_init=10, random_state=seed).fit(rows)
    return found.cluster_centers_, np.bincount(found.labels_, minlength=atoms) / len(rows)


METHODS: dict[str, Callable[[np.ndarray, int, int], Atoms]] = {
    "uniform, 3 starts": ours("uniform"),
    "released uniform": released_uniform,
    "POT from rows": pot,
    "free, 10 starts": ours("free"),
    "released weighted": released_weighted,
    "k-means, 10 starts": k_means,
}


def compare(options: argparse.Namespace) -> None:
    with np.load(options.features, allow_pickle=False) as stored:
        features, labels = stored["features"].astype(np.float64), stored["labels"]
    classes = np.unique(labels)[: options.classes]
    rows_of = [features[labels == number][: options.rows] for number in classes]
    counts = [len(rows) for rows in rows_of]
    print(f"{len(classes)} classes of {min(counts):,} to {max(counts):,} rows, d {features.shape[1]}")
    for atoms in options.atoms:
        costs: dict[str, list[float]] = {name: [] for name in METHODS}
        seconds: dict[str, list[float]] = {name: [] for name in METHODS}
        for number, rows in zip(classes.tolist(), rows_of, strict=True):
            for name, method in METHODS.items():
                start = time.process_time()
                x, weights = method(rows, atoms, number)
                seconds[name].append(time.process_time() - start)
                costs[name].append(ot.emd2(weights, _alike(rows), ot.dist(x, rows), numItermax=10**7))
        for name in METHODS:
            told = f"{np.mean(costs[name]):9.4f}  {np.mean(seconds[name]):7.2f} s a class"
            print(f"{atoms:4} atoms  {name:20} {told}", flush=True)


# --- at size ---------------------------------------------------------------------------------------------------------


def size(options: argparse.Namespace) -> None:
    rows = stored(options.stored, options.n, options.d) if options.stored else drawn(0, options.n, options.d)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, wall = time.process_time(), time.perf_counter()
    found = barycenter(
        rows, options.atoms, options.weights, starts=options.starts, max_iterations=options.iterations, seed=0
    )
    taken, wall = time.process_time() - start, time.perf_counter() - wall
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{options.n:,} x {options.d}, {options.atoms} atoms, {options.weights}, {options.starts} starts: "
        f"{taken:.1f} s of the processor ({wall:.0f} s by the clock), {found.iterations} steps in the best start, "
        f"converged: {found.converged}, cost {found.cost:.4f}; "
        f"peak {after / 2**20:.2f} GiB, {before / 2**20:.2f} GiB before"
    )


def drawn(first: int, count: int, d: int) -> np.ndarray:
    """Rows about 2,000 centres, whatever is drawn at once: float32 [count, d]."""
    centres = np.random.default_rng(0).standard_normal((2000, d), dtype=np.float32)
    rng = np.random.default_rng((1, first))
    noise = rng.standard_normal((count, d), dtype=np.float32)
    return centres[rng.integers(0, len(centres), count)] + noise


def stored(path: Path, n: int, d: int) -> np.ndarray:
    """float16, written on first use and read from the file as asked for."""
    if not path.exists():
        written = np.lib.format.open_memmap(path, "w+", np.float16, (n, d))
        for start in range(0, n, LARGEST):
            written[start : start + LARGEST] = drawn(start, min(LARGEST, n - start), d)
        written.flush()
    return np.load(path, mmap_mode="r", allow_pickle=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    kinds = parser.add_subparsers(required=True)
    beside = kinds.add_parser("compare")
    beside.add_argument("--features", type=Path, required=True)
    beside.add_argument("--atoms", type=int, nargs="+", default=[1, 10, 50])
    beside.add_argument("--classes", type=int, default=3)
    beside.add_argument("--rows", type=int, default=1000, help="of each class, the first")
    beside.set_defaults(run=compare)
    large = kinds.add_parser("size")
    large.add_argument("--n", type=int, default=5000)
    large.add_argument("--d", type=int, default=512)
    large.add_argument("--atoms", type=int, default=50)
    large.add_argument("--weights", choices=["uniform", "free"], default="uniform")
    large.add_argument("--starts", type=int, default=1)
    large.add_argument("--iterations", type=int)
    large.add_argument("--stored", type=Path, help="keep the rows here, as a float16 .npy that is read by memory map")
    large.set_defaults(run=size)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
