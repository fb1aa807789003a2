"""How a segmenter is trained: its learning rates, what is done to its images, and batches made of both."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from tarot import InputError
from tarot.common import Count, NonNegative, Positive
from tasks.common.training import Training, endless_batches, evenly_spaced
from tasks.segmentation.scenes import IGNORE, MEAN, Pixels, Scenes, tensors


@dataclass(frozen=True)
class SegmentationTraining(Training):
    """optimizer, weight_decay, schedule: as the paper's. augment: each image mirrored or not, scaled by a factor in
    `scales` and cut, or filled up with the mean colour, to its size again.

    schedule: warmup_poly rises in a line from `warmup_factor` of the learning rate to all of it, for the share `warmup`
    of the steps, then falls as the `power` of the share of steps that are left; triangle is `Training`'s.
    validations: how often the model is judged on the validation split, evenly spaced, the last at the end.
    choose: best or last; the model that comes of it.
    """

    of_selections: ClassVar[Sequence[str]] = (*Training.of_selections, "validations", "choose")

    optimizer: Literal["adamw", "sgd"] = "sgd"
    weight_decay: NonNegative = 1e-4
    schedule: Literal["warmup_poly", "triangle"] = "warmup_poly"
    warmup_factor: NonNegative = 1 / 3
    power: NonNegative = 0.9
    scales: Sequence[Positive] = (0.75, 1.5)
    validations: Count = 5
    choose: Literal["best", "last"] = "best"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size < 2:
            raise InputError(
                "train.batch_size must be at least 2: DeepLabV3 normalises one value per image over the batch; it is "
                f"{self.batch_size}"
            )
        if len(self.scales) != 2 or self.scales[0] > self.scales[1]:
            raise InputError(f"train.scales must be two factors, the smaller first; they are {list(self.scales)}")

    def rate(self, step: int) -> float:
        if self.schedule == "triangle":
            return super().rate(step)
        warmup = int(self.warmup * self.steps)
        if step < warmup:
            return self.learning_rate * (self.warmup_factor + (1 - self.warmup_factor) * step / warmup)
        return self.learning_rate * (1 - (step - warmup) / (self.steps - warmup)) ** self.power

    def moments(self) -> set[int]:
        """After how many steps the model is validated."""
        return evenly_spaced(self.validations, self.steps)


def augmented(image: np.ndarray, label: np.ndarray, rng: np.random.Generator, scales: Sequence[float]) -> Pixels:
    """Mirrored or not, scaled and cut: of the same size as it was; what lies outside is mean colour, and ignored."""
    height, width = label.shape
    scale = np.exp(rng.uniform(np.log(scales[0]), np.log(scales[1])))
    left, top = (rng.uniform() * size * (1 - 1 / scale) for size in (width, height))
    if rng.random() < 0.5:
        image, label = image[:, ::-1], label[:, ::-1]
    matrix = (1 / scale, 0, left, 0, 1 / scale, top)  # from a pixel of the result to one of the image
    mean = tuple(round(255 * part) for part in MEAN)
    affine, smooth, nearest = Image.Transform.AFFINE, Image.Resampling.BILINEAR, Image.Resampling.NEAREST
    picture, classes = (Image.fromarray(np.ascontiguousarray(array)) for array in (image, label))
    turned = picture.transform((width, height), affine, matrix, smooth, fillcolor=mean)
    sorted_out = classes.transform((width, height), affine, matrix, nearest, fillcolor=IGNORE)
    return np.asarray(turned), np.asarray(sorted_out)


Loaded = Generator[tuple[Tensor, Tensor]]


class _Draws(Dataset):
    """What is drawn from scenes: (index, number of the draw) -> a sample. Each draw is augmented by a generator of its
    own, so that it does not matter which worker makes it. An error is a value: a worker would add its traceback."""

    def __init__(self, scenes: Scenes, training: SegmentationTraining | None, seed: int) -> None:
        self.scenes, self.training, self.seed = scenes, training, seed

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor] | InputError:
        index, draw = key
        try:
            image, label = self.scenes.read(index)
        except InputError as error:
            return error
        if self.training is not None and self.training.augment:
            image, label = augmented(image, label, np.random.default_rng([self.seed, draw]), self.training.scales)
        return tensors(image, label)


class _TrainingDraws:
    """Endless batches of (index, number of the draw)."""

    def __init__(self, weights: np.ndarray, batch_size: int, seed: int) -> None:
        self.weights, self.batch_size, self.seed = weights, batch_size, seed

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for number, indices in enumerate(endless_batches(self.weights, self.batch_size, self.seed)):
            yield [(index, number * self.batch_size + place) for place, index in enumerate(indices.tolist())]


def _collate(samples: list) -> Any:
    return next((sample for sample in samples if isinstance(sample, InputError)), None) or default_collate(samples)


def _loaded(draws: _Draws, batches: Any, workers: int, device: torch.device) -> Loaded:
    """Batches on the device. Raises the InputError of a scene that cannot be read."""
    own = torch.Generator().manual_seed(0)  # the loader would otherwise move torch's global one
    loader = DataLoader(
        draws,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_collate,
        generator=own,
        pin_memory=device.type == "cuda",
    )
    for batch in loader:
        if isinstance(batch, InputError):
            raise batch
        images, labels = batch
        yield (
            images.to(device, memory_format=torch.channels_last, non_blocking=True),
            labels.to(device, non_blocking=True),
        )


def training_batches(
    scenes: Scenes, weights: np.ndarray, training: SegmentationTraining, seed: int, workers: int, device: torch.device
) -> Loaded:
    """Endless batches in which scene i occurs as often as its weight (int64 [n]) says; all decided by the seed,
    whatever the number of worker processes that decode and augment (0: this process)."""
    draws = _TrainingDraws(weights, training.batch_size, seed)
    return _loaded(_Draws(scenes, training, seed), draws, workers, device)


def all_batches(scenes: Scenes, batch_size: int, workers: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """All scenes once, in their order."""
    starts = range(0, len(scenes), batch_size)
    batches = [[(i, i) for i in range(start, min(start + batch_size, len(scenes)))] for start in starts]
    return _loaded(_Draws(scenes, None, 0), batches, workers, device)
