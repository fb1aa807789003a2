"""Gradient features of LoRA adapters beside a plain forward and backward pass: their time, and the memory they take.

    python benchmarks/instruction.py                                  # a LLaMA of 5M parameters, 8 rows of 128 tokens
    python benchmarks/instruction.py --size wide --rank 128           # of 0.1B's width, in two layers
    python benchmarks/instruction.py --kind qwen2 --size small --adam
    python benchmarks/instruction.py --size 0.5b --batch 16 --length 512 --device cuda --dtype bfloat16

Plain is what a training step does: the adapters' gradients of the batch's mean loss. Weights are random, lengths are
between half of --length and all of it, padded on the right, and the second half of a row is learned. Arms take turns in
processes of their own, so that a peak is an arm's own: on a CPU the resident set of the process (ru_maxrss), on a GPU
what torch allocated. Seconds are the median and the least of all passes but the first two of a process: on a CPU those
that it worked, on one thread, whatever else the machine does; on a GPU those that went by. Both have a ratio.
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

from tarot.gradients import GradientFeatures
from tarot.preconditioning import adam_features
from tarot.projection import Projection
from tasks.instruction.model import IGNORE, Adapter, Language

SIZES = {  # hidden, layers, heads, key_heads, intermediate, vocabulary
    "tiny": (128, 4, 4, 2, 384, 512),
    "small": (256, 6, 8, 4, 768, 2048),
    "wide": (768, 2, 12, 4, 2048, 4096),
    "0.5b": (896, 24, 14, 2, 4864, 151936),
    "1b": (2048, 16, 32, 8, 8192, 128256),
}
ARMS = ("forward + backward", "features", "features, Adam")


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


def measure(arm: str, options: argparse.Namespace) -> dict[str, object]:
    """Seconds of every pass but the first two, and the peak memory in GiB."""
    if options.device == "cpu":
        torch.set_num_threads(1)
    model, batch, device = model_of(options), batch_of(options), torch.device(options.device)
    autocast = torch.bfloat16 if options.autocast else None

    def losses(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return model.losses(batch["input_ids"], batch["labels"])

    def plain() -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast(device.type, autocast, enabled=autocast is not None):
            value = losses(model, batch).mean()
        value.backward()

    projection = Projection("factored", options.dim)
    if arm == ARMS[0]:
        work = plain
    elif arm == ARMS[1]:
        features = GradientFeatures(model, losses, projection, autocast=autocast)
        work = lambda: features(batch)  # noqa: E731
    else:
        state = {
            name: {"exp_avg": torch.randn_like(p), "exp_avg_sq": torch.rand_like(p), "step": torch.tensor(10.0)}
            for name, p in model.named_parameters()
            if p.requires_grad
        }
        preconditioned = adam_features(model, losses, projection, state, autocast=autocast)
        work = lambda: preconditioned(batch)  # noqa: E731
    times, clock = [], time.process_time if device.type == "cpu" else time.perf_counter
    for _ in range(options.rounds + 2):
        start = clock()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(clock() - start)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else resident
    parameters = (
        sum(p.numel() for p in model.parameters()),
        sum(p.numel() for p in model.parameters() if p.requires_grad),
    )
    return {"seconds": times[2:], "peak": peak, "parameters": parameters}


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
    parser.add_argument("--rounds", type=int, default=10, help="passes of each arm, in each of its turns")
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="of the frozen weights")
    parser.add_argument("--autocast", action="store_true", help="forward passes in bfloat16")
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        print(json.dumps(measure(options.arm, options)))
        return
    arms = ARMS if options.adam else ARMS[:2]
    found: dict[str, list[dict]] = {arm: [] for arm in arms}
    for _ in range(options.turns):
        for arm in arms:
            command = [sys.executable, *sys.argv, "--arm", arm]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[arm].append(json.loads(done.stdout.splitlines()[-1]))
    size, learnt = (count / 1e6 for count in found[ARMS[0]][0]["parameters"])
    print(
        f"{options.kind} of {size:.1f}M parameters, {learnt:.2f}M of them adapters, {options.attention}, "
        f"{options.batch} x {options.length} tokens, {options.dim} dims, {options.dtype}"
        f"{', autocast' if options.autocast else ''}, {options.device}, torch {torch.__version__}"
    )
    print(f"{'':20s}{'median s':>10s}{'ratio':>8s}{'least s':>10s}{'ratio':>8s}{'rows / s':>10s}{'peak GiB':>10s}")
    floor: tuple[float, float] | None = None
    for arm, results in found.items():
        every = [second for result in results for second in result["seconds"]]
        median, least = statistics.median(every), min(every)
        floor = floor or (median, least)
        peak = max(result["peak"] for result in results)
        print(
            f"{arm:20s}{median:10.4f}{median / floor[0]:8.2f}{least:10.4f}{least / floor[1]:8.2f}"
            f"{options.batch / median:10.1f}{peak:10.2f}"
        )


if __name__ == "__main__":
    main()
