"""Which code makes a result, for fingerprints: the modules of the project, or of the user, that it is made of.

What a class or a function is made of is its module and, one after another, the modules that these use. A door is looked
through: `from tarot.features import FeatureStore` is a use of the module that defines it, not of the room. What is
imported for annotations alone is not used. Comments, docstrings and formatting do not count.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import inspect
import json
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from tarot.common import atomic_file

OURS = ("tarot", "tasks", "experiments")
WITHOUT_EFFECT = {
    *(f"tarot.common.{name}" for name in ("errors", "files", "fingerprints", "locks", "options", "progress_bars")),
    *(f"tarot.workers.{name}" for name in ("given_up", "in_order", "in_process", "protocol", "threads")),
    *(f"tarot.workers.{name}" for name in ("on_ray", "process")),
    *(f"tasks.common.{name}" for name in ("cache", "code", "contents")),
}
"""Modules that refuse, name, write, read and hand out results, and change none."""
_INSTALLED = tuple(
    str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "platstdlib", "purelib", "platlib")
)


_SELF = hashlib.sha256(Path(__file__).read_bytes()).digest()  # what is found out depends on how


class Use(NamedTuple):
    """A name of a module; None: all of it."""

    module: str
    name: str | None


@dataclass(frozen=True)
class Module:
    """digest: of its code. uses: of other modules, outside of annotations. imports: where names that it imports come
    from. defined: names that it defines itself. door: whether it is a folder's."""

    digest: str
    uses: frozenset[Use]
    imports: dict[str, Use]
    defined: frozenset[str]
    door: bool


def source_hash(*roots: Any, alone: tuple[str, ...] = ()) -> str:
    """16 hexadecimal digits for the code of these classes and functions, or of the types of these objects, and of all
    that they use. alone: modules of which their own code counts and not what they use."""
    kinds = [root if inspect.isroutine(root) or isinstance(root, type | ModuleType) else type(root) for root in roots]
    return _hash(tuple(dict.fromkeys(kinds)), alone)


def parts_of(owner: Any, depth: int = 2) -> list[type]:
    """The class of an object and those of its attributes and of theirs: what somebody chose to build it from."""
    found = [type(owner)]
    if depth:
        for name, value in getattr(owner, "__dict__", {}).items():
            later = isinstance(inspect.getattr_static(type(owner), name, None), cached_property)  # not always there
            if not later and _file(type(value).__module__) is not None:
                found += parts_of(value, depth - 1)
    return list(dict.fromkeys(found))


@cache
def _hash(kinds: tuple[Any, ...], alone: tuple[str, ...]) -> str:
    nameless: list[str] = []
    modules: list[str] = []
    for kind in kinds:
        for base in inspect.getmro(kind) if isinstance(kind, type) else [kind]:
            module = base.__name__ if isinstance(base, ModuleType) else getattr(base, "__module__", None) or ""
            if _file(module) is not None:
                modules.append(module)
            elif module == "__main__":
                nameless.append(_typed(base))
    known = {name: read.digest for name, read in _used(modules).items()}
    for name in alone:
        read = _module(name)
        assert read is not None, name
        known.setdefault(name, read.digest)
    return hashlib.sha256(repr((sorted(known.items()), sorted(nameless))).encode()).hexdigest()[:16]


def closure(*roots: Any) -> list[str]:
    """The modules that `source_hash` reads, for those who wonder."""
    kinds = [root for kind in roots for root in (inspect.getmro(kind) if isinstance(kind, type) else [kind])]
    return sorted(_used([kind.__module__ for kind in kinds]))


def _used(names: Iterable[str]) -> dict[str, Module]:
    """These modules and all that they use, but for those without effect and those that are not read."""
    found: dict[str, Module] = {}
    todo = [*names]
    while todo:
        name = todo.pop()
        if name not in found and name not in WITHOUT_EFFECT and (read := _module(name)) is not None:
            found[name] = read
            todo += [module for use in read.uses for module in _modules_of(use)]
    return found


def _modules_of(use: Use) -> Iterator[str]:
    """The module in which a name is defined, behind all doors."""
    seen = set()
    while use not in seen:
        seen.add(use)
        module = _module(use.module)
        if module is None:
            return
        if use.name in module.imports and use.name not in module.defined:
            use = module.imports[use.name]
        elif use.name is None or use.name in module.defined or _file(f"{use.module}.{use.name}") is None:
            yield use.module
            if use.name is None and module.door:
                for behind in module.imports.values():
                    yield from _modules_of(behind)
            return
        else:
            use = Use(f"{use.module}.{use.name}", None)


# --- one module ------------------------------------------------------------------------------------------------------


@cache
def _file(name: str) -> Path | None:
    """The source of a module that is the project's own or the user's; None for what is installed or built in."""
    top, *rest = name.split(".")
    first = _top(top) if top else None
    if first is None or not rest:
        return first
    loaded = getattr(sys.modules.get(name), "__file__", None)
    if loaded is not None:
        return Path(loaded) if loaded.endswith(".py") else None
    if first.name != "__init__.py":
        return None
    inner = first.parent.joinpath(*rest)
    return next((path for path in (inner / "__init__.py", inner.with_name(f"{inner.name}.py")) if path.is_file()), None)


