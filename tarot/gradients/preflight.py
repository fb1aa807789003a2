"""Is a fast path to be trusted? Its rows beside autograd's, and a sample's row alone beside its row in a batch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tarot.common import InputError

MIXED = 0.3  # a relative difference that is no rounding: rows of other samples differ by as much as they are


def tolerance(dtypes: Iterable[torch.dtype]) -> float:
    """Relative error far above the rounding of `dtypes` (TF32 included), far below that of a wrong rule: about 1."""
    rounding: float = max(torch.finfo(dtype).eps for dtype in dtypes) ** 0.5
    return max(5e-3, 4 * rounding)


def unfit(
    expected: Mapping[str, Tensor], alone: Mapping[str, Tensor], together: Mapping[str, Tensor] | None, rounding: float
) -> dict[str, str]:
    """The parameters whose rows cannot be trusted, and why; each argument is rows [samples, width] by parameter.

    expected: by autograd, one sample at a time. alone, together: by the fast path, one sample at a time and all in one
    batch; what is absent is zero. Alone and together may differ much by rounding where a loss is nearly zero, being
    then a difference of larger numbers; ten times that is forgiven between `alone` and `expected`, too.
    Samples whose gradient is not finite are left out.
    """
    finite = torch.stack([rows.isfinite().all(1) for rows in expected.values()]).all(0)
    whole = math.hypot(*(float(rows[finite].norm()) for rows in expected.values()))
    reasons = {}
    for name, rows in expected.items():
        true = rows[finite]
        one = alone[name][finite] if name in alone else torch.zeros_like(true)
        many = one if together is None else together[name][finite] if name in together else torch.zeros_like(true)
        # Gradients that are zero but for rounding, as of the bias of attention's keys, are judged by the whole.
        size, noise = float(true.norm()) + 1e-3 * whole, float((many - one).norm())
        if not noise <= max(MIXED, rounding) * size:
            reasons[name] = "its layer does not see the samples in their order"
        elif not float((one - true).norm()) <= rounding * size + 10 * noise:
            reasons[name] = "its rule disagrees with autograd"
    return reasons


def refuse_mixing(apart: Tensor, together: Tensor) -> None:
    """Raises InputError where losses of samples, one at a time and in a batch, differ by more than rounding."""
    if not torch.allclose(together, apart, rtol=0.05, atol=1e-3, equal_nan=True):
        raise InputError(
            f"the loss of a sample depends on the others in its batch: {together.tolist()} together, {apart.tolist()} "
            "apart. Per-sample gradients need losses that do not (no batch statistics, no randomness)"
        )


@dataclass(frozen=True)
class Layout:
    """How a tensor grows with the number of samples: along `axis`, by as much for each; not at all; or otherwise."""

    axis: int | None = None
    is_constant: bool = False


def layout_of(
    one: torch.Size | None, another: torch.Size | None, all_of_them: torch.Size | None, samples: int
) -> Layout:
    """Of a tensor of one sample, of another, and of `samples`; None is one that has no shape."""
    if one is None or one != another or all_of_them is None or len(one) != len(all_of_them):
        return Layout()
    changed = [i for i, size in enumerate(all_of_them) if size != one[i]]
    if not changed:
        return Layout(is_constant=True)
    is_even = len(changed) == 1 and all_of_them[changed[0]] == samples * one[changed[0]]
    return Layout(changed[0]) if is_even else Layout()


def stacked(rows: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Rows [1, width] of each sample by name -> [samples, width] by name; what is absent is zero."""
    like = {name: row for of_sample in rows for name, row in of_sample.items()}
    return {name: torch.cat([row.get(name, torch.zeros_like(like[name])) for row in rows]) for name in like}
