"""Per-sample gradients as Adam would take them: the candidates' features of LESS (Xia et al. 2024; theory.md 2).

A checkpoint's optimizer holds, for each parameter, the raw moments m and v after `step` updates. One more step with a
sample's gradient g as the batch would be, before the learning rate,

    Gamma = m^ / (sqrt(v^) + eps),  m^ = (b1 m + (1 - b1) g) / (1 - b1^t),  v^ = (b2 v + (1 - b2) g^2) / (1 - b2^t),

with t = step + 1. Three modes:

"adam" is that formula. It needs the whole gradient of a sample before it is projected: memory and time are those of
    unprojected gradients.
"adam_released" is what the authors' code computes, m^ / sqrt(v^ + eps) without bias correction. The correction hardly
    matters to a cosine, eps inside of the root does.
"adam_rank1" is an APPROXIMATION of the formula that keeps the speed of the factored projection. In the denominator of
    the gradient's part, v of each matrix is replaced by (row means) x (column means) / (mean), as Adafactor does
    (Shazeer, Stern 2018), and the sample's own (1 - b2) g^2 is left out. What is left is linear in g, a fixed part b1 m
    / (sqrt(v^) + eps) and diag(r) g diag(c), so that the factors of a layer's gradient are projected with R diag(r) and
    C diag(c) and the gradient never exists. `benchmarks/less.py` measures it: on a ResNet-9 after 30, 100, 300 steps
    its median cosine with the formula is .86, .92, .99 and the scores' rank correlation .97, .98, 1.00 (plain
    gradients: .98, .91, .92), at the price of plain features, half of the formula's.

All live in the space that `GradientFeatures(model, losses, projection)` projects plain target gradients to.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tarot.common import InputError
from tarot.gradients.losses import Losses, chosen_parameters
from tarot.gradients.per_sample import Coverage, GradientFeatures
from tarot.gradients.projection import (
    IN_PASS,
    Factored,
    Plan,
    Projection,
    Scaled,
    ScaledFactored,
    Sketch,
    fast_jl,
    plan,
)
from tarot.gradients.tensor_sketch import TensorSketch

MODES = ("adam", "adam_rank1", "adam_released")
KEYS = ("exp_avg", "exp_avg_sq", "step")  # torch's names of m, v and the number of updates so far
BETAS, EPS = (0.9, 0.999), 1e-8

OptimizerState = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class Moments:
    """Of one parameter: m and v, float32 [size], and the number of updates that made them."""

    first: Tensor
    second: Tensor
    steps: int


@dataclass(frozen=True)
class AdamState:
    """The moments of a model's parameters, by name."""

    moments: Mapping[str, Moments]

    @classmethod
    def of(
        cls, model: nn.Module, optimizer_state: OptimizerState | None, parameters: Callable[[str], bool] | None = None
    ) -> AdamState:
        """The moments of the chosen parameters (as in `GradientFeatures`), on their device.

        optimizer_state: parameter name -> torch's state of it under AdamW or Adam. Raises InputError, naming the
        parameter, the key and what to do, where there is none, where a parameter, key or number is missing or
        impossible, and where there is one that the model does not have.
        """
        if optimizer_state is None:
            raise InputError(
                "there is no optimizer state: LESS scales each candidate's gradient by the moments that AdamW had at "
                "the checkpoint, so it needs checkpoints that keep them. Train them with task.train.optimizer=adamw"
            )
        chosen = chosen_parameters(model, parameters)
        known = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        unknown = [name for name in optimizer_state if name not in known]
        if unknown:
            raise InputError(
                f"the optimizer state has an entry {unknown[0]!r} that is no parameter of the model "
                f"({', '.join(list(chosen)[:3])}, ...). Entries go by parameter name, not by torch's numbers"
            )
        return cls({name: _moments(name, p, optimizer_state, chosen) for name, p in chosen.items()})


def _moments(name: str, parameter: nn.Parameter, states: OptimizerState, others: Mapping[str, nn.Parameter]) -> Moments:
    """The checked state of one parameter."""

    def refuse(what: str, advice: str) -> InputError:
        return InputError(f"the optimizer state of {name!r} {what}. {advice}")

    if name not in states or not states[name]:
        raise refuse(
            "is missing",
            "The optimizer never updated this parameter; freeze it (requires_grad=False), or train the checkpoints "
            "again with all trainable parameters in the optimizer",
        )
    state = states[name]
    missing, extra = [key for key in KEYS if key not in state], [key for key in state if key not in KEYS]
    if missing or extra:
        raise refuse(
            f"has the keys {', '.join(map(str, state))}; "
            + (f"{missing[0]!r} is missing" if missing else f"{extra[0]!r} is too much"),
            "LESS needs the moments of Adam or AdamW, not of SGD or AMSGrad: train with task.train.optimizer=adamw",
        )
    for key in KEYS[:2]:
        _check_shape(name, key, tuple(state[key].shape), parameter, others)
    first, second = (state[key].detach().to(parameter.device, torch.float32).flatten() for key in KEYS[:2])
    advice = "The checkpoint's training diverged, or the file is damaged; train it again"
    for key, values in zip(KEYS, (first, second), strict=False):
        if not values.isfinite().all():
            raise refuse(f"has a number in {key!r} that is not finite", advice)
    if (second < 0).any():
        raise refuse(f"has a negative number, {float(second.min()):.3g}, in 'exp_avg_sq', a mean of squares", advice)
    steps = float(state["step"])
    if not (steps >= 1 and steps == int(steps)):
        raise refuse(
            f"says 'step' is {steps:g}; it must be a whole number of at least 1",
            "Keep the checkpoint after the optimizer's first step, not before",
        )
    return Moments(first, second, int(steps))


