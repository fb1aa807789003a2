"""Does the tempered estimator predict subset models better than TRAK, at TRAK's best ridge too? Makes docs/lds.md.

python benchmarks/attribution.py task=digits --seeds 0 1 2 3 4
python benchmarks/attribution.py task=cifar10 --seeds 0 1        # wants TAROT_DATA; overrides work as with run.py

Of the subset models, the first `--held-back` choose the ridge and beta of the tempered estimator; the LDS is of the
others. TRAK's ridge is the best on those others themselves: no way of choosing it can do better.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from experiments.command.resolvers import register_resolvers
from tarot.attribution import LDS, choose, gradcos_scores, graddot_scores, lds, tempered_scores, trak_scores, wfd_scores
from tarot.gradients import GradientFeatures, Projection, gradient_rows
from tasks.classification.task import ClassificationTask
from tasks.common.subset_models import subset_masks, subset_outputs

RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
BETAS = (0.0, 0.25, 0.5, 0.75, 1.0)
Scores = Callable[..., np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("overrides", nargs="*", help="of the configuration, such as task=digits")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--ensembles", type=int, nargs="+", default=[1, 2, 5, 10])
    parser.add_argument("--subsets", type=int, default=120, help="subset models, the held-back ones among them")
    parser.add_argument("--held-back", type=int, default=20)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--workers", type=int, default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    register_resolvers()
    for seed in options.seeds:
        task = load_task([*options.overrides, f"seed={seed}"], max(options.ensembles))
        masks = subset_masks(len(task.candidates()), options.subsets, seed=seed)
        outputs = subset_outputs(task, masks, task.cache_dir, workers=options.workers)
        features = {kind: gradients(task, kind, options.dim, seed) for kind in ("measurement", "loss")}
        for models in options.ensembles:
            back = options.held_back
            held, reported = (masks[:back], outputs[:back]), (masks[back:], outputs[back:])
            report(features, models, held, reported, f"{task.name} seed {seed}, {models} models")


def load_task(overrides: Sequence[str], models: int) -> ClassificationTask:
    with initialize_config_dir(str(Path(__file__).parents[1] / "conf"), version_base="1.3"):
        config = compose("config", [*overrides, "task.domain=plain", f"task.surrogate.runs={models}"])
    return instantiate(config.task)


def gradients(task: ClassificationTask, kind: str, dim: int, seed: int) -> dict[str, list[np.ndarray]]:
    """Projected gradients of all surrogates, each with a projection of its own, and the candidates' residuals."""
    losses = task.measurements if kind == "measurement" else task.losses
    rows: dict[str, list[np.ndarray]] = {"candidates": [], "targets": [], "residuals": []}
    model = task.model().to(task.device)
    for checkpoint in task.checkpoints():
        model.load_state_dict(checkpoint.state)
        features = GradientFeatures(model, losses, Projection("factored", dim, seed=1000 * seed + checkpoint.run))
        for split, images in (("candidates", task.candidates()), ("targets", task.targets())):
            extras = {"residual": task.residuals} if split == "candidates" else {}
            columns = gradient_rows(features, images, range(len(images)), extras=extras)
            rows[split].append(columns["features"].numpy())
            rows["residuals"] += [columns["residual"].numpy()] if extras else []
    return rows


def report(
    features: dict[str, dict[str, list[np.ndarray]]],
    models: int,
    held: tuple[np.ndarray, np.ndarray],
    reported: tuple[np.ndarray, np.ndarray],
    title: str,
) -> None:
    margin, loss = ([rows[:models] for rows in features[kind].values()] for kind in ("measurement", "loss"))
    n, d = margin[0][0].shape
    trak = {ridge: lds(trak_scores(*margin, regularization=ridge), *reported) for ridge in ((0.0,) * (n > d) + RIDGES)}
    best = max(trak, key=lambda ridge: float(trak[ridge]))
    ours = partial(tempered_scores, *margin)
    choice = choose(ours, {"beta": BETAS, "regularization": RIDGES}, *held)
    chosen = lds(choice.scores, *reported)
    lines = {
        "gradcos": lds(gradcos_scores(*loss[:2]), *reported),
        "graddot": lds(graddot_scores(*loss[:2]), *reported),
        "wfd": lds(wfd_scores(*loss[:2]), *reported),
        "trak": trak.get(0.0),
        f"trak, its best ridge {best:g}": trak[best],
        "tempered, defaults": lds(ours(), *reported),
        f"tempered, beta {choice.options['beta']:g} ridge {choice.options['regularization']:g}": chosen,
    }
    print(f"\n{title}: LDS of {len(reported[0])} subset models, options chosen on {len(held[0])} others")
    for name, value in lines.items():
        print(f"  {name:34} {interval(value)}")
    mean, low, high = chosen.minus(trak[best])
    print(f"  tempered less trak at its best     {mean:+.3f} [{low:+.3f}, {high:+.3f}]")
    print("  ablation, rows beta, columns ridge " + " ".join(f"{ridge:6g}" for ridge in RIDGES))
    for beta in BETAS:
        values = (float(lds(ours(beta=beta, regularization=r), *reported, bootstrap=1)) for r in RIDGES)
        print(f"  {beta:34g} " + " ".join(f"{value:6.3f}" for value in values), flush=True)


def interval(value: LDS | None) -> str:
    return "singular" if value is None else f"{value.mean:.3f} [{value.low:.3f}, {value.high:.3f}]"


if __name__ == "__main__":
    main()
