"""Adapters that a Trainer left, as the surrogate: the same weights and moments as it had, whoever wrote them down."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.data import Dataset
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from tarot import InputError
from tarot.gradients import Projection, adam_features
from tarot.integrations.moments import FILE
from tarot.integrations.transformers import LessCheckpoints
from tasks.instruction import Adapter, Evaluation, FilesTask, Language, Tuning, WarmUp
from tests.tasks.instruction.conversations import write_files

RATE = 1e-3


class Tokens(Dataset):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = torch.arange(12) + 20 * index
        return {"input_ids": ids, "labels": ids}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A user's files, and `warmup`, where two epochs of a Trainer left checkpoints, and our callback others."""
    home = tmp_path_factory.mktemp("home")
    write_files(home / "data")
    net = AutoModelForCausalLM.from_pretrained(home / "data/model")
    torch.manual_seed(0)
    lora = LoraConfig(r=2, lora_alpha=4, lora_dropout=0.1, target_modules=["q_proj", "v_proj", "down_proj"])
    args = TrainingArguments(
        output_dir=str(home / "warmup"),
        num_train_epochs=2,
        per_device_train_batch_size=4,
        learning_rate=RATE,
        logging_steps=1,
        save_strategy="epoch",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    Trainer(get_peft_model(net, lora), args, train_dataset=Tokens(), callbacks=[LessCheckpoints()]).train()
    return home


def task_of(home: Path, adapters: str | list[str], **options) -> FilesTask:
    given = {
        "name": "trained",
        "candidates": str(home / "data/candidates.jsonl"),
        "targets": str(home / "data/targets.jsonl"),
        "language": Language(),
        "adapter": Adapter(),
        "train": Tuning(steps=1),
        "surrogate": WarmUp(adapters=adapters),
        "evaluation": Evaluation(),
        "cache_dir": home / "cache",
        "device": "cpu",
    }
    return FilesTask(**{**given, **options})


def test_a_trainer_and_the_callback_leave_the_same(home):
    trainer, callback = (task_of(home, str(home / path)) for path in ("warmup", "warmup/tarot"))
    one, other = trainer.checkpoints(), callback.checkpoints()
    assert [c.name for c in one] == [c.name for c in other] == ["checkpoint-2", "checkpoint-4"]
    np.testing.assert_allclose([c.learning_rate for c in other], [RATE * 7 / 8, RATE * 3 / 8])  # 1, 3/4, 1/2, 1/4
    for first, second in zip(one, other, strict=True):
        assert list(first.state) == list(trainer.model().adapters)
        assert len(first.optimizer_state) == 6 and {s["step"].item() for s in first.optimizer_state.values()} in (
            {2.0},
            {4.0},
        )
        for name, tensor in first.state.items():
            assert torch.equal(tensor, second.state[name])
            for key, moment in first.optimizer_state[name].items():
                assert torch.equal(moment, second.optimizer_state[name][key]), (name, key)
    assert trainer.surrogate_optimizer() == "adamw" and trainer.language.path == str(home / "data/model")
    assert trainer.recipe() != task_of(home, str(home / "warmup/checkpoint-2")).recipe()


def test_the_model_is_the_trainers(home):
    """With its adapters, the losses are those of the model that peft loads."""
    from peft import PeftModel

    task = task_of(home, str(home / "warmup"))
    assert task.surrogates() == [], "nothing is left to train"
    model = task.model()
    model.load_state_dict(task.checkpoints()[-1].state)
    theirs = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(home / "data/model"), home / "warmup/checkpoint-4"
    ).eval()
    ids = torch.arange(30)[None]
    torch.testing.assert_close(model.eval()(ids), theirs(input_ids=ids).logits)
    rows = adam_features(
        model, task.losses, Projection("tensorsketch", dim=16), task.checkpoints()[-1].optimizer_state
    )(task.collate([task.candidates()[0]]))
    assert torch.isfinite(rows).all() and rows.any()


