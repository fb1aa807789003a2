"""From conversations to tokens: the template, and which tokens are learned, against the slow way."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch

from tarot import InputError

pytest.importorskip("transformers")

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from tasks.instruction.chat import ChatTemplate
from tasks.instruction.evaluation import prompts
from tasks.instruction.reading import Row
from tasks.instruction.template import LessTemplate, stop_tokens, template_of
from tasks.instruction.tokenizer import SMALLEST, cached_tokenizer, load_tokenizer, padding_id, train_tokenizer
from tasks.instruction.tokens import IGNORE, Tokenized, collate, token_batches, tokenize
from tests.tasks.instruction.conversations import TALK

TEXTS = [turn["content"] for turn in TALK] * 3 + ["user assistant system", "What is the answer? The answer is: B"]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 330)


def row(*turns: tuple[str, str], **options) -> Row:
    return Row("a", turns, **options)


# --- template --------------------------------------------------------------------------------------------------------


def test_less_template_to_the_letter():
    turns = tuple((turn["role"], turn["content"]) for turn in TALK)
    found = LessTemplate("</s>")(row(*turns))
    assert found.text == (
        "<|system|>\nBe brief.\n<|user|>\nWhat is 2 plus 12?\n<|assistant|>\n14. Ça va</s>\n"
        "<|user|>\nAnd \u2028 then?\n<|assistant|>\nNothing 更多</s>\n"
    )
    assert [found.text[a:b] for a, b in found.spans] == ["14. Ça va</s>\n", "Nothing 更多</s>\n"]
    assert found.prompt.endswith("then?\n<|assistant|>\n") and found.answer == "Nothing 更多</s>\n"


@pytest.mark.parametrize(
    ("prompt", "completion", "text"),
    [("a", "b", "a b"), ("a ", "b", "a b"), ("a\n", "b", "a\nb"), ("a", "\tb", "a\tb"), ("a", " b", "a b")],
)
def test_prompt_and_completion(prompt, completion, text):
    found = LessTemplate("</s>")(row(("prompt", prompt), ("completion", completion)))
    assert found.text == f"{text}</s>"
    assert found.text[: found.spans[0][0]] == prompt


def test_given_beginnings_and_open_ends():
    turns = ("user", "q"), ("assistant", "The answer is: X")
    given = LessTemplate("</s>")(row(*turns, prefill="The answer is:", open=True))
    assert given.text == "<|user|>\nq\n<|assistant|>\nThe answer is: X"
    assert given.answer == " X" and given.prompt.endswith("The answer is:")
    with pytest.raises(InputError, match="must begin with 'A:'"):
        LessTemplate("</s>")(row(*turns, prefill="A:"))
    assert row(*turns, prefill="The answer is:").expected == "X" and row(*turns, answer="Y").expected == "Y"


def test_the_tokenizers_own_template(tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    with pytest.raises(InputError, match="no chat template"):
        ChatTemplate(tokenizer)
    tokenizer.chat_template = CHATML
    turns = tuple((turn["role"], turn["content"]) for turn in TALK)
    found = template_of("chat", tokenizer)(row(*turns))
    assert found.whole
    assert [found.text[a:b] for a, b in found.spans] == ["  14. Ça va <|im_end|>\n", "Nothing 更多<|im_end|>\n"]
    given = ChatTemplate(tokenizer)(row(("user", "q"), ("assistant", "A: yes"), prefill="A:", open=True))
    assert given.text == "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\nA: yes" and given.answer == " yes"
    tokenizer.chat_template = "{{ messages | length }}" + CHATML
    again = ChatTemplate(tokenizer)(row(*turns))  # nothing of it is as it was after the turn before
    assert again.text == f"5{found.text}" and again.spans == tuple((a + 1, b + 1) for a, b in found.spans)
    with pytest.raises(InputError, match="'less' or 'chat'"):
        template_of("other", tokenizer)


# --- tokens ----------------------------------------------------------------------------------------------------------


def transcription(turns, tokenizer, max_length: int) -> tuple[list[int], list[int]]:
    """The mask of theory.md 2 as LESS finds it: by the token counts of what comes before and after each message."""

    def text(some) -> str:
        end = {"assistant": tokenizer.eos_token}
        return "".join(f"<|{role}|>\n{content.strip()}{end.get(role, '')}\n" for role, content in some)

    def count(some: str) -> int:
        return len(tokenizer(some)["input_ids"][:max_length])

    ids = tokenizer(text(turns))["input_ids"][:max_length]
    labels = list(ids)
    for place, (role, _) in enumerate(turns):
        if role == "assistant":
            continue
        start = count(text(turns[:place])) if place else 0
        follows = turns[place + 1 : place + 2] and turns[place + 1][0] == "assistant"
        stop = count(text(turns[: place + 1]) + ("<|assistant|>\n" if follows else ""))
        labels[start:stop] = [IGNORE] * (stop - start)
    return ids, labels


def conversations(count: int, seed: int = 0) -> list[Row]:
    """Random ones: words, digits, blanks, letters of several bytes; systems, several turns, two users in turn."""
    rng = np.random.default_rng(seed)
    words = [
        "what",
        "answer",
        "plus",
        "42",
        "7",
        ",",
        "é",
        "更",
        "🙂",
        "\u2028",
        "<|user|>",
        "\n",
        "\n\n",
        "assistant",
        "",
    ]
    rows = []
    for i in range(count):
        turns = [("system", "be brief")] if rng.random() < 0.3 else []
        for _ in range(int(rng.integers(1, 4))):
            for role in ("user", "user", "assistant")[int(rng.random() < 0.8) :]:
                turns.append((role, "x" + " ".join(words[j] for j in rng.integers(0, len(words), rng.integers(1, 9)))))
        rows.append(Row(f"r{i}", tuple(turns)))
    return rows


@pytest.mark.parametrize("max_length", [24, 1000])
def test_the_mask_against_a_slow_transcription(tokenizer, max_length):
    rows = conversations(200)
    found = tokenize(rows, tokenizer, LessTemplate(tokenizer.eos_token), max_length=max_length, nothing_left="drop")
    kept = {r.id: i for i, r in enumerate(found.rows)}
    truncated = 0
    for r in rows:
        ids, labels = transcription(r.messages, tokenizer, max_length)
        if all(label == IGNORE for label in labels):
            assert r.id in found.dropped
            continue
        sample = found[kept[r.id]]
        assert sample["input_ids"].tolist() == ids and sample["labels"].tolist() == labels
        truncated += len(transcription(r.messages, tokenizer, 10**6)[0]) > max_length
    assert found.truncated == truncated
    assert len(kept) + len(found.dropped) == len(rows)
    assert (len(found.dropped) > 5) == (max_length == 24)


def test_blanks_in_the_token_of_a_word(tokenizer):
    """ " B" is one token; it is learned whether the blank is the prompt's or the completion's."""
    template, token = LessTemplate(tokenizer.eos_token), tokenizer.convert_tokens_to_ids("Ġanswer")
    assert token != tokenizer.unk_token_id
    for prompt, completion in (("the ", "answer"), ("the", " answer"), ("the", "answer")):
        sample = tokenize([row(("prompt", prompt), ("completion", completion))], tokenizer, template)[0]
        learned = sample["labels"][sample["labels"] != IGNORE].tolist()
        assert learned == [token, tokenizer.eos_token_id]


def test_an_answer_ends_where_the_template_closes_it(tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = CHATML
    less, chat = (template_of(kind, tokenizer) for kind in ("less", "chat"))
    assert stop_tokens(less, tokenizer) == stop_tokens(chat, tokenizer) == [tokenizer.eos_token_id]
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")]
    assert stop_tokens(chat, tokenizer) == sorted(ends) and stop_tokens(less, tokenizer) == ends[:1]


def test_a_conversation_that_the_assistant_begins(tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = (
        "{% if messages[0].role != 'system' %}<|im_start|>system\nHi!<|im_end|>\n{% endif %}" + CHATML
    )
    found = template_of("chat", tokenizer)(row(("assistant", "Hi"), ("user", "q"), ("assistant", "a")))
    assert [found.text[slice(*span)] for span in found.spans] == ["Hi<|im_end|>\n", "a<|im_end|>\n"]
    assert found.spans[0][0] > found.text.index("Hi!<|im_end|>")


def test_the_chat_templates_first_token_is_not_doubled(tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = "{{ bos_token }}" + CHATML
    ids = tokenize([row(("user", "q"), ("assistant", "a"))], tokenizer, ChatTemplate(tokenizer))[0]["input_ids"]
    assert ids.tolist().count(tokenizer.bos_token_id) == 1 and ids[0] == tokenizer.bos_token_id


CODE = "def f(x):\n    if x:\n        return  [x,   x]\n\n\n        # more\n    return 0\n"


def trimming(tokenizer):
    """The same, but that it leaves blanks out of the places it says tokens are at, as GPT-NeoX's does."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    for part in (state["post_processor"]["processors"][0], state["pre_tokenizer"]["pretokenizers"][-1]):
        part["trim_offsets"] = True
    backend = Tokenizer.from_str(json.dumps(state))
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def test_indentation_is_learned_whatever_the_tokenizer_says_of_blanks():
    exact = train_tokenizer([CODE] * 3, 330)
    trimmed = trimming(exact)
    said = trimmed(CODE, return_offsets_mapping=True)["offset_mapping"][1:]
    assert sum(start == stop for start, stop in said) >= 3  # tokens of blanks alone
    rows = [
        row(("user", f"Write f.\n  {i}  \n"), ("assistant", "  " * i + CODE), ("user", "  ?  "), ("assistant", CODE))
        for i in range(4)
    ]
    rows += [row(("prompt", f"a:{' ' * i}"), ("completion", f"{' ' * j}b  c")) for i in range(4) for j in range(4)]
    for template in (LessTemplate("</s>"), ChatTemplate(_with(exact, CHATML))):
        one, other = (tokenize(rows, tokenizer, template) for tokenizer in (exact, trimmed))
        assert one.tokens.tolist() == other.tokens.tolist()
        assert one.learned.tolist() == other.learned.tolist()
    blanks = [
        token for token, text in enumerate(trimmed.convert_ids_to_tokens(range(len(trimmed)))) if set(text) == {"Ġ"}
    ]
    answer = other[3]["input_ids"][other[3]["labels"] != IGNORE]
    assert np.isin(answer.numpy(), blanks).sum() >= 6


