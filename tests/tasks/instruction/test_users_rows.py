"""What becomes of rows as users have them: 54 files of one peculiarity each, and the table of them in the docs."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tarot import InputError

pytest.importorskip("transformers")

from tasks.instruction.reading import Row, read_rows
from tasks.instruction.template import LessTemplate

FOLDER = Path(os.environ.get("TAROT_DATA", "data")) / "rows"
PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "rows.md"
HELLO = "user: hi | *assistant: hello"
AB = "user: a | *assistant: b"

# file -> its rows, answers that are learned with a star
READ = {
    "axolotl_train_false": ["user: a | assistant: no | user: b | *assistant: yes"],
    "bom": [HELLO],
    "content_parts": [AB],
    "conv_key_conversation": [AB],
    "cr_only": [HELLO, HELLO],
    "crlf": [HELLO, HELLO],
    "dataset_dict": [HELLO],
    "developer_role": [f"system: be brief | {AB}"],
    "dup_ids": [HELLO, HELLO],
    "dup_int_str": [HELLO, HELLO],
    "eos_in_text": ["user: a</s>b<|assistant|>\nfake | *assistant: c"],
    "gsm8k": ["user: 1+1? | *assistant: 2 #### 2"],
    "input_output": [AB],
    "last_user": [f"{AB} | user: c"],
    "messages_as_string": [HELLO],
    "nan_field": [AB],
    "nul_char": ["user: a\0b | *assistant: c"],
    "null_history_empty": [AB],
    "null_id": [HELLO],
    "null_input": [AB],
    "null_system": [AB],
    "openai_weight0": ["user: a | assistant: DO NOT LEARN | user: b | *assistant: learn"],
    "pretty": [HELLO],
    "prompt_response": [AB],
    "qa_query_response": [AB],
    "role_upper": [AB],
    "sharegpt_bing": [AB],
    "sharegpt_gpt_first": [f"*assistant: x | {AB}"],
    "sharegpt_system_field_and_turn": [f"system: S2 | {AB}"],
    "sharegpt_unequal": ["user: a | user: a2 | *assistant: b | *assistant: b2"],
    "subtask_float": [HELLO],
    "subtask_list": [HELLO],
    "subtask_null": [HELLO],
    "surrogate_in_other_field": [AB],
    "text": ["prompt:  | *completion: hello"],
    "tool_role_only": ["user: w? | *assistant: call | tool: sunny | *assistant: It is sunny"],
    "toolcalls_null": ["user: weather? | *assistant:  | tool: sunny | *assistant: It is sunny"],
    "trl_conv_pc": [AB],
    "trl_std_pc": ["prompt: a | *completion: b"],
    "u2028": ["user: a\u2028b | *assistant: c\x85d"],
    "utf16": [HELLO, HELLO],
    "uuid_key__id": [HELLO],
}
# some of its rows are dropped: those that are left, and the line and the reason of the others
DROPPED = {
    "empty_output_one_of_3": ([AB, "user: d | *assistant: e"], ":2: all answers of the assistant are empty"),
    "user_only_one_of_2": ([HELLO], ":2: no message is the assistant's"),
}
# nothing is left, or the file as a whole cannot be honoured: what the error says
REFUSED = {
    "dup_keys": ":1: the key 'messages' is there twice",
    "latin1": ":1 is not UTF-8",
    "sharegpt_empty_list": ":1: conversations must be a list with at least one message",
    "sharegpt_null": ":1: message 2, the assistant's, has no content",
    "surrogate": ":1: the text holds '\\ud83d', half of a character",
    "system_nonstr": ":1: system must be text; it is ['x']",
    "toolcalls_missing_content": ":1: message 2 calls a tool without saying its name",
    "trailing_comma": ":1 is not JSON: Extra data",
    "trl_pref": ":1: a row of `chosen` and `rejected` answers is for learning which is better (DPO)",
    "trl_pref_conv": ":1: a row of `chosen` and `rejected` answers is for learning which is better (DPO)",
}
ALL = {**dict.fromkeys(READ, "read"), **dict.fromkeys(DROPPED, "dropped"), **dict.fromkeys(REFUSED, "refused")}
there = pytest.mark.skipif(not FOLDER.is_dir(), reason="the files are not there (TAROT_DATA)")


def shown(row: Row) -> str:
    """The messages; a star before those that are learned."""
    turns = enumerate(row.messages)
    return " | ".join(f"{'*' * (place in row.learned)}{role}: {content}" for place, (role, content) in turns)


@there
def test_every_file_is_one_of_the_table():
    assert sorted(path.stem for path in FOLDER.iterdir()) == sorted(ALL)


@there
@pytest.mark.parametrize("name", ALL)
def test_what_becomes_of_a_file(name, caplog):
    path = FOLDER / f"{name}.jsonl"
    if name in REFUSED:
        with pytest.raises(InputError) as error:
            read_rows(path)
        assert str(error.value).startswith(f"{path}{REFUSED[name]}")
        return
    rows = read_rows(path)
    wanted, says = DROPPED.get(name, (READ.get(name), None))
    assert [shown(row) for row in rows] == wanted
    if says is not None:
        assert f"{path}{says}" in caplog.text
        with pytest.raises(InputError, match=re.escape(says)):
            read_rows(path, on_bad_row="raise")


@there
def test_ids_groups_and_datasets():
    def of(name: str) -> list[Row]:
        return read_rows(FOLDER / f"{name}.jsonl")

    assert [row.id for row in of("dup_ids")] == ["dup_ids:1", "dup_ids:2"]
    assert [row.id for row in of("dup_int_str")] == ["dup_int_str:1", "dup_int_str:2"]
    assert [row.id for row in of("uuid_key__id")] == ["uuid_key__id:1"] == [row.id for row in of("uuid_key__id")]
    assert [row.id for row in of("utf16")] == ["utf16:1", "utf16:2"]
    assert [of(f"subtask_{kind}")[0].group for kind in ("float", "list", "null")] == ["1.5", '["a"]', ""]
    assert of("dataset_dict")[0].dataset == "dataset_dict"


@there
def test_what_is_learned_of_them():
    def learned(name: str) -> list[str]:
        (row,) = read_rows(FOLDER / f"{name}.jsonl")
        found = LessTemplate("</s>")(row)
        return [found.text[slice(*span)] for span in found.spans]

    assert learned("openai_weight0") == ["learn</s>\n"]
    assert learned("axolotl_train_false") == ["yes</s>\n"]
    assert learned("eos_in_text") == ["c</s>\n"]
    assert learned("text") == ["hello</s>"]
    call = '<tool_call>\n{"name": "w", "arguments": {}}\n</tool_call></s>\n'
    assert learned("toolcalls_null") == [call, "It is sunny</s>\n"]


def test_the_table_in_the_docs():
    """Of every file what becomes of it; `docs/how-to/rows.md` says the same."""
    listed = re.findall(r"^\| `(\w+)` \|.*\| (\w+)[^|]*\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert dict(listed) == ALL and len(listed) == len(ALL) == 54
