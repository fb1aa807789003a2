"""LESS's candidate features: how much Adam's preconditioning costs, and how near the rank-1 mode comes to the formula.

    python benchmarks/less.py                       # CPU
    python benchmarks/less.py --device cuda --width 64 --batch 128

A ResNet-9 is trained on scikit-learn's digits (enlarged to 3 x 32 x 32) with AdamW and stopped at --steps. Prints
median and fastest milliseconds per sample, arms interleaved in one process, and, for each mode, cosines of its
unprojected features with the formula's and the rank correlation of LESS scores (cosine with the mean gradient of
held-back digits).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from tarot.gradients import GradientFeatures, OptimizerState, Projection, adam_features
from tasks.classification.models import resnet9

Batch = tuple[Tensor, Tensor]
IDENTITY = Projection("identity")
HELD_BACK = 1500  # digits from here on are the targets


def losses(model: nn.Module, batch: Batch) -> Tensor:
    images, labels = batch
    return functional.cross_entropy(model(images), labels, reduction="none")


def digits(device: torch.device) -> Batch:
    images, labels = load_digits(return_X_y=True)
    small = torch.tensor(images / 16, dtype=torch.float32).view(-1, 1, 8, 8).expand(-1, 3, -1, -1)
    return functional.interpolate(small, size=32).to(device), torch.tensor(labels).to(device)


def train(model: nn.Module, data: Batch, steps: int) -> OptimizerState:
    """AdamW in batches of 64; its state by parameter name."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()
    for _ in range(steps):
        chosen = torch.randint(HELD_BACK, (64,), device=data[1].device)
        optimizer.zero_grad()
        losses(model, (data[0][chosen], data[1][chosen])).mean().backward()
        optimizer.step()
    model.eval()
    return {name: dict(optimizer.state[parameter]) for name, parameter in model.named_parameters()}


def plain_step(model: nn.Module, batch: Batch) -> None:
    model.zero_grad(set_to_none=True)
    losses(model, batch).mean().backward()


def timed(work: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def speed(model: nn.Module, batch: Batch, state: OptimizerState, dim: int, rounds: int) -> None:
    projection, device, samples = Projection("factored", dim), batch[1].device, len(batch[1])
    engines: dict[str, Callable[[Batch], Tensor]] = {"plain features": GradientFeatures(model, losses, projection)}
    for mode in "adam_rank1", "adam", "adam_released":
        engines[mode] = adam_features(model, losses, projection, state, mode=mode)
    arms: dict[str, Callable[[], object]] = {"forward + backward": lambda: plain_step(model, batch)}
    arms |= {name: lambda engine=engine: engine(batch) for name, engine in engines.items()}
    times: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(rounds + 1):
        for name, work in arms.items():
            times[name].append(timed(work, device) / samples)
    floor = [times["plain features"][1:], times["forward + backward"][1:]]  # the first round warms up
    print(
        f"{'milliseconds per sample':26s}{'median':>9s}{'fastest':>9s}   median ratio to plain, to forward + backward"
    )
    for name, (_, *values) in times.items():
        median = statistics.median(values)
        ratios = "".join(f"{median / statistics.median(of):12.2f}" for of in floor)
        print(f"{name:26s}{1e3 * median:9.3f}{1e3 * min(values):9.3f}{ratios}")


def nearness(model: nn.Module, batch: Batch, targets: Batch, state: OptimizerState) -> None:
    plain = GradientFeatures(model, losses, IDENTITY)
    target = torch.cat([plain(part) for part in zip(*(t.split(32) for t in targets), strict=True)]).mean(0)[None]
    engines = {"plain": plain} | {
        mode: adam_features(model, losses, IDENTITY, state, mode=mode) for mode in ("adam_rank1", "adam_released")
    }
    exact = adam_features(model, losses, IDENTITY, state)(batch)
    scores = torch.cosine_similarity(exact, target).cpu()
    print(f"\n{'nearness to adam':26s}{'median cos':>12s}{'10th percentile':>17s}{'score Spearman':>16s}")
    for name, engine in engines.items():
        features = engine(batch)
        near = torch.cosine_similarity(exact, features)
        rank = spearmanr(scores, torch.cosine_similarity(features, target).cpu()).statistic
        print(f"{name:26s}{near.median():12.3f}{near.quantile(0.1):17.3f}{rank:16.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, nargs="*", default=[30])
    options = parser.parse_args()
    device = torch.device(options.device)
    data = digits(device)
    batch = tuple(tensor[: options.batch] for tensor in data)
    targets = tuple(tensor[HELD_BACK : HELD_BACK + 64] for tensor in data)
    for position, steps in enumerate(options.steps):
        torch.manual_seed(0)
        model = resnet9(width=options.width).to(device)
        state = train(model, data, steps)
        if position == 0:
            count = sum(p.numel() for p in model.parameters())
            print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {device}, {count} parameters")
            speed(model, batch, state, options.dim, options.rounds)
        print(f"\nafter {steps} steps of AdamW", end="")
        nearness(model, batch, targets, state)


if __name__ == "__main__":
    main()
