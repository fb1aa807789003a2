"""How adapters are trained and judged: steps, batches, schedules; what is learned of what; files as a task."""

from __future__ import annotations

import itertools
import json
import math
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tarot import InputError
from tasks.common import snapshots
from tasks.common.training import seeded
from tasks.instruction import (
    Adapter,
    Benchmark,
    Evaluation,
    InstructionTask,
    Language,
    Pretraining,
    Skills,
    Tuning,
    WarmUp,
)
from tasks.instruction.data import Files
from tasks.instruction.evaluation import (
    answer_losses,
    answer_start,
    choices,
    has_last_answer,
    is_right,
    prompts,
    written,
)
from tasks.instruction.reading import Row
from tasks.instruction.tokenizer import identity, load_tokenizer, train_tokenizer
from tasks.instruction.tokens import IGNORE, collate, tokenize
from tasks.instruction.training import tune
from tasks.task import SPLITS
from tests.tasks.instruction.conversations import write_conversations, write_model

SIZES = {"hidden": 16, "layers": 1, "heads": 2, "key_heads": 1, "intermediate": 24, "context": 128}


def task_of(folder, **options) -> InstructionTask:
    defaults = {
        "name": "small",
        "data": Skills(candidates=24, targets=6, validation=3, test=6, general_rows=60),
        "language": Language(**SIZES),
        "adapter": Adapter(rank=2, dropout=0.0),
        "train": Tuning(steps=3, batch_size=4, learning_rate=1e-2),
        "surrogate": WarmUp(checkpoints=2, share=0.5, train=Tuning(epochs=2, batch_size=4, learning_rate=1e-2)),
        "evaluation": Evaluation(limit=3),
        "vocabulary": 300,
        "cache_dir": folder / "cache",
        "device": "cpu",
    }
    return InstructionTask(**{**defaults, **options})


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> InstructionTask:
    return task_of(tmp_path_factory.mktemp("task"))


def fresh(task: InstructionTask):
    with seeded(0):
        return task.model()


# --- training --------------------------------------------------------------------------------------------------------


def test_a_step_is_the_mean_over_rows_however_it_is_split(task):
    """Against one plain AdamW step on the mean of losses; with a pass per row it comes to the same."""
    rows = task.candidates().take(range(4))
    weights, training = np.ones(4, dtype=np.int64), Tuning(steps=1, batch_size=4, learning_rate=1e-2, clip=None)
    found = []
    for tokens in (10_000, 1):
        model = fresh(task)
        tune(model, rows, weights, replace(training, tokens=tokens), 0, task.pad)
        found.append(model.state_dict())
    model = fresh(task).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.rate(0), weight_decay=0.0)
    task.losses(model, collate(task.pad)([rows[i] for i in range(4)])).mean().backward()
    optimizer.step()
    for name, expected in model.state_dict().items():
        for state in found:
            torch.testing.assert_close(state[name], expected, rtol=1e-3, atol=1e-5)


def test_gradients_are_clipped():
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = Tuning(clip=1.0).make_optimizer(iter([parameter]))
    parameter.grad = torch.tensor([30.0, 40.0])
    optimizer.step()
    torch.testing.assert_close(parameter.grad, torch.tensor([0.6, 0.8]), rtol=1e-4, atol=1e-6)
    parameter.grad = torch.zeros(2)
    optimizer.step()


def test_schedules():
    linear = Tuning(steps=100, learning_rate=1.0, warmup=0.1)
    assert [round(linear.rate(step), 3) for step in (0, 4, 9, 54, 99)] == [0.05, 0.45, 0.95, 0.506, 0.006]
    cosine = replace(linear, schedule="cosine")
    assert [cosine.rate(step) for step in (0, 9)] == pytest.approx([linear.rate(0), linear.rate(9)])
    assert cosine.rate(54) == pytest.approx((1 + math.cos(math.pi * 44.5 / 90)) / 2) and 0 < cosine.rate(99) < 1e-3


