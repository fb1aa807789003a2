"""What a task makes of its samples by a model."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from tasks.common.training import seeded
from tasks.task import (
    SPLITS,
    CostsSamples,
    GivesEmbeddings,
    GivesErrorNorms,
    GivesImages,
    GivesStates,
    GivesTexts,
    Task,
)
from tests.tasks.conformance.tools import (
    Builder,
    batch_of,
    check,
    equal,
    said_of_samples,
    same,
    surrogate,
    unseen,
)


@check
def models_are_fresh(build: Builder) -> None:
    task = build()
    for make in (task.model, task.downstream):
        with seeded(0):
            one = make()
        with seeded(0):
            two = make()
        with seeded(1):
            other = make()
        assert one is not two, "a model is given twice"
        assert not {id(p) for p in one.parameters()} & {id(p) for p in two.parameters()}, "two models share weights"
        assert same(one.state_dict(), two.state_dict()), "weights come from elsewhere than torch's global generator"
        assert not same(one.state_dict(), other.state_dict()), "weights do not follow torch's global generator"


@check
def losses_are_of_single_samples(build: Builder) -> None:
    task = build()
    model = surrogate(task)
    batch = batch_of(task, range(6))
    together = task.losses(model, batch)
    assert equal(batch, batch_of(task, range(6))), "losses write into their batch"
    assert together.shape == (6,), f"losses of 6 samples have the shape {tuple(together.shape)}"
    assert together.dtype in (torch.float32, torch.float64), f"losses are {together.dtype}, which rounds them"
    assert together.requires_grad and torch.isfinite(together).all(), "a loss has no gradient, or is not finite"
    for i in range(6):
        alone = task.losses(model, batch_of(task, [i]))[0]
        torch.testing.assert_close(alone, together[i], rtol=1e-4, atol=1e-5, msg="a loss depends on its batch")
    backwards = task.losses(model, batch_of(task, range(5, -1, -1))).flip(0)
    torch.testing.assert_close(backwards, together, rtol=1e-4, atol=1e-5, msg="a loss depends on its place")


@check
def selection_never_sees_the_test_split(build: Builder) -> None:
    """Whatever it asks: samples and what is said of them, checkpoints, and what the model makes of samples."""
    task = build.anew()
    with unseen(task, "test", "selection looked at the test split"):
        model = surrogate(task)
        said_of_samples(task)
        for split in ("candidates", "targets"):
            batch = batch_of(task, range(2), split)
            assert len(task.ids(split)) and task.losses(model, batch).shape == (2,)
            task.measurements(model, batch)
            task.residuals(model, batch)
            if isinstance(task, GivesEmbeddings):
                task.embeddings(model, batch)
            if isinstance(task, GivesErrorNorms):
                task.error_norms(model, batch)


@check
def measurements_and_residuals_are_one_number_per_sample(build: Builder) -> None:
    task = build()
    model, batch = surrogate(task), batch_of(task, range(5), "targets")
    measured, residuals = task.measurements(model, batch), task.residuals(model, batch)
    assert measured.shape == residuals.shape == (5,), "there is not one number per sample"
    assert torch.isfinite(measured).all() and torch.isfinite(residuals).all(), "a number is not finite"
    assert (residuals >= 0).all(), "a loss rises with its measurement"
    alone = task.measurements(model, batch_of(task, [1], "targets"))[0]
    why = "a measurement depends on its batch"
    torch.testing.assert_close(alone.detach(), measured[1].detach(), rtol=1e-4, atol=1e-5, msg=why)


@check
def residuals_are_the_slope_of_the_loss(build: Builder) -> None:
    """d loss = -Q d measurement, along the gradient of the measurement."""
    task = build()
    model, batch = surrogate(task), batch_of(task, [0])
    parameters = [p for p in model.parameters() if p.requires_grad]
    d_loss = torch.autograd.grad(task.losses(model, batch).sum(), parameters, allow_unused=True)
    d_measurement = torch.autograd.grad(task.measurements(model, batch).sum(), parameters, allow_unused=True)
    residual = task.residuals(model, batch).item()
    for a, b in zip(d_loss, d_measurement, strict=True):
        assert (a is None) == (b is None), "loss and measurement are of other parameters"
        if a is not None:
            why = "d loss is not -residual d measurement"
            torch.testing.assert_close(a, -residual * b, rtol=1e-3, atol=1e-5, msg=why)


@check
def embeddings_are_of_single_samples(build: Builder) -> None:
    task = build()
    if isinstance(task, GivesEmbeddings):
        _of_single_samples(task, task.embeddings, dimensions=2)


@check
def hidden_states_are_of_single_samples(build: Builder) -> None:
    """And of a model that has learnt nothing of the task: a surrogate's are those of a fresh one."""
    task = build()
    if isinstance(task, GivesStates):

        def states(model: torch.nn.Module, batch: Any) -> torch.Tensor:
            return task.pooled_states(model, batch, [0, -1])

        _of_single_samples(task, states, dimensions=2)
        batch = batch_of(task, range(4))
        with torch.no_grad(), seeded(5):
            fresh, learnt = (states(model, batch) for model in (task.model().eval(), surrogate(task)))
        torch.testing.assert_close(fresh, learnt)


@check
def images_are_seen_on_one_scale(build: Builder) -> None:
    task = build()
    if isinstance(task, GivesImages):
        images = task.images(batch_of(task, range(4)))
        assert images.ndim == 4 and len(images) == 4 and images.shape[1] in (1, 3), tuple(images.shape)
        scale = f"they go from {images.min():g} to {images.max():g}"
        assert images.min() >= 0 and images.max() <= 1 and images.std() > 0, scale


@check
def texts_are_one_for_each_sample(build: Builder) -> None:
    task = build()
    if isinstance(task, GivesTexts):
        for split in SPLITS:
            texts = task.texts(split)
            assert len(texts) == len(task.ids(split)), f"texts of {split}: {len(texts)}"
            assert all(isinstance(text, str) and text for text in texts), f"a sample of {split} says nothing"


@check
def error_norms_are_of_single_samples(build: Builder) -> None:
    task = build()
    if isinstance(task, GivesErrorNorms):
        _of_single_samples(task, task.error_norms, dimensions=1)
        assert (task.error_norms(surrogate(task), batch_of(task, range(6))) >= 0).all(), "a norm is negative"


def _of_single_samples(task: Task, measure: Callable[..., torch.Tensor], dimensions: int) -> None:
    model = surrogate(task)
    for split in ("candidates", "targets"):
        together = measure(model, batch_of(task, range(6), split)).detach()
        assert together.ndim == dimensions and len(together) == 6, f"it has the shape {tuple(together.shape)}"
        assert torch.isfinite(together).all() and (together != together[0]).any(), "all samples look alike"
        for i in range(6):
            alone = measure(model, batch_of(task, [i], split))[0].detach()
            torch.testing.assert_close(alone, together[i], rtol=1e-4, atol=1e-5, msg="it depends on its batch")
        assert torch.equal(measure(model, batch_of(task, range(6), split)), together), "it is not always the same"
        assert not model.training, "the model is left in train mode"
        assert not any(module._forward_pre_hooks for module in model.modules()), "a hook was left in the model"


@check
def a_sample_has_a_cost(build: Builder) -> None:
    task = build()
    if isinstance(task, CostsSamples):
        costs = [task.cost(task.candidates()[i]) for i in range(3)]
        assert all(isinstance(cost, float) and 0 < cost < math.inf for cost in costs), f"costs are {costs}"
