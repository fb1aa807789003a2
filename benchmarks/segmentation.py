"""Gradient features of DeepLabV3 beside a plain forward and backward pass: their time, and the memory that they take.

    python benchmarks/segmentation.py                             # ResNet-50, 4 images of 512 x 1024: minutes on a CPU
    python benchmarks/segmentation.py --backbone mobilenet_v3_large --size 64 128 --batch 8
    python benchmarks/segmentation.py --device cuda

Each arm runs in a process of its own, arms taking turns, so that its peak memory is its own: on a CPU the resident set
of the process (ru_maxrss), and how much of it was there before the first pass; on a GPU what torch allocated.
Seconds are the median of the passes after the first, the ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import torch

from tarot.gradients import GradientFeatures, Projection
from tasks.segmentation.model import Architecture
from tasks.segmentation.scenes import IGNORE
from tasks.segmentation.task import SegmentationTask

ARMS = ("forward + backward", "features")


def resident() -> float:
    """GiB at most so far; Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(arm: str, options: argparse.Namespace) -> dict[str, object]:
    """Seconds of every pass but the first, peak memory in GiB and what of it was there before."""
    device = torch.device(options.device)
    torch.manual_seed(0)
    model = Architecture(options.backbone).build(19).to(device, memory_format=torch.channels_last).eval()
    images = torch.randn(options.batch, 3, *options.size, device=device).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 19, (options.batch, *options.size), device=device)
    labels[:, : options.size[0] // 8] = IGNORE
    losses = SegmentationTask.losses

    def plain() -> None:
        model.zero_grad(set_to_none=True)
        losses(None, model, (images, labels)).mean().backward()

    features = GradientFeatures(
        model, lambda model, batch: losses(None, model, batch), Projection("factored", options.dim)
    )
    work = plain if arm == ARMS[0] else lambda: features((images, labels))
    before, times = resident(), []
    for _ in range(options.rounds + 1):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else resident()
    return {"seconds": times[1:], "peak": peak, "before": 0.0 if device.type == "cuda" else before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50", choices=["resnet50", "mobilenet_v3_large"])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, nargs=2, default=[512, 1024], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3, help="passes of each arm, in each of its turns")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        print(json.dumps(measure(options.arm, options)))
        return
    found: dict[str, list[dict]] = {arm: [] for arm in ARMS}
    for _ in range(options.turns):
        for arm in ARMS:
            command = [sys.executable, *sys.argv, "--arm", arm]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[arm].append(json.loads(done.stdout.splitlines()[-1]))
    height, width = options.size
    print(
        f"DeepLabV3 {options.backbone}, {options.batch} x {height} x {width}, {options.dim} dims, {options.device}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    print(f"{'':20s}{'seconds':>10s}{'ratio':>8s}{'peak GiB':>10s}{'of passes':>11s}")
    floor = None
    for arm, results in found.items():
        seconds = statistics.median(second for result in results for second in result["seconds"])
        floor = floor or seconds
        peak, before = (max(result[key] for result in results) for key in ("peak", "before"))
        print(f"{arm:20s}{seconds:10.3f}{seconds / floor:8.2f}{peak:10.2f}{peak - before:11.2f}")


if __name__ == "__main__":
    main()
