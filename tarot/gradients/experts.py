"""Mixtures of experts whose weights are stacked in one tensor, as those of transformers, with their rows in the open.

Which tokens an expert reads depends on the data, and the samples have different numbers of them. The forward here does
what `transformers` does for each expert in turn, and says meanwhile whose row each is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tarot.gradients.watch import Watch

ABILITIES = ("num_experts", "has_gate", "has_bias", "is_transposed", "down_proj", "_apply_gate")


def is_experts(module: nn.Module) -> bool:
    """Whether `experts_forward` computes what this module does: one of transformers' interface of experts."""
    return (
        all(hasattr(module, name) for name in ABILITIES)
        and "forward" not in vars(module)
        and not getattr(module, "_is_expert_parallel", False)
    )


def experts_forward(
    module: Any, watch: Watch, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor
) -> Tensor:
    """hidden_states: [N, D], samples one after another. top_k_index, top_k_weights: [N, k]. Returns [N, D]."""
    if len(hidden_states) % watch.samples:
        result: Tensor = type(module).forward(module, hidden_states, top_k_index, top_k_weights)
        return result
    each = len(hidden_states) // watch.samples
    first = "gate_up_proj" if module.has_gate else "up_proj"
    names = (first, "down_proj")
    weights = {name: getattr(module, name) for name in names}
    biases = {name: getattr(module, f"{name}_bias") for name in names} if module.has_bias else {}
    written = torch.zeros_like(hidden_states)
    for expert in range(module.num_experts):
        token, place = torch.where(top_k_index == expert)
        if not len(token):
            continue
        with watch.rows_of(token // each):

            def product(x: Tensor, name: str, expert: int = expert) -> Tensor:
                weight = weights[name][expert]
                y = x @ weight if module.is_transposed else functional.linear(x, weight)
                return y + biases[name][expert] if module.has_bias else y

            inner = product(hidden_states[token], first)
            inner = module._apply_gate(inner) if module.has_gate else module.act_fn(inner)
            outer = product(inner, "down_proj")
            if getattr(module, "has_post_expert_norm", False):
                outer = module.post_expert_norm(outer)
        outer = outer * top_k_weights[token, place, None]
        written = written.index_add(0, token, outer.to(written.dtype))
    return written
