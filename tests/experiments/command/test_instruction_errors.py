"""Conversations that nothing can be learned from, and what else goes wrong with them, from the command line; and a kill
in the middle of their features."""

from __future__ import annotations

import json
import time
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

pytest.importorskip("peft")

import hydra
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from experiments.stages import Workbench
from tarot import Selection
from tarot.features.store import FeatureStore
from tarot.featurize import RowsOf
from tests.experiments.command.test_configs import composed
from tests.experiments.command.test_errors import refused
from tests.experiments.running import Outcome, command, started
from tests.experiments.selection.test_instruction_selected import SMALL
from tests.tasks.instruction.conversations import write_files
from tests.test_run import wait_for

FILES = (
    "task=instruction/files",
    "task.max_length=64",
    *(o for o in SMALL if not o.startswith(("task=", "task.data.", "task.language.", "task.pretraining."))),
    "task.surrogate.share=0.2",
    "selector=tarot_fixed",
    "selector.size=4",
    "experiment.trainings=1",
    "experiment.arms=[]",
    "experiment.tsne_points=30",
)
ASKED = {"role": "user", "content": "What is 1 and 1?"}
GOOD = {"messages": [ASKED, {"role": "assistant", "content": "it is 2"}]}
LONG = {"messages": [{"role": "user", "content": "What is 1 and 1? " * 200}, {"role": "assistant", "content": "2"}]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("conversations")
    write_files(folder / "good")
    kinds = {
        "unanswered": [GOOD, {"messages": [ASKED]}],
        "empty": [],
        "long": [GOOD, LONG],
        "all_long": [LONG],
        "asked": [{"ask": "x", "reply": "y"}],
        "twice": [{**GOOD, "id": "x"}, GOOD, {**GOOD, "id": "x"}],
    }
    for name, rows in kinds.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def count_loads(monkeypatch) -> list[str]:
    """The paths of models that transformers is asked for, as it is asked."""
    loads, load = [], AutoModelForCausalLM.from_pretrained

    def counted(path, *args, **options):
        loads.append(str(path))
        return load(path, *args, **options)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", counted)
    return loads


def run(folder: Path, *options: str, name: str) -> Outcome:
    good = folder / "good"
    given = (
        f"task.candidates={good}/candidates.jsonl",
        f"task.targets={good}/targets.jsonl",
        f"task.language.path={good}/model",
    )
    keys = {option.partition("=")[0] for option in options}
    return command(folder, *FILES, *(g for g in given if g.partition("=")[0] not in keys), *options, name=name)


# options, and what the sentence must name
BAD = {
    "no answer": (
        "task.candidates={}/unanswered.jsonl task.on_bad_row=raise",
        "unanswered.jsonl:2",
        "no message is the assistant's",
    ),
    "no answer in a target": (
        "task.targets={}/unanswered.jsonl task.on_bad_row=raise",
        "unanswered.jsonl:2",
        "the assistant's",
    ),
    "no rows": ("task.candidates={}/empty.jsonl", "empty.jsonl is empty"),
    "no targets": ("task.targets={}/empty.jsonl", "empty.jsonl is empty"),
    "no file": ("task.candidates={}/nowhere.jsonl", "task.candidates: ", "nowhere.jsonl is not there"),
    "no file of targets": ("task.targets={}/nowhere.jsonl", "task.targets: ", "nowhere.jsonl is not there"),
    "other columns": ("task.candidates={}/asked.jsonl", "asked.jsonl:1", "this one has ask, reply", "task.columns"),
    "an option that there is not": ("task.candidate=x", "no option task.candidate; do you mean task.candidates?"),
    "no option like it": ("selector.tokenz=3 selector=herding", "no option selector.tokenz; selector has size, ratio"),
    "nothing left": (
        "task.candidates={}/long.jsonl task.nothing_left=raise",
        "long.jsonl:2",
        "nothing left to learn",
        "nothing_left=drop",
    ),
    "nothing left of any": ("task.candidates={}/all_long.jsonl", "none of 1 rows has an answer within 64 tokens"),
    "an id twice": (
        "task.candidates={}/twice.jsonl task.on_bad_row=raise",
        "twice.jsonl:3",
        "the id 'x'",
        "twice.jsonl:1",
    ),
    "columns": ("task.columns={{question:q}}", "task.columns names", "prompt"),
    "a format": ("task.format=alpaca", "task.format", "trl", "axolotl", "'alpaca'"),
    "modules": ("task.adapter.modules=[q_proj,query]", "task.adapter.modules", "'query'", "q_proj"),
    "tokenizer": ("task.tokenizer={}/nowhere", "task.tokenizer: there is no folder", "nowhere"),
    "language": ("task.language.path={0}/nowhere", "task.language.path: there is no folder", "nowhere", "on the hub"),
    "a language beside a tokenizer": (
        "task.language.path={0}/nowhere task.tokenizer={0}/good/model",
        "task.language.path: there is no folder",
    ),
    "a folder of no language": ("task.language.path={}/good", "task.language.path", "has no config.json"),
    "a file as language": ("task.language.path={}/long.jsonl", "task.language.path", "is no folder"),
    "no language": ("task.language.path=null", "task.language.path=/models/", "task=features", "task=instruction"),
    "nothing to judge by": ("task.held_out=0", "experiment.trainings=1", "task.held_out", "experiment.trainings=0"),
    "harness": ("task.evaluation.harness=[mmul]", "task.evaluation.harness", "'mmul'", "mmlu, bbh"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_conversations_are_one_sentence(folder, name):
    options, *words = BAD[name]
    refused(run(folder, *options.format(folder).split(), name=f"bad {name}"), *words)


def test_modules_are_looked_for_before_anything_is_trained(folder):
    refused(command(folder, *SMALL, "task.adapter.modules=[query]", name="early"), "'query'")
    assert not list((folder / "cache").glob("pretrained/*.safetensors"))


def test_a_tokenizer_without_a_padding_token_does(folder):
    """As LLaMA's; its words are all that it knows."""
    words = ["</s>", "<unk>", "What", "is", "and", "it", *map(str, range(300)), *"?<|>-:\n", "user", "assistant"]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(dict.fromkeys(words))}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", unk_token="<unk>")
    assert tokenizer.pad_token_id is None
    tokenizer.save_pretrained(folder / "words")
    outcome = run(folder, f"task.tokenizer={folder}/words", "task.evaluation.generate=true", name="words")
    assert outcome.metrics["selection"]["size"] == 4 and outcome.metrics["metrics"]["loss"] > 0


# --- what a user gives ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2])
def test_a_target_or_two_select(folder, count, monkeypatch):
    """Three overrides are enough: all targets select, nothing is trained, and the model is loaded once."""
    loads = count_loads(monkeypatch)
    rows = (folder / "good" / "targets.jsonl").read_text().splitlines()[:count]
    (folder / f"{count}.jsonl").write_text("\n".join(rows) + "\n")
    outcome = command(
        folder,
        "task=instruction/files",
        f"task.candidates={folder}/good/candidates.jsonl",
        f"task.targets={folder}/{count}.jsonl",
        f"task.language.path={folder}/good/model",
        name=f"few {count}",
    )
    found = outcome.metrics
    assert found["data"]["candidates"]["used"] == 40 and found["data"]["targets"]["read"] == count
    assert found["metrics"] == {} and "held out" not in outcome.out and "to train" not in outcome.out
    selection = Selection.load(outcome.output / "selection.parquet")
    assert selection.m == count and 1 <= len(selection) < 40
    assert len((outcome.output / "selected.jsonl").read_text().splitlines()) == len(selection)
    assert len(loads) == 1


def test_a_budget_in_tokens_for_two_files_of_targets(folder):
    """With quotas of two files of candidates; rows are as long as their tokens."""
    lines = (folder / "good" / "targets.jsonl").read_text().splitlines(keepends=True)
    (folder / "x.jsonl").write_text("".join(lines[:5]))
    (folder / "y.jsonl").write_text("".join(lines[5:8]))
    pool = (folder / "good" / "candidates.jsonl").read_text().splitlines(keepends=True)
    (folder / "a.jsonl").write_text("".join(pool[:20]))
    (folder / "b.jsonl").write_text("".join(pool[20:]))
    outcome = command(
        folder,
        "task=instruction/files",
        f"task.candidates={{a: {folder}/a.jsonl, b: {folder}/b.jsonl}}",
        f"task.targets={{x: {folder}/x.jsonl, y: {folder}/y.jsonl}}",
        "task.target_weights={x: 1, y: 3}",
        f"task.language.path={folder}/good/model",
        "selector=tarot_fixed",
        "selector.tokens=400",
        "selector.quota={b: 0.25}",
        "task.surrogate.checkpoints=1",
        "features.dim=16",
        "experiment.arms=[]",
        name="budget",
    )
    assert outcome.code == 0, outcome.err
    chosen = Selection.load(outcome.output / "selection.parquet")
    assert chosen.selector["tokens"] == 400 and chosen.m == 8
    config = composed("task=instruction/files", f"task.candidates={folder}/good/candidates.jsonl",
                      f"task.targets={folder}/x.jsonl", f"task.language.path={folder}/good/model")  # fmt: skip
    costs = hydra.utils.instantiate(config.task).candidate_costs()[chosen.indices]
    of_b = chosen.indices >= 20
    assert 300 < costs.sum() <= 400 and 50 < costs[of_b].sum() <= 100


# --- a kill ----------------------------------------------------------------------------------------------------------


def held() -> AbstractContextManager:
    """Within it no features are computed but those of the first two shards."""
    rows = RowsOf.rows

    def waiting(self, maker, start, stop):
        time.sleep(300 if start >= 16 else 0)
        return rows(self, maker, start, stop)

    patched = ExitStack()
    patched.enter_context(small_shards())
    patched.enter_context(mock.patch.object(RowsOf, "rows", waiting))
    return patched


def small_shards() -> AbstractContextManager:
    blueprint = RowsOf.blueprint
    return mock.patch.object(RowsOf, "blueprint", lambda self: replace(blueprint(self), rows_per_shard=8))


def content(store: FeatureStore) -> dict[str, np.ndarray]:
    return {"features": store[:], "ids": store.ids, **store.columns}


def test_features_go_on_after_a_kill(tmp_path, monkeypatch):
    """SIGKILL after two of five shards: what was finished is not computed again, and rows are those of a run that was
    left alone."""
    options = [*SMALL, "selector=tarot_fixed", "selector.size=6", "experiment.trainings=1", "experiment.arms=[]"]
    killed = started(tmp_path, *options, name="killed", around=held)
    try:
        wait_for(
            "cache/features/.*-candidates-*.part/00001-*.safetensors", tmp_path, lambda: killed.exitcode, seconds=600
        )
    finally:
        killed.kill()
        killed.join(timeout=300)
    (part,) = (tmp_path / "cache/features").glob(".*-candidates-*.part")
    kept = {file.name: file.stat().st_mtime_ns for file in part.glob("0*")}
    assert len(kept) == 2

    computed, rows = [], RowsOf.rows

    def counted(self, maker, start, stop):
        computed.append((self.description.split()[4], start))
        return rows(self, maker, start, stop)

    monkeypatch.setattr(RowsOf, "rows", counted)
    with small_shards():
        outcome = command(tmp_path, *options, "experiment.tsne_points=30")
    assert outcome.metrics["selection"]["size"] == 6
    assert [start for split, start in computed if split == "candidates,"] == [16, 24, 32]
    (path,) = (tmp_path / "cache/features").glob("*-candidates-*[!k]")
    assert {name: (path / name).stat().st_mtime_ns for name in kept} == kept

    config = composed(*options, f"cache_dir={tmp_path / 'cache'}")
    task, recipe = (hydra.utils.instantiate(config[key]) for key in ("task", "features"))
    with small_shards():
        alone = Workbench(task, recipe, tmp_path / "alone", "cpu").features().candidates[0]
    for name, values in content(FeatureStore.open(path)).items():
        np.testing.assert_array_equal(values, content(alone)[name])