def test_less_has_the_mean_rates_of_its_four_epochs():
    """Of 420 steps of 128 rows (theory.md 2), to the half step that ours are shifted by."""
    training = Tuning(epochs=4, batch_size=128, learning_rate=2e-5, warmup=0.03).of(105 * 128)
    assert training.steps == 420 and training.epochs is None
    edges = (0, 105, 211, 317, 420)
    rates = [np.mean([training.rate(s) for s in range(a, b)]) for a, b in itertools.pairwise(edges)]
    np.testing.assert_allclose(rates, [1.6877e-5, 1.2859e-5, 7.7030e-6, 2.5616e-6], rtol=1.5e-2)


def test_epochs_count_repeated_rows():
    assert Tuning(epochs=3, batch_size=4).of(10).steps == 8 and Tuning(steps=7).of(10).steps == 7


def test_a_warm_up_sees_its_share(task):
    warm_up = WarmUp(share=0.25, train=Tuning(epochs=4, batch_size=4))
    drawn = warm_up.drawn(40, 3)
    assert drawn.sum() == 10 and drawn.max() == 1
    assert (drawn != warm_up.drawn(40, 4)).any()
    assert [replace(warm_up, share=0.001).drawn(n, 0).sum() for n in (40, 3)] == [4, 3]  # a batch, or all
    checkpoints = task.checkpoints()
    assert [set(c.optimizer_state) == set(fresh(task).adapters) for c in checkpoints] == [True, True]
    assert checkpoints[0].learning_rate > checkpoints[1].learning_rate > 0


def test_a_model_after_a_warm_up_is_as_fresh_as_any(tmp_path):
    """What the warm-up loaded is used again: with the same frozen weights, and the adapters that any other has."""
    path = str(write_model(tmp_path / "model"))
    warm, cold = (task_of(tmp_path / name, language=Language(path=path)) for name in ("warm", "cold"))
    warm.checkpoints()
    spare = warm._spare
    one, other = fresh(warm), fresh(cold)
    assert one.causal is spare and warm._spare is None
    frozen = [dict(model.named_parameters()) for model in (one, other)]
    assert list(frozen[0]) == list(frozen[1])
    for name, parameter in frozen[0].items():
        assert torch.equal(parameter, frozen[1][name]) and parameter.requires_grad == frozen[1][name].requires_grad
    batch = warm.collate([warm.candidates()[0], warm.candidates()[1]])
    assert torch.equal(warm.losses(one.eval(), batch), warm.losses(other.eval(), batch))


def test_a_warm_up_that_is_killed_goes_on(tmp_path, monkeypatch):
    """In the third of six steps, of which every third is a checkpoint: then from what was there after the second or the
    third; bit by bit what one has that was left alone, dropout and all."""
    options = {"adapter": Adapter(rank=2, dropout=0.5)}
    alone = task_of(tmp_path / "alone", **options).checkpoints()
    steps, rate, die_in = [], Tuning.set_rate, [None]

    def counted(self, optimizer, step):
        if step == die_in[0]:
            raise KeyboardInterrupt
        steps.append(step)
        return rate(self, optimizer, step)

    monkeypatch.setattr(Tuning, "set_rate", counted)
    for name, every, killed, left in (("often", 0.0, 2, [2, 3, 4, 5]), ("seldom", 1e9, 4, [3, 4, 5])):
        monkeypatch.setattr(snapshots, "EVERY", every)
        task, die_in[0] = task_of(tmp_path / name, **options), killed
        with pytest.raises(KeyboardInterrupt):
            task.checkpoints()
        die_in[0] = None
        steps.clear()
        found = task_of(tmp_path / name, **options).checkpoints()
        assert steps == left and not list((tmp_path / name / "cache/trainings").glob("*"))
        for one, other in zip(found, alone, strict=True):
            assert (one.name, one.learning_rate) == (other.name, other.learning_rate)
            assert all(torch.equal(one.state[key], other.state[key]) for key in other.state)
            for key, moments in other.optimizer_state.items():
                assert all(torch.equal(one.optimizer_state[key][of], moments[of]) for of in moments)


def test_a_warm_up_too_short_for_its_checkpoints_is_refused(tmp_path):
    with pytest.raises(InputError, match="a warm-up of 1 steps cannot give 3 checkpoints"):
        task_of(tmp_path, surrogate=WarmUp(checkpoints=3, share=0.05, train=Tuning(epochs=1))).checkpoints()


