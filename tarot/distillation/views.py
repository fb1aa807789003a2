"""How synthetic images are shown to the teacher: one view a class and step, decided by (seed, class, step) alone."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

Augment = Literal["none", "shift", "crop"]
"""none; shift: by up to an eighth of the size, and mirrored or not; crop: a random part of the image, resized, mirrored
or not, and rolled by up to a seventh of the size in both axes."""

LEAST_AREA = 0.08
ASPECTS = 3 / 4, 4 / 3


def shown(images: Tensor, augment: Augment, stream: tuple[int, ...], least_area: float = LEAST_AREA) -> Tensor:
    """One view of the images of a class [m, channels, H, W], the same for all of them; differentiable."""
    if augment == "none":
        return images
    rng = np.random.default_rng(stream)
    view = _shifted(images, rng) if augment == "shift" else _cropped(images, rng, least_area)
    return view.flip(3) if rng.random() < 0.5 else view


def _shifted(images: Tensor, rng: np.random.Generator) -> Tensor:
    """The mean colour, which is 0, fills in."""
    _, _, height, width = images.shape
    reach = max(1, height // 8), max(1, width // 8)
    top, left = (int(rng.integers(0, 2 * most + 1)) for most in reach)
    padded = functional.pad(images, [reach[1], reach[1], reach[0], reach[0]])
    return padded[:, :, top : top + height, left : left + width]


def _cropped(images: Tensor, rng: np.random.Generator, least_area: float) -> Tensor:
    _, _, height, width = images.shape
    top, left, rows, columns = crop_box(height, width, rng, least_area)
    part = images[:, :, top : top + rows, left : left + columns]
    whole = functional.interpolate(part, (height, width), mode="bilinear", align_corners=False, antialias=False)
    shifts = [int(rng.integers(0, max(1, size // 7) + 1)) for size in (height, width)]
    return torch.roll(whole, shifts, dims=(2, 3))


def crop_box(
    height: int, width: int, rng: np.random.Generator, least_area: float = LEAST_AREA
) -> tuple[int, int, int, int]:
    """Top, left, height and width of a part of a share of the area in [least_area, 1] and of an aspect in [3/4, 4/3];
    after ten draws that do not fit, the whole."""
    for _ in range(10):
        area = height * width * rng.uniform(least_area, 1)
        aspect = math.exp(rng.uniform(math.log(ASPECTS[0]), math.log(ASPECTS[1])))
        rows, columns = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < rows <= height and 0 < columns <= width:
            top, left = int(rng.integers(0, height - rows + 1)), int(rng.integers(0, width - columns + 1))
            return top, left, rows, columns
    return 0, 0, height, width
