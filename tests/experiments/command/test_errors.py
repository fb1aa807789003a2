"""Bad input on the command line: exit code 1, one sentence on stderr, and nothing that a later run would trust."""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

import run
from experiments.command.errors import is_interrupt, message_of, message_of_hydra
from tasks.common.cache import cached_checkpoints, load_checkpoints
from tests.experiments.running import SMALL, Outcome, command, started, undrawn

RNG = np.random.default_rng(0)
CANDIDATES, TARGETS = RNG.normal(size=(50, 6)), RNG.normal(size=(5, 6)) + 1


def with_value(array: np.ndarray, value: float) -> np.ndarray:
    array = array.copy()
    array[3, 2] = value
    return array


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of features, good and bad."""
    folder = tmp_path_factory.mktemp("bad")
    arrays = {
        "c": CANDIDATES, "t": TARGETS, "c_nan": with_value(CANDIDATES, np.nan), "t_inf": with_value(TARGETS, np.inf),
        "c_zero": 0 * CANDIDATES, "t_zero": 0 * TARGETS, "t_empty": TARGETS[:0], "c_empty": CANDIDATES[:0],
        "t_narrow": TARGETS[:, :4], "t_flat": TARGETS[0], "t_words": TARGETS.astype(str), "ids_few": np.arange(9),
    }  # fmt: skip
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    np.save(folder / "c_objects.npy", np.array([{}] * 50, dtype=object), allow_pickle=True)
    (folder / "c.pkl").write_bytes(b"\x80\x04K\x00.")
    (folder / "c_cut.npy").write_bytes((folder / "c.npy").read_bytes()[:500])
    (folder / "ids.txt").write_text("a\n" * 50)
    return folder


def refused(outcome: Outcome, *words: str) -> None:
    """One sentence with these words on stderr, and no result."""
    assert outcome.code == 1, outcome.out
    lines = outcome.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), outcome.err
    for word in words:
        assert word in lines[0], f"{word!r} is not in {lines[0]!r}"
    left = {path.name for path in outcome.output.rglob("[!.]*") if path.is_file()}
    assert left <= {"run.log"}, left


# what is given beside good files: options, and what the sentence must name
BAD = {
    "NaN": ("task.candidates={}/c_nan.npy", "task.candidates row 3 column 2 is nan"),
    "infinity": ("task.targets={}/t_inf.npy", "task.targets row 3 column 2 is inf"),
    "no candidate has a gradient": ("task.candidates={}/c_zero.npy", "candidates", "50 rows is zero"),
    "no target has a gradient": ("task.targets={}/t_zero.npy", "targets", "5 rows is zero"),
    "N < S": ("selector=tarot_fixed selector.size=51", "between 1 and", "50; it is 51"),
    "S = 0": ("selector=random selector.size=0", "size", "it is 0"),
    "ratio 0": ("selector=random selector.ratio=0", "ratio must be in (0, 1] or null; it is 0"),
    "ratio 2": ("selector=tarot_exact selector.ratio=2", "ratio must be in (0, 1] or null; it is 2"),
    "size and ratio": ("selector=random selector.ratio=.1 selector.size=3", "either size or ratio"),
    "size is a word": ("selector=random selector.size=many", "size must be an integer", "'many'"),
    "how given rows are made": ("features.dim=64", "features.dim=64", "are given", "features.whitening"),
    "no targets": ("task.targets={}/t_empty.npy", "t_empty.npy is empty"),
    "no candidates": ("task.candidates={}/c_empty.npy", "c_empty.npy is empty"),
    "dimensions": ("task.targets={}/t_narrow.npy", "6 dimensions", "targets 4"),
    "not a matrix": ("task.targets={}/t_flat.npy", "two dimensions", "(6,)"),
    "not numbers": ("task.targets={}/t_words.npy", "real numbers"),
    "an id twice": ("task.ids={}/ids.txt", "unique", "'a'"),
    "ids too few": ("task.ids={}/ids_few.npy", "task.ids", "50 values"),
    "objects": ("task.candidates={}/c_objects.npy", "c_objects.npy", "Pickled objects are never loaded"),
    "pickle": ("task.candidates={}/c.pkl", "c.pkl", "'.pkl'"),
    "cut": ("task.candidates={}/c_cut.npy", "c_cut.npy"),
    "no file": ("task.candidates={}/nowhere.npy", "task.candidates", "nowhere.npy"),
    "no tags": ("selector=oracle", "candidate_tags"),
    "selector": ("selector=tarot_fixd", "no selector 'tarot_fixd'", "tarot_fixed"),
    "task": ("task=segmantation", "no task 'segmantation'", "digits"),
    "experiment": ("experiment=nope", "no experiment 'nope'", "selection"),
    "labels": ("selector=knn_shapley selector.size=5", "knn_shapley", "candidate_labels"),
    "error norms": ("selector=el2n selector.size=5", "el2n", "features=el2n"),
    "influences": ("selector=influence selector.size=5", "influence", "candidate_scores"),
    "learning rates": ("selector=less task.learning_rates=[1,2]", "task.learning_rates", "1; there are 2"),
    "Adam's moments": (
        f"{' '.join(SMALL)} selector=less task.train.optimizer=sgd features.preconditioner=adam", "optimizer", "adamw"
    ),
    "an arm that lacks something": (f"{' '.join(SMALL)} experiment.arms=[el2n]", "arms: el2n", "features=el2n"),
    "no texts": (f"{' '.join(SMALL)} selector=dsir", "task digits gives no texts"),
    "arm": ("experiment.arms=[randm]", "experiment.arms", "'randm'", "random"),
    "option": ("selector.fold=3", "selector.fold"),
    "group": ("selektor=random", "selektor"),
    "syntax": ("selector=[", "input"),
    "type": ("task=digits task.train.steps=many", "train.steps must be an integer"),
    "seed": ("seed=one", "seed must be an integer", "'one'"),
    "device": ("task=digits device=tpu9", "tpu9"),
    "experiment of another task": ("experiment=lds", "experiment=lds", "task=features"),
    "data set": ("task=cifar10 data_dir={}/nowhere", "CIFAR-10", "nowhere", "cifar-10-batches-py", "https://"),
    "diverged": (f"{' '.join(SMALL)} task.train.learning_rate=1e30", "diverged", "learning rate"),
    "projection": (f"{' '.join(SMALL)} features.projection=nope", "nope", "factored"),
    "logger": ("logger=wandb logger.mode=sometimes", "logger.mode"),
    "a seed that torch cannot take": ("seed=9223372036854775807", "seed must be in [0, 2147483647]"),
    "a choice that is no name": ("selector=null", "has a name, as in task=digits"),
    "no selector": ("selector._target_=os.system", "selector._target_ must name a class of the kind of"),
    "an option more": ("+selector.fold=3", "no option selector.fold; tarot_otm has folds"),
    "an option more of a task": ("+task.model=x", "no option task.model"),
    "an option of another task": ("task.train.costs=3", "no option task.train.costs; task has name, candidates"),
}  # fmt: skip
OUTPUTS = {
    "null": ("null", "output_dir must be the path of a folder; it is null"),
    "a file": ("{}/c.npy", "c.npy is, or is below, a file where a folder is needed"),
    "below a file": ("{}/c.npy/out", "c.npy/out is, or is below, a file where a folder is needed"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(folder, name):
    options, *words = BAD[name]
    given = {"task": "features", "task.candidates": f"{folder}/c.npy", "task.targets": f"{folder}/t.npy"}
    options = dict(option.split("=", 1) for option in options.format(folder).split())
    if options.get("task", "features") != "features":
        given = {}
    outcome = command(
        folder, *(f"{key}={value}" for key, value in (given | options).items()), name="out_" + str(len(name))
    )
    refused(outcome, *words)
    trusted = {
        path.relative_to(folder / "cache").parts[0]
        for path in (folder / "cache").glob("*/**/*")
        if path.is_file() and path.name[0] != "." and path.suffix != ".lock"
    }
    assert trusted <= {"checkpoints"}, "something was kept of a run that failed"


@pytest.mark.parametrize("name", OUTPUTS)
def test_where_nothing_can_be_written_is_one_sentence(folder, name):
    output, words = OUTPUTS[name]
    refused(command(folder, f"output_dir={output.format(folder)}", placed=False), words)


@pytest.mark.parametrize("options", ["selector=dsir", "experiment.arms=[el2n]", "features=sentence selector=random"])
def test_what_a_task_lacks_is_said_before_anything_is_trained(options, tmp_path):
    refused(command(tmp_path, *SMALL, *options.split()))
    assert not (tmp_path / "cache").exists()


# --- a cache that has gone bad ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cached")
    assert command(folder, *SMALL, "experiment.arms=[]", "experiment.trainings=1").code == 0
    return folder


@pytest.fixture
def cached(untouched: Path, tmp_path: Path) -> Path:
    """A folder of one's own with all that a run has left."""
    shutil.copytree(untouched, tmp_path, dirs_exist_ok=True)
    return tmp_path


