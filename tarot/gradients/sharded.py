"""Models whose weights are shared out over several processes (FSDP2): each of them makes its part of the rows.

Only frozen weights may be: those that gradients are taken of are whole in every process. A layer's weights are gathered
while it is used, in the forward and in the backward pass, so all processes make the same passes at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from tarot.gradients.batches import take


def shard_frozen(layers: Iterable[nn.Module]) -> None:
    """Shares out what does not learn of each layer over all processes, in place, on the GPU where there is one."""
    from torch.distributed.fsdp import fully_shard  # seldom needed, and long in coming

    for layer in layers:
        learnt = {parameter for parameter in layer.parameters() if parameter.requires_grad}
        fully_shard(layer, ignored_params=learnt)


def sharing(model: nn.Module) -> dist.ProcessGroup | None:
    """The processes that a model's weights are shared out over; None where it is whole."""
    if not (dist.is_available() and dist.is_initialized()):
        return None
    from torch.distributed.tensor import DTensor

    shared = next((p for p in model.parameters() if isinstance(p, DTensor)), None)
    return None if shared is None else shared.device_mesh.get_group()


def in_shares(
    group: dist.ProcessGroup,
    heeded: type[Exception],
    rows: Callable[[Any, int], Tensor],
    batch: Any,
    samples: int,
) -> Tensor:
    """`rows(batch, samples)`, [samples, width], of which each process makes its share. All are given the same batch.

    A process for which nothing is left makes the last sample's again: it is needed for its weights. heeded: an error
    that one may come upon alone when its passes are done; it is raised by all.
    """
    size, rank = dist.get_world_size(group), dist.get_rank(group)
    each = -(-samples // size)
    start = min(rank * each, samples - 1)
    stop = min(max(start + 1, (rank + 1) * each), samples)
    error, made = None, torch.empty(0)
    try:
        made = rows(take(batch, start, stop), stop - start)
    except heeded as caught:
        error = caught
    errors: list[Exception | None] = [None] * size
    dist.all_gather_object(errors, error, group)
    for one in errors:
        if one is not None:
            raise one
    padded = made.new_zeros(each, made.shape[1])
    padded[: len(made)] = made
    parts = [torch.empty_like(padded) for _ in range(size)]
    dist.all_gather(parts, padded, group)
    return torch.cat(parts)[:samples]