def test_rates_are_of_the_steps_since_the_checkpoint_before(home, tmp_path, caplog):
    shutil.copytree(home / "warmup", tmp_path / "warmup")
    for step, rates in ((2, {1: 4.0, 2: 2.0}), (4, {1: 4.0, 2: 2.0, 3: 1.0, 4: 0.5})):
        history = [{"step": at, "learning_rate": rate} for at, rate in rates.items()]
        (tmp_path / f"warmup/checkpoint-{step}/trainer_state.json").write_text(json.dumps({"log_history": history}))
    found = task_of(home, str(tmp_path / "warmup")).checkpoints()
    assert [c.learning_rate for c in found] == [3.0, 0.75]
    state = tmp_path / "warmup/checkpoint-2/trainer_state.json"
    for unusable in ([math.inf, 1.0], [math.inf, -math.inf], [1e308, 1e308], [math.nan], [-1.0], []):
        logged = [{"step": at, "learning_rate": rate} for at, rate in enumerate(unusable, start=1)]
        state.write_text(json.dumps({"log_history": logged}))
        assert task_of(home, str(tmp_path / "warmup")).checkpoints()[0].learning_rate == 1.0
    state.unlink()
    with caplog.at_level("INFO", "tarot"):
        found = task_of(home, str(tmp_path / "warmup")).checkpoints()
    assert [c.learning_rate for c in found] == [1.0, 1.0] and "weigh alike" in caplog.text


def test_adapters_alone_are_a_checkpoint_without_moments(home, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copy(home / "warmup/checkpoint-4" / file, tmp_path / name)
    task = task_of(home, [str(tmp_path / "a"), str(tmp_path / "b")])
    found = task.checkpoints()
    assert [c.run for c in found] == [0, 0] and [c.optimizer_state for c in found] == [None, None]
    assert task.surrogate_optimizer() is None
    other = task_of(home, [str(tmp_path / "a"), str(home / "warmup/checkpoint-4")])
    assert [c.run for c in other.checkpoints()] == [0, 1]


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return self.mark.touch, ()


BAD = {
    "nowhere": (lambda folder: shutil.rmtree(folder), "is not there"),
    "no adapters": (lambda folder: (folder / "adapter_config.json").unlink(), "holds neither adapters"),
    "odd config": (lambda folder: (folder / "adapter_config.json").write_text("{"), "is no adapter's of peft"),
    "odd tokens": (lambda folder: _say(folder, trainable_token_indices=[[], "a", {"": None}]), "of another model than"),
    "odd modules": (lambda folder: _say(folder, target_modules=[{}]), "adapter_config|of another model than"),
    "odd groups": (lambda folder: torch.save({"state": {}, "param_groups": 3}, folder / "optimizer.pt"), "is no state"),
    "odd state": (
        lambda folder: torch.save({"state": {0: 3}, "param_groups": [{"params": [0]}]}, folder / "optimizer.pt"),
        "is no state",
    ),
    "cut weights": (lambda folder: _cut(folder / "adapter_model.safetensors"), "does not hold a whole adapter"),
    "a bomb": (
        lambda folder: torch.save({"state": Bomb(folder / "exploded")}, folder / "optimizer.pt"),
        "running code",
    ),
    "cut optimizer": (lambda folder: _cut(folder / "optimizer.pt"), "optimizer.pt is no optimizer's state"),
    "another optimizer": (
        lambda folder: torch.save({"state": {}, "param_groups": [{"params": list(range(6))}]}, folder / "optimizer.pt"),
        "must be Adam's",
    ),
    "other parameters": (
        lambda folder: torch.save({"state": {}, "param_groups": [{"params": [0]}]}, folder / "optimizer.pt"),
        "is of 1 parameters, and the adapters are 6",
    ),
    "other moments": (lambda folder: (folder / FILE).write_bytes(b"x" * 20), "does not hold Adam's moments"),
}


def _say(folder: Path, **said: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **said}))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_adapter_is_refused_in_a_line(home, tmp_path, name):
    harm, words = BAD[name]
    folder = tmp_path / "checkpoint-4"
    shutil.copytree(home / "warmup/checkpoint-4", folder)
    harm(folder)
    with pytest.raises(InputError, match=words) as refused:
        task_of(home, str(folder)).checkpoints()
    assert "\n" not in str(refused.value) and not (folder / "exploded").exists()


def test_adapters_of_another_model_are_refused(home, tmp_path):
    from tests.tasks.instruction.conversations import write_model

    larger = write_model(tmp_path / "larger", hidden_size=32)
    with pytest.raises(InputError, match=r"lora_A.weight is \[2, 16\], and the model's is \[2, 32\]"):
        task_of(home, str(home / "warmup"), language=Language(path=str(larger))).checkpoints()
    shutil.copytree(home / "warmup/checkpoint-4", tmp_path / "checkpoint-4")
    config = json.loads((tmp_path / "checkpoint-4/adapter_config.json").read_text())
    (tmp_path / "checkpoint-4/adapter_config.json").write_text(json.dumps({**config, "r": 4}))
    with pytest.raises(InputError, match="has another r than"):
        task_of(home, [str(home / "warmup/checkpoint-2"), str(tmp_path / "checkpoint-4")])
