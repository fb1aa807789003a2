"""`nn.MultiheadAttention` with its projections in the open.

PyTorch's own forward uses `in_proj_weight` and `out_proj.weight` inside one function, for which there is no rule, and
in eval mode may hand the whole layer to a fused kernel. The forward here does the same by operations that have rules.
"""

from __future__ import annotations

import functools
import math
import operator
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional


def is_supported(module: nn.Module) -> TypeGuard[nn.MultiheadAttention]:
    """Whether `attention_forward` computes what this module does: no forward of its own, no learned extra positions."""
    return (
        isinstance(module, nn.MultiheadAttention)
        and type(module).forward is nn.MultiheadAttention.forward
        and "forward" not in vars(module)
        and module.bias_k is None
        and not module.add_zero_attn
    )


def in_projection(module: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
    """Queries, keys and values, at once where they are made of the same tensor."""
    packed, width = module.in_proj_weight, module.embed_dim
    if packed is not None and query is key and key is value:
        return functional.linear(query, packed, module.in_proj_bias).chunk(3, -1)
    parts = [slice(i * width, (i + 1) * width) for i in range(3)]
    separate = module.q_proj_weight, module.k_proj_weight, module.v_proj_weight
    weights = separate if packed is None else [packed[part] for part in parts]
    biases = [None if module.in_proj_bias is None else module.in_proj_bias[part] for part in parts]
    return tuple(map(functional.linear, (query, key, value), weights, biases))


def attention_forward(
    module: nn.MultiheadAttention,
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
    is_batched, batch_axis = query.ndim == 3, 0 if module.batch_first else 1
    projected = in_projection(module, query, key, value)
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
