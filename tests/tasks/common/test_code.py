"""The code in a fingerprint: what makes a result counts, and nothing else does."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tarot.gradients import GradientFeatures
from tarot.selection import SelectionProblem
from tarot.selectors import SELECTORS
from tasks.classification.digits import Digits
from tasks.common import code
from tests.experiments.running import ROOT

FILES = {
    "mine/__init__.py": "from mine.loss import loss\nfrom mine.unrelated import other\n",
    "mine/loss.py": '''
        """A loss."""
        import math
        from mine import constants
        from mine.names import Name

        def loss(x: Name) -> Name:
            """Of x."""
            return constants.SCALE * x  # times
        ''',
    "mine/constants.py": "SCALE = 2\nKINDS = {'b', 'a', 'c'}\nisin = 'a' in {'x', 'y', 'z'}\n",
    "mine/names.py": "Name = float\n",
    "mine/unrelated.py": "def other():\n    return 1\n",
    "task.py": "import mine\n\nclass Task:\n    def losses(self, x):\n        return mine.loss(x)\n",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    return tmp_path


def of(project: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """As in a new process, of a user's task outside of the project."""
    monkeypatch.syspath_prepend(str(project))
    for name in [name for name in sys.modules if name.split(".")[0] in ("task", "mine")]:
        monkeypatch.delitem(sys.modules, name)
    for remembered in (code._hash, code._module, code._file, code._top):
        remembered.cache_clear()
    return code.source_hash(importlib.import_module("task").Task())


def in_a_process(project: Path, **environment: str) -> str:
    script = "import task; from tasks.common.code import source_hash; print(source_hash(task.Task()))"
    path = {"PYTHONPATH": f"{project}{os.pathsep}{ROOT}", **environment}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=project, env={**os.environ, **path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def edit(project: Path, name: str, old: str, new: str) -> None:
    file = project / name
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def test_what_a_users_task_is_made_of_counts(project, monkeypatch):
    """Its own module and what that uses, behind the door of a folder."""
    seen = [of(project, monkeypatch)]
    for name, old, new in (
        ("task.py", "losses", "loss_of"),
        ("mine/loss.py", "constants.SCALE * x", "constants.SCALE + x"),
        ("mine/constants.py", "SCALE = 2", "SCALE = 3"),
    ):
        edit(project, name, old, new)
        seen.append(of(project, monkeypatch))
    assert len(set(seen)) == 4


def test_comments_docstrings_formatting_and_what_is_unrelated_do_not(project, monkeypatch):
    before = of(project, monkeypatch)
    edit(project, "mine/loss.py", "# times", "")
    edit(project, "mine/loss.py", '"""Of x."""', '"""Of any x."""')
    edit(project, "mine/loss.py", '"""A loss."""', "# the loss\n\n")
    edit(project, "mine/constants.py", "SCALE = 2", "SCALE  =  (2)")
    edit(project, "mine/unrelated.py", "return 1", "return 2")
    edit(project, "mine/names.py", "float", "int")  # for annotations alone
    assert of(project, monkeypatch) == before


def test_two_processes_agree(project, monkeypatch):
    """Whatever the order of their sets, and whether what was found out is kept beside Python's own files."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    found = of(project, monkeypatch)  # this process, whose hashes have another seed
    notes = list(project.rglob("*.uses.json"))
    assert {note.name.split(".")[0] for note in notes} == {"task", "__init__", "loss", "constants"}
    for note in notes:  # what is damaged is not believed
        note.write_text(note.read_text().replace("mine.constants", "mine.unrelated"))
    assert in_a_process(project, PYTHONHASHSEED="2", PYTHONDONTWRITEBYTECODE="1", PYTHONPYCACHEPREFIX="") == found


def test_a_stage_depends_on_its_own_modules():
    task, rows, space = code.closure(Digits), code.closure(GradientFeatures), code.closure(SelectionProblem)
    assert {"tasks.classification.digits", "tasks.classification.task", "tasks.common.training"} <= set(task)
    assert {"tarot.gradients.per_sample", "tarot.gradients.projection"} <= set(rows)
    assert {"tarot.space.whitening", "tarot.transport.exact"} <= set(space)
    elsewhere = ("experiments.", "tarot.transport", "tarot.selectors", "tarot.space", "tasks.motion")
    assert not [name for name in (*task, *rows) if name.startswith(elsewhere)]
    one = code.closure(SELECTORS["tarot_fixed"])
    assert "tarot.selectors.tarot_fixed" in one and not {"tarot.selectors.less", "tarot.selectors.lava"} & set(one)


def test_selectors_do_not_depend_on_one_another():
    hashes = {name: code.source_hash(SELECTORS[name]) for name in ("tarot_fixed", "less", "random", "lava")}
    assert len(set(hashes.values())) == 4


def test_every_module_of_a_closure_is_imported_by_it():
    """No name leads to a module that is not there."""
    for kind in (Digits, GradientFeatures, SelectionProblem):
        for name in code.closure(kind):
            assert name in sys.modules, name


def test_it_takes_a_moment():
    code._hash.cache_clear()
    code._module.cache_clear()
    start = time.process_time()
    code.source_hash(Digits)
    assert time.process_time() - start < 1
    start = time.process_time()
    for _ in range(100):
        code.source_hash(Digits)
    assert time.process_time() - start < 0.05
