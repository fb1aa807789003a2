"""Conversations as they are read from files and from the hub, and what errors say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tarot import InputError

pytest.importorskip("transformers")

from tasks.instruction.reading import read_rows
from tasks.instruction.reading.hub import kept_in
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
SAID = {"role": "assistant", "content": "a"}
# what is wrong, the reason it is counted under, and what the error says
BAD = [
    ({"messages": [USER]}, "without an answer", "no message is the assistant's"),
    ({"messages": [USER, {"role": "assistant", "content": " "}]}, "without an answer", "the assistant are empty"),
    ({"messages": [USER, {"role": "assistant"}]}, "without an answer", "message 2, the assistant's, has no content"),
    ({"messages": []}, "without messages", "at least one message"),
    ({"messages": "text"}, "without messages", "must be a list"),
    ({"messages": [{"role": "user"}, SAID]}, "content is no text", "message 1 must be an object with role and content"),
    ({"messages": [{"role": "critic", "content": "x"}]}, "an unknown role", "message 1 has the role 'critic'"),
    ({"messages": [["user", "x"]]}, "other things than messages", "message 1 must be an object"),
    ({"text": ["x"]}, "content is no text", "text must be text"),
    ({"prompt": "x"}, "of no known form", "this one has prompt"),
    ({"prompt": "x", "completion": " "}, "without an answer", "completion is empty"),
    ({"prompt": "x", "completion": [SAID]}, "content is no text", "both be text, or both lists"),
    ({"instruction": "x"}, "without an answer", "output must be text; it is None"),
    ({"instruction": "x", "input": ["y"], "output": "z"}, "content is no text", "input must be text"),
    ({"instruction": "x", "output": " "}, "without an answer", "answers of the assistant are empty"),
    ({"conversations": [["human", "x"]]}, "other things than messages", "message 1 must be an object"),
    ({"conversations": [{"from": ["x"], "value": "y"}]}, "an unknown role", r"message 1 has the role \['x'\]"),
    ({"instruction": "x", "output": "y", "history": "z"}, "another history", "history must be a list"),
    ({"prompt": "x", "completion": "y", "label": False}, "label false", "KTO"),
    ({"prompt": "x", "completion": "y", "images": ["a.png"]}, "with images", "does not see"),
    ({"messages": [USER, {**SAID, "weight": 0.5}]}, "not 0 or 1", "has weight 0.5"),
    ({"messages": [USER, {**SAID, "loss": "no"}]}, "not 0 or 1", "has loss 'no'"),
    ({"messages": [USER, {**SAID, "train": False}]}, "all masked", "every answer is given or masked"),
    ({"messages": [{**USER, "train": True}, SAID]}, "other messages to learn", "message 1 is to be learned"),
    ({"messages": [USER, {**SAID, "train_detail": [{"begin_offset": 0}]}]}, "in parts", "learned in parts"),
    ({"messages": [USER, {"role": "assistant", "tool_calls": [{"id": "1"}]}]}, "a call of nothing", "its name"),
    ({"messages": [USER, {"role": "assistant", "function_call": {"name": "f", "arguments": "["}}]}, "a call", "JSON"),
    ({"messages": [USER, SAID], "tools": "[{}]"}, "tools without a name", "list of functions"),
    ({"messages": [{**USER, "content": [{"type": "image_url"}]}, SAID]}, "no text", "'image_url'"),
    ([1], "not an object", "must be a JSON object"),
]


@pytest.mark.parametrize(("raw", "reason", "says"), BAD)
def test_bad_rows_are_counted_and_named_or_raised(tmp_path, caplog, raw, reason, says):
    path = write(tmp_path / "a.jsonl", {"prompt": "x", "completion": "y"}, raw)
    with pytest.raises(InputError, match=says) as error:
        read_rows(path, on_bad_row="raise")
    assert str(error.value).startswith(f"{path}:2")
    assert [row.id for row in read_rows(path)] == ["a:1"]
    assert f"warning: 1 of 2 rows of {path} are left out: 1 " in caplog.text and reason in caplog.text
    assert any(m.startswith("    ") and f"    {error.value}".startswith(m) for m in caplog.messages)
    with pytest.raises(InputError, match=says):  # where nothing is left
        read_rows(write(tmp_path / "b.jsonl", raw))


def test_the_first_ten_bad_rows_are_named(tmp_path, caplog):
    good = {"messages": [USER, SAID]}
    path = write(tmp_path / "a.jsonl", *([good, {"messages": [USER]}, {"text": " "}, {"none": 1}] * 5))
    assert [row.id for row in read_rows(path)] == [f"a:{line}" for line in (1, 5, 9, 13, 17)]
    first, *named, last = caplog.messages
    assert first.endswith(f"15 of 20 rows of {path} are left out: 10 without an answer, 5 of no known form")
    assert [line.split()[0] for line in named] == [
        f"{path}:{line}:" for line in (2, 3, 4, 6, 7, 8, 10, 11, 12, 14)
    ] and last.split() == ["...", "and", "5", "more"]
    caplog.clear()
    with pytest.raises(InputError, match=r"none of the 2 rows of .* learned from \(2 without an answer\); the first: "):
        read_rows(write(tmp_path / "b.jsonl", {"messages": [USER]}, {"messages": [USER]}))
    with pytest.raises(InputError, match="on_bad_row must be"):
        read_rows(path, on_bad_row="ignore")


def test_pairs_of_preference_are_refused_by_name(tmp_path):
    pairs = [
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {"chosen": [USER, SAID], "rejected": [USER, SAID]},
        {"messages": [USER], "chosen": SAID, "rejected": SAID},
    ]
    for pair in pairs:
        path = write(tmp_path / "a.jsonl", {"messages": [USER, SAID]}, pair)
        with pytest.raises(InputError, match=r"a\.jsonl:2: .*chosen.*rejected.*DPO.*task\.columns"):
            read_rows(path)
    (row,) = read_rows(write(tmp_path / "b.jsonl", pairs[0]), columns={"prompt": "prompt", "response": "chosen"})
    assert row.messages == (("user", "a"), ("assistant", "b")) and row.raw == pairs[0]
    (row,) = read_rows(write(tmp_path / "c.jsonl", pairs[1]), columns={"messages": "chosen"})
    assert row.messages == (("user", "q"), ("assistant", "a"))
    (row,) = read_rows(write(tmp_path / "d.jsonl", {"messages": [USER, SAID], **pairs[0]}))  # UltraFeedback's
    assert row.messages == (("user", "q"), ("assistant", "a"))


def test_errors_of_files(tmp_path):
    path = tmp_path / "a.jsonl"
    with pytest.raises(InputError, match="is not there"):
        read_rows(path)
    path.write_text("\n \n")
    with pytest.raises(InputError, match="is empty: give a file with at least one row"):
        read_rows(path)
    for content, says, advice in (
        (b'{"prompt": "x", "completion": "y"}\n{"prompt": \n', r"a\.jsonl:2 is not JSON", "one object a line"),
        (b"[" * 100_000 + b"\n", r"a\.jsonl:1 is not JSON", "one object a line"),
        (b'"text"\n', r"a\.jsonl:1: a row must be a JSON object", 'such as {"prompt"'),
        (b'{"prompt": "\xff", "completion": "y"}\n', r"a\.jsonl:1 is not UTF-8", "save it in UTF-8"),
        (
            b'{"prompt": "x", "completion": "half \\ud83d"}\n',
            r"a\.jsonl:1: .* '\\ud83d', half of a char",
            "take it out",
        ),
        (
            b'{"prompt": "x", "prompt": "z", "completion": "y"}\n',
            r"a\.jsonl:1: the key 'prompt' is there twice",
            "names",
        ),
        (b'[\n{"prompt": "x", "completion": "y"},\n{"prompt": ]\n', r"a\.jsonl:3 is not JSON", "mend it there"),
        (b'[{"prompt": "x", "completion": "y"}\n{}]\n', r"a\.jsonl:2 is not JSON", "a list goes on with a comma"),
        (b'{"prompt": "x", "completion": ""}\n', "so there is nothing to learn", r"task\.columns="),
        (b"\xff\xfe{", "is not UTF-16, as its first bytes say", "save it in UTF-8"),
        (b"\x1f\x8bnothing", "cannot be unpacked", "pack it again"),
        (b"\x28\xb5\x2f\xfdnothing", "cannot be unpacked", "pack it again"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"{says}.*{advice}"):
            read_rows(path, on_bad_row="raise")
    for name in ("a.parquet", "a.arrow"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(InputError, match=r"cannot be read as .*write it again"):
            read_rows(tmp_path / name)


def test_an_id_that_is_there_twice(tmp_path, caplog):
    same = {"id": "same", "prompt": "x", "completion": "y"}
    path = write(tmp_path / "b.jsonl", same, {**same, "id": "other"}, same)
    with pytest.raises(InputError, match=r"b\.jsonl:3: the id 'same' is that of .*b\.jsonl:1"):
        read_rows(path, on_bad_row="raise")
    assert [row.id for row in read_rows(path)] == ["b:1", "b:2", "b:3"]
    assert "b.jsonl:1: the id 'same' is there 2 times; the rows of its file are named by their place" in caplog.text
    assert [row.id for row in read_rows(write(tmp_path / "c.jsonl", {**same, "id": 1}, {**same, "id": "1"}))] == [
        "c:1",
        "c:2",
    ]
    with pytest.raises(InputError, match=r"b\.jsonl:1: the id .* is that of"):
        read_rows([path, path])


def test_ids_and_subtasks_of_any_type(tmp_path):
    kinds = [1, 1.5, True, [1, "a"], {"$oid": "x"}, "é", "", None, float("nan")]
    raw = [{"id": kind, "subtask": kind, "prompt": "x", "completion": "y"} for kind in kinds]
    rows = read_rows(write(tmp_path / "a.jsonl", *raw))
    named = ["1", "1.5", "true", '[1, "a"]', '{"$oid": "x"}', "é"]
    assert [row.id for row in rows] == [*named, "a:7", "a:8", "a:9"]
    assert [row.group for row in rows] == [*named, "", "", ""]


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
    assert [r.id for r in rows] == ["talks/x", "talks/y", "talks:test/talks:test:0", "talks:test/x", "more/more:1"]
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
    assert f"1 of 2 rows of hub:{folder} are left out: 1 without an answer" in caplog.text
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
        kept.add(kept_in(str(tmp_path / "dataset")))
    assert len(kept) == 2
