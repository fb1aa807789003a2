"""Files of text that somebody else wrote, and lines that say what is wrong with them."""

from __future__ import annotations

import os

import pytest

from tarot.common import InputError, check_is_file, read_json, read_text


def test_a_mark_for_the_order_of_bytes_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffÄ\r\nb".encode())
    assert read_text(tmp_path / "a.txt") == "Ä\nb"
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32-le"):
        (tmp_path / "a.json").write_bytes('{"ä": 1}'.encode(encoding))
        assert read_json(tmp_path / "a.json") == {"ä": 1}


@pytest.mark.parametrize("content", [b"", b"\xff\xff", b"[" * 10**5, b"9" * 10**4, b'{"a": 1', b"a"])
def test_what_is_no_json_is_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.json is not JSON"):
        read_json(tmp_path / "a.json")


def test_text_in_another_encoding_is_named_with_its_place(tmp_path):
    (tmp_path / "a.txt").write_bytes("né".encode("latin-1"))
    with pytest.raises(InputError, match=r"a\.txt is not UTF-8: unexpected end of data at byte 1"):
        read_text(tmp_path / "a.txt")


@pytest.mark.parametrize("read", [check_is_file, read_text, read_json])
def test_what_is_no_file_is_not_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "itself").symlink_to(tmp_path / "itself")
    for name, words in (("pipe", "no file but"), ("", "no file but"), ("link", "is not there"), ("itself", "cannot")):
        with pytest.raises(InputError, match=words):
            read(tmp_path / name)


def test_a_message_is_one_line_that_a_terminal_can_show():
    said = str(InputError("a.txt: the name \x1b[2J\x00" + "9" * 10**6 + " is none;\n  rename it"))
    assert said.startswith(r"a.txt: the name \x1b[2J\x00999") and said.endswith("is none; rename it")
    assert len(said) <= 1000 and said.isprintable()
    assert str(InputError("ä — „b“")) == "ä — „b“"
