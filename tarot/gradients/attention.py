"""`nn.MultiheadAttention` with its projections in the open.

PyTorch's own forward uses `in_proj_weight` and `out_proj.weight` inside one function, out of reach of hooks, and in
eval mode may hand the whole layer to a fused kernel. The forward here computes the same and shows every projection to
`tap`.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tarot.gradients.rules import Layer, Linear, Part

Tap = Callable[[Layer, Tensor, Tensor], Tensor]  # (layer, input, output) -> the output to go on with


def is_supported(module: nn.Module) -> bool:
    """Whether `attention_forward` computes what this module does: no forward of its own, no learned extra positions."""
    return (
        isinstance(module, nn.MultiheadAttention)
        and type(module).forward is nn.MultiheadAttention.forward
        and "forward" not in vars(module)
        and module.bias_k is None
        and not module.add_zero_attn
    )


@dataclass(frozen=True)
class InProjection:
    """The input projections of one attention module, each as a linear layer on some rows of the packed parameters."""

    module: nn.MultiheadAttention
    packed: Linear | None  # queries, keys and values at once, where they are the same tensor
    separate: tuple[Linear, Linear, Linear]

    @classmethod
    def of(cls, site: str, module: nn.MultiheadAttention, names: Mapping[str, str]) -> InProjection:
        """names: the module's own parameters whose gradient is wanted, as the model calls them."""
        width = module.embed_dim

        def part(name: str, index: int | None) -> Part | None:
            if name not in names:
                return None
            rows = len(getattr(module, name))
            return Part(names[name], rows, *((0, rows) if index is None else (index * width, (index + 1) * width)))

        def linear(role: str, weight: Part | None, bias: Part | None) -> Linear:
            return Linear(f"{site}.{role}", module, weight, bias)

        is_packed = module.in_proj_weight is not None
        weights = [
            part("in_proj_weight", i) if is_packed else part(f"{c}_proj_weight", None) for i, c in enumerate("qkv")
        ]
        q, k, v = (linear(f"{c}_proj", weights[i], part("in_proj_bias", i)) for i, c in enumerate("qkv"))
        whole = linear("in_proj", part("in_proj_weight", None), part("in_proj_bias", None)) if is_packed else None
        return cls(module, whole, (q, k, v))

    @property
    def layers(self) -> list[Linear]:
        return [*self.separate, *([self.packed] if self.packed is not None else [])]

    def __call__(self, tap: Tap, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        module = self.module
        if self.packed is not None and query is key and key is value:
            y = functional.linear(query, module.in_proj_weight, module.in_proj_bias)
            return tap(self.packed, query, y).chunk(3, -1)
        separate = module.q_proj_weight, module.k_proj_weight, module.v_proj_weight
        weights = separate if self.packed is None else module.in_proj_weight.chunk(3)
        biases = (None,) * 3 if module.in_proj_bias is None else module.in_proj_bias.chunk(3)
        return tuple(
            tap(layer, x, functional.linear(x, weight, bias))
            for layer, x, weight, bias in zip(self.separate, (query, key, value), weights, biases, strict=True)
        )


def attention_forward(
    projection: InProjection,
    tap: Tap,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """The signature and the result of `nn.MultiheadAttention.forward` without dropout."""
    module = projection.module
    is_batched, batch_axis = query.ndim == 3, 0 if module.batch_first else 1
    projected = projection(tap, query, key, value)
    if not is_batched:
        projected = tuple(t.unsqueeze(batch_axis) for t in projected)
    heads = [t.movedim(batch_axis, 0).unflatten(-1, (module.num_heads, -1)).transpose(1, 2) for t in projected]
    q, k, v = heads  # [B, H, L, E / H], [B, H, S, E / H] twice
    is_causal = is_causal and attn_mask is not None and key_padding_mask is None and not need_weights
    mask = None if is_causal else _mask(attn_mask, key_padding_mask, q)
    weights = None
    if need_weights:
        logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        weights = torch.softmax(logits if mask is None else logits + mask, -1)
        mixed = weights @ v
        weights = weights.mean(1) if average_attn_weights else weights
        weights = weights if is_batched else weights.squeeze(0)
    else:
        mixed = functional.scaled_dot_product_attention(q, k, v, mask, is_causal=is_causal)
    mixed = mixed.transpose(1, 2).flatten(2).movedim(0, batch_axis)
    return module.out_proj(mixed if is_batched else mixed.squeeze(batch_axis)), weights


def _mask(attn_mask: Tensor | None, key_padding_mask: Tensor | None, q: Tensor) -> Tensor | None:
    """Both masks as one addend, broadcastable to [B, H, L, S]; True means not to be looked at."""

    def addend(mask: Tensor) -> Tensor:
        if mask.dtype != torch.bool:
            return mask.to(q.dtype)
        return torch.zeros_like(mask, dtype=q.dtype).masked_fill_(mask, -math.inf)

    masks: list[Tensor] = []
    if attn_mask is not None:
        masks.append(addend(attn_mask).unflatten(0, q.shape[:2]) if attn_mask.ndim == 3 else addend(attn_mask))
    if key_padding_mask is not None:
        masks.append(addend(key_padding_mask.reshape(len(q), 1, 1, -1)))
    return functools.reduce(operator.add, masks) if masks else None
