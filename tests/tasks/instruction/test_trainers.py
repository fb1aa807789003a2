"""What is selected as trainers take it: in one form for all, and in that of TRL, LLaMA-Factory and axolotl."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("transformers")

from tarot import Selection
from tasks.instruction.reading import Row, read_rows
from tasks.instruction.selected import ForTrainers, write_selected

CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
TALK = (("user", "q"), ("assistant", "a"))
ROWS = {
    "plain": Row("plain", (("prompt", "x"), ("completion", "y"))),
    "text": Row("text", (("prompt", ""), ("completion", "y"))),
    "talk": Row("talk", (("system", "s"), *TALK, ("user", "q2"), ("assistant", "a2"), ("user", "bye"))),
    "masked": Row("masked", (*TALK, ("user", "q2"), ("assistant", "a2")), masked=frozenset({1})),
    "calls": Row(
        "calls",
        (("user", "q"), ("assistant", ""), ("tool", "t"), ("tool", "u"), ("assistant", "a")),
        more={1: {"tool_calls": [CALL]}},
        tools=(TOOL,),
    ),
    "unequal": Row("unequal", (("user", "q"), *TALK)),
}


def written(folder: Path, *names: str, weights: tuple[int, ...] = (), **options) -> dict[str, list[dict] | str]:
    """The files' names, and what is in them."""
    rows = [ROWS[name] for name in names]
    selection = Selection(np.arange(len(rows)), len(rows), 1, {"name": "test"})
    for name, values in (
        ("weights", np.array(weights or [1] * len(rows))),
        ("nearest_target", np.zeros(len(rows), dtype=np.int64)),
        ("nearest_distance", np.full(len(rows), 0.5)),
    ):
        selection._remember(name, values)
    found = {}
    for name, write in ForTrainers(**options).files(rows, ["t"], selection).items():
        write(folder / name)
        content = (folder / name).read_text()
        found[name] = [json.loads(line) for line in content.splitlines()] if name.endswith("jsonl") else content
    return found


def test_one_form_for_all_that_can_be_read_again(tmp_path):
    (name,) = found = written(tmp_path, *ROWS)
    assert name == "selected.messages.jsonl"
    assert [line["id"] for line in found[name]] == list(ROWS)
    assert [turn["role"] for turn in found[name][0]["messages"]] == ["user", "assistant"]
    assert found[name][3]["messages"][1] == {"role": "assistant", "content": "a", "weight": 0}
    assert {key: found[name][4][key] for key in ("weight", "nearest_target", "distance")} == {
        "weight": 1,
        "nearest_target": "t",
        "distance": 0.5,
    }
    for row, again in zip(ROWS.values(), read_rows(tmp_path / name), strict=True):
        assert (again.id, again.masked, again.tools) == (row.id, row.masked, row.tools)
        if not row.plain:
            assert (again.messages, dict(again.more)) == (row.messages, dict(row.more))


def test_rows_come_as_often_as_they_weigh(tmp_path):
    found = written(tmp_path, "talk", "plain", weights=(3, 1), repeat=True, format="axolotl")
    assert [line["id"] for line in found["selected.messages.jsonl"]] == ["talk"] * 3 + ["plain"]
    assert [len(line["messages"]) for line in found["selected.axolotl.jsonl"]] == [6, 6, 6, 2]
    once = written(tmp_path, "talk", "plain", weights=(3, 1), format="trl")
    assert [line["weight"] for line in once["selected.messages.jsonl"]] == [3, 1]
    assert len(once["selected.trl.jsonl"]) == 2


def test_copies_are_told(tmp_path):
    from dataclasses import replace

    rows = [replace(ROWS["plain"], copies=3), ROWS["talk"]]
    selection = Selection(np.arange(2), 2, 1, {"name": "test"})
    for name in ("weights", "nearest_target", "nearest_distance"):
        selection._remember(name, np.array([1, 1]) if name == "weights" else np.zeros(2, dtype=np.int64))
    write_selected(rows, ["t"], selection, tmp_path / "selected.jsonl")
    assert [json.loads(line)["copies"] for line in (tmp_path / "selected.jsonl").read_text().splitlines()] == [3, 1]


