"""Networks by name, views, and students with hard and soft labels."""

from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn import functional

from tarot import InputError
from tasks.classification import Student, Views, train_student
from tasks.classification.images import ImageSet
from tasks.classification.models import convnet
from tasks.classification.networks import network
from tasks.classification.students import relative, soft_losses
from tasks.common.weights import load_strictly

CPU = torch.device("cpu")


def images(n=12, channels=1, size=8):
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 3
    pixels = (rng.integers(0, 60, (n, channels, size, size)) + 60 * labels[:, None, None, None]).astype(np.uint8)
    ids = np.array([f"image-{i}" for i in range(n)])
    return ImageSet(pixels, labels, ids, np.full(n, ""), (0.4,) * channels, (0.3,) * channels)


def small():
    return convnet(3, [4, 6])


def trained(views=None, teacher=None, seed=0, weights=None, steps=12):
    student = Student(steps=steps, batch_size=6, views=views or Views())
    of = np.ones(12) if weights is None else weights
    return train_student(small, images(), of, student, teacher=teacher, seed=seed, device=CPU)


def logits(model):
    with torch.no_grad():
        return model(images().batch(slice(None))[0])


# --- networks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["perceptron-8", "convnet-4-6", "resnet9-2"])
def test_a_network_of_a_name_takes_the_images(name):
    model = network(name, 5, 3, 16).eval()
    assert model(torch.zeros(2, 3, 16, 16)).shape == (2, 5)


@pytest.mark.parametrize(
    "name, message",
    [
        ("convnet", "there is no network 'convnet'"),
        ("convnet-4-4-4-4", "halves its images 4 times, and they are 8 pixels"),
        ("perceptron-0", "a layer of width 0"),
        ("resnet9-4-4", "has one width"),
        ("resnet18", "takes images of 3 channels, and these have 1"),
    ],
)
def test_what_is_no_network_is_named(name, message):
    with pytest.raises(InputError, match=message):
        network(name, 3, 1, 8)


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_D12_weights_are_loaded_strictly(tmp_path, ending):
    path = tmp_path / f"teacher.{ending}"

    def written(model):
        save = torch.save if ending == "pt" else safetensors.torch.save_file
        save(model.state_dict(), path)

    model, other = small(), small()
    written(model)
    load_strictly(other, path, "experiment.teacher")
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    for wrong, message in (
        (convnet(4, [4, 6]), r"is of another network .*is \[4, 6\], and the model's is \[3, 6\]"),
        (convnet(3, [4]), "is missing"),
        (convnet(3, [4, 6, 6]), "is of another network"),
    ):
        written(wrong)
        with pytest.raises(InputError, match=message):
            load_strictly(other, path, "experiment.teacher")
    path.write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"experiment.teacher: .* holds no state_dict"):
        load_strictly(other, path, "experiment.teacher")
    with pytest.raises(InputError, match="there is no file"):
        load_strictly(other, tmp_path / "nowhere.pt", "experiment.teacher")


# --- views -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "views", [Views("shift"), Views("crop"), Views("none", mirror=True), Views("none", cutmix=True)]
)
def test_views_are_decided_by_the_generator(views):
    given = torch.randn(6, 1, 8, 8)
    made = [views.of(given, torch.Generator().manual_seed(seed), mixed=True) for seed in (0, 0, 1, 2, 3)]
    assert torch.equal(made[0], made[1]) and made[0].shape == given.shape
    assert any(not torch.equal(made[0], other) for other in made[2:])


def test_no_view_is_the_image_and_hard_labels_are_not_mixed():
    given = torch.randn(6, 1, 8, 8)
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(Views("none").of(given, generator, mixed=True), given)
    assert torch.equal(Views("none", cutmix=True).of(given, generator, mixed=False), given)


def test_a_whole_crop_is_the_image():
    given = torch.randn(2, 1, 8, 8)
    area_one = Views("crop", least_area=1.0)
    seen = area_one.of(given, torch.Generator().manual_seed(0), mixed=False)
    assert seen.shape == given.shape and torch.isfinite(seen).all()


