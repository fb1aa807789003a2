"""The ground truth of attribution: what models trained on random subsets of the candidates say about the targets.

A task trains one such model (`MeasuresSubsets`), or many side by side where it is faster so (`StacksSubsets`). They are
shared out over the engine's workers, and over processes where that is this one. Every model's measurements are a file
of their own, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tarot import InputError
from tarot.common import fingerprint, make_folder, progress
from tarot.workers import LOCAL, Local, Workers
from tasks.common.cache import checked, made, remove_damaged
from tasks.common.code import parts_of, source_hash
from tasks.common.training import Surrogate, trainers
from tasks.task import MeasuresSubsets, StacksSubsets, Task, able

STACKED = 32  # models trained as one


@dataclass(frozen=True)
class _Job:
    """One model: trained on the candidates of `mask` (bool [N]); its measurements (float32 [M]) go to `path`."""

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
    task: Task,
    masks: np.ndarray,
    cache: Path,
    *,
    repeats: int = 1,
    workers: int | None = None,
    engine: Workers = LOCAL,
) -> np.ndarray:
    """Measurements of the targets by models trained on the masked candidates, float32 [m, M].

    masks: bool [m, N]. cache: where they are kept. A model's seed follows from its mask. repeats: models per subset,
    whose measurements are averaged. engine: whose workers train them. workers: processes on a CPU, where the engine is
    this process and models are not stacked; default one per core; 1: this one.
    """
    able(task, MeasuresSubsets)
    masks = np.asarray(masks)
    if masks.dtype != bool or masks.ndim != 2 or masks.shape[1] != len(task.candidates()):
        raise InputError(f"masks must be bool [m, {len(task.candidates())}]; they are {masks.dtype} {masks.shape}")
    if workers is not None and workers < 1:
        raise InputError(f"subset models are trained by 1 or more processes; workers is {workers}")
    folder = cache / "subset_models" / f"{task.name}-{fingerprint(_made_of(task))}"
    jobs = [_job(mask, repeat, folder) for mask in masks for repeat in range(repeats)]
    for job in jobs:
        remove_damaged(job.path)
    missing = list({job.path: job for job in jobs if not job.path.exists()}.values())
    with progress("subset models", len(jobs), "models") as advance:
        advance(len(jobs) - len(missing))
        for finished in _rounds(task, missing, workers, engine):
            advance(finished)
    outputs = np.stack([np.load(checked(job.path), allow_pickle=False) for job in jobs])
    return outputs.reshape(len(masks), repeats, -1).mean(axis=1)


def _rounds(task: Task, missing: Sequence[_Job], workers: int | None, engine: Workers) -> Iterator[int]:
    """Trains what is missing. Yields how many models were finished since it last did."""
    if not missing:
        return
    task.candidates(), task.targets()  # read before the task is sent to workers, not by each of them
    stacked = isinstance(task, StacksSubsets) and task.stacks_subsets()
    engine = trainers(engine)
    if isinstance(engine, Local) and not stacked:
        yield from _train_in_processes(task, missing, _workers(task, workers))
        return
    folder = missing[0].path.parent
    make_folder(folder)
    engine.shares(folder)
    yield from engine.map(_train_stack if stacked else _train, _stacks(missing) if stacked else missing, task)


def _made_of(task: Task) -> dict:
    """How many surrogates there are does not matter; how they are trained may."""
    many = {field.name for field in fields(Surrogate)}
    recipe = task.recipe()
    return {
        **recipe,
        "code": source_hash(*parts_of(task)),
        "surrogate": {key: value for key, value in recipe["surrogate"].items() if key not in many},
    }


def _workers(task: Task, workers: int | None) -> int:
    if task.device.type != "cpu":
        return 1  # models of several processes would only share it
    return workers or len(os.sched_getaffinity(0))


def _job(mask: np.ndarray, repeat: int, folder: Path) -> _Job:
    digest = hashlib.sha256(np.packbits(mask).tobytes() + repeat.to_bytes(4, "little"))
    return _Job(mask, int.from_bytes(digest.digest()[:4], "little"), folder / f"{digest.hexdigest()[:24]}.npy")


def _save(path: Path, outputs: Tensor) -> None:
    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.save(file, outputs.detach().cpu().float().numpy())

    made(path, write)


def _train_in_processes(task: Task, jobs: Sequence[_Job], workers: int) -> Iterator[int]:
    """Yields how many models were finished since it last did."""
    workers, done = min(workers, len(jobs)), 0
    if workers <= 1:
        for job in jobs:
            _save(job.path, able(task, MeasuresSubsets).subset_measurements(job.mask, job.seed))
            yield 1
        return
    # torch's spawn passes on a worker's exception, and interrupts the workers where this process is killed
    arguments = (task, jobs, workers)
    context = torch.multiprocessing.spawn(  # type: ignore[attr-defined]  # exported, which torch does not say
        _train_share, arguments, nprocs=workers, join=False
    )
    while not context.join(timeout=1):
        finished = sum(job.path.exists() for job in jobs)
        yield finished - done
        done = finished
    yield len(jobs) - done


def _train_share(worker: int, task: MeasuresSubsets, jobs: Sequence[_Job], workers: int) -> None:
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    for job in jobs[worker::workers]:
        if parent is not None and not parent.is_alive():  # killed, while interrupts are ignored (nohup, a shell's &)
            return
        _save(job.path, task.subset_measurements(job.mask, job.seed))


def _train(job: _Job, state: None, task: MeasuresSubsets) -> int:
    _save(job.path, task.subset_measurements(job.mask, job.seed))
    return 1


def _stacks(jobs: Sequence[_Job]) -> list[list[_Job]]:
    """Models of equal size, as many as are trained as one."""
    by_size: dict[int, list[_Job]] = {}
    for job in jobs:
        by_size.setdefault(int(job.mask.sum()), []).append(job)
    return [group[start : start + STACKED] for group in by_size.values() for start in range(0, len(group), STACKED)]


def _train_stack(jobs: Sequence[_Job], state: None, task: StacksSubsets) -> int:
    outputs = task.stacked_subset_measurements([job.mask for job in jobs], [job.seed for job in jobs])
    for job, output in zip(jobs, outputs, strict=True):
        _save(job.path, output)
    return len(jobs)