@cache
def _top(name: str) -> Path | None:
    """The same of a package's door, or of a module that is in no package."""
    if name in sys.builtin_module_names or name in sys.stdlib_module_names:
        return None
    where = getattr(sys.modules.get(name), "__file__", None)
    if where is None:
        spec = None if name in sys.modules else importlib.util.find_spec(name)
        where = spec.origin if spec is not None and spec.has_location else None
    if where is None or not where.endswith(".py"):
        return None
    return Path(where) if name in OURS or not str(Path(where).resolve()).startswith(_INSTALLED) else None


@cache
def _module(name: str) -> Module | None:
    file = _file(name)
    if file is None:
        return None
    try:
        source = file.read_bytes()
        known = hashlib.sha256(b"%d.%d " % sys.version_info[:2] + name.encode() + b" " + _SELF + source).hexdigest()
        beside = Path(importlib.util.cache_from_source(str(file))).with_suffix(".uses.json")
        return _noted(beside, known) or _note(beside, known, _parsed(name, file, source))
    except (OSError, SyntaxError, ValueError):  # gone since it was imported, or a notebook's magic
        return None


def _noted(path: Path, known: str) -> Module | None:
    """What was found out about a module before: parsing forty of them takes a second, reading this a moment."""
    try:
        noted = json.loads(path.read_bytes())
        if noted["known"] != known or noted["checksum"] != _checksum(noted["module"]):
            return None
        digest, uses, imports, defined, door = noted["module"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Module(
        digest,
        frozenset(Use(*use) for use in uses),
        {word: Use(*use) for word, use in imports.items()},
        frozenset(defined),
        door,
    )


def _note(path: Path, known: str, module: Module) -> Module:
    """Where Python keeps its own, and where it may."""
    plain = [module.digest, sorted(module.uses, key=repr), module.imports, sorted(module.defined), module.door]
    if not sys.dont_write_bytecode:
        with contextlib.suppress(OSError), atomic_file(path) as temporary:
            temporary.write_text(json.dumps({"known": known, "checksum": _checksum(plain), "module": plain}))
    return module


def _checksum(plain: Any) -> str:
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()


def _parsed(name: str, file: Path, source: bytes) -> Module:
    tree = ast.parse(source)
    door = file.name == "__init__.py"
    words = _Words(name if door else name.rpartition(".")[0], {}, set(), {})
    words.visit(tree)
    uses = set()
    for word, use in words.imports.items():
        if word in words.read or word.startswith("*") or (use.name and word in words.attributes):
            uses.add(use)
        elif word in words.attributes:  # a module of which names are used
            uses |= {Use(use.module, attribute) for attribute in words.attributes[word]}
    digest = hashlib.sha256(ast.dump(tree, annotate_fields=False).encode(errors="backslashreplace")).hexdigest()
    return Module(digest, frozenset(uses), words.imports, frozenset(_defined(tree)), door)


@dataclass
class _Words:
    """What a module's tree says of names. imports: name -> what it is, those inside of functions among them. read:
    names that are read by themselves, outside of annotations. attributes: those of which attributes are read, and
    which."""

    package: str
    imports: dict[str, Use]
    read: set[str]
    attributes: dict[str, set[str]]

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            self.attributes.setdefault(node.value.id, set()).add(node.attr)
            return
        if isinstance(node, ast.Name):
            self.read.add(node.id)
            return
        if isinstance(node, ast.Import):
            for alias in node.names:  # `import a.b` gives the name a, and is a use of a.b
                name = f"*{alias.name}" if alias.asname is None and "." in alias.name else alias.asname or alias.name
                self.imports[name] = Use(alias.name, None)
            return
        if isinstance(node, ast.ImportFrom):
            self.imports |= dict(self._taken(node))
            return
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = _without_docstring(node.body)
        for field in node._fields:
            value = getattr(node, field, None)
            if field not in ("annotation", "returns"):
                for child in value if isinstance(value, list) else (value,):
                    if isinstance(child, ast.AST):
                        self.visit(child)

    def _taken(self, node: ast.ImportFrom) -> Iterator[tuple[str, Use]]:
        module = node.module or ""
        if node.level:
            above = self.package.split(".")
            module = ".".join([*above[: len(above) - node.level + 1], *([module] if module else [])])
        if _top(module.partition(".")[0]) is None:
            return
        for alias in node.names:
            yield (
                (f"*{module}", Use(module, None))
                if alias.name == "*"
                else (
                    alias.asname or alias.name,
                    Use(module, alias.name),
                )
            )


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0].value if body and isinstance(body[0], ast.Expr) else None
    return body[1:] if isinstance(first, ast.Constant) and isinstance(first.value, str) else body


def _defined(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                yield from (word.id for word in ast.walk(target) if isinstance(word, ast.Name))


def _typed(kind: Any) -> str:
    """The source of what was typed at a prompt or in a notebook, as far as it is known."""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return getattr(kind, "__qualname__", "")
