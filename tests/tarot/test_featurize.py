"""One call from a model and a dataset to a store: the loop's gradients, resumable, and told apart by what made them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import IterableDataset

import tarot
from tarot import FeatureStore, GradientFeatures, InputError, Projection, StoreError, loop_gradients

N, STEP = 23, 5


def losses(model, batch):
    x, y = batch
    return functional.cross_entropy(model(x), y, reduction="none")


def other_losses(model, batch):
    return 2 * losses(model, batch)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, 3))


@pytest.fixture
def dataset() -> list:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(6, generator=generator), i % 3) for i in range(N)]


def batch_of(dataset):
    return torch.stack([x for x, _ in dataset]), torch.tensor([y for _, y in dataset])


def content(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in Path(path).iterdir()}


# --- the rows --------------------------------------------------------------------------------------------------------


def test_rows_are_the_loops_gradients(model, dataset, tmp_path):
    slow = loop_gradients(model, losses, batch_of(dataset))
    expected = torch.cat([rows.flatten(1) for rows in slow.values()], 1)
    store = tarot.featurize(model, losses, dataset, tmp_path / "s", projection=Projection("identity"))
    assert isinstance(store, FeatureStore) and store.ids.tolist() == list(range(N))
    np.testing.assert_allclose(store[:], expected, rtol=1e-4, atol=1e-6)
    assert store.manifest["notes"]["covered_parameters"].keys() == dict(model.named_parameters()).keys()


@pytest.mark.parametrize("batch_size", [1, 4, 64, "auto"])
def test_rows_are_those_of_one_batch_whatever_the_batch_size(model, dataset, tmp_path, batch_size):
    expected = GradientFeatures(model, losses, Projection(dim=64))(batch_of(dataset))
    store = tarot.featurize(model, losses, dataset, tmp_path / "s", dim=64, batch_size=batch_size, rows_per_shard=STEP)
    np.testing.assert_allclose(store[:], expected, rtol=1e-4, atol=1e-5)


def test_both_sides_share_a_space_by_default(model, dataset, tmp_path):
    pool = tarot.featurize(model, losses, dataset, tmp_path / "pool", ids=[f"p{i}" for i in range(N)])
    targets = tarot.featurize(model, losses, dataset[:4], tmp_path / "targets")
    np.testing.assert_allclose(pool[:4], targets[:], rtol=1e-4, atol=1e-5)
    selection = tarot.select(pool, targets, "tarot_fixed", size=4, candidate_ids=pool.ids)
    assert selection.ids.tolist() == ["p0", "p1", "p2", "p3"]


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(model, dataset, tmp_path, training):
    model.train(training)
    model[0].bias.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    store = tarot.featurize(model, losses, dataset, tmp_path / "s", dim=32)
    assert model.training is training and not model[0].bias.requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert "frozen" in store.manifest["notes"]["excluded_parameters"]["0.bias"]


# --- resumed, never mixed --------------------------------------------------------------------------------------------


class Breaking(list):
    """Raises at one sample, as a machine that goes down."""

    def __getitem__(self, index):
        if index == 17:
            raise ConnectionError("the disk is gone")
        return super().__getitem__(index)


class Counted(list):
    def __init__(self, *items):
        super().__init__(*items)
        self.read = []

    def __getitem__(self, index):
        self.read.append(index)
        return super().__getitem__(index)


def test_goes_on_where_it_stopped_with_the_same_bytes(model, dataset, tmp_path):
    made = partial(tarot.featurize, model, losses, rows_per_shard=STEP, dim=32, batch_size=2)
    with pytest.raises(ConnectionError):
        made(Breaking(dataset), tmp_path / "s")
    assert not (tmp_path / "s").exists()
    rest = Counted(dataset)
    made(rest, tmp_path / "s")
    assert min(rest.read) == 15, "the first three shards were whole"
    made(dataset, tmp_path / "whole")
    assert content(tmp_path / "s") == content(tmp_path / "whole")
    again = Counted(dataset)
    made(again, tmp_path / "s")
    assert not again.read


def test_killed_when_all_but_its_name_was_there_it_ends_in_the_same_bytes(model, dataset, tmp_path):
    """In the manifest, too, which says how parameters are used: that is seen as a row is made."""
    made = partial(tarot.featurize, model, losses, path=tmp_path / "s", rows_per_shard=STEP, dim=32)
    made(dataset)
    whole = content(tmp_path / "s")
    (tmp_path / "s").rename(tmp_path / ".s.part")
    again = Counted(dataset)
    made(again)
    assert content(tmp_path / "s") == whole and set(again.read) <= {0}, "rows that are there were made again"


def changed_model(model):
    with torch.no_grad():
        model[1].running_mean += 1
    return model


CHANGES = {
    "recipe.model.tensors": lambda model: {"model": changed_model(model)},
    "recipe.losses.name": lambda _: {"losses": other_losses},
    "recipe.projection.kind": lambda _: {"dim": None, "projection": Projection("sjlt", dim=32)},
    "recipe.projection.dim": lambda _: {"dim": 48},
    "recipe.projection.seed": lambda _: {"dim": None, "projection": Projection(dim=32, seed=1)},
    "recipe.parameters": lambda _: {"parameters": lambda name: "bias" in name},
    "recipe.recipe": lambda _: {"recipe": {"file": "pool-2.jsonl"}},
    "recipe.dtype": lambda _: {"dtype": "float16"},
    "recipe.autocast": lambda _: {"autocast": "bfloat16"},
    "recipe.data.ids": lambda _: {"ids": range(1, N + 1)},
}


@pytest.mark.parametrize("key", CHANGES)
@pytest.mark.parametrize("finished", [True, False])
def test_another_fingerprint_at_the_same_path_is_refused_by_name(model, dataset, tmp_path, key, finished):
    first = {"model": model, "losses": losses, "dim": 32, "path": tmp_path / "s", "rows_per_shard": STEP}
    if finished:
        tarot.featurize(dataset=dataset, **first)
    else:
        with pytest.raises(ConnectionError):
            tarot.featurize(dataset=Breaking(dataset), **first)
    with pytest.raises(StoreError, match=f"holds other features: .*{key}.*Use another path, or delete it"):
        tarot.featurize(dataset=dataset, **{**first, **CHANGES[key](model)})


def weighted(weight):
    return lambda model, batch: weight * losses(model, batch)


class Objective:
    def __call__(self, model, batch):
        return losses(model, batch)

    def method(self, model, batch):
        return losses(model, batch)


def test_functions_are_told_apart_by_what_they_close_over(model, dataset, tmp_path):
    made = partial(tarot.featurize, model, dataset=dataset, dim=16)
    made(weighted(1.0), path=tmp_path / "s")
    made(weighted(1.0), path=tmp_path / "s")
    with pytest.raises(StoreError, match=r"closure\.weight = 1\.0 in it, .*closure\.weight = 2\.0 wanted"):
        made(weighted(2.0), path=tmp_path / "s")
    for number, kind in enumerate((Objective(), Objective().method, partial(losses))):
        path = tmp_path / str(number)
        assert made(kind, path=path).manifest == made(kind, path=path).manifest
        with pytest.raises(StoreError, match=r"recipe\.losses"):
            made(other_losses, path=path)


# --- what is refused -------------------------------------------------------------------------------------------------


class Stream(IterableDataset):
    def __iter__(self):
        return iter(())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dataset": Stream()}, "dataset must be map-style"),
        ({"dataset": []}, "dataset is empty"),
        ({"ids": ["a"]}, "ids must name each of the 23 samples; there are 1"),
        ({"ids": ["a"] * N}, "ids must be unique"),
        ({"dim": 8, "projection": Projection(dim=8)}, "either projection or dim"),
        ({"dim": 0}, "^dim must be at least 1 or null; it is 0"),
        ({"projection": "dense"}, "^projection must be"),
        ({"autocast": "float64"}, "autocast must be"),
        ({"device": "gpu"}, "device 'gpu' is none that torch knows"),
        ({"dtype": "float8"}, "dtype must be one of"),
        ({"on_nonfinite": "ignore"}, "on_nonfinite must be"),
        ({"recipe": {"when": object()}}, "recipe.recipe.when is"),
        ({"losses": lambda model, batch: losses(model, batch).mean()}, "one value per sample"),
        ({"model": nn.Flatten()}, "the model has no parameters"),
        ({"model": None}, "model must be a torch.nn.Module; it is NoneType"),
        ({"losses": None}, "losses must be a function; it is None"),
        ({"parameters": ["weight"]}, r"parameters must be a function, such as lambda .*; it is \['weight'\]"),
        ({"cost": 3}, "cost must be a function of a sample, or None; it is 3"),
        ({"ids": [0.5 + i for i in range(N)]}, "ids must be all strings or all integers; one is 0.5"),
        ({"workers": -1}, "workers must be at least 0"),
        ({"rows_per_shard": "many"}, "rows_per_shard must be an integer"),
        ({"recipe": 5}, "recipe must be a mapping or null; it is 5"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(model, dataset, tmp_path, options, words):
    given = {"model": model, "losses": losses, "dataset": dataset, "path": tmp_path / "s", **options}
    with pytest.raises(InputError, match=words):
        tarot.featurize(**given)
    assert not list(tmp_path.iterdir()), "nothing is left behind"


@pytest.mark.parametrize("workers", [0, 1])
def test_samples_that_make_no_batch_need_a_collate(model, dataset, tmp_path, workers):
    ragged = [(torch.zeros(6 + i % 2), 0) for i in range(4)]
    for samples in (ragged, [(object(), 0)] * 4):
        with pytest.raises(InputError, match=r"samples do not go into one batch as they are .*: give `collate`"):
            tarot.featurize(model, losses, samples, tmp_path / "s", batch_size=2, dim=16, workers=workers)
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_what_a_failed_call_keeps_is_said(model, dataset, tmp_path):
    made = partial(tarot.featurize, model, losses, dataset, tmp_path / "s", dim=16, rows_per_shard=5)
    whole, dataset[7] = dataset[7], (torch.full((6,), float("nan")), 0)
    with pytest.raises(InputError) as caught:
        made()
    assert caught.value.__notes__ == [f"{tmp_path / 's'} is not finished; what is finished of it stays in "
                                      f"{tmp_path / '.s.part'}"]  # fmt: skip
    assert len(list(tmp_path.glob(".s.part/*.safetensors"))) == 1
    dataset[7] = whole
    assert len(made()) == N and not list(tmp_path.glob(".s.part"))


def test_a_sample_without_a_finite_gradient_is_named_or_dropped(model, dataset, tmp_path):
    dataset[7] = torch.full((6,), float("nan")), 0
    names = [f"sample-{i}" for i in range(N)]
    with pytest.raises(InputError, match="'sample-7'"):
        tarot.featurize(model, losses, dataset, tmp_path / "s", ids=names, dim=16)
    store = tarot.featurize(model, losses, dataset, tmp_path / "d", ids=names, dim=16, on_nonfinite="drop")
    assert np.flatnonzero(store.columns["dropped"]).tolist() == [7] and not store[7:8].any()


# --- what made the rows, beside parameters ---------------------------------------------------------------------------


class Tempered:
    """A loss that is an object, with a temperature that is its own."""

    def __init__(self, temperature):
        self.temperature = temperature

    def __call__(self, model, batch):
        return losses(model, batch) / self.temperature

    def method(self, model, batch):
        return self(model, batch)


class Scaled(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.linear = nn.Linear(6, 3)
        self.scale = scale

    def forward(self, x):
        return self.scale * self.linear(x)


def with_class_weights(weights):
    def weighted_losses(model, batch):
        return losses(model, batch) * torch.tensor(weights)[batch[1]]

    return weighted_losses


def network(activation):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), activation, nn.Linear(16, 3))


def scaled(scale):
    torch.manual_seed(0)
    return Scaled(scale)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((network(nn.ReLU()), losses), (network(nn.Tanh()), losses)),
        ((network(nn.LeakyReLU(0.1)), losses), (network(nn.LeakyReLU(0.2)), losses)),
        ((scaled(1.0), losses), (scaled(5.0), losses)),
        ((network(nn.ReLU()), Tempered(1.0)), (network(nn.ReLU()), Tempered(5.0))),
        ((network(nn.ReLU()), Tempered(1.0).method), (network(nn.ReLU()), Tempered(5.0).method)),
        (
            (network(nn.ReLU()), with_class_weights([1.0, 1.0, 1.0])),
            (network(nn.ReLU()), with_class_weights([9.0, 1.0, 1.0])),
        ),
        (
            (network(nn.ReLU()), with_class_weights(torch.ones(3))),
            (network(nn.ReLU()), with_class_weights(2 * torch.ones(3))),
        ),
    ],
    ids=["activation", "its option", "attribute", "object", "method", "list", "tensor"],
)
def test_another_model_or_loss_of_the_same_parameters_is_another_store(first, second, dataset, tmp_path):
    tarot.featurize(*first, dataset, tmp_path / "s", dim=8)
    tarot.featurize(*first, dataset, tmp_path / "s", dim=8)  # the same again is opened
    with pytest.raises(StoreError, match=r"model|losses"):
        tarot.featurize(*second, dataset, tmp_path / "s", dim=8)
