"""What is asked of lm-eval and made of its answer: by a stand-in, and by lm-eval itself where it is installed."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import sys
from functools import partial
from types import ModuleType

import numpy as np
import pytest
import torch

from tarot import InputError
from tasks.instruction import Adapter, Evaluation, Language
from tasks.instruction import harness as room
from tasks.instruction.harness import HarnessTask, harness_metrics
from tasks.instruction.tokenizer import train_tokenizer
from tests.tasks.instruction.test_task import task_of

SIZES = {"hidden": 16, "layers": 1, "heads": 2, "key_heads": 1, "intermediate": 24, "context": 96}
WORDS = ["Which letter is it? A. one B. two C. three D. four", "Answer: B", "so the answer is red."]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(WORDS * 3, 280)


@pytest.fixture(scope="module")
def model(tokenizer):
    return Language(**SIZES).build(len(tokenizer), Adapter(rank=2))


@pytest.fixture
def asked(monkeypatch) -> list[dict]:
    """What lm-eval is asked for; it answers with what it gives for MMLU and BBH."""
    calls: list[dict] = []
    numbers = {"mmlu": (0.25, 0.5), "bbh_cot_fewshot": (0.75, 0.125)}

    def simple_evaluate(**options):
        calls.append(options)
        (task,) = options["tasks"]
        overall, one = numbers[task]
        metric = {"mmlu": "acc,none", "bbh_cot_fewshot": "exact_match,get-answer"}[task]
        results = {task: {"alias": task, metric: overall, "exact_match,none": -1.0}, f"{task}_snarks": {metric: one}}
        if task == "mmlu":
            results["mmlu_stem"] = {metric: -1.0}  # a group of subjects
        return {"results": results, "n-samples": {f"{task}_snarks": {"original": 9, "effective": 9}}}

    names = ("lm_eval", "lm_eval.models", "lm_eval.models.huggingface", "lm_eval.tasks")
    package, models, huggingface, tasks = (ModuleType(name) for name in names)
    package.__spec__ = importlib.machinery.ModuleSpec("lm_eval", None)
    package.simple_evaluate = simple_evaluate
    huggingface.HFLM = lambda **options: options
    tasks.TaskManager = object
    for module in package, models, huggingface, tasks:
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return calls


def test_what_papers_report_is_asked_for(asked, model, tokenizer):
    found = harness_metrics(model.train(), tokenizer, ["mmlu", "bbh"], tokens=400, length=4096, limit=3)
    assert found == {"mmlu": 0.25, "bbh": 0.75, "mmlu/snarks": 0.5, "bbh/snarks": 0.125}
    assert list(found)[:2] == ["mmlu", "bbh"]
    assert [call["num_fewshot"] for call in asked] == [5, None]
    assert all(call["limit"] == 3 and not call["apply_chat_template"] for call in asked)
    wrapped = asked[0]["model"]
    assert wrapped["pretrained"] is model.causal and not model.causal.training
    assert wrapped["max_length"] == 96 and wrapped["batch_size"] == 4  # no longer than the model reads


def test_it_comes_before_the_tasks_own_metrics(asked, tmp_path):
    folder = tmp_path / "model"
    small = task_of(tmp_path)
    small.language.base(len(small.tokenizer)).save_pretrained(folder)
    small.tokenizer.save_pretrained(folder)
    options = {"language": Language(path=str(folder)), "tokenizer": str(folder)}
    task = task_of(tmp_path, **options, evaluation=Evaluation(generate=False, harness=["bbh"], harness_limit=2))
    plain = task_of(tmp_path, **options, evaluation=Evaluation(generate=False))
    model = task.model()
    found, local = task.evaluate(model), plain.evaluate(model)
    assert list(found)[:2] == ["bbh", "bbh/snarks"] and {k: found[k] for k in local} == local
    assert task.evaluate(model, split="targets") == plain.evaluate(model, split="targets")
    assert len(asked) == 1 and asked[0]["limit"] == 2
    assert not task.lower_is_better("bbh")
    assert task.recipe() != plain.recipe() and json.loads(json.dumps(task.recipe())) == task.recipe()


def test_data_that_cannot_be_had_is_one_line(asked, model, tokenizer, monkeypatch):
    def offline(**options):
        raise ConnectionError("Couldn't reach 'somewhere/mmlu' on the Hub\nand much more")

    monkeypatch.setattr(sys.modules["lm_eval"], "simple_evaluate", offline)
    with pytest.raises(InputError, match=r"^lm-eval cannot run mmlu: Couldn't reach 'somewhere/mmlu' on the Hub$"):
        harness_metrics(model, tokenizer, ["mmlu"], tokens=400, length=96)


def test_what_is_wrong_is_said_before_anything_is_computed(asked, monkeypatch, tmp_path):
    with pytest.raises(InputError, match="there is no 'mmul'; there are mmlu, bbh"):
        Evaluation(harness=["mmul"])
    with pytest.raises(InputError, match="harness_limit must be at least 1 or null"):
        Evaluation(harness_limit=0)
    with pytest.raises(InputError, match=r"for real models: give task\.language\.path"):
        task_of(tmp_path, evaluation=Evaluation(harness=["mmlu"]))
    monkeypatch.setattr(room.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="lm-eval is not installed: pip install lm-eval"):
        Evaluation(harness=["mmlu"])


# --- lm-eval itself --------------------------------------------------------------------------------------------------

CHOICE = """
task: tarot_letters
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/letters.jsonl, dev: FOLDER/letters.jsonl}}
test_split: test
fewshot_split: dev
fewshot_config: {sampler: first_n}
output_type: multiple_choice
doc_to_text: "{{question}}\\nAnswer:"
doc_to_choice: ["A", "B", "C", "D"]
doc_to_target: answer
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
WRITTEN = """
task: tarot_words
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/letters.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}\\n"
doc_to_target: "{{word}}"
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
generation_kwargs: {until: ["\\n\\n"], do_sample: false, max_gen_toks: 4}
filter_list: [{name: get-answer, filter: [{function: regex, regex_pattern: "(.*)"}, {function: take_first}]}]
"""


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="needs lm-eval: pip install lm-eval")
def test_lm_eval_finds_what_our_own_evaluator_finds(model, tokenizer, tmp_path, monkeypatch):
    """The likeliest letter after the same prompts, by a forward pass of ours."""
    import lm_eval.tasks

    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    rows = [{"question": f"{'one two three'[: 3 + i]}?", "answer": i % 4, "word": "red"} for i in range(8)]
    (tmp_path / "letters.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "letters.yaml").write_text(CHOICE.replace("FOLDER", str(tmp_path)))
    (tmp_path / "words.yaml").write_text(WRITTEN.replace("FOLDER", str(tmp_path)))
    manager = partial(lm_eval.tasks.TaskManager, include_path=str(tmp_path), include_defaults=False)
    monkeypatch.setattr(lm_eval.tasks, "TaskManager", manager)
    local = {
        "mmlu": HarnessTask("tarot_letters", "acc,none", examples=1),
        "bbh": HarnessTask("tarot_words", "exact_match,get-answer"),
    }
    monkeypatch.setattr(room, "BENCHMARKS", local)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    found = harness_metrics(model, tokenizer, ["mmlu", "bbh"], tokens=192, length=96)
    assert torch.equal(torch.get_rng_state(), state)
    right = 0
    for i, row in enumerate(rows):
        example = rows[1] if i == 0 else rows[0]  # the first that is not the question itself
        text = f"{example['question']}\nAnswer: {'ABCD'[example['answer']]}\n\n{row['question']}\nAnswer:"
        start = len(tokenizer(text).input_ids)
        likelihoods = []
        for letter in "ABCD":
            ids = tokenizer(f"{text} {letter}", return_tensors="pt").input_ids
            scores = model(ids)[0].log_softmax(-1).detach()
            likelihoods.append(sum(float(scores[t - 1, ids[0, t]]) for t in range(start, ids.shape[1])))
        right += int(np.argmax(likelihoods)) == row["answer"]
    assert found["mmlu"] == pytest.approx(right / len(rows))
    assert found["mmlu/tarot_letters"] == found["mmlu"] and 0 <= found["bbh"] <= 1
