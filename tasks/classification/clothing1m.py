"""Clothing1M: a million images from shops, labelled by the text around them, to be chosen by a few clean ones."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from torch import nn
from torchvision.models import resnet18

from tarot import InputError
from tarot.common import Count, checked
from tasks.classification.clothing1m_files import Clothing1MFiles, Listed, find_clothing1m
from tasks.classification.image_files import ImageFiles, prefetched
from tasks.classification.task import ClassificationTask, Images
from tasks.common.images import MAX_PIXELS, PixelLimit
from tasks.common.training import Training
from tasks.task import SPLITS, Split

MEAN, STD = (0.6959, 0.6537, 0.6371), (0.3113, 0.3192, 0.3214)


class Clothing1M(ClassificationTask):
    """Candidates have noisy labels, all others clean ones.

    candidates, encoder_images, targets, validation, test: how many of the noisy train, clean train, clean val, clean
    val again (others than the targets) and clean test images; None is all of them, or all that are left. A part is
    drawn with `seed`.
    encoder: how the surrogates are trained, on the clean train images; None is as the downstream model is.
    size: edge of the image that the model sees, of which the shorter edge was 8/7 as long. max_pixels: of an image on
    disk; larger ones are refused.
    """

    @checked("task")
    def __init__(
        self,
        *,
        candidates: Count | None = None,
        encoder_images: Count | None = None,
        targets: Count = 10_000,
        validation: Count | None = None,
        test: Count | None = None,
        encoder: Training | None = None,
        size: Count = 224,
        max_pixels: Count = MAX_PIXELS,
        **options: Any,
    ) -> None:
        super().__init__(surrogate_train=encoder, **options)
        self.counts = {
            "candidates": candidates,
            "encoder_images": encoder_images,
            "targets": targets,
            "validation": validation,
            "test": test,
        }
        self.size = size
        self.limit = PixelLimit(max_pixels, "task.max_pixels")

    @cached_property
    def files(self) -> Clothing1MFiles:
        return find_clothing1m(self.data_dir)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        return self.files.class_names()

    # --- data --------------------------------------------------------------------------------------------------------

    @cached_property
    def splits(self) -> dict[Split, ImageFiles]:
        return {split: self._images[split] for split in SPLITS}

    @cached_property
    def _images(self) -> dict[str, ImageFiles]:
        parts, rng = self.files.parts(), np.random.default_rng(self.seed)
        sources = {
            "candidates": "noisy_train",
            "targets": "clean_val",
            "validation": "clean_val",
            "test": "clean_test",
            "encoder_images": "clean_train",
        }
        orders = {part: rng.permutation(len(listed.keys)) for part, listed in parts.items()}
        images = {}
        for name, part in sources.items():
            asked = self.counts[name]
            count = len(orders[part]) if asked is None else asked
            if not 0 < count <= len(orders[part]):
                raise InputError(
                    f"task.{name} asks for {count} images of {part}, where {len(orders[part])} of "
                    f"{len(parts[part].keys)} are left; lower task.{name}{' or task.targets' * (name == 'validation')}"
                )
            drawn, orders[part] = orders[part][:count], orders[part][count:]
            images[name] = self._opened(parts[part], np.sort(drawn))
        return images

    def _opened(self, listed: Listed, chosen: np.ndarray) -> ImageFiles:
        return ImageFiles(
            folder=self.files.root,
            resize=round(self.size * 8 / 7),
            size=self.size,
            labels=listed.labels[chosen],
            ids=listed.keys[chosen],
            tags=np.full(len(chosen), ""),
            mean=MEAN,
            std=STD,
            limit=self.limit,
        )

    def candidate_tags(self) -> None:
        """Nobody knows which labels are wrong."""
        return None

    @cached_property
    def _content(self) -> str:
        used = sorted({key for images in self._images.values() for key in images.ids.tolist()})
        return self.files.content(used, self.cache_dir)

    def data_recipe(self) -> dict[str, Any]:
        counts = {name: count for name, count in self.counts.items() if name != "encoder_images"}
        return {"source": self._content, **counts, "size": self.size, "seed": self.seed}

    # --- model -------------------------------------------------------------------------------------------------------

    def model_recipe(self) -> dict[str, Any]:
        return {"kind": "resnet18"}

    def model(self) -> nn.Module:
        return resnet18(num_classes=len(self.classes))

    def surrogate_images(self) -> ImageFiles:
        return self._images["encoder_images"]

    def batches(self, *arguments: Any) -> Iterator[Images]:
        return prefetched(super().batches(*arguments))

    def surrogate_recipe(self) -> dict[str, Any]:
        return {**super().surrogate_recipe(), "encoder_images": self.counts["encoder_images"]}
