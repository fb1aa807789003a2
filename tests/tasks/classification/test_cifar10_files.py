"""CIFAR-10 in each layout; what is missing, foreign or malicious is an error."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torchvision

from tarot import InputError
from tasks.classification.cifar10_files import CLASSES, load_cifar10
from tests.tasks.classification.stand_ins import cifar10_arrays, png, write_cifar10


@pytest.mark.parametrize("layout", ["parquet", "batches", "folder"])
def test_every_layout_gives_the_same_images(tmp_path, layout):
    write_cifar10(tmp_path / "data", layout)
    arrays = load_cifar10(tmp_path / "data", tmp_path / "cache")
    for part in ("train", "test"):
        images, labels = cifar10_arrays(part)
        order = np.arange(len(labels))
        if layout == "folder":  # by class, then by name
            order = np.argsort(labels, kind="stable")
        assert np.array_equal(arrays[f"{part}_images"], images[order])
        assert np.array_equal(arrays[f"{part}_labels"], labels[order])


def test_torchvision_reads_the_batches_alike(tmp_path, monkeypatch):
    write_cifar10(tmp_path, "batches")
    theirs = torchvision.datasets.CIFAR10
    for name in ("train_list", "test_list"):  # without the checksums of the true files
        monkeypatch.setattr(theirs, name, [(file, None) for file, _ in getattr(theirs, name)])
    names = {"filename": "test_batch", "key": "labels", "md5": None}  # of classes
    monkeypatch.setattr(theirs, "meta", names)
    theirs = torchvision.datasets.CIFAR10(tmp_path, train=True)
    ours = load_cifar10(tmp_path, tmp_path / "cache")
    assert np.array_equal(theirs.data.transpose(0, 3, 1, 2), ours["train_images"])
    assert theirs.targets == ours["train_labels"].tolist()


def test_decoded_once_and_again_where_the_files_changed(tmp_path):
    write_cifar10(tmp_path / "data")
    first = load_cifar10(tmp_path / "data", tmp_path / "cache")
    (kept,) = (tmp_path / "cache").rglob("*.npz")
    time = kept.stat().st_mtime_ns
    assert load_cifar10(tmp_path / "data", tmp_path / "cache")["sha256"] == first["sha256"]
    assert kept.stat().st_mtime_ns == time
    path = tmp_path / "data" / "cifar10" / "train-00000-of-00001.parquet"
    os.utime(path, (0, 0))
    load_cifar10(tmp_path / "data", tmp_path / "cache")
    assert list((tmp_path / "cache").rglob("*.npz")) == [kept]
    images, labels = cifar10_arrays("test")
    write_table(path, [png(image) for image in images], labels)
    assert len(load_cifar10(tmp_path / "data", tmp_path / "cache")["train_labels"]) == len(labels)
    assert len(list((tmp_path / "cache").rglob("*.npz"))) == 2


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    write_cifar10(tmp_path, "batches")
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps({"data": Bomb()}, protocol=2))
    with pytest.raises(InputError, match=r"test_batch.*system"):
        load_cifar10(tmp_path, tmp_path / "cache")
    assert not (tmp_path / "ran").exists()
    assert not list((tmp_path / "cache").rglob("*.npz"))


def test_absent_is_one_clear_line(tmp_path):
    with pytest.raises(InputError) as error:
        load_cifar10(tmp_path, tmp_path / "cache")
    message = str(error.value)
    assert str(tmp_path) in message and "\n" not in message
    assert all(word in message for word in ("cifar-10-batches-py", "parquet", "<class>", "https://", "TAROT_DATA"))


def test_files_that_are_something_else(tmp_path):
    write_cifar10(tmp_path, "folder")
    (tmp_path / "train" / "zebra").mkdir()
    (tmp_path / "train" / "zebra" / "0.png").write_bytes(b"stripes")
    with pytest.raises(InputError, match="zebra"):
        load_cifar10(tmp_path, tmp_path / "cache")
    (tmp_path / "train" / "zebra" / "0.png").rename(tmp_path / "train" / CLASSES[0] / "0.png")
    with pytest.raises(InputError, match="no image"):
        load_cifar10(tmp_path, tmp_path / "cache")


@pytest.mark.slow
def test_the_real_one(tmp_path):
    root = Path(os.environ.get("TAROT_DATA", "data"))
    if not (root / "cifar10").exists():
        pytest.skip("TAROT_DATA holds no cifar10")
    arrays = load_cifar10(root, tmp_path)
    assert arrays["train_images"].shape == (50_000, 3, 32, 32)
    assert np.bincount(arrays["test_labels"]).tolist() == [1000] * 10
    mean = arrays["train_images"].mean(axis=(0, 2, 3)) / 255
    assert np.allclose(mean, [0.491, 0.482, 0.4465], atol=1e-3)


def write_table(path: Path, encoded: list[bytes], labels: object, names: tuple[str, str] = ("img", "label")) -> None:
    rows = [{"bytes": one, "path": f"{number}.png"} for number, one in enumerate(encoded)]
    pq.write_table(pa.table(dict(zip(names, (rows, labels), strict=True))), path)


def refused(root: Path) -> str:
    with pytest.raises(InputError) as error:
        load_cifar10(root, root / "cache")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_tables_that_are_others(tmp_path):
    write_cifar10(tmp_path)
    path = tmp_path / "cifar10" / "train-00000-of-00001.parquet"
    good = png(np.zeros((3, 32, 32), np.uint8))
    write_table(path, [good], [0], ("image", "label"))
    assert refused(tmp_path) == f"{path} has no column img; CIFAR-10 has img and label, this file image, label"
    write_table(path, [good], ["cat"])
    assert "its labels are not all whole numbers" in refused(tmp_path)
    write_table(path, [], pa.array([], pa.int64()))
    assert "lacks rows" in refused(tmp_path)
    pq.write_table(pa.table({"img": ["0.png"], "label": [0]}), path)
    assert f"{path}, row 0: img holds no bytes" in refused(tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    assert f"{path} cannot be read as parquet" in refused(tmp_path)
    write_table(path, [good, good[:60]], [0, 1])
    assert f"{path}, row 1 holds no image" in refused(tmp_path)
    write_table(path, [good, png(np.zeros((3, 31, 32), np.uint8))], [0, 1])
    assert f"{path}, row 1 is 32 x 31 pixels" in refused(tmp_path)
    write_table(path, [png(np.zeros((3, 64, 64), np.uint8))], [0])
    assert f"{path}, row 0 has 64 x 64 = 4,096 pixels, more than 1,024" in refused(tmp_path)


def test_folders_are_walked_as_all_are(tmp_path):
    """Links are followed; what a Mac leaves behind is none of the images."""
    write_cifar10(tmp_path, "folder")
    known = load_cifar10(tmp_path, tmp_path / "cache")
    (tmp_path / "train" / "cat").rename(tmp_path / "cats")
    (tmp_path / "train" / "cat").symlink_to(tmp_path / "cats")
    for name in ("train/.DS_Store", "train/cat/._0003.png", "test/dog/.DS_Store", "test/dog/Thumbs.db"):
        (tmp_path / name).write_bytes(b"Mac OS X")
    found = load_cifar10(tmp_path, tmp_path / "other cache")
    assert found["sha256"] == known["sha256"]
    (tmp_path / "train" / "cat" / "more").mkdir()
    (tmp_path / "train" / "cat" / "0003.png").rename(tmp_path / "train" / "cat" / "more" / "0003.png")
    assert "more/0003.png lies elsewhere" in refused(tmp_path)


def test_images_of_other_sizes_and_pipes_are_named(tmp_path):
    write_cifar10(tmp_path, "folder")
    path = tmp_path / "train" / "cat" / "0003.png"
    path.write_bytes(png(np.zeros((3, 20, 32), np.uint8)))
    assert refused(tmp_path) == f"{path} is 32 x 20 pixels; CIFAR-10's images are 32 x 32"
    path.unlink()
    os.mkfifo(path)
    assert f"{path} is no file" in refused(tmp_path)
    for left in (tmp_path / "test").rglob("*.png"):
        left.unlink()
    assert "there are none" in refused(tmp_path)
