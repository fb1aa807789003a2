"""Every reference resolves: sections of the theory, entries of the ledger, documents, links between pages, and names.

What readers are pointed at must be in the repository: `theory.md 1.4` is a heading of docs/theory.md, `L-06` and
`LESS (b)` are entries of docs/discrepancies.md, a Markdown link leads to a file and, where it says so, a heading, and
`tarot.select` in backticks is a name of the engine.
"""

import pkgutil
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").exists())
PLACES = ("tarot", "tasks", "experiments", "tests", "benchmarks", "conf", "docs")
KINDS = {".py", ".yaml", ".toml", ".md"}

GAP = r"(?:[ ,]|\n[ #]*)+"  # between the parts of a reference, which may go on in the next line of a comment
NUMBER = r"\d+(?:\.\d+)*"
SECTIONS = re.compile(rf"theory\.md((?:{GAP}(?:(?:and|to){GAP})?{NUMBER}\b)+)")
ENTRY = re.compile(r"\bL-\d+|(?<=def test_)L\d+")
LETTERED = re.compile(rf"\bledger{GAP}([A-Z][\w-]+{GAP}\([a-z]\))", re.IGNORECASE)
DOCUMENT = re.compile(r"(?<![\w./:\"'-])(?:[\w.-]+/)*[\w-]+\.md\b(?![\"'])")  # neither a quoted file name nor a URL
BARE_SECTION = re.compile(rf"(paper's{GAP})?\b[Ss]ections?{GAP}({NUMBER})")
OUTSIDE = re.compile(r"\bthe (?:spec|specs|specification)\b")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
NAME = re.compile(r"`(tarot(?:\.\w+)+)")  # `tarot.select`, `tarot.select(candidates, ...)`
LINK = re.compile(r"\]\(([^()\s]+)\)|^\[[^\]]+\]: +(\S+)", re.MULTILINE)


def unknown_names(text):
    """Names of the engine in backticks that can be neither imported nor looked up."""
    return sorted(name for name in set(NAME.findall(text)) if not is_known(name))


@cache
def is_known(name):
    """Whether a dotted name leads to a module, or to an attribute of one."""
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


def texts():
    """Every file that may refer to something, but this one, whose examples are wrong on purpose: path -> text."""
    paths = [*ROOT.glob("*"), *(path for place in PLACES for path in (ROOT / place).rglob("*"))]
    kept = [path for path in paths if path.is_file() and path.suffix in KINDS and path != Path(__file__).resolve()]
    assert len(kept) > 100
    return {path: path.read_text(encoding="utf-8") for path in kept}


def prose(markdown):
    """The text without its code, in which a # is no heading and brackets are no link."""
    return re.sub(r"`[^`\n]*`", "``", re.sub(r"^ *```.*?^ *```", "", markdown, flags=re.MULTILINE | re.DOTALL))


def headings(markdown):
    return HEADING.findall(re.sub(r"^ *```.*?^ *```", "", markdown, flags=re.MULTILINE | re.DOTALL))


def anchor(heading):
    """The address of a heading, as GitHub and MkDocs make it."""
    return re.sub(r"[^\w\- ]", "", re.sub(r"[`*]|\]\(.*?\)", "", heading).lower()).strip().replace(" ", "-")


def sections(theory):
    """The numbers of its headings: "1.4"."""
    return {match[1] for match in (re.match(rf"({NUMBER})\.? ", heading) for heading in headings(theory)) if match}


def entries(ledger):
    """The names of its entries: "L-06", "LESS (b)"."""
    found = (re.match(r"(L-\d\d|[A-Z][\w-]+ \([a-z]\)) ", heading) for heading in headings(ledger))
    return [match[1] for match in found if match]


def broken(text, known_sections, known_entries, is_document, own_sections=False):
    """What in `text` refers to nothing. own_sections: "section 1.1" is one of the text's own."""
    wrong = []
    for match in SECTIONS.finditer(text):
        wrong += [f"theory.md {n}" for n in re.findall(NUMBER, match[1]) if n not in known_sections]
    found = [re.sub(r"^L(?=\d)", "L-", name) for name in ENTRY.findall(text)]
    found += [re.sub(rf"{GAP}", " ", name) for name in LETTERED.findall(text)]
    wrong += [name for name in found if name not in known_entries]
    wrong += [name for name in DOCUMENT.findall(text) if not is_document(name)]
    numbers = [n for of_a_paper, n in BARE_SECTION.findall(text) if not of_a_paper]
    wrong += [f"section {n}" for n in numbers if not (own_sections and n in known_sections)]
    return wrong + OUTSIDE.findall(text)


def broken_links(markdown, folder):
    """Relative links of a page in `folder` that lead to no file or no heading of it."""
    wrong = []
    for groups in LINK.findall(prose(markdown)):
        link = groups[0] or groups[1]
        if re.match(r"\w+:", link):  # another site
            continue
        name, _, place = link.partition("#")
        file = (folder / name).resolve() if name else None
        if file is not None and not file.exists():
            wrong.append(link)
        elif place:
            page = markdown if file is None else file.read_text(encoding="utf-8")
            if place not in map(anchor, headings(page)):
                wrong.append(link)
    return wrong


