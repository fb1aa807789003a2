"""Networks trained from scratch on a few images, with hard labels or with a teacher's (theory.md 12.3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tarot import InputError
from tarot.common import Count, NonNegative, Positive, check_options
from tasks.classification.images import LabelledImages
from tasks.classification.views import Views
from tasks.common.training import endless_batches, seeded


@dataclass(frozen=True)
class Student:
    """How a student is trained: AdamW, on a cosine to 0, so many steps whatever it is trained on.

    temperature: of soft labels. weight_decay: of matrices and kernels alone. views: of every image in every step, the
    same kind for all arms and labels; hard labels are without CutMix.
    """

    steps: Count = 300
    batch_size: Count = 100
    learning_rate: Positive = 5e-3
    weight_decay: NonNegative = 0.01
    temperature: Positive = 4.0
    views: Views = field(default_factory=Views)

    def __post_init__(self) -> None:
        check_options(self, "experiment.student")

    def rate(self, step: int) -> float:
        """Learning rate of step 0..steps-1."""
        return self.learning_rate * (1 + math.cos(math.pi * step / self.steps)) / 2


def train_student(
    make: Callable[[], nn.Module],
    images: LabelledImages,
    weights: np.ndarray,
    student: Student,
    *,
    teacher: nn.Module | None,
    seed: int,
    device: torch.device,
) -> nn.Module:
    """A network of `make` trained on these images, in eval mode. weights: float64 [n], how much each counts; divided by
    their mean over the set (ledger of distillation, D-08).

    teacher: in eval mode, whose logits of exactly the view that the student sees are its labels; None: the class is.
    The seed decides the network's start, the order of images and their views.
    """
    with seeded(seed):
        model = make().to(device).to(memory_format=torch.channels_last).train()  # faster convolutions on any device
    share = torch.from_numpy(relative(weights)).float().to(device)
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": student.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=student.learning_rate,
    )
    for step, (batch, labels, which) in enumerate(_batches(images, student, seed)):
        generator = torch.Generator().manual_seed(int(np.random.SeedSequence((seed, step)).generate_state(1)[0]))
        view = student.views.of(batch.to(device), generator, mixed=teacher is not None)
        for group in optimizer.param_groups:
            group["lr"] = student.rate(step)
        if teacher is None:
            losses = functional.cross_entropy(model(view), labels.to(device), reduction="none")
        else:
            with torch.no_grad():
                told = teacher(view)
            losses = soft_losses(model(view), told, student.temperature)
        loss = (losses * share[torch.from_numpy(which).to(device)]).mean()
        if not torch.isfinite(loss):
            raise InputError(f"a student diverged at step {step}; lower experiment.student.learning_rate")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def soft_losses(logits: Tensor, told: Tensor, temperature: float) -> Tensor:
    """KL(softmax(told / T) || softmax(logits / T)), [B]; it is not multiplied by the square of T."""
    expected = torch.log_softmax(told / temperature, dim=1)
    found = torch.log_softmax(logits / temperature, dim=1)
    return functional.kl_div(found, expected, reduction="none", log_target=True).sum(dim=1)


def relative(weights: np.ndarray) -> np.ndarray:
    """Over their mean in the whole set, whatever a batch holds of it."""
    return weights / weights.mean()


def _batches(images: LabelledImages, student: Student, seed: int) -> Iterator[tuple[Tensor, Tensor, np.ndarray]]:
    everyone = np.ones(len(images), dtype=np.int64)
    stream = endless_batches(everyone, min(student.batch_size, len(images)), seed)
    for _, which in zip(range(student.steps), stream, strict=False):
        batch, labels = images.batch(which)
        yield batch, labels, which
