"""Conversations in tokenizers' own templates: tokens and what is learned of them, against `apply_chat_template`, which
is told what the assistant says by marks in the templates."""

from __future__ import annotations

import copy

import numpy as np
import pytest

pytest.importorskip("transformers")

from tarot import InputError
from tasks.instruction.chat import ChatTemplate
from tasks.instruction.reading import BadRowError, Row
from tasks.instruction.tokenizer import train_tokenizer
from tasks.instruction.tokens import IGNORE, tokenize
from tests.tasks.instruction.chat_templates import (
    FAMILIES,
    IN_ALTERNATION,
    SPECIAL,
    WITH_TOOLS,
    WITHOUT_SYSTEM,
)

CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris", "days": [1, 2]}}}
TOOL = {"type": "function", "function": {"name": "weather", "description": "Of a city.", "parameters": {}}}
USER, BYE = ("user", "What is 2 plus 12?"), ("user", " And \n then? ")
SHORT, LONG = ("assistant", "14."), ("assistant", "  It is\n\n    indented {'so': 1}. ")
THOUGHT = ("assistant", "<think>\nLet me see.\n</think>\n\nNothing 更多")
SYSTEM = ("system", "Be brief.")
TALKS = {
    "one turn": Row("a", (USER, SHORT)),
    "several turns": Row("a", (USER, SHORT, BYE, LONG, USER, SHORT)),
    "a system": Row("a", (SYSTEM, USER, LONG, BYE, SHORT)),
    "a user has the last word": Row("a", (USER, SHORT, BYE)),
    "thought in every answer": Row("a", (USER, THOUGHT, BYE, THOUGHT, USER, THOUGHT)),
    "thought in the first answer": Row("a", (SYSTEM, USER, THOUGHT, BYE, SHORT)),
    "an answer like what opens it": Row("a", (USER, ("assistant", "<"), BYE, ("assistant", "<|x"), USER, SHORT)),
    "the same again": Row("a", (USER, SHORT, USER, SHORT, USER, SHORT)),
    "a masked answer": Row("a", (USER, SHORT, BYE, LONG, USER, SHORT), masked=frozenset({3})),
}
CALLS = {
    "calls": Row(
        "a",
        (USER, ("assistant", ""), ("tool", '{"sky": "blue"}'), LONG, BYE, SHORT),
        more={1: {"tool_calls": [CALL, CALL]}},
        tools=(TOOL,),
    ),
    "calls and tools after one another": Row(
        "a",
        (SYSTEM, USER, ("assistant", "I ask."), ("tool", "x"), ("tool", "y"), ("assistant", ""), ("tool", "z"), LONG),
        more={2: {"tool_calls": [CALL]}, 5: {"tool_calls": [CALL]}},
        tools=(TOOL,),
    ),
}


@pytest.fixture(scope="module")
def base():
    texts = [content for talk in (*TALKS.values(), *CALLS.values()) for _, content in talk.messages] * 3
    tokenizer = train_tokenizer([*texts, "user assistant system model think"], 420)
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    return tokenizer


def of(base, family: str):
    tokenizer = copy.deepcopy(base)
    tokenizer.chat_template = FAMILIES[family]
    return tokenizer


def turns_of(row: Row) -> list[dict]:
    return [{"role": role, "content": content, **row.more.get(i, {})} for i, (role, content) in enumerate(row.messages)]


def transcribed(tokenizer, turns: list[dict], tools=None) -> tuple[list[int], list[int]]:
    """Tokens, and 1 where the assistant says one."""
    found = tokenizer.apply_chat_template(turns, tools=tools, return_dict=True, return_assistant_tokens_mask=True)
    return found["input_ids"], found["assistant_masks"]


def found_in(tokenizer, row: Row) -> tuple[list[int], list[int]]:
    sample = tokenize([row], tokenizer, ChatTemplate(tokenizer))[0]
    return sample["input_ids"].tolist(), (sample["labels"] != IGNORE).int().tolist()