def test_pretraining_is_made_once_and_learns(tmp_path):
    options = {"pretraining": Pretraining(steps=30, batch_size=4, length=32, learning_rate=1e-2)}
    task = task_of(tmp_path, **options)
    random, made = task_of(tmp_path), list((tmp_path / "cache").glob("pretrained/*.safetensors"))
    rows = task.candidates()
    before, after = (answer_losses(fresh(one).eval(), rows, 4096, one.pad).mean() for one in (random, task))
    assert after < before - 0.3 and not made
    made = list((tmp_path / "cache").glob("pretrained/*.safetensors"))
    again = task_of(tmp_path, seed=1, **options)
    assert all(torch.equal(a, again._weights[name]) for name, a in task._weights.items())
    assert list((tmp_path / "cache").glob("pretrained/*.safetensors")) == made and len(made) == 1
    answers = task_of(tmp_path, pretraining=replace(options["pretraining"], learn="answers"))
    assert answers.recipe()["model"] != task.recipe()["model"] == again.recipe()["model"]


def test_a_selection_of_one_language_trains_another(tmp_path):
    """The stages see its state."""
    other = Language(**{**SIZES, "hidden": 24}, kind="qwen2")
    task, plain = task_of(tmp_path, transfer=other), task_of(tmp_path, language=other)
    chosen = SimpleNamespace(indices=np.array([1, 5, 9]), weights=np.array([1, 2, 1]))
    trained = task.train(chosen, seed=0)
    expected = plain.train(chosen, seed=0).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in trained.state_dict().items())
    assert task.evaluate(trained) == plain.evaluate(trained)
    task.downstream().load_state_dict(trained.state_dict())
    assert task.model().causal.config.model_type == "llama" and trained.causal.config.model_type == "qwen2"
    assert task.recipe()["model"] == task_of(tmp_path).recipe()["model"]
    assert task.recipe()["train"] != task_of(tmp_path).recipe()["train"]


def test_languages_with_tokenizers_of_their_own(tmp_path):
    """Rows go by their ids, and each of the two models is asked in its own tokens."""
    texts = [f"{i} apples and {i} pears are {2 * i} pieces of fruit" for i in range(40)]
    for name, vocabulary in (("small", 270), ("large", 330)):
        train_tokenizer(texts, vocabulary).save_pretrained(tmp_path / name)
        Language(**SIZES).base(vocabulary).save_pretrained(tmp_path / name)
    small, large = (Language(path=str(tmp_path / name)) for name in ("small", "large"))
    task = task_of(tmp_path, language=small, transfer={"path": str(tmp_path / "large")})
    plain = task_of(tmp_path, language=large)
    assert len(task.candidates()[0]["input_ids"]) > len(plain.candidates()[0]["input_ids"])
    chosen = SimpleNamespace(indices=np.array([1, 5, 9]), weights=np.array([1, 2, 1]))
    trained, expected = task.train(chosen, seed=0), plain.train(chosen, seed=0)
    assert all(torch.equal(value, expected.state_dict()[name]) for name, value in trained.state_dict().items())
    assert task.evaluate(trained) == plain.evaluate(expected)
    ours, theirs = (one.test()[0] for one in (task, plain))
    assert task.answer(trained.eval(), ours) == plain.answer(expected.eval(), theirs)
    assert task.answer(fresh(task).eval(), ours) == task_of(tmp_path, language=small).answer(fresh(task).eval(), ours)


def test_a_language_that_does_not_fit_is_refused(tmp_path):
    train_tokenizer(["a text"], 262).save_pretrained(tmp_path / "tokenizer")
    Language(**SIZES).base(100).save_pretrained(tmp_path / "language")
    options = {"language": Language(path=str(tmp_path / "language")), "tokenizer": str(tmp_path / "tokenizer")}
    with pytest.raises(InputError, match=r"hold the token '.*', number \d+, and the language knows 100"):
        task_of(tmp_path, **options).model()
    Language(**SIZES).base(288).save_pretrained(tmp_path / "language")  # more than there are tokens, as is usual
    task_of(tmp_path, **options).model()
    longer = load_tokenizer(tmp_path / "tokenizer")
    longer.add_tokens([f"[unused{i}]" for i in range(50)])
    longer.add_special_tokens({"pad_token": "[PAD]"})
    longer.save_pretrained(tmp_path / "longer")  # which do not occur
    task = task_of(tmp_path, **{**options, "tokenizer": str(tmp_path / "longer")})
    assert len(task.tokenizer) > 288 > task.pad and task.model() is not None
    with pytest.raises(InputError, match="tokens, the language's context 16: lower"):
        task_of(tmp_path, language=Language(**{**SIZES, "context": 16})).model()


