"""Scenes on disk: pairs, sizes, what labels mean, and what is wrong with them."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tarot import InputError
from tasks.segmentation import Architecture, SegmentationTask, SegmentationTraining, cityscapes
from tasks.segmentation.data import Folders, GTA5ToCityscapes, cityscapes_frames
from tasks.segmentation.files import Folder, Pair, content
from tasks.segmentation.labels import LabelCode, match_classes, read_classes
from tasks.segmentation.scenes import IGNORE, Classes, coloured
from tests.tasks.segmentation.scene_trees import (
    CLASSES,
    IDS,
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


def test_all_pairs_that_headers_tell_are_bad_are_named_at_once(tree):
    """Before a pixel is read: one has no pixels, and is not named."""
    images, labels = tree / "images" / "drive", tree / "labels" / "drive"
    Image.fromarray(np.full((40, 50), 3, np.uint8)).save(labels / "003.png")
    (images / "005.jpg").write_bytes(b"no image at all")
    (labels / "006.png").unlink()
    whole = (labels / "007.png").read_bytes()
    (labels / "007.png").write_bytes(whole[: whole.index(b"IDAT") + 8])
    with pytest.raises(InputError) as error:
        folder(tree).scenes(CODE, 8, 8, exclude=["drive/000"])
    line = one_line(error)
    assert f"{images / '003.jpg'} is 56 x 40 pixels and its label {labels / '003.png'} 50 x 40" in line
    assert f"{images / '005.jpg'} holds no image" in line and f"{images / '006.jpg'} has no label" in line
    assert "3 of 8 pairs cannot be used" in line
    option = re.search(r"'task\.data\.exclude=(.*)'", line).group(1)
    assert json.loads(option) == ["drive/000", "drive/003", "drive/005", "drive/006"]
    found = folder(tree).scenes(CODE, 8, 8, exclude=json.loads(option))
    assert found.ids.tolist() == [f"drive/{i:03d}" for i in (1, 2, 4, 7)]
    with pytest.raises(InputError, match=r"pairs cannot be used\); mend them$"):
        scenes(tree)  # there is no option that leaves any out


def test_a_pair_may_lie_on_its_side_until_it_is_read(tree):
    Image.fromarray(np.full((56, 40), 3, np.uint8)).save(tree / "labels" / "drive" / "003.png")
    with pytest.raises(InputError, match=r"003\.jpg is 56 x 40"):
        scenes(tree).read(3)


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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"classes": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}, {"id": 2, "name": "c"}]}', "the id 1 2 times"),
        (
            '{"classes": [{"id": 1, "name": "a", "color": [1, 2, 3]}, {"id": 2, "name": "b", "color": [1, 2, 3]}]}',
            r"the colour \[1, 2, 3\] to b and to another class",
        ),
        (
            '{"classes": [{"id": 0, "name": "a", "color": [1, 2, 3]}, {"id": 1, "name": "b"}, '
            '{"id": 2, "name": "void", "color": [1, 2, 3]}], "ignore_index": 2}',
            r"the colour \[1, 2, 3\] to void",
        ),
        ('{"classes": [{"id": 1.5, "name": "a"}, {"id": 2, "name": "b"}]}', "whole number from 0 to 65,535, not 1.5"),
        ('{"classes": [{"id": true, "name": "a"}, {"id": 2, "name": "b"}]}', "not True"),
        ('{"classes": [{"id": 99999999999, "name": "a"}, {"id": 2, "name": "b"}]}', "not 99999999999"),
        ('{"classes": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}], "ignore_index": -100}', "not -100"),
        ('{"classes": [{"id": 1, "name": "a", "color": [1, 2, 3.5]}, {"id": 2, "name": "b"}]}', "three whole numbers"),
    ],
)
def test_a_classes_json_that_says_two_things(tmp_path, content, message):
    (tmp_path / "classes.json").write_text(content)
    with pytest.raises(InputError, match=message) as error:
        read_classes(tmp_path / "classes.json")
    assert "classes.json" in one_line(error)


def test_ignored_classes_may_share_a_colour(tmp_path):
    void = [{"id": 7, "name": "void", "color": [0, 0, 0]}, {"id": 8, "name": "border", "color": [0, 0, 0]}]
    entries = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}, *void]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": entries, "ignore_index": [7, 8]}))
    assert read_classes(tmp_path / "classes.json")[1].colours == {(0, 0, 0): IGNORE}


def test_colours_that_change_places_change_the_recipe(tmp_path):
    write_folders(tmp_path)
    splits = {split: str(tmp_path / split) for split in SPLITS}
    before, after = tmp_path / "classes.json", tmp_path / "after.json"
    after.write_text(before.read_text().replace("128, 64, 128", "9, 9, 9").replace("70, 130, 180", "128, 64, 128"))
    data = [Folders(**splits, classes_file=str(path), height=8, width=8) for path in (before, after)]
    read = [one.splits(0) for one in data]
    assert data[0].recipe(0, read[0]) != data[1].recipe(0, read[1])


def test_nothing_to_judge_by_changes_no_candidate(tmp_path):
    """Validation and test may be missing; then candidates, surrogates and their features are the same as with them."""
    write_folders(tmp_path)
    splits = {split: str(tmp_path / split) for split in SPLITS}

    def task_of(**options) -> SegmentationTask:
        data = Folders(**{**splits, **options}, classes_file=str(tmp_path / "classes.json"), height=8, width=8)
        train = SegmentationTraining(steps=1, batch_size=2)
        return SegmentationTask(
            name="mine", data=data, architecture=Architecture("small"), train=train, cache_dir=tmp_path, device="cpu"
        )

    whole, alone = task_of(), task_of(validation=None, test=None)
    assert [len(alone.ids(split)) for split in SPLITS] == [36, 8, 0, 0]
    for split in ("candidates", "targets"):
        assert alone.split_recipe(split) == whole.split_recipe(split) and alone.ids(split) == whole.ids(split)
    assert alone.split_recipe("candidates") != alone.split_recipe("targets")
    assert alone.surrogate_data() == whole.surrogate_data() and alone.data_recipe() != whole.data_recipe()
    with pytest.raises(InputError, match="are two folders, or null, both of them"):
        task_of(test=None)


def test_endings_of_ones_own(tmp_path):
    """As in Cityscapes, whose other images lie beside the labels."""
    write_cityscapes(tmp_path, {"train": 2})
    (tmp_path / "images").symlink_to(tmp_path / "leftImg8bit" / "train")
    (tmp_path / "labels").symlink_to(tmp_path / "gtFine" / "train")
    names = [(7, "road"), (23, "sky"), (26, "car")]
    (tmp_path / "classes.json").write_text(
        json.dumps({"classes": [{"id": number, "name": name} for number, name in names], "ignore_index": 0})
    )
    given = {"candidates": str(tmp_path), "targets": str(tmp_path), "validation": None, "test": None}
    endings = {"image_ending": "_leftImg8bit", "label_ending": "_gtFine_labelIds"}
    data = Folders(**given, **endings, classes_file=str(tmp_path / "classes.json"), height=16, width=32)
    scenes = data.splits(0)["candidates"]
    assert scenes.ids.tolist() == [f"candidates/ulm/ulm_{i:06d}_000019" for i in range(2)]
    assert set(np.unique(scenes.read(0)[1])) == {0, 1, 2}


# --- palettes --------------------------------------------------------------------------------------------------------

SHADES = list(CLASSES.values())
OF_FOLDERS = LabelCode(
    {0: IGNORE, 255: IGNORE, 3: 0, 5: 1, 9: 2}, {colour: number for number, colour in enumerate(SHADES)}
)


def with_palette(indices: np.ndarray, palette: list[tuple[int, int, int]]) -> Image.Image:
    label = Image.fromarray(indices.astype(np.uint8), mode="P")
    label.putpalette([part for colour in palette for part in colour])
    return label


def stored(label: Image.Image, path: Path) -> Image.Image:
    label.save(path)
    with Image.open(path) as read:
        read.load()
        return read


def test_a_palette_of_the_classes_colours_is_read_by_colour(tmp_path):
    """As drawing programs write it: the colours are right, their order is any."""
    label = blocks(np.random.default_rng(0))[1]
    drawn = Image.fromarray(np.array(SHADES, np.uint8)[label]).quantize(3, dither=Image.Dither.NONE)
    assert np.array_equal(OF_FOLDERS.decode(stored(drawn, tmp_path / "a.png"), tmp_path), label)
    classes = {(128, 64, 128): 0, (70, 130, 180): 1, (0, 0, 142): 2}
    dense = LabelCode({0: 0, 1: 1, 2: 2, 255: IGNORE}, classes)  # every index is the id of some class
    for order in ([1, 2, 0], [2, 1, 0], [0, 2, 1], [0, 1, 2]):
        for padding in ([], [(0, 0, 0)] * 253):
            palette = [SHADES[number] for number in order] + padding
            drawn = with_palette(np.argsort(order)[label], palette)
            found = dense.decode(stored(drawn, tmp_path / "a.png"), tmp_path)
            assert np.array_equal(found, label), (order, len(padding))


def test_one_class_alone_in_a_palette_is_read_by_its_colour(tmp_path):
    code = LabelCode({0: 0, 1: 1, 2: 2}, OF_FOLDERS.colours)
    assert (code.decode(stored(with_palette(np.zeros((4, 4)), [SHADES[2]]), tmp_path / "a.png"), tmp_path) == 2).all()


@pytest.mark.parametrize(
    "palette",
    [
        [(index, index, index) for index in range(256)],
        [(index % 7 * 30, index % 5 * 50, 255 - index) for index in range(256)],
        [(0, 0, 0)] * 3 + [SHADES[0], (9, 9, 9), SHADES[1], (0, 0, 0), (0, 0, 0), (0, 0, 0), SHADES[2]],
    ],
    ids=["grey", "arbitrary", "by id"],
)
def test_other_palettes_are_of_no_meaning(tmp_path, palette):
    label = blocks(np.random.default_rng(0))[1]
    drawn = stored(with_palette(np.array([3, 5, 9])[label], palette), tmp_path / "a.png")
    assert np.array_equal(OF_FOLDERS.decode(drawn, tmp_path), label)


def test_gta5s_palette_is_by_id_although_a_colour_is_there_twice(tmp_path):
    """A polegroup (18) has a pole's colour, a licence plate (34) a car's; both are ignored by their ids."""
    by_id = {label: cityscapes.CLASSES.colours[train] for label, train in cityscapes.LABEL_IDS.items() if train != 255}
    by_id |= {18: by_id[17], 34: by_id[26]}
    palette = [by_id.get(label, (0, 0, 0)) for label in range(256)]
    drawn = stored(with_palette(np.array([[17, 18, 26, 34, 7, 0]]), palette), tmp_path / "a.png")
    assert CITY.decode(drawn, tmp_path).tolist() == [[5, IGNORE, 13, IGNORE, 0, IGNORE]]


# --- masks, alpha and bits -------------------------------------------------------------------------------------------


def classes_of(path: Path, ids: list[int], **more: object) -> LabelCode:
    entries = [{"id": label, "name": f"class {label}"} for label in ids]
    path.write_text(json.dumps({"classes": entries, **more}))
    return read_classes(path)[1]


def test_a_mask_of_0_and_255_is_refused_unless_classes_json_says_what_255_is(tmp_path):
    mask = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8))
    where = tmp_path / "classes.json"
    with pytest.raises(InputError) as error:
        classes_of(where, [0, 1]).decode(mask, tmp_path / "mask.png")
    assert "mask.png has the values 0 and 255 alone" in one_line(error) and "ignore_index" in str(error.value)
    assert classes_of(where, [0, 255]).decode(mask, tmp_path).tolist() == [[0, 1], [1, 0]]
    ignored = classes_of(where, [0, 1], ignore_index=255).decode(mask, tmp_path)
    assert ignored.tolist() == [[0, IGNORE], [IGNORE, 0]]
    bordered = Image.fromarray(np.array([[0, 1], [255, 0]], np.uint8))
    assert classes_of(where, [0, 1]).decode(bordered, tmp_path).tolist() == [[0, 1], [IGNORE, 0]]
    assert (classes_of(where, [0, 1]).decode(Image.new("L", (2, 2), 255), tmp_path) == IGNORE).all()
    assert classes_of(where, [0, 1]).mapped({0: 1, 1: 0}).unsaid == {255}


def test_labels_of_one_bit_are_0_and_1(tmp_path):
    mask = stored(Image.fromarray(np.array([[True, False]])), tmp_path / "a.png")
    assert mask.mode == "1" and LabelCode({0: 0, 1: 1}).decode(mask, tmp_path).tolist() == [[1, 0]]


def test_labels_with_alpha_are_whole_or_refused(tmp_path):
    colours = np.array([[(*SHADES[1], 255), (*SHADES[2], 255)]], np.uint8)
    assert OF_FOLDERS.decode(Image.fromarray(colours), tmp_path).tolist() == [[1, 2]]
    colours[0, 1, 3] = 0
    with pytest.raises(InputError, match=r"a\.png is transparent"):
        OF_FOLDERS.decode(Image.fromarray(colours), tmp_path / "a.png")
    grey = np.array([[[3, 255], [9, 255]]], np.uint8)
    assert OF_FOLDERS.decode(Image.fromarray(grey, "LA"), tmp_path).tolist() == [[0, 2]]


@pytest.mark.parametrize("mode", ["CMYK", "F", "LAB"])
def test_modes_that_are_no_labels_are_named(tmp_path, mode):
    with pytest.raises(InputError, match=f"a.png is an image of mode {mode}"):
        OF_FOLDERS.decode(Image.new(mode, (2, 2)), tmp_path / "a.png")


def test_labels_of_16_bits_are_ids(tmp_path):
    label = stored(Image.fromarray(np.array([[300, 5]], np.uint16)), tmp_path / "a.png")
    assert LabelCode({300: 0, 5: 1}).decode(label, tmp_path).tolist() == [[0, 1]]


# --- folders ---------------------------------------------------------------------------------------------------------


def test_a_folder_that_is_a_link_is_read(tree):
    known = content([scenes(tree)])
    for part in ("images", "labels"):
        (tree / part / "drive").rename(tree.parent / f"{part} of the drive")
        (tree / part / "drive").symlink_to(tree.parent / f"{part} of the drive")
    assert scenes(tree).ids.tolist() == [f"drive/{i:03d}" for i in range(8)]
    assert content([scenes(tree)]) == known
    path = tree.parent / "labels of the drive" / "003.png"
    Image.fromarray(np.full((40, 56), 3, np.uint8)).save(path)
    assert content([scenes(tree)]) != known, "a label behind a link is no part of the content"


def test_a_city_of_cityscapes_that_is_a_link_is_read(tmp_path):
    write_cityscapes(tmp_path / "cityscapes", {"train": 3})
    for part in ("leftImg8bit", "gtFine"):
        city = tmp_path / "cityscapes" / part / "train" / "ulm"
        city.rename(tmp_path / f"{part} of ulm")
        city.symlink_to(tmp_path / f"{part} of ulm")
    assert len(cityscapes_frames(tmp_path / "cityscapes", "train", 16, 32)) == 3


def test_what_a_mac_leaves_behind_is_no_image(tree, caplog):
    for name in ("images/drive/._000.jpg", "images/.DS_Store", "labels/.thumbs/000.png"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_bytes(b"Mac OS X")
    with caplog.at_level("INFO", "tarot"):
        assert len(scenes(tree)) == 8
    assert f"{tree / 'images'}: 2 hidden files and folders are left out (.DS_Store, drive/._000.jpg)" in caplog.text


def test_a_link_back_is_no_second_drive(tree):
    (tree / "images" / "drive" / "again").symlink_to(tree / "images")
    assert len(scenes(tree)) == 8


@pytest.mark.parametrize("part", ["images/drive/001.jpg", "labels/drive/001.png"])
def test_a_pipe_and_a_link_to_nowhere_are_named(tree, part):
    found, path = scenes(tree), tree / part
    path.unlink()
    os.mkfifo(path)
    content([found])
    with pytest.raises(InputError, match=f"{path} is no file"):
        found.read(1)
    path.unlink()
    path.symlink_to(tree / "nowhere")
    with pytest.raises(InputError, match=f"{path} is not there"):
        scenes(tree)


def test_large_images_need_an_option(tree):
    with pytest.raises(InputError, match=r"000\.jpg has 56 x 40 = 2,240 pixels, .* set task\.data\.max_pixels=2240"):
        folder(tree).scenes(CODE, 40, 56, max_pixels=2000).read(0)
    folder(tree).scenes(CODE, 40, 56, max_pixels=2240).read(0)


def test_a_photograph_lies_as_its_label_does(tree):
    """A camera held upright stores its pixels on their side, and says so."""
    image, label = blocks(np.random.default_rng(5))
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tree / "images" / "drive" / "000.jpg"
    Image.fromarray(np.rot90(image)).save(path, exif=exif, quality=100, subsampling=0)
    Image.fromarray(np.array(IDS, np.uint8)[label]).save(tree / "labels" / "drive" / "000.png")
    seen, classes = scenes(tree).read(0)
    assert np.array_equal(classes, label) and np.abs(seen.astype(int) - image).mean() < 5


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