THEORY, LEDGER = ((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("theory.md", "discrepancies.md"))


def test_every_reference_resolves():
    known = sections(THEORY), {*entries(LEDGER)}
    wrong = {}
    for path, text in texts().items():

        def is_document(name, path=path):
            return any((folder / name).exists() for folder in (ROOT, ROOT / "docs", path.parent))

        found = broken(text, *known, is_document, own_sections=path.name == "theory.md")
        if found:
            wrong[str(path.relative_to(ROOT))] = found
    assert not wrong


def test_every_link_leads_somewhere():
    pages = {path: text for path, text in texts().items() if path.suffix == ".md"}
    wrong = {str(path.relative_to(ROOT)): broken_links(text, path.parent) for path, text in pages.items()}
    assert not {page: links for page, links in wrong.items() if links}


def test_every_name_of_the_engine_is_there():
    told = [path for path in texts() if path.suffix == ".md" or path.is_relative_to(ROOT / "tarot")]
    wrong = {str(path.relative_to(ROOT)): unknown_names(path.read_text(encoding="utf-8")) for path in told}
    assert not {path: names for path, names in wrong.items() if names}


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("`tarot.select`, `tarot.attribution.choose(...)`, `tarot.Selection.potentials`", []),
        ("`tarot.lds.choose`", ["tarot.lds.choose"]),
        ("`tarot.attribution.chose`", ["tarot.attribution.chose"]),
        ("`tarot.select.of`", ["tarot.select.of"]),
        ("the file `tarot/none.py`, tarot.none without backticks, `tarot_fixed`", []),
    ],
)
def test_names_that_are_not_there_are_found(text, wrong):
    assert unknown_names(text) == wrong


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("(theory.md 1.4)", []),
        ("docs/theory.md 1.4, 2 and 1", []),
        ("theory.md\n    1.4", []),
        ("theory.md 1.5", ["theory.md 1.5"]),
        ("theory.md 1.4 and 7", ["theory.md 7"]),
        ("theory.md\n# 3", ["theory.md 3"]),
        ("ledger L-01, and L-99", ["L-99"]),
        ("L-7", ["L-7"]),
        ("def test_L01_is():\ndef test_L44_is_not():", ["L-44"]),
        ("Ledger LESS (b)", []),
        ("ledger LESS\n    (z)", ["LESS (z)"]),
        ("as in lost.md", ["lost.md"]),
        ("as in theory.md", []),
        ("https://example.org/lost.md, and a file 'lost.md'", []),
        ("(section 10)", ["section 10"]),
        ("Sections 2 and 7", ["section 2"]),
        ("the paper's section 4.2, the paper's\n# section 4.3", []),
        ("as the spec has it", ["the spec"]),
    ],
)
def test_what_is_wrong_is_found(text, wrong):
    known = {"1", "1.4", "2"}, {"L-01", "LESS (b)"}
    assert broken(text, *known, lambda name: name.endswith("theory.md")) == wrong


@pytest.mark.parametrize(
    ("page", "wrong"),
    [
        ("[a](other.md)", []),
        ("[a](other.md#14-weights-of-all) ![p](picture.png)", []),
        ("## Here `now`\n[a](#here-now) [b](https://example.org/none.md)", []),
        ("[a]\n\n[a]: other.md#l-01-sign", []),
        ("`[a](none.md)`\n```\n[b](none.md)\n```", []),
        ("[a](none.md)", ["none.md"]),
        ("[a](other.md#gone)", ["other.md#gone"]),
        ("[a](#gone)", ["#gone"]),
        ("[a]\n\n[a]: other.md#l-02", ["other.md#l-02"]),
        ("```\n# no heading\n```\n[a](#no-heading)", ["#no-heading"]),
    ],
)
def test_links_that_lead_nowhere_are_found(tmp_path, page, wrong):
    (tmp_path / "other.md").write_text("# Other\n## 1.4 Weights, of all\n### L-01 Sign\n", encoding="utf-8")
    (tmp_path / "picture.png").touch()
    assert broken_links(page, tmp_path) == wrong


def test_the_ledger_is_complete_and_held_by_tests():
    """Entries are unique, L-01 to L-29 each have a test of their number, and the tests that are named exist."""
    names = entries(LEDGER)
    assert len(names) == len(set(names))
    numbered = [name for name in names if name.startswith("L-")]
    assert numbered == [f"L-{number:02}" for number in range(1, 30)]
    code = "\n".join(text for path, text in texts().items() if path.name.startswith("test_"))
    assert [name for name in numbered if f"def test_{name.replace('-', '')}_" not in code] == []
    named = re.findall(r"`(test_\w+\*?)`", LEDGER)
    assert len(named) > 10
    patterns = {name: name.replace("*", r"\w*") for name in named}
    assert [name for name, pattern in patterns.items() if not re.search(rf"def {pattern}\b", code)] == []


def test_references_to_entries_in_the_pages_are_links():
    """`[L-06]` shows as such, in brackets, unless the page says where it leads."""
    for text in (THEORY, LEDGER):
        used = set(re.findall(r"\[(L-\d\d|[A-Z][\w-]+ \([a-z]\))\]", prose(text)))
        assert used == set(re.findall(r"^\[([^\]]+)\]: ", text, re.MULTILINE))
