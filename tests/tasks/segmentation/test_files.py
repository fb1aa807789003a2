"""Scenes on disk: pairs, sizes, what labels mean, and what is wrong with them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tarot import InputError
from tasks.segmentation import cityscapes
from tasks.segmentation.data import GTA5ToCityscapes, cityscapes_frames
from tasks.segmentation.files import Folder, Pair, content
from tasks.segmentation.labels import LabelCode, match_classes, read_classes
from tasks.segmentation.scenes import IGNORE, Classes, coloured
from tests.tasks.segmentation.scene_trees import (
    CLASSES,
    SPLITS,
    blocks,
    classes_json,
    write_cityscapes,
    write_folders,
    write_gta5,
)

CODE = LabelCode({3: 0, 5: 1, 9: 2, 0: IGNORE, 255: IGNORE})
CITY = LabelCode(cityscapes.LABEL_IDS, cityscapes.COLOURS)
# the colours that Cityscapes gives its ids; GTA5's palette is made of them
PALETTE = {7: (128, 64, 128), 8: (244, 35, 232), 11: (70, 70, 70), 23: (70, 130, 180), 26: (0, 0, 142), 4: (20, 20, 20)}


@pytest.fixture
def tree(tmp_path) -> Path:
    write_folders(tmp_path)
    return tmp_path / "targets"


def folder(tree: Path) -> Folder:
    return Folder(tree / "images", tree / "labels")


def scenes(tree: Path, height: int = 40, width: int = 56):
    return folder(tree).scenes(CODE, height, width)


# --- pairs -----------------------------------------------------------------------------------------------------------


def test_pairs_are_read_in_the_order_of_their_names(tree):
    found = scenes(tree)
    assert found.ids.tolist() == [f"drive/{i:03d}" for i in range(8)]
    rng = np.random.default_rng(0)
    for _ in range(SPLITS["candidates"]):
        blocks(rng)  # the candidates, which were written before
    for i in range(8):
        image, label = blocks(rng)
        seen, classes = found.read(i)
        assert seen.shape == image.shape and np.array_equal(classes, label)
        assert np.abs(seen.astype(int) - image).mean() < 15  # it is a JPEG


def test_an_image_covers_the_size_and_loses_what_stands_out(tmp_path):
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    label = np.random.default_rng(0).choice(np.array([3, 5, 9], np.uint8), size=(20, 60)).repeat(2, 0).repeat(2, 1)
    ramp = np.broadcast_to(2 * np.arange(120, dtype=np.uint8), (40, 120))
    Image.fromarray(np.stack([ramp] * 3, 2)).save(tmp_path / "images" / "a.png")
    Image.fromarray(label).save(tmp_path / "labels" / "a.png")
    seen, classes = Folder(tmp_path / "images", tmp_path / "labels").scenes(CODE, 20, 30).read(0)
    assert np.array_equal(np.array([3, 5, 9])[classes], label[::2, ::2][:, 15:45])
    assert seen.shape == (20, 30, 3) and (np.abs(seen - (4.0 * np.arange(15, 45) + 1)[:, None]) <= 1).all()


def test_the_content_follows_names_and_sizes(tree):
    known = content([scenes(tree)])
    assert content([scenes(tree)]) == known
    path = tree / "images" / "drive" / "000.jpg"
    Image.fromarray(np.zeros((40, 56, 3), np.uint8)).save(path)
    assert content([scenes(tree)]) != known


def test_what_is_excluded_is_left_out(tree):
    (tree / "labels" / "drive" / "002.png").unlink()
    found = folder(tree).scenes(CODE, 8, 8, exclude=["drive/002"])
    assert found.ids.tolist() == [f"drive/{i:03d}" for i in (0, 1, 3, 4, 5, 6, 7)]
    with pytest.raises(InputError, match="exclude names drive/009"):
        folder(tree).scenes(CODE, 8, 8, exclude=["drive/009"])


def one_line(error: pytest.ExceptionInfo) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_missing_pairs_and_folders_are_named(tree):
    (tree / "labels" / "drive" / "004.png").unlink()
    with pytest.raises(InputError) as error:
        scenes(tree)
    assert "004.jpg has no label" in one_line(error) and "1 of 8" in str(error.value)
    (tree / "images" / "drive" / "004.jpg").unlink()
    (tree / "images" / "drive" / "001.jpg").unlink()
    with pytest.raises(InputError, match=r"001\.png has no image"):
        scenes(tree)
    with pytest.raises(InputError, match="nowhere is not there"):
        Folder(tree / "nowhere", tree / "labels").scenes(CODE, 8, 8)
    (tree / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds no image"):
        Folder(tree / "empty", tree / "labels").scenes(CODE, 8, 8)


def test_two_images_of_one_scene_are_refused(tree):
    Image.fromarray(np.zeros((40, 56, 3), np.uint8)).save(tree / "images" / "drive" / "000.png")
    with pytest.raises(InputError, match="the same scene"):
        scenes(tree)


@pytest.mark.parametrize("part", ["images/drive/001.jpg", "labels/drive/001.png"])
@pytest.mark.parametrize("how", ["cut", "text", "gone"])
def test_files_that_cannot_be_read_are_named(tree, part, how):
    found, path = scenes(tree), tree / part
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2] if how == "cut" else b"no image at all")
    with pytest.raises(InputError) as error:
        found.read(1)
    assert path.name in one_line(error)
    found.read(0)


def test_sizes_that_differ_are_named(tree):
    Image.fromarray(np.full((40, 50), 3, np.uint8)).save(tree / "labels" / "drive" / "003.png")
    with pytest.raises(InputError) as error:
        scenes(tree).read(3)
    assert "003.jpg is 56 x 40" in one_line(error) and "50 x 40" in str(error.value)


# --- what labels mean ------------------------------------------------------------------------------------------------


def test_an_id_that_means_nothing_is_named(tree):
    label = np.full((40, 56), 5, np.uint8)
    label[7, 9] = 4
    Image.fromarray(label).save(tree / "labels" / "drive" / "000.png")
    with pytest.raises(InputError) as error:
        scenes(tree).read(0)
    assert "000.png: the label at row 7, column 9 is 4; ids are 0, 3, 5, 9, 255" in one_line(error)


@pytest.mark.parametrize("value", [-1, 256, 60000])
def test_ids_beyond_a_byte_are_named(tmp_path, value):
    label = np.full((4, 4), 3, np.int32)
    label[1, 1] = value
    with pytest.raises(InputError, match=f"is {value}; ids"):
        CODE.decode(Image.fromarray(label, mode="I"), tmp_path)


def test_colours_are_classes_and_others_are_named(tree):
    code = LabelCode({0: IGNORE}, {(128, 64, 128): 0, (70, 130, 180): 1, (0, 0, 142): 2, (0, 0, 0): IGNORE})
    candidates = Folder(tree.parent / "candidates" / "images", tree.parent / "candidates" / "labels")
    found = candidates.scenes(code, 40, 56)
    label = blocks(np.random.default_rng(0))[1]
    assert np.array_equal(found.read(0)[1], label)
    shown = coloured(label, Classes(tuple(CLASSES), tuple(CLASSES.values())))
    shown[2, 3] = (1, 2, 3)
    path = candidates.labels / "drive" / "000.png"
    Image.fromarray(shown).save(path)
    with pytest.raises(InputError) as error:
        found.read(0)
    assert "000.png: the colour at row 2, column 3 is (1, 2, 3)" in one_line(error)
    with pytest.raises(InputError, match="no colour is known"):
        candidates.scenes(CODE, 40, 56).read(0)


def test_classes_json(tmp_path):
    path = tmp_path / "classes.json"
    path.write_text(classes_json())
    classes, code = read_classes(path)
    assert classes == Classes(tuple(CLASSES), tuple(CLASSES.values()))
    assert code.ids == {0: IGNORE, 255: IGNORE, 3: 0, 5: 1, 9: 2} and code.colours[(70, 130, 180)] == 1
    path.write_text(classes_json(colours=False))
    classes, code = read_classes(path)
    assert len(set(classes.colours)) == 3 and not code.colours


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"classes": [{"id": 0}]}', '{"classes": [{"id": 0, "name": "road"}]}', '{"classes": 3}',
     '{"classes": [{"id": 0, "name": "a"}, {"id": 1, "name": "a"}]}',
     '{"classes": [{"id": 0, "name": "a"}, {"id": 1, "name": "half \\ud83d"}]}',
     '{"classes": [{"id": 0, "name": "a", "color": [1, 2]}, {"id": 1, "name": "b"}]}'],
)  # fmt: skip
def test_a_classes_json_that_is_none(tmp_path, content):
    (tmp_path / "classes.json").write_text(content)
    with pytest.raises(InputError) as error:
        read_classes(tmp_path / "classes.json")
    assert "classes.json" in one_line(error)


def test_classes_are_matched_by_name_and_by_map():
    ours = Classes(("road", "sky"), ((0, 0, 0), (1, 1, 1)))
    theirs = Classes(("heaven", "road", "dog"), ((0, 0, 0),) * 3)
    assert match_classes(theirs, ours, {"heaven": "sky", "dog": None}, "they") == {0: 1, 1: 0, 2: IGNORE}
    assert CODE.mapped({0: 1, 1: IGNORE, 2: 0}).ids == {3: 1, 5: IGNORE, 9: 0, 0: IGNORE, 255: IGNORE}
    for given, message in (
        ({}, "heaven, dog"),
        ({"heaven": "sun", "dog": None}, "no class 'sun'"),
        ({"cat": "road"}, "no class 'cat'"),
    ):
        with pytest.raises(InputError, match=message):
            match_classes(theirs, ours, given, "the candidates")


# --- GTA5 and Cityscapes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_gta5_is_read_by_ids_and_by_colours(tmp_path, mode):
    ids = np.array([[7, 8, 11], [23, 26, 4]], np.uint8).repeat(4, 0).repeat(4, 1)
    write_gta5(tmp_path, ids, PALETTE, mode)
    label = Folder(tmp_path / "images", tmp_path / "labels").scenes(CITY, 8, 12).read(0)[1]
    assert label[::4, ::4].tolist() == [[0, 1, 2], [10, 13, IGNORE]]
    shown = coloured(label, cityscapes.CLASSES)[::4, ::4]
    assert shown[0].tolist() == [list(PALETTE[7]), list(PALETTE[8]), list(PALETTE[11])]
    assert shown[1, :2].tolist() == [list(PALETTE[23]), list(PALETTE[26])]


def test_gta5_with_an_id_of_nobody(tmp_path):
    write_gta5(tmp_path, np.full((4, 4), 77), PALETTE)
    with pytest.raises(InputError, match=r"00001\.png: the label at row 0, column 0 is 77"):
        Folder(tmp_path / "images", tmp_path / "labels").scenes(CITY, 4, 4).read(0)


def test_cityscapes_has_its_19_classes():
    names = cityscapes.CLASSES.names
    assert len(names) == len(set(cityscapes.CLASSES.colours)) == 19
    assert (names[0], names[2], names[8], names[10], names[13], names[18]) == (
        "road", "building", "vegetation", "sky", "car", "bicycle",
    )  # fmt: skip
    trained = {label: train for label, train in cityscapes.LABEL_IDS.items() if train != IGNORE}
    assert sorted(trained.values()) == list(range(19)) and trained[7] == 0 and trained[33] == 18


def test_the_cityscapes_frame_reads_as_its_own_train_ids():
    root = Path(os.environ.get("TAROT_DATA", "data")) / "fixtures" / "cityscapes"
    if not root.is_dir():
        pytest.skip("TAROT_DATA has no fixtures/cityscapes")
    found = cityscapes_frames(root, "val", 128, 256)
    assert found.ids.tolist() == ["cityscapes/val/frankfurt/frankfurt_000000_000294"]
    (train_ids,) = root.rglob("*_gtFine_labelTrainIds.png")
    image, label = found.read(0)
    expected = np.asarray(Image.open(train_ids))
    assert image.shape == (128, 256, 3) and (label == expected).mean() > 0.995  # they were scaled down one by one
    assert set(np.unique(label)) == set(np.unique(expected)) == {0, 1, 2, 4, 5, 7, 8, 10, 11, 13, IGNORE}
    assert all(np.bincount(expected[label == value]).argmax() == value for value in np.unique(label))


def test_the_paper_names_both_folders_in_one_line(tmp_path):
    data = GTA5ToCityscapes(gta5=str(tmp_path / "gta5"), cityscapes=str(tmp_path / "cityscapes"), height=32, width=64)
    with pytest.raises(InputError) as error:
        data.splits(0)
    line = one_line(error)
    assert str(tmp_path / "gta5") in line and str(tmp_path / "cityscapes") in line
    assert all(part in line for part in ("labels/00001.png", "leftImg8bit", "_gtFine_labelIds.png", "https://"))
    write_cityscapes(tmp_path / "cityscapes", {"train": 3, "val": 4})
    with pytest.raises(InputError) as error:
        data.splits(0)
    assert f"whole: {tmp_path / 'gta5'}. " in one_line(error)


def test_all_of_val_is_judged_by_labels_as_large_as_they_are(tmp_path):
    """The paper reports the best on Cityscapes' val split, whose labels nobody has made smaller."""
    write_gta5(tmp_path / "gta5", np.full((32, 64), 7), PALETTE)
    write_cityscapes(tmp_path / "cityscapes", {"train": 3, "val": 5})
    folders = {"gta5": str(tmp_path / "gta5"), "cityscapes": str(tmp_path / "cityscapes"), "height": 16, "width": 32}
    data = GTA5ToCityscapes(**folders, disjoint=False, full_labels=True)
    splits, small = data.splits(0), GTA5ToCityscapes(**folders).splits(0)
    assert splits["validation"].ids.tolist() == splits["test"].ids.tolist()
    assert set(splits["test"].ids) == {*small["validation"].ids, *small["test"].ids} and len(splits["test"]) == 5
    image, label = splits["test"].read(0)
    assert image.shape == (16, 32, 3) and label.shape == (32, 64)
    stored = Image.open(tmp_path / "cityscapes/gtFine/val/ulm/ulm_000000_000019_gtFine_labelIds.png")
    assert np.array_equal(label, CITY.decode(stored, tmp_path)), "the label is not what is on disk"
    assert np.array_equal(image, small["validation"].read(0)[0])
    assert all(splits[split].read(0)[1].shape == (16, 32) for split in ("candidates", "targets"))
    recipes = [one.recipe(0, splits) for one in (data, GTA5ToCityscapes(**folders, disjoint=False))]
    assert recipes[0] != recipes[1] and recipes[0]["full_labels"] and not recipes[1]["disjoint"]


