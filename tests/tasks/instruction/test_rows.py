"""Conversations as they are read from files and from the hub, and what errors say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tarot import InputError

pytest.importorskip("transformers")

from tasks.instruction.rows import _kept_in, read_rows
from tests.tasks.instruction.conversations import TALK


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_rows_of_both_kinds(tmp_path):
    talk = {"id": "x", "dataset": "d", "messages": TALK, "subtask": "s", "more": {"kept": [1.0, None]}}
    pair = {"prompt": "one", "completion": "two"}
    first = write(tmp_path / "first.jsonl", talk, pair)
    second = write(tmp_path / "flan_v2_data.jsonl", pair)
    rows = read_rows([first, second])
    assert [r.id for r in rows] == ["x", "first:2", "flan_v2:1"]
    assert [r.dataset for r in rows] == ["d", "first", "flan_v2"]
    assert [r.group for r in rows] == ["s", "", ""]
    assert rows[0].messages == tuple((turn["role"], turn["content"]) for turn in TALK)
    assert rows[1].messages == (("prompt", "one"), ("completion", "two")) and rows[1].plain and not rows[0].plain
    assert rows[0].raw == talk and rows[0].where == f"{first}:1"
    assert [r.dataset for r in read_rows({"named": second})] == ["named"]
    assert [r.id for r in read_rows({"a": first, "b": first}, prefix=True)] == ["a/x", "a/a:2", "b/x", "b/b:2"]


def test_only_a_line_break_ends_a_line(tmp_path):
    strange = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg"
    path = write(tmp_path / "a.jsonl", {"prompt": strange, "completion": "x"}, {"prompt": "b", "completion": "y"})
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n\n"))  # and empty lines are none
    assert len(path.read_text(encoding="utf-8").splitlines()) > 4
    rows = read_rows(path)
    assert [r.messages[0][1] for r in rows] == [strange, "b"]
    assert [r.where for r in rows] == [f"{path}:1", f"{path}:3"]


USER = {"role": "user", "content": "q"}


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ({"messages": [USER]}, "no message is the assistant's"),
        ({"messages": [USER, {"role": "assistant", "content": " "}]}, "answers of the assistant are empty"),
        ({"messages": []}, "at least one message"),
        ({"messages": "text"}, "must be a list"),
        ({"messages": [USER, {"role": "assistant"}]}, "message 2 must be an object with role and content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "message 1 has the role 'tool'"),
        ({"text": "x"}, "this one has text"),
        ({"prompt": "x"}, "this one has prompt"),
        ({"prompt": "x", "completion": " "}, "completion is empty"),
        ({"instruction": "x"}, "output must be text; it is None"),
        ({"instruction": "x", "input": ["y"], "output": "z"}, "input must be text"),
        ({"instruction": "x", "output": " "}, "answers of the assistant are empty"),
        ({"conversations": [{"from": "tool", "value": "x"}]}, "message 1 has the role 'tool'"),
        ({"conversations": [["human", "x"]]}, "list of objects with from and value"),
        ({"conversations": [{"from": ["x"], "value": "y"}]}, r"message 1 has the role \['x'\]"),
        ({"instruction": "x", "output": "y", "history": "z"}, "history must be a list"),
        ({"prompt": "x", "completion": "y", "id": [1]}, "id must be"),
        ({"prompt": "x", "completion": "y", "subtask": 1.5}, "subtask must be"),
        ([1], "must be a JSON object"),
    ],
)
def test_errors_name_file_and_line(tmp_path, raw, says):
    path = write(tmp_path / "a.jsonl", {"prompt": "x", "completion": "y"}, raw)
    with pytest.raises(InputError, match=says) as error:
        read_rows(path)
    assert str(error.value).startswith(f"{path}:2")


def test_errors_of_files(tmp_path):
    path = tmp_path / "a.jsonl"
    with pytest.raises(InputError, match="is not there"):
        read_rows(path)
    path.write_text("\n \n")
    with pytest.raises(InputError, match="is empty"):
        read_rows(path)
    path.write_text('{"prompt": "x", "completion": "y"}\n{"prompt": \n')
    with pytest.raises(InputError, match=r"a\.jsonl:2 is not JSON"):
        read_rows(path)
    path.write_text("[" * 100_000 + "\n")
    with pytest.raises(InputError, match=r"a\.jsonl:1 is not JSON"):
        read_rows(path)
    path.write_bytes(b'{"prompt": "\xff", "completion": "y"}\n')
    with pytest.raises(InputError, match=r"a\.jsonl:1 is not UTF-8"):
        read_rows(path)
    path.write_text('{"prompt": "x", "completion": "half \\ud83d"}\n')
    with pytest.raises(InputError, match=r"a\.jsonl:1: the text holds '\\ud83d', half of a character"):
        read_rows(path)
    same = {"id": "same", "prompt": "x", "completion": "y"}
    with pytest.raises(InputError, match=r"b\.jsonl:2: the id '(b/)?same' is that of .*b\.jsonl:1"):
        read_rows(write(tmp_path / "b.jsonl", same, same))


def test_datasets_may_use_the_same_ids_and_names(tmp_path):
    plain, named = {"prompt": "x", "completion": "y"}, {"id": 0, "prompt": "x", "completion": "y"}
    first, second = (tmp_path / name for name in ("first", "second"))
    first.mkdir(), second.mkdir()
    files = [write(folder / "train.jsonl", plain, named) for folder in (first, second)]
    rows = read_rows(files)
    assert [r.dataset for r in rows] == ["first/train"] * 2 + ["second/train"] * 2
    assert [r.id for r in rows][1::2] == ["first/train/0", "second/train/0"] and len({r.id for r in rows}) == 4
    assert [r.id for r in read_rows({"a": files[0], "b": files[1]})] == ["a/a:1", "a/0", "b/b:1", "b/0"]
    assert [r.id for r in read_rows(files[0])] == ["train:1", "0"]


def test_a_hub_dataset_from_a_folder(tmp_path, caplog):
    pytest.importorskip("datasets")
    folder = tmp_path / "talks"
    folder.mkdir()
    write(folder / "train.jsonl", {"messages": TALK, "id": "x"}, {"messages": TALK[1:3], "id": "y"})
    write(folder / "test.jsonl", {"messages": TALK[:3], "id": ""}, {"messages": TALK[:3], "id": "x"})
    file = write(tmp_path / "more.jsonl", {"prompt": "one", "completion": "two"})
    rows = read_rows([f"hub:{folder}", f"hub:{folder}:test", file])
    assert [r.id for r in rows] == ["x", "y", "talks:test:0", "talks:test:1", "more:1"]
    assert rows[0].messages == tuple((turn["role"], turn["content"]) for turn in TALK)
    assert rows[1].raw == {"messages": TALK[1:3], "id": "y"} and rows[1].where == f"hub:{folder}[1]"
    named = read_rows({"mine": f"hub:{folder}@default:train"}, prefix=True)
    assert [(r.id, r.dataset) for r in named] == [("mine/x", "mine"), ("mine/y", "mine")]
    with pytest.raises(InputError, match=r"split nothing\) cannot be loaded"):
        read_rows(f"hub:{folder}:nothing")
    with pytest.raises(InputError, match="must be hub:NAME"):
        read_rows("hub:")
    write(folder / "test.jsonl", {"messages": TALK, "more": 1})
    with pytest.raises(InputError, match=r"split train\) cannot be loaded"):  # splits of different columns
        read_rows(f"hub:{folder}")
    write(folder / "test.jsonl", {"messages": TALK, "id": "x"})
    write(folder / "train.jsonl", {"messages": TALK, "id": "x"}, {"messages": TALK[1:2], "id": "y"})
    assert [r.id for r in read_rows(f"hub:{folder}")] == ["x"]
    assert f"1 of 2 rows of hub:{folder} have no answer and are left out" in caplog.text
    strange = folder.rename(tmp_path / "talks@1:2")
    assert [r.id for r in read_rows(f"hub:{strange}")] == ["x"]


def test_rows_as_much_of_the_hub_has_them(tmp_path):
    """What LLaMA-Factory and axolotl call sharegpt and alpaca, and Dolly's columns."""
    said = [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    kinds = [
        {"conversations": said},
        {"instruction": "Add.", "input": "2 and 12", "output": "14"},
        {"instruction": "Say hello.", "input": "", "output": "hello"},
        {"instruction": "Sum up.", "context": "A text.", "response": "Text.", "category": "summarization"},
    ]
    rows = read_rows(write(tmp_path / "a.jsonl", *kinds))
    assert rows[0].messages == (("system", "Be brief."), ("user", "q"), ("assistant", "a"))
    assert [r.messages[0] for r in rows[1:]] == [
        ("user", "Add.\n\n2 and 12"),
        ("user", "Say hello."),
        ("user", "Sum up.\n\nA text."),
    ]
    assert [r.messages[-1] for r in rows[1:]] == [("assistant", text) for text in ("14", "hello", "Text.")]
    assert [r.raw for r in rows] == kinds and not any(r.plain for r in rows)
    pair = ("user", "q"), ("assistant", "a")
    more = [
        {
            "conversations": [{"role": "Human", "content": "q"}, {"role": "ChatGPT", "content": "a"}],
            "system": "Be brief.",
        },
        {"instruction": "q", "output": "a", "history": [["q0", "a0"]], "system": "Be brief."},
        {"prompt": "q", "completion": "a", "instruction": "other", "response": "else", "conversations": 3},
    ]
    rows = read_rows(write(tmp_path / "b.jsonl", *more))
    assert rows[0].messages == (("system", "Be brief."), *pair)
    assert rows[1].messages == (("system", "Be brief."), ("user", "q0"), ("assistant", "a0"), *pair)
    assert rows[2].messages == (("prompt", "q"), ("completion", "a"))


def test_a_local_dataset_is_known_by_what_lies_behind_its_links(tmp_path):
    for name in ("dataset", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "dataset" / "data").symlink_to(tmp_path / "elsewhere")
    kept = set()
    for content in ("{}", '{"a": 1}'):
        (tmp_path / "elsewhere" / "train.jsonl").write_text(content)
        kept.add(_kept_in(str(tmp_path / "dataset")))
    assert len(kept) == 2