def test_cutmix_takes_a_box_from_another_image():
    given = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 8, 8)
    seen = Views("none", cutmix=True).of(given, torch.Generator().manual_seed(3), mixed=True)
    for number, image in enumerate(seen):
        assert (len(image.unique()) <= 2 and (image == number).any()) or len(image.unique()) == 1


# --- labels and weights ----------------------------------------------------------------------------------------------


def test_soft_losses_are_the_divergence_without_the_square_of_t():
    told, found = torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[0.0, 1.0, 3.0]])
    p, q = ((one / 2).softmax(1) for one in (told, found))
    expected = (p * (p / q).log()).sum()
    assert soft_losses(found, told, 2.0).item() == pytest.approx(expected.item(), rel=1e-5)
    assert soft_losses(told, told, 2.0).item() == pytest.approx(0, abs=1e-6)


def test_D08_weights_count_by_their_mean_over_the_set():
    np.testing.assert_allclose(relative(np.array([0.1, 0.3])), [0.5, 1.5])
    np.testing.assert_allclose(relative(np.array([0.1])), [1])
    alone = relative(np.array([0.1, 0.3]))[:1]  # the first in a batch of its own still counts half
    np.testing.assert_allclose(alone, [0.5])


def test_an_image_of_no_weight_teaches_nothing():
    weights = np.where(np.arange(12) < 9, 1.0, 0.0)
    given = images()
    mislabelled = replace(given, labels=np.where(weights > 0, given.labels, (given.labels + 1) % 3))
    student = Student(steps=8, batch_size=6)
    models = [
        train_student(small, some, weights, student, teacher=None, seed=0, device=CPU) for some in (given, mislabelled)
    ]
    assert torch.equal(*map(logits, models))


def test_the_seed_decides_a_student_and_global_generators_do_not():
    torch.manual_seed(1)
    one = trained(Views("shift"))
    torch.manual_seed(2)
    assert torch.equal(logits(one), logits(trained(Views("shift"))))
    assert not torch.equal(logits(one), logits(trained(Views("shift"), seed=1)))


def test_hard_labels_are_learnt_and_soft_ones_are_the_teachers():
    given, labels = images().batch(slice(None))
    hard = trained(Views("none"), steps=80)
    assert (hard(given).argmax(1) == labels).float().mean() > 0.9

    class Teacher(nn.Module):
        """Is sure of the class after the right one, by the image's brightness."""

        def forward(self, x):
            bright = (x.mean((1, 2, 3)) * 0.3 + 0.4) * 255
            wrong = ((bright / 60 - 0.5).round().long().clamp(0, 2) + 1) % 3
            return 8.0 * functional.one_hot(wrong, 3).float()

    soft = trained(Views("none"), teacher=Teacher(), steps=80)
    assert (soft(given).argmax(1) == (labels + 1) % 3).float().mean() > 0.9


def test_D17_soft_labels_are_of_exactly_the_view_that_the_student_sees():
    shown = {"student": [], "teacher": []}

    def watched(name):
        model = small()
        model.register_forward_pre_hook(lambda _, given: shown[name].append(given[0]))
        return model

    student = Student(steps=4, batch_size=6, views=Views("crop", mirror=True, cutmix=True))
    teacher = watched("teacher").eval()
    train_student(lambda: watched("student"), images(), np.ones(12), student, teacher=teacher, seed=0, device=CPU)
    assert len(shown["student"]) == 4
    assert all(map(torch.equal, shown["teacher"], shown["student"]))
    assert not torch.equal(*shown["student"][:2])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"temperature": 0.0}, "experiment.student.temperature must be positive"),
        ({"steps": 0}, "experiment.student.steps must be at least 1"),
        ({"learning_rate": 0.0}, "experiment.student.learning_rate must be positive"),
    ],
)
def test_options_that_cannot_be_are_named(options, message):
    with pytest.raises(InputError, match=message):
        Student(**options)
