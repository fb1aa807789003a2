"""The model, its losses and gradients; training and what it is judged by; where scenes come from."""

from __future__ import annotations

import json
import os
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch.nn import functional
from torchvision.models import segmentation

from tarot import InputError
from tarot.gradients.per_sample import GradientFeatures
from tarot.gradients.projection import Projection
from tarot.gradients.reference import loop_gradients
from tasks.segmentation import Architecture, SegmentationTask, SegmentationTraining
from tasks.segmentation.scenes import IGNORE, MEAN, Classes, Scenes, coloured, overlaid, picture, tensors
from tasks.segmentation.training import augmented, training_batches
from tests.tasks.configured import task_of
from tests.tasks.segmentation.scene_trees import SPLITS, write_cityscapes, write_folders, write_gta5

TINY = (
    "train.steps=2", "train.batch_size=3", "train.validations=2", "architecture.backbone=small",
    "surrogate.checkpoints=2",
)  # fmt: skip


def composed(variant: str, folder: Path, *overrides: str, data_dir: Path | str | None = None) -> SegmentationTask:
    return task_of(variant, data_dir or folder, folder / "cache", *overrides)


@pytest.fixture(scope="module")
def street(tmp_path_factory) -> SegmentationTask:
    sizes = (
        "data.candidates=8",
        "data.targets=3",
        "data.validation=2",
        "data.test=3",
        "data.height=32",
        "data.width=48",
    )
    return composed("segmentation", tmp_path_factory.mktemp("street"), *TINY, *sizes)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> SegmentationTask:
    root = tmp_path_factory.mktemp("folders")
    write_folders(root)
    return composed("segmentation/folders", root, *TINY, "data.height=32", "data.width=48", "workers=2")


def selection(indices, weights=None) -> SimpleNamespace:
    indices = np.asarray(indices, dtype=np.int64)
    return SimpleNamespace(indices=indices, weights=np.ones(len(indices), np.int64) if weights is None else weights)


def batch_of(scenes: Scenes, indices):
    return torch.utils.data.default_collate([scenes[i] for i in indices])


# --- the model -------------------------------------------------------------------------------------------------------


LARGE = ["resnet50", "fcn_resnet50", "lraspp_mobilenet_v3_large"]


@pytest.mark.parametrize(
    "backbone", ["small", "mobilenet_v3_large", *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)]
)
def test_gradient_features_equal_the_loop(backbone, street):
    """Convolutions (depthwise, dilated, strided), BatchNorm, hardswish, squeeze-and-excitation, ASPP, bilinear."""
    torch.manual_seed(0)
    model = Architecture(backbone).build(5)
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # statistics and scales as of a trained model
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    images = torch.randn(2, 3, 24, 40, generator=generator)
    labels = torch.randint(0, 5, (2, 24, 40), generator=generator)
    labels[0, :9] = IGNORE
    features = GradientFeatures(model, street.losses, Projection("identity"))
    columns, start = features((images, labels)), 0
    expected = loop_gradients(model, street.losses, (images, labels))
    total = torch.cat([rows.flatten() for rows in expected.values()]).norm()
    for name, rows in expected.items():
        ours = columns[:, start : start + rows[0].numel()]
        start += rows[0].numel()
        assert (ours - rows.flatten(1)).norm() <= 1e-4 * rows.norm() + 1e-6 * total, name
    assert start == columns.shape[1] and total > 0 and not features.coverage.excluded
    assert not [name for name, how in features.coverage.covered if how.startswith("per sample")]


def test_ignored_pixels_do_not_count(street):
    torch.manual_seed(0)
    model = street.model().eval()
    images, labels = batch_of(street.candidates(), range(3))
    labels[0], labels[1, :10] = IGNORE, IGNORE
    losses = street.losses(model, (images, labels))
    logits = model(images)
    assert losses[0] == 0 and torch.isfinite(losses).all()
    torch.testing.assert_close(losses[1], functional.cross_entropy(logits[1:2, :, 10:], labels[1:2, 10:]))
    grads = torch.autograd.grad(losses[0], list(model.parameters()), allow_unused=True)
    assert all(grad is None or not grad.any() for grad in grads)


