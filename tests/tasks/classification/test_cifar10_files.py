"""CIFAR-10 in each layout; what is missing, foreign or malicious is an error."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torchvision

from tarot import InputError
from tasks.classification.cifar10_files import CLASSES, load_cifar10
from tests.tasks.classification.stand_ins import cifar10_arrays, write_cifar10


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
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_load_meta", lambda self: None)
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
