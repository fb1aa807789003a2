"""The user's own features: what they may be, and what is said where they are not."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tarot import InputError
from tasks.features import FeatureTask


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "c.npy", rng.standard_normal((6, 3)).astype(np.float32))
    np.save(tmp_path / "t.npy", rng.standard_normal((2, 3)).astype(np.float32))
    np.save(tmp_path / "labels.npy", np.arange(6) % 2)
    (tmp_path / "ids.txt").write_text("a\nb\nc\nd\ne\nf\n")
    (tmp_path / "groups.txt").write_text("one\ntwo\n")
    return tmp_path


def test_what_a_selection_needs_is_there(files):
    task = FeatureTask(
        name="features", candidates=files / "c.npy", targets=files / "t.npy", labels=files / "labels.npy",
        ids=files / "ids.txt", groups=files / "groups.txt",
    )  # fmt: skip
    (candidates,), (targets,) = task.features()
    assert candidates.shape == (6, 3) and targets.shape == (2, 3)
    assert task.ids("candidates") == list("abcdef") and len(set(task.ids("targets"))) == 2
    assert task.labels().tolist() == [0, 1, 0, 1, 0, 1] and task.labels("targets") is None
    assert task.target_groups().tolist() == ["one", "two"]
    assert not task.has_model and json.loads(json.dumps(task.recipe())) == task.recipe()


def test_names_in_the_files_are_the_samples(files):
    rows = np.load(files / "c.npy").tolist()
    for name, ids in (("named", list("uvwxyz")), ("twice", list("uuwxyz"))):
        pq.write_table(pa.table({"id": ids, "features": rows}), files / f"{name}.parquet")
    given = {"name": "features", "targets": files / "t.npy"}
    assert FeatureTask(**given, candidates=files / "named.parquet").ids("candidates") == list("uvwxyz")
    named = FeatureTask(**given, candidates=files / "twice.parquet", ids=files / "ids.txt")
    assert named.ids("candidates") == list("abcdef")
    with pytest.raises(InputError, match=r"task\.candidates: ids must be unique; 'u' stands 2 times"):
        FeatureTask(**given, candidates=files / "twice.parquet")


def test_several_models(files):
    task = FeatureTask(name="features", candidates=[files / "c.npy"] * 2, targets=[files / "t.npy"] * 2)
    assert [len(rows) for rows in task.features()] == [2, 2]
    with pytest.raises(InputError, match="as many"):
        FeatureTask(name="features", candidates=[files / "c.npy"] * 2, targets=files / "t.npy")


def test_another_file_is_another_recipe(files):
    recipe = FeatureTask(name="features", candidates=files / "c.npy", targets=files / "t.npy").recipe()
    np.save(files / "c.npy", np.zeros((7, 3), dtype=np.float32))
    assert FeatureTask(name="features", candidates=files / "c.npy", targets=files / "t.npy").recipe() != recipe


def test_what_a_file_is_for_is_in_the_recipe(files):
    """One vector as groups or as labels of the targets: two tasks, which share nothing in a cache."""
    good = {"name": "features", "candidates": files / "c.npy", "targets": files / "t.npy"}
    roles = [FeatureTask(**good, **{role: files / "groups.txt"}).recipe() for role in ("groups", "target_labels")]
    assert roles[0] != roles[1]


def test_errors_name_the_option(files):
    good = {"name": "features", "candidates": files / "c.npy", "targets": files / "t.npy"}
    with pytest.raises(InputError, match=r"task\.candidates"):
        FeatureTask(**{**good, "candidates": None})
    with pytest.raises(InputError, match=r"nowhere\.npy"):
        FeatureTask(**{**good, "candidates": files / "nowhere.npy"})
    with pytest.raises(InputError, match=r"task\.ids.*6 values"):
        FeatureTask(**good, ids=files / "groups.txt")
    with pytest.raises(InputError, match=r"task\.labels.*there is no"):
        FeatureTask(**good, labels=files / "absent.npy")
    np.save(files / "objects.npy", np.array([{}] * 6, dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="no plain array"):
        FeatureTask(**good, labels=files / "objects.npy")


def test_features_behind_a_link_are_known_by_what_is_in_them(files):
    """A TRAK run, whose model lies elsewhere."""
    (files / "run").mkdir()
    (files / "model").mkdir()
    (files / "run" / "0").symlink_to(files / "model")
    features = np.load(files / "c.npy")
    np.save(files / "done.npy", np.ones(len(features), np.int32))
    (files / "done.npy").rename(files / "model" / "_is_featurized.mmap")

    def recipe(rows: np.ndarray) -> str:
        with open(files / "model" / "grads.mmap", "wb") as file:
            np.save(file, rows)
        return json.dumps(FeatureTask(name="features", candidates=files / "run", targets=files / "t.npy").recipe())

    assert recipe(features) == recipe(features) != recipe(features + 1)