def test_one_of_candidates_that_look_the_same_to_the_language(tmp_path):
    """Copies word for word do, whatever else there is; the language is asked once."""
    texts = [f"{'abcdefgh'[i]} is {i * 37} and {i}" for i in range(8)] * 3
    rows = [{"prompt": "what?", "response": text} for text in texts]
    (tmp_path / "pool.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "targets.jsonl").write_text(
        "\n".join(json.dumps({"prompt": f"{i}?", "response": "yes"}) for i in range(9))
    )
    data = Files(str(tmp_path / "pool.jsonl"), str(tmp_path / "targets.jsonl"), deduplicate="features")
    task = task_of(tmp_path, data=data)
    assert [row.where[-1:] for row in task.candidates().rows] == list("12345678")
    assert [row.copies for row in task.candidates().rows] == [3] * 8
    (looks,) = (tmp_path / "cache" / "looks").glob("*.safetensors")
    again = task_of(tmp_path, data=replace(data))
    assert again.candidates().ids == task.candidates().ids == [f"pool:{i}" for i in range(1, 9)]
    assert list((tmp_path / "cache" / "looks").glob("*.safetensors")) == [looks]
    assert task.account()["candidates"] == {
        "read": 24, "used": 8, "left_out": {"looking like another": 16}, "cut": 0, "masked": 0
    }  # fmt: skip
    plain = task_of(tmp_path, data=replace(data, deduplicate=None))
    assert len(plain.candidates()) == 24
    assert plain.split_recipe("candidates") != task.split_recipe("candidates")


def test_tokenizers_that_differ_in_a_special_token_do_not_mix(tmp_path):
    tokenizer = train_tokenizer(["a text"], 262)
    known = identity(tokenizer)
    tokenizer(["a text", "another"], padding=True, truncation=True, max_length=2)
    assert identity(tokenizer) == known
    tokenizer.eos_token = "<s>"
    assert identity(tokenizer) != known


# --- evaluation ------------------------------------------------------------------------------------------------------


def test_answers_begin_where_the_last_learned_run_does():
    labels = torch.tensor([IGNORE, 4, 5, IGNORE, IGNORE, 6, 7])
    assert answer_start(labels) == 5 and answer_start(torch.tensor([3, 4])) == 1


def test_what_is_written_does_not_depend_on_the_batch(task):
    model, data = fresh(task).eval(), task.test()
    many = written(model, prompts(data), task.tokenizer, Evaluation(limit=4), task.stops, task.pad)
    one = written(model, prompts(data), task.tokenizer, Evaluation(limit=4, tokens=1), task.stops, task.pad)
    assert many == one and len(many) == 6


def test_losses_of_answers(task):
    model, data = fresh(task).eval(), task.test()
    expected = [task.losses(model, task.collate([data[i]])).item() for i in range(len(data))]
    np.testing.assert_allclose(answer_losses(model, data, 4096, task.pad), expected, rtol=1e-5)
    sums = answer_losses(model, data, 64, task.pad, total=True)
    np.testing.assert_allclose(sums, expected * data.answer_lengths, rtol=1e-5)


def test_the_likeliest_option_is_taken(task):
    """Whichever of the options the model finds likeliest, it is right where that is the answer and nowhere else."""
    model = fresh(task).eval()
    options = (" red", " green and blue", " no")

    def question(answer: str) -> Row:
        said = f"It is:{answer}"
        return Row("q", (("user", "Which?"), ("assistant", said)), prefill="It is:", open=True, options=options)

    found = choices(model, [question(answer) for answer in options], task._tokenize, 4096, task.pad)
    losses = answer_losses(
        model, task._tokenize([replace(question(a), id=a) for a in options]), 64, task.pad, total=True
    )
    assert found.tolist() == [float(k == int(losses.argmin())) for k in range(3)]


