"""Selection at size: each stage by itself, and `tarot_otm` by the number of targets. On a GPU where there is one.

    python benchmarks/scale.py stages                       # N = 20,000, M = 500, d = 256
    python benchmarks/scale.py stages --n 300000 --m 3200 --d 4096 --device cuda
    python benchmarks/scale.py otm --m 300 1000 3000        # N = 20 M, d = 256; both judges
    python benchmarks/scale.py otm --m 10000 --n 200000 --judge entropic --device cuda
    python benchmarks/scale.py exact --m 300 1000 3000      # tarot_fixed and tarot_exact at S = M and 1.5 M

Seconds are of the clock and, in brackets, of the processor; bytes are those of a float16 memory map; peaks are of the
process and of the device. The data are twenty clusters of which the targets have five.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import tarot
from tarot.common import selection_device
from tarot.features import blocks
from tarot.selectors import TarotExact, TarotFixed, TarotOTM
from tarot.space import fit_whitener, nearest_unit
from tarot.transport import StreamedCost, entropic_potentials

PART = 50_000  # rows that are drawn at a time
CENTRES, OF_TARGETS = 20, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["stages", "otm", "exact"])
    parser.add_argument("--n", type=int, help="candidates; by default 40 or 20 for each target")
    parser.add_argument("--m", type=int, nargs="+", default=[500])
    parser.add_argument("--d", type=int, default=256)
    parser.add_argument("--judge", nargs="+", default=["exact", "entropic"], choices=["exact", "entropic", "auto"])
    parser.add_argument("--whitening", default="cholesky")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    device = selection_device(options.device)
    print(f"on {torch.cuda.get_device_name(device) if device.type == 'cuda' else f'{torch.get_num_threads()} threads'}")
    with tempfile.TemporaryDirectory() as folder:
        for m in options.m:
            n = options.n or (40 if options.what == "stages" else 20) * m
            c, t = pool(Path(folder) / "candidates.npy", n, m, options.d)
            print(f"N = {n:,}, M = {m:,}, d = {options.d}")
            if options.what == "stages":
                stages(c, t, device)
            elif options.what == "otm":
                for judge in options.judge:
                    otm(c, t, judge, options.whitening, str(device))
            else:
                exact(c, t, options.whitening, str(device))


def pool(path: Path, n: int, m: int, d: int) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """Candidates as a float16 memory map [n, d], targets float32 [m, d]."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(CENTRES, d, generator=generator)

    def rows(count: int, kinds: int) -> torch.Tensor:
        which = torch.randint(0, kinds, (count,), generator=generator)
        return centres[which] + torch.randn(count, d, generator=generator)

    stored = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(n, d))
    for start in range(0, n, PART):
        stop = min(n, start + PART)
        stored[start:stop] = rows(stop - start, CENTRES).half().numpy()
    stored.flush()
    return np.load(path, mmap_mode="r", allow_pickle=False), rows(m, OF_TARGETS).numpy()


def measured(name: str, work: Callable[[], Any], note: Callable[[Any, float], str] = lambda *_: "") -> Any:
    """What the work gives; prints how long it took, and what `note` makes of that and of the seconds."""
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    clock, processor = time.perf_counter(), time.process_time()
    found = work()
    if gpu:
        torch.cuda.synchronize()
    seconds, busy = time.perf_counter() - clock, time.process_time() - processor
    peak = f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB"
    if gpu:
        peak += f", device {torch.cuda.max_memory_allocated() / 1e9:.1f} GB"
    print(f"  {name:28s} {seconds:8.2f} s ({busy:8.2f})  {note(found, seconds):34s} {peak}", flush=True)
    return found


def stages(c: NDArray[np.float16], t: NDArray[np.float32], device: torch.device) -> None:
    (n, d), m = c.shape, len(t)
    size = max(1, n // 10)
    measured("read", lambda: sum(1 for _ in blocks(c, device=device)), lambda _, s: f"{c.nbytes / s / 1e9:.2f} GB/s")
    whitener = measured(
        "moments, Cholesky",
        lambda: fit_whitener(c, t, device=device),
        lambda _, s: f"{2 * (n + m) * d * d / s / 1e12:.2f} TFLOP/s float64",
    )
    white, targets = measured(
        "whiten all rows",
        lambda: (
            torch.cat([whitener(block) for _, block in blocks(c, device=device)]),
            whitener(torch.from_numpy(t).to(device)),
        ),
        lambda _, s: f"{2 * (n + m) * d * d / s / 1e12:.2f} TFLOP/s float32",
    )
    _, index = measured(
        "neighbours, k = 32",
        lambda: nearest_unit(white, targets, 32),
        lambda _, s: f"{2 * n * m * d / s / 1e12:.2f} TFLOP/s float32",
    )
    chosen = white[index.unique()[:size].to(white.device)]
    measured(
        f"potentials of {len(chosen):,}",
        lambda: entropic_potentials(StreamedCost(chosen, targets, top=2.0)),
        lambda found, s: f"{found.iterations} passes, {len(chosen) * m * found.iterations / s / 1e9:.2f} pairs/ns",
    )
    measured(
        "tarot_fixed, all of it",
        lambda: (
            tarot.select(
                c, t, TarotFixed(size=size), whitening="cholesky", regularization=1e-3, device=str(device)
            ).weights
        ),
    )


def otm(c: NDArray[np.float16], t: NDArray[np.float32], judge: Any, whitening: Any, device: str) -> None:
    measured(
        f"tarot_otm, {judge}",
        lambda: tarot.select(c, t, TarotOTM(judge=judge), whitening=whitening, device=device),
        lambda s, _: f"S {len(s):,}, layers {sum(map(len, (s.curve or {}).get('ot_by_layer', [])))}",
    )


def exact(c: NDArray[np.float16], t: NDArray[np.float32], whitening: Any, device: str) -> None:
    for selector in (TarotFixed(size=3 * len(t) // 2), TarotExact(size=len(t)), TarotExact(size=3 * len(t) // 2)):
        name = f"{type(selector).__name__} S = {selector.size:,}"
        found = measured(name, lambda s=selector: tarot.select(c, t, s, whitening=whitening, device=device))  # type: ignore[misc]
        measured("  its OT distance", lambda s=found: s.ot_distance, lambda value, _: f"{value:.5f}")  # type: ignore[misc]


if __name__ == "__main__":
    main()
