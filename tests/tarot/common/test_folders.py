"""The one walk of folders: links, hidden files, order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tarot import InputError
from tarot.common import entries, files_below
from tarot.common.folders import MOST_VISITS, is_name


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def below(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in files_below(root)]


def test_links_to_files_and_folders_are_followed(tmp_path):
    write(tmp_path, "here/b.png", "here/a/c.png", "elsewhere/ulm/d.png", "elsewhere/e.png")
    (tmp_path / "here" / "ulm").symlink_to(tmp_path / "elsewhere" / "ulm")
    (tmp_path / "here" / "a" / "e.png").symlink_to(tmp_path / "elsewhere" / "e.png")
    (tmp_path / "link").symlink_to(tmp_path / "here")
    assert below(tmp_path / "here") == ["a/c.png", "a/e.png", "b.png", "ulm/d.png"]
    assert below(tmp_path / "link") == below(tmp_path / "here")


def test_a_link_that_leads_back_is_left_out_and_said(tmp_path, caplog):
    write(tmp_path, "a/b/c.png")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "b" / "self").symlink_to(tmp_path / "a" / "b" / "self")
    with caplog.at_level("INFO", "tarot"):
        assert below(tmp_path) == ["a/b/c.png", "a/b/self"]  # a link to nowhere is a file that cannot be read
    assert f"{tmp_path}/a/b/up is left out: it is a link that leads back to {tmp_path}/a" in caplog.text


def test_links_that_multiply_are_refused(tmp_path):
    for number in range(40):
        (tmp_path / f"{number}").mkdir()
    for number in range(39):
        for name in ("left", "right"):
            (tmp_path / f"{number}" / name).symlink_to(tmp_path / f"{number + 1}")
    with pytest.raises(InputError, match=f"lead to .* more than {MOST_VISITS} times"):
        files_below(tmp_path / "0")


def test_what_is_hidden_is_left_out_and_said_once(tmp_path, caplog):
    write(tmp_path, "a/0.png", "a/._0.png", ".DS_Store", ".git/config", "a/.thumbs/0.png", "notes.txt")
    with caplog.at_level("INFO", "tarot"):
        for _ in range(2):
            found = files_below(tmp_path, lambda path: path.suffix == ".png")
    assert [path.name for path in found] == ["0.png"]
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: 4 hidden files and folders are left out (.DS_Store, .git, a/._0.png ...)",
        f"{tmp_path}: 1 files of other kinds are left out (.txt)",
    ]
    assert [path.name for path in entries(tmp_path)] == ["a", "notes.txt"]


def test_the_order_is_that_of_the_paths(tmp_path, monkeypatch):
    write(tmp_path, "b/1.png", "a.png", "a/2.png", "a-b/3.png", "B/4.png")
    expected = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert files_below(tmp_path) == expected
    scandir = os.scandir

    class Reversed:
        def __init__(self, path):
            self.found = sorted(scandir(path), key=lambda entry: entry.name, reverse=True)

        def __enter__(self):
            return self.found

        def __exit__(self, *error):
            return None

    monkeypatch.setattr(os, "scandir", Reversed)
    assert files_below(tmp_path) == expected


def test_folders_that_are_none(tmp_path):
    write(tmp_path, "file")
    for listing in (entries, files_below):
        with pytest.raises(InputError, match="nowhere is not there"):
            listing(tmp_path / "nowhere")
        with pytest.raises(InputError, match="file cannot be listed"):
            listing(tmp_path / "file")


def test_what_is_a_name_in_a_folder():
    assert all(map(is_name, ("a", "a.pkl", "...", "a b", ".a")))
    assert not any(map(is_name, ("", ".", "..", "../a", "a/b", "/a", "a/", "a\0", None, 3)))
