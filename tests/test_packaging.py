"""What is imported is declared, the engine stands alone, and its import is light."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

import tarot

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
OURS = {
    "tarot",
    "tasks",
    "experiments",
    "tests",
    "run",
    "benchmarks",
    *(file.stem for file in (ROOT / "benchmarks").glob("*.py")),
}
DISTRIBUTIONS = {  # of modules that are called otherwise
    "PIL": "pillow",
    "griffe": "griffelib",
    "hydra": "hydra-core",
    "hydra_plugins": "hydra-joblib-launcher",
    "lm_eval": "lm-eval",
    "importlinter": "import-linter",
    "ot": "pot",
    "sklearn": "scikit-learn",
    "trak": "traker",
    "yaml": "pyyaml",
}

ELSEWHERE = {"axolotl", "llamafactory"}  # their pins leave no room for ours: they are tested where they alone are


def declared(*requirements: str) -> set[str]:
    """The distributions of some requirements, those of the project's own extras among them."""
    found: set[str] = set()
    for requirement in requirements:
        name, extras = re.match(r"([\w.-]+)(?:\[([\w,-]+)\])?", requirement).groups()
        if name == PROJECT["name"]:
            found |= declared(*(item for extra in extras.split(",") for item in EXTRAS[extra]))
        else:
            found.add(name.lower().replace("_", "-"))
    return found


def imported(*places: str) -> dict[str, str]:
    """Distribution -> a file that imports it: at its top, in a function, or as the name that `find_spec` looks for."""
    found: dict[str, str] = {}
    for file in (file for place in places for file in sorted(python_files(ROOT / place))):
        for module in modules(ast.parse(file.read_text(encoding="utf-8"))):
            top = module.partition(".")[0]
            if top not in OURS | set(sys.stdlib_module_names):
                found.setdefault(DISTRIBUTIONS.get(top, top).lower().replace("_", "-"), str(file.relative_to(ROOT)))
    return found


def python_files(place: Path) -> Iterator[Path]:
    return place.rglob("*.py") if place.is_dir() else iter([place])


def modules(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module
        elif isinstance(node, ast.Call) and name_of(node.func) in ("find_spec", "importorskip"):
            yield from (name.value for name in node.args[:1] if isinstance(name, ast.Constant))


def name_of(function: ast.expr) -> str | None:
    """The last part of what is called."""
    return getattr(function, "attr", None) or getattr(function, "id", None)


ENGINE = declared(*PROJECT["dependencies"])


def test_the_engine_imports_what_it_declares_and_declares_no_more():
    assert set(imported("tarot")) - declared("tarot-select[ray,trak,transformers]") == ENGINE
    assert len(ENGINE) <= 10


def test_the_readme_counts_the_dependencies():
    number = {8: "eight", 9: "nine", 10: "ten"}[len(ENGINE)]
    assert f"{number} dependencies" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    ("places", "extras"),
    [
        (("run.py", "experiments", "tasks"), "tasks,instruction,wandb,sentence,timm"),
        (("tests", "benchmarks"), "dev,instruction,launchers,benchmarks,timm"),
    ],
)
def test_everything_imported_is_declared(places, extras):
    undeclared = set(imported(*places)) - ENGINE - declared(f"tarot-select[{extras}]") - ELSEWHERE
    assert not undeclared, {name: imported(*places)[name] for name in undeclared}


def test_an_import_that_nothing_declares_is_found():
    tree = ast.parse("def f():\n    from nowhere.at_all import x\nimport importlib\nimportlib.util.find_spec('hidden')")
    assert {"nowhere.at_all", "hidden"} <= set(modules(tree))


def test_the_first_command_needs_only_its_extra():
    """`run.py` imports nothing at its top that the extra `tasks` does not bring."""
    optional = declared("tarot-select[instruction,wandb,sentence,timm,dev]") - declared("tarot-select[tasks]") - ENGINE
    for file in (file for place in ("run.py", "experiments", "tasks") for file in python_files(ROOT / place)):
        top = ast.Module([node for node in ast.parse(file.read_text()).body if "Import" in type(node).__name__], [])
        names = {module.partition(".")[0] for module in modules(top)}
        assert not optional & {DISTRIBUTIONS.get(name, name) for name in names}, file


def test_constraints_pin_what_the_readme_installs():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.partition("==")[0].lower() for line in lines if line and not line.startswith("#")}
    assert declared("tarot-select[dev,launchers]") | ENGINE <= pinned


def test_version_and_public_names():
    assert tarot.__version__ == version("tarot-select") == PROJECT["version"]
    assert all(hasattr(tarot, name) for name in tarot.__all__) and len(set(tarot.__all__)) == len(tarot.__all__)
    undocumented = [name for name in tarot.__all__ if name != "__version__" and not getattr(tarot, name).__doc__]
    assert not undocumented
    assert (Path(tarot.__file__).parent / "py.typed").exists()


def test_the_wheel_holds_the_engine_and_its_command_alone(tmp_path):
    source = tmp_path / "source"  # a build leaves things behind
    shutil.copytree(ROOT / "tarot", source / "tarot", ignore=shutil.ignore_patterns("__pycache__"))
    for place in ("tasks", "experiments", "conf"):
        (source / place).mkdir()
    for file in ("pyproject.toml", "README.md", "LICENSE", "run.py"):
        shutil.copy(ROOT / file, source)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = (archive.read(name).decode() for name in names if name.endswith("entry_points.txt"))
    engine = {str(file.relative_to(ROOT)) for file in (ROOT / "tarot").rglob("*.py")}
    assert {name for name in names if ".dist-info/" not in name} == engine | {"tarot/py.typed"}
    assert entry_points.split() == ["[console_scripts]", "tarot", "=", "tarot.cli:main"]
