"""Images of one's own, in folders named by their classes: ImageNette, Tiny-ImageNet, ImageNet, or a user's.

    train/cat/1.jpg, train/dog/2.png, ...   test/cat/..., test/dog/...

Whatever lies below a class's folder is of it. Links are followed and hidden files left out, as everywhere
(tarot/common/folders.py); images are read as all tasks read them (tasks/common/images.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from tarot import InputError
from tarot.common import Count, Natural, checked, entries, files_below
from tasks.classification.domain import Plain, Splits
from tasks.classification.domain_task import DomainTask
from tasks.classification.image_files import ImageFiles, prefetched
from tasks.classification.images import ImageSet
from tasks.classification.task import Images
from tasks.common.contents import hash_named
from tasks.common.images import MAX_PIXELS, PixelLimit, is_image_name
from tasks.common.weights import load_strictly
from tasks.task import Checkpoint

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and standard deviation of its channels
_SMALL = 128  # pixels below which nothing is cut off an image's edges


@dataclass(frozen=True)
class Tree:
    """A folder of classes. option: that names it. files: paths of the images of each class, by its name."""

    root: Path
    option: str
    files: dict[str, list[Path]]

    @classmethod
    def at(cls, folder: Path, option: str) -> Tree:
        """Raises InputError where there is none, or a class has no image."""
        if not folder.is_dir():
            raise InputError(
                f"{option}: the folder {folder} is not there; put there a folder of images for each class, or set "
                f"{option} to where they are"
            )
        classes = [entry for entry in entries(folder) if entry.is_dir()]
        if not classes:
            raise InputError(f"{option}: {folder} has no folder inside, and each class is one")
        files = {folder.name: files_below(folder, is_image_name) for folder in classes}
        for name, inside in files.items():
            if not inside:
                raise InputError(f"{option}: the class {name} has no image in {folder / name}")
        return cls(folder, option, files)

    def check_same_classes(self, other: Tree) -> None:
        for name in [*self.files, *other.files]:
            if name not in other.files or name not in self.files:
                absent = other if name not in other.files else self
                raise InputError(f"{absent.option}: there is no folder {absent.root / name}, a class of the other one")


class Folders(DomainTask):
    """train_folder, test_folder: of classes. targets_folder: one of images that show what the model must be good at;
    None: drawn from the test images, as the domain says.

    network: by name (`networks.network`). weights: a file with its weights, loaded strictly, which is then the
    surrogate; None: one is trained. size: edge of the images that the model sees. resize: how long the shorter edge is
    made before the centre is cut out; None: 8/7 of the size, or the size itself below 128 pixels. mean, std: of the
    channels, from 0 to 1. max_pixels: of an image on disk. memory: bytes up to which the images of a folder are decoded
    once and kept; the domains that change images need them there.
    """

    @checked("task")
    def __init__(
        self,
        *,
        train_folder: str | Path,
        test_folder: str | Path,
        targets_folder: str | Path | None = None,
        network: str = "resnet18",
        weights: str | Path | None = None,
        size: Count = 224,
        resize: Count | None = None,
        mean: Sequence[float] = IMAGENET[0],
        std: Sequence[float] = IMAGENET[1],
        max_pixels: Count = MAX_PIXELS,
        memory: Natural = 2 * 2**30,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.train_folder, self.test_folder = Path(train_folder), Path(test_folder)
        self.targets_folder = None if targets_folder is None else Path(targets_folder)
        self.network, self.weights = network, weights
        self.size = size
        self.resize = resize or (size if size < _SMALL else round(size * 8 / 7))
        if self.resize < size:
            raise InputError(f"task.resize must be at least task.size, {size}; it is {resize}")
        self.mean, self.std = tuple(mean), tuple(std)
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise InputError(f"task.mean and task.std must be 3 numbers each, the latter above 0: {mean}, {std}")
        self.limit = PixelLimit(max_pixels, "task.max_pixels")
        self.memory = memory
        if self.targets_folder is not None and not isinstance(self.domain, Plain):
            raise InputError("task.targets_folder goes with task.domain=plain; other domains make targets of their own")

    # --- data --------------------------------------------------------------------------------------------------------

    @cached_property
    def trees(self) -> dict[str, Tree]:
        """The folders, with the same classes in each."""
        named = {"train": self.train_folder, "test": self.test_folder, "targets": self.targets_folder}
        trees = {name: Tree.at(folder, f"task.{name}_folder") for name, folder in named.items() if folder is not None}
        for tree in trees.values():
            trees["train"].check_same_classes(tree)
        return trees

    @cached_property
    def root(self) -> Path:
        """What all paths are relative to."""
        return Path(os.path.commonpath([os.path.abspath(tree.root) for tree in self.trees.values()]))

    @cached_property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.trees["train"].files)

    def pools(self) -> tuple[ImageSet, ImageSet]:
        return self._pool("train"), self._pool("test")

    @cached_property
    def splits(self) -> Splits:
        if self.targets_folder is None:
            return super().splits
        assert isinstance(self.domain, Plain)
        return self.domain.splits(*self.pools(), seed=self.seed, targets=self._pool("targets"))

    def _pool(self, name: str) -> Any:
        """The images of a folder: in memory where they fit, else in their files."""
        files = [
            (os.path.relpath(os.path.abspath(path), self.root), label)
            for label, inside in enumerate(self.trees[name].files.values())
            for path in inside
        ]
        ids, labels = (np.array(column) for column in zip(*files, strict=True))
        known: dict[str, Any] = {"labels": labels.astype(np.int64), "ids": ids, "tags": np.full(len(ids), "")}
        known |= {"mean": self.mean, "std": self.std}
        images = ImageFiles(folder=self.root, resize=self.resize, size=self.size, limit=self.limit, **known)
        needed = 3 * self.size**2 * len(ids)
        if needed <= self.memory:
            return ImageSet(images=images.pixels(slice(None)), **known)
        if not isinstance(self.domain, Plain):
            raise InputError(
                f"the images of {self.trees[name].root} take {needed:,} bytes at {self.size} pixels, more than "
                f"task.memory={self.memory}, and task.domain changes images in memory: lower task.size, raise "
                "task.memory, or set task.domain=plain"
            )
        return images

    def candidate_tags(self) -> Any:
        """Nobody knows which of a user's images resemble the targets."""
        return None if isinstance(self.domain, Plain) else super().candidate_tags()

    @cached_property
    def _content(self) -> str:
        files = [
            (os.path.relpath(os.path.abspath(path), self.root), path)
            for tree in self.trees.values()
            for inside in tree.files.values()
            for path in inside
        ]
        return hash_named(files, self.cache_dir)

    def source(self) -> str:
        return self._content

    def data_recipe(self) -> dict[str, Any]:
        scale = [list(self.mean), list(self.std)]
        targets = {} if self.targets_folder is None else {"targets": "folder"}
        return {**super().data_recipe(), "size": self.size, "resize": self.resize, "scale": scale, **targets}

    def batches(self, *arguments: Any) -> Iterator[Images]:
        return prefetched(super().batches(*arguments))

    # --- model -------------------------------------------------------------------------------------------------------

    def model_recipe(self) -> dict[str, Any]:
        weights = {} if self.weights is None else {"weights": hash_named([("weights", Path(self.weights))], None)}
        return {"kind": self.network, **weights}

    def model(self) -> nn.Module:
        return self.built(self.network)

    def given_checkpoints(self) -> Callable[[], list[Checkpoint]] | None:
        weights = self.weights
        return None if weights is None else lambda: self._checkpoint_of(weights)

    def _checkpoint_of(self, weights: str | Path) -> list[Checkpoint]:
        model = self.model()
        load_strictly(model, weights, "task.weights")
        return [Checkpoint("weights", model.state_dict(), 0.0)]

    def surrogate_optimizer(self) -> Any:
        """Nobody knows it of weights from a file."""
        return super().surrogate_optimizer() if self.weights is None else None
