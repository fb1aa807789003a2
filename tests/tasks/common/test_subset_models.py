"""Models of subsets: trained side by side as if alone, and never twice."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tarot import InputError
from tasks.classification.subset_models import train_one, train_stacked
from tasks.classification.task import ClassificationTask
from tasks.common import subset_models
from tasks.common.subset_models import subset_masks, subset_outputs
from tasks.common.training import Surrogate
from tests.tasks.test_contract import small_task


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


def test_an_interrupted_run_goes_on_where_it_stopped(digits, tmp_path, monkeypatch):
    masks = subset_masks(60, 5)
    monkeypatch.setattr(subset_models, "STACKED", 2)
    trained = []

    def interrupted(masks, seeds):
        if len(trained) == 4:
            raise KeyboardInterrupt
        trained.extend(seeds)
        return train_stacked(digits, masks, seeds)

    monkeypatch.setattr(ClassificationTask, "stacked_subset_measurements", staticmethod(interrupted))
    with pytest.raises(KeyboardInterrupt):
        subset_outputs(digits, masks, tmp_path)
    trained.pop(0)  # so that one more training is let through
    outputs = subset_outputs(digits, masks, tmp_path)
    assert len(trained) == 4, "a model was trained twice"
    assert outputs.shape == (5, 9) and outputs.dtype == np.float32
    again = subset_outputs(digits, masks[::-1], tmp_path)
    assert np.array_equal(again, outputs[::-1]), "outputs depend on the order of the masks"
    assert len(trained) == 4, "a second run trained again"


def test_repeats_are_other_models_and_are_averaged(digits, tmp_path):
    masks = subset_masks(60, 2)
    once, twice = subset_outputs(digits, masks, tmp_path), subset_outputs(digits, masks, tmp_path, repeats=2)
    assert once.shape == twice.shape and not np.allclose(once, twice)


def test_masks_that_do_not_fit(digits, tmp_path):
    with pytest.raises(InputError, match=r"bool \[m, 60\]"):
        subset_outputs(digits, np.ones((3, 10), dtype=bool), tmp_path)


@pytest.fixture
def motion(tmp_path):
    data = "{cand_target:12,cand_highway:null,cand_roundabout:null,cand_crossing:null,cand_parking:null}"
    return small_task("motion", tmp_path, f"data.candidates={data}", "data.targets=5", "surrogate_targets=false")


def test_a_motion_model_learns_from_its_subset_and_measures_minus_the_loss(motion, tmp_path, monkeypatch):
    """The steps fall with the subset; what it is trained on is the mask, nothing else."""
    seen, fit = [], motion.fit

    def spy(model, forecaster, training, samples, weights, seed, **options):
        seen.append((forecaster, training.steps, len(samples), weights.tolist()))
        fitted = fit(model, forecaster, training, samples, weights, seed, **options)
        spy.model = model
        return fitted

    monkeypatch.setattr(motion, "fit", spy)
    mask = subset_masks(12, 1)[0]
    found = motion.subset_measurements(mask, 3)
    assert seen == [(motion.selects, 2, 12, mask.astype(int).tolist())], "half of 3 steps, on the masked alone"
    with torch.no_grad():
        losses = [motion.losses(spy.model, motion.targets().batch([i]))[0] for i in range(5)]
    torch.testing.assert_close(found, -torch.stack(losses), rtol=1e-4, atol=1e-4)
    assert torch.equal(motion.subset_measurements(mask, 3), found)
    outputs = subset_outputs(motion, subset_masks(12, 3), tmp_path, workers=1)
    assert outputs.shape == (3, 5) and len(np.unique(outputs[:, 0])) == 3


def test_surrogates_that_see_no_target_are_other_ones(motion, tmp_path, monkeypatch):
    sizes = []
    monkeypatch.setattr(motion, "fit", lambda *args, **options: sizes.append(len(args[3])) or [])
    motion.fit_surrogate(0, run=0, keep=Surrogate())
    other = small_task("motion", tmp_path, "data.targets=5")
    assert sizes == [12] and motion.recipe()["surrogate"] != other.recipe()["surrogate"]
    assert "targets" not in other.recipe()["surrogate"], "what is cached of others stays theirs"


def test_a_task_that_trains_no_subset_models_says_so(tmp_path):
    task = small_task("segmentation", tmp_path)
    with pytest.raises(InputError, match="task segmentation trains no models of subsets: write its method") as error:
        subset_outputs(task, np.ones((2, 32), dtype=bool), tmp_path)
    assert "\n" not in str(error.value)


def test_workers_are_counted(motion, tmp_path):
    with pytest.raises(InputError, match="workers is 0"):
        subset_outputs(motion, subset_masks(12, 2), tmp_path, workers=0)


def test_how_many_surrogates_there_are_does_not_matter(motion, tmp_path):
    more = small_task("motion", tmp_path, "surrogate.runs=3")
    fewer = small_task("motion", tmp_path, "surrogate.runs=1")
    longer = small_task("motion", tmp_path, "surrogate_train.steps=7")
    recipes = [subset_models._made_of(task) for task in (more, fewer, longer)]
    assert recipes[0] == recipes[1] != recipes[2]


@pytest.mark.slow
def test_processes_give_what_one_process_gives(tmp_path):
    task = small_task("cifar10", tmp_path, "domain=plain", "plain.candidates=40", "plain.targets=5", "plain.test=10",
                      "plain.validation=5")  # fmt: skip
    masks = subset_masks(40, 4)
    outputs = subset_outputs(task, masks, tmp_path, workers=2)
    (folder,) = (tmp_path / "subset_models").iterdir()
    seeds = [subset_models._job(mask, 0, folder).seed for mask in masks]
    alone = np.stack([train_one(task, mask, seed).numpy() for mask, seed in zip(masks, seeds, strict=True)])
    np.testing.assert_allclose(outputs, alone, rtol=1e-3, atol=1e-3)
