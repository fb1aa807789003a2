"""Labelled images that stay in their files until a batch is made: data sets larger than memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
from torchvision.transforms import functional

from tarot import InputError
from tasks.classification.images import Indices, LabelledImages
from tasks.common.images import PixelLimit, read_image

Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class ImageFiles(LabelledImages):
    """The image of id `i` is the file folder/i; its shorter edge is resized to `resize`, then its centre is cut out,
    size x size. Images of more pixels than `limit` are refused."""

    folder: Path
    resize: int
    size: int
    labels: np.ndarray
    ids: np.ndarray
    tags: np.ndarray
    mean: tuple[float, ...]
    std: tuple[float, ...]
    limit: PixelLimit = PixelLimit(option="task.max_pixels")  # noqa: RUF009 (it is frozen)

    def pixels(self, indices: Indices) -> np.ndarray:
        """Raises InputError, with the file's name, where one is missing or holds no image."""
        return np.stack(list(_threads(os.getpid()).map(self._decode, self.ids[indices])))

    def take(self, indices: np.ndarray) -> ImageFiles:
        return replace(self, labels=self.labels[indices], ids=self.ids[indices], tags=self.tags[indices])

    def __add__(self, other: ImageFiles) -> ImageFiles:
        return replace(
            self,
            labels=np.concatenate([self.labels, other.labels]),
            ids=np.concatenate([self.ids, other.ids]),
            tags=np.concatenate([self.tags, other.tags]),
        )

    def _decode(self, name: str) -> np.ndarray:
        path = self.folder / name
        image = read_image(path, limit=self.limit)
        longer = self.resize * max(image.size) // min(image.size)
        if self.resize * longer > self.limit.pixels:
            raise InputError(f"{path} is {image.width} x {image.height}, which is no picture but a line; take it away")
        resized = functional.resize(image, self.resize)
        return np.asarray(functional.center_crop(resized, self.size)).transpose(2, 0, 1)


@cache
def _threads(process: int) -> ThreadPoolExecutor:
    """One pool for each process: threads do not come along when it forks."""
    return ThreadPoolExecutor(len(os.sched_getaffinity(process)), thread_name_prefix="decode")


def prefetched(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, while the next one is made in a thread: files are decoded as the model computes."""
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as worker:
        coming = worker.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = worker.submit(next, items, None)
            yield item
