"""What each random projection of gradients loses and takes: makes the table of docs/reference/gradients.md.

    python benchmarks/projections.py                                  # all models: minutes on one core
    python benchmarks/projections.py --models mlp --dims 512 1024 --kinds tensorsketch factored

Each model is trained briefly on its task's embedded data. Fidelity: cosine similarities of all pairs of --samples
candidates by projected gradients, beside those of whole ones: Spearman's correlation and the root mean square error,
means over --seeds projections. Cost: seconds of features / seconds of a plain forward and backward pass of the same
batch, which take turns in one process: seconds that the process worked, and the median of the turns' ratios.
What is measured is kept in --results, a line each, and not measured again.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from scipy.stats import spearmanr
from torch import Tensor, nn

from experiments.command.resolvers import register_resolvers
from tarot.gradients import GradientFeatures, Losses, Projection, batch_size, plan, take
from tasks.task import Task

KINDS = ("rademacher", "sjlt", "tensorsketch", "factored")
SHORT = ["task.surrogate.runs=1"]
PLACES = ["highway", "roundabout", "crossing", "parking"]
MOTION = ["task.surrogate.checkpoints=1", "task.train.steps=30"]
MOTION += [f"task.data.{split}=20" for split in ("targets", "validation", "test")]
MODELS = {
    "mlp": ("digits", []),
    "resnet9": ("cifar10", ["task.domain=plain", "task.train.steps=60", "task.train.autocast=null"]),
    "deeplabv3": ("segmentation", ["task.surrogate.checkpoints=1", "task.train.steps=15", "task.data.candidates=60"]),
    "llama-lora": ("instruction", ["task.surrogate.checkpoints=1", "task.pretraining.steps=50"]),
    "autobot": ("motion", [*MOTION, *(f"task.data.candidates.cand_{name}=40" for name in PLACES)]),
}
SAMPLES = {"deeplabv3": 32}  # whole gradients of more take more memory than a laptop has
BATCHES = {"mlp": 128, "resnet9": 64, "deeplabv3": 8, "llama-lora": 8, "autobot": 64}


@dataclass(frozen=True)
class Case:
    """A trained model, its losses, and a batch of candidates."""

    model: nn.Module
    losses: Losses
    batch: Any


def case_of(name: str, samples: int, cache: Path) -> Case:
    task_name, overrides = MODELS[name]
    root = Path(__file__).parents[1]
    with initialize_config_dir(str(root / "conf"), version_base="1.3"):
        config = compose("config", [f"task={task_name}", f"cache_dir={cache}", *SHORT, *overrides])
    task: Task = instantiate(config.task)
    model = task.model()
    model.load_state_dict(dict(task.checkpoints()[-1].state))
    candidates = task.candidates()
    chosen = np.linspace(0, len(candidates) - 1, samples).astype(int)
    return Case(model.eval(), task.losses, task.collate([candidates[int(i)] for i in chosen]))


def pieces(batch: Any) -> Iterator[Any]:
    samples = batch_size(batch)
    return (take(batch, start, min(samples, start + 16)) for start in range(0, samples, 16))


def cosines(features: Tensor) -> np.ndarray:
    products = (features @ features.T).double()
    norms = products.diag().sqrt()
    first, second = torch.triu_indices(len(features), len(features), 1)
    return (products / norms / norms[:, None])[first, second].numpy()


def whole(case: Case) -> dict[str, Tensor]:
    """Unprojected gradients, [samples, size] of each parameter."""
    features = GradientFeatures(case.model, case.losses, Projection("identity"))
    shapes = shapes_of(case)
    sizes = [math.prod(shape) for shape in shapes.values()]
    rows = torch.cat([features(piece) for piece in pieces(case.batch)])
    return dict(zip(shapes, rows.split(sizes, 1), strict=True))


def shapes_of(case: Case) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in case.model.named_parameters() if p.requires_grad}


def projected(gradients: dict[str, Tensor], projection: Projection, case: Case) -> Tensor:
    """What `GradientFeatures` makes in the pass, from gradients that exist; the tests say that they are the same."""
    layout = plan(projection, shapes_of(case))
    features = torch.zeros(len(next(iter(gradients.values()))), layout.width)
    for name, sketch in layout.sketches.items():
        features[:, layout.columns[name]] += sketch(gradients[name])
    return features


def fidelity(
    case: Case, gradients: dict[str, Tensor], true: np.ndarray, kind: str, dim: int, seeds: int
) -> dict[str, float]:
    found = [cosines(projected(gradients, Projection(kind, dim, seed), case)) for seed in range(seeds)]
    return {
        "spearman": float(np.mean([spearmanr(values, true).statistic for values in found])),
        "rmse": float(np.mean([np.sqrt(np.mean((values - true) ** 2)) for values in found])),
    }


def cost(case: Case, name: str, dim: int, kinds: list[str], rounds: int) -> dict[str, float]:
    """Ratios to a plain pass."""
    batch = take(case.batch, 0, BATCHES[name])

    def plain() -> None:
        case.model.zero_grad(set_to_none=True)
        case.losses(case.model, batch).mean().backward()

    arms: dict[str, Callable[[], object]] = {"plain": plain}
    for kind in kinds:
        features = GradientFeatures(case.model, case.losses, Projection(kind, dim))
        arms[kind] = lambda features=features: features(batch)
    times: dict[str, list[float]] = {arm: [] for arm in arms}
    for _ in range(rounds + 2):  # the first two check the rules, and fill what is kept
        for arm, work in arms.items():
            start = time.process_time()
            work()
            times[arm].append(time.process_time() - start)
    return {
        kind: statistics.median(a / b for a, b in zip(times[kind][2:], times["plain"][2:], strict=True))
        for kind in kinds
    }


def measure(name: str, options: argparse.Namespace, results: Path) -> None:
    known = read(results)
    missing = [
        (kind, dim) for dim in options.dims for kind in options.kinds if ("fidelity", name, kind, dim) not in known
    ]
    slow = [kind for kind in options.kinds if kind in ("rademacher", "sjlt")]
    costs = [dim for dim in options.cost_dims if ("cost", name, "tensorsketch", dim) not in known]
    if not missing and not costs:
        return
    case = case_of(name, SAMPLES.get(name, options.samples), options.cache)
    size = sum(p.numel() for p in case.model.parameters() if p.requires_grad)
    gradients = whole(case) if missing else {}
    true = cosines(torch.cat(list(gradients.values()), 1)) if missing else np.zeros(0)
    for kind, dim in missing:
        if dim >= size or (kind == "rademacher" and size * dim > options.largest):
            continue
        keep(
            results,
            "fidelity",
            name,
            kind,
            dim,
            {**fidelity(case, gradients, true, kind, dim, options.seeds), "parameters": size},
        )
    for dim in costs:
        kinds = [kind for kind in options.kinds if kind not in slow or size * dim < 5e7]
        for kind, ratio in cost(case, name, dim, kinds, options.rounds).items():
            keep(results, "cost", name, kind, dim, {"ratio": ratio})


def keep(results: Path, what: str, name: str, kind: str, dim: int, values: dict[str, float]) -> None:
    line = {"what": what, "model": name, "kind": kind, "dim": dim, **values}
    print(line, flush=True)
    with results.open("a") as file:
        file.write(json.dumps(line) + "\n")


def read(results: Path) -> dict[tuple[str, str, str, int], dict[str, Any]]:
    lines = results.read_text().splitlines() if results.exists() else []
    found = map(json.loads, lines)
    return {(line["what"], line["model"], line["kind"], line["dim"]): line for line in found}


def table(found: dict[tuple[str, str, str, int], dict[str, Any]], options: argparse.Namespace) -> None:
    print(f"\n| model | dims | {' | '.join(options.kinds)} |\n|---|---|{'---|' * len(options.kinds)}")
    for name in options.models:
        for dim in options.dims:
            cells = [found.get(("fidelity", name, kind, dim)) for kind in options.kinds]
            texts = [f"{cell['spearman']:.3f} ({cell['rmse']:.3f})" if cell else "" for cell in cells]
            print(f"| {name} | {dim:,} | {' | '.join(texts)} |")
        for dim in options.cost_dims:
            cells = [found.get(("cost", name, kind, dim)) for kind in options.kinds]
            texts = [f"{cell['ratio']:.2f}" if cell else "" for cell in cells]
            print(f"| {name}, cost | {dim:,} | {' | '.join(texts)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--dims", type=int, nargs="+", default=[128, 512, 1024, 2048, 8192])
    parser.add_argument("--cost-dims", type=int, nargs="*", default=[1024, 8192])
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--largest", type=float, default=3e8, help="numbers in a dense random matrix that is made")
    parser.add_argument("--results", type=Path, default=Path(tempfile.gettempdir()) / "tarot-projections.jsonl")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "tarot-projections")
    options = parser.parse_args()
    torch.set_num_threads(1)
    register_resolvers()
    for name in options.models:
        measure(name, options, options.results)
    table(read(options.results), options)


if __name__ == "__main__":
    main()
