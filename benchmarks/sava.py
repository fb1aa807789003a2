"""SAVA's time and memory as the pool grows, and LAVA's beside it: one process per size, features on disk.

    python benchmarks/sava.py                                       # N = 250k, 500k, 1M; M = 10,000: several minutes
    python benchmarks/sava.py --sizes 20000 40000 --lava 5000       # minutes less
    python benchmarks/sava.py --figure sava.png

Made-up labelled features: 10 Gaussian classes in 64 dimensions, float16, 30% of the labels wrong; the area under
the curve of finding those stands beside the seconds. Peak memory is the process's resident set, libraries included.
LAVA's quadratic memory is measured where it fits and extrapolated (dotted) to SAVA's sizes.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from tarot.selection import SelectionProblem
from tarot.selectors import Lava, Sava

CLASSES, DIMENSIONS, WRONG = 10, 64, 0.3
_BLOCK = 50_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="*", default=[250_000, 500_000, 1_000_000], help="N of SAVA")
    parser.add_argument("--lava", type=int, nargs="*", default=[10_000, 20_000, 40_000], help="N of LAVA")
    parser.add_argument("--m", type=int, default=10_000)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--figure", type=Path, help="draw the measurements into this file")
    parser.add_argument("--one", nargs=3, metavar=("METHOD", "N", "DIRECTORY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        method, n, directory = options.one
        print(json.dumps(measure(method, int(n), options.m, Path(directory), options.batch_size)))
        return
    with tempfile.TemporaryDirectory() as directory:
        largest = max([*options.sizes, *options.lava])
        write(Path(directory), "candidates", largest, WRONG)
        write(Path(directory), "targets", options.m, 0.0)
        results: dict[str, list[dict]] = {}
        print(f"{'':6}{'N':>10}{'M':>8}{'seconds':>10}{'us / pair':>11}{'peak GB':>9}{'AUC':>8}")
        for method, sizes in (("lava", options.lava), ("sava", options.sizes)):
            results[method] = [apart(method, n, options, directory) for n in sizes]
    if len(options.lava) > 1 and options.sizes:
        line = memory_line(results["lava"])
        for n in options.sizes:
            print(f"lava at N = {n:,} would take {np.polyval(line, n):,.0f} GB (extrapolated)")
    if options.figure:
        draw(results, options.figure)


def write(directory: Path, name: str, n: int, wrong: float) -> None:
    """Features float16 [n, 64] and labels [n], and which labels are wrong, block by block."""
    centres = np.random.default_rng(0).normal(size=(CLASSES, DIMENSIONS))
    rows = np.lib.format.open_memmap(directory / f"{name}.npy", "w+", np.float16, (n, DIMENSIONS))
    labels, is_wrong = np.empty(n, dtype=np.int64), np.empty(n, dtype=bool)
    for start in range(0, n, _BLOCK):
        part = slice(start, min(n, start + _BLOCK))
        generator = np.random.default_rng([1, start, len(name)])
        which = generator.integers(0, CLASSES, part.stop - start)
        rows[part] = centres[which] + generator.normal(size=(len(which), DIMENSIONS))
        is_wrong[part] = generator.random(len(which)) < wrong
        other = (which + generator.integers(1, CLASSES, len(which))) % CLASSES
        labels[part] = np.where(is_wrong[part], other, which)
    rows.flush()
    np.save(directory / f"{name}_labels.npy", labels)
    np.save(directory / f"{name}_wrong.npy", is_wrong)


def apart(method: str, n: int, options: argparse.Namespace, directory: str) -> dict:
    """`measure` in a process of its own, printed."""
    command = [sys.executable, __file__, "--one", method, str(n), directory]
    command += ["--m", str(options.m), "--batch-size", str(options.batch_size)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result = json.loads(done.stdout)
    each = 1e6 * result["seconds"] / (n * options.m)
    print(
        f"{method:6}{n:>10,}{options.m:>8,}{result['seconds']:>10.1f}{each:>11.4f}{result['peak_gb']:>9.2f}"
        f"{result['auc']:>8.3f}",
        flush=True,
    )
    return result


def measure(method: str, n: int, m: int, directory: Path, batch_size: int) -> dict:
    def stored(name: str, count: int) -> np.ndarray:
        return np.load(directory / f"{name}.npy", mmap_mode="r", allow_pickle=False)[:count]

    problem = SelectionProblem(
        (stored("candidates", n),),
        (stored("targets", m),),
        candidate_labels=np.array(stored("candidates_labels", n)),
        target_labels=np.array(stored("targets_labels", m)),
    )
    selector = Lava() if method == "lava" else Sava(batch_size=batch_size)
    start = time.perf_counter()
    values = selector.values(problem)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    auc = float(roc_auc_score(stored("candidates_wrong", n), -values))
    return {"n": n, "seconds": seconds, "peak_gb": peak, "auc": auc, "threads": torch.get_num_threads()}


def memory_line(results: list[dict]) -> np.ndarray:
    """Slope and intercept of peak GB in N."""
    return np.polyfit([r["n"] for r in results], [r["peak_gb"] for r in results], 1)


def draw(results: dict[str, list[dict]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), constrained_layout=True)
    for method, colour in (("sava", "#0072b2"), ("lava", "#d55e00")):
        found = results[method]
        for axes, key in zip(panels, ("seconds", "peak_gb"), strict=True):
            axes.loglog([r["n"] for r in found], [r[key] for r in found], "o-", color=colour, label=method.upper())
    lava, sizes = results["lava"], [r["n"] for r in results["sava"]]
    if len(lava) > 1 and sizes:
        beyond = [lava[-1]["n"], *sizes]
        line = np.polyval(memory_line(lava), beyond)
        panels[1].loglog(beyond, line, ":", color="#d55e00", label="LAVA, extrapolated")
    panels[1].axhline(4, color="0.6", linewidth=0.8)
    panels[1].annotate("4 GB", (panels[1].get_xlim()[0], 4), color="0.4", va="bottom", fontsize=8)
    ticks = sorted({r["n"] for found in results.values() for r in found})
    for axes, name in zip(panels, ("seconds", "peak memory, GB"), strict=True):
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(ticks, [f"{n / 1e6:g}M" if n >= 1_000_000 else f"{n / 1e3:g}k" for n in ticks])
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("candidates N")
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
    panels[1].legend(frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
