"""The Python on the README, the first page and the how-to pages runs as it stands, each page in an empty folder."""

from __future__ import annotations

import matplotlib
import pytest
import torch
from torch import nn

from tests.docs.pages import DOCS, HOW_TO, ROOT, blocks

PAGES = [ROOT / "README.md", DOCS / "index.md", *HOW_TO]


def reader_brings() -> dict:
    """What the README takes as given: a model, its losses and a batch, and the features of two models."""
    torch.manual_seed(0)
    two_models = {name: torch.randn(600 if name[0] == "c" else 20, 8) for name in ("c1", "c2", "t1", "t2")}
    return {
        **two_models,
        "model": nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)),
        "losses": lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none"),
        "batch": (torch.randn(4, 8), torch.randint(0, 3, (4,))),
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    namespace = {"__name__": "__main__", **(reader_brings() if page.stem == "README" else {})}
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.is_file or block.not_run:  # files: tests/test_adding.py
            continue
        code = "\n" * (block.line - 1) + block.code  # so that a traceback has the page's own line
        exec(compile(code, str(page), "exec", dont_inherit=True), namespace)


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
