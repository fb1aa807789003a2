"""Adam's moments, written beside a checkpoint and read again."""

from __future__ import annotations

import pytest
import torch

from tarot import InputError
from tarot.integrations.moments import moments_of, read_moments, write_moments


def test_moments_are_of_adam(tmp_path):
    layer = torch.nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    for kind in (torch.optim.SGD, torch.optim.AdamW):
        optimizer = kind(layer.parameters(), lr=0.1)
        layer(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        if kind is torch.optim.SGD:
            with pytest.raises(InputError, match="SGD has no exp_avg"):
                moments_of(layer, optimizer, 0.1)
    write_moments(tmp_path, moments_of(layer, optimizer, 0.1))
    found = read_moments(tmp_path)
    assert list(found.of) == ["weight"] and found.learning_rate == 0.1
    assert torch.equal(found.of["weight"]["exp_avg"], optimizer.state[layer.weight]["exp_avg"])
    assert read_moments(tmp_path / "elsewhere") is None
