"""Schedules, steps, devices and checkpoint files; what a recipe of training refuses."""

from __future__ import annotations

import pickle
from dataclasses import asdict
from itertools import islice

import numpy as np
import pytest
import torch
from torch import nn

from tarot import InputError
from tarot.common import resolve_device
from tasks.common.cache import cached_checkpoints, load_checkpoints, save_checkpoints
from tasks.common.training import Surrogate, Training, WeightedSampler, endless_batches, fit
from tasks.task import Checkpoint


def test_the_rate_is_a_triangle_that_is_never_zero():
    training = Training(steps=100, learning_rate=0.4, warmup=0.25)
    rates = np.array([training.rate(step) for step in range(100)])
    assert rates.min() > 0 and rates.max() <= 0.4 and 24 <= rates.argmax() <= 25
    assert (np.diff(rates[:24]) > 0).all() and (np.diff(rates[25:]) < 0).all()
    assert rates.mean() == pytest.approx(0.2, rel=1e-3)


def test_batches_are_full_and_straddle_epochs():
    weights = np.array([1, 0, 2])
    stream = np.concatenate(list(islice(endless_batches(weights, 2, seed=0), 6)))  # four epochs of three
    assert all(np.bincount(epoch, minlength=3).tolist() == [1, 0, 2] for epoch in stream.reshape(4, 3))


def test_nothing_to_train_on():
    with pytest.raises(InputError, match="nothing to train on"):
        WeightedSampler(np.zeros(3, dtype=np.int64), seed=0)


def line(training: Training, keep: Surrogate | None = None):
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    batch = torch.ones(4, 2), torch.ones(4, 1)
    loss = lambda model, batch: ((model(batch[0]) - batch[1]) ** 2).mean()  # noqa: E731
    return model, fit(model, loss, iter(lambda: batch, None), training, run=3, keep=keep)


def test_checkpoints_are_evenly_spaced_and_carry_adams_moments():
    model, kept = line(Training(steps=10), keep=Surrogate(checkpoints=3))
    assert [checkpoint.name for checkpoint in kept] == ["run3-step4", "run3-step7", "run3-step10"]
    assert torch.equal(kept[-1].state["weight"], model.weight) and not model.training
    assert not torch.equal(kept[0].state["weight"], kept[1].state["weight"])
    assert {"exp_avg", "exp_avg_sq", "step"} == set(kept[0].optimizer_state["weight"])
    assert [int(checkpoint.optimizer_state["bias"]["step"]) for checkpoint in kept] == [4, 7, 10]
    rates = [Training(steps=10).rate(step) for step in range(10)]
    assert kept[1].learning_rate == pytest.approx(np.mean(rates[4:7]))


def test_the_last_checkpoints_are_of_those_that_a_training_saves():
    """What a paper calls its last four checkpoints are neighbours at the end, not quarters of the training."""
    _, spread = line(Training(steps=100), keep=Surrogate(checkpoints=4))
    _, last = line(Training(steps=100), keep=Surrogate(checkpoints=4, keep="last", saved=50))
    _, saved = line(Training(steps=100), keep=Surrogate(checkpoints=50))
    steps = [[int(one.optimizer_state["bias"]["step"]) for one in kept] for kept in (spread, last)]
    assert steps == [[25, 50, 75, 100], [94, 96, 98, 100]]
    for one, same in zip(last, saved[-4:], strict=True):
        assert torch.equal(one.state["weight"], same.state["weight"])
    assert last[1].learning_rate == pytest.approx(np.mean([Training(steps=100).rate(step) for step in (94, 95)]))


def test_the_first_of_the_last_checkpoints_has_the_rate_of_its_own_steps():
    training = Training(steps=100)
    _, last = line(training, keep=Surrogate(checkpoints=4, keep="last", saved=50))
    assert last[0].learning_rate == pytest.approx(np.mean([training.rate(step) for step in (92, 93)]))


def test_only_those_that_are_kept_last_are_of_so_many():
    assert Surrogate(checkpoints=3).recipe() == {"runs": 1, "checkpoints": 3}, "caches of before are found no more"
    assert Surrogate(checkpoints=3, keep="last", saved=9).recipe() != Surrogate(checkpoints=3).recipe()
    for options, words in (
        ({"saved": 4}, "means nothing where checkpoints are spread"),
        ({"keep": "last"}, "saved must be at least 1.*it is None"),
        ({"keep": "last", "checkpoints": 4, "saved": 3}, "saved must be at least 4.*it is 3"),
        ({"keep": "first"}, "spread, last|spread or last"),
    ):
        with pytest.raises(InputError, match=words):
            Surrogate(**options)
    with pytest.raises(InputError, match="a training of 10 steps cannot save 50 checkpoints"):
        line(Training(steps=10), keep=Surrogate(checkpoints=4, keep="last", saved=50))