def test_the_momentum_of_batch_norms_is_the_configs():
    own, ours = Architecture("mobilenet_v3_large").build(3), Architecture(batch_norm_momentum=0.1).build(3)
    momenta = [{m.momentum for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)} for net in (own, ours)]
    assert 0.01 in momenta[0] and momenta[1] == {0.1}
    with pytest.raises(InputError, match=r"backbone must be resnet50, .*lraspp_mobilenet_v3_large or small"):
        Architecture("vgg")


@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "fcn_resnet50"])
def test_other_networks_of_torchvision(name, tmp_path):
    """Logits of the image's size, and what the last convolution is given; its weights but those of the classes."""
    with torch.device("meta" if name == "fcn_resnet50" else "cpu"):
        model, images = Architecture(name).build(3).eval(), torch.zeros(1, 3, 32, 32)
        assert model(images).shape == (1, 3, 32, 32)
        given = {"fcn_resnet50": 512, "lraspp_mobilenet_v3_large": 128}[name]
        assert model.embeddings(images).shape == (1, given)
    if name == "fcn_resnet50":
        return
    whole = segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=21)
    torch.save(whole.state_dict(), tmp_path / "w.pt")
    built = Architecture(name, weights=str(tmp_path / "w.pt")).build(3).net
    assert torch.equal(built.classifier.cbr[0].weight, whole.classifier.cbr[0].weight)
    assert built.classifier.low_classifier.weight.shape[0] == 3


def test_weights_from_a_file(tmp_path):
    from torchvision.models import mobilenet_v3_large
    from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large

    path, architecture = tmp_path / "w.pt", Architecture("mobilenet_v3_large", weights=str(tmp_path / "w.pt"))
    with pytest.raises(InputError, match="no file"):
        architecture.build(4)
    plain = Architecture("mobilenet_v3_large").recipe()
    whole = deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=21, aux_loss=True)
    torch.save(whole.state_dict(), path)
    built = architecture.build(4).net
    assert torch.equal(built.classifier[1].weight, whole.classifier[1].weight)
    assert built.classifier[4].weight.shape[0] == 4 and architecture.recipe() != plain
    backbone = mobilenet_v3_large(weights=None, dilated=True)
    torch.save(backbone.state_dict(), path)
    assert torch.equal(architecture.build(4).net.backbone["0"][0].weight, backbone.features[0][0].weight)
    torch.save({"a": torch.zeros(2)}, path)
    with pytest.raises(InputError, match="another network"):
        architecture.build(4)
    path.write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"w\.pt holds no state_dict"):
        architecture.build(4)


# --- training --------------------------------------------------------------------------------------------------------


def test_warmup_poly():
    """The paper's Table 3: from a third of the rate up in a line, then down as the 0.9th power of what is left."""
    training = SegmentationTraining(steps=110, learning_rate=0.3, warmup=10 / 110)
    rates = [training.rate(step) for step in range(110)]
    assert rates[0] == pytest.approx(0.1) and rates[5] == pytest.approx(0.2) and rates[10] == pytest.approx(0.3)
    assert rates[60] == pytest.approx(0.3 * 0.5**0.9) and 0 < rates[-1] == pytest.approx(0.3 * 0.01**0.9)
    triangle = SegmentationTraining(steps=110, learning_rate=0.3, schedule="triangle")
    assert triangle.rate(0) < triangle.rate(10) < triangle.rate(21) > triangle.rate(100)


def test_moments_of_validation():
    assert SegmentationTraining(steps=10, validations=3).moments() == {4, 7, 10}
    assert SegmentationTraining(steps=2, validations=5).moments() == {1, 2}


