"""How to add a task and a selector: the files that the pages show are written where they say, and the commands run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs" / "how-to" / f"add-a-{what}.md" for what in ("task", "selector")]  # one builds on the other
PAGE = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
FILES = dict(re.findall(r"^`([\w/.]+)`\n\n```(?:python|yaml)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))


def shown(language: str) -> list[str]:
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return [block for block in blocks if block not in FILES.values()]


COMMANDS = [line.split() for block in shown("bash") for line in block.splitlines()]
# Runs what it is given as `python run.py` and `python -m pytest` would, in one process: imports take seconds, and so
# does drawing, of which the pages say nothing.
DRIVER = """
import contextlib, json, pytest, run, sys
from experiments.report.style import Figure
Figure.png = lambda self, theme: b""
for command in json.loads(sys.argv[1]):
    if command[0] == "run.py":
        sys.argv = command
        run.main()
    elif command[:2] == ["-m", "pytest"]:
        assert pytest.main([*command[2:], "-p", "no:cacheprovider"]) == 0
    else:
        exec(command[0])
"""
SMALL = ["task.size=80", "task.train.steps=20", "experiment.trainings=2", "experiment.tsne_points=40"]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which the pages were followed."""
    root = tmp_path_factory.mktemp("checkout")
    for part in ("conf", "experiments", "tarot", "tasks", "tests"):
        shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("run.py", "pyproject.toml"):
        shutil.copy(ROOT / part, root / part)
    for path, content in FILES.items():
        assert not (root / path).exists(), f"{path} is there without the pages"
        (root / path).write_text(content, encoding="utf-8")
    registry = root / "tarot" / "selectors" / "__init__.py"
    (entry,) = re.findall(r"an import and a line `(.*?)` in `SELECTORS`", PAGE, re.IGNORECASE)
    text, found = re.subn(r"^(SELECTORS.*= {)$", rf"\1\n    {entry}", registry.read_text(), flags=re.MULTILINE)
    assert found == 1
    imports = "from tarot.selectors.nearest_mean import NearestMean\n"
    registry.write_text(text.replace("from tarot.selectors.dsdm", f"{imports}from tarot.selectors.dsdm"))
    return root


def test_the_page_has_what_is_looked_for():
    assert set(FILES) == {
        "tasks/moons.py", "conf/task/moons.yaml", "tarot/selectors/nearest_mean.py", "conf/selector/nearest_mean.yaml",
    }  # fmt: skip
    assert len(shown("python")) == 2 and len(COMMANDS) == 5
    assert all(words[0] == "python" and words[1] in ("run.py", "-m") for words in COMMANDS)


def test_it_runs_as_it_stands(checkout):
    folders = [checkout / "results" / str(number) for number in range(len(COMMANDS))]
    commands = [
        [*words[1:], *SMALL, f"output_dir={folder}"] if words[1] == "run.py" else words[1:]
        for words, folder in zip(COMMANDS, folders, strict=True)
    ]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps([*commands, ["\n".join(shown("python"))]])],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 10, "the contract was not tested"
    for words, folder in zip(COMMANDS, folders, strict=True):
        results = [json.loads(path.read_text()) for path in folder.rglob("metrics.json")]
        assert len(results) == (0 if "pytest" in words else 4 if "-m" in words else 1), words
        for result in results:
            assert result["metrics"]["accuracy"] > 0 and 0 <= result["selection"]["precision"] <= 1
            if "experiment.arms=[random,tarot_fixed]" in words:
                assert set(result["arms"]) == {"random", "tarot_fixed"}
