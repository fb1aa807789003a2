"""What the site's build does to pages: formulas become MathML, explained arguments become lists."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest

from tests.docs.pages import DOCS


def tool(name: str) -> ModuleType:
    """A module of docs/tools, which is no package."""
    spec = importlib.util.spec_from_file_location(name, DOCS / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_formulas_are_drawn_without_a_script_and_keep_their_latex():
    pytest.importorskip("latex2mathml")
    page = r'<p>If <span class="arithmatex">\(a &lt; b_i\)</span></p><div class="arithmatex">\[ x^2 \]</div><p>$5</p>'
    drawn = tool("mathml").on_page_content(page)
    assert drawn.count("<math") == drawn.count("</math>") == 2 and "arithmatex" not in drawn
    assert '<annotation encoding="application/x-tex">a &lt; b_i</annotation>' in drawn
    assert '<annotation encoding="application/x-tex">x^2</annotation>' in drawn
    assert 'display="inline"' in drawn and 'display="block"' in drawn
    assert drawn.startswith("<p>If <math") and drawn.endswith("</math><p>$5</p>")


def test_a_formula_that_cannot_be_drawn_is_an_error():
    pytest.importorskip("latex2mathml")
    with pytest.raises(ValueError, match=r"no MathML: \\nothing"):
        tool("mathml").on_page_content(r'<span class="arithmatex">\(\nothing x\)</span>')


def test_docstrings_become_lists():
    griffe = pytest.importorskip("griffe")
    extensions = griffe.load_extensions(str(DOCS / "tools" / "docstrings.py"))
    code = '''
def f(a, b, losses):
    """What it does, for a: this is text.

    a [N], b: two vectors,
        of any kind. losses(model, batch) -> [B]: one each. Raises InputError for all else.

        a = f(1)
    """
'''
    with griffe.temporary_visited_package("some", {"__init__.py": code}, extensions=extensions) as package:
        text = package["f"].docstring.value
    assert text.split("\n\n") == [
        "What it does, for a: this is text.",
        "- **a [N], b**: two vectors, of any kind.\n- **losses(model, batch) -> [B]**: one each.",
        "Raises InputError for all else.",
        "    a = f(1)",
    ]
