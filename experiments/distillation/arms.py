"""The arms: how a few images for each class are come by. Every one is a function of the pool, m and the seed."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

import tarot
from experiments.distillation.pool import Pool
from tarot import InputError, Synthesis
from tarot.common import hash_tensors
from tarot.distillation import drawn_by_class, images_of, initial, synthesise, task_of, watched
from tarot.selectors import Herding, KCenter
from tasks.classification import ImageSet
from tasks.common.cache import cached_arrays
from tasks.common.code import source_hash

log = logging.getLogger("tarot")
SYNTHETIC = ("wmdd", "wmdd_noise", "wmdd_released", "sre2l")
_SEEN = 300  # real images of each class that RDED looks at
_CROPS = 5  # of each of them
_LARGE = 48  # pixels from which on RDED stitches four crops into an image


@dataclass(frozen=True, eq=False)
class Few:
    """images: uint8 [C m, channels, H, W], in the order of classes. weights: float64 [C m], of sum 1 in each class.
    curve: of the synthesis, float64 [iterations, 3]; empty where there was none."""

    images: np.ndarray
    weights: np.ndarray
    curve: np.ndarray

    @property
    def fingerprint(self) -> str:
        return hash_tensors({"images": torch.from_numpy(self.images), "weights": torch.from_numpy(self.weights)})

    def as_images(self, pool: Pool, arm: str, per_class: int) -> ImageSet:
        """As images of the task, with ids such as distilled-cat-0 and the arm for a tag."""
        names = pool.names
        labels = np.repeat(np.arange(len(names)), per_class)
        ids = np.array([f"distilled-{names[label]}-{i % per_class}" for i, label in enumerate(labels)])
        tags = np.full(len(ids), arm)
        return ImageSet(self.images, labels, ids, tags, pool.images.mean, pool.images.std)


def real(pool: Pool, which: np.ndarray, weights: np.ndarray | None = None) -> Few:
    """The candidates [C, m], all alike or of these weights."""
    alike = np.full(which.shape, 1 / which.shape[1])
    images = images_of(pool.bytes, which)
    shares = alike if weights is None else weights
    return Few(images.reshape(-1, *images.shape[2:]), shares.ravel(), np.zeros((0, 3)))


def _random(pool: Pool, per_class: int, seed: int, _: Synthesis) -> Few:
    return real(pool, drawn_by_class(pool.labels, len(pool.names), per_class, seed))


def _coreset(pool: Pool, per_class: int, seed: int, _: Synthesis) -> Few:
    weights = np.stack([one.weights for one in pool.barycenters(per_class, seed)])
    return real(pool, pool.matched(per_class, seed), weights)


def _selected(selector: Any, pool: Pool, per_class: int, seed: int, _: Synthesis) -> Few:
    rows = pool.survey.features
    chosen = tarot.select(rows, rows[:1], selector(size=per_class * len(pool.names)), candidate_labels=pool.labels)
    ordered = chosen.indices[np.argsort(pool.labels[chosen.indices], kind="stable")]
    return real(pool, ordered.reshape(len(pool.names), per_class))


@dataclass(frozen=True)
class _Chunks:
    """Chunks of images that are synthesised, in the cache. task: whose. code: what makes them."""

    folder: Path
    task: str
    code: str

    def has(self, name: str) -> bool:
        return self._path(name).exists()

    def __call__(self, name: str, make: Callable[[], Mapping[str, np.ndarray]]) -> Mapping[str, np.ndarray]:
        return cached_arrays(self._path(name), make)

    def _path(self, name: str) -> Path:
        return self.folder / f"{self.task}-{name}-{self.code}.npz"


def _synthesised(arm: str, pool: Pool, per_class: int, seed: int, options: Synthesis) -> Few:
    coreset = pool.matched(per_class, seed)
    init = images_of(pool.bytes, initial(options, coreset, pool.labels, seed))
    task = task_of(pool.barycenters(per_class, seed), pool.survey.statistics, init, pool.names)
    log.info("%s, %d per class, seed %d", arm, per_class, seed)
    made = synthesise(
        pool.teacher,
        task,
        pool.pixels,
        options,
        seed=seed,
        device=pool.task.device,
        keep=_Chunks(pool.cache / "distillation", pool.task.name, source_hash(synthesise, alone=(__name__,))),
        engine=pool.engine,
    )
    return Few(made.images.reshape(-1, *made.images.shape[2:]), task.weights.ravel(), made.curve)


def _rded(pool: Pool, per_class: int, seed: int, _: Synthesis) -> Few:
    """Sun et al., "On the Diversity and Realism of Distilled Dataset", CVPR 2024: the crop of real images that the
    teacher is surest of, several of them stitched into one where images are large."""
    edge = pool.bytes.shape[-1]
    factor = 2 if edge >= _LARGE else 1
    made_of = {**pool.made_of, "rded": [per_class, seed, factor], "code": source_hash(_crops, alone=(__name__,))}

    def make() -> dict[str, np.ndarray]:
        found = [_realistic(pool, number, per_class, factor, seed) for number in range(len(pool.names))]
        return {"images": np.concatenate(found)}

    images = pool.cached("distillation", made_of, make)["images"]
    return Few(images, np.full(len(images), 1 / per_class), np.zeros((0, 3)))


def _realistic(pool: Pool, number: int, per_class: int, factor: int, seed: int) -> np.ndarray:
    """The images of a class, uint8 [m, channels, H, W]."""
    rng = np.random.default_rng((seed, number))
    members = np.flatnonzero(pool.labels == number)
    count = per_class * factor**2
    if len(members) < count:
        raise InputError(f"class {pool.names[number]} has {len(members)} images, and rded wants {count} of each class")
    some = rng.permutation(members)[: max(_SEEN, count)]
    crops = _crops(pool.pixels.normalised(pool.bytes[some]).to(pool.task.device), rng)  # [crops, n, channels, H, W]
    labels = torch.full((len(some),), number, device=crops.device)
    with watched(pool.teacher) as see, torch.no_grad():
        losses = torch.stack([functional.cross_entropy(see(part).logits, labels, reduction="none") for part in crops])
    best = losses.argmin(dim=0)
    surest = losses.min(dim=0).values.argsort(stable=True)[:count]
    chosen = crops[best[surest], surest].unflatten(0, (per_class, factor**2))
    rows = [torch.cat(list(chosen[:, factor * i : factor * (i + 1)].unbind(1)), dim=3) for i in range(factor)]
    whole = torch.cat(rows, dim=2)
    if factor > 1:
        whole = functional.interpolate(whole, crops.shape[-2:], mode="bilinear", antialias=True)
    return pool.pixels.bytes_of(whole)


def _crops(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Of half of the area or more, each resized to the whole: [crops, n, channels, H, W]."""
    height, width = images.shape[2:]
    found = torch.empty(_CROPS, *images.shape, device=images.device)
    for crop in found:
        for place, image in enumerate(images):
            side = math.sqrt(rng.uniform(0.5, 1))
            rows, columns = (max(1, round(size * side)) for size in (height, width))
            top, left = int(rng.integers(0, height - rows + 1)), int(rng.integers(0, width - columns + 1))
            part = image[None, :, top : top + rows, left : left + columns]
            crop[place] = functional.interpolate(part, (height, width), mode="bilinear", align_corners=False)[0]
    return found


ARMS: dict[str, Callable[[Pool, int, int, Synthesis], Few]] = {
    "random": _random,
    "wasserstein_coreset": _coreset,
    "herding": partial(_selected, Herding),
    "k_center": partial(_selected, KCenter),
    "rded": _rded,
    **{arm: partial(_synthesised, arm) for arm in SYNTHETIC},
}
"""By name; `all` is every candidate, and the only one without a number per class."""
