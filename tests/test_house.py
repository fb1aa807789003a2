"""The house: rooms are entered by their doors, a name means one thing, and no module is too long to read at a sitting.

A room is a folder. Its door, `__init__.py`, names in `__all__` what may be used from outside; the rest is its own
affair. Tests are of the rooms' own modules and go where they like. Which room may use which: `.importlinter`.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("tarot", "tasks", "experiments")
BENCHMARKS = "benchmarks"
LONGEST = 450  # lines

# A folder whose modules are used from outside by their own names, and why.
WITHOUT_A_DOOR = {
    "experiments.command": "a door would bring everything where a part is asked for before the rest can be imported",
    "experiments.frame": "loggers and comparisons are named by configs, and what experiments use by its module's name",
    "tarot.integrations": "each of its modules imports another library, which a door would import, too",
    "tasks.common": "its modules have nothing in common but that several tasks use them",
}
_BY_MODULE = "its functions say what they draw by their module's name"
# (who, what): what is imported past a door, and why.
PAST_THE_DOOR = {
    ("benchmarks", "tasks"): "parts of a task are measured that nobody else uses",
    ("experiments", "tasks.features.task"): "the task of a user's features is known to the stages",
    ("experiments.corruption", "tasks.classification.corruption"): "this experiment is of these tasks alone",
    ("experiments.corruption", "tasks.classification.domain_task"): "this experiment is of these tasks alone",
    (
        "experiments.frame.compare",
        "experiments.report.figures",
    ): _BY_MODULE,
    ("experiments.lds", "experiments.report.figures"): _BY_MODULE,
    ("experiments.paper", "experiments.report.figures"): _BY_MODULE,
    ("experiments.selection", "experiments.report.figures"): _BY_MODULE,
    ("experiments.selection", "experiments.report.pictures"): _BY_MODULE,
    ("experiments.submission", "tasks.motion.submission"): "this experiment is of this task alone",
    ("conf", "tasks.classification.folders"): "torchvision takes seconds to import; other tasks do without",
    (
        "conf",
        "tasks.classification.clothing1m",
    ): "torchvision takes seconds to import; other tasks do without",
}
# A module whose name is that of another module or folder of the engine, and why it is one meaning.
TWICE = {
    "influence": "the selector `influence` chooses by what the folder computes",
    "options": "options of a class, which are its fields: what they may be, and what selectors' are",
    "scores": "scores [N, M] of every candidate for every target, by attribution and by influence functions",
    "selection": "the folder is called after its main class",
}
TOO_LONG = {"tasks/common/safe_pickle/machine.py": "one interpreter: a short method for every opcode"}


class Import(NamedTuple):
    """`name` is taken from `module` in the module `user`; name: None where the module itself is imported."""

    user: str
    module: str
    name: str | None


def named(file: Path) -> str:
    """A file's name as a module."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {named(file): file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))}
USERS = {**FILES, **{named(file): file for file in [ROOT / "run.py", *sorted((ROOT / BENCHMARKS).glob("*.py"))]}}
FOLDERS = {name for name, file in FILES.items() if file.name == "__init__.py"} - set(PACKAGES)
ROOMS = sorted(FOLDERS - set(WITHOUT_A_DOOR))


@cache
def tree(user: str) -> ast.Module:
    """Of a module: parsing all of them takes a second, which not every process that collects tests has to spend."""
    return ast.parse(USERS[user].read_text(encoding="utf-8"))


def is_in(module: str, room: str) -> bool:
    return module == room or module.startswith(room + ".")


def of_tree(user: str, tree: ast.AST) -> Iterator[Import]:
    """Imports of our own modules, at the top and in functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Import(user, alias.name, None) for alias in node.names if alias.name in FILES)
        elif isinstance(node, ast.ImportFrom) and node.module in FILES:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield Import(user, inner, None) if inner in FILES else Import(user, node.module, alias.name)


def of_configs() -> Iterator[Import]:
    """What configs name, such as `_target_: tarot.selectors.Less`."""
    for file in sorted((ROOT / "conf").rglob("*.yaml")):
        for module, name in re.findall(r"_target_: ([\w.]+)\.(\w+)", file.read_text(encoding="utf-8")):
            if module.partition(".")[0] in PACKAGES:
                yield Import("conf", module, name)


@cache
def imports() -> list[Import]:
    return [*(one for user in USERS for one in of_tree(user, tree(user))), *of_configs()]


def past_the_door(one: Import) -> bool:
    return any(is_in(one.module, room) and one.module != room and not is_in(one.user, room) for room in ROOMS)


def door(room: str) -> list[str] | None:
    """What a room's `__all__` lists, or None where it has none."""
    for node in tree(room).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return None


