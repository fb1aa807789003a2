"""Docstrings as a page shows them: every argument that a paragraph explains becomes an item of a list.

The project's docstrings explain arguments in running text, `name, name [shape]: what it is.`, so that they read well in
an editor. On a page each starts a line of its own.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_CLOSING = re.compile(r"(?<=[.;]) (?=(?:Raises|Returns) )")  # what is said of the whole, not of the last argument
_SHAPE = r"(?:\([^)]*\) -> [^:,]+)?(?: \[[^\]]*\])?(?: \([^)]*\))?"  # losses(model, batch) -> [B]; labels [N] (ours)


def listed(text: str, names: set[str]) -> str:
    """The text, with an item for each explanation of some of `names`."""
    if not names:
        return text
    name = rf"(?:{'|'.join(map(re.escape, sorted(names, key=len, reverse=True)))}){_SHAPE}"
    explained = re.compile(rf"(?:^|(?<=[.;!?] ))({name}(?:(?:, | and ){name})*): ")
    return "\n\n".join(_paragraph(paragraph, explained) for paragraph in text.split("\n\n"))


def _paragraph(paragraph: str, explained: re.Pattern[str]) -> str:
    lines = [line.strip() for line in paragraph.split("\n")]
    if any(line.startswith(("- ", "* ", "|", "`" * 3)) for line in lines):
        return paragraph
    before, *parts = explained.split(" ".join(lines))
    if not parts:
        return paragraph
    items, closing = [], []
    for head, body in zip(parts[::2], parts[1::2], strict=True):
        body, *results = _CLOSING.split(body.strip())
        items.append(f"- **{head}**: {body}")
        closing += results
    return "\n\n".join(filter(None, [before.strip(), "\n".join(items), *closing]))


class Explained(griffe.Extension):
    """Rewrites the docstrings of functions and classes. Where a package gives a function the name of the module it
    comes from, the name is the function's, as it is for those who import it. A function that `_asking` gives the
    arguments of another is shown with them."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        for name, origin in pkg.imports.items():
            module = pkg.members.get(name)
            if isinstance(module, griffe.Module) and origin.startswith(f"{module.path}."):
                for other, path in pkg.imports.items():
                    if path.startswith(f"{module.path}."):
                        source = module.members[path.removeprefix(f"{module.path}.")]
                        pkg.members[other] = griffe.Alias(other, source, parent=pkg)

    def on_module(self, *, mod: griffe.Module, **_: Any) -> None:
        own = {name: function for name, function in mod.functions.items() if not function.is_alias}
        for function in own.values():
            for decorator in function.decorators:
                asked = re.fullmatch(r"_asking\((\w+)\)", str(decorator.value))
                if asked is not None:
                    function.parameters = own[asked[1]].parameters
                    function.decorators = []

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None and (obj.is_function or obj.is_class):
            obj.docstring.value = listed(obj.docstring.value, _names(obj))


def _names(obj: griffe.Object) -> set[str]:
    if obj.is_function:
        return {parameter.name for parameter in obj.parameters} - {"self", "cls"}
    constructor = obj.members.get("__init__")
    arguments = {p.name for p in constructor.parameters} - {"self"} if constructor is not None else set()
    return arguments | {name for name, member in obj.members.items() if member.is_attribute}
