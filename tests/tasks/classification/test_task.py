"""Domains, margins, augmentation and the ResNet-9."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tarot import InputError
from tarot.gradients import penultimate
from tasks.classification import Plain, Rotated
from tasks.classification.images import ImageSet, augmented
from tasks.classification.models import perceptron, resnet9
from tasks.classification.task import margins


def pool(n: int, name: str) -> ImageSet:
    rng = np.random.default_rng(len(name))
    images = rng.integers(0, 256, size=(n, 1, 6, 6)).astype(np.uint8)
    ids = np.array([f"{name}-{i}" for i in range(n)])
    return ImageSet(images, np.arange(n) % 10, ids, np.full(n, ""), (0.5,), (0.25,))


SIZES = {"candidates": 100, "targets": 10, "validation": 10, "test": 20}


@pytest.mark.parametrize("domain", [Plain(**SIZES), Rotated(**SIZES)])
def test_splits_have_their_sizes_and_share_no_image(domain):
    splits = domain.splits(pool(400, "train"), pool(100, "test"), seed=0)
    assert {name: len(images) for name, images in splits.items()} == SIZES
    ids = np.concatenate([images.ids for images in splits.values()])
    assert len(np.unique(ids)) == len(ids)
    assert all(name.startswith("test") for name in splits["test"].ids)


def test_tags_say_what_was_done_to_a_candidate():
    domain, train = Rotated(**SIZES), pool(400, "train")
    candidates = domain.splits(train, pool(100, "test"), seed=0)["candidates"]
    source = {name: i for i, name in enumerate(train.ids)}
    counts = dict(zip(*np.unique(candidates.tags, return_counts=True), strict=True))
    assert counts == {"target": 20, "upright": 25, "other_class": 20, "mislabelled": 25, "noisy": 10}
    for i, tag in enumerate(candidates.tags):
        before, label = train.images[source[candidates.ids[i]], 0], train.labels[source[candidates.ids[i]]]
        assert np.array_equal(candidates.images[i, 0], np.rot90(before)) == (
            tag in ("target", "other_class", "mislabelled")
        )
        assert np.array_equal(candidates.images[i, 0], before) == (tag == "upright")
        assert (candidates.labels[i] != label) == (tag == "mislabelled")
        assert (label in domain.classes) == (tag != "other_class")
        assert candidates.labels[i] in domain.classes or tag == "other_class"


def test_a_class_is_rotated_in_each_way_equally_often():
    domain, train, test = Rotated(**SIZES | {"targets": 21}, turns=(1, 2, 3)), pool(400, "train"), pool(100, "test")
    splits = domain.splits(train, test, seed=0)
    before = {name: images[0] for pool in (train, test) for name, images in zip(pool.ids, pool.images, strict=True)}

    def ways(images: ImageSet) -> np.ndarray:
        """How often each class is rotated in each way, int64 [classes, turns]"""
        found = np.zeros((7, 3), dtype=np.int64)
        for name, image, label in zip(images.ids, images.images, images.labels, strict=True):
            [way] = [i for i, turns in enumerate((1, 2, 3)) if np.array_equal(image[0], np.rot90(before[name], turns))]
            found[label, way] += 1
        return found

    assert (ways(splits["targets"]) == 1).all()
    alike = splits["candidates"].take(np.flatnonzero(splits["candidates"].tags == "target"))
    for images in (alike, splits["validation"], splits["test"]):
        assert np.ptp(ways(images), axis=1).max() <= 1


def test_domains_that_cannot_be():
    with pytest.raises(InputError, match="80 more images"):
        Plain(**{**SIZES, "test": 80}).splits(pool(400, "train"), pool(50, "test"), seed=0)
    with pytest.raises(InputError, match="sum to 1"):
        Rotated(**SIZES, shares={"target": 1, "upright": 1, "other_class": 0, "mislabelled": 0, "noisy": 0})
    with pytest.raises(InputError, match="turns must name one"):
        Rotated(**SIZES, turns=())
    with pytest.raises(InputError, match="must name"):
        Rotated(**SIZES, shares={"target": 1.0})


def test_margins_are_the_log_odds():
    logits = torch.randn(20, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(20) % 7
    p = logits.softmax(1)[torch.arange(20), labels]
    torch.testing.assert_close(margins(logits, labels), (p / (1 - p)).log())
    extreme = torch.tensor([[200.0, 0.0, 0.0], [-200.0, 0.0, 0.0]])
    expected = torch.tensor([200.0 - np.log(2), -200.0 - np.log(2)], dtype=torch.float32)
    torch.testing.assert_close(margins(extreme, torch.zeros(2, dtype=torch.long)), expected)


def test_a_picture_is_the_image_again():
    images = pool(3, "train")
    assert np.array_equal(images.picture(images[1][0])[:, :, 0], images.images[1, 0])


def test_augmentation_moves_mirrors_and_cuts():
    image = torch.arange(1.0, 65.0).view(1, 1, 8, 8).expand(200, -1, -1, -1)
    padded = torch.nn.functional.pad(image[0, 0], [2] * 4)
    shifts = [padded[i : i + 8, j : j + 8] for i in range(5) for j in range(5)]
    mirrored = torch.nn.functional.pad(image[0, 0].flip(1), [2] * 4)
    shifts += [mirrored[i : i + 8, j : j + 8] for i in range(5) for j in range(5)]
    seen = set()
    for result in augmented(image, torch.Generator().manual_seed(0))[:, 0]:
        match = [k for k, expected in enumerate(shifts) if ((result == expected) | (result == 0)).all()]
        assert match and (result == 0).sum() >= 16
        seen.update(match)
    assert len(seen) > 40, "not every shift and mirror image occurs"


def test_resnet9_is_traks():
    assert sum(p.numel() for p in resnet9().parameters()) == 2_274_880
    assert resnet9(width=4)(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_penultimate_activations_give_the_logits_through_the_last_layer():
    images = torch.randn(3, 3, 32, 32)
    for model, last in ((resnet9(width=4).eval(), -2), (perceptron(3 * 32 * 32, [7, 5], 10), -1)):
        before = penultimate(model, images)
        assert before.shape == (3, model[last].in_features)
        torch.testing.assert_close(model[last:](before), model(images))
        assert not model[last]._forward_pre_hooks
    with pytest.raises(InputError, match="no penultimate"):
        penultimate(torch.nn.Flatten(), images)