def test_a_full_label_has_the_middle_that_its_image_shows(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 3, (40, 100)).astype(np.uint8)
    Image.fromarray(np.repeat(values[..., None], 3, 2)).save(tmp_path / "image.png")
    Image.fromarray(values).save(tmp_path / "label.png")
    code = LabelCode({0: 0, 1: 1, 2: 2}, {})
    image, label = Pair(tmp_path / "image.png", tmp_path / "label.png", code, 40, 80, full_label=True)()
    assert np.array_equal(label, values[:, 10:90]) and np.array_equal(image[..., 0], label)


def test_the_papers_splits(tmp_path):
    write_gta5(tmp_path / "gta5", np.full((32, 64), 7), PALETTE)
    write_cityscapes(tmp_path / "cityscapes", {"train": 3, "val": 5})
    data = GTA5ToCityscapes(gta5=str(tmp_path / "gta5"), cityscapes=str(tmp_path / "cityscapes"), height=32, width=64)
    splits = data.splits(0)
    assert {split: len(found) for split, found in splits.items()} == {
        "candidates": 1, "targets": 3, "validation": 3, "test": 2,
    }  # fmt: skip
    assert splits["candidates"].ids.tolist() == ["gta5/00001"] and set(np.unique(splits["test"].read(0)[1])) <= {
        0,
        10,
        13,
    }
    recipe = data.recipe(0, splits)
    assert json.loads(json.dumps(recipe)) == recipe
