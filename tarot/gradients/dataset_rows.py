"""Features of the rows of a dataset, in batches that fit memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate

from tarot.common import InputError, memory_limit, part_of_progress
from tarot.gradients.batches import Fitting, collated, in_halves, to_device
from tarot.gradients.batches import batch_size as samples_in
from tarot.gradients.losses import Losses, evaluating, losses_of

LARGEST_BATCH = 256  # beyond it nothing gets faster
# Bytes, or half of a smaller memory; what is free at the moment would change from run to run. More is slower, since
# activations then come from main memory and not from caches: at 2 GiB a LLaMA of 1M parameters takes 1.7 times as long.
CPU_BUDGET = 512 << 20


class Samples(Protocol):
    """A map-style dataset: a length, and item i is always the same sample."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class Engine(Protocol):
    """What makes a row of each sample: `GradientFeatures`, what stands around it, or `Activations`.

    dim: numbers in a row. trainable: the parameters that rows are made of. largest_formed: numbers in the largest
    gradient of one sample that may be held at once. row_kind: what a row is, for errors.
    """

    @property
    def model(self) -> nn.Module: ...

    @property
    def losses(self) -> Losses: ...

    @property
    def dim(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def trainable(self) -> set[str]: ...

    @property
    def largest_formed(self) -> int: ...

    @property
    def row_kind(self) -> str: ...

    def __call__(self, batch: Any, /) -> Tensor:
        """Rows [B, dim], float32, on the model's device."""


def gradient_rows(
    gradients: Engine,
    dataset: Samples,
    indices: Iterable[int],
    *,
    collate: Callable[[list[Any]], Any] = default_collate,
    batch_size: int | Literal["auto"] = "auto",
    cost: Callable[[Any], float] | None = None,
    extras: Mapping[str, Callable[[nn.Module, Any], Tensor]] | None = None,
    device: torch.device | str | None = None,
    ids: Sequence[str] | Sequence[int] | None = None,
    on_nonfinite: Literal["raise", "drop"] = "raise",
    workers: int = 0,
) -> dict[str, Tensor]:
    """Features of `dataset[i]` for the n `indices`, in their order, on the CPU.

    batch_size: samples per batch, or "auto" (`auto_batch_size`). A batch that does not fit the GPU is halved.
    cost: of one sample, such as its number of tokens or pixels. Samples are then batched by ascending cost, and a batch
        may cost as much as `batch_size` samples of the costliest, where each counts as much as the batch's costliest
        (they are padded to it). Rows are returned in the order of `indices` all the same.
    extras: more numbers per sample, [B] from (model, batch), without gradients.
    ids: the names of the dataset's samples, for errors. Default: their indices.
    on_nonfinite: "raise" InputError naming the sample whose gradient is NaN or infinite, or "drop": a row of zeros.
    workers: processes that read and collate samples, and say their cost; 0 for none. They change no row.

    Returns {"features": float32 [n, dim], each extra: float32 [n]}, and "dropped" (1 or 0) [n] with "drop".
    """
    if on_nonfinite not in ("raise", "drop"):
        raise InputError(f"on_nonfinite must be 'raise' or 'drop'; it is {on_nonfinite!r}")
    indices, extras = [int(i) for i in indices], extras or {}
    device = gradients.device if device is None else device
    columns = {name: torch.zeros(len(indices)) for name in (*extras, *(["dropped"] if on_nonfinite == "drop" else []))}
    features = torch.zeros(len(indices), gradients.dim)
    if not indices:
        return {"features": features, **columns}
    samples, costs = _Chosen(dataset, indices), [1.0] * len(indices)
    if cost is not None and workers:  # which then read every sample twice, but at once, and nothing is held
        costs = _costs_by(workers, samples, cost)
    elif cost is not None:
        read = [dataset[i] for i in indices]
        samples, costs = _Chosen(read, range(len(read))), [float(cost(sample)) for sample in read]
    if batch_size == "auto":
        costliest = max(range(len(costs)), key=costs.__getitem__)
        one = collated(collate, [dataset[indices[costliest]]])
        batch_size = auto_batch_size(gradients, to_device(one, device))
    elif not isinstance(batch_size, int) or batch_size < 1:
        raise InputError(f"batch_size must be a positive integer or 'auto'; it is {batch_size!r}")

    batches = list(batches_by_cost(costs, batch_size * max(costs)))
    generator = torch.Generator()  # so that nothing is drawn from the global one
    loader: DataLoader[Any] = DataLoader(
        samples,
        batch_sampler=batches,
        collate_fn=partial(_collated, collate),
        num_workers=workers,
        generator=generator,
    )
    fitting = Fitting()
    with part_of_progress() as advance:
        for rows, batch in zip(batches, loader, strict=True):
            if isinstance(batch, InputError):
                raise batch
            parts = in_halves(partial(_batch_rows, gradients, extras), to_device(batch, device), fitting)
            result = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
            usable = torch.stack([t.reshape(len(rows), -1).isfinite().all(1) for t in result.values()]).all(0)
            if not usable.all():
                if on_nonfinite == "raise":
                    index = indices[rows[int((~usable).nonzero()[0])]]
                    name = index if ids is None else ids[index]
                    raise InputError(
                        f"the {gradients.row_kind} of sample {name!r} is not finite; look at its loss, or drop such "
                        "samples (on_nonfinite='drop')"
                    )
                result = {name: torch.where(usable.view(-1, *(1,) * (t.ndim - 1)), t, 0) for name, t in result.items()}
                columns["dropped"][rows] = (~usable).float()
            features[rows] = result.pop("features")
            for name, values in result.items():
                columns[name][rows] = values
            advance(len(rows))
    return {"features": features, **columns}


class _Chosen(Dataset[Any]):
    """`dataset[i]` for the chosen i. An error of what is read is a value: a worker would add its traceback to it."""

    def __init__(self, dataset: Samples, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Any:
        try:
            return self.dataset[self.indices[position]]
        except InputError as error:
            return error


def _costs_by(workers: int, samples: _Chosen, cost: Callable[[Any], float]) -> list[float]:
    """The cost of every sample, in as many processes."""
    said: DataLoader[Any] = DataLoader(
        samples,
        batch_size=64,
        collate_fn=partial(_collated, lambda some: [float(cost(sample)) for sample in some]),
        num_workers=workers,
        generator=torch.Generator(),
    )
    costs: list[float] = []
    for some in said:
        if isinstance(some, InputError):
            raise some
        costs += some
    return costs


def _collated(collate: Callable[[list[Any]], Any], samples: list[Any]) -> Any:
    """The batch, or the first error among the samples, or that they make no batch."""
    for sample in samples:
        if isinstance(sample, InputError):
            return sample
    try:
        return collated(collate, samples)
    except InputError as error:
        return error


def _batch_rows(
    gradients: Engine, extras: Mapping[str, Callable[[nn.Module, Any], Tensor]], batch: Any
) -> dict[str, Tensor]:
    """Features and extras of a batch, float32, on the CPU."""
    result = {"features": gradients(batch)}
    with evaluating(gradients.model), torch.no_grad():
        result |= {name: extra(gradients.model, batch) for name, extra in extras.items()}
    return {name: values.float().cpu() for name, values in result.items()}


def batches_by_cost(costs: Sequence[float], budget: float) -> Iterator[list[int]]:
    """Positions 0..n in batches of ascending cost, each at most `budget` = its length times its largest cost."""
    batch: list[int] = []
    for position in sorted(range(len(costs)), key=costs.__getitem__):
        if batch and (len(batch) + 1) * costs[position] > budget * (1 + 1e-9):
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch


def auto_batch_size(gradients: Engine, batch: Any, *, memory: int | None = None) -> int:
    """The largest power of two of samples like those of `batch` that fits `memory` bytes, at most LARGEST_BATCH.

    A sample is taken to need twice what autograd keeps for a backward pass in which all weights learn, and three
    times the largest gradient that is formed. memory: default half of what the model's weights leave of the GPU's, or
    CPU_BUDGET; not what happens to be free at the moment, so that the answer is the same in every run.
    """
    if memory is None and gradients.device.type == "cuda":
        total = torch.cuda.get_device_properties(gradients.device).total_memory
        held = {
            t.untyped_storage().data_ptr(): t.nbytes
            for t in (*gradients.model.parameters(), *gradients.model.buffers())
        }
        memory = (total - sum(held.values())) // 2
    elif memory is None:
        memory = min(CPU_BUDGET, memory_limit() // 2)
    samples = samples_in(batch)
    stored = {p.untyped_storage().data_ptr() for p in gradients.model.parameters()}
    kept = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal kept
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in stored:
            stored.add(storage.data_ptr())
            kept += storage.nbytes()
        return tensor

    with (
        evaluating(gradients.model, gradients.trainable),
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor),
    ):
        losses = losses_of(gradients.model, gradients.losses, batch, samples)
    del losses
    each = 2 * kept / samples + 3 * 4 * gradients.largest_formed + 4 * gradients.dim
    size = max(1, min(LARGEST_BATCH, int(memory / each)))
    return 1 << (size.bit_length() - 1)
