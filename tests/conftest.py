"""The tests' models are small: one thread is as fast as several, and far faster where other programs use the cores."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

# their asserts say what they compared, as those of tests do
pytest.register_assert_rewrite("tests.tasks.conformance", "tests.tarot.selectors.conformance")


def pytest_configure() -> None:
    """What tests write need not outlive a power failure, and a run waits for the disk sixty times."""
    os.fsync = lambda _: None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long comes first, so that at the end no worker waits for another, and none starts a second Ray: they
    take each other's tests from the end."""

    def place(item: pytest.Item) -> int:
        if item.get_closest_marker("ray"):
            return 0
        return 1 if item.path.parent == Path(__file__).parent else 2

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """What the tests import are half a million objects that stay: the garbage collector need not search them, each
    time a third of a second. And torch has sixty loggers that hand nothing on, to each of which pytest would add its
    handlers, and remove them, three times in every test."""
    gc.collect()
    gc.freeze()
    for name, logger in logging.root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and name.partition(".")[0] == "torch":
            logger.propagate = True


@pytest.fixture(scope="session")
def ray_home() -> Iterator[Path]:
    """Of the files that Ray writes: short, for the paths of its sockets, and one, since a process keeps what it has
    read of it."""
    folder = Path(tempfile.mkdtemp(prefix="r"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        patch.setenv("RAY_TMPDIR", str(folder))
        patch.delenv("RAY_ADDRESS", raising=False)
        yield folder
    shutil.rmtree(folder, ignore_errors=True)