def test_trl(tmp_path):
    found = written(tmp_path, "plain", "text", format="trl")
    assert found["selected.trl.jsonl"] == [{"prompt": "x", "completion": "y"}, {"prompt": "", "completion": "y"}]
    assert "completion_only_loss=True" in found["selected.trl.py"]
    found = written(tmp_path, "plain", "talk", "calls", format="trl")
    assert [sorted(line) for line in found["selected.trl.jsonl"]] == [["messages", "tools"]] * 3
    assert found["selected.trl.jsonl"][2]["messages"][1] == {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert "assistant_only_loss=True" in found["selected.trl.py"]
    compile(found["selected.trl.py"], "selected.trl.py", "exec")
    found = written(tmp_path, "text", "talk", "masked", format="trl")  # each learned answer, behind what comes before
    lines = found["selected.trl.jsonl"]
    assert [(len(line["prompt"]), line["completion"][0]["content"]) for line in lines] == [
        (1, "y"),
        (2, "a"),
        (4, "a2"),
        (3, "a2"),
    ]
    assert "completion_only_loss=True" in found["selected.trl.py"]


def test_llamafactory(tmp_path, caplog):
    found = written(tmp_path, "plain", "talk", "calls", "unequal", format="llamafactory")
    lines = found["selected.llamafactory.jsonl"]
    assert [[turn["from"] for turn in line["conversations"]] for line in lines] == [
        ["human", "gpt"],
        ["system", "human", "gpt", "human", "gpt"],  # what comes after the last answer is nobody's to learn
        ["human", "function_call", "observation", "gpt"],
    ]
    assert "1 selected rows are not written for LLaMA-Factory" in caplog.text
    assert lines[2]["conversations"][1]["value"] == '{"name": "f", "arguments": {"x": 1}}'
    rows = read_rows(f"{tmp_path}/dataset_info.json:selected")  # the entry says what the file is
    assert [row.messages[-1] for row in rows] == [("assistant", text) for text in ("y", "a2", "a")]
    assert rows[2].more[1]["tool_calls"] == [CALL] and rows[2].tools == (TOOL,)
    found = written(tmp_path, "talk", "masked", format="llamafactory")
    assert [line["conversations"][-1]["value"] for line in found["selected.llamafactory.jsonl"]] == ["a", "a2", "a2"]
    assert yaml.safe_load(found["selected.llamafactory.yaml"])["mask_history"] is True


def test_axolotl(tmp_path):
    found = written(tmp_path, "masked", "text", "calls", format="axolotl")
    marks = [[turn["training"] for turn in line["messages"]] for line in found["selected.axolotl.jsonl"]]
    assert marks == [[False, False, False, True], [True], [False, True, False, False, True]]
    (entry,) = yaml.safe_load(found["selected.axolotl.yaml"])["datasets"]
    assert entry["path"] == "selected.axolotl.jsonl" and entry["message_field_training"] == "training"
    found = written(tmp_path, "plain", format="axolotl")
    assert found["selected.axolotl.jsonl"] == [{"prompt": "x", "completion": "y"}]
    (entry,) = yaml.safe_load(found["selected.axolotl.yaml"])["datasets"]
    assert entry["type"]["field_output"] == "completion" and entry["type"]["no_input_format"] == "{instruction}"


CASES = [("plain", "text"), ("plain", "talk", "calls"), ("text", "talk", "masked")]
CALLED = '<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>'


def model_of(folder: Path) -> Path:
    """A folder with a small Qwen2 whose template names its turns as those of models do: axolotl looks for that."""
    from transformers import AutoModelForCausalLM, Qwen2Config

    from tasks.instruction.tokenizer import train_tokenizer
    from tests.tasks.instruction.chat_templates import QWEN2

    tokenizer = train_tokenizer(["q a s y x f"] * 3, 300)
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>"})
    tokenizer.chat_template = re.sub(r"\bm\b", "message", QWEN2)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Qwen2Config(vocab_size=len(tokenizer), **sizes, num_key_value_heads=1, max_position_embeddings=2048)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def learned_of(samples, tokenizer) -> list[str]:
    kept = ([token for token in sample["labels"] if token != -100] for sample in samples)
    return [tokenizer.decode(tokens).replace("<|im_end|>\n", "<|im_end|>") for tokens in kept]


@pytest.mark.slow
@pytest.mark.parametrize("names", CASES)
def test_llamafactory_itself_learns_what_is_learned(tmp_path, monkeypatch, names):
    """Where LLaMA-Factory is there: its own loader takes the list, and learns of the answers and of nothing else."""
    data = pytest.importorskip("llamafactory.data", exc_type=ImportError)
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    found = written(tmp_path, *names, format="llamafactory")
    monkeypatch.chdir(tmp_path)
    model = str(model_of(tmp_path / "model"))
    ours = yaml.safe_load(found["selected.llamafactory.yaml"])
    its = {"model_name_or_path": model, "template": "qwen", "stage": "sft", "do_train": True, "use_cpu": True}
    arguments = {**ours, **its, "finetuning_type": "full", "output_dir": "out", "report_to": "none"}
    of_model, of_data, of_training, *_ = get_train_args(arguments)
    tokenizer = load_tokenizer(of_model)["tokenizer"]
    template = data.get_template_and_fix_tokenizer(tokenizer, of_data)
    samples = data.get_dataset(template, of_model, of_data, of_training, stage="sft", tokenizer=tokenizer)
    assert (
        learned_of(samples["train_dataset"], tokenizer)
        == {
            "text": ["y<|im_end|>"],  # it has no form for an answer to nothing
            "calls": ["y<|im_end|>", "a<|im_end|>a2<|im_end|>", f"{CALLED}<|im_end|>a<|im_end|>"],
            "masked": ["a<|im_end|>", "a2<|im_end|>", "a2<|im_end|>"],
        }[names[-1]]
    )


@pytest.mark.slow
@pytest.mark.parametrize("names", CASES)
def test_axolotl_itself_learns_what_is_learned(tmp_path, monkeypatch, names):
    """Where axolotl is there: its own loader takes the entry, and learns of the answers and of nothing else."""
    monkeypatch.setenv("AXOLOTL_DO_NOT_TRACK", "1")
    sft = pytest.importorskip("axolotl.utils.data.sft", exc_type=ImportError)
    from axolotl.utils.dict import DictDefault
    from transformers import AutoTokenizer

    found = written(tmp_path, *names, format="axolotl")
    monkeypatch.chdir(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(model_of(tmp_path / "model"))
    config = DictDefault({**yaml.safe_load(found["selected.axolotl.yaml"]), "sequence_len": 2048})
    (entry,) = config.datasets
    samples, _ = sft._load_and_process_single_dataset(entry, config, tokenizer, "train", 0)
    assert (
        learned_of(samples, tokenizer)
        == {
            "text": ["y<|im_end|>"] * 2,
            "calls": ["y<|im_end|>", "a<|im_end|>a2<|im_end|>", f"{CALLED}<|im_end|>a<|im_end|>"],
            "masked": ["y<|im_end|>", "a<|im_end|>a2<|im_end|>", "a2<|im_end|>"],
        }[names[-1]]
    )


@pytest.mark.slow
@pytest.mark.parametrize("names", CASES)
def test_trl_itself_learns_what_is_learned(tmp_path, names):
    """Where TRL is there: its trainer takes the file, and learns of the answers and of nothing else."""
    trl = pytest.importorskip("trl")
    from datasets import load_dataset

    from tasks.instruction import Language
    from tasks.instruction.tokenizer import train_tokenizer
    from tests.tasks.instruction.chat_templates import QWEN2

    found = written(tmp_path, *names, format="trl")
    tokenizer = train_tokenizer(["q a s y x f"] * 3, 300)
    tokenizer.chat_template = QWEN2
    language = Language(hidden=16, layers=1, heads=2, key_heads=1, intermediate=16, context=256).base(len(tokenizer))
    kind = "completion_only_loss" if "completion_only_loss" in found["selected.trl.py"] else "assistant_only_loss"
    options = trl.SFTConfig(str(tmp_path / "out"), max_steps=1, use_cpu=True, report_to=[], **{kind: True})
    file = str(tmp_path / "selected.trl.jsonl")
    data = load_dataset("json", data_files=file, split="train", cache_dir=str(tmp_path / "cache"))
    trainer = trl.SFTTrainer(language, args=options, train_dataset=data, processing_class=tokenizer)
    learned = [
        tokenizer.decode([token for token in sample["labels"] if token != -100]).replace("<|im_end|>", "").strip()
        for sample in trainer.train_dataset
    ]
    assert (
        learned
        == {
            "text": ["y</s>"] * 2,
            "talk": ["y", "a\na2", '<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>\na'],
            "masked": ["y", "a", "a2", "a2"],
        }[names[-1] if names[-1] != "calls" else "talk"]
    )
    trainer.train()
    assert trainer.state.global_step == 1
