"""Batches are nested containers of tensors, samples along dimension 0: how many, one of them, somewhere else."""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import default_collate

from tarot.common import InputError

Result = TypeVar("Result")
log = logging.getLogger("tarot")


def map_tensors(batch: Any, function: Callable[[Tensor], Any]) -> Any:
    """The same nest of dicts, lists, tuples and dataclasses with `function` applied to its tensors."""
    return _map(batch, lambda leaf: function(leaf) if isinstance(leaf, Tensor) else leaf)


def collated(collate: Callable[[list[Any]], Any], samples: list[Any]) -> Any:
    """The samples as one batch. Raises InputError, with what to do, where PyTorch's own collation cannot make one."""
    try:
        return collate(samples)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        if collate is not default_collate:
            raise
        raise InputError(
            f"samples do not go into one batch as they are ({type(error).__name__}: {error}): give `collate`, which "
            "makes a batch of a list of samples, such as one that pads them"
        ) from error


def to_device(batch: Any, device: torch.device | str) -> Any:
    """`batch` with its tensors on `device`."""
    return map_tensors(batch, lambda tensor: tensor.to(device, non_blocking=True))


def batch_size(batch: Any) -> int:
    """Number of samples: the length of the first tensor that has a dimension. Raises InputError where there is none."""
    sizes: list[int] = []
    map_tensors(batch, lambda tensor: sizes.append(len(tensor)) if tensor.ndim else None)
    if not sizes:
        raise InputError(
            f"a batch must hold a tensor with samples along dimension 0; this {type(batch).__name__} has none"
        )
    return sizes[0]


def take(batch: Any, start: int, stop: int) -> Any:
    """Samples start..stop as a smaller batch. What has no length of the batch's size is shared by all samples.

    A tensor that has it by chance, such as a mask that is as long as the batch, would be split too: keep what samples
    share out of the batch.
    """
    size = batch_size(batch)

    def leaf(value: Any) -> Any:
        return value[start:stop] if isinstance(value, Tensor) and value.ndim and len(value) == size else value

    def is_column(value: Any) -> bool:  # the collated strings or ids of the samples
        return isinstance(value, list | tuple) and len(value) == size and not any(map(_holds_tensors, value))

    return _map(batch, leaf, lambda value: value[start:stop] if is_column(value) else None)


def _holds_tensors(value: Any) -> bool:
    found: list[bool] = []
    map_tensors(value, lambda _: found.append(True))
    return bool(found)


def _map(value: Any, leaf: Callable[[Any], Any], whole: Callable[[Any], Any] = lambda _: None) -> Any:
    replacement = whole(value)
    if replacement is not None:
        return replacement
    if isinstance(value, MutableMapping):
        mapped = copy.copy(value)  # keeps what a subclass knows besides, such as the default of a defaultdict
        mapped.update({key: _map(item, leaf, whole) for key, item in value.items()})
        return mapped
    if isinstance(value, Mapping):
        kind: Any = type(value)  # taken to be made from a dict, as read-only mappings are
        return kind({key: _map(item, leaf, whole) for key, item in value.items()})
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_map(item, leaf, whole) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(_map(item, leaf, whole) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
        return dataclasses.replace(value, **{name: _map(item, leaf, whole) for name, item in fields.items()})
    return leaf(value)


@dataclasses.dataclass
class Fitting:
    """What was learnt of memory: a batch of so many numbers, or more, does not fit."""

    too_many: float = math.inf


def in_halves(work: Callable[[Any], Result], batch: Any, fitting: Fitting | None = None) -> list[Result]:
    """[work(batch)]; where GPU memory runs out, the same of its halves, or of theirs, down to single samples.

    fitting: what earlier batches have shown, and what this one shows; a batch that cannot fit is not tried whole.
    """
    fitting = Fitting() if fitting is None else fitting
    numbers: list[int] = []
    map_tensors(batch, lambda tensor: numbers.append(tensor.numel()))
    samples = batch_size(batch)
    if samples == 1 or sum(numbers) < fitting.too_many:
        try:
            return [work(batch)]
        except torch.OutOfMemoryError:
            if samples == 1:
                raise
        fitting.too_many = sum(numbers)  # after the handler, which keeps the failed pass's tensors alive
        log.warning("out of GPU memory with a batch of %d samples; halving it and others of its size", samples)
        torch.cuda.empty_cache()
    ends = (0, samples // 2), (samples // 2, samples)
    return [part for start, stop in ends for part in in_halves(work, take(batch, start, stop), fitting)]
