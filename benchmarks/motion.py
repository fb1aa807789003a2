"""Gradient features of the forecasters beside a plain forward and backward pass: their time, and how fast that is.

    python benchmarks/motion.py                             # both small ones, one thread, seconds
    python benchmarks/motion.py --models autobot wayformer --batch 2 --rounds 3      # of the paper's size: minutes
    python benchmarks/motion.py --models autobot wayformer --batch 64 --device cuda

The arms take turns in one process, so that what else the machine does weighs on both. Milliseconds are medians over the
rounds, the ratio is the median of the rounds' ratios, and samples per second are of the fastest plain pass.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from tarot.gradients import GradientFeatures, Projection
from tasks.motion.models import (
    MINI_AUTOBOT,
    MINI_LOSS,
    MINI_WAYFORMER,
    AutoBotArchitecture,
    WayformerArchitecture,
    autobot_losses,
    wayformer_losses,
)
from tasks.motion.views import MINI, PAPER_AUTOBOT, PAPER_WAYFORMER, Profile

MODELS = {
    "mini-autobot": (MINI_AUTOBOT, MINI, autobot_losses),
    "mini-wayformer": (MINI_WAYFORMER, MINI, wayformer_losses),
    "autobot": (AutoBotArchitecture(), PAPER_AUTOBOT, autobot_losses),
    "wayformer": (WayformerArchitecture(), PAPER_WAYFORMER, wayformer_losses),
}


def build(name: str) -> nn.Module:
    architecture, p, _ = MODELS[name]
    if isinstance(architecture, AutoBotArchitecture):
        return architecture.build(p.steps, p.horizon)
    return architecture.build(p.steps, p.horizon, p.agents, p.points)


def made_up(p: Profile, samples: int, device: torch.device) -> dict[str, Tensor]:
    """A batch of a profile's sizes, of which nine tenths are valid."""

    def numbers(*shape: int) -> Tensor:
        return 10 * torch.randn(samples, *shape, device=device)

    def mostly(*shape: int) -> Tensor:
        return torch.rand(samples, *shape, device=device) < 0.9

    return {
        "agents": numbers(p.agents, p.steps, p.agent_width),
        "agents_valid": mostly(p.agents, p.steps),
        "lanes": numbers(p.segments, p.points, 29),
        "lanes_valid": mostly(p.segments, p.points),
        "future": numbers(p.horizon, 4),
        "future_valid": mostly(p.horizon),
    }


def seconds(work: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def measure(name: str, options: argparse.Namespace) -> None:
    device = torch.device(options.device)
    torch.manual_seed(0)
    _, profile, loss = MODELS[name]
    model, batch = build(name).to(device).eval(), made_up(profile, options.batch, device)

    def losses(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return loss(model(batch), batch, MINI_LOSS)

    def plain() -> None:
        model.zero_grad(set_to_none=True)
        losses(model, batch).mean().backward()

    features = GradientFeatures(model, losses, Projection("factored", options.dim))
    arms = plain, lambda: features(batch)
    for work in arms:  # the first features are checked against autograd
        seconds(work, device)
    rounds = [[seconds(work, device) for work in arms] for _ in range(options.rounds)]
    slow = sum("per sample" in how for _, how in features.coverage.covered)
    floor, cost = (1e3 * statistics.median(times) for times in zip(*rounds, strict=True))
    ratio = statistics.median(b / a for a, b in rounds)
    fastest = options.batch / min(a for a, _ in rounds)
    size = sum(p.numel() for p in model.parameters())
    print(f"{name:16s}{size:12,d}{floor:12.1f}{cost:12.1f}{ratio:8.2f}{fastest:12.1f}{slow:16d}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["mini-autobot", "mini-wayformer"], choices=MODELS)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"batches of {options.batch}, {options.dim} dims, {options.device}, {options.threads} threads, "
        f"torch {torch.__version__}"
    )
    print(f"{'':16s}{'parameters':>12s}{'plain ms':>12s}{'features ms':>12s}{'ratio':>8s}{'samples/s':>12s}", end="")
    print(f"{'without a rule':>16s}")
    for name in options.models:
        measure(name, options)


if __name__ == "__main__":
    main()