def again(folder: Path, *options: str) -> Outcome:
    """Another selection, which reads the features once more."""
    return command(
        folder, *SMALL, "experiment.arms=[]", "experiment.trainings=1", "selector=tarot_fixed", *options, name="again"
    )


def store_of(folder: Path, split: str = "candidates") -> Path:
    (store,) = (folder / "cache" / "features").glob(f"digits-{split}-*")
    return store


@pytest.mark.parametrize(
    ("experiment", "said"),
    [
        ("ratio_sweep", "selector=less"),
        ("grid", "features=less"),
        ("quantiles", "features.whitening=zca"),
        ("quantiles", "+features.influence.rows=3"),
        ("corruption", "selector.ratio=.1"),
        ("distillation", "features=less"),
        ("lds", "selector=tarot_fixed"),
        ("table1", "task=motion"),
        ("paper", "seed=3"),
        ("paper", "task.train.steps=3"),
    ],
)
def test_what_an_experiment_would_leave_out_in_silence_is_refused(experiment, said, tmp_path):
    refused(command(tmp_path, f"experiment={experiment}", said), f"{said} means nothing to experiment={experiment}")


def test_a_gradient_that_is_not_finite_names_its_sample(cached):
    """By a checkpoint that overflows for some samples; with `drop` they are left out and counted."""
    (path,) = (cached / "cache" / "checkpoints").glob("*.safetensors")
    checkpoints = load_checkpoints(path)
    next(iter(checkpoints[0].state.values()))[0, 0] = float("nan")
    path.unlink()
    cached_checkpoints(path, lambda: checkpoints)
    outcome = again(cached)
    refused(outcome, "gradient of sample 'digit-", "not finite")
    assert len(list((cached / "cache" / "features").glob("digits-*"))) == 2, "a store of what is not finite"