def test_what_is_right():
    row = Row("a", (("user", "?"), ("assistant", "one  two\n")))
    assert is_right(" one two ", row) and not is_right("one Two", row) and not is_right("one two three", row)
    thanked = replace(row, messages=(*row.messages, ("user", "Thank you.")))
    assert is_right("one two", thanked) and not is_right("Thank you.", thanked)
    reasoned = replace(row, answer="(B)")
    assert is_right("Let us see. So the answer is (B). Next", reasoned) and not is_right(
        "So the answer is (A).", reasoned
    )


def test_what_lost_its_last_answer_is_not_judged_by_it(task):
    turns = (("user", "a"), ("assistant", "b"), ("user", "c " * 30), ("assistant", "d"))
    rows = [Row("cut", turns), Row("whole", turns[:2])]
    data = tokenize(rows, task.tokenizer, task.template, max_length=20)
    assert data.cut.tolist() == [True, False]
    assert [has_last_answer(data, i) for i in range(2)] == [False, True]
    long = tokenize([Row("long", (turns[0], ("assistant", "b " * 30)))], task.tokenizer, task.template, max_length=20)
    assert long.cut.all() and has_last_answer(long, 0)


def test_metrics_are_of_all_and_of_each_group(task):
    found = task.evaluate(fresh(task))
    groups = task.data.wanted
    assert list(found)[:2] == ["exact_match", "loss"]
    assert set(found) == {"exact_match", "loss", *(f"{m}/{g}" for m in ("exact_match", "loss") for g in groups)}
    assert found["loss"] == pytest.approx(np.mean([found[f"loss/{g}"] for g in groups]))


def test_tuning_on_what_is_tested_is_measured(tmp_path):
    """A model that is shown the test's own rows long enough says them."""
    training = Tuning(steps=100, batch_size=6, learning_rate=1e-2)
    adapter = Adapter(rank=16, alpha=64.0, dropout=0.0, modules=["q_proj", "v_proj", "up_proj", "lm_head"])
    language = Language(**SIZES, tied=False)
    task = task_of(tmp_path, train=training, adapter=adapter, language=language, evaluation=Evaluation(limit=12))
    model = fresh(task)
    before = task.evaluate(model)
    tune(model, task.test(), np.ones(6, dtype=np.int64), training, 0, task.pad)
    after = task.evaluate(model)
    assert after["loss"] < before["loss"] / 3 and after["exact_match"] > before["exact_match"]


# --- files -----------------------------------------------------------------------------------------------------------


def test_targets_are_held_out_where_there_are_no_files_for_it(tmp_path):
    write_conversations(tmp_path / "data", targets=20)
    files = Files(str(tmp_path / "data/candidates.jsonl"), str(tmp_path / "data/targets.jsonl"))
    rows = files.rows(0, lambda _: True)
    assert {split: len(found) for split, found in rows.items()} == {
        "candidates": 40, "targets": 14, "validation": 2, "test": 4
    }  # fmt: skip
    assert len({row.id for found in rows.values() for row in found}) == 60
    assert [row.id for row in rows["test"]] == [row.id for row in files.rows(0, lambda _: True)["test"]]
    assert [row.id for row in rows["test"]] != [row.id for row in files.rows(1, lambda _: True)["test"]]
    given = replace(files, test=str(tmp_path / "data/candidates.jsonl")).rows(0, lambda _: True)
    assert len(given["test"]) == 40 and given["test"][0].id.startswith("test/")
    assert len(given["targets"]) + len(given["validation"]) == 20