@cache
def defined(module: str) -> set[str]:
    """The names at the top of a module, those that it imports among them."""
    found: set[str] = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def test_every_room_has_a_door():
    assert [room for room in ROOMS if door(room) is None] == []
    assert [folder for folder in WITHOUT_A_DOOR if door(folder) is not None] == [], "it has a door after all"


def test_rooms_are_entered_by_their_doors():
    past = [one for one in imports() if past_the_door(one)]
    excused = {
        one: key for one in past for key in PAST_THE_DOOR if is_in(one.user, key[0]) and is_in(one.module, key[1])
    }
    assert [one for one in past if one not in excused] == []
    assert set(PAST_THE_DOOR) - set(excused.values()) == set(), "an exception that nobody needs"


@pytest.mark.parametrize("room", ROOMS)
def test_a_door_names_what_is_used_from_outside_and_nothing_else(room):
    used = {one.name for one in imports() if one.module == room and one.name and not is_in(one.user, room)}
    names = door(room)
    assert used - set(names) == set(), "used from outside, not named"
    assert set(names) - used == set(), "named, not used from outside"
    assert len(set(names)) == len(names)


def test_what_is_imported_is_there():
    """Of benchmarks too, which no test runs and no checker of types reads."""
    absent = [one for one in imports() if one.name and one.name not in defined(one.module)]
    assert absent == []


def test_a_name_means_one_thing():
    places = defaultdict(list)
    for name, file in FILES.items():
        if is_in(name, "tarot") and file.name != "__main__.py":
            places[name.rpartition(".")[2]].append(name)
    assert {name for name, of in places.items() if len(of) > 1} == set(TWICE)


def test_only_doors_list_names():
    """A module that hands on what another has is a second way to it."""
    assigned = {
        name: {ast.unparse(node.targets[0]) for node in tree(name).body if isinstance(node, ast.Assign)}
        for name in USERS
    }
    listing = {name for name, names in assigned.items() if "__all__" in names}
    doors = {name for name in listing if name in FOLDERS | set(PACKAGES)}
    assert listing - doors == {"tarot.integrations.transformers"}  # the door of its library


def test_modules_can_be_read_at_a_sitting():
    lines = {file.relative_to(ROOT).as_posix(): len(file.read_bytes().splitlines()) for file in FILES.values()}
    assert {file for file, length in lines.items() if length > LONGEST} == set(TOO_LONG)


def test_an_import_past_a_door_is_seen():
    code = "def f():\n    from tarot.features.store import StoreError\n    from tarot.features import StoreError\n"
    deep, right = of_tree("tasks.task", ast.parse(code))
    assert past_the_door(deep) and not past_the_door(right)
    assert not past_the_door(deep._replace(user="tarot.features.readers"))
    assert past_the_door(Import("conf", "tarot.selectors.less", "Less"))


def private_names_patched(tree: ast.AST) -> list[str]:
    """What `monkeypatch.setattr(..., "_name", ...)` and `patch("module._name")` take from others."""
    return [
        word.value
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func).rpartition(".")[2] in {"setattr", "delattr", "patch"}
        for word in call.args[:2]
        if isinstance(word, ast.Constant) and re.search(r"(^|\.)_[A-Za-z]\w*$", str(word.value))
    ]


def test_tests_patch_no_private_name():
    """What a test has to change, its user may have to: it is a seam, and has a name."""
    texts = {file.relative_to(ROOT).as_posix(): file.read_text("utf-8") for file in (ROOT / "tests").rglob("*.py")}
    patching = {file: text for file, text in texts.items() if re.search(r"(setattr|delattr|patch)\(", text)}
    found = {file: private_names_patched(ast.parse(text)) for file, text in patching.items()}
    assert {file: names for file, names in found.items() if names} == {}
    assert private_names_patched(ast.parse("m.setattr(a, '_b', 1); m.setattr('a._B', 1); m.setattr(a, 'b_c', 1)")) == [
        "_b",
        "a._B",
    ]
