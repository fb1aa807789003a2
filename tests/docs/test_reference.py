"""Every public name has a docstring, an entry in the reference, and a place in a tutorial or a how-to page."""

from __future__ import annotations

import inspect
import re

import pytest

import tarot
from tests.docs.pages import DOCS, HOW_TO, REFERENCE, ROOT, TUTORIALS

METHODS = {kind.__name__: kind for kind in tarot.selectors.SELECTORS.values()}
PUBLIC = {
    **{f"tarot.{name}": getattr(tarot, name) for name in tarot.__all__},
    **{f"tarot.selectors.{name}": kind for name, kind in METHODS.items()},
}
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in REFERENCE)
ENTRIES = set(re.findall(r"^::: ([\w.]+)$", TEXT, re.MULTILINE))
TAUGHT = "\n".join(page.read_text(encoding="utf-8") for page in [*HOW_TO, *TUTORIALS])


def is_plain(value: object) -> bool:
    """A string such as `__version__`, or a type alias, neither of which has a docstring."""
    return not (inspect.isclass(value) or inspect.isroutine(value) or inspect.ismodule(value))


def test_every_public_name_has_an_entry():
    described = {name for name, value in PUBLIC.items() if is_plain(value) and f"`{name}`" in TEXT}
    absent = sorted(PUBLIC.keys() - ENTRIES - described)
    assert not absent, f"docs/reference has no entry (`::: {absent[0]}`) of {absent}"


def test_every_entry_is_of_a_public_name():
    assert sorted(ENTRIES - PUBLIC.keys()) == []


def test_every_public_name_appears_in_a_tutorial_or_a_how_to():
    absent = [name for name in PUBLIC if not re.search(rf"(?<!\w){re.escape(_as_used(name))}(?!\w)", TAUGHT)]
    assert not absent, f"no page of docs/how-to or docs/tutorials says how to use {sorted(absent)}"


def test_every_public_name_has_a_docstring():
    silent = [name for name, value in PUBLIC.items() if not is_plain(value) and not _own_docstring(value)]
    assert sorted(silent) == []


def test_entries_are_found_as_what_they_are():
    griffe = pytest.importorskip("griffe")
    extensions = griffe.load_extensions(str(DOCS / "tools" / "docstrings.py"))
    package = griffe.load("tarot", search_paths=[str(ROOT)], extensions=extensions, resolve_aliases=True)
    for name in ENTRIES:
        found, value = package[name.removeprefix("tarot.")], PUBLIC[name]
        kinds = (inspect.isclass(value), inspect.isroutine(value), inspect.ismodule(value))
        assert (found.is_class, found.is_function, found.is_module) == kinds, name


def _as_used(name: str) -> str:
    """`tarot.select` as it stands in code, `selectors.Less` as after `from tarot import selectors`."""
    return name.removeprefix("tarot.") if name.startswith("tarot.selectors.") else name


def _own_docstring(value: object) -> str | None:
    """Not the one that dataclasses or a base class would give."""
    text = vars(value).get("__doc__") if inspect.isclass(value) else inspect.getdoc(value)
    return None if text and inspect.isclass(value) and text.startswith(f"{value.__name__}(") else text
