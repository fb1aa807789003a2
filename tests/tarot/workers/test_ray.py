"""On Ray everything has the bits, the order and the errors that it has here. One Ray for all of these tests."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path

import hydra
import numpy as np
import pytest

pytest.importorskip("ray")

import tarot
from experiments.distillation.students import OWN, Lesson, School
from experiments.stages import Evaluation, Training, Workbench, evaluate_each, train_each, train_surrogates
from tarot import InputError, Selection, Synthesis
from tarot.common import hash_content
from tarot.space import covariance, in_parts
from tarot.workers import LOCAL, Ray, Threads, Workers
from tasks.classification import Digits, Student
from tasks.common.training import seeded
from tests.experiments.command.test_configs import composed
from tests.experiments.distillation.test_distillation import SMALL as FEW_IMAGES
from tests.experiments.running import SMALL, changed
from tests.tarot.distillation.networks import MEAN, STD, network, pool
from tests.tarot.workers import work
from tests.tasks.test_contract import options_of

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def engine(ray_home):
    with Ray(workers=2) as started:
        yield started


def test_results_come_in_the_order_of_items_from_other_processes(engine):
    processes = {process for _ in range(2) for process in engine.map(work.process, range(8))}
    assert os.getpid() not in processes and len(processes) <= 2, "workers serve one map after another"
    assert list(engine.map(work.refuses, [7, 2, 9, 1])) == [7, 2, 9, 1]


def test_the_error_of_the_first_item_is_raised_with_its_type(engine):
    with pytest.raises(InputError) as caught:
        list(engine.map(work.refuses, range(10)))
    assert str(caught.value) == "item 3 is bad"
    assert "in refuses" in caught.value.__notes__[0], "where it came from stands below a traceback"


def test_what_workers_say_is_said_here(engine, caplog):
    with caplog.at_level(logging.INFO), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        answers = list(engine.map(work.says, range(2)))
    assert answers == [(1, False, "1")] * 2
    assert {"of 0", "of 1"} <= set(caplog.messages)
    assert [str(warning.message) for warning in caught] == ["beware"] * 2


def test_results_that_cannot_be_sent_are_an_error(engine):
    with pytest.raises(TypeError, match="pickle"):
        list(engine.map(work.locks, range(2)))


@pytest.mark.parametrize("fate", [None, "dies"])
def test_stores_have_the_same_bits(engine, tmp_path, fate):
    """Also where a worker is killed in a shard."""
    here, threads, there = (tmp_path / name for name in ("here", "threads", "there"))
    expected = work.build(here, LOCAL)
    assert len(expected) == 3 * 7
    assert work.build(threads, Threads(2)) == expected
    assert work.build(there, engine, fate) == expected
    assert (there / "once").exists() == (fate == "dies")
    assert not list(there.glob(".s[0-9].part"))


def test_selections_have_the_same_bits(engine, tmp_path, monkeypatch):
    """Moments, neighbours and folds go to the workers."""
    monkeypatch.setattr(covariance, "PART", 100)
    monkeypatch.setattr(in_parts, "PART", 100)
    candidates, targets = work.pool()
    files = {}
    for name, where in ("here", LOCAL), ("threads", Threads(2)), ("there", engine):
        for whitening in ("cholesky", "auto"):
            path = tmp_path / f"{name}-{whitening}.parquet"
            options = {"folds": 3, "whitening": whitening, "engine": where, "device": "cpu"}
            tarot.select(candidates, targets, "tarot_otm", **options).save(path)
            files.setdefault(whitening, set()).add(hash_content(path))
    assert {name: len(hashes) for name, hashes in files.items()} == {"cholesky": 1, "auto": 1}


@pytest.mark.parametrize("name", ["digits", pytest.param("segmentation", marks=pytest.mark.slow)])
def test_trainings_have_the_same_bits(engine, tmp_path, name):
    """And metrics: two models of two repetitions each, of which one learns nothing."""
    files = [trained_files(name, tmp_path / str(place), where) for place, where in enumerate((LOCAL, engine))]
    assert files[0] == files[1] and len(files[0]) == 2 * 2 + 2 * 2 * 2  # metrics, models with checksums
    assert trained_files(name, tmp_path / "0", engine) == files[0]


def trained_files(name: str, cache: Path, where: Workers) -> dict[str, str]:
    options = SMALL if name == "digits" else (f"task={name}", *options_of(name, "train.steps=1"), "device=cpu")
    benches = []
    for seed in range(2):
        config = composed(*options, f"seed={seed}", f"cache_dir={cache.parent / 'data'}")
        task, recipe = (hydra.utils.instantiate(config[key]) for key in ("task", "features"))
        benches.append(Workbench(task, recipe, cache, "cpu", where))
    steps: list[int] = []
    n, m = (len(benches[0].task.ids(split)) for split in ("candidates", "targets"))
    chosen = Selection(np.arange(0, n, 2), n, m, {})
    trainings = [Training(place, selection, place) for place in range(2) for selection in (chosen, None, chosen)]
    paths = train_each(benches, trainings, steps.append)
    assert len(set(paths)) == 4 and sum(steps) == 6
    found = evaluate_each(benches, [Evaluation(place, paths[3 * place]) for place in range(2)], steps.append)
    assert sum(steps) == 8 and found[0] != found[1]
    return {
        file.name: hash_content(file)
        for file in cache.rglob("*")
        if file.suffix in (".safetensors", ".json", ".sha256")
    }


def test_surrogates_have_the_same_bits(engine, tmp_path, monkeypatch):
    """Two of each of two seeds; that some are there already is seen."""
    expected = surrogate_files(tmp_path / "here", LOCAL)
    assert len(expected) == 2
    fit = Digits.fit_surrogate
    monkeypatch.setattr(Digits, "fit_surrogate", lambda *_, **__: pytest.fail("trained here"))
    assert surrogate_files(tmp_path / "there", engine) == expected
    monkeypatch.setattr(Digits, "fit_surrogate", fit)
    surrogate_tasks(tmp_path / "partly")[0].train_surrogate(1)
    assert surrogate_files(tmp_path / "partly", engine) == expected


def surrogate_tasks(cache: Path) -> list[Digits]:
    options = changed(SMALL, "task.surrogate.runs=2", f"cache_dir={cache}")
    return [hydra.utils.instantiate(composed(*options, f"seed={seed}").task) for seed in range(2)]


def surrogate_files(cache: Path, where: Workers) -> dict[str, str]:
    tasks = surrogate_tasks(cache)
    train_surrogates(tasks, cache, where)
    assert all(len(task.checkpoints()) == 2 for task in tasks)
    assert not list((cache / "trainings").glob("*")), "parts are kept until all of them are there"
    return {file.name: hash_content(file) for file in (cache / "checkpoints").glob("*.safetensors")}


@pytest.mark.filterwarnings("ignore:synthesis of .* ends at a cost")  # three steps are few
def test_distilled_images_have_the_same_bits(engine, tmp_path):
    """Kept in a folder or not, and in threads, of which each watches a teacher of its own."""
    images, labels = pool()
    options = {"per_class": 2, "mean": MEAN, "std": STD, "synthesis": Synthesis(iterations=3, chunk=2), "device": "cpu"}
    files = []
    for place, where in enumerate((LOCAL, Threads(2), engine)):
        cache = tmp_path / str(place)
        kept = tarot.distill(network(), images, labels, cache=cache, engine=where, **options)
        files.append({file.name: hash_content(file) for file in cache.glob("*.npz")})
        again = tarot.distill(network(), images, labels, engine=where, **options)
        np.testing.assert_array_equal(again.images, kept.images)
    assert files[0] == files[1] == files[2] and len(files[0]) > 1


def test_students_have_the_same_bits(engine, tmp_path):
    task = hydra.utils.instantiate(composed(*FEW_IMAGES, f"cache_dir={tmp_path}").task)
    with seeded(0):
        teacher = task.model().eval()
    weights = np.ones(len(task.candidates()))
    lessons = [Lesson(None, weights, "everyone", OWN, labels, seed) for labels in ("hard", "soft") for seed in range(2)]
    found = []
    for place, where in enumerate((LOCAL, engine)):
        school, steps = School(task, teacher, Student(steps=3), tmp_path / str(place), where), []
        found.append(school.accuracies(lessons, steps.append))
        assert sum(steps) == 4 and found[-1] == school.accuracies(lessons, steps.append)
    files = [{file.name: hash_content(file) for file in (tmp_path / str(place)).rglob("*.json")} for place in range(2)]
    assert files[0] == files[1] and len(files[0]) == 4


def test_a_cache_that_a_worker_does_not_see_is_refused(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "write_text", lambda *_, **__: 0)  # as if this folder were another one there
    with pytest.raises(InputError, match="is not the same folder on the host"):
        engine.shares(tmp_path / "elsewhere")
    monkeypatch.undo()
    engine._crew[0]._tokens.clear()
    engine.shares(tmp_path / "cache")


def test_within_a_worker_the_engine_is_local():
    import pickle

    assert pickle.loads(pickle.dumps(Ray(workers=2))) == LOCAL


def test_options_are_checked():
    for options, words in (
        ({"workers": 0}, "engine.workers must be at least 1 or null; it is 0"),
        ({"gpus": -1}, "engine.gpus must be at least 0"),
        ({"retries": 1.5}, "engine.retries must be an integer"),
    ):
        with pytest.raises(InputError, match=words):
            Ray(**options)
