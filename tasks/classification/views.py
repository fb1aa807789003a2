"""What a student is shown of an image: views of a batch, decided by (seed, step) alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from tarot.common import Share, check_options

LEAST_AREA = 0.08  # of a crop
ASPECT = 4 / 3


@dataclass(frozen=True)
class Views:
    """kind: none; shift, by up to an eighth of the size, mean colour filling in; crop, a random part of the image, of
    `least_area` or more of it, resized. mirror: or not, each image by itself. cutmix: a box of every image is taken
    from another one, where labels are soft."""

    kind: Literal["none", "shift", "crop"] = "shift"
    mirror: bool = False
    cutmix: bool = False
    least_area: Share = LEAST_AREA

    def __post_init__(self) -> None:
        check_options(self, "views")

    def of(self, images: Tensor, generator: torch.Generator, mixed: bool) -> Tensor:
        """Of images [B, channels, H, W], each its own view; mixed: whether CutMix is applied where there is one."""
        if self.kind == "shift":
            images = _shifted(images, generator)
        elif self.kind == "crop":
            images = _cropped(images, generator, self.least_area)
        if self.mirror:
            flip = torch.rand(len(images), generator=generator) < 0.5
            images = torch.where(flip.view(-1, 1, 1, 1).to(images.device), images.flip(3), images)
        return _cutmix(images, generator) if self.cutmix and mixed else images


def _shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    b, _, height, width = images.shape
    reach = max(1, height // 8), max(1, width // 8)
    rows, columns = (
        torch.randint(0, 2 * most + 1, (b, 1), generator=generator) + torch.arange(size)
        for most, size in zip(reach, (height, width), strict=True)
    )
    padded = functional.pad(images, [reach[1], reach[1], reach[0], reach[0]])
    moved = padded[torch.arange(b)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def _cropped(images: Tensor, generator: torch.Generator, least_area: float) -> Tensor:
    """Parts of an area in [least_area, 1] and an aspect in [3/4, 4/3], cut to what fits, resized bilinearly."""
    b = len(images)
    area = least_area + (1 - least_area) * torch.rand(b, generator=generator)
    aspect = torch.exp((2 * torch.rand(b, generator=generator) - 1) * math.log(ASPECT))
    height, width = (area / aspect).sqrt().clamp(max=1), (area * aspect).sqrt().clamp(max=1)
    top, left = ((2 * torch.rand(b, generator=generator) - 1) * (1 - side) for side in (height, width))
    maps = torch.zeros(b, 2, 3)
    maps[:, 0, 0], maps[:, 0, 2], maps[:, 1, 1], maps[:, 1, 2] = width, left, height, top
    grid = functional.affine_grid(maps.to(images.device), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _cutmix(images: Tensor, generator: torch.Generator) -> Tensor:
    """One box for the batch, of area 1 - lambda with lambda uniform, around a uniform centre and cut at the edges."""
    _, _, height, width = images.shape
    side = math.sqrt(1 - torch.rand(1, generator=generator).item())
    centre = [int(torch.randint(0, size, (1,), generator=generator)) for size in (height, width)]
    spans = [
        slice(max(0, middle - round(side * size) // 2), min(size, middle + round(side * size) // 2))
        for middle, size in zip(centre, (height, width), strict=True)
    ]
    other = images[torch.randperm(len(images), generator=generator).to(images.device)]
    mixed = images.clone()
    mixed[:, :, spans[0], spans[1]] = other[:, :, spans[0], spans[1]]
    return mixed
