"""Nests of tensors: sizes, samples and devices."""

from collections import OrderedDict, UserDict, defaultdict, namedtuple
from dataclasses import dataclass
from types import MappingProxyType

import pytest
import torch

from tarot.common.errors import InputError
from tarot.gradients.batches import batch_size, map_tensors, take, to_device

Pair = namedtuple("Pair", "x y")


@dataclass(frozen=True)
class Record:
    x: torch.Tensor
    name: str


def test_take_slices_what_belongs_to_samples_and_shares_the_rest():
    x = torch.arange(12).view(4, 3)
    shared = torch.arange(5)
    batch = OrderedDict(
        x=x, ids=["a", "b", "c", "d"], pair=Pair(x + 1, (x + 2, 7)), record=Record(x + 3, "r"), s=shared
    )
    part = take(batch, 1, 3)
    assert batch_size(batch) == 4 and batch_size(part) == 2
    assert type(part) is OrderedDict and torch.equal(part["x"], x[1:3]) and part["ids"] == ["b", "c"]
    assert type(part["pair"]) is Pair and torch.equal(part["pair"].y[0], x[1:3] + 2) and part["pair"].y[1] == 7
    assert torch.equal(part["record"].x, x[1:3] + 3) and part["record"].name == "r"
    assert part["s"] is shared


def test_a_list_of_tensors_is_a_nest_and_not_a_column():
    x = torch.zeros(2, 3)
    part = take([x, x + 1], 0, 1)
    assert [tuple(t.shape) for t in part] == [(1, 3), (1, 3)]


def test_mappings_of_other_kinds():
    x = torch.arange(4)
    with_default = defaultdict(list, x=x)
    assert torch.equal(take(with_default, 1, 3)["x"], x[1:3]) and take(with_default, 1, 3)["absent"] == []
    assert torch.equal(take(UserDict(x=x), 1, 3)["x"], x[1:3])
    assert torch.equal(take(MappingProxyType({"x": x}), 1, 3)["x"], x[1:3])
    assert torch.equal(with_default["x"], x) and len(with_default) == 1


def test_map_and_device():
    batch = {"x": torch.ones(2), "n": 3, "s": "text"}
    assert map_tensors(batch, lambda t: t * 2)["x"].tolist() == [2, 2]
    assert to_device(batch, "cpu")["s"] == "text"


def test_a_batch_without_tensors_is_an_error():
    with pytest.raises(InputError, match="samples along dimension 0"):
        batch_size({"names": ["a"], "scalar": torch.tensor(1.0)})
