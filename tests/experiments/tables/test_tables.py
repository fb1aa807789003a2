"""The paper's tables are filled by the runs that belong to their cells, and by no others."""

from __future__ import annotations

import json
import math
import os

import pytest
import yaml
from scipy.stats import t

from experiments.tables.experiment import Column, FinishedRun, PaperTable, Row, finished_runs
from tarot import InputError
from tests.experiments.running import command


def table(**options) -> PaperTable:
    options = {
        "columns": {
            "MMLU": Column("metrics.accuracy", ("task={small}", "task.data.targets=mmlu"), scale=100),
            "BBH": Column("metrics.exact_match", ("task={small}", "task.data.targets=bbh"), scale=100),
        },
        "rows": {
            "All": Row((63.8, None), ("selector=all",)),
            "5% LESS": Row((65.7, "62.6 (1%)"), ("selector=less", "selector.ratio=0.05")),
        },
        "tasks": {"small": "instruction/less"},
        **options,
    }
    return PaperTable("Table 1", **options)


def finished(task="instruction/less", selector="less", seed=0, ratio=0.05, targets="mmlu", **metrics) -> FinishedRun:
    chosen = {"task": task, "selector": selector, "seed": seed}
    return FinishedRun(
        {"run": chosen, "metrics": metrics},
        {"selector": {"ratio": ratio}, "task": {"data": {"targets": targets}}, "seed": seed},
    )


def test_a_cell_is_the_mean_over_seeds_of_its_own_runs():
    runs = [
        *(finished(seed=seed, accuracy=value) for seed, value in enumerate((0.2, 0.4, 0.9))),
        finished(seed=2, accuracy=0.6),  # again, later: this one counts
        finished(ratio=0.2, accuracy=9.0),
        finished(selector="random", accuracy=9.0),
        finished(task="instruction", accuracy=9.0),
        finished(targets="bbh", accuracy=9.0),
        finished(selector="all", ratio=None, accuracy=0.5),
    ]
    cells = {(cell.row, cell.column): cell for cell in table().cells(runs)}
    less = cells["5% LESS", "MMLU"]
    half = t.ppf(0.975, 2) * 20 / math.sqrt(3)
    assert less.seeds == 3 and less.measured.mean == pytest.approx(40)
    assert (less.measured.low, less.measured.high) == pytest.approx((40 - half, 40 + half))
    assert cells["All", "MMLU"].measured.mean == 50 and not cells["All", "MMLU"].measured.known
    assert cells["All", "BBH"].measured is None and cells["5% LESS", "BBH"].measured is None


def test_runs_that_differ_in_more_than_the_seed_are_not_mixed():
    def of(steps, seed, accuracy):
        one = finished(seed=seed, accuracy=accuracy)
        return FinishedRun(one.metrics, {**one.config, "train": {"steps": steps, "seed": seed}, "cache_dir": str(seed)})

    runs = [of(1000, 0, 0.8), of(1, 1, 0.1), of(1, 0, 0.2)]
    cell = {(cell.row, cell.column): cell for cell in table().cells(runs)}["5% LESS", "MMLU"]
    assert (cell.measured.mean, cell.seeds, cell.others) == (pytest.approx(15), 2, 1)
    assert table().cells(runs[::-1])[2].measured.mean == pytest.approx(80)


def test_a_cell_says_what_is_on_paper_and_what_would_measure_it():
    cells = table().cells([])
    assert [cell.paper for cell in cells] == ["63.8", "", "65.7", "62.6 (1%)"]
    assert cells[3].command == (
        "python run.py task=instruction/less task.data.targets=bbh selector=less selector.ratio=0.05"
    )


def test_runs_are_read_the_oldest_first(tmp_path):
    for age, name in enumerate(("b", "a/deep")):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(yaml.safe_dump({"seed": age}))
        (folder / "metrics.json").write_text(json.dumps({"run": {"seed": age}}))
        os.utime(folder / "metrics.json", (age, age))
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "config.yaml").write_text("{}")
    assert [one.config["seed"] for one in finished_runs(tmp_path)] == [0, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"rows": {"All": Row((1.0,), ())}},
            r"experiment.rows.All.paper must have a figure, or null, for each of the 2",
        ),
        ({"rows": {"All": Row((1.0, 2.0), ("selector",))}}, "must read key=value; 'selector' does not"),
        ({"tasks": {}}, "experiment.tasks does not say what small is"),
    ],
)
def test_errors(options, message):
    with pytest.raises(InputError, match=message):
        table(**options)


@pytest.mark.parametrize("number", [1, 6, 8])
def test_the_papers_tables_from_the_command_line(number, tmp_path):
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    config = {"selector": {"ratio": 0.05}, "task": {"data": {"targets": "mmlu", "shots": 5}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    chosen = {"task": "instruction/less", "selector": "less", "seed": 0}
    measured = {"run": chosen, "metrics": {"accuracy": 0.5}, "seconds": {"features": 2.0, "select": 1.5}}
    (folder / "metrics.json").write_text(json.dumps(measured))
    runs = f"experiment.runs={folder.parent}"
    done = command(tmp_path, f"experiment=table{number}", runs, "experiment.tasks.llama=instruction/less")
    cells = done.metrics["cells"]
    filled = [cell for cell in cells if cell["measured"] is not None]
    expected = {1: [50.0], 6: [50.0], 8: [2.0, 1.5]}[number]
    assert [cell["measured"]["mean"] for cell in filled] == expected
    assert {cell["row"] for cell in filled} <= {"5% LESS", "LESS"}
    assert "measured, 1 seed" in (done.output / "report.html").read_text()


def test_no_folder_of_runs(tmp_path):
    done = command(tmp_path, "experiment=table1", f"experiment.runs={tmp_path / 'none'}")
    assert done.code == 1 and "there is no folder" in done.err and not (done.output / "report.html").exists()
