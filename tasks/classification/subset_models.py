"""Classifiers trained on subsets: one alone, or many side by side.

Perceptrons are trained side by side as one stacked model (and anything on a GPU); convolutional networks on a CPU one
per core, which is faster there: vmap turns their convolutions into grouped ones (measured on ResNet-9: 1527 against
1852 images a second and core at width 8, 535 against 678 at width 16, before channels_last and bfloat16, which only
the latter gain from).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional

from tasks.common.training import Training, seeded

if TYPE_CHECKING:
    from tasks.classification.task import ClassificationTask, Images


def stackable(task: ClassificationTask) -> bool:
    """Whether models are trained faster side by side."""
    convolutional = any(isinstance(module, nn.Conv2d) for module in task.model().modules())
    return task.device.type == "cuda" or not convolutional


def _training(task: ClassificationTask, mask: np.ndarray) -> Training:
    """A subset's images are seen as many times as a training on all candidates sees its own: fewer steps."""
    return replace(task.training, steps=max(1, round(task.training.steps * mask.mean())))


def train_one(task: ClassificationTask, mask: np.ndarray, seed: int) -> Tensor:
    """Margins of the targets, [M], under one model trained on the masked candidates."""
    model, _ = task.fit(task.candidates(), mask.astype(np.int64), _training(task, mask), seed)
    images, labels = (tensor.to(task.device) for tensor in task.targets().batch(slice(None)))
    with torch.no_grad():
        return task.measurements(model, (images, labels))


def train_stacked(task: ClassificationTask, masks: Sequence[np.ndarray], seeds: Sequence[int]) -> Tensor:
    """What `train_one` gives for each of k equally large masks, [k, M], from one training of k stacked models."""
    models = []
    for seed in seeds:
        with seeded(seed):
            models.append(task.model().to(task.device).train())
    training = _training(task, masks[0])
    parameters, buffers = stack_module_state(models)
    skeleton = models[0]

    def logits(parameters: dict[str, Tensor], buffers: dict[str, Tensor], images: Tensor) -> Tensor:
        return functional_call(skeleton, (parameters, buffers), (images,))

    def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        with training.precision(task.device):
            scores = logits(parameters, buffers, images)
        return functional.cross_entropy(scores.float(), labels, label_smoothing=training.label_smoothing)

    optimizer = training.make_optimizer(parameters.values())
    streams = [
        task.batches(task.candidates(), mask.astype(np.int64), training, seed)
        for mask, seed in zip(masks, seeds, strict=True)
    ]
    for step, batches in enumerate(islice(zip(*streams, strict=True), training.steps)):
        training.set_rate(optimizer, step)
        optimizer.zero_grad()
        vmap(loss)(parameters, buffers, *_stack(batches)).sum().backward()  # the models share no parameter
        optimizer.step()
    skeleton.eval()
    images, labels = (tensor.to(task.device) for tensor in task.targets().batch(slice(None)))

    def measure(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        return task.measurements(lambda inputs: logits(parameters, buffers, inputs), (images, labels))

    with torch.no_grad():
        return vmap(measure)(parameters, buffers)


def _stack(batches: Iterable[Images]) -> Images:
    images, labels = zip(*batches, strict=True)
    return torch.stack(images), torch.stack(labels)
