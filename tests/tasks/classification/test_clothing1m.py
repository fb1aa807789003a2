"""Clothing1M in its own layout: which images are where, how they are read, and what is said where that fails."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from tarot import InputError
from tasks.classification.clothing1m import Clothing1M
from tasks.classification.clothing1m_files import find_clothing1m
from tasks.classification.image_files import prefetched
from tasks.common.training import Training
from tests.tasks.classification.stand_ins import CLOTHES, write_clothing1m
from tests.tasks.test_contract import small_task


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_clothing1m(tmp_path)
    return tmp_path / "clothing1m"


def task(root: Path, *overrides: str):
    return small_task("clothing1m", root.parent / "cache", f"data_dir={root.parent}", *overrides)


def first_key(root: Path, part: str) -> str:
    return (root / f"{part}_key_list.txt").read_text().split("\n")[0]


def test_every_split_comes_from_its_list(root):
    made = task(root)
    keys = {part: (root / f"{part}_key_list.txt").read_text().split() for part in CLOTHES}
    assert set(made.ids("candidates")) == set(keys["noisy_train"]) and set(made.ids("test")) == set(keys["clean_test"])
    assert len(made.targets()) == 14 and len(made.validation()) == 40 - 14
    assert {*made.ids("targets"), *made.ids("validation")} == set(keys["clean_val"])
    assert set(made.surrogate_images().ids) == set(keys["clean_train"])
    right = dict(line.split() for line in (root / "clean_label_kv.txt").read_text().splitlines())
    noisy = dict(line.split() for line in (root / "noisy_label_kv.txt").read_text().splitlines())
    assert made.labels("targets").tolist() == [int(right[key]) for key in made.ids("targets")]
    assert made.labels("candidates").tolist() == [int(noisy[key]) for key in made.ids("candidates")]
    assert made.candidate_tags() is None and made.classes[13] == "garment 13"


def test_a_part_of_the_candidates_follows_the_seed(root):
    few = [task(root, "candidates=20", f"seed={seed}").ids("candidates") for seed in (0, 0, 1)]
    assert few[0] == few[1] != few[2] and len(few[0]) == 20


def test_a_sample_is_what_torchvision_makes_of_the_file(root):
    candidates = task(root, "size=28").candidates()
    theirs = transforms.Compose(
        [
            transforms.Resize(32),
            transforms.CenterCrop(28),
            transforms.ToTensor(),
            transforms.Normalize((0.6959, 0.6537, 0.6371), (0.3113, 0.3192, 0.3214)),
        ]
    )
    with Image.open(root / candidates.ids[5]) as image:
        torch.testing.assert_close(candidates[5][0], theirs(image.convert("RGB")))
    images, labels = candidates.batch(np.array([5, 2, 5]))
    assert torch.equal(images[0], images[2]) and torch.equal(images[1], candidates[2][0])
    assert labels.tolist() == candidates.labels[[5, 2, 5]].tolist()


def test_the_full_size_is_the_papers(root):
    candidates = task(root, "size=224").candidates()
    assert candidates.resize == 256 and candidates[0][0].shape == (3, 224, 224)


def test_parts_and_sums_of_files_are_files(root):
    made = task(root)
    both = made.candidates().take(np.array([3, 1])) + made.targets()
    assert len(both) == 16 and both.ids[0] == made.ids("candidates")[3] and both.ids[2] == made.ids("targets")[0]
    assert torch.equal(both[2][0], made.targets()[0][0])
    picture = both.picture(both[0][0])
    assert picture.shape == (32, 32, 3) and np.array_equal(picture.transpose(2, 0, 1), both.pixels([0])[0])


def test_a_file_is_opened_when_it_is_asked_for(root, monkeypatch):
    made = task(root)
    monkeypatch.setattr(Image, "open", lambda *args: pytest.fail("an image was opened"))
    assert len(made.candidates()) == 60 and len(made.labels()) == 60 and made.recipe()


def test_surrogates_are_trained_on_the_clean_train_images(root, monkeypatch):
    made, seen = task(root, "encoder.steps=3"), []
    monkeypatch.setattr(
        type(made), "fit", lambda self, images, weights, training, *a, **k: seen.append((images, training)) or (0, [])
    )
    made._train_surrogates()
    [(images, training)] = seen
    assert images.ids.tolist() == made.surrogate_images().ids.tolist() and training.steps == 3
    recipes = [task(root, *change).recipe() for change in ((), ("encoder.steps=3",), ("encoder_images=20",))]
    assert len({str(recipe["surrogate"]) for recipe in recipes}) == 3
    assert len({str(recipe["data"]) for recipe in recipes}) == 1


def test_batches_are_fetched_ahead_and_are_the_same():
    made = []

    def numbers():
        for number in range(5):
            made.append(number)
            yield number

    ahead = prefetched(numbers())
    assert next(ahead) == 0 and [*ahead] == [1, 2, 3, 4] and made == [0, 1, 2, 3, 4]

    def failing():
        yield 1
        raise InputError("no image")

    ahead = prefetched(failing())
    assert next(ahead) == 1
    with pytest.raises(InputError, match="no image"):
        next(ahead)
    assert list(prefetched(iter(()))) == []


def test_annotations_may_be_in_their_own_folder(root):
    names = task(root).ids("candidates")
    (root / "annotations").mkdir()
    for path in root.glob("*.txt"):
        path.rename(root / "annotations" / path.name)
    assert task(root).ids("candidates") == names


def test_another_label_is_another_task(root):
    before = task(root).recipe()["data"]
    path = root / "clean_label_kv.txt"
    path.write_text(path.read_text().replace(" 3\n", " 4\n", 1))
    assert task(root).recipe()["data"] != before


# --- what is said where something is wrong ---------------------------------------------------------------------------


def test_data_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"not in .*clothing1m: put there images.*noisy_label.*TAROT_DATA") as error:
        find_clothing1m(tmp_path)
    assert "\n" not in str(error.value) and "github.com/Cysu" in str(error.value)


@pytest.mark.parametrize("name", ["clean_val_key_list.txt", "category_names_eng.txt"])
def test_data_that_is_not_whole(root, name):
    (root / name).unlink()
    with pytest.raises(InputError, match=f"not whole: {name} is missing"):
        task(root).candidates()


def test_an_image_without_a_label(root):
    key = first_key(root, "clean_test")
    path = root / "clean_label_kv.txt"
    path.write_text("\n".join(line for line in path.read_text().splitlines() if key not in line))
    with pytest.raises(InputError, match=f"lists the image {key}, but clean_label_kv.txt has no label"):
        task(root).test()


@pytest.mark.parametrize("label", ["14", "-1", "x", ""])
def test_labels_that_are_none(root, label):
    path = root / "noisy_label_kv.txt"
    lines = path.read_text().splitlines()
    lines[2] = f"{lines[2].split()[0]} {label}"
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"line 3: (the label of .* is 14; labels are 0 to 13|.* is not an image)"):
        task(root).candidates()


def test_an_image_that_is_listed_twice(root):
    key = first_key(root, "clean_val")
    path = root / "clean_test_key_list.txt"
    path.write_text(path.read_text() + key)
    with pytest.raises(InputError, match=f"{key} is listed twice, in clean_val_key_list.txt and in clean_test"):
        task(root).test()


@pytest.mark.parametrize("kind", ["text", "empty", "half a jpeg", "half a png"])
def test_an_image_that_is_broken(root, kind):
    candidates = task(root).candidates()
    path = root / candidates.ids[0]
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)).save(
        file, "png" if "png" in kind else "jpeg"
    )
    path.write_bytes({"text": b"no image", "empty": b""}.get(kind, file.getvalue()[: len(file.getvalue()) // 2]))
    with pytest.raises(InputError, match=f"{path} holds no image that can be read"):
        candidates.batch([1, 0])


def test_an_image_that_is_missing(root):
    candidates = task(root).candidates()
    (root / candidates.ids[4]).unlink()
    with pytest.raises(InputError, match=f"{candidates.ids[4]} is not there"):
        candidates[4]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("targets=41", "task.targets asks for 41 images of clean_val, where 40 of 40 are left; lower task.targets$"),
        ("validation=27", "where 26 of 40 are left; lower task.validation or task.targets"),
        ("targets=40", "task.validation asks for 0"),
    ],
)
def test_sizes_that_cannot_be(root, override, message):
    with pytest.raises(InputError, match=message):
        task(root, override).candidates()


def test_sizes_are_positive():
    with pytest.raises(InputError, match=r"task\.candidates must be at least 1 or null"):
        Clothing1M(name="clothing1m", train=Training(), candidates=0)


def test_class_names_that_are_too_few(root):
    (root / "category_names_eng.txt").write_text("shirt\n")
    with pytest.raises(InputError, match="names 1 classes"):
        _ = task(root).classes


def test_a_photograph_is_upright(root):
    candidates = task(root, "size=28").candidates()
    rng, exif = np.random.default_rng(0), Image.Exif()
    pixels = rng.integers(0, 255, (48, 40, 3)).astype(np.uint8)
    for place, orientation in enumerate((1, 8)):
        stored = pixels if orientation == 1 else np.rot90(pixels, -1)
        exif[0x0112] = orientation
        Image.fromarray(stored).save(root / candidates.ids[place], "png", exif=exif)
    assert torch.equal(candidates[0][0], candidates[1][0])


def test_a_pipe_in_place_of_an_image(root):
    candidates = task(root).candidates()
    path = root / candidates.ids[3]
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InputError, match=f"{path} is no file"):
        candidates[3]


def test_images_that_are_too_large(root):
    candidates = task(root, "max_pixels=1919").candidates()
    with pytest.raises(InputError, match=r"has 40 x 48 = 1,920 pixels, .* set task\.max_pixels=1920"):
        candidates[3]
    assert task(root, "max_pixels=1919").recipe() == task(root).recipe()
    Image.new("L", (100_000, 1)).save(root / candidates.ids[0], "png")
    with pytest.raises(InputError, match="100000 x 1, which is no picture but a line"):
        task(root, "size=224").candidates()[0]
