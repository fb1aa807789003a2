"""The tutorials run from top to bottom without an error."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot
import pytest

from tests.docs.pages import ROOT, TUTORIALS
from tests.experiments.running import started

nbformat = pytest.importorskip("nbformat")
interactive = pytest.importorskip("IPython.core.interactiveshell")

LIMIT = 300_000  # bytes of a notebook with its outputs


def code_cells(path: Path) -> list[Any]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_there_are_tutorials():
    assert {path.stem for path in TUTORIALS} == {"features", "model", "jsonl"}


def run_here(command: list[str], **options: Any) -> subprocess.CompletedProcess:
    """`python run.py ...` in a copy of this process, which need not import anything; other commands as they are."""
    if command[:2] != [sys.executable, "run.py"]:
        return run_elsewhere(command, **options)
    assert options == {"capture_output": True, "text": True}
    with tempfile.TemporaryDirectory() as folder:
        process = started(Path(folder), *command[2:], placed=False)
        process.join()
        out, err = ((Path(folder) / f"run.{kind}").read_text() for kind in ("out", "err"))
    assert process.exitcode is not None
    return subprocess.CompletedProcess(command, process.exitcode, out, err)


run_elsewhere = subprocess.run


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs(path, tmp_path, monkeypatch, capsys):
    """By the shell that notebooks have, in this process: imports take seconds, and a kernel would make all of them."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    matplotlib.use("agg")
    monkeypatch.setattr(subprocess, "run", run_here)
    shell = interactive.InteractiveShell(ipython_dir=str(tmp_path))
    for cell in code_cells(path):
        result = shell.run_cell(cell.source)
        assert result.success, capsys.readouterr().out
    matplotlib.pyplot.close("all")


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_its_outputs_are_kept_and_small(path):
    cells = code_cells(path)
    assert path.stat().st_size < LIMIT
    assert any(cell.outputs for cell in cells), (
        "execute the notebook before it is committed: the site shows its outputs"
    )
    errors = [
        one for cell in cells for one in cell.outputs if one.output_type == "error" or one.get("name") == "stderr"
    ]
    assert errors == []