@pytest.mark.parametrize(
    ("option", "value"),
    [("schedule", "cosine"), ("choose", "first"), ("validations", 0), ("batch_size", 1), ("scales", [2.0, 1.0])],
)
def test_options_that_are_none(option, value):
    with pytest.raises(InputError, match=f"train.{option}"):
        SegmentationTraining(**{option: value})


def test_augmentation_moves_image_and_label_alike():
    label = np.arange(12, dtype=np.uint8).reshape(3, 4).repeat(16, 0).repeat(16, 1)
    image = np.stack([label * 20] * 3, 2)
    rng, mean = np.random.default_rng(0), np.array([round(255 * part) for part in MEAN])
    seen = set()
    for _ in range(20):
        picture_, classes = augmented(image, label, rng, (0.5, 2.0))
        assert picture_.shape == image.shape and classes.shape == label.shape
        inside = classes != IGNORE
        error = np.abs(picture_[inside].astype(int) - classes[inside][:, None].astype(int) * 20).max(1)
        outside = picture_[~inside].astype(int)
        assert np.median(error) == 0
        assert inside.all() or (np.abs(outside - mean).max(1) <= 1).mean() > 0.9
        seen.add(classes.tobytes())
    assert len(seen) == 20
    again = augmented(image, label, np.random.default_rng(3), (1.0, 1.0))[1]
    assert np.array_equal(again, label) or np.array_equal(again, label[:, ::-1])


def test_batches_do_not_depend_on_the_number_of_workers(street):
    training = SegmentationTraining(batch_size=3, augment=True)
    scenes, weights = street.candidates(), np.array([1, 0, 2, 1, 0, 0, 3, 1])
    before = torch.get_rng_state()
    one, two = (
        list(islice(training_batches(scenes, weights, training, 5, workers, torch.device("cpu")), 4))
        for workers in (0, 2)
    )
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for x, y in zip(one, two, strict=True) for a, b in zip(x, y, strict=True))
    other = next(training_batches(scenes, weights, training, 6, 0, torch.device("cpu")))
    assert not torch.equal(one[0][0], other[0])


def test_an_error_in_a_worker_is_one_line(folders):
    def broken():
        raise InputError("it is broken")

    scenes = Scenes(np.array(["a", "b"]), np.array(["", ""]), [broken, broken])
    with pytest.raises(InputError, match=r"^it is broken$"):
        next(training_batches(scenes, np.ones(2, np.int64), folders.training, 0, 2, torch.device("cpu")))


def test_best_and_last_of_validation(street, monkeypatch):
    """mIoU on validation 0.5 after one step and 0.2 after two: the best model is that of the first step."""
    states = []

    def miou(model, scenes):
        assert scenes is street.validation()
        states.append({name: value.clone() for name, value in model.state_dict().items()})
        return (0.5, 0.2)[len(states) - 1]

    monkeypatch.setattr(street, "miou", miou)
    best = street.train(selection([0, 1, 2, 3]), 0)
    assert best.validation.tolist() == [0.5, 0.2] and not best.training
    assert all(torch.equal(value, states[0][name]) for name, value in best.state_dict().items() if name != "validation")
    metrics = street.evaluate(best)
    assert (metrics["miou/val_best"], metrics["miou/val_last"]) == (0.5, 0.2)
    states.clear()
    monkeypatch.setattr(street, "training", SegmentationTraining(steps=2, batch_size=3, validations=2, choose="last"))
    last = street.train(selection([0, 1, 2, 3]), 0)
    assert all(torch.equal(value, states[1][name]) for name, value in last.state_dict().items() if name != "validation")


def test_surrogates_are_not_validated(street):
    checkpoints = street.checkpoints()
    assert [checkpoint.name for checkpoint in checkpoints] == ["run0-step1", "run0-step2"]
    assert checkpoints[0].state["validation"].tolist() == [-1, -1] and checkpoints[0].optimizer_state is None
    model = street.model()
    model.load_state_dict(checkpoints[-1].state)
    assert "miou/val_best" not in street.evaluate(model)


