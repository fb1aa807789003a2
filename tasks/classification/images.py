"""Labelled images, uint8 until a batch is made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

Indices = Sequence[int] | np.ndarray | slice


class LabelledImages(ABC):
    """labels int64 [n], ids and tags str [n]; a sample is (float32 [C, H, W], int64 []).

    mean, std: per channel, on the scale 0..1; 0 in a sample is the mean colour.
    """

    labels: np.ndarray
    ids: np.ndarray
    tags: np.ndarray
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @abstractmethod
    def pixels(self, indices: Indices) -> np.ndarray:
        """uint8 [B, C, H, W]"""

    @abstractmethod
    def take(self, indices: np.ndarray) -> Self:
        """These images alone."""

    @abstractmethod
    def __add__(self, other: Self) -> Self:
        """These images and then the others."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        images, labels = self.batch([index])
        return images[0], labels[0]

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """float32 [B, C, H, W], int64 [B]"""
        mean, std = (torch.tensor(value).view(-1, 1, 1) for value in (self.mean, self.std))
        images = torch.from_numpy(self.pixels(indices))
        return (images.float() / 255 - mean) / std, torch.from_numpy(self.labels[indices])

    def colours(self, images: Tensor) -> Tensor:
        """The images of samples [..., C, H, W] on the scale 0..1 again."""
        mean, std = (torch.tensor(value, device=images.device).view(-1, 1, 1) for value in (self.mean, self.std))
        return (images * std + mean).clamp(0, 1)

    def picture(self, image: Tensor) -> np.ndarray:
        """The image of a sample as uint8 [H, W, C] again."""
        return (self.colours(image.cpu()) * 255).round().byte().permute(1, 2, 0).numpy()


@dataclass(frozen=True, eq=False)
class ImageSet(LabelledImages):
    """images uint8 [n, C, H, W], in memory."""

    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    tags: np.ndarray
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def pixels(self, indices: Indices) -> np.ndarray:
        return self.images[indices]

    def take(self, indices: np.ndarray) -> ImageSet:
        return ImageSet(
            self.images[indices], self.labels[indices], self.ids[indices], self.tags[indices], self.mean, self.std
        )

    def __add__(self, other: ImageSet) -> ImageSet:
        return ImageSet(
            np.concatenate([self.images, other.images]),
            np.concatenate([self.labels, other.labels]),
            np.concatenate([self.ids, other.ids]),
            np.concatenate([self.tags, other.tags]),
            self.mean,
            self.std,
        )


def augmented(images: Tensor, generator: torch.Generator, padding: int = 2, cutout: int = 4) -> Tensor:
    """Each image [B, C, H, W] mirrored or not, shifted by up to `padding` and with a square cut out, mean colour
    filling in (TRAK's CIFAR-10 recipe)."""
    b, _, h, w = images.shape
    shift = torch.randint(0, 2 * padding + 1, (2, b, 1), generator=generator)
    hole = torch.stack([torch.randint(0, size - cutout + 1, (b, 1), generator=generator) for size in (h, w)])
    mirror = torch.rand(b, 1, generator=generator) < 0.5
    columns = torch.arange(w).expand(b, w)
    columns = torch.where(mirror, w - 1 - columns, columns) + shift[1]
    rows = torch.arange(h).expand(b, h) + shift[0]
    padded = functional.pad(images, [padding] * 4)
    moved = padded[torch.arange(b)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    inside_rows = (torch.arange(h) >= hole[0]) & (torch.arange(h) < hole[0] + cutout)
    inside_columns = (torch.arange(w) >= hole[1]) & (torch.arange(w) < hole[1] + cutout)
    return moved.masked_fill((inside_rows[:, :, None] & inside_columns[:, None, :])[:, None], 0.0)
