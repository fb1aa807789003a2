"""The Python on the README, the first page and the how-to pages runs as it stands, each page in an empty folder."""

from __future__ import annotations

import re
import shlex

import matplotlib
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import tarot
from tests.docs.pages import DOCS, HOW_TO, ROOT, blocks

PAGES = [ROOT / "README.md", DOCS / "index.md", *HOW_TO]


def reader_brings() -> dict:
    """What the README's chapters take as given: a model, its losses and data, a batch, the features of two models."""
    torch.manual_seed(0)
    data = {
        name: TensorDataset(torch.randn(n, 8), torch.randint(0, 3, (n,)))
        for name, n in (("candidates", 90), ("targets", 9))
    }
    two_models = {name: torch.randn(600 if name[0] == "c" else 20, 8) for name in ("c1", "c2", "t1", "t2")}
    return {
        **data,
        **two_models,
        "model": nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)),
        "losses": lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none"),
        "batch": (torch.randn(4, 8), torch.randint(0, 3, (4,))),
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    namespace = {"__name__": "__main__"}
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.is_file or block.not_run:  # files: tests/docs/test_adding.py
            continue
        namespace.update(reader_brings() if page.stem == "README" else {})
        code = "\n" * (block.line - 1) + block.code  # so that a traceback has the page's own line
        exec(compile(code, str(page), "exec", dont_inherit=True), namespace)


def test_the_commands_on_the_page_of_commands_run(tmp_path, monkeypatch):
    cli = pytest.importorskip("tarot.cli")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, rows in (("pool", 300), ("targets", 20)):
        np.save(f"{name}.npy", rng.normal(size=(rows, 8)).astype(np.float32))
    np.save("y.npy", rng.integers(0, 3, 300))
    np.save("y_t.npy", rng.integers(0, 3, 20))
    page = (DOCS / "reference" / "command-line.md").read_text(encoding="utf-8")
    commands = re.findall(r"^tarot (\w+ [^#\n]+)", page, re.MULTILINE)
    assert {command.split()[0] for command in commands} == {"select", "value", "convert", "inspect", "verify"}
    for command in commands:
        assert cli.main(shlex.split(command)) == 0, command
    assert len(tarot.Selection.load("selection.parquet")) > 0


def test_what_is_a_block():
    page = "\n".join(
        [
            "Text.",
            "",
            "```python",
            "a = 1",
            "```",
            "",
            "`some/file.py`",
            "",
            "```python",
            "b = 2",
            "```",
            "",
            "<!-- not run: it takes a GPU -->",
            "```python",
            "c = 3",
            "```",
            "",
            "```bash",
            "python run.py",
            "```",
        ]
    )
    found = blocks(page)
    assert [block.code for block in found] == ["a = 1\n", "b = 2\n", "c = 3\n"]
    assert [block.line for block in found] == [4, 10, 15]
    assert [block.is_file for block in found] == [False, True, False]
    assert [block.not_run for block in found] == [None, None, "it takes a GPU"]