def folded(turns: list[dict]) -> list[dict]:
    """The system's turn before the first of the user."""
    if turns[0]["role"] != "system":
        return turns
    return [{**turns[1], "content": f"{turns[0]['content']}\n\n{turns[1]['content']}"}, *turns[2:]]


@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_and_labels_are_those_of_the_template(base, family, talk):
    tokenizer, row = of(base, family), TALKS[talk]
    turns = turns_of(row)
    ids, said = transcribed(tokenizer, folded(turns) if family in WITHOUT_SYSTEM else turns)
    if row.masked:  # of three runs of learned tokens the second is none
        edges = np.flatnonzero(np.diff(said, prepend=0) == 1)
        said[edges[1] : edges[2]] = [0] * (edges[2] - edges[1])
    found, learned = found_in(tokenizer, row)
    assert found == ids
    assert learned == said
    assert sum(learned) > 0


@pytest.mark.parametrize("talk", CALLS)
@pytest.mark.parametrize("family", FAMILIES)
def test_calls_are_learned_or_the_row_is_refused(base, family, talk):
    tokenizer, row = of(base, family), CALLS[talk]
    if family not in WITH_TOOLS:
        with pytest.raises(BadRowError, match=r"template (leaves|refuses)"):
            ChatTemplate(tokenizer)(row)
        return
    assert found_in(tokenizer, row) == transcribed(tokenizer, turns_of(row), [TOOL])


def test_reasoning_of_its_own_field(base):
    row = Row("a", (USER, SHORT, BYE, SHORT), more={i: {"reasoning_content": f"Hm {i}."} for i in (1, 3)})
    tokenizer = of(base, "qwen3")
    assert found_in(tokenizer, row) == transcribed(tokenizer, turns_of(row))
    text = ChatTemplate(tokenizer)(row)
    assert text.answer == "<think>\nHm 3.\n</think>\n\n14.<|im_end|>\n" and "Hm 1." not in text.text
    with pytest.raises(BadRowError, match="leaves what is thought before the last answer out"):
        ChatTemplate(of(base, "qwen2"))(row)


@pytest.mark.parametrize("family", FAMILIES)
def test_turns_that_do_not_alternate(base, family):
    """Two of the user's are one where the template wants them in alternation; two answers, or one before any question,
    are not what it can write."""
    tokenizer = of(base, family)
    two = Row("a", (USER, BYE, SHORT))
    turns = turns_of(two)
    if family in IN_ALTERNATION:
        turns = [{"role": "user", "content": f"{USER[1]}\n\n{BYE[1]}"}, turns[2]]
    assert found_in(tokenizer, two) == transcribed(tokenizer, turns)
    for row in (Row("a", (USER, SHORT, LONG), where="a.jsonl:7"), Row("a", (SHORT, USER, LONG), where="a.jsonl:7")):
        if family in IN_ALTERNATION:
            with pytest.raises(BadRowError, match=r"a\.jsonl:7: the tokenizer's chat template refuses it \(Conv"):
                ChatTemplate(tokenizer)(row)
        else:
            ids, learned = found_in(tokenizer, row)
            wanted, said = transcribed(tokenizer, turns_of(row))
            assert ids == wanted and learned == said


def test_what_the_template_refuses_is_dropped_and_counted(base):
    tokenizer = of(base, "gemma")
    rows = [Row("good", (USER, SHORT)), Row("bad", (USER, SHORT, LONG), where="a.jsonl:2")]
    data = tokenize(rows, tokenizer, ChatTemplate(tokenizer), nothing_left="drop")
    assert data.ids == ["good"] and data.dropped == ()
    assert [str(error)[:40] for error in data.refused] == ["a.jsonl:2: the tokenizer's chat template"]
    with pytest.raises(InputError, match=r"a\.jsonl:2"):
        tokenize(rows, tokenizer, ChatTemplate(tokenizer))
    with pytest.raises(InputError, match=r"none of 1 rows .*; 1 cannot be written, such as a\.jsonl:2"):
        tokenize(rows[1:], tokenizer, ChatTemplate(tokenizer), nothing_left="drop")
