"""Selections judged by targets that did not select: half of the targets choose, the exact OT distance is to the others.

    python benchmarks/held_out.py otm      # the stops of tarot_otm: size, seconds, distance
    python benchmarks/held_out.py sizes    # methods at equal sizes, and importance resampling (DSIR-like) beside them
    python benchmarks/held_out.py worst    # noise, where the paper's stop does not end for minutes; takes long

Distances are between unit-norm rows, whitened (`otm`, `worst`) or as they are (`sizes`), of the space that selects. The
data are made here: Gaussian clusters of which the targets have some, noise, and gradients of a small network on scikit-
learn's digits whose targets are five of the ten classes.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import nn
from torch.nn import functional

import tarot
from tarot.selectors import Less, Random, Selector, TarotExact, TarotFixed, TarotOTM, Tsds

Rows = NDArray[np.float32]
Problem = tuple[Rows, Rows, Rows]  # candidates, targets that select, targets that judge

STOPS = {
    "layer before, one fold selects": TarotOTM(side="fold", stop="paper", tolerance=1e-4),
    "least so far, one fold selects": TarotOTM(side="fold"),
    "layer before, the others select": TarotOTM(stop="paper"),
    "default": TarotOTM(),
}


def clusters(seed: int, noise: float = 1.5, n: int = 4000, m: int = 300, d: int = 64) -> Problem:
    """Twenty centres, of which the targets have five."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(20, d))
    sides = [centres[generator.integers(kinds, size=k)] for kinds, k in ((20, n), (5, m))]
    c, t = ((side + noise * generator.normal(size=side.shape)).astype(np.float32) for side in sides)
    return c, t[: m // 2], t[m // 2 :]


def noise(seed: int, n: int, m: int, d: int) -> Problem:
    generator = np.random.default_rng(seed)
    c, t = (generator.normal(size=(k, d)).astype(np.float32) for k in (n, 2 * m))
    return c, t[:m], t[m:]


def digits(seed: int, dim: int = 512) -> Problem:
    """Gradients of a network trained on the candidates for 60 steps, projected to `dim`; 200 + 200 targets."""
    data = load_digits()
    order = np.random.default_rng(seed).permutation(len(data.data))
    x = torch.from_numpy((data.data[order] / 16).astype(np.float32))
    y = torch.from_numpy(data.target[order])
    of_targets = (y < 5).nonzero()[:400, 0]
    pool = torch.ones(len(y), dtype=torch.bool).index_fill(0, of_targets, False)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        batch = pool.nonzero()[torch.randint(int(pool.sum()), (64,)), 0]
        optimizer.zero_grad()
        functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
    g = _gradients(model, x, y)
    g = g @ torch.randn(g.shape[1], dim) / dim**0.5
    return g[pool].numpy(), g[of_targets[:200]].numpy(), g[of_targets[200:]].numpy()


def _gradients(model: nn.Sequential, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    def loss(parameters: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(torch.func.functional_call(model, parameters, (x[None],)), y[None])

    parameters = {name: p.detach() for name, p in model.named_parameters()}
    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, x, y)
    return torch.cat([g.flatten(1) for g in gradients.values()], dim=1)


def resampled(candidates: Rows, targets: Rows, size: int, seed: int) -> NDArray[np.int64]:
    """Importance resampling in the manner of DSIR (Xie et al., 2023): Gumbel top-k of log p(target) / p(candidate), by
    a shrunk linear discriminant."""
    both, side = np.concatenate([candidates, targets]), np.repeat([0, 1], [len(candidates), len(targets)])
    ratio = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(both, side).decision_function(candidates)
    drawn = ratio + np.random.default_rng(seed).gumbel(size=len(ratio))
    return np.argsort(-drawn)[:size]


def unit(rows: Rows) -> Rows:
    return np.asarray(tarot.whiten(rows, rows, method=None)[0])


def compare_stops(problems: Iterator[tuple[str, Problem]], arms: Sequence[str]) -> None:
    for name, (c, t, judges) in problems:
        space, of_judges = tarot.whiten(c, np.concatenate([t, judges]))
        for arm in arms:
            start = time.perf_counter()
            chosen = tarot.select(space, of_judges[: len(t)], STOPS[arm], whitening=None).indices
            took = time.perf_counter() - start
            distance = tarot.ot_distance(space[chosen], of_judges[len(t) :])
            print(f"{name:20s} {arm:32s} S {len(chosen):5d}  {took:6.1f} s  held out {distance:.4f}", flush=True)


def compare_sizes(problems: Iterator[tuple[str, Problem]], sizes: Sequence[int]) -> None:
    for name, (c, t, judges) in problems:
        rows, of_judges = unit(c), unit(judges)
        for size in sizes:
            arms: dict[str, tuple[Selector, str | None]] = {
                "random": (Random(size=size), None),
                "less": (Less(size=size), None),
                "tsds": (Tsds(size=size), None),
                "tarot_fixed": (TarotFixed(size=size), None),
                "tarot_fixed, smoothing=5": (TarotFixed(size=size, smoothing=5), None),
                "tarot_fixed, smoothing=auto": (TarotFixed(size=size, smoothing="auto"), None),
                "tarot_exact": (TarotExact(size=size), None),
                "tarot_exact, smoothing=auto": (TarotExact(size=size, smoothing="auto"), None),
            }
            chosen = {arm: tarot.select(c, t, s, whitening=w).indices for arm, (s, w) in arms.items()}
            chosen["importance resampling"] = resampled(rows, unit(t), size, 0)
            for arm, indices in chosen.items():
                print(f"{name:20s} S {size:5d} {arm:30s} {tarot.ot_distance(rows[indices], of_judges):.4f}", flush=True)


def ordinary(seeds: int) -> Iterator[tuple[str, Problem]]:
    for seed in range(seeds):
        yield f"digits/{seed}", digits(seed)
        for level in (1.0, 1.5, 2.5):
            yield f"clusters {level}/{seed}", clusters(seed, level)
        yield f"noise/{seed}", noise(seed, 2000, 100, 300)


def worst() -> Iterator[tuple[str, Problem]]:
    yield "noise 2000x100x2100", noise(0, 2000, 100, 2100)
    yield "noise 12000x285x256", noise(0, 12_000, 285, 256)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["otm", "sizes", "worst"])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.what == "sizes":
        compare_sizes(ordinary(options.seeds), (100, 300))
    else:
        compare_stops(ordinary(options.seeds) if options.what == "otm" else worst(), list(STOPS))
