"""What comes with data or with a model is data: no code of it is run, and no line of ours could."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import sys
from pathlib import Path

import pytest

from tarot import InputError
from tests.experiments.running import process_like_this

ROOT = Path(__file__).parents[1]
SOURCES = [ROOT / "run.py"] + [
    path for folder in ("tarot", "tasks", "experiments", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))
]
RUN = ("pickle.load", "pickle.loads", "marshal.load", "marshal.loads", "yaml.load", "yaml.unsafe_load")
TRUSTS = ("weights_only", "allow_pickle", "trust_remote_code")
LOADERS = ("from_pretrained", "from_config")
"""Of transformers' automatic classes: these run a model folder's code where they are let."""
RUNS = {*(name.rpartition(".")[2] for name in RUN), *LOADERS}
"""The last part of every call that runs code unless it is told not to; `torch.load` and `np.load` are among them."""


def _dangers(source: str) -> list[str]:
    """The calls in it by which a file could run code."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module in ("pickle", "marshal", "shelve", "dill", "joblib"):
            found.append(f"from {node.module} import")
        if isinstance(node, ast.Attribute) and node.attr == "Unpickler":
            found.append("Unpickler")
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        given = {word.arg: ast.unparse(word.value) for word in node.keywords if word.arg in TRUSTS}
        if not given and node.func.attr not in RUNS:
            continue
        called = ast.unparse(node.func)
        automatic = called.startswith("Auto") and node.func.attr in LOADERS
        if (
            called in RUN
            or (called == "torch.load" and given.get("weights_only") != "True")
            or (called == "np.load" and "allow_pickle" not in given)
            or (automatic and "trust_remote_code" not in given)
            or given.get("allow_pickle", "False") != "False"
            or given.get("trust_remote_code", "False") != "False"
        ):
            found.append(called)
    return found


def test_every_test_that_the_docs_name_is_there():
    named = (ROOT / "docs" / "trust.md").read_text().partition("## Which test holds what")[2]
    files = {path: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    in_files, in_tests = re.findall(r"`([\w/]*test_\w+\.py)`", named), re.findall(r"`(test_\w+)`", named)
    assert len(in_files) > 20 and len(in_tests) > 10
    for name in in_files:
        assert any(path.as_posix().endswith(f"/{name}") for path in files), name
    for name in in_tests:
        assert any(f"def {name}(" in source for source in files.values()), name


def test_no_file_is_trusted_in_any_source():
    assert len(SOURCES) > 100
    assert {str(path.relative_to(ROOT)): found for path in SOURCES if (found := _dangers(path.read_text()))} == {}


@pytest.mark.parametrize(
    "source",
    [
        "pickle.load(file)",
        "pickle.loads(content)",
        "class A(pickle.Unpickler): pass",
        "from pickle import loads",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.save(path, array, allow_pickle=True)",
        "yaml.load(text)",
        "AutoConfig.from_pretrained(path)",
        "AutoTokenizer.from_pretrained(path, trust_remote_code=True)",
        "AutoModel.from_config(config)",
        "datasets.load_dataset(name, trust_remote_code=True)",
    ],
)
def test_what_the_search_finds(source):
    assert len(_dangers(source)) == 1


def _tokenizer(path: str) -> object:
    from tasks.instruction.tokenizer import load_tokenizer

    return load_tokenizer(path)


def _model(path: str) -> object:
    from tasks.instruction.model import Language

    return Language(path=path).base(100)


LOADS = {"tokenizer": _tokenizer, "model": _model}


def _load_each(folder: Path, said: Path) -> None:
    """A line for each way to load it, in a process that says yes to whatever it is asked."""
    os.chdir(folder.parent)
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder.parent / "home")}
    sys.stdin = io.StringIO("yes\n" * 10)
    for load in LOADS.values():
        try:
            load(str(folder))
        except InputError as error:
            line = f"refused: {error}"
        else:
            line = "read"
        with said.open("a") as file:
            file.write(f"{line}\n")


@pytest.fixture(scope="module")
def hostile_model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder of a model with code, and what came of each way to load it: a line each, in a process that would say yes
    to running the code."""
    place = tmp_path_factory.mktemp("hostile")
    folder = place / "model"
    folder.mkdir()
    (folder / "code.py").write_text(f"open({str(place / 'was_here')!r}, 'w')\nclass A: pass\nB = C = A\n")
    names = {"AutoConfig": "code.A", "AutoModelForCausalLM": "code.B"}
    config = {"model_type": "made_up", "auto_map": names, "architectures": ["B"]}
    (folder / "config.json").write_text(json.dumps(config))
    words = {"tokenizer_class": "C", "auto_map": {"AutoTokenizer": ["code.C", "code.C"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(words))
    said = place / "said.txt"
    process = process_like_this(_load_each, folder, said)
    process.join(timeout=300)
    assert process.exitcode == 0
    lines = said.read_text().splitlines()
    assert len(lines) == len(LOADS), lines
    return folder, dict(zip(LOADS, lines, strict=True))


@pytest.mark.parametrize("what", LOADS)
def test_the_code_of_a_model_folder_is_not_run(hostile_model, what):
    folder, said = hostile_model
    assert not (folder.parent / "was_here").exists()
    assert said[what].startswith("refused:") and str(folder) in said[what]
    assert "trust_remote_code" not in said[what] and "code of its own" in said[what]
