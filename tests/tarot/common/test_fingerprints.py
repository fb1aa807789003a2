import hashlib

import numpy as np
import pytest
import torch

from tarot.common.errors import InputError
from tarot.common.fingerprints import canonical, difference, fingerprint, hash_tensors

RECIPE = {"task": {"name": "digits", "seed": 0}, "dims": [512, 3.5], "autocast": None, "centre": True}


def test_order_of_keys_and_tuples_make_no_difference():
    again = {"centre": True, "autocast": None, "dims": (512, 3.5), "task": {"seed": 0, "name": "digits"}}
    assert fingerprint(RECIPE) == fingerprint(again)
    assert len(fingerprint(RECIPE)) == 16


@pytest.mark.parametrize("change", [{"centre": 1}, {"dims": [512, 3]}, {"autocast": "none"}, {"new": None}])
def test_every_change_makes_a_difference(change):
    assert fingerprint({**RECIPE, **change}) != fingerprint(RECIPE)


def test_is_the_same_in_every_process():
    """Each has another seed for its hashes, and finds what was once found by hand."""
    text = '{"autocast":null,"centre":true,"dims":[512,3.5],"task":{"name":"digits","seed":0}}'
    assert canonical(RECIPE) == text
    assert fingerprint(RECIPE) == hashlib.sha256(text.encode()).hexdigest()[:16] == "ac78bb3c6368480b"


@pytest.mark.parametrize("value", [float("nan"), object(), np.float64(1), torch.zeros(1), {1: 2}, {1, 2}, b"x"])
def test_what_is_not_plain_data_is_refused_by_name(value):
    with pytest.raises(InputError, match=r"recipe\.a\[1\]"):
        fingerprint({"a": [0, value]})


def test_hash_of_tensors_sees_names_shapes_dtypes_and_bits_but_not_order_or_strides():
    w, b = torch.arange(6.0).reshape(2, 3), torch.tensor(1.0)
    reference = hash_tensors({"w": w, "b": b})
    assert hash_tensors({"b": b, "w": w.T.contiguous().T}) == reference
    others = [{"w": w, "c": b}, {"w": w.reshape(3, 2), "b": b}, {"w": w.double(), "b": b}, {"w": w, "b": -b}, {"w": w}]
    assert reference not in {hash_tensors(other) for other in others}
    assert hash_tensors({"w": w.bfloat16()}) != hash_tensors({"w": w.half()})


def test_difference_names_the_first_key():
    assert difference({"a": {"b": 1}}, {"a": {"b": 2}}, "recipe") == ("recipe.a.b = 1", "recipe.a.b = 2")
    assert difference({"a": 1}, {}, "recipe") == ("recipe.a = 1", "no recipe.a")
    assert difference([1, 2], [1, 3], "ids") == ("ids[1] = 2", "ids[1] = 3")
    assert difference([1, 2], [1], "ids") == ("2 ids", "1 ids")
