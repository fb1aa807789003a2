"""Statistics of classes against the activations themselves, and the ledger's D-05."""

import numpy as np
import pytest
import torch
from torch import nn

import tarot
from tarot import InputError
from tests.tarot.distillation.networks import network, normalised, pool


def batches(images, labels, size):
    for start in range(0, len(labels), size):
        part = slice(start, start + size)
        yield normalised(images[part]), torch.from_numpy(labels[part])


def activations(model, images):
    """Inputs of both BatchNorm layers."""
    with torch.no_grad():
        first = model[0](images)
        return {"1": first, "5": model[:5](images)}


@pytest.mark.parametrize("size", [1, 7, 24])
def test_they_are_those_of_the_concatenated_activations_however_batched(size):
    model, (images, labels) = network(), pool()
    found = tarot.class_statistics(model, batches(images, labels, size), 3)
    assert found.counts.tolist() == [8, 8, 8]
    for name, given in activations(model, normalised(images)).items():
        for number in range(3):
            of_class = given[labels == number].double().transpose(0, 1).flatten(1)
            torch.testing.assert_close(found.means[name][number], of_class.mean(1), rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(
                found.variances[name][number], of_class.var(1, correction=0), rtol=1e-5, atol=1e-6
            )


def test_the_law_of_total_variance():
    model, (images, labels) = network(), pool()
    by_class = tarot.class_statistics(model, batches(images, labels, 5), 3)
    of_all = tarot.class_statistics(model, batches(images, 0 * labels, 5), 1)
    share = torch.from_numpy(by_class.counts / by_class.counts.sum())[:, None]
    for name in by_class.means:
        mean = (share * by_class.means[name]).sum(0)
        between = (share * (by_class.means[name] - mean).square()).sum(0)
        total = (share * by_class.variances[name]).sum(0) + between
        torch.testing.assert_close(total, of_all.variances[name][0], rtol=1e-6, atol=1e-6)


def test_D05_what_lies_between_batches_counts():
    model = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 1)).eval()
    two = [(torch.zeros(2, 1), torch.zeros(2).long()), (torch.full((2, 1), 2.0), torch.zeros(2).long())]
    found = tarot.class_statistics(model, two, 1)
    assert found.means["0"].item() == 1 and found.variances["0"].item() == 1


@pytest.mark.parametrize("norm, shape", [(nn.BatchNorm1d(2), (3, 2, 5)), (nn.BatchNorm3d(2), (3, 2, 2, 3, 2))])
def test_any_number_of_positions(norm, shape):
    model = nn.Sequential(norm, nn.Flatten(), nn.Linear(int(np.prod(shape[1:])), 2)).eval()
    given = torch.randn(shape)
    found = tarot.class_statistics(model, [(given, torch.zeros(3).long())], 1)
    flat = given.transpose(0, 1).flatten(1).double()
    torch.testing.assert_close(found.variances["0"][0], flat.var(1, correction=0), rtol=1e-5, atol=1e-6)


def test_a_constant_channel_has_no_variance():
    model, images = network(), np.zeros((4, 1, 8, 8), dtype=np.uint8)
    found = tarot.class_statistics(model, batches(images, np.array([0, 1, 0, 1]), 2), 2)
    assert all(torch.isfinite(variance).all() for variance in found.variances.values())


def test_the_model_is_as_it_was_also_after_an_error():
    model, (images, labels) = network(), pool()
    model.train()
    model[1].eval()
    model[9].weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tarot.class_statistics(model, batches(images, labels, 8), 3)
    with pytest.raises(InputError):
        tarot.class_statistics(model, batches(images, labels, 8), 2)
    assert model.training and not model[1].training and model[5].training
    assert not model[9].weight.requires_grad and model[0].weight.requires_grad
    assert all(not module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(2), nn.Linear(2, 2)

    def forward(self, x):
        return self.head(self.norm(self.norm(x)))


@pytest.mark.parametrize(
    "model, labels, message",
    [
        (Twice(), [0, 1], "the BatchNorm layer norm is used twice"),
        (nn.Sequential(nn.Linear(2, 2)), [0, 1], "has no BatchNorm layer.*random, wasserstein_coreset"),
        (nn.Sequential(nn.BatchNorm1d(2)), [0, 1], "without a linear layer"),
        (nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2)), [0, 0], "class dog has no image"),
        (nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2)), [0, 2], "labels must be 0 to 1; batch 0 has the label 2"),
    ],
)
def test_what_cannot_be_is_named(model, labels, message):
    with pytest.raises(InputError, match=message):
        tarot.class_statistics(model, [(torch.zeros(2, 2), torch.tensor(labels))], ["cat", "dog"])


def test_features_that_are_not_finite_name_the_image():
    model = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 2))
    bad = [(torch.zeros(2, 1), torch.zeros(2).long()), (torch.tensor([[0.0], [float("nan")]]), torch.zeros(2).long())]
    with pytest.raises(InputError, match="the features of image 3 are not finite"):
        tarot.class_statistics(model, bad, 1)
