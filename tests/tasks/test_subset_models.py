"""Models of subsets: trained side by side as if alone, and never twice."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tarot import InputError
from tasks.classification import subset_models
from tasks.classification.subset_models import subset_masks, subset_outputs, train_one, train_stacked
from tests.test_task_contract import small_task


@pytest.fixture
def digits(tmp_path):
    sizes = "plain.candidates=60", "plain.targets=9", "train.steps=30", "hidden=[8]"
    return small_task("digits", tmp_path, "domain=plain", *sizes)


def test_masks_hold_exactly_their_share():
    masks = subset_masks(101, 20, 0.5, seed=3)
    assert masks.dtype == bool and (masks.sum(axis=1) == 50).all()
    assert len(np.unique(masks, axis=0)) == 20
    with pytest.raises(InputError, match="some in and some out"):
        subset_masks(10, 3, 0.01)


def test_stacked_models_are_the_models_trained_alone(digits):
    masks = subset_masks(60, 3)
    together = train_stacked(digits, list(masks), [5, 6, 7])
    alone = torch.stack([train_one(digits, mask, seed) for mask, seed in zip(masks, [5, 6, 7], strict=True)])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)


def test_stacked_convolutions_with_batch_norm_too(tmp_path):
    task = small_task("cifar10", tmp_path, "domain=plain", "plain.candidates=40", "plain.targets=5", "plain.test=10",
                      "plain.validation=5", "train.autocast=null")  # fmt: skip
    masks = subset_masks(40, 2)
    alone = torch.stack([train_one(task, mask, 1) for mask in masks])
    torch.testing.assert_close(train_stacked(task, list(masks), [1, 1]), alone, rtol=1e-2, atol=1e-3)


def test_only_masked_candidates_are_trained_on(digits):
    mask = subset_masks(60, 1)[0]
    before = train_one(digits, mask, 0)
    digits.candidates().images[~mask] = 0
    assert torch.equal(train_one(digits, mask, 0), before)
    digits.candidates().images[mask] = 0
    assert not torch.equal(train_one(digits, mask, 0), before)


def test_an_interrupted_run_goes_on_where_it_stopped(digits, monkeypatch):
    masks = subset_masks(60, 5)
    monkeypatch.setattr(subset_models, "STACKED", 2)
    trained, train = [], subset_models.train_stacked

    def interrupted(task, masks, seeds):
        if len(trained) == 4:
            raise KeyboardInterrupt
        trained.extend(seeds)
        return train(task, masks, seeds)

    monkeypatch.setattr(subset_models, "train_stacked", interrupted)
    with pytest.raises(KeyboardInterrupt):
        subset_outputs(digits, masks)
    trained.pop(0)  # so that one more training is let through
    outputs = subset_outputs(digits, masks)
    assert len(trained) == 4, "a model was trained twice"
    assert outputs.shape == (5, 9) and outputs.dtype == np.float32
    monkeypatch.setattr(subset_models, "train_stacked", None)
    assert np.array_equal(subset_outputs(digits, masks[::-1]), outputs[::-1]), (
        "outputs depend on the order of the masks"
    )


def test_repeats_are_other_models_and_are_averaged(digits):
    masks = subset_masks(60, 2)
    once, twice = subset_outputs(digits, masks), subset_outputs(digits, masks, repeats=2)
    assert once.shape == twice.shape and not np.allclose(once, twice)


def test_masks_that_do_not_fit(digits):
    with pytest.raises(InputError, match=r"bool \[m, 60\]"):
        subset_outputs(digits, np.ones((3, 10), dtype=bool))


@pytest.mark.slow
def test_processes_give_what_one_process_gives(tmp_path):
    task = small_task("cifar10", tmp_path, "domain=plain", "plain.candidates=40", "plain.targets=5", "plain.test=10",
                      "plain.validation=5")  # fmt: skip
    masks = subset_masks(40, 4)
    outputs = subset_outputs(task, masks, workers=2)
    (folder,) = (tmp_path / "subset_models").iterdir()
    seeds = [subset_models._job(mask, 0, folder).seed for mask in masks]
    alone = np.stack([train_one(task, mask, seed).numpy() for mask, seed in zip(masks, seeds, strict=True)])
    np.testing.assert_allclose(outputs, alone, rtol=1e-3, atol=1e-3)
