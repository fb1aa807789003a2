"""What a language model makes of conversations before it learns anything of them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tarot.common import progress
from tasks.common.cache import kept, read_tensors, write_tensors
from tasks.instruction.duplicates import alike, one_of_each
from tasks.instruction.model import LanguageModel
from tasks.instruction.tokens import Tokenized, collate, token_batches

log = logging.getLogger("tarot")
_DIMENSIONS = 512
"""Distances stay as they are to a few hundredths (Johnson and Lindenstrauss, 1984)."""


@torch.no_grad()
def look(model: LanguageModel, data: Tokenized, budget: int, pad: int) -> Tensor:
    """What the head is given at the learned tokens, averaged, float32 [n, d]; at random in fewer dimensions where there
    are more than 512. budget: tokens of a batch."""
    model.eval()
    device, joined = next(model.parameters()).device, collate(pad)
    found: list[Tensor] = [torch.empty(0)] * len(data)
    projection: Tensor | None = None
    with progress("looks of candidates", len(data), "rows") as advance:
        for places in token_batches(data.lengths, budget):
            batch = joined([data[i] for i in places])
            rows = model.embeddings(batch["input_ids"].to(device), batch["labels"].to(device)).cpu()
            if rows.shape[1] > _DIMENSIONS:
                if projection is None:
                    shape = (rows.shape[1], _DIMENSIONS)
                    projection = torch.randn(shape, generator=torch.Generator().manual_seed(0)) / _DIMENSIONS**0.5
                rows = rows @ projection
            for place, row in zip(places, rows, strict=True):
                found[place] = row
            advance(len(places))
    return torch.stack(found)


def one_of_those_alike(data: Tokenized, path: Path, looks: Callable[[], Tensor]) -> Tokenized:
    """The first of the samples that look the same, each row with how many it stands for. path: where what `looks` gives
    is kept."""
    found, _ = kept(path, lambda temporary: write_tensors(temporary, {"looks": looks()}), read_tensors)
    stands_for = alike(found["looks"].numpy())
    rows = tuple(one_of_each(data.rows, stands_for))
    log.info("%d of %d candidates look like others and are left out", len(data) - len(rows), len(data))
    return replace(data.take(np.unique(stands_for)), rows=rows, dropped=data.dropped, refused=data.refused)