def _check_shape(
    name: str, key: str, shape: tuple[int, ...], parameter: nn.Parameter, others: Mapping[str, nn.Parameter]
) -> None:
    if shape == tuple(parameter.shape):
        return
    like = [other for other, p in others.items() if tuple(p.shape) == shape]
    hint = "It is of another model"
    if shape == tuple(parameter.shape)[::-1]:
        hint = "It is transposed"
    elif like:
        hint = f"That is the shape of {like[0]!r}: the states may be in another order than the parameters"
    raise InputError(
        f"the optimizer state of {name!r} has {key!r} of shape {list(shape)}; the parameter's is "
        f"{list(parameter.shape)}. {hint}; take each state from optimizer.state[parameter]"
    )


def _check_numbers(betas: tuple[float, float], eps: float) -> None:
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise InputError(f"betas must be two numbers in [0, 1); they are {betas}")
    if not 0 < eps < math.inf:
        raise InputError(f"eps must be a positive number; it is {eps!r}")


# --- the features --------------------------------------------------------------------------------------------------


class _AroundGradients:
    """What an engine around `GradientFeatures` has in common with it."""

    row_kind = "gradient"
    _features: GradientFeatures

    @property
    def device(self) -> torch.device:
        return self._features.device

    @property
    def trainable(self) -> set[str]:
        return self._features.trainable

    @property
    def coverage(self) -> Coverage:
        return self._features.coverage