def test_a_surrogate_does_not_depend_on_what_selections_are_trained_with(street, tmp_path):
    other = composed(
        "segmentation", tmp_path, *TINY, "train.merge_targets=one", "train.choose=last", "train.validations=1"
    )
    recipes = street.recipe(), other.recipe()
    assert recipes[0]["surrogate"] == recipes[1]["surrogate"] and recipes[0]["train"] != recipes[1]["train"]


# --- results ---------------------------------------------------------------------------------------------------------


def test_evaluation_is_the_iou_of_its_definition(folders):
    torch.manual_seed(0)
    model = folders.model().eval()
    metrics = folders.evaluate(model)
    found = [(model(image[None]).argmax(1)[0], label) for image, label in (folders.test()[i] for i in range(5))]
    predicted, labels = (torch.cat([pair[part].flatten() for pair in found]) for part in range(2))
    known = labels != IGNORE
    predicted, labels = predicted[known], labels[known]
    iou = [
        (((predicted == c) & (labels == c)).sum() / ((predicted == c) | (labels == c)).sum()).item() for c in range(3)
    ]
    assert next(iter(metrics)) == "miou" and metrics["miou"] == pytest.approx(np.mean(iou))
    assert [metrics[f"iou/{name}"] for name in ("road", "sky", "car")] == pytest.approx(iou)
    assert metrics["pixel_accuracy"] == pytest.approx((predicted == labels).double().mean().item())


def test_pictures(street):
    classes = Classes(("a", "b"), ((200, 0, 0), (0, 100, 0)))
    image = np.full((2, 2, 3), 100, np.uint8)
    label = np.array([[0, 1], [IGNORE, 0]], np.uint8)
    assert np.array_equal(picture(tensors(image, label)[0]), image)
    assert coloured(label, classes).tolist() == [[[200, 0, 0], [0, 100, 0]], [[0, 0, 0], [200, 0, 0]]]
    assert overlaid(image, label, classes, 0.5).tolist() == [
        [[150, 50, 50], [50, 100, 50]], [[100, 100, 100], [150, 50, 50]],
    ]  # fmt: skip
    torch.manual_seed(0)
    model, sample = street.model().eval(), street.test()[0]
    known = sample[1] != IGNORE
    for drawn, expected in ((None, sample[1]), (model, model(sample[0][None]).argmax(1)[0])):
        axes = Figure().subplots()
        street.draw_prediction(drawn, sample, axes)
        shown = coloured(torch.where(known, expected, IGNORE).numpy(), street.data.classes)
        assert np.array_equal(axes.images[0].get_array(), shown)


# --- where scenes come from ------------------------------------------------------------------------------------------


def test_folders_from_end_to_end(folders):
    assert {split: len(getattr(folders, split)()) for split in SPLITS} == SPLITS
    assert folders.candidate_tags() is None and folders.total() == 44
    recipe = folders.recipe()
    assert json.loads(json.dumps(recipe)) == recipe and len(folders.checkpoints()) == 2
    model = folders.train(selection([1, 4, 5], np.array([2, 1, 1])), 0)
    metrics = folders.evaluate(model)
    assert 0 <= metrics["miou"] <= 1 and metrics["miou/val_best"] >= metrics["miou/val_last"]
    same = folders.train(selection([1, 4, 5], np.array([2, 1, 1])), 0).state_dict()
    assert all(torch.equal(value, same[name]) for name, value in model.state_dict().items())


