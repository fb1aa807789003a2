"""A parameter that is added to attention's logits as its mask: a table of biases by relative position."""

from __future__ import annotations

import torch
from torch import Tensor

from tarot.gradients.fold import Fold, LayoutError
from tarot.gradients.rules.broadcast import summed_to
from tarot.gradients.rules.rule import Call, Step, at_least_single


def attention_mask(call: Call) -> list[Step]:
    """`F.scaled_dot_product_attention(query, key, value, attn_mask, ...)`: once more, with a mask for each sample."""
    given = call.named("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
    if list(given.targets) != ["attn_mask"]:
        raise LayoutError("what it reads is made of parameters, too")
    mask, target = given["attn_mask"], given.targets["attn_mask"]
    readers = [call.reading(given[name]) for name in ("query", "key", "value")]
    options = {
        name: given.values[name] for name in ("dropout_p", "is_causal", "scale", "enable_gqa") if name in given.values
    }

    def finish(d: Tensor, fold: Fold) -> Tensor:
        query, key, value = (read() for read in readers)
        own = mask.detach().expand(*query.shape[:-1], key.shape[-2]).clone().requires_grad_()
        with torch.enable_grad():
            y = call.function(query, key, value, attn_mask=own, **options)
        (gradient,) = torch.autograd.grad(y, own, d.to(y.dtype))
        return target.sketched(summed_to(target.read_shape, fold, at_least_single(gradient)))

    return [(target, finish)]