class AdamGradients(_AroundGradients):
    """The exact modes: whole per-sample gradients, preconditioned, then projected. An engine as `GradientFeatures` is.

    released: the released code's formula. See the module's text.
    """

    def __init__(
        self,
        model: nn.Module,
        losses: Losses,
        projection: Projection,
        state: AdamState,
        *,
        betas: tuple[float, float] = BETAS,
        eps: float = EPS,
        released: bool = False,
        parameters: Callable[[str], bool] | None = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        _check_numbers(betas, eps)
        self.model, self.losses, self.projection = model, losses, projection
        self._state, self._betas, self._eps, self._released = state, betas, eps, released
        self._features = GradientFeatures(
            model, losses, Projection("identity"), parameters=parameters, autocast=autocast
        )
        shapes = {n: tuple(p.shape) for n, p in chosen_parameters(model, parameters).items()}
        self._plan = plan(projection, shapes)
        self._columns = plan(Projection("identity"), shapes).columns
        self._finish = fast_jl(projection, self._plan.width, self.device) if projection.kind == "fast_jl" else None
        self.dim = projection.width if self._finish else self._plan.width

    @property
    def largest_formed(self) -> int:
        """Numbers of one sample that are held at once, a third of them: `auto_batch_size` counts these three times."""
        return self._features.largest_formed + math.ceil(self._features.dim / 3)

    def __call__(self, batch: Any) -> Tensor:
        """Features [B, dim], float32, as `GradientFeatures` gives them."""
        whole = self._features(batch)
        if self._finish is not None:
            for name, columns in self._columns.items():
                whole[:, columns] = self._preconditioned(name, whole[:, columns])
            return self._finish(whole)
        features = whole.new_zeros(len(whole), self.dim)
        for name, sketch in self._plan.sketches.items():
            features[:, self._plan.columns[name]] += sketch(self._preconditioned(name, whole[:, self._columns[name]]))
        return features

    def _preconditioned(self, name: str, g: Tensor) -> Tensor:
        """Gamma of one parameter, [B, size]; g is overwritten."""
        (b1, b2), of = self._betas, self._state.moments[name]
        t = of.steps + 1
        v = g.square().mul_(1 - b2).add_(of.second, alpha=b2)
        m = g.mul_(1 - b1).add_(of.first, alpha=b1)
        if self._released:
            return m.div_(v.add_(self._eps).sqrt_())
        return m.div_(1 - b1**t).div_(v.div_(1 - b2**t).sqrt_().add_(self._eps))


class RankOneAdamGradients(_AroundGradients):
    """The approximate mode, "adam_rank1": no gradient is formed for it. An engine as `GradientFeatures` is.

    Rows and columns whose mean second moment is less than (1 - b2) times the matrix's are taken for that: it is what a
    sample's own square, if it is of usual size, would add to them. A parameter whose second moment is zero everywhere
    has no scale at all; it is left out, with a warning.
    """

    def __init__(
        self,
        model: nn.Module,
        losses: Losses,
        projection: Projection,
        state: AdamState,
        *,
        betas: tuple[float, float] = BETAS,
        eps: float = EPS,
        parameters: Callable[[str], bool] | None = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        _check_numbers(betas, eps)
        if projection.kind not in (*IN_PASS, "identity"):
            raise InputError(
                f"adam_rank1 goes with projection.kind {', '.join(IN_PASS)} or identity, not {projection.kind!r}, "
                "which needs the gradient itself; then the exact mode, adam, costs no more"
            )
        self.model, self.losses, self.projection = model, losses, projection
        self._state, self._betas, self._eps = state, betas, eps
        self._shapes = {n: tuple(p.shape) for n, p in chosen_parameters(model, parameters).items()}
        self._features = GradientFeatures(
            *(model, losses, projection), parameters=parameters, autocast=autocast, sketches=self._scaled
        )
        self.dim = self._features.dim
        self._offset = self._fixed_part(plan(projection, self._shapes))

    @property
    def largest_formed(self) -> int:
        return self._features.largest_formed

    def __call__(self, batch: Any) -> Tensor:
        """Features [B, dim], float32, as `GradientFeatures` gives them."""
        return self._features(batch) + self._offset

    def _fixed_part(self, layout: Plan) -> Tensor:
        """The projection of b1 m / (1 - b1^t) / (sqrt(v^) + eps) with v as it is, [dim]."""
        (b1, b2), offset = self._betas, torch.zeros(self.dim, device=self.device)
        for name, of in self._state.moments.items():
            t = of.steps + 1
            fixed = b1 / (1 - b1**t) * of.first / ((b2 / (1 - b2**t) * of.second).sqrt() + self._eps)
            offset[layout.columns[name]] += layout.sketches[name](fixed[None])[0]
        return offset

    def _scaled(self, name: str, sketch: Sketch) -> Sketch:
        """The sketch of (1 - b1) g / (1 - b1^t) / (sqrt(v^) + eps), v^ of rank one."""
        (b1, b2), of, shape = self._betas, self._state.moments[name], self._shapes[name]
        t = of.steps + 1
        gain, v = (1 - b1) / (1 - b1**t), b2 / (1 - b2**t) * of.second
        if not v.any():
            warnings.warn(f"{name} has no second moment (all zero): adam_rank1 leaves it out", stacklevel=4)
            return Scaled(sketch, torch.zeros_like(v))
        floor = 1 - b2
        if len(shape) < 2:
            return Scaled(sketch, gain / (v.clamp(min=floor * float(v.mean())).sqrt() + self._eps))
        rows, columns = rank_one(v.view(shape[0], -1), floor)
        row_scale, column_scale = gain / (rows.sqrt() + self._eps), columns.rsqrt()
        if isinstance(sketch, Factored):
            return ScaledFactored.of(sketch, row_scale, column_scale)
        if isinstance(sketch, TensorSketch):
            return sketch.scaled(row_scale, column_scale)
        return Scaled(sketch, torch.outer(row_scale, column_scale).flatten())


def rank_one(v: Tensor, floor: float = 0.0) -> tuple[Tensor, Tensor]:
    """Adafactor's approximation of a non-negative matrix by rows x columns: [r, c] -> [r], [c].

    Rows are the means of v's rows; columns are of mean 1. Both are at least `floor` of their mean. Exact for a v of
    rank one above the floor. v must not be zero everywhere.
    """
    rows, columns = v.mean(1), v.mean(0)
    return rows.clamp(min=floor * float(rows.mean())), (columns / columns.mean()).clamp(min=floor)


def adam_features(
    model: nn.Module,
    losses: Losses,
    projection: Projection,
    optimizer_state: OptimizerState | None,
    *,
    mode: str = "adam",
    betas: tuple[float, float] = BETAS,
    eps: float = EPS,
    parameters: Callable[[str], bool] | None = None,
    autocast: torch.dtype | None = None,
) -> AdamGradients | RankOneAdamGradients:
    """An engine, used as `GradientFeatures` is, for Adam-preconditioned features of candidates.

    optimizer_state: of the checkpoint that the model holds (`Checkpoint.optimizer_state`). mode: one of `MODES`.
    betas, eps: those the checkpoint was trained with. Raises InputError where the state is not usable (`AdamState.of`).
    """
    if mode not in MODES:
        raise InputError(f"the preconditioner must be one of {', '.join(MODES)}; it is {mode!r}")
    state = AdamState.of(model, optimizer_state, parameters)
    options: dict[str, Any] = {"betas": betas, "eps": eps, "parameters": parameters, "autocast": autocast}
    if mode == "adam_rank1":
        return RankOneAdamGradients(model, losses, projection, state, **options)
    return AdamGradients(model, losses, projection, state, released=mode == "adam_released", **options)
