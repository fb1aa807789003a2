"""Segmentation: which class every pixel of a street scene belongs to, told by DeepLabV3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex

from tarot.common import Natural, checked
from tasks.common.supervised import SupervisedTask
from tasks.common.training import Surrogate, fit, seeded
from tasks.segmentation.data import Rendered, SceneData, Splits
from tasks.segmentation.model import Architecture, Segmenter
from tasks.segmentation.scenes import IGNORE, Sample, Scenes, coloured, colours, overlaid, picture
from tasks.segmentation.training import SegmentationTraining, all_batches, training_batches
from tasks.task import Checkpoint, Split

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Batch = tuple[Tensor, Tensor]  # images float32 [B, 3, H, W], labels int64 [B, H, W]


class SegmentationTask(SupervisedTask[Segmenter]):
    """workers: processes that decode and augment; 0: the one that trains. remember: scenes stay in memory once read.
    Other options are `SupervisedTask`'s."""

    training: SegmentationTraining

    @checked("task")
    def __init__(
        self,
        *,
        data: SceneData,
        architecture: Architecture,
        workers: Natural = 0,
        remember: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.data, self.architecture = data, architecture
        self.workers, self.remember = workers, remember

    # --- data --------------------------------------------------------------------------------------------------------

    @cached_property
    def _sources(self) -> Splits:
        return self.data.splits(self.seed)

    @cached_property
    def splits(self) -> Splits:
        return {split: scenes.remembered() if self.remember else scenes for split, scenes in self._sources.items()}

    def candidate_tags(self) -> np.ndarray | None:
        return self.splits["candidates"].tags if self.data.tagged else None

    def candidate_sources(self) -> np.ndarray:
        """Read from files, or rendered."""
        rendered = [isinstance(source, Rendered) for source in self._sources["candidates"].sources]
        return np.where(rendered, "rendered", self.name)

    def total(self) -> int:
        """As many as there are samples, N + M: an epoch is as long as one of the full data."""
        return len(self.candidates()) + len(self.targets())

    @cached_property
    def _data_recipe(self) -> dict[str, Any]:
        return self.data.recipe(self.seed, self._sources, self.cache_dir)

    def data_recipe(self) -> dict[str, Any]:
        return self._data_recipe

    def split_recipe(self, split: Split) -> dict[str, Any]:
        """Candidates, surrogates and features stay the same for other scenes to judge by, where these are files."""
        files = self._data_recipe.get("files")
        return {**self._data_recipe, "files": files[split]} if isinstance(files, dict) else self._data_recipe

    def surrogate_data(self) -> dict[str, Any]:
        return self.split_recipe("candidates")

    def model_recipe(self) -> dict[str, Any]:
        return self.architecture.recipe(self.cache_dir)

    # --- model -------------------------------------------------------------------------------------------------------

    def model(self) -> Segmenter:
        return self.architecture.build(len(self.data.classes))

    def losses(self, model: Segmenter, batch: Batch) -> Tensor:
        """Each sample's mean cross-entropy over its pixels, [B], without the ignored ones; 0 where all are ignored."""
        return _losses(model(batch[0]), batch[1])

    def embeddings(self, model: Segmenter, batch: Batch) -> Tensor:
        """What the last convolution is given, averaged over the image, [B, 256]."""
        return model.embeddings(batch[0])

    def images(self, batch: Batch) -> Tensor:
        return colours(batch[0])

    def fit_surrogate(self, seed: int, *, run: int, keep: Surrogate) -> list[Checkpoint]:
        scenes = self.candidates()
        everyone = np.ones(len(scenes), dtype=np.int64)
        kept = self._fit(self._fresh(seed), scenes, everyone, seed, run=run, keep=keep)
        # momentum is of no use to anybody and as large as the model; Adam's moments are LESS's
        return [replace(c, optimizer_state=None) if self.training.optimizer == "sgd" else c for c in kept]

    def fit_downstream(self, weights: np.ndarray, seed: int) -> Segmenter:
        """Validated now and then; the model that was best, or the last one (`train.choose`)."""
        model, moments = self._fresh(seed), self.training.moments()
        kept: dict[str, Tensor] = {}

        def watch(model: Segmenter, step: int) -> None:
            if step not in moments:
                return
            score = self.miou(model, self.validation())
            best = score > model.validation[0].item()
            model.validation[1] = score
            if best:
                model.validation[0] = score
            if best and self.training.choose == "best":
                kept.update({name: value.clone() for name, value in model.state_dict().items()})

        self._fit(model, self.candidates() + self.targets(), weights, seed, watch=watch)
        if kept:
            kept["validation"] = model.validation.clone()
            model.load_state_dict(kept)
        return model

    def _fresh(self, seed: int) -> Segmenter:
        model = self.fresh(self.model, seed)
        return model.to(memory_format=torch.channels_last)  # faster convolutions on any device

    def _fit(
        self, model: Segmenter, scenes: Scenes, weights: np.ndarray, seed: int, **options: Any
    ) -> list[Checkpoint]:
        def loss(model: nn.Module, batch: Batch) -> Tensor:
            images, labels = batch
            with self.training.precision(self.device):
                logits = model(images)
            return _losses(logits, labels, self.training.label_smoothing).mean()

        batches = training_batches(scenes, weights, self.training, seed, self.workers, self.device)
        with seeded(seed), closing(batches):  # the seed decides what dropout drops, too
            return fit(model, loss, batches, self.training, **options)

    # --- results -----------------------------------------------------------------------------------------------------

    def _batches(self, scenes: Scenes) -> Iterator[Batch]:
        return all_batches(scenes, self.training.batch_size, self.workers, self.device)

    @torch.no_grad()
    def predictions(self, model: nn.Module, scenes: Scenes) -> Iterator[tuple[Tensor, Tensor]]:
        """Predicted classes and labels, both int64 [B, H, W], of all scenes in their order. Where labels are larger
        than images, so is what is predicted: its logits are interpolated."""
        model.eval()
        for images, labels in self._batches(scenes):
            with self.training.precision(self.device):
                logits = model(images)
            yield _predicted(logits, labels.shape[-2:]), labels

    def miou(self, model: nn.Module, scenes: Scenes) -> float:
        index = MulticlassJaccardIndex(len(self.data.classes), ignore_index=IGNORE, validate_args=False)
        index.to(self.device)
        for predicted, labels in self.predictions(model, scenes):
            index.update(predicted, labels)
        return float(index.compute())

    def evaluate(self, model: Segmenter, split: Split = "test") -> dict[str, float]:
        """Mean intersection over union on a split, over the classes that occur in it or are predicted; the share of
        pixels that are right; the best and the last mIoU on `validation` during the training, where there was one;
        the IoU of each class that occurs."""
        names = self.data.classes.names
        matrix = MulticlassConfusionMatrix(len(names), ignore_index=IGNORE, validate_args=False).to(self.device)
        index = MulticlassJaccardIndex(len(names), ignore_index=IGNORE, validate_args=False).to(self.device)
        for predicted, labels in self.predictions(model, self.splits[split]):
            matrix.update(predicted, labels)
            index.update(predicted, labels)
        counts = matrix.compute().double().cpu()
        right, occurring = counts.diagonal(), counts.sum(1)
        iou = right / (counts.sum(0) + occurring - right).clamp(min=1)
        best, last = model.validation.tolist()
        return {
            "miou": float(index.compute()),
            "pixel_accuracy": (right.sum() / occurring.sum().clamp(min=1)).item(),
            **({"miou/val_best": best, "miou/val_last": last} if last >= 0 else {}),
            **{f"iou/{name}": iou[i].item() for i, name in enumerate(names) if occurring[i]},
        }

    def draw(self, sample: Sample, axes: Axes) -> None:
        """The image under its label in colours."""
        image, label = _of_one_size(sample)
        axes.imshow(overlaid(picture(image), label.numpy(), self.data.classes), vmin=0, vmax=255)
        axes.set_axis_off()

    @torch.no_grad()
    def draw_prediction(self, model: nn.Module | None, sample: Sample, axes: Axes) -> None:
        """The predicted classes in their colours; the label without a model. What has no label is black in both."""
        image, label = _of_one_size(sample)
        if model is not None:
            predicted = model.eval()(image[None].to(self.device)).argmax(1)[0].cpu()
            label = torch.where(label == IGNORE, label, predicted)
        axes.imshow(coloured(label.numpy(), self.data.classes), vmin=0, vmax=255, interpolation="nearest")
        for name, colour in zip(self.data.classes.names, self.data.classes.colours, strict=True):
            shade = [part / 255 for part in colour]
            axes.plot([], [], "s", color=shade, markeredgecolor="grey", markeredgewidth=0.5, label=name)  # in legends
        axes.set_axis_off()


def _predicted(logits: Tensor, size: torch.Size) -> Tensor:
    """The likeliest classes, int64 [B, H, W], at this size; image by image, since larger logits take much memory."""
    if logits.shape[-2:] == size:
        return logits.argmax(1)
    resized = (functional.interpolate(one[None].float(), size, mode="bilinear") for one in logits)
    return torch.cat([one.argmax(1) for one in resized])


def _of_one_size(sample: Sample) -> Sample:
    """The label as large as the image, for pictures."""
    image, label = sample
    if label.shape == image.shape[-2:]:
        return sample
    scaled = functional.interpolate(label[None, None].float(), image.shape[-2:], mode="nearest-exact")
    return image, scaled[0, 0].long()


def _losses(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    by_pixel = functional.cross_entropy(
        logits.float(), labels, reduction="none", ignore_index=IGNORE, label_smoothing=label_smoothing
    )
    return by_pixel.sum((1, 2)) / (labels != IGNORE).sum((1, 2)).clamp(min=1)
