"""What both networks are made of: attention whose projections are modules of their own, and masks that never make NaN.

Plain matrix products and a softmax rather than a fused kernel: hooks see every weight, so that gradient features have a
rule for it, and `vmap` has one for every operation. Only with very many keys, as those of Wayformer at its full size,
does the fused kernel pay; there `vmap` is right but slow.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

MASKED = -1e4  # added to a logit: no share is left of it, and unlike -inf it is a number in all float dtypes
FUSED_FROM = 1024  # keys


def attendable(valid: Tensor) -> Tensor:
    """bool [..., S]: as it is, but all of a row where nothing in it is valid. What is there instead is padding, which
    is the same everywhere: one null token."""
    return valid | ~valid.any(-1, keepdim=True)


def bias_of(valid: Tensor) -> Tensor:
    """What is to be added to logits of keys: 0 where `valid`, else next to minus infinity. float32, the same shape."""
    return (~valid).float() * MASKED


def zeroed(x: Tensor, valid: Tensor) -> Tensor:
    """x [..., D] with zeros where `valid` [...] is not, whatever was there."""
    return torch.where(valid[..., None], x, 0.0)


def exact(module: nn.Module, x: Tensor) -> Tensor:
    """module(x) in the module's own precision, whatever autocast asks for: of what goes in or comes out as metres,
    half precision would lose up to 0.8 m."""
    with torch.autocast(x.device.type, enabled=False):
        return module(x.to(next(module.parameters()).dtype))


class _Heads(nn.Module):
    """What attention learns, of `nn.MultiheadAttention`'s number of parameters and with its initial weights.

    dropout: of the attention's shares, in training.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        for linear in self.query, self.key, self.value:
            nn.init.uniform_(linear.weight, -math.sqrt(1.5 / width), math.sqrt(1.5 / width))  # Xavier's of [3 d, d]
            nn.init.zeros_(linear.bias)
        nn.init.zeros_(self.out.bias)


class Attention(_Heads):
    """Multi-head attention."""

    def remember(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [..., heads, S, width / heads] of what is attended to, [..., S, width]."""
        return self._split(self.key(memory)), self._split(self.value(memory))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def forward(self, query: Tensor, memory: Tensor | tuple[Tensor, Tensor], bias: Tensor | None = None) -> Tensor:
        """query [..., L, width], memory [..., S, width] or what `remember` made of it -> [..., L, width].

        bias: added to the logits, broadcastable to [..., heads, L, S].
        """
        key, value = self.remember(memory) if isinstance(memory, Tensor) else memory
        query = self._split(self.query(query))
        dropout = self.dropout if self.training else 0.0
        if key.shape[-2] >= FUSED_FROM:
            bias = None if bias is None else bias.to(query.dtype)
            mixed = functional.scaled_dot_product_attention(query, key, value, bias, dropout)
        else:
            # Keys in rows: a softmax over rows is several times as fast as one over short columns.
            logits = key @ (query * query.shape[-1] ** -0.5).transpose(-1, -2)
            shares = torch.softmax(logits if bias is None else logits + bias.transpose(-1, -2), -2)
            mixed = (functional.dropout(shares, dropout) if dropout else shares).transpose(-1, -2) @ value
        return self.out(mixed.transpose(-3, -2).flatten(-2))


class PooledAttention(_Heads):
    """`Attention` of one query to each of S sets of M points. Of the same result as to say it in that way, but for
    dropout, which leaves the values' bias alone, at less than half the cost: points are averaged before they are made
    values of, which is allowed as that is linear, and heads are blocks of one matrix."""

    blocks: Tensor

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__(width, heads, dropout)
        self.register_buffer("blocks", torch.eye(heads).repeat_interleave(width // heads, 0), persistent=False)

    def forward(self, query: Tensor, points: Tensor, bias: Tensor) -> Tensor:
        """query [B, width], points [B, S, M, width] -> [B, S, width]. bias: [B, S, M], added to the logits."""
        heads = self.query(query)[..., None] * self.blocks * (len(self.blocks) / self.heads) ** -0.5  # [B, width, H]
        logits = (self.key(points).flatten(1, 2) @ heads).view(*bias.shape, self.heads)
        shares = torch.softmax(logits + bias[..., None], 2)
        if self.training and self.dropout:
            shares = functional.dropout(shares, self.dropout)
        values = self.value(shares.transpose(2, 3) @ points)  # [B, S, H, width]: of each head's average, all heads'
        return self.out((values * self.blocks.T).sum(2))


class Tokens(nn.Module):
    """Learned vectors that every sample is given: [*shape, width]. A table that every sample looks all of it up in."""

    rows: Tensor

    def __init__(self, *shape: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(math.prod(shape), width)
        self.register_buffer("rows", torch.arange(math.prod(shape)).view(shape), persistent=False)

    def forward(self, samples: int) -> Tensor:
        """[samples, *shape, width]"""
        return self.table(self.rows.expand(samples, *self.rows.shape))