def test_candidates_with_classes_of_their_own(tmp_path):
    write_folders(tmp_path)
    theirs = json.loads((tmp_path / "classes.json").read_text())
    theirs["classes"][1]["name"], theirs["classes"][3]["name"] = "asphalt", "dog"
    (tmp_path / "theirs.json").write_text(json.dumps(theirs))
    where = f"data.candidate_classes_file={tmp_path / 'theirs.json'}"
    with pytest.raises(InputError, match="asphalt, dog"):
        composed("segmentation/folders", tmp_path, where).candidates()
    task = composed("segmentation/folders", tmp_path, where, "data.class_map={asphalt: road, dog: null}")
    seen = torch.cat([task.candidates()[i][1].unique() for i in range(4)]).unique()
    assert seen.tolist() == [0, 1, IGNORE] and task.targets()[0][1].unique().tolist() == [0, 1, 2]
    with pytest.raises(InputError, match="class_map needs"):
        composed("segmentation/folders", tmp_path, "data.class_map={asphalt: road}").candidates()


def test_labels_at_full_size_are_judged_at_full_size(tmp_path):
    """By hand: logits of each image alone, made as large as its label, against that label."""
    write_gta5(tmp_path / "gta5", np.full((32, 64), 7), {})
    write_cityscapes(tmp_path / "cityscapes", {"train": 2, "val": 3})
    small = ["data.height=16", "data.width=32", "architecture.backbone=mobilenet_v3_large", "workers=0"]
    task = composed("segmentation/paper", tmp_path, *small, "train.autocast=null")
    torch.manual_seed(0)
    model = task.model().eval()
    counts = torch.zeros(19, 19)
    for i in range(3):
        image, label = task.test()[i]
        assert image.shape == (3, 16, 32) and label.shape == (32, 64)
        with torch.no_grad():
            logits = functional.interpolate(model(image[None]), (32, 64), mode="bilinear", align_corners=False)
        for truth, told in zip(label.flatten().tolist(), logits.argmax(1).flatten().tolist(), strict=True):
            counts[truth, told] += truth != IGNORE
    right, found = counts.diagonal(), task.evaluate(model)
    union = counts.sum(0) + counts.sum(1) - right
    assert found["pixel_accuracy"] == pytest.approx((right.sum() / counts.sum()).item())
    assert found["miou"] == pytest.approx((right / union)[union > 0].mean().item(), abs=1e-6)
    axes = Figure().subplots()
    task.draw(task.test()[0], axes)
    task.draw_prediction(model, task.test()[0], axes)
    assert all(drawn.get_array().shape[:2] == (16, 32) for drawn in axes.images)


def test_the_paper_composes_and_fails_in_one_line(tmp_path):
    task = composed("segmentation/paper", tmp_path)
    with pytest.raises(InputError) as error:
        task.checkpoints()
    assert "\n" not in str(error.value)
    assert str(tmp_path / "gta5") in str(error.value) and str(tmp_path / "cityscapes") in str(error.value)
    assert task.training.rate(500) == pytest.approx(1e-4, rel=1e-2) and task.architecture.backbone == "resnet50"


def test_camvid_and_rendered_streets(tmp_path):
    root = Path(os.environ.get("TAROT_DATA", "data"))
    if not (root / "camvid").is_dir():
        pytest.skip("TAROT_DATA has no camvid")
    task = composed("segmentation/camvid", tmp_path, data_dir=root)
    sizes = {split: len(getattr(task, split)()) for split in SPLITS}
    assert sizes == {"candidates": 319 + 300, "targets": 24, "validation": 24, "test": 101}
    tags, (image, label) = task.candidate_tags(), task.candidates()[0]
    assert (tags == "target").sum() == 319 and image.shape == (3, 96, 128) and label.max() <= IGNORE
    assert len(task.data.classes) == 11 and "rendered street" in tags
    rendered = task.candidates()[400][1].unique().tolist()
    assert set(rendered) <= {*range(11), IGNORE} and 3 in rendered  # road
    recipe = task.recipe()
    assert json.loads(json.dumps(recipe)) == recipe
    other = composed("segmentation/camvid", tmp_path, "seed=1", data_dir=root)
    assert other.ids("targets") != task.ids("targets") and other.recipe()["data"] != recipe["data"]


def test_camvid_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="CamVid is not in"):
        composed("segmentation/camvid", tmp_path).candidates()
