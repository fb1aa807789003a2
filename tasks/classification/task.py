"""What digits and CIFAR-10 have in common: everything but their images and their model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tarot import InputError, Selection
from tarot.fingerprint import fingerprint
from tasks.classification.corruption import Corrupted
from tasks.classification.domain import Plain, Rotated
from tasks.classification.images import ImageSet, augmented
from tasks.classification.models import penultimate
from tasks.classification.poison import collide
from tasks.common.cache import cached_arrays, cached_checkpoints
from tasks.common.training import Training, endless_batches, epoch_weights, fit, resolve_device, seeded
from tasks.task import Checkpoint, Split, Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Images = tuple[Tensor, Tensor]  # float32 [B, C, H, W], int64 [B]


@dataclass(frozen=True)
class Surrogate:
    """The models that gradients are taken of: `runs` of them, trained independently on all candidates, each giving
    `checkpoints`, evenly spaced, the last at the end of its training."""

    runs: int = 1
    checkpoints: int = 1


class ClassificationTask(Task):
    """A subclass brings its pools of images and its model."""

    classes: tuple[str, ...]

    def __init__(
        self,
        *,
        name: str,
        rotated: Rotated,
        plain: Plain,
        corrupted: Corrupted,
        train: Training,
        domain: Literal["rotated", "plain", "corrupted"] = "rotated",
        surrogate: Surrogate = Surrogate(),
        data_dir: str | Path = "data",
        cache_dir: str | Path = "cache",
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        domains = {"rotated": rotated, "plain": plain, "corrupted": corrupted}
        if domain not in domains:
            raise InputError(f"task.domain must be rotated, plain or corrupted; it is {domain!r}")
        self.name, self.domain = name, domains[domain]
        self.training, self.surrogate, self.seed = train, surrogate, seed
        self.data_dir, self.cache_dir = Path(data_dir), Path(cache_dir)
        self.device = resolve_device(device)

    @abstractmethod
    def pools(self) -> tuple[ImageSet, ImageSet]:
        """Images to train on and images to test on, disjoint; the domain is made of them."""

    def source(self) -> str:
        """Which images they are: what tells one copy of a data set from another."""
        return self.name

    @abstractmethod
    def architecture(self) -> dict[str, Any]:
        """What determines the model, as plain data."""

    # --- data --------------------------------------------------------------------------------------------------------

    @cached_property
    def splits(self) -> dict[Split, ImageSet]:
        pools = self.pools()
        if isinstance(self.domain, Corrupted):
            return self.domain.splits(*pools, seed=self.seed, craft=self._craft)
        return self.domain.splits(*pools, seed=self.seed)

    def candidates(self) -> ImageSet:
        return self.splits["candidates"]

    def targets(self) -> ImageSet:
        return self.splits["targets"]

    def validation(self) -> ImageSet:
        return self.splits["validation"]

    def test(self) -> ImageSet:
        return self.splits["test"]

    def ids(self, split: Split) -> list[str]:
        return self.splits[split].ids.tolist()

    def labels(self, split: Split = "candidates") -> np.ndarray:
        return self.splits[split].labels

    def candidate_tags(self) -> np.ndarray:
        return self.splits["candidates"].tags

    def recipe(self) -> dict[str, Any]:
        data = {
            "source": self.source(),
            "domain": type(self.domain).__name__,
            **_plain(asdict(self.domain)),
            "seed": self.seed,
        }
        if isinstance(self.domain, Corrupted):
            data |= self.domain.recipe()
            if self.domain.kind == "poison_frogs":
                data["encoder"] = self._encoder_recipe()
        return {
            "name": self.name,
            "data": data,
            "model": self.architecture(),
            "surrogate": {**asdict(self.surrogate), **self._training_alone(), "seed": self.seed},
            "train": asdict(self.training),
        }

    def _training_alone(self) -> dict[str, Any]:
        """The training of a model that sees no targets."""
        return {key: value for key, value in asdict(self.training).items() if key != "merge_targets"}

    def _encoder_recipe(self) -> dict[str, Any]:
        return {"model": self.architecture(), "training": self._training_alone(), "seed": 1000 * self.seed + 999}

    def _craft(self, clean: ImageSet, bases: ImageSet, victim: ImageSet) -> tuple[np.ndarray, np.ndarray]:
        """Poisons against a model that the task's own training makes of the clean candidates; both are cached."""

        def make() -> dict[str, np.ndarray]:
            recipe = self._encoder_recipe()
            known = fingerprint({"source": self.source(), "images": clean.ids.tolist(), **recipe})
            everyone = np.ones(len(clean), dtype=np.int64)
            [checkpoint] = cached_checkpoints(
                self.cache_dir / "checkpoints" / f"{self.name}-encoder-{known}.pt",
                lambda: self.fit(clean, everyone, self.training, recipe["seed"], keep=1)[1],
            )
            model = self.model().to(self.device, memory_format=torch.channels_last)
            model.load_state_dict(checkpoint.state)
            model.eval().requires_grad_(False)
            mean, std = (torch.tensor(value, device=self.device).view(-1, 1, 1) for value in (clean.mean, clean.std))
            images, victims = (torch.from_numpy(some.images).to(self.device) for some in (bases, victim))
            poisons, collided = collide(
                lambda images: penultimate(model, (images - mean) / std),
                images,
                victims[0],
                steps=self.domain.steps,
                reach=self.domain.reach,
            )
            return {"images": poisons, "collided": collided}

        path = self.cache_dir / "poisons" / f"{self.name}-{fingerprint(self.recipe()['data'])}.npz"
        made = cached_arrays(path, make)
        return made["images"], made["collided"]

    # --- model -------------------------------------------------------------------------------------------------------

    def losses(self, model: nn.Module, batch: Images) -> Tensor:
        """Cross-entropy, without the label smoothing of the training."""
        images, labels = batch
        return functional.cross_entropy(model(images), labels, reduction="none")

    def measurements(self, model: nn.Module, batch: Images) -> Tensor:
        """The margin log p / (1 - p) of the right class: its logit less the logsumexp of the others."""
        images, labels = batch
        return margins(model(images), labels)

    def residuals(self, model: nn.Module, batch: Images) -> Tensor:
        """1 - p of the right class, which is -d loss / d margin."""
        return torch.sigmoid(-self.measurements(model, batch))

    def embeddings(self, model: nn.Module, batch: Images) -> Tensor:
        """What the last linear layer is given, [B, d]."""
        return penultimate(model, batch[0])

    def error_norms(self, model: nn.Module, batch: Images) -> Tensor:
        """||softmax - onehot||_2, [B], from 0 to sqrt(2)."""
        images, labels = batch
        probabilities = model(images).softmax(1)
        return (probabilities - functional.one_hot(labels, probabilities.shape[1])).norm(dim=1)

    def checkpoints(self) -> list[Checkpoint]:
        recipe = {key: value for key, value in self.recipe().items() if key != "train"}
        path = self.cache_dir / "checkpoints" / f"{self.name}-{fingerprint(recipe)}.pt"
        return cached_checkpoints(path, self._train_surrogates)

    def _train_surrogates(self) -> list[Checkpoint]:
        images, kept = self.candidates(), []
        everyone = np.ones(len(images), dtype=np.int64)
        for run in range(self.surrogate.runs):
            keep = self.surrogate.checkpoints
            kept += self.fit(images, everyone, self.training, 1000 * self.seed + run, run=run, keep=keep)[1]
        return kept

    def train(self, selection: Selection, seed: int) -> nn.Module:
        weights = epoch_weights(selection, len(self.candidates()), len(self.targets()), self.training.merge_targets)
        return self.fit(self.candidates() + self.targets(), weights, self.training, seed)[0]

    def fit(
        self, images: ImageSet, weights: np.ndarray, training: Training, seed: int, *, run: int = 0, keep: int = 0
    ) -> tuple[nn.Module, list[Checkpoint]]:
        """A fresh model, trained on each image as often as its weight (int64 [n]) says, and `keep` checkpoints."""
        with seeded(seed):
            model = self.model().to(self.device, memory_format=torch.channels_last)  # faster convolutions on any device

        def loss(model: nn.Module, batch: Images) -> Tensor:
            images, labels = batch
            with training.precision(self.device):
                logits = model(images)
            return functional.cross_entropy(logits.float(), labels, label_smoothing=training.label_smoothing)

        batches = self.batches(images, weights, training, seed)
        return model, fit(model, loss, batches, training, run=run, keep=keep)

    def batches(self, images: ImageSet, weights: np.ndarray, training: Training, seed: int) -> Iterator[Images]:
        """Endless training batches on the device, augmented where the training says so."""
        generator = torch.Generator().manual_seed(seed)
        for indices in endless_batches(weights, training.batch_size, seed):
            batch, labels = images.batch(indices)
            if training.augment:
                batch = augmented(batch, generator)
            yield batch.to(self.device, memory_format=torch.channels_last), labels.to(self.device)

    # --- results -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Accuracy and mean loss on `test`, then the accuracy of each class that occurs there."""
        model.eval()
        test = self.test()
        starts = range(0, len(test), 512)
        logits = torch.cat([model(test.batch(slice(i, i + 512))[0].to(self.device)).cpu() for i in starts])
        labels = torch.from_numpy(test.labels)
        right = (logits.argmax(1) == labels).double()
        by_class = {f"accuracy/{self.classes[c]}": right[labels == c].mean().item() for c in labels.unique().tolist()}
        return {"accuracy": right.mean().item(), "loss": functional.cross_entropy(logits, labels).item(), **by_class}

    def draw(self, sample: tuple[Tensor, Tensor], axes: Axes) -> None:
        image, label = sample
        picture = self.candidates().picture(image)
        axes.imshow(picture.squeeze(), cmap="gray" if picture.shape[2] == 1 else None, vmin=0, vmax=255)
        axes.set_title(self.classes[int(label)])
        axes.set_axis_off()


def _plain(value: Any) -> Any:
    """Tuples as lists, all the way down: what a configuration file would say."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """log p / (1 - p) of each label, [B], for logits [B, classes]; finite wherever the logits are."""
    labels = labels[:, None]
    others = logits.scatter(1, labels, float("-inf")).logsumexp(1)
    return logits.gather(1, labels)[:, 0] - others
