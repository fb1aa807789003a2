"""What is said of the arithmetic that a device is slow at."""

from __future__ import annotations

import platform
import warnings

import pytest
import torch
from torch import nn

from tarot import GradientFeatures, Projection
from tarot.common import CPU, warn_if_emulated
from tasks.common.training import Training, fit

SAID = "this CPU has no instructions for bfloat16"


@pytest.fixture
def processor(monkeypatch, request):
    machine, capability = request.param
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)


@pytest.mark.parametrize("processor", [("x86_64", "AVX2"), ("AMD64", "DEFAULT")], indirect=True)
def test_a_dtype_that_the_processor_emulates_is_said(processor):
    model = nn.Linear(3, 1)
    rows = torch.ones(4, 3)
    with pytest.warns(UserWarning, match=SAID):
        fit(model, lambda m, b: m(b).mean(), iter([rows]), Training(steps=1, autocast="bfloat16"))
    with pytest.warns(UserWarning, match=SAID):
        GradientFeatures(model, lambda m, b: m(b)[:, 0], Projection("identity"), autocast=torch.bfloat16)


@pytest.mark.parametrize("processor", [("x86_64", "AVX512"), ("arm64", "DEFAULT")], indirect=True)
def test_one_that_it_knows_is_not(processor):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_emulated(torch.bfloat16, CPU)


@pytest.mark.parametrize("processor", [("x86_64", "AVX2")], indirect=True)
def test_neither_is_float32_nor_what_a_gpu_does(processor):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_emulated(None, CPU)
        warn_if_emulated(torch.bfloat16, torch.device("cuda"))
