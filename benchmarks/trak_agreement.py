"""Does our TRAK give the scores of the `traker` package on the same checkpoints?

python benchmarks/trak_agreement.py task=cifar10 --models 2          # wants TAROT_DATA; overrides work as with run.py
python benchmarks/trak_agreement.py task=digits --models 3 --own-projection

traker runs its whole pipeline: `vmap(grad)` of its own margin, features, scores, its residuals. Arm one hands it our
random matrix, so that every number can be compared. Arm two (--own-projection; slow) leaves it its own matrix: two
sketches then agree as far as sketches of this width do.
"""

from __future__ import annotations

import argparse
import tempfile
import time

import numpy as np
from attribution import load_task
from scipy.stats import spearmanr
from torch import Tensor
from torch.utils.data import DataLoader
from trak import TRAKer
from trak.projectors import AbstractProjector, BasicProjector, ProjectionType

from experiments.command.resolvers import register_resolvers
from tarot.attribution import trak_scores
from tarot.gradients import GradientFeatures, Plan, Projection, gradient_rows, plan
from tasks.classification.task import ClassificationTask


class OurSketch(AbstractProjector):
    """The matrix of `Projection("rademacher", dim, seed=model_id)`, as traker asks for it."""

    def __init__(self, task: ClassificationTask, dim: int) -> None:
        self.shapes = {name: tuple(p.shape) for name, p in task.model().named_parameters()}
        self.sketches: dict[int, Plan] = {}
        size = sum(p.numel() for p in task.model().parameters())
        super().__init__(size, dim, 0, ProjectionType.rademacher, "cpu")

    def project(self, grads: dict[str, Tensor], model_id: int) -> Tensor:
        if model_id not in self.sketches:  # of one model at a time: they hold their random matrix
            self.sketches = {model_id: plan(Projection("rademacher", self.proj_dim, seed=model_id), self.shapes)}
        sketch = self.sketches[model_id].sketches
        return sum(sketch[name](gradient.flatten(1)) for name, gradient in grads.items())

    def free_memory(self) -> None:
        self.sketches = {}


def of_traker(task: ClassificationTask, dim: int, projector: AbstractProjector) -> np.ndarray:
    candidates, targets = task.candidates(), task.targets()
    with tempfile.TemporaryDirectory() as folder:
        traker = TRAKer(
            task.model(),
            "image_classification",
            len(candidates),
            save_dir=folder,
            device="cpu",
            projector=projector,
            proj_dim=dim,
            use_half_precision=False,
        )
        for checkpoint in task.checkpoints():
            traker.load_checkpoint(checkpoint.state, model_id=checkpoint.run)
            for batch in DataLoader(candidates, batch_size=32):
                traker.featurize(batch, num_samples=len(batch[0]))
        traker.finalize_features()
        for checkpoint in task.checkpoints():
            traker.start_scoring_checkpoint("targets", checkpoint.state, checkpoint.run, len(targets))
            for batch in DataLoader(targets, batch_size=32):
                traker.score(batch, num_samples=len(batch[0]))
        return np.array(traker.finalize_scores("targets"))


def ours(task: ClassificationTask, dim: int) -> np.ndarray:
    model, rows = task.model(), {"candidates": [], "targets": [], "residuals": []}
    for checkpoint in task.checkpoints():
        model.load_state_dict(checkpoint.state)
        gradients = GradientFeatures(model, task.measurements, Projection("rademacher", dim, seed=checkpoint.run))
        extras = {"residual": task.residuals}
        candidates = gradient_rows(gradients, task.candidates(), range(len(task.candidates())), extras=extras)
        rows["candidates"].append(candidates["features"])
        rows["residuals"].append(candidates["residual"].numpy())
        rows["targets"].append(gradient_rows(gradients, task.targets(), range(len(task.targets())))["features"])
    return trak_scores(*rows.values(), rescale=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="of the configuration, such as task=digits")
    parser.add_argument("--models", type=int, default=2)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--own-projection", action="store_true")
    options = parser.parse_args()
    register_resolvers()
    task = load_task(options.overrides, options.models)
    size = sum(p.numel() for p in task.model().parameters())
    projectors: dict[str, AbstractProjector] = {"our random matrix": OurSketch(task, options.dim)}
    if options.own_projection:
        own = BasicProjector(size, options.dim, 0, ProjectionType.rademacher, "cpu")
        projectors["its own random matrix"] = own
    start = time.perf_counter()
    scores = ours(task, options.dim)
    print(f"{task.name}, {size:,} parameters, {options.models} models, {options.dim} dimensions, scores {scores.shape}")
    print(f"ours: {time.perf_counter() - start:.0f} s")
    for name, projector in projectors.items():
        start = time.perf_counter()
        theirs = of_traker(task, options.dim, projector) * size  # it divides gradients by sqrt(size)
        seconds = time.perf_counter() - start
        error = np.linalg.norm(scores - theirs) / np.linalg.norm(theirs)
        rank = np.median([spearmanr(a, b)[0] for a, b in zip(scores.T, theirs.T, strict=True)])
        print(f"traker, {name}: {seconds:.0f} s; relative difference {error:.1e}, median rank correlation {rank:.5f}")


if __name__ == "__main__":
    main()