def test_divergence_is_an_error():
    with pytest.raises(InputError, match="diverged"):
        line(Training(steps=200, optimizer="sgd", learning_rate=1e4))


def test_checkpoint_files(tmp_path):
    _, kept = line(Training(steps=4, optimizer="sgd"), keep=Surrogate())
    (loaded,) = cached_checkpoints(tmp_path / "c.safetensors", lambda: kept)
    assert (loaded.name, loaded.run, loaded.learning_rate) == (kept[0].name, 3, kept[0].learning_rate)
    assert torch.equal(loaded.state["weight"], kept[0].state["weight"])
    assert torch.equal(
        loaded.optimizer_state["bias"]["momentum_buffer"], kept[0].optimizer_state["bias"]["momentum_buffer"]
    )
    (tmp_path / "c.safetensors").write_bytes((tmp_path / "c.safetensors").read_bytes()[:-100])
    with pytest.raises(InputError, match=r"c\.safetensors"):
        load_checkpoints(tmp_path / "c.safetensors")
    (tmp_path / "p.pt").write_bytes(pickle.dumps([Training()], protocol=2))
    with pytest.raises(InputError, match=r"p\.pt"):
        load_checkpoints(tmp_path / "p.pt")


def test_checkpoints_come_back_as_they_were(tmp_path):
    """Any names, tensors that share memory, any layout and dtype, moments or none."""
    shared = torch.arange(12.0).reshape(3, 4)
    state = {"a/b.c": shared.T, "é": shared[0], "n": torch.tensor(3), "h": torch.ones(2, dtype=torch.bfloat16)}
    moments = {"a/b.c": {"step": torch.tensor(4.0), "exp_avg": shared.T * 2}, "n": {}}
    given = [Checkpoint("one", state, 0.25, moments, 0), Checkpoint("two", {"é": shared}, 0.5, None, 1)]
    save_checkpoints(tmp_path / "c.safetensors", given)
    for was, now in zip(given, load_checkpoints(tmp_path / "c.safetensors"), strict=True):
        assert (was.name, was.learning_rate, was.run) == (now.name, now.learning_rate, now.run)
        assert list(was.state) == list(now.state), "in their order"
        for name, tensor in was.state.items():
            assert torch.equal(tensor, now.state[name]) and tensor.dtype == now.state[name].dtype
        assert (was.optimizer_state is None) == (now.optimizer_state is None)
    again = load_checkpoints(tmp_path / "c.safetensors")[0].optimizer_state
    assert list(again) == list(moments) and torch.equal(again["a/b.c"]["exp_avg"], shared.T * 2) and again["n"] == {}
    before = (tmp_path / "c.safetensors").read_bytes()
    save_checkpoints(tmp_path / "c.safetensors", given)
    assert (tmp_path / "c.safetensors").read_bytes() == before, "the same content is the same file"


@pytest.mark.parametrize(
    "options",
    [{"optimizer": "adam"}, {"merge_targets": True}, {"merge_targets": "all"}, {"steps": 0}, {"autocast": "int8"},
     {"learning_rate": 0.0}, {"learning_rate": float("nan")}, {"warmup": 1.5}, {"weight_decay": -1.0}],
)  # fmt: skip
def test_options_that_are_none(options):
    with pytest.raises(InputError, match=f"train.{next(iter(options))}"):
        Training(**options)


@pytest.mark.parametrize("options", [{"runs": 0}, {"checkpoints": 0}])
def test_surrogates_that_are_none(options):
    with pytest.raises(InputError, match=f"task.surrogate.{next(iter(options))} must be at least 1; it is 0"):
        Surrogate(**options)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"learning_rate": -1.0}, "learning_rate must be at least 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be at least 0"),
        ({"run": -1}, "run must be at least 0"),
        ({"optimizer_state": {"bias": {}}}, "optimizer_state is of bias, which state has not"),
    ],
)
def test_a_checkpoint_that_exists_is_valid(fields, why):
    with pytest.raises(InputError, match=f"checkpoint last: {why}"):
        Checkpoint(**{"name": "last", "state": {"weight": torch.ones(1)}, "learning_rate": 1.0, **fields})


def test_a_recipe_of_surrogates_leaves_out_what_they_know_nothing_of():
    training = Training(steps=7, merge_targets="one")
    assert training.recipe() == asdict(training)
    assert training.recipe(of_surrogate=True) == {
        name: value for name, value in asdict(training).items() if name != "merge_targets"
    }


def test_devices():
    assert resolve_device("cpu").type == "cpu" and resolve_device("auto").type in ("cpu", "cuda")
    with pytest.raises(InputError, match="abacus"):
        resolve_device("abacus")
