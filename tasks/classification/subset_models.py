"""The ground truth of attribution: what models trained on random subsets say about the targets.

Perceptrons are trained side by side as one stacked model (and anything on a GPU); convolutional networks on a CPU one
per core, which is faster there: vmap turns their convolutions into grouped ones (measured on ResNet-9: 1527 against
1852 images a second and core at width 8, 535 against 678 at width 16, before channels_last and bfloat16, which only
the latter gain from). Every model's outputs are a file of their own, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional

from tarot import InputError
from tarot.files import atomic_file
from tarot.fingerprint import fingerprint
from tarot.progress import progress
from tasks.classification.task import ClassificationTask, Images
from tasks.common.training import Training, seeded

STACKED = 32  # models trained as one


@dataclass(frozen=True)
class _Job:
    """One model: trained on the images of `mask` (bool [N]); its outputs (float32 [M]) go to `path`."""

    mask: np.ndarray
    seed: int
    path: Path


def subset_masks(n: int, subsets: int, share: float = 0.5, seed: int = 0) -> np.ndarray:
    """bool [subsets, n]: each row holds exactly floor(share * n), drawn without replacement."""
    kept = int(share * n + 1e-9)
    if not 0 < kept < n:
        raise InputError(f"a share of {share} of {n} candidates is {kept}: there must be some in and some out")
    rng = np.random.default_rng(seed)
    return np.argsort(rng.random((subsets, n)), axis=1) < kept


def subset_outputs(
    task: ClassificationTask, masks: np.ndarray, *, repeats: int = 1, workers: int | None = None
) -> np.ndarray:
    """Margins of the targets under models trained on the masked candidates, float32 [m, M].

    masks: bool [m, N]. Each subset's model sees its images as many times as a model of all candidates would (so its
    steps are fewer in proportion); its seed follows from its mask. repeats: models per subset, whose margins are
    averaged. workers: processes for convolutional networks on a CPU; default one per core.
    """
    masks = np.asarray(masks)
    if masks.dtype != bool or masks.ndim != 2 or masks.shape[1] != len(task.candidates()):
        raise InputError(f"masks must be bool [m, {len(task.candidates())}]; they are {masks.dtype} {masks.shape}")
    recipe = {key: value for key, value in task.recipe().items() if key != "surrogate"}
    folder = task.cache_dir / "subset_models" / f"{task.name}-{fingerprint(recipe)}"
    jobs = [_job(mask, repeat, folder) for mask in masks for repeat in range(repeats)]
    missing = list({job.path: job for job in jobs if not job.path.exists()}.values())
    with progress("subset models", len(jobs), "models") as advance:
        advance(len(jobs) - len(missing))
        train = _train_stacked if _stackable(task) else _train_in_processes
        for finished in train(task, missing, workers or len(os.sched_getaffinity(0))):
            advance(finished)
    outputs = np.stack([np.load(job.path, allow_pickle=False) for job in jobs])
    return outputs.reshape(len(masks), repeats, -1).mean(axis=1)


def _job(mask: np.ndarray, repeat: int, folder: Path) -> _Job:
    digest = hashlib.sha256(np.packbits(mask).tobytes() + repeat.to_bytes(4, "little"))
    return _Job(mask, int.from_bytes(digest.digest()[:4], "little"), folder / f"{digest.hexdigest()[:24]}.npy")


def _stackable(task: ClassificationTask) -> bool:
    convolutional = any(isinstance(module, nn.Conv2d) for module in task.model().modules())
    return task.device.type == "cuda" or not convolutional


def _training(task: ClassificationTask, mask: np.ndarray) -> Training:
    return replace(task.training, steps=max(1, round(task.training.steps * mask.mean())))


def _save(path: Path, outputs: Tensor) -> None:
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        np.save(file, outputs.cpu().float().numpy())


# --- one model per process -------------------------------------------------------------------------------------------


def _train_in_processes(task: ClassificationTask, jobs: Sequence[_Job], workers: int) -> Iterator[int]:
    """Yields how many models were finished since it last did."""
    task.candidates()  # read before the task is sent to the workers, not by each of them
    workers, done = min(workers, len(jobs)), 0
    if not jobs:
        return
    # torch's spawn passes on a worker's exception, and interrupts the workers where this process is killed
    context = torch.multiprocessing.spawn(_train_share, (task, jobs, workers), nprocs=workers, join=False)
    while not context.join(timeout=1):
        finished = sum(job.path.exists() for job in jobs)
        yield finished - done
        done = finished
    yield len(jobs) - done


def _train_share(worker: int, task: ClassificationTask, jobs: Sequence[_Job], workers: int) -> None:
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    for job in jobs[worker::workers]:
        if (
            parent is not None and not parent.is_alive()
        ):  # it was killed, and interrupts are ignored (nohup, a shell's &)
            return
        _save(job.path, train_one(task, job.mask, job.seed))


def train_one(task: ClassificationTask, mask: np.ndarray, seed: int) -> Tensor:
    """Margins of the targets, [M], under one model trained on the masked candidates."""
    model, _ = task.fit(task.candidates(), mask.astype(np.int64), _training(task, mask), seed)
    images, labels = (tensor.to(task.device) for tensor in task.targets().batch(slice(None)))
    with torch.no_grad():
        return task.measurements(model, (images, labels))


# --- many models as one ----------------------------------------------------------------------------------------------


def _train_stacked(task: ClassificationTask, jobs: Sequence[_Job], workers: int) -> Iterator[int]:
    del workers
    by_size: dict[int, list[_Job]] = {}
    for job in jobs:
        by_size.setdefault(int(job.mask.sum()), []).append(job)
    for group in by_size.values():
        for start in range(0, len(group), STACKED):
            part = group[start : start + STACKED]
            outputs = train_stacked(task, [job.mask for job in part], [job.seed for job in part])
            for job, output in zip(part, outputs, strict=True):
                _save(job.path, output)
            yield len(part)


def train_stacked(task: ClassificationTask, masks: Sequence[np.ndarray], seeds: Sequence[int]) -> Tensor:
    """What `train_one` gives for each of k equally large masks, [k, M], from one training of k stacked models."""
    models = []
    for seed in seeds:
        with seeded(seed):
            models.append(task.model().to(task.device).train())
    training = _training(task, masks[0])
    parameters, buffers = stack_module_state(models)
    skeleton = models[0]

    def logits(parameters: dict[str, Tensor], buffers: dict[str, Tensor], images: Tensor) -> Tensor:
        return functional_call(skeleton, (parameters, buffers), (images,))

    def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        with training.precision(task.device):
            scores = logits(parameters, buffers, images)
        return functional.cross_entropy(scores.float(), labels, label_smoothing=training.label_smoothing)

    optimizer = training.make_optimizer(parameters.values())
    streams = [
        task.batches(task.candidates(), mask.astype(np.int64), training, seed)
        for mask, seed in zip(masks, seeds, strict=True)
    ]
    for step, batches in enumerate(islice(zip(*streams, strict=True), training.steps)):
        training.set_rate(optimizer, step)
        optimizer.zero_grad()
        vmap(loss)(parameters, buffers, *_stack(batches)).sum().backward()  # the models share no parameter
        optimizer.step()
    skeleton.eval()
    images, labels = (tensor.to(task.device) for tensor in task.targets().batch(slice(None)))

    def measure(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        return task.measurements(lambda inputs: logits(parameters, buffers, inputs), (images, labels))

    with torch.no_grad():
        return vmap(measure)(parameters, buffers)


def _stack(batches: Iterable[Images]) -> Images:
    images, labels = zip(*batches, strict=True)
    return torch.stack(images), torch.stack(labels)
