"""Formulas as MathML, which browsers draw by themselves: a page loads no script and no font for them.

`pymdownx.arithmatex` marks them; LaTeX stays beside each as an annotation, and is what a screen without MathML shows.
"""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """MkDocs calls this with the HTML of every page."""
    return _FORMULA.sub(_drawn, content)


def _drawn(match: re.Match[str]) -> str:
    latex = html.unescape(match[2]).strip()
    drawn = convert(latex, display="block" if match[1] == "div" else "inline")
    if "\\" in drawn:
        raise ValueError(f"this formula has a command that has no MathML: {latex}")
    rows = re.fullmatch(r"(<math[^>]*>)(.*)</math>", drawn, re.DOTALL)
    note = f'<annotation encoding="application/x-tex">{html.escape(latex)}</annotation>'
    return f"{rows[1]}<semantics>{rows[2]}{note}</semantics></math>"
