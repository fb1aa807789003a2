"""How to add a task and a selector: the files that the pages show are written where they say, and the commands run."""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.common.supervised import SupervisedTask
from tasks.task import Task
from tests.experiments import running

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs" / "how-to" / f"add-a-{what}.md" for what in ("task", "selector")]  # one builds on the other
PAGE = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
FILES = dict(re.findall(r"^`([\w/.]+)`\n\n```(?:python|yaml)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))
ENDS = dict(re.findall(r"^`([\w/.]+)`, at its end\n\n```markdown\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))
ROWS = dict(
    re.findall(
        r"^`([\w/.]+)`, among the rows of its table.*\n\n```markdown\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE
    )
)
LINES = re.findall(r"^\| `([\w/.-]+)` \| `(.+?)` \| `(.+?)` \|$", PAGE, re.MULTILINE)  # file, line, the one above it
PROJECT = ("benchmarks", "experiments", "run", "tarot", "tasks", "tests")
TOUCHED = sorted(path for path in {*FILES, *(path for path, _, _ in LINES)} if path.endswith(".py"))


def shown(language: str) -> list[str]:
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return [block for block in blocks if block not in FILES.values()]


COMMANDS = list(dict.fromkeys(tuple(line.split()) for block in shown("bash") for line in block.splitlines()))
# Tests that another command runs as well, when both pages have been followed.
TWICE = [one for one in COMMANDS for other in COMMANDS if "pytest" in one and "-k" not in other and {*one} < {*other}]
SMALL = {
    "task=moons": ["task.size=80", "task.train.steps=20", "experiment.trainings=2", "experiment.tsne_points=40"],
    "task=digits": running.SMALL,
}


def run_in(checkout: Path, commands: list[list[str]], output: Path) -> None:
    """Runs each command as a shell would in the checkout, all in this process, whose own modules of the project are
    forgotten, and prints to `output`: imports take seconds, and so does drawing, of which the pages say nothing."""
    sys.stdout = sys.stderr = output.open("w", buffering=1)
    os.chdir(checkout)
    os.environ.pop("PYTEST_XDIST_WORKER", None)
    logging.getLogger().handlers.clear()
    for name in [name for name in sys.modules if name.partition(".")[0] in PROJECT]:
        del sys.modules[name]
    sys.path.insert(0, str(checkout))
    importlib.import_module("experiments.report.style").Figure.png = lambda self, theme: b""
    run = importlib.import_module("run")
    assert Path(run.__file__).parent == checkout
    for command in commands:
        print(*command)
        if command[:2] == ["python", "run.py"]:
            sys.argv = command[1:]
            with importlib.import_module("tests.experiments.running").composing_once():
                run.main()
        elif command[:3] == ["python", "-m", "pytest"]:
            assert pytest.main([*command[3:], "-p", "no:cacheprovider", "--assert=plain"]) == 0
        elif command == ["lint-imports"]:
            assert importlib.import_module("importlinter.cli").lint_imports(no_logo=True) == 0
        elif command[0] == "ruff":
            subprocess.run([sys.executable, "-m", *command, "--no-cache"], check=True, stdout=sys.stdout)
        else:
            exec(command[0], {})


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which the pages were followed."""
    root = tmp_path_factory.mktemp("checkout")
    for part in ("conf", "docs", *(part for part in PROJECT if part != "run")):
        shutil.copytree(ROOT / part, root / part)  # with what was compiled of it
    for part in ("run.py", "pyproject.toml", ".importlinter"):
        shutil.copy(ROOT / part, root / part)
    for path, content in FILES.items():
        assert not (root / path).exists(), f"{path} is there without the pages"
        (root / path).write_text(content, encoding="utf-8")
    for path, content in ENDS.items():
        with (root / path).open("a", encoding="utf-8") as file:
            file.write(content)
    for path, row in ROWS.items():
        lines = (root / path).read_text(encoding="utf-8").splitlines(keepends=True)
        last = max(number for number, line in enumerate(lines) if line.startswith("| `") and line < row)
        (root / path).write_text("".join([*lines[: last + 1], row, *lines[last + 1 :]]), encoding="utf-8")
    for path, line, above in LINES:
        text = (root / path).read_text(encoding="utf-8")
        text, found = re.subn(rf"^( *){re.escape(above)}$", rf"\g<0>\n\g<1>{line}", text, flags=re.MULTILINE)
        assert found == 1, f"{above} stands {found} times in {path}"
        (root / path).write_text(text, encoding="utf-8")
    return root


def test_the_page_has_what_is_looked_for():
    assert set(FILES) == {
        "tasks/moons.py", "conf/task/moons.yaml", "tarot/selectors/nearest_mean.py", "conf/selector/nearest_mean.yaml",
    }  # fmt: skip
    assert len(shown("python")) == 2 and len(ENDS) == len(ROWS) == 1 and len(LINES) == 4
    runs = [command for command in COMMANDS if command[:2] == ("python", "run.py")]
    assert len(runs) == 3 and all(sum(word in SMALL for word in command) == 1 for command in runs)
    assert len(COMMANDS) == 10 and TWICE == [("python", "-m", "pytest", "tests/test_house.py")]


def test_the_page_names_what_a_task_must_have():
    table = PAGE.partition("## What it must have")[2].partition("## ")[0]
    assert set(re.findall(r"^\| `(\w+)", table, re.MULTILINE)) == SupervisedTask.__abstractmethods__
    others = table.partition("must have `recipe`")[2].partition("in\nplace of")[0]
    either = {"recipe", *re.findall(r"`(\w+)`", others)}
    assert either == Task.__abstractmethods__ - SupervisedTask.__abstractmethods__


@pytest.mark.slow
def test_its_types_hold(checkout):
    pytest.importorskip("mypy")
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=checkout, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_runs_as_it_stands(checkout, tmp_path):
    pytest.importorskip("importlinter")
    folders = [checkout / "results" / str(number) for number in range(len(COMMANDS))]
    commands = []
    for words, folder in zip(COMMANDS, folders, strict=True):
        small = [option for word in words for option in SMALL.get(word, []) if option != word]
        if words[0] == "ruff":  # of what the pages touch; the rest is none of theirs
            words = [file for word in words for file in (TOUCHED if word == "." else [word])]
        if words in TWICE:
            continue
        commands.append([*words, *small, f"output_dir={folder}"] if small else [*words])
    output = tmp_path / "output"
    process = running.process_like_this(run_in, checkout, [*commands, ["\n".join(shown("python"))]], output)
    process.join(900)
    printed = output.read_text()
    assert process.exitcode == 0, printed
    passed = [int(count) for count in re.findall(r"(\d+) passed", printed)]
    assert len(passed) == 3 and min(passed) >= 5, "something was not tested"
    for words, folder in zip(COMMANDS, folders, strict=True):
        results = [json.loads(path.read_text()) for path in folder.rglob("metrics.json")]
        assert len(results) == (0 if "run.py" not in words else 4 if "-m" in words else 1), words
        for result in results:
            assert result["metrics"]["accuracy"] > 0 and 0 <= result["selection"]["precision"] <= 1
            if "experiment.arms=[random,tarot_fixed]" in words:
                assert set(result["arms"]) == {"random", "tarot_fixed"}
