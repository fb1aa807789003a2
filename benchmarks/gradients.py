"""Gradient features of the width-64 ResNet-9 (2.27M parameters, batch 128) beside a plain training step and TRAK.

    python benchmarks/gradients.py                          # CPU: plain forward + backward, ours, traker's CPU path
    python benchmarks/gradients.py --device cuda            # the same on a GPU
    python benchmarks/gradients.py --kinds factored sjlt    # other projections

Prints median and fastest seconds per batch and ratios, arms interleaved in one process. TRAK's arm is what its
featurizer does on a CPU: `vmap(grad)` of its output function, then `BasicProjector`, on as many samples as fit a
sensible time (--traker-samples); its own default is batches of 8 and there is no other CPU projector.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from tarot.gradients import GradientFeatures, Projection
from tasks.classification.models import resnet9

Batch = tuple[Tensor, Tensor]


def losses(model: nn.Module, batch: Batch) -> Tensor:
    images, labels = batch
    return functional.cross_entropy(model(images), labels, reduction="none")


def plain_step(model: nn.Module, batch: Batch) -> None:
    model.zero_grad(set_to_none=True)
    losses(model, batch).mean().backward()


def traker_features(model: nn.Module, batch: Batch, dim: int) -> Callable[[], Tensor]:
    """TRAK 0.3.2: per-sample gradients of the margin by vmap, one dense Rademacher projection of them."""
    from trak.gradient_computers import FunctionalGradientComputer
    from trak.modelout_functions import ImageClassificationModelOutput
    from trak.projectors import BasicProjector, ProjectionType

    size = sum(p.numel() for p in model.parameters())
    device = batch[0].device
    computer = FunctionalGradientComputer(model, ImageClassificationModelOutput(), size, torch.float32, device)
    projector = BasicProjector(size, dim, 0, ProjectionType.rademacher, device)
    computer.load_model_params(model)
    return lambda: projector.project(computer.compute_per_sample_grad(batch), model_id=0)


def timed(work: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--kinds", nargs="*", default=["factored"])
    parser.add_argument("--traker-samples", type=int, default=8, help="0 leaves TRAK out")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.manual_seed(0)
    model = resnet9(width=options.width).to(device).eval()
    batch = torch.randn(options.batch, 3, 32, 32, device=device), torch.randint(0, 10, (options.batch,), device=device)

    arms: dict[str, tuple[Callable[[], object], int]] = {
        "forward + backward": (lambda: plain_step(model, batch), options.batch)
    }
    for kind in options.kinds:
        features = GradientFeatures(model, losses, Projection(kind, options.dim))
        arms[f"{kind}, {features.dim} dims"] = (lambda features=features: features(batch), options.batch)
    if options.traker_samples:
        some = tuple(tensor[: options.traker_samples] for tensor in batch)
        arms[f"traker, {options.dim} dims"] = (traker_features(model, some, options.dim), options.traker_samples)

    times: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(options.rounds + 1):
        for name, (work, _) in arms.items():
            if not (name.startswith("traker") and len(times[name]) == 3):  # slow, and its ratio is not close
                times[name].append(timed(work, device))
    rows = {name: [t / arms[name][1] for t in values[1:]] for name, values in times.items()}  # the first warms up
    floor = rows["forward + backward"]
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {device}, batch {options.batch}")
    print(f"{'milliseconds per sample':28s}{'median':>10s}{'fastest':>10s}{'ratio of medians':>18s}{'of fastest':>12s}")
    for name, values in rows.items():
        median, fastest = statistics.median(values), min(values)
        ratios = median / statistics.median(floor), fastest / min(floor)
        print(f"{name:28s}{1e3 * median:10.3f}{1e3 * fastest:10.3f}{ratios[0]:18.2f}{ratios[1]:12.2f}")


if __name__ == "__main__":
    main()