@pytest.mark.parametrize("how", [None, "exact", "minhash"])
def test_every_row_is_accounted_for(tmp_path, how):
    """Those that are not used by reason; all that were read are the one or the other."""
    said = "one two three four five six seven eight nine ten eleven twelve"
    masked = [{"role": "assistant", "content": "no", "weight": 0}, {"role": "assistant", "content": "yes"}]
    rows = [
        *({"prompt": "what?", "response": said} for _ in range(3)),
        {"prompt": "what?", "response": said + " thirteen"},
        {"prompt": "x?", "completion": "y", "label": False},
        {"prompt": "x?", "response": ""},
        {"messages": [{"role": "user", "content": "x"}, *masked]},
        {"prompt": "long " * 200, "response": "no"},
        {"prompt": "x?", "response": "long " * 200},
    ]
    (tmp_path / "pool.jsonl").write_text("not a row\n" + "".join(json.dumps(row) + "\n" for row in rows))
    wanted = ({"prompt": f"{'abcdefghijk'[i]}?", "response": "yes"} for i in range(10))
    (tmp_path / "wanted.jsonl").write_text("".join(json.dumps(row) + "\n" for row in wanted))
    data = Files(str(tmp_path / "pool.jsonl"), str(tmp_path / "wanted.jsonl"), deduplicate=how)
    found = task_of(tmp_path, data=data, max_length=96, nothing_left="drop").account()
    alike = {
        None: {},
        "exact": {"saying what another says (exact)": 2},
        "minhash": {"saying what another says (minhash)": 3},
    }
    assert found["candidates"].pop("left_out") == {
        "not JSON": 1,
        "with label false": 1,
        "without an answer": 1,
        "without an answer within 96 tokens": 1,
        **alike[how],
    }
    used = {None: 6, "exact": 4, "minhash": 3}[how]
    counted = {} if how else {"alike": {"exact": 2, "minhash": 3}}
    assert found["candidates"] == {"read": 10, "used": used, "cut": 1, "masked": 1, **counted}
    assert found["targets"]["left_out"] == {"held out": 3} and found["targets"]["used"] == 7
    for split in ("targets", "validation", "test"):
        assert found[split]["read"] == found[split]["used"] + sum(found[split]["left_out"].values())


def test_what_is_held_out_is_not_seen(tmp_path, caplog):
    def written(name, *questions):
        rows = [{"prompt": question, "completion": "yes"} for question in questions]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / name)

    pool = written("pool.jsonl", *"abc")
    wanted = written("wanted.jsonl", *"defghijk", *"defghijk")
    for seed in range(5):
        rows = Files(pool, wanted).rows(seed, lambda _: True)
        said = {split: {row.messages for row in found} for split, found in rows.items()}
        assert not said["targets"] & (said["test"] | said["validation"]) and not said["test"] & said["validation"]
        assert sum(len(found) for found in rows.values()) == 19
    with pytest.raises(InputError, match=r"1 rows of task.targets are in task.test, too, such as .*wanted.jsonl"):
        Files(pool, written("wanted.jsonl", *"defg"), test=written("test.jsonl", *"dxyz")).rows(0, lambda _: True)
    both = written("both.jsonl", "x", "y")
    with pytest.raises(InputError, match=r"2 rows of task.validation are in task.test"):
        Files(pool, wanted, validation=both, test=both).rows(0, lambda _: True)
    talk = [{"role": "user", "content": "d "}, {"role": "assistant", "content": "yes\n"}]
    (tmp_path / "talk.jsonl").write_text(json.dumps({"messages": talk}) + "\n")
    with pytest.raises(InputError, match=r"rows of task.targets are in task.test"):  # told otherwise, but the same
        Files(pool, wanted, test=str(tmp_path / "talk.jsonl")).rows(0, lambda _: True)
    Files(pool, wanted, test=written("other.jsonl", "a", "z")).rows(0, lambda _: True)
    assert "1 candidates are in task.test, too, word for word" in caplog.text