@pytest.mark.parametrize("harm", ["cut", "flip", "gone"])
def test_a_damaged_shard_is_named(cached, harm):
    (shard,) = store_of(cached).glob("*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    {
        "cut": lambda: shard.write_bytes(content[:-100]),
        "flip": lambda: shard.write_bytes(content),
        "gone": shard.unlink,
    }[harm]()
    refused(again(cached), shard.name, "Delete the store")
    assert not list((cached / "cache" / "selections").glob("*tarot_fixed*"))


def test_a_store_of_another_seed_is_refused(cached):
    other = command(cached, *SMALL, "experiment.arms=[]", "experiment.trainings=1", "seed=1", name="other")
    assert other.code == 0
    stores = sorted((cached / "cache" / "features").glob("digits-candidates-*"), key=lambda path: path.stat().st_mtime)
    stores[0].rename(cached / "kept")
    stores[1].rename(stores[0])
    refused(again(cached), "holds other features", "seed")


def test_rows_of_a_store_can_be_brought_as_features(cached):
    """A feature store is one of the things that task=features reads; one cut short is not."""
    given = [f"task.{split}={store_of(cached, split)}" for split in ("candidates", "targets")]
    options = ["task=features", *given, "selector=random", "selector.size=3"]
    assert command(cached, *options, name="brought").metrics["selection"]["size"] == 3
    (shard,) = store_of(cached).glob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-1])
    refused(command(cached, *options, name="cut"), shard.name)


