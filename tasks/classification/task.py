"""What classifications of images have in common: everything but their images and their model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tarot.common import checked
from tarot.gradients import penultimate
from tasks.classification.images import LabelledImages, augmented
from tasks.classification.networks import network
from tasks.classification.subset_models import stackable, train_one, train_stacked
from tasks.common.supervised import SupervisedTask
from tasks.common.training import Surrogate, Training, endless_batches, fit
from tasks.task import Checkpoint, Split

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Images = tuple[Tensor, Tensor]  # float32 [B, C, H, W], int64 [B]


class ClassificationTask(SupervisedTask[nn.Module]):
    """A subclass brings its images and its model. Other options are `SupervisedTask`'s."""

    @checked("task")
    def __init__(self, *, data_dir: str | Path = "data", **options: Any) -> None:
        super().__init__(**options)
        self.data_dir = Path(data_dir)

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Their names, in the order of the labels."""

    @property
    @abstractmethod
    def splits(self) -> Mapping[Split, LabelledImages]:
        """The images of every split; looked at often, so made once."""

    def surrogate_images(self) -> LabelledImages:
        """What the surrogates are trained on."""
        return self.candidates()

    # --- data --------------------------------------------------------------------------------------------------------

    def labels(self, split: Split = "candidates") -> np.ndarray:
        return self.splits[split].labels

    def candidate_tags(self) -> np.ndarray | None:
        return self.splits["candidates"].tags

    def total(self) -> None:
        """The selector's own choice."""

    # --- model -------------------------------------------------------------------------------------------------------

    def built(self, name: str) -> nn.Module:
        """A fresh network of this name (`networks.network`) for the task's images and classes."""
        channels, size, _ = self.candidates().pixels([0]).shape[1:]
        return network(name, len(self.classes), channels, size)

    def losses(self, model: Callable[[Tensor], Tensor], batch: Images) -> Tensor:
        """Cross-entropy, without the label smoothing of the training."""
        images, labels = batch
        return functional.cross_entropy(model(images), labels, reduction="none")

    def measurements(self, model: Callable[[Tensor], Tensor], batch: Images) -> Tensor:
        """The margin log p / (1 - p) of the right class: its logit less the logsumexp of the others."""
        images, labels = batch
        return margins(model(images), labels)

    def residuals(self, model: Callable[[Tensor], Tensor], batch: Images) -> Tensor:
        """1 - p of the right class, which is -d loss / d margin."""
        return torch.sigmoid(-self.measurements(model, batch))

    def embeddings(self, model: nn.Module, batch: Images) -> Tensor:
        """What the last linear layer is given, [B, d]."""
        return penultimate(model, batch[0])

    def images(self, batch: Images) -> Tensor:
        return self.candidates().colours(batch[0])

    def error_norms(self, model: nn.Module, batch: Images) -> Tensor:
        """||softmax - onehot||_2, [B], from 0 to sqrt(2)."""
        images, labels = batch
        probabilities = model(images).softmax(1)
        return (probabilities - functional.one_hot(labels, probabilities.shape[1])).norm(dim=1)

    def fit_surrogate(self, seed: int, *, run: int, keep: Surrogate) -> list[Checkpoint]:
        images = self.surrogate_images()
        everyone = np.ones(len(images), dtype=np.int64)
        return self.fit(images, everyone, self.surrogate_training, seed, run=run, keep=keep)[1]

    def fit_downstream(self, weights: np.ndarray, seed: int) -> nn.Module:
        return self.fit(self.candidates() + self.targets(), weights, self.training, seed)[0]

    def fit(
        self,
        images: LabelledImages,
        weights: np.ndarray,
        training: Training,
        seed: int,
        *,
        run: int = 0,
        keep: Surrogate | None = None,
    ) -> tuple[nn.Module, list[Checkpoint]]:
        """A fresh model, trained on each image as often as its weight (int64 [n]) says, and the checkpoints that `keep`
        asks for."""
        model = self.fresh(self.model, seed).to(memory_format=torch.channels_last)  # faster convolutions on any device

        def loss(model: nn.Module, batch: Images) -> Tensor:
            images, labels = batch
            with training.precision(self.device):
                logits = model(images)
            return functional.cross_entropy(logits.float(), labels, label_smoothing=training.label_smoothing)

        batches = self.batches(images, weights, training, seed)
        return model, fit(model, loss, batches, training, run=run, keep=keep)

    def subset_measurements(self, mask: np.ndarray, seed: int) -> Tensor:
        return train_one(self, mask, seed)

    def stacks_subsets(self) -> bool:
        return stackable(self)

    def stacked_subset_measurements(self, masks: Sequence[np.ndarray], seeds: Sequence[int]) -> Tensor:
        return train_stacked(self, masks, seeds)

    def batches(self, images: LabelledImages, weights: np.ndarray, training: Training, seed: int) -> Iterator[Images]:
        """Endless training batches on the device, augmented where the training says so."""
        generator = torch.Generator().manual_seed(seed)
        for indices in endless_batches(weights, training.batch_size, seed):
            batch, labels = images.batch(indices)
            if training.augment:
                batch = augmented(batch, generator)
            yield batch.to(self.device, memory_format=torch.channels_last), labels.to(self.device)

    # --- results -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: Split = "test") -> dict[str, float]:
        """Accuracy and mean loss on a split, then the accuracy of each class that occurs there."""
        model.eval()
        judged = self.splits[split]
        starts = range(0, len(judged), 512)
        logits = torch.cat([model(judged.batch(slice(i, i + 512))[0].to(self.device)).cpu() for i in starts])
        labels = torch.from_numpy(judged.labels)
        right = (logits.argmax(1) == labels).double()
        by_class = {f"accuracy/{self.classes[c]}": right[labels == c].mean().item() for c in labels.unique().tolist()}
        return {"accuracy": right.mean().item(), "loss": functional.cross_entropy(logits, labels).item(), **by_class}

    def lower_is_better(self, metric: str) -> bool:
        return metric == "loss"

    def draw(self, sample: tuple[Tensor, Tensor], axes: Axes) -> None:
        image, label = sample
        picture = self.candidates().picture(image)
        axes.imshow(picture.squeeze(), cmap="gray" if picture.shape[2] == 1 else None, vmin=0, vmax=255)
        axes.set_title(self.classes[int(label)])
        axes.set_axis_off()


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """log p / (1 - p) of each label, [B], for logits [B, classes]; finite wherever the logits are."""
    labels = labels[:, None]
    others = logits.scatter(1, labels, float("-inf")).logsumexp(1)
    return logits.gather(1, labels)[:, 0] - others
