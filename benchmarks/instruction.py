"""Gradient features of LoRA adapters beside a plain forward and backward pass: their time, and the memory they take.

    python benchmarks/instruction.py                                  # a LLaMA of 5M parameters, 8 rows of 256 tokens
    python benchmarks/instruction.py --kind qwen2 --size small --adam
    python benchmarks/instruction.py --size 0.5b --batch 16 --length 512 --device cuda --dtype bfloat16

Plain is what a training step does: the adapters' gradients of the batch's mean loss. Weights are random, lengths are
between half of --length and all of it, padded on the right, and the second half of a row is learned. Arms take turns in
processes of their own, so that a peak is an arm's own: on a CPU the resident set of the process (ru_maxrss), on a GPU
what torch allocated. Seconds are the median of the passes after the first two; the ratio is that of the medians.
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
    times = []
    for _ in range(options.rounds + 2):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
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
    parser.add_argument("--length", type=int, default=256, help="tokens of the longest row")
    parser.add_argument("--dim", type=int, default=4096)
    parser.add_argument("--adam", action="store_true", help="LESS's Adam-preconditioned features, too")
    parser.add_argument("--rounds", type=int, default=10, help="passes of each arm, in each of its turns")
    parser.add_argument("--turns", type=int, default=3)
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
    every, learnt = found[ARMS[0]][0]["parameters"]
    print(
        f"{options.kind} of {every / 1e6:.1f}M parameters, {learnt / 1e6:.2f}M of them adapters, {options.attention}, "
        f"{options.batch} x {options.length} tokens, {options.dim} dims, {options.dtype}"
        f"{', autocast' if options.autocast else ''}, {options.device}, torch {torch.__version__}"
    )
    print(f"{'':20s}{'seconds':>10s}{'ratio':>8s}{'rows / s':>10s}{'peak GiB':>10s}")
    floor = None
    for arm, results in found.items():
        seconds = statistics.median(second for result in results for second in result["seconds"])
        floor = floor or seconds
        peak = max(result["peak"] for result in results)
        print(f"{arm:20s}{seconds:10.4f}{seconds / floor:8.2f}{options.batch / seconds:10.1f}{peak:10.2f}")


if __name__ == "__main__":
    main()
