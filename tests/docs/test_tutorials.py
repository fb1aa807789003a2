"""The tutorials run from top to bottom without an error."""

from __future__ import annotations

import os

import pytest

import tarot
from tests.docs.pages import ROOT, TUTORIALS, notebook_code

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

LIMIT = 300_000  # bytes of a notebook with its outputs


def test_there_are_tutorials():
    assert {path.stem for path in TUTORIALS} == {"features", "model", "jsonl"}


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs(path, monkeypatch):
    if "tarot.featurize" in notebook_code(path) and not hasattr(tarot, "featurize"):
        pytest.skip("tarot.featurize is not there")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(ROOT)}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_its_outputs_are_kept_and_small(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert path.stat().st_size < LIMIT
    assert any(cell.outputs for cell in cells), (
        "execute the notebook before it is committed: the site shows its outputs"
    )
    errors = [
        one for cell in cells for one in cell.outputs if one.output_type == "error" or one.get("name") == "stderr"
    ]
    assert errors == []
