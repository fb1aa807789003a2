"""A GPU that is not there: tensors that say they are on `cuda:0`, and are computed with on the CPU.

What would fail on a GPU fails here: an operation on tensors of both devices, or NumPy's look into a tensor that is not
in the CPU's memory. What would wait for a GPU is counted. So the same code runs, with the same numbers, as on a device.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("cuda:0")
CPU = torch.device("cpu")
_WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_consecutive", "bincount", "equal")
_MAY_MIX = ("_to_copy", "copy_", "_local_scalar_dense")


class Elsewhere(Tensor):
    """`inside` in the memory of a device that is not the CPU."""

    inside: Tensor

    @staticmethod
    def __new__(cls, inside: Tensor) -> Elsewhere:
        # of the meta device, so that torch looks for no driver
        made: Elsewhere = Tensor._make_wrapper_subclass(
            cls, inside.size(), strides=inside.stride(), dtype=inside.dtype, device="meta"
        )
        made.inside = inside
        return made

    @property
    def device(self) -> torch.device:
        return DEVICE

    @property
    def is_cuda(self) -> bool:
        return True

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{function} on a device after the device was left")


class PretendedDevice(TorchDispatchMode):
    """As a context. waits: of the CPU for the device, by the name of the operation; moved: tensors that went there."""

    def __init__(self) -> None:
        super().__init__()
        self._mode_key = torch._C._TorchDispatchModeKey.FAKE  # with which torch initialises no driver
        self.waits: dict[str, int] = {}
        self.moved: list[tuple[torch.dtype, tuple[int, ...]]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = function._schema.name.removeprefix("aten::")
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = any(isinstance(tensor, Elsewhere) for tensor in given)
        here = [tensor for tensor in given if not isinstance(tensor, Elsewhere) and tensor.dim() > 0]
        if there and here and name not in _MAY_MIX:
            raise AssertionError(f"{name} of tensors on two devices: {[tuple(tensor.shape) for tensor in here]}")
        wanted = kwargs.get("device")
        goes_there = there if wanted is None else torch.device(wanted).type == "cuda"
        if name == "copy_":  # in place: it stays where it is
            goes_there = isinstance(args[0], Elsewhere)
        if self._waits(name, args, goes_there, there):
            self.waits[name] = self.waits.get(name, 0) + 1
        if goes_there and not there and name == "_to_copy":
            self.moved.append((given[0].dtype, tuple(given[0].shape)))
        if wanted is not None:
            kwargs["device"] = CPU
        found = function(*tree_map(_opened, args), **tree_map(_opened, kwargs))
        if "out" in kwargs:
            return kwargs["out"]
        if name.endswith("_") and not name.endswith("__"):  # in place, and no operator such as __lshift__
            return args[0]
        return tree_map(lambda leaf: Elsewhere(leaf) if isinstance(leaf, Tensor) and goes_there else leaf, found)

    def _waits(self, name: str, args: Any, goes_there: bool, there: bool) -> bool:
        if not there:
            return False
        by_mask = name.startswith("index") and any(
            isinstance(leaf, Tensor) and leaf.dtype == torch.bool for leaf in tree_leaves(args[1:2])
        )
        leaves = not goes_there and name in ("_to_copy", "copy_")
        return by_mask or leaves or name in _WAITS


def _opened(leaf: Any) -> Any:
    return leaf.inside if isinstance(leaf, Elsewhere) else leaf
