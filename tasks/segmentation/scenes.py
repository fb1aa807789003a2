"""Scenes: images with a class for every pixel, read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

IGNORE = 255  # the label of a pixel that belongs to no class
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, per channel on the scale 0..1

Pixels = tuple[np.ndarray, np.ndarray]  # image uint8 [H, W, 3], label uint8 [H, W], larger where it is to judge by
Source = Callable[[], Pixels]  # one scene; picklable, since worker processes read it, too
Sample = tuple[Tensor, Tensor]  # image float32 [3, H, W], 0 the mean colour; label int64 [H, W]


@dataclass(frozen=True)
class Classes:
    """names: of the classes 0, 1, ...; colours: of each, RGB 0..255."""

    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]

    def __len__(self) -> int:
        return len(self.names)


class Remembered:
    """A source that is read once and then stays in memory."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._kept: Pixels | None = None

    def __call__(self) -> Pixels:
        if self._kept is None:
            self._kept = self.source()
        return self._kept


@dataclass(frozen=True, eq=False)
class Scenes:
    """ids and tags str [n]; sources: where scene i comes from."""

    ids: np.ndarray
    tags: np.ndarray
    sources: Sequence[Source]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        return tensors(*self.read(index))

    def read(self, index: int) -> Pixels:
        return self.sources[index]()

    def take(self, indices: np.ndarray) -> Scenes:
        """These scenes alone."""
        return Scenes(self.ids[indices], self.tags[indices], [self.sources[int(i)] for i in indices])

    def __add__(self, other: Scenes) -> Scenes:
        """These scenes and then the others."""
        ids, tags = (np.concatenate(pair) for pair in ((self.ids, other.ids), (self.tags, other.tags)))
        return Scenes(ids, tags, [*self.sources, *other.sources])

    def remembered(self) -> Scenes:
        """The same scenes, each in memory from its first reading on."""
        return Scenes(self.ids, self.tags, [Remembered(source) for source in self.sources])


def tensors(image: np.ndarray, label: np.ndarray) -> Sample:
    """What the model sees of a scene."""
    mean, std = (np.array(value, dtype=np.float32) for value in (MEAN, STD))
    normal = (image.astype(np.float32) / 255 - mean) / std
    return torch.from_numpy(normal.transpose(2, 0, 1).copy()), torch.from_numpy(label.astype(np.int64))


def colours(images: Tensor) -> Tensor:
    """The images of samples [..., 3, H, W] on the scale 0..1 again."""
    mean, std = (torch.tensor(value, device=images.device).view(-1, 1, 1) for value in (MEAN, STD))
    return (images * std + mean).clamp(0, 1)


def picture(image: Tensor) -> np.ndarray:
    """The image of a sample as uint8 [H, W, 3] again."""
    return (colours(image.cpu()) * 255).round().byte().permute(1, 2, 0).numpy()


def coloured(label: np.ndarray, classes: Classes) -> np.ndarray:
    """A label [H, W] as a picture, uint8 [H, W, 3]; ignored pixels are black."""
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(classes)] = classes.colours
    return table[np.asarray(label)]


def overlaid(image: np.ndarray, label: np.ndarray, classes: Classes, strength: float = 0.55) -> np.ndarray:
    """The image, uint8 [H, W, 3], under its label in colours; ignored pixels show the image alone."""
    share = np.where(np.asarray(label) == IGNORE, 0, strength)[..., None]
    return (image * (1 - share) + coloured(label, classes) * share).round().astype(np.uint8)
