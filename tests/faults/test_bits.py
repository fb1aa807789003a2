"""Bits that flip in a cache, and files in it that are cut short: said, or of no effect, and never another result.

A trial harms one file of a warm cache, asks for all results again, and puts the file back. It ends in one of these:
`made again`: the log names the file, the results are as they were. `refused`: one line that names the file.
`read again`: in the memory of hashes, which is no result; the results are as they were. `harmless`: the bit means
nothing (a line's end in a checksum). `silent`: other results. `traceback`: any other error.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from experiments.stages import Workbench
from tarot import InputError
from tarot.common import hash_content
from tarot.features import FeatureStore
from tasks.common import contents
from tasks.common.snapshots import Snapshots
from tasks.common.subset_models import subset_masks, subset_outputs
from tasks.common.training import Surrogate, Training, fit
from tasks.task import MeasuresSubsets
from tests.experiments.command.test_configs import composed
from tests.faults.trials import Ending, tried
from tests.tasks.test_contract import STAND_IN, options_of

CAUGHT = ("made again", "refused")
SURVIVED = (*CAUGHT, "read again", "harmless")
FEATURES = ("selector=tarot_fixed", "selector.size=4", "features.dim=8", "features.batch_size=16")
FEW = {
    "digits": (
        *("rotated.candidates=60", "rotated.targets=7", "rotated.validation=8", "rotated.test=40", "hidden=[8]"),
        *("surrogate.runs=1", "train.steps=10"),
    )
}


# --- what is read from a cache ---------------------------------------------------------------------------------------


@functools.cache
def configured(name: str, cache: Path) -> Any:
    """Resolved, as plain data: to compose it takes longer than all else."""
    data = cache / "data" / name
    if name in STAND_IN:
        STAND_IN[name](data)
    places = (f"data_dir={data}", f"cache_dir={cache}", "device=cpu")
    config = composed(f"task={name}", *FEATURES, *places, *options_of(name, *FEW.get(name, ())))
    return {key: OmegaConf.to_container(config[key], resolve=True) for key in ("task", "features", "selector")}


def of_task(name: str, cache: Path) -> Any:
    """All that is read from a task's cache, as plain data, by objects that have read nothing before."""
    contents._memories.clear()
    config = configured(name, cache)
    task, recipe, selector = (
        hydra.utils.instantiate(config[key], _convert_="all") for key in ("task", "features", "selector")
    )
    bench = Workbench(task, recipe, cache, "cpu")
    features = bench.features()
    selection = bench.select(selector)
    trained = bench.train(selection, 3)
    state = bench.trained_model(trained).state_dict()
    measured: list[Any] = []
    if isinstance(task, MeasuresSubsets):
        measured = subset_outputs(task, subset_masks(len(task.candidates()), 2), cache, workers=1).tolist()
    return {
        "features": [np.asarray(rows[:]).tolist() for rows in (*features.candidates, *features.targets)],
        "selection": [selection.indices.tolist(), selection.weights.tolist(), selection.potentials.tolist()],
        "scores": hash_content(bench.scores(selector)),
        "distance": bench.distance(selection),
        "value": bench.value(selector, "tarot_fixed").values.tolist(),
        "metrics": bench.evaluate(trained),
        "model": {key: repr(value.double().sum().item()) for key, value in state.items()},  # nan is no nan
        "measured": measured,
    }


def of_store(folder: Path, stop: int | None = None) -> Any:
    """The rows of a store of four shards. stop: the row before which the run is stopped."""

    def compute(start: int, end: int) -> dict[str, torch.Tensor]:
        if start == stop:
            raise KeyboardInterrupt
        rows = np.random.default_rng(start).normal(size=(end - start, 3))
        return {"features": torch.from_numpy(rows).float(), "residual": torch.full((end - start,), float(start))}

    store = FeatureStore.build(
        folder / "store",
        recipe={"kind": "test"},
        ids=list("abcdefgh"),
        dim=3,
        rows_per_shard=2,
        columns=["residual"],
        compute=compute,
    )
    return [store[:].tolist(), store.columns["residual"].tolist()]


def of_training(folder: Path, stop: int | None = None) -> Any:
    """The checkpoints of a training that is written down after every second step. stop: the step before which the run
    is stopped."""
    rng = np.random.default_rng(0)
    rows = [torch.from_numpy(rng.normal(size=(4, 3))).float() for _ in range(8)]
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Dropout(0.5))

    def batches() -> Iterator[torch.Tensor]:
        for step, batch in enumerate(rows):
            if step == stop:
                raise KeyboardInterrupt
            yield batch

    kept = fit(
        model,
        lambda model, batch: model(batch).square().mean(),
        batches(),
        Training(steps=8),
        keep=Surrogate(checkpoints=4),
        snapshots=Snapshots(folder / "run0"),
    )
    return [[c.name, c.learning_rate, {k: v.tolist() for k, v in c.state.items()}] for c in kept]


