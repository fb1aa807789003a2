"""Rows of a table: a linear layer that reads one-hot vectors. `padding_idx` learns nothing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tarot.gradients.fold import Fold, LayoutError
from tarot.gradients.projection import Factored
from tarot.gradients.rules.rule import Call, Finish, Step, Target, at_least_single
from tarot.gradients.tensor_sketch import TensorSketch


def embedding(call: Call) -> list[Step]:
    """`F.embedding(input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)`"""
    given = call.named("input", "weight", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse")
    if given.get("scale_grad_by_freq") or given.get("max_norm") is not None:
        raise LayoutError("an embedding that is scaled by how often its rows are read")
    table = given.targets["weight"]
    padding = given.get("padding_idx")
    if padding is not None and padding < 0:
        padding += table.read_shape[0]
    return [(table, rows_of(call, table, given.input(), padding))]


def rows_of(call: Call, table: Target, ids: Tensor, padding: int | None = None) -> Finish:
    """The gradient of a table whose rows `ids` were read."""
    read, sketch = call.reading(ids), table.sketch
    is_direct = table.is_matrix and not table.transposed and table.stop - table.start == table.shape[0]

    def learning(d: Tensor) -> Tensor:
        return d if padding is None else d.masked_fill((read() == padding)[..., None], 0)

    if is_direct and isinstance(sketch, TensorSketch):
        return lambda d, fold: sketch.of_rows(fold(read()).flatten(1), fold.positions(learning(d)))
    if is_direct and isinstance(sketch, Factored):
        return lambda d, fold: factored(table, sketch, fold, read(), learning(d))
    return lambda d, fold: table.sketched(gradient(table, fold, read(), learning(d)))


def factored(table: Target, sketch: Factored, fold: Fold, ids: Tensor, d: Tensor) -> Tensor:
    left = functional.embedding(ids, table.left(sketch, d).T)
    right = d @ sketch.right(d.device).to(d.dtype).T
    return sketch.combine(fold.positions(left), fold.positions(right))


def gradient(table: Target, fold: Fold, ids: Tensor, d: Tensor) -> Tensor:
    """[B, rows, columns]"""
    d = at_least_single(fold.positions(d))
    rows = table.read_shape[0]
    summed = d.new_zeros(fold.samples * rows, d.shape[-1])
    first = torch.arange(fold.samples, device=d.device)[:, None] * rows
    summed.index_add_(0, (fold(ids).flatten(1) + first).flatten(), d.flatten(0, 1))
    by_sample: Tensor = summed.unflatten(0, (fold.samples, rows))
    return by_sample
