"""What docs/paper.md says of the paper's configurations is what they compose to."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import pytest
import yaml
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from tasks.task import ONE_EACH
from tests.docs.pages import DOCS
from tests.experiments.command.test_configs import composed

PAGE = (DOCS / "paper.md").read_text(encoding="utf-8")
COLUMNS = "| The paper | Where | Option | Value | Verdict |"
VERDICTS = ("as stated", "not stated", "deliberately other", "not here")
CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Row:
    """overrides: of the configuration that the table is about; none where it is about no option."""

    overrides: tuple[str, ...]
    statement: str
    where: str
    option: str
    value: str
    verdict: str

    @property
    def has_option(self) -> bool:
        return self.option != "–"


def rows() -> list[Row]:
    found, overrides = [], ()
    for line in PAGE.splitlines():
        if line.startswith("Composed as"):
            overrides = tuple(CODE.findall(line)[0].split())
        elif line.startswith("| ") and line != COLUMNS:
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert len(cells) == 5, line
            before = found[-1] if not cells[0] else None  # a statement that several options carry
            found.append(Row(overrides, cells[0] or before.statement, cells[1] or before.where, *cells[2:]))
    return found


ROWS = rows()
CONFIGURATIONS = sorted({row.overrides for row in ROWS if row.has_option})


def value_of(config: DictConfig, option: str):
    """What stands there. Raises KeyError where nothing does, which is not the same as null."""
    node = config
    for part in option.split("."):
        if not OmegaConf.is_dict(node) or part not in node:
            raise KeyError(option)
        node = node[part]
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


@pytest.mark.parametrize("overrides", CONFIGURATIONS, ids=" ".join)
def test_every_option_is_there_and_has_the_pages_value(overrides):
    config = composed(*overrides, "data_dir=DATA")
    wrong = []
    for row in ROWS:
        if row.overrides != overrides or not row.has_option:
            continue
        (option,), (value,) = CODE.findall(row.option), CODE.findall(row.value)
        found = value_of(config, option)
        if found != yaml.safe_load(value):
            wrong.append(f"{option} is {found!r}; the page says {value}")
    assert not wrong, "\n".join(wrong)


def test_selections_weigh_one_each_in_motion_prediction():
    """The paper does not weigh what it selects for motion prediction. No option says so but the task."""
    assert instantiate(composed("task=motion/paper", "data_dir=DATA").task).total() == ONE_EACH


def test_an_option_that_is_not_there_is_no_null():
    config = composed("task=segmentation/paper")
    assert value_of(config, "task.architecture.weights") is None
    for option in ("task.architecture.weight", "task.name.first", "nothing"):
        with pytest.raises(KeyError):
            value_of(config, option)


def test_the_page_is_whole():
    """Every row has a verdict, and every row of the paper's tables of constants has one of the page's."""
    assert len(ROWS) > 100 and PAGE.count(COLUMNS) == len(re.findall(r"^\|---\|", PAGE, re.MULTILINE))
    assert all(row.verdict.startswith(VERDICTS) and row.statement and row.where for row in ROWS)
    assert all(row.value == "–" for row in ROWS if not row.has_option)
    statements = Counter(where for row in {(row.statement, row.where): row for row in ROWS}.values()
                         for where in re.findall(r"Table \d", row.where))  # fmt: skip
    constants = {"Table 3": 8, "Table 4": 13, "Table 5": 7}  # Table 3's last two are one row of ours
    assert statements["Table 3"] >= constants["Table 3"] - 1
    assert all(statements[name] >= constants[name] for name in ("Table 4", "Table 5")), statements
    sections = {number for row in ROWS for number in re.findall(r"\b4\.[1-6]\b", row.where)}
    assert sections == {"4.1", "4.2", "4.3", "4.4", "4.6"}, "4.5 is about Tables 8 and 9"


def test_an_option_stands_once_in_a_table():
    told = Counter((row.overrides, row.option) for row in ROWS if row.has_option)
    twice = [option for option, count in told.items() if count > 1]
    assert all(option[1] in ("`experiment.total`", "`features.checkpoints`") for option in twice), twice