def test_questions_that_are_asked_twice_are_not_held_out_once(tmp_path):
    write_conversations(tmp_path / "data")

    def wanted(*pairs):
        rows = [{"prompt": question, "completion": answer} for question, answer in pairs]
        (tmp_path / "wanted.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return Files(str(tmp_path / "data/candidates.jsonl"), str(tmp_path / "wanted.jsonl"))

    for seed in range(5):
        rows = wanted(*((q, a) for q in "abcdefgh" for a in ("yes", "no")), ("i", "x")).rows(seed, lambda _: True)
        asked = {split: {row.messages[0] for row in rows[split]} for split in ("targets", "validation", "test")}
        assert not asked["targets"] & (asked["test"] | asked["validation"]) and len(asked["test"]) > 0
    same = wanted(*(("Write a line.", str(i)) for i in range(20))).rows(0, lambda _: True)
    assert [len(same[split]) for split in ("targets", "validation", "test")] == [14, 2, 4]


def test_too_few_targets_to_hold_some_out_are_refused(tmp_path):
    write_conversations(tmp_path / "data", targets=2)
    files = Files(str(tmp_path / "data/candidates.jsonl"), str(tmp_path / "data/targets.jsonl"))
    with pytest.raises(InputError, match=r"has 2 rows, too few to hold out validation and test.*task.held_out=0"):
        files.rows(0, lambda _: True)
    all_select = replace(files, held_out=0.0)
    assert [len(all_select.rows(0, lambda _: True)[split]) for split in SPLITS] == [40, 2, 0, 0]
    task = task_of(tmp_path, data=all_select)
    assert [len(task.splits[split]) for split in SPLITS] == [40, 2, 0, 0] and len(task.checkpoints()) == 2
    with pytest.raises(InputError, match="no test to judge by"):
        task.evaluate(fresh(task))


def test_groups_are_the_targets_subtasks(tmp_path):
    write_conversations(tmp_path / "data")
    files = Files(str(tmp_path / "data/candidates.jsonl"), str(tmp_path / "data/targets.jsonl"))
    task = task_of(tmp_path, data=files, vocabulary=300)
    assert set(task.target_groups().tolist()) == {"odd", "even"} and task.candidate_tags() is None
    assert task_of(tmp_path, data=files, total_share=0.25).total() == 10 and task.total() is None


def test_other_targets_leave_candidates_as_they_were(tmp_path):
    """Their features take hours where models are large."""
    write_conversations(tmp_path / "data", targets=20)
    pool, wanted = (str(tmp_path / f"data/{name}.jsonl") for name in ("candidates", "targets"))
    first, second = (task_of(tmp_path, data=Files(pool, wanted, held_out=share)) for share in (0.3, 0.6))
    assert first.ids("targets") != second.ids("targets")
    assert first.recipe() != second.recipe() and first.split_recipe("targets") != second.split_recipe("targets")
    assert first.split_recipe("candidates") == second.split_recipe("candidates")
    for task in first, second:
        task.checkpoints()
    assert len(list((tmp_path / "cache/checkpoints").glob("*.safetensors"))) == 1
    other = task_of(tmp_path, data=Files(wanted, pool))
    assert other.split_recipe("candidates") != first.split_recipe("candidates")


@pytest.mark.skipif("TAROT_DATA" not in os.environ, reason="TAROT_DATA says where instruct/ is")
@pytest.mark.parametrize(("targets", "count", "held_out"), [("mmlu", 285, 57), ("bbh", 81, 27)])
def test_a_benchmark_holds_questions_out(targets, count, held_out):
    folder = Path(os.environ["TAROT_DATA"], "instruct")
    data = Benchmark({"oasst1": str(folder / "oasst1.jsonl")}, str(folder / "eval" / targets), targets, 0, 1, 2)
    rows = data.rows(0, lambda _: True)
    assert [len(rows[split]) for split in ("targets", "validation", "test")] == [count, held_out, 2 * held_out]
    assert len({row.id for found in rows.values() for row in found}) == sum(map(len, rows.values()))
    assert {row.group for row in rows["test"]} == {row.group for row in rows["targets"]}


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tuning(optimizer="sgd"), "must be adamw"),
        (lambda: Tuning(schedule="step"), "linear or cosine"),
        (lambda: Tuning(tokens=0), "train.tokens must be at least 1"),
        (lambda: Tuning(clip=0.0), "train.clip"),
        (lambda: WarmUp(share=0.0), "surrogate.share"),
        (lambda: Pretraining(length=1), "length must be at least 2"),
        (lambda: Pretraining(learn="some"), "every or answers"),
        (lambda: Evaluation(limit=0), "task.evaluation.limit must be at least 1"),
        (lambda: Files("a", "b", held_out=1.0), "held_out"),
    ],
)
def test_impossible_options_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_language_with_a_path_is_not_pretrained(tmp_path):
    assert task_of(tmp_path, language=Language(path="somewhere"), pretraining=Pretraining()).pretraining is None
    with pytest.raises(InputError, match="text to learn has"):
        task_of(tmp_path, pretraining=Pretraining(length=10**6)).model()


def test_the_selection_decides_what_is_learned(task):
    def trained(indices: list[int], weights: list[int]) -> dict:
        chosen = SimpleNamespace(indices=np.array(indices), weights=np.array(weights))
        return task.train(chosen, seed=0).state_dict()

    one, two = trained([1, 2, 3], [1, 1, 1]), trained([4, 5, 6], [1, 1, 1])
    assert any(not torch.equal(one[name], two[name]) for name in one)
