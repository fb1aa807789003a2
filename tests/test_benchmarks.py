"""Benchmarks are run by hand; that what they import is there is known before."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("tarot", "tasks", "experiments")


def imports(path: Path) -> list[tuple[str, str]]:
    """(module, name) of all that is imported from the project's own packages."""
    found = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    return [(str(node.module), name.name) for node in found for name in node.names if _ours(node)]


def _ours(node: ast.ImportFrom) -> bool:
    return node.level == 0 and str(node.module).partition(".")[0] in OURS


def missing(path: Path) -> list[str]:
    """Those of them that are neither in the module nor modules themselves."""
    return [
        f"{module}.{name}" for module, name in imports(path) if not hasattr(__import__(module, fromlist=[name]), name)
    ]


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_a_benchmark_imports_what_there_is(path):
    assert not missing(path)


def test_benchmarks_measure_the_project():
    assert sum(bool(imports(path)) for path in (ROOT / "benchmarks").glob("*.py")) > 10


def test_what_is_not_there_is_found(tmp_path):
    path = tmp_path / "benchmark.py"
    path.write_text("from tasks.classification.subset_models import subset_masks, train_one\n")
    assert missing(path) == ["tasks.classification.subset_models.subset_masks"]