def _with(tokenizer, template: str):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = template
    return tokenizer


def test_nothing_left_to_learn(tokenizer):
    template = LessTemplate(tokenizer.eos_token)
    long = row(("user", "what " * 50), ("assistant", "a"), where="file.jsonl:7")
    with pytest.raises(InputError, match=r"file\.jsonl:7: .* tokens, of which the first 20 .* nothing left to learn"):
        tokenize([long], tokenizer, template, max_length=20)
    with pytest.raises(InputError, match="none of 1 rows"):
        tokenize([long], tokenizer, template, max_length=20, nothing_left="drop")
    with pytest.raises(InputError, match="nothing_left must be"):
        tokenize([long], tokenizer, template, nothing_left="ignore")
    with pytest.raises(InputError, match="max_length must be"):
        tokenize([long], tokenizer, template, max_length=1)


def test_taking_and_joining(tokenizer):
    data = tokenize(conversations(9), tokenizer, LessTemplate(tokenizer.eos_token), max_length=60)

    def same(found: Tokenized, wanted: list[int]) -> bool:
        return [found[i]["labels"].tolist() for i in range(len(found))] == [data[i]["labels"].tolist() for i in wanted]

    assert same(data.take([3, 1, 1]), [3, 1, 1]) and data.take([3, 1]).ids == ["r3", "r1"]
    both = data.take([2, 5]) + data.take([]) + data.take(np.array([0]))
    assert same(both, [2, 5, 0]) and both.ids == ["r2", "r5", "r0"]
    assert both.lengths.tolist() == [len(data[i]["labels"]) for i in (2, 5, 0)]
    assert both.answer_lengths.tolist() == [int((data[i]["labels"] != IGNORE).sum()) for i in (2, 5, 0)]
    assert torch.equal(data[-1]["labels"], data[8]["labels"])
    with pytest.raises(IndexError):
        data[9]


