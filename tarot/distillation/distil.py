"""`tarot.distill`: a classifier and its images in, a few images for each class out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from tarot.common import Count, InputError, Natural, atomic_file, checked, resolve_device
from tarot.distillation.distilled import Distilled
from tarot.distillation.per_class import ClassStatistics, Survey, surveyed
from tarot.distillation.synthesis import Arrays, Nowhere, Pixels, Synthesis, Task, synthesise
from tarot.features import BAD_NPZ, PartRows
from tarot.transport import Barycenter, barycenter, matched
from tarot.workers import LOCAL, Workers, check_workers


class Images(Protocol):
    """uint8 [n, channels, H, W], in memory or read as asked for: `images[int array]` gives [k, channels, H, W]."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, index: Any) -> Any: ...


@checked()
def distill(
    model: nn.Module,
    images: Images,
    labels: ArrayLike,
    *,
    per_class: Count,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    names: Sequence[str] | None = None,
    weights: Literal["uniform", "free"] = "uniform",
    starts: Count | None = None,
    synthesis: Synthesis | None = None,
    cache: str | os.PathLike[str] | None = None,
    batch_size: Count = 256,
    device: str = "auto",
    seed: Natural = 0,
    engine: Workers = LOCAL,
) -> Distilled:
    """`per_class` images of each class that train a network nearly as well as all of them (theory.md 12.3).

    model: a trained classifier with BatchNorm layers and a last linear layer; it is in eval mode meanwhile, and
    afterwards as it was. images: uint8 [n, channels, H, W]. labels: int [n], 0..C-1.
    mean, std: per channel, of pixels from 0 to 1, that the model was trained with; None: 0 and 1. names: of classes.
    weights, starts: of the barycenter of each class's features. synthesis: how images are made; None: as `Synthesis()`
    says. cache: a folder in which finished chunks of classes are kept, so that a call that was killed goes on.
    device: where the model is while images are made; "auto" is a GPU where there is one. engine: whose workers make the
    chunks, such as `tarot.workers.Ray(workers=8, gpus=1)`; each has a copy of the model.
    Raises InputError for a class of fewer images than `per_class`, a model without what is needed, and numbers that are
    not finite.
    """
    check_workers(engine)
    options = synthesis or Synthesis()
    shape = tuple(images.shape)
    if len(shape) != 4:
        raise InputError(f"images must be uint8 [n, channels, height, width]; their shape is {shape}")
    classes = _labels(labels, shape[0])
    known = tuple(names) if names is not None else tuple(str(number) for number in range(int(classes.max()) + 1))
    check_classes(classes, known, per_class)
    pixels = Pixels(_per_channel(mean, shape[1], 0.0, "mean"), _per_channel(std, shape[1], 1.0, "std"))
    place = resolve_device(device)
    home = next(model.parameters()).device
    try:
        model.to(place)
        survey = surveyed(model, batches_of(images, classes, pixels, batch_size, place), known)
        barycenters = class_barycenters(survey, classes, per_class, weights, starts, seed)
        coreset = matched_images(survey, classes, barycenters)
        init = images_of(images, initial(options, coreset, classes, seed))
        task = task_of(barycenters, survey.statistics, init, known)
        keep = Nowhere() if cache is None else InFolder(Path(cache))
        made = synthesise(model, task, pixels, options, seed=seed, device=place, keep=keep, engine=engine)
    finally:
        model.to(home)
    return Distilled(
        made.images.reshape(-1, *shape[1:]),
        np.repeat(np.arange(len(known)), per_class),
        task.weights.ravel(),
        known,
        coreset.ravel(),
        task.atoms.reshape(-1, task.atoms.shape[2]),
        np.array([found.cost for found in barycenters]),
        made.curve,
    )


# --- the steps -------------------------------------------------------------------------------------------------------


def check_classes(labels: NDArray[np.int64], names: Sequence[str], per_class: int) -> None:
    """Raises InputError unless labels are 0..C-1 and every class has `per_class` images or more."""
    wrong = labels[(labels < 0) | (labels >= len(names))]
    if len(wrong):
        raise InputError(f"labels must be 0 to {len(names) - 1}; there is the label {wrong[0]}")
    counts = np.bincount(labels, minlength=len(names))
    few = np.flatnonzero(counts < per_class)
    if len(few):
        raise InputError(
            f"class {names[few[0]]} has {counts[few[0]]} images, and {per_class} are wanted of each class: lower "
            "per_class, or add images"
        )