def warm(name: str, folder: Path) -> Any:
    return of_task(name, folder)


def stopped(read: Callable[..., Any], folder: Path, stop: int) -> Any:
    """What there is without a stop, elsewhere."""
    with contextlib.suppress(KeyboardInterrupt):
        read(folder, stop)
    return read(folder.with_name("whole"))


BEGUN: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any]]] = {
    **{name: (functools.partial(of_task, name), functools.partial(of_task, name)) for name in (
        "digits", "segmentation/folders", "motion", "instruction"
    )},
    "an unfinished store": (functools.partial(stopped, of_store, stop=4), of_store),
    "an unfinished training": (functools.partial(stopped, of_training, stop=5), of_training),
}  # fmt: skip
"""By name: what leaves something on the disk and returns what is to be read from it, and what reads it."""


# --- harm ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cache:
    """name: of what is in it. read: gives the results. content: of every file. expected: the results."""

    name: str
    folder: Path
    read: Callable[[Path], Any]
    content: dict[Path, bytes]
    expected: Any

    def trial(self, caplog: pytest.LogCaptureFixture, number: int, rng: np.random.Generator) -> Ending:
        """Kinds of files have their turns; where one is harmed is drawn."""
        kinds = sorted({self.kind(path) for path in self.content})
        kind = kinds[number % len(kinds)]
        of_kind = sorted(path for path in self.content if self.kind(path) == kind)
        path = of_kind[rng.integers(len(of_kind))]
        content, cut = self.content[path], bool(rng.random() < 0.25)
        place, bit = int(rng.integers(len(content))), 1 << int(rng.integers(8))
        flipped = content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]
        path.write_bytes(content[:place] if cut else flipped)
        what = f"{path.relative_to(self.folder)}, {'cut at' if cut else f'bit {bit} of'} byte {place} of {len(content)}"
        caplog.clear()
        try:
            return Ending(kind, what, self.ending(path, caplog))
        finally:
            self.restore()

    def ending(self, path: Path, caplog: pytest.LogCaptureFixture) -> str:
        with caplog.at_level(logging.WARNING):
            try:
                found = self.read(self.folder)
            except InputError as error:
                said = str(error)
                named = path.name in said or path.parent.name in said or path.name.removesuffix(".sha256") in said
                return "refused" if named and "\n" not in said else f"refused without a name: {said}"
            except Exception as error:
                return f"traceback: {type(error).__name__}: {error}"
        said = any("made again" in message or "not used" in message for message in caplog.messages)
        if found != self.expected:
            return "made again, and other results" if said else "silent"
        if said:
            return "made again"
        return "read again" if path.name == contents.MEMORY else "harmless"

    def kind(self, path: Path) -> str:
        """The part of the cache that it is in, and whether it is a checksum."""
        part = path.relative_to(self.folder).parts[0]
        return f"checksums of {part}" if path.suffix == ".sha256" else part

    def restore(self) -> None:
        for path in sorted(self.folder.rglob("*"), reverse=True):
            if path.is_dir():
                with contextlib.suppress(OSError):  # something is in it
                    path.rmdir()
            elif not path.name.endswith(".lock") and path not in self.content and self.given not in path.parents:
                path.unlink()
        for path, content in self.content.items():
            if not path.exists() or path.read_bytes() != content:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)

    @property
    def given(self) -> Path:
        """What a task reads is no cache."""
        return self.folder / "data"


@pytest.fixture
def cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setattr(contents, "YOUNG", -1)  # files have been there for a while
    begin, read = BEGUN[request.param]
    folder = tmp_path / "cache"
    expected = begin(folder)
    there = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.endswith(".lock")]
    content = {path: path.read_bytes() for path in there if folder / "data" not in path.parents}
    cache = Cache(request.param, folder, read, {path: found for path, found in content.items() if found}, expected)
    assert read(folder) == expected, "what is there gives what nothing gives"
    cache.restore()
    return cache


def harmed(cache: Cache, trials: int, caplog: pytest.LogCaptureFixture) -> Counter[str]:
    return tried(f"bits of {cache.name}", trials, functools.partial(cache.trial, caplog), SURVIVED)


@pytest.mark.parametrize(
    ("cache", "trials"),
    [("digits", 18), ("an unfinished store", 6), ("an unfinished training", 6)],
    indirect=["cache"],
)
def test_a_few_bits(cache, trials, caplog):
    assert harmed(cache, trials, caplog)["made again"] > 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cache", "trials"),
    [(name, 25 if name.startswith("an ") else 50) for name in BEGUN],
    indirect=["cache"],
)
def test_many_bits(cache, trials, caplog):
    assert harmed(cache, trials, caplog)["harmless"] <= 2, "bits that mean nothing: ends of lines"