def test_prompts_end_where_the_last_answer_begins(tokenizer):
    rows = conversations(30)
    data = tokenize(rows, tokenizer, LessTemplate(tokenizer.eos_token))
    asked = prompts(data)
    for i, r in enumerate(rows):
        text = LessTemplate(tokenizer.eos_token)(r)
        assert asked[i].tolist() == tokenizer(text.prompt)["input_ids"]
        assert tokenizer.decode(data[i]["input_ids"][len(asked[i]) :]) == text.answer


def test_padding(tokenizer):
    data = tokenize(conversations(4), tokenizer, LessTemplate(tokenizer.eos_token))
    batch = collate(7)([data[i] for i in range(4)])
    longest = int(data.lengths.max())
    assert list(batch) == ["input_ids", "attention_mask", "labels"]
    assert all(t.shape == (4, longest) and t.dtype == torch.int64 for t in batch.values())
    for i, length in enumerate(data.lengths):
        assert torch.equal(batch["input_ids"][i, :length], data[i]["input_ids"])
        assert torch.equal(batch["labels"][i, :length], data[i]["labels"])
        assert (batch["input_ids"][i, length:] == 7).all() and (batch["labels"][i, length:] == IGNORE).all()
        assert batch["attention_mask"][i].tolist() == [1] * length + [0] * (longest - length)


