"""y = x W^T + b, under all the names it goes by."""

from __future__ import annotations

import math
from dataclasses import replace

from torch import Tensor

from tarot.gradients.fold import Fold, LayoutError
from tarot.gradients.rules.broadcast import summed_to
from tarot.gradients.rules.rule import (
    Call,
    Finish,
    Step,
    Target,
    at_least_single,
    factors_are_cheaper,
    materialised,
    transformed,
)
from tarot.gradients.tensor_sketch import TensorSketch


def linear(call: Call) -> list[Step]:
    """`F.linear(input, weight, bias)`"""
    given = call.named("input", "weight", "bias")
    steps: list[Step] = []
    if "weight" in given.targets:
        weight = given.targets["weight"]
        steps.append((weight, products(call, weight, given.input())))
    if "bias" in given.targets:
        steps.append(bias_step(given.targets["bias"]))
    return steps


def addmm(call: Call) -> list[Step]:
    """`torch.addmm(bias, x, W)`, the Conv1D of GPT-2."""
    given = call.named("input", "mat1", "mat2")
    if given.get("alpha", 1) != 1 or given.get("beta", 1) != 1:
        raise LayoutError("addmm with factors")
    steps: list[Step] = []
    if "mat2" in given.targets:
        weight = turned(given.targets["mat2"])
        steps.append((weight, products(call, weight, given.input("mat1"))))
    if "input" in given.targets:
        steps.append(bias_step(given.targets["input"]))
    if "mat1" in given.targets:
        raise LayoutError("addmm of a weight and samples")
    return steps


def matmul(call: Call) -> list[Step]:
    """x @ W, a linear layer of W^T, or W @ x, one whose positions are the columns of x."""
    given = call.named("input", "other")
    if len(given.targets) != 1:
        raise LayoutError("what it reads is made of parameters, too")
    ((name, weight),) = given.targets.items()
    x: Tensor = given["input" if name == "other" else "other"]
    if len(weight.read_shape) != 2 or x.ndim < 2:
        raise LayoutError(f"a product of {list(weight.read_shape)} and {list(x.shape)}")
    if name == "other":
        return [(turned(weight), products(call, turned(weight), x))]
    finish = products(call, weight, x.mT)
    return [(weight, lambda d, fold: finish(d.mT, fold))]


def turned(target: Target) -> Target:
    return replace(target, transposed=not target.transposed)


def bias_step(target: Target) -> Step:
    """Of what is added to the last dimension, or the last few."""
    return target, lambda d, fold: target.sketched(summed_to(target.read_shape, fold, d))


def products(call: Call, target: Target, x: Tensor) -> Finish:
    """Sum over positions of d_t x_t^T, [out, in]."""
    positions, sketch = math.prod(x.shape[1:-1]), target.sketch
    if target.is_matrix and isinstance(sketch, TensorSketch):
        way = sketch.of_factors if sketch.factors_are_cheaper(positions) else sketch.of_products
        return transformed(call, target, x, lambda fold, x, d: (fold.positions(d), fold.positions(x)), way)
    if not target.is_matrix or not factors_are_cheaper(sketch, positions):
        return materialised(call, target, x, gradient)
    if target.transposed:
        left = x.detach() @ target.left(sketch, x).T
        return lambda d, fold: sketch.combine(
            fold.positions(left), fold.positions(d @ sketch.right(d.device).to(d.dtype).T)
        )
    right = x.detach() @ sketch.right(x.device).to(x.dtype).T
    return lambda d, fold: sketch.combine(fold.positions(d @ target.left(sketch, d).T), fold.positions(right))


def gradient(fold: Fold, x: Tensor, d: Tensor) -> Tensor:
    return at_least_single(fold.positions(d)).transpose(1, 2) @ at_least_single(fold.positions(x))