def batches_of(
    images: Images, labels: NDArray[np.int64], pixels: Pixels, batch_size: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """All images in order, as the model is given them, with their labels."""
    for start in range(0, len(labels), batch_size):
        which = np.arange(start, min(start + batch_size, len(labels)))
        batch = np.asarray(images[which])
        if batch.dtype != np.uint8:
            raise InputError(f"images must be uint8; those from {start} on are {batch.dtype}")
        yield pixels.normalised(batch).to(device), torch.from_numpy(labels[which])


def class_barycenters(
    survey: Survey,
    labels: NDArray[np.int64],
    per_class: int,
    weights: Literal["uniform", "free"],
    starts: int | None,
    seed: int,
) -> list[Barycenter]:
    """Of each class's features; that of a class does not depend on the others."""
    return [
        barycenter(
            survey.features[labels == number],
            per_class,
            weights,
            starts=starts,
            seed=int(np.random.SeedSequence((seed, number)).generate_state(1)[0]),
        )
        for number in range(len(survey.statistics.counts))
    ]


def matched_images(survey: Survey, labels: NDArray[np.int64], barycenters: Sequence[Barycenter]) -> NDArray[np.int64]:
    """The image that each atom is matched with, int64 [C, m]."""
    found = []
    for number, one in enumerate(barycenters):
        members = np.flatnonzero(labels == number)
        found.append(members[matched(PartRows(survey.features, members), one)])
    return np.stack(found)


def initial(options: Synthesis, coreset: NDArray[np.int64], labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """The images that synthesis starts from, int64 [C, m]; of noise they say the shape alone."""
    return drawn_by_class(labels, len(coreset), coreset.shape[1], seed) if options.init == "random" else coreset


def drawn_by_class(labels: NDArray[np.int64], classes: int, per_class: int, seed: int) -> NDArray[np.int64]:
    """Images of each class, drawn by (seed, class): int64 [C, m]."""
    drawn = [
        np.random.default_rng((seed, number)).choice(np.flatnonzero(labels == number), per_class, replace=False)
        for number in range(classes)
    ]
    return np.stack(drawn)


def images_of(images: Images, which: NDArray[np.int64]) -> NDArray[np.uint8]:
    """uint8 [C, m, channels, H, W] of indices [C, m]."""
    found: NDArray[np.uint8] = np.asarray(images[which.ravel()])
    return found.reshape(*which.shape, *found.shape[1:])


def task_of(
    barycenters: Sequence[Barycenter], statistics: ClassStatistics, init: NDArray[np.uint8], names: Sequence[str]
) -> Task:
    return Task(
        np.stack([one.positions for one in barycenters]),
        np.stack([one.weights for one in barycenters]),
        statistics,
        init,
        names,
    )


def _labels(labels: ArrayLike, n: int) -> NDArray[np.int64]:
    given = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    if given.shape != (n,) or given.dtype.kind not in "iu":
        raise InputError(
            f"labels must be integers, one for each of {n} images; they are {given.dtype} of shape {given.shape}"
        )
    return given.astype(np.int64)


def _per_channel(given: Sequence[float] | None, channels: int, default: float, name: str) -> tuple[float, ...]:
    if given is None:
        return (default,) * channels
    numbers = tuple(float(number) for number in given)
    if len(numbers) != channels or not np.isfinite(numbers).all() or (name == "std" and min(numbers) <= 0):
        above = ", above 0" if name == "std" else ""
        raise InputError(f"{name} must be {channels} numbers{above}, one per channel; it is {given!r}")
    return numbers


@dataclass(frozen=True)
class InFolder:
    """Chunks as files of a folder."""

    folder: Path

    def has(self, name: str) -> bool:
        return self._path(name).exists()

    def __call__(self, name: str, make: Callable[[], Arrays]) -> Arrays:
        path = self._path(name)
        if not path.exists():
            arrays: Any = make()
            with atomic_file(path) as temporary, open(temporary, "wb") as file:
                np.savez(file, **arrays)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return dict(arrays)
        except BAD_NPZ as error:
            raise InputError(f"{path} is damaged ({error}); delete it to have it made again") from error

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npz"
