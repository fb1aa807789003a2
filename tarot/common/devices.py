"""What arithmetic runs on: the CPU, or a GPU where there is one."""

from __future__ import annotations

import contextlib
import platform
import warnings
from collections.abc import Iterator

import torch

from tarot.common.errors import InputError

CPU = torch.device("cpu")


def resolve_device(device: str) -> torch.device:
    """`auto` is a GPU where there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        known = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device {device!r} is none that torch knows: auto, cpu, cuda, cuda:1, ...") from error
    if known.type == "cuda" and (known.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {device!r} is not there: torch sees {torch.cuda.device_count()} GPUs")
    try:
        torch.zeros(1, device=known).item()
    except (RuntimeError, NotImplementedError, AssertionError, ImportError) as error:  # mps, xla, meta, ...
        raise InputError(f"device {device!r} is not there: this torch cannot compute on it") from error
    return known


def selection_device(device: str) -> torch.device:
    """Where selections are computed: as `resolve_device`, but on the CPU where a device has no float64, as all but
    CUDA's may have none. Raises InputError for a device that is not there, TypeError for what is no name."""
    if not isinstance(device, str | torch.device):
        raise TypeError(f"device must be a name such as auto, cpu or cuda:1; it is {device!r}")
    known = resolve_device(str(device))
    return known if known.type == "cuda" else CPU


def warn_if_emulated(dtype: torch.dtype | None, device: torch.device) -> None:
    """Where the processor has no instructions for an autocast's dtype: ten times as long as float32 was measured."""
    if dtype is None or device.type != "cpu" or platform.machine() not in ("x86_64", "AMD64"):
        return
    if torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2"):  # AVX512 at least widens many numbers at a time
        name = str(dtype).removeprefix("torch.")
        warnings.warn(
            f"autocast={name}: this CPU has no instructions for {name}, which takes many times as long as float32; "
            "autocast=null is float32",
            stacklevel=3,
        )


@contextlib.contextmanager
def products_in(precision: str, device: torch.device) -> Iterator[None]:
    """Products of float32 matrices on a GPU are computed in "ieee" float32, or in "tf32", whatever torch was told
    elsewhere. On a CPU nothing is changed."""
    if device.type != "cuda":
        yield
        return
    settings = torch.backends.cuda.matmul
    new = hasattr(settings, "fp32_precision")  # from torch 2.9 on
    name, wanted = ("fp32_precision", precision) if new else ("allow_tf32", precision == "tf32")
    before = getattr(settings, name)
    setattr(settings, name, wanted)
    try:
        yield
    finally:
        setattr(settings, name, before)
