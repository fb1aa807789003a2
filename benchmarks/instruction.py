"""Gradient features of LoRA adapters beside a plain forward and backward pass: their time, and the memory they take.

    python benchmarks/instruction.py                                  # a LLaMA of 5M parameters, 8 rows of 128 tokens
    python benchmarks/instruction.py --size wide --rank 128           # of 0.1B's width, in two layers
    python benchmarks/instruction.py --kind qwen2 --size small --adam
    python benchmarks/instruction.py --size 0.5b --batch 16 --length 512 --device cuda --dtype bfloat16

Plain is what a training step does: the adapters' gradients of the batch's mean loss. Weights are random, lengths are
between half of --length and all of it, padded on the right, and the second half of a row is learned. Arms take turns
pass by pass in one process, so that what else the machine does slows all alike; the ratio is the median, over the
turns, of an arm's seconds to plain's. Seconds are, on a CPU, those that the process worked, on one thread; on a GPU
those that went by. Peaks are of processes of their own, an arm's each: on a CPU the resident set (ru_maxrss), on a GPU
what torch allocated.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch

from tarot.gradients import GradientFeatures, Projection, adam_features
from tasks.instruction.model import Adapter, Language
from tasks.instruction.tokens import IGNORE

SIZES = {  # hidden, layers, heads, key_heads, intermediate, vocabulary
    "tiny": (128, 4, 4, 2, 384, 512),
    "small": (256, 6, 8, 4, 768, 2048),
    "wide": (768, 2, 12, 4, 2048, 4096),
    "0.5b": (896, 24, 14, 2, 4864, 151936),
    "1b": (2048, 16, 32, 8, 8192, 128256),
}
ARMS = PLAIN, FEATURES, ADAM = ("forward + backward", "features", "features, Adam")


def model_of(options: argparse.Namespace) -> torch.nn.Module:
    hidden, layers, heads, key_heads, intermediate, vocabulary = SIZES[options.size]
    language = Language(
        kind=options.kind,
        hidden=hidden,
        layers=layers,
        heads=heads,
        key_heads=key_heads,
        intermediate=intermediate,
        context=max(512, options.length),
        attention=options.attention,
        dtype=options.dtype,
    )
    torch.manual_seed(0)
    model = language.build(vocabulary, Adapter(rank=options.rank, alpha=4 * options.rank))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return model.to(options.device).eval()


def batch_of(options: argparse.Namespace) -> dict[str, torch.Tensor]:
    vocabulary = SIZES[options.size][-1]
    ids = torch.randint(4, vocabulary, (options.batch, options.length))
    lengths = torch.linspace(options.length / 2, options.length, options.batch).long()
    place = torch.arange(options.length)
    learned = (place >= lengths[:, None] // 2) & (place < lengths[:, None])
    batch = {"input_ids": ids, "labels": ids.masked_fill(~learned, IGNORE)}
    return {name: tensor.to(options.device) for name, tensor in batch.items()}


def work_of(arms: Sequence[str], options: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """A pass of each arm, on the same model and batch."""
    if options.device == "cpu":
        torch.set_num_threads(1)
    model, batch, device = model_of(options), batch_of(options), torch.device(options.device)
    autocast = torch.bfloat16 if options.autocast else None
    projection = Projection("factored", options.dim)

    def losses(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return model.losses(batch["input_ids"], batch["labels"])

    def plain() -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast(device.type, autocast, enabled=autocast is not None):
            value = losses(model, batch).mean()
        value.backward()

    work: dict[str, Callable[[], object]] = {}
    for arm in arms:
        if arm == PLAIN:
            work[arm] = plain
        elif arm == FEATURES:
            work[arm] = partial(GradientFeatures(model, losses, projection, autocast=autocast), batch)
        else:
            state = {
                name: {"exp_avg": torch.randn_like(p), "exp_avg_sq": torch.rand_like(p), "step": torch.tensor(10.0)}
                for name, p in model.named_parameters()
                if p.requires_grad
            }
            work[arm] = partial(adam_features(model, losses, projection, state, autocast=autocast), batch)
    return work


def seconds(work: dict[str, Callable[[], object]], options: argparse.Namespace) -> dict[str, list[float]]:
    """Of every pass of each arm but its first two, the arms taking turns."""
    clock, times = time.process_time if options.device == "cpu" else time.perf_counter, {arm: [] for arm in work}
    for _ in range(options.rounds + 2):
        for arm, one_pass in work.items():
            start = clock()
            one_pass()
            if options.device != "cpu":
                torch.cuda.synchronize(options.device)
            times[arm].append(clock() - start)
    return {arm: found[2:] for arm, found in times.items()}


def peak(arm: str, options: argparse.Namespace) -> float:
    """GiB of a process that does nothing but this arm."""
    (one_pass,) = work_of([arm], options).values()
    for _ in range(2):
        one_pass()
    if options.device != "cpu":
        return torch.cuda.max_memory_allocated(options.device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", default="llama", choices=["llama", "qwen2"])
    parser.add_argument("--size", default="small", choices=list(SIZES))
    parser.add_argument("--attention", default="sdpa")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=128, help="tokens of the longest row")
    parser.add_argument("--dim", type=int, default=4096)
    parser.add_argument("--adam", action="store_true", help="LESS's Adam-preconditioned features, too")
    parser.add_argument("--rounds", type=int, default=20, help="passes of each arm")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="of the frozen weights")
    parser.add_argument("--autocast", action="store_true", help="forward passes in bfloat16")
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        print(peak(options.arm, options))
        return
    arms = ARMS if options.adam else ARMS[:2]
    peaks = {}
    for arm in arms:
        done = subprocess.run([sys.executable, *sys.argv, "--arm", arm], stdout=subprocess.PIPE, text=True, check=True)
        peaks[arm] = float(done.stdout.splitlines()[-1])
    times = seconds(work_of(arms, options), options)
    shapes = [(p.numel(), p.requires_grad) for p in model_of(options).parameters()]
    print(
        f"{options.kind} of {sum(n for n, _ in shapes) / 1e6:.1f}M parameters, "
        f"{sum(n for n, learns in shapes if learns) / 1e6:.2f}M of them adapters of rank {options.rank}, "
        f"{options.attention}, {options.batch} x {options.length} tokens, {options.dim} dims, {options.dtype}"
        f"{', autocast' if options.autocast else ''}, {options.device}, torch {torch.__version__}"
    )
    print(f"{'':20s}{'median s':>10s}{'least s':>10s}{'ratio':>8s}{'rows / s':>10s}{'peak GiB':>10s}")
    for arm, found in times.items():
        ratio = statistics.median(one / plain for one, plain in zip(found, times[PLAIN], strict=True))
        median = statistics.median(found)
        print(f"{arm:20s}{median:10.4f}{min(found):10.4f}{ratio:8.2f}{options.batch / median:10.1f}{peaks[arm]:10.2f}")


if __name__ == "__main__":
    main()
