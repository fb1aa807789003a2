"""What the ledger of distillation says is what tests hold, what settings are, and what pages print."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, ROOT
from tests.experiments.command.test_configs import composed

LEDGER = {
    cells[0]: cells[1:]
    for line in (DOCS / "wmdd.md").read_text(encoding="utf-8").splitlines()
    if (cells := [cell.strip() for cell in line.strip("|").split("|")])[0].startswith("D-")
}
PAGE = (DOCS / "distillation.md").read_text(encoding="utf-8")


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"(?<![\w-])\d*\.?\d+", text)]


def rows_with_a_test() -> set[str]:
    """Rows that a test is named after."""
    names = [
        name
        for path in Path(ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def test_(\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    return {f"D-{number}" for name in names for number in re.findall(r"D(\d\d)_", name)}


def test_every_row_with_an_example_has_a_test_of_its_name():
    assert list(LEDGER) == [f"D-{number:02}" for number in range(1, 21)]
    assert {row for row, cells in LEDGER.items() if cells[-1] != "–"} <= rows_with_a_test()


def test_D09_tiny_imagenet_has_the_pixels_of_its_peers():
    config = composed("experiment=distillation", "task=classification/tiny_imagenet")
    size = config.task.size
    assert size == numbers(LEDGER["D-09"][2])[0] == 64
    assert (224 / size) ** 2 == 12.25 and "12.25 times" in LEDGER["D-09"][1]
    line = next(line for line in PAGE.splitlines() if line.startswith("| WMDD, as printed"))
    assert "59.4 / 61.0 (at 224 pixels)" in line


@pytest.mark.parametrize("which", [0, 1, 2])
def test_D14_the_weight_of_the_statistics_is_that_of_the_data_set(which):
    name = ("imagenette", "tiny_imagenet", "imagenet1k")[which]
    told = numbers(LEDGER["D-14"][-1].replace("-1K", ""))
    options = composed("experiment=distillation", f"task=classification/{name}").experiment
    assert [options.synthesis.statistics_weight, options.released_weight] == [told[which], told[3 + which]]


def test_D20_the_ablation_is_that_of_the_papers_page():
    """And not that of an earlier version, which is told apart in the ledger alone."""
    assert "| cross-entropy | 54.2 / 38.0 / 35.9 | 63.8 / 41.0 / 37.3 |" in PAGE
    assert "63.5" not in PAGE and "63.5 / 41.0 / 36.4" in LEDGER["D-20"][-1]
