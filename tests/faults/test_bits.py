"""Bits that flip in a cache, and files in it that are cut short: said, or of no effect, and never another result.

A trial harms one file of a warm cache, asks for all results again, and puts the file back. It ends in one of these:
`made again`: the log names the file, the results are as they were. `refused`: one line that names the file.
`read again`: in the memory of hashes, which is no result; the results are as they were. `harmless`: the bit means
nothing (a line's end in a checksum). `silent`: other results. `traceback`: any other error.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest

from experiments.stages import Workbench
from tarot import InputError
from tasks.common import contents
from tasks.common.subset_models import subset_masks, subset_outputs
from tasks.task import MeasuresSubsets
from tests.experiments.command.test_configs import composed
from tests.tasks.test_contract import small_task

CAUGHT = ("made again", "refused")
FEATURES = ("selector=tarot_fixed", "selector.size=4", "features.dim=8", "features.batch_size=16")


def results(name: str, cache: Path) -> Any:
    """All that is read from a cache, as plain data, by objects that have read nothing before."""
    contents._memories.clear()
    task = small_task(name, cache)
    config = composed(f"task={name}", *FEATURES)
    recipe, selector = (hydra.utils.instantiate(config[key], _convert_="all") for key in ("features", "selector"))
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
        "distance": bench.distance(selection),
        "value": bench.value(selector, "tarot_fixed").values.tolist(),
        "metrics": bench.evaluate(trained),
        "model": {key: value.double().sum().item() for key, value in state.items()},
        "measured": measured,
    }


@dataclass(frozen=True)
class Cache:
    """name: of the task. content: of every file. expected: the results."""

    name: str
    folder: Path
    content: dict[Path, bytes]
    expected: Any

    def trial(self, rng: np.random.Generator, caplog: pytest.LogCaptureFixture) -> tuple[str, str]:
        """What was done, and how it ended. Every kind of file is as likely as any other."""
        kinds = sorted({self.kind(path) for path in self.content})
        kind = kinds[rng.integers(len(kinds))]
        of_kind = sorted(path for path in self.content if self.kind(path) == kind)
        path = of_kind[rng.integers(len(of_kind))]
        content, cut = self.content[path], bool(rng.random() < 0.25)
        place = int(rng.integers(len(content)))
        bit = 1 << int(rng.integers(8))
        path.write_bytes(
            content[:place] if cut else content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]
        )
        what = f"{path.relative_to(self.folder)}, {'cut at' if cut else f'bit {bit} of'} byte {place} of {len(content)}"
        caplog.clear()
        try:
            return what, self.ending(path, caplog)
        finally:
            self.restore()

    def ending(self, path: Path, caplog: pytest.LogCaptureFixture) -> str:
        with caplog.at_level(logging.WARNING):
            try:
                found = results(self.name, self.folder)
            except InputError as error:
                said = str(error)
                named = path.name in said or path.parent.name in said or path.name.removesuffix(".sha256") in said
                return "refused" if named and "\n" not in said else f"refused without a name: {said}"
            except Exception as error:
                return f"traceback: {type(error).__name__}: {error}"
        said = any("made again" in message for message in caplog.messages)
        if found != self.expected:
            return "made again, and other results" if said else "silent"
        if said:
            return "made again"
        return "read again" if path.name == contents.MEMORY else "harmless"

    def kind(self, path: Path) -> str:
        inside = path.relative_to(self.folder).parts
        return f"{inside[0]}/*{''.join(path.suffixes[-1:])}"

    def restore(self) -> None:
        for path in self.folder.rglob("*"):
            if path.is_file() and not path.name.endswith(".lock") and path not in self.content:
                path.unlink()
        for path, content in self.content.items():
            if not path.exists() or path.read_bytes() != content:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)


@pytest.fixture(scope="module")
def cache(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cache]:
    folder = tmp_path_factory.mktemp("cache")
    expected = results(request.param, folder)
    given = folder / "data"  # what a task reads is no cache
    kept = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.endswith(".lock")]
    content = {path: path.read_bytes() for path in kept if given not in path.parents and path.stat().st_size}
    assert results(request.param, folder) == expected, "a warm cache gives what a cold one gives"
    yield Cache(request.param, folder, content, expected)


def run(cache: Cache, trials: int, caplog: pytest.LogCaptureFixture) -> Counter[str]:
    rng = np.random.default_rng(trials)
    ended: Counter[str] = Counter()
    for _ in range(trials):
        what, how = cache.trial(rng, caplog)
        print(f"{cache.name}: {what}: {how}")
        ended[how] += 1
    print(f"{cache.name}: {trials} tried, {dict(ended)}")
    assert set(ended) <= {*CAUGHT, "read again", "harmless"}, ended
    return ended


@pytest.mark.parametrize("cache", ["digits"], indirect=True)
def test_a_few_bits(cache, caplog):
    ended = run(cache, 8, caplog)
    assert ended["made again"] > 1


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["digits", "segmentation", "motion", "instruction"], indirect=True)
def test_fifty_bits(cache, caplog):
    ended = run(cache, 50, caplog)
    assert ended["harmless"] <= 2, "bits that mean nothing: ends of lines"