# --- a full disk -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def full_disk(kib: int) -> Iterator[None]:
    """In a process that ends within it."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (kib << 10, kib << 10))
    with undrawn():
        yield


@pytest.mark.parametrize(("kib", "stage"), [pytest.param(4, "checkpoints", marks=pytest.mark.slow), (64, "features")])
def test_a_full_disk_is_said_and_what_it_left_is_not_trusted(tmp_path, kib, stage):
    """The operating system refuses to let any file grow beyond a size, as it would on a full disk."""
    options = [*SMALL, "features.projection=identity", "experiment.arms=[]", "experiment.trainings=1"]
    process = started(tmp_path, *options, name="full", around=functools.partial(full_disk, kib))
    process.join(timeout=300)
    err = (tmp_path / "full.err").read_text()
    assert process.exitcode == 1 and "Traceback" not in err
    assert err.strip().splitlines()[-1].startswith("error: [Errno 27] File too large"), err
    assert not list((tmp_path / "cache" / stage).glob("digits-*[!k]")), "half of something was kept"
    assert not (tmp_path / "full" / "metrics.json").exists()
    resumed, fresh = command(tmp_path, *options, name="resumed"), command(tmp_path / "elsewhere", *options)
    assert resumed.metrics["metrics"] == fresh.metrics["metrics"]
    assert resumed.metrics["selection"] == fresh.metrics["selection"]


# --- the sentence ----------------------------------------------------------------------------------------------------


def test_a_bug_keeps_its_traceback():
    assert message_of(KeyError("a bug")) is None and message_of(ZeroDivisionError()) is None


@pytest.mark.parametrize("override", ["selector=null", "=5", "hydra.job_logging.handlers=null", "logger=../../x"])
def test_what_hydra_itself_comes_upon_is_one_line(tmp_path, override):
    refused(command(tmp_path, "task=features", override))


def test_what_comes_up_inside_of_a_run_is_none_of_hydras():
    def bug():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as raised:
        bug()
    assert message_of_hydra(raised.value, bug) is None
    assert message_of_hydra(raised.value, run.work) is not None


def test_a_traceback_can_be_asked_for(folder, monkeypatch):
    monkeypatch.setattr("run.TRACEBACK", True)
    with pytest.raises(ValueError, match="size must be between 1"):
        command(
            folder,
            "task=features",
            f"task.candidates={folder}/c.npy",
            f"task.targets={folder}/t.npy",
            "selector=random",
            "selector.size=99999",
        )


def test_memory_that_ran_out_says_what_to_lower():
    assert "features.batch_size" in message_of(MemoryError("cannot allocate"))


class Killed(Dataset):
    """Its first sample ends whoever reads it."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_reads_samples_and_is_killed_is_one_line():
    with pytest.raises(RuntimeError) as raised:
        list(DataLoader(Killed(), num_workers=1, multiprocessing_context="fork"))
    said = message_of(raised.value)
    assert said.startswith("a process that reads samples was ended") and "features.workers" in said


def test_an_interrupt_is_one_whatever_error_comes_of_it():
    try:
        try:
            raise KeyboardInterrupt
        finally:
            raise UnboundLocalError("a file that was never opened is closed")
    except UnboundLocalError as error:
        assert is_interrupt(error) and is_interrupt(RuntimeError()) is False
        wrapped = ValueError()
        wrapped.__cause__ = error
    assert is_interrupt(wrapped)
