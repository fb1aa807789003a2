"""Folders of classes: what is read, what is refused by name, and whose weights they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tarot import InputError
from tasks.classification import Corrupted, Plain, Rotated
from tasks.classification.folders import Folders
from tasks.classification.image_files import ImageFiles
from tasks.common.training import Training
from tests.experiments.running import command
from tests.tasks.classification.stand_ins import write_folders

PLAIN = {"candidates": None, "targets": 4, "validation": 4, "test": None}
SIZES = {"candidates": 20, "targets": 4, "validation": 4, "test": 8}


@pytest.fixture
def tree(tmp_path):
    write_folders(tmp_path)
    return tmp_path


def task(tree, plain=None, **options):
    return Folders(
        **{
            "name": "folders",
            "train": Training(steps=2, batch_size=8),
            "rotated": Rotated(**SIZES, classes=(0, 1)),
            "plain": Plain(**(plain or PLAIN)),
            "corrupted": Corrupted(**SIZES, poison_class=0, victim_class=1),
            "domain": "plain",
            "train_folder": tree / "train",
            "test_folder": tree / "test",
            "network": "convnet-4",
            "size": 12,
            "cache_dir": tree / "cache",
            "device": "cpu",
            **options,
        }
    )


def test_classes_are_folders_and_everything_below_is_of_them(tree):
    (tree / "train" / "lying" / "deeper").mkdir()
    Image.new("RGB", (12, 12)).save(tree / "train" / "lying" / "deeper" / "one.png")
    (tree / "train" / "lying" / "notes.txt").write_text("no image")
    made = task(tree)
    assert made.classes == ("lying", "standing")
    train = made.pools()[0]
    assert len(train) == 49 and np.bincount(train.labels).tolist() == [25, 24]
    assert "train/lying/deeper/one.png" in train.ids
    splits = made.splits
    assert {name: len(images) for name, images in splits.items()} == {
        "candidates": 45,
        "validation": 4,
        "targets": 4,
        "test": 28,
    }
    assert set(splits["candidates"].ids).isdisjoint(splits["validation"].ids)


def test_targets_have_a_folder_of_their_own_where_it_is_named(tree):
    write_folders(tree / "mine")
    made = task(tree, targets_folder=tree / "mine" / "test")
    assert len(made.targets()) == len(made.test()) == 32
    assert made.ids("targets")[0].startswith("mine/test/lying") and made.ids("test")[0].startswith("test/")
    assert len(made.candidates() + made.targets()) == 44 + 32
    with pytest.raises(InputError, match=r"goes with task\.domain=plain"):
        task(tree, targets_folder=tree / "mine" / "test", domain="corrupted")


@pytest.mark.parametrize("memory", [0, 10**9])
def test_images_in_files_and_in_memory_are_the_same(tree, memory):
    candidates = task(tree, memory=memory).candidates()
    assert isinstance(candidates, ImageFiles) == (memory == 0)
    images, _ = candidates.batch(slice(None))
    assert images.shape == (44, 3, 12, 12) and torch.isfinite(images).all()
    expected, _ = task(tree).candidates().batch(slice(None))
    torch.testing.assert_close(images, expected)


def test_images_are_read_as_a_person_sees_them(tree):
    place = tree / "train" / "lying"
    for file in place.iterdir():
        file.unlink()
    red = Image.new("RGB", (12, 12), (204, 0, 0))
    red.save(place / "plain.png")
    red.convert("P").save(place / "palette.png")
    red.convert("CMYK").save(place / "cmyk.tif")
    Image.fromarray(np.full((12, 12), 200 * 257, dtype=np.uint16)).save(place / "sixteen.png")
    turned = Image.new("RGB", (24, 12), (0, 0, 0))
    turned.paste((255, 255, 255), (0, 0, 12, 12))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    turned.save(place / "turned.jpg", exif=exif, quality=95)
    (place / "linked.png").symlink_to(place / "plain.png")
    train = task(tree, size=12).pools()[0]
    found = {str(name): image for name, image in zip(train.ids, train.images, strict=True) if "lying" in str(name)}
    for name in ("plain.png", "palette.png", "linked.png"):
        assert found[f"train/lying/{name}"][:, 6, 6].tolist() == [204, 0, 0]
    assert abs(int(found["train/lying/cmyk.tif"][0, 6, 6]) - 204) < 60
    assert found["train/lying/sixteen.png"][:, 6, 6].tolist() == [200] * 3
    upright = found["train/lying/turned.jpg"][0].astype(int)
    assert upright[:4].mean() > 200 and upright[-4:].mean() < 60


def test_large_images_lose_their_edges_and_small_ones_do_not(tree):
    assert task(tree, size=224).resize == 256 and task(tree, size=64).resize == 64
    with pytest.raises(InputError, match=r"task\.resize must be at least task\.size"):
        task(tree, resize=8)


def test_trees_that_cannot_be_are_named(tree):
    (tree / "empty").mkdir()
    (tree / "bare" / "cat").mkdir(parents=True)
    cases = [
        ({"train_folder": tree / "nowhere"}, "task.train_folder: the folder .*nowhere is not there"),
        ({"train_folder": tree / "empty"}, "task.train_folder: .*empty has no folder inside"),
        ({"train_folder": tree / "bare"}, "the class cat has no image"),
    ]
    for options, message in cases:
        with pytest.raises(InputError, match=message):
            _ = task(tree, **options).splits
    (tree / "test" / "standing").rename(tree / "test" / "upright")
    with pytest.raises(InputError, match=r"task.test_folder: there is no folder .*standing, a class of the other"):
        _ = task(tree).splits


def test_broken_and_extreme_images_are_named(tree):
    broken = tree / "train" / "lying" / "00.png"
    broken.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"00\.png holds no image"):
        task(tree).pools()
    Image.new("RGB", (40, 40)).save(broken)
    with pytest.raises(InputError, match=r"00\.png has 40 x 40 .*task\.max_pixels"):
        task(tree, max_pixels=900).pools()


def test_domains_that_change_images_want_them_in_memory(tree):
    with pytest.raises(InputError, match=r"more than task\.memory=10.*task\.domain=plain"):
        _ = task(tree, domain="corrupted", memory=10).splits
    assert (task(tree, domain="corrupted").candidate_tags() == "noisy_labels").sum() == 6


def test_weights_of_a_file_are_the_surrogate(tree):
    model = task(tree).model()
    torch.save(model.state_dict(), tree / "weights.pt")
    made = task(tree, weights=tree / "weights.pt")
    [checkpoint] = made.checkpoints()
    assert all(torch.equal(checkpoint.state[name], value) for name, value in model.state_dict().items())
    assert made.surrogate_optimizer() is None and made.surrogates() == [], "nothing is left to train"
    with pytest.raises(InputError, match=r"task\.weights: .* is of another network"):
        task(tree, weights=tree / "weights.pt", network="convnet-6").checkpoints()


def test_other_bytes_are_another_data_set(tree):
    before = task(tree).recipe()["data"]
    assert task(tree).recipe()["data"] == before
    Image.new("RGB", (12, 12)).save(tree / "test" / "lying" / "00.png")
    assert task(tree).recipe()["data"] != before


@pytest.mark.parametrize("name", ["folders", "imagenet1k"])
def test_an_experiment_without_its_folders_is_one_line(tmp_path, name):
    found = command(tmp_path, "experiment=distillation", f"task=classification/{name}", f"data_dir={tmp_path}")
    assert found.code == 1 and "task.train_folder: the folder" in found.err
    assert len(found.err.strip().splitlines()) == 1


CORRUPTION = (
    "experiment=corruption",
    "experiment.kinds=[noisy_labels]",
    "experiment.methods=[knn_shapley]",
    "experiment.seeds=1",
    "experiment.prune=null",
    "experiment.incremental=null",
    "task.corrupted={candidates:24,targets:8,validation:4,test:8}",
)
DISTILLATION = (
    "experiment=distillation",
    "experiment.per_class=[2]",
    "experiment.seeds=1",
    "experiment.student.steps=4",
    "experiment.synthesis.iterations=4",
    "experiment.arms=[random,rded,wmdd]",
)


@pytest.mark.slow
@pytest.mark.parametrize("asked", [("selector=tarot_otm", "experiment.trainings=1"), CORRUPTION, DISTILLATION])
def test_it_serves_selection_corruption_and_distillation(tree, asked):
    where = (f"task.train_folder={tree / 'train'}", f"task.test_folder={tree / 'test'}")
    small = ("task.size=12", "task.network=convnet-4-6", "task.train.steps=4", "task.train.batch_size=8")
    counts = ("task.plain.targets=6", "task.plain.validation=4", "features.dim=8", "device=cpu")
    found = command(tree, "task=classification/folders", *where, *small, *counts, *asked, drawn="light")
    assert found.metrics["run"]["task"] == "classification/folders"