def test_batches_keep_to_the_budget():
    lengths = np.random.default_rng(0).integers(1, 60, 300)
    lengths[17] = 500  # longer than the budget: alone
    for generator in (None, torch.Generator().manual_seed(0)):
        batches = token_batches(lengths, 200, generator)
        assert sorted(i for batch in batches for i in batch) == list(range(300))
        assert all(len(batch) * lengths[batch].max() <= 200 or len(batch) == 1 for batch in batches)
    again = [token_batches(lengths, 200, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert again[0] == again[1] != again[2]
    assert again[0] == batches
    with pytest.raises(InputError, match="must be positive"):
        token_batches(lengths, 0)


# --- tokenizer -------------------------------------------------------------------------------------------------------


def test_a_tokenizer_trained_on_the_spot(tmp_path, tokenizer):
    assert len(train_tokenizer(TEXTS, 300)) == 300 and len(tokenizer) <= 330  # there may be fewer words to learn
    again = train_tokenizer(TEXTS, 330)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    text = "1234 更 <|user|>\nx"
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id and tokenizer.decode(ids[1:]) == text
    assert tokenizer.convert_ids_to_tokens(ids)[1:5] == list("1234")
    assert tokenizer.convert_tokens_to_ids("<|user|>") in ids
    calls = []
    made = [cached_tokenizer(tmp_path / "t", lambda: calls.append(1) or tokenizer) for _ in range(2)]
    assert calls == [1]
    for loaded in made:
        assert loaded(text)["input_ids"] == ids
        assert (loaded.pad_token_id, loaded.bos_token_id, loaded.eos_token_id) == (0, 1, 2)
    with pytest.raises(InputError, match=f"at least {SMALLEST}"):
        train_tokenizer(TEXTS, SMALLEST - 1)
    with pytest.raises(InputError, match=r"task\.tokenizer: there is no folder .*nowhere"):
        load_tokenizer(tmp_path / "nowhere")


def test_it_learns_from_no_more_text_than_asked():
    assert train_tokenizer(["aa bb"] * 2 + ["zz zz"] * 50, 300, most=10).get_vocab().keys() == (
        train_tokenizer(["aa bb"] * 2, 300).get_vocab().keys()
    )


def test_a_tokenizer_without_a_padding_token(tokenizer):
    assert padding_id(tokenizer) == 0
    bare = copy.deepcopy(tokenizer)
    bare.pad_token = None
    assert padding_id(bare) == bare.eos_token_id
    bare.add_special_tokens({"pad_token": "[PAD]"})  # a language that was trained before does not know it
    assert bare.pad_token_id == len(bare) - 1 and padding_id(bare) == bare.eos_token_id
    bare.pad_token = None
    bare.eos_token = None
    with pytest.raises(InputError, match="neither a padding token nor an end token"):
        padding_id(bare)
    with pytest.raises(InputError, match="no end token"):
        template_of("less", bare)
