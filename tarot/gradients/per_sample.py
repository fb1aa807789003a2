"""Per-sample gradients, projected while they are made.

The weights are frozen and one ordinary backward pass runs for the whole batch. On its way, each layer's input (seen in
the forward pass) and output gradient (seen in the backward pass) give each sample's projected parameter gradient, and
no weight gradient is ever computed (`rules`). What no rule covers, bare parameters and unknown modules, takes
one backward pass per sample, for those parameters alone. Both give the same features: a parameter's sketch depends on
its name and shape, not on how its gradient was found.

No rule is trusted. The first samples of the first batch, and of the 4th, 16th, ... are compared with autograd, one
at a time; where a rule does not hold, its parameters go to the slow path, with a warning.
"""

from __future__ import annotations

import contextlib
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tarot.common import InputError
from tarot.gradients.attention import InProjection, Tap, attention_forward, is_supported
from tarot.gradients.batches import batch_size, take
from tarot.gradients.fold import Fold, LayoutError
from tarot.gradients.losses import Losses, evaluating, losses_of
from tarot.gradients.preflight import MIXED, growing_axis, refuse_mixing, stacked, tolerance, unfit
from tarot.gradients.projection import Projection, Sketch, fast_jl, plan
from tarot.gradients.reference import sample_gradient
from tarot.gradients.rules import Finish, Layer, Part, is_formed, rule

CHECKED = 4  # samples that a check looks at
LOSS_SCALES = (2.0**10, 2.0**5, 1.0)  # for float16, whose smallest number is 6e-8; the first without an overflow counts

Result = TypeVar("Result")
Sink = Callable[[str, Tensor], None]  # (parameter name, its sketched gradients [B, width]): adds them up


@dataclass(frozen=True)
class Coverage:
    """Every parameter of the model, by name: how its gradient is found, or why it is left out."""

    covered: tuple[tuple[str, str], ...]
    excluded: tuple[tuple[str, str], ...]


class _UnfitError(Exception):
    """A layer's rule cannot be used here; its parameters must take the slow path."""

    def __init__(self, names: set[str], reason: str) -> None:
        super().__init__(reason)
        self.names, self.reason = names, reason


class GradientFeatures:
    """Maps a batch to features: each sample's loss gradient for the chosen parameters, projected.

    parameters: which of the trainable parameters, by name; None for all.
    autocast: dtype of the forward pass under `torch.autocast`, such as torch.bfloat16; None for the model's own.
    preflight: check the rules, as said above. That also finds out which dimension of each layer's input runs over the
        samples, and refuses losses that depend on who shares the batch. It sees a weight that is used outside its
        module, a module that does not do what its class does, a layer that reads the samples in another order; not
        what changes a gradient by less than half a percent, nor what no checked sample has a gradient for. Without
        it, dimension 0 is taken for the samples.
    sketches: what to use in the place of a parameter's sketch, by its name: another linear map of the same width, such
        as one that scales the gradient first (`tarot.gradients.preconditioning`).
    """

    row_kind = "gradient"

    def __init__(
        self,
        model: nn.Module,
        losses: Losses,
        projection: Projection,
        *,
        parameters: Callable[[str], bool] | None = None,
        autocast: torch.dtype | None = None,
        preflight: bool = True,
        sketches: Callable[[str, Sketch], Sketch] | None = None,
    ) -> None:
        self.model, self.losses, self.projection, self.autocast = model, losses, projection, autocast
        self._names = {parameter: name for name, parameter in model.named_parameters()}
        self._excluded = {}
        for parameter, name in self._names.items():
            if not parameter.requires_grad:
                self._excluded[name] = "frozen: requires_grad is False"
            elif parameters is not None and not parameters(name):
                self._excluded[name] = "not among the chosen parameters"
        self._chosen = {name: p for p, name in self._names.items() if name not in self._excluded}
        if not self._chosen:
            raise InputError(
                "no trainable parameter is left to take gradients of; look at `parameters` and requires_grad"
            )
        self._plan = plan(projection, {name: tuple(p.shape) for name, p in self._chosen.items()})
        if sketches is not None:
            self._plan = replace(self._plan, sketches={n: sketches(n, s) for n, s in self._plan.sketches.items()})
        self._finish = fast_jl(projection, self._plan.width, self.device) if projection.kind == "fast_jl" else None
        self.dim = projection.width if self._finish else self._plan.width
        self._axes: dict[str, int] = {}
        self._preflight, self._pair_seen, self._batches, self._next_check = preflight, False, 0, 1
        self._unfit: dict[str, str] = {}
        self._set_layers()
        if self._slow:
            _announce(self._slow, "no rule for their modules")

    @property
    def device(self) -> torch.device:
        return next(iter(self._names)).device

    @property
    def trainable(self) -> set[str]:
        """The parameters that features are made of."""
        return set(self._chosen)

    @property
    def largest_formed(self) -> int:
        """Numbers in the largest gradient that may be held of every sample of a batch at once."""
        return max((p.numel() for name, p in self._chosen.items() if is_formed(self._plan.sketches[name])), default=0)

    @property
    def coverage(self) -> Coverage:
        """As known so far: the check of the first batch may still move parameters to the slow path."""
        covered, excluded = [], []
        kinds: dict[str, list[str]] = defaultdict(list)
        for layer in self._layers:
            for name in layer.names:
                if layer.kind not in kinds[name]:
                    kinds[name].append(layer.kind)
        for alias, parameter in self.model.named_parameters(remove_duplicate=False):
            name = self._names[parameter]
            if name in self._excluded:
                excluded.append((alias, self._excluded[name]))
            elif alias != name:
                covered.append((alias, f"tied to {name}"))
            elif name in self._slow:
                covered.append((name, f"per sample: {self._unfit.get(name, 'no rule for its module')}"))
            else:
                covered.append((name, ", ".join(kinds[name])))
        return Coverage(tuple(covered), tuple(excluded))

    def __call__(self, batch: Any) -> Tensor:
        """Features [B, dim], float32, on the model's device. The model is left as it was.

        Raises InputError where the losses are not one per sample, depend on the rest of the batch, or do not depend on
        the parameters at all.
        """
        samples = batch_size(batch)
        with torch.inference_mode(False), torch.enable_grad(), evaluating(self.model, set()):
            if self._check_is_due(samples):
                self._until_fit(partial(self._check, take(batch, 0, CHECKED), min(samples, CHECKED)))
            features = self._until_fit(partial(self._batch_pass, batch, samples))
            if self._slow:
                self._sample_passes(batch, samples, features)
        return features if self._finish is None else self._finish(features)

    # --- which layer has what --------------------------------------------------------------------------------------

    def _set_layers(self) -> None:
        """Finds a rule for every chosen parameter; the others are `_slow`."""
        self._hooked: list[tuple[nn.Module, Layer]] = []
        self._attentions: list[InProjection] = []
        modules = dict(self.model.named_modules())
        attentions = [m for m in modules.values() if isinstance(m, nn.MultiheadAttention)]
        silent = {m.out_proj for m in attentions if not is_supported(m)}  # used without being called
        for site, module in modules.items():
            own = {role: self._names[p] for role, p in module._parameters.items() if p is not None}
            own = {role: name for role, name in own.items() if name in self._chosen and name not in self._unfit}
            if not own or module in silent:
                continue
            if is_supported(module):
                self._attentions.append(InProjection.of(site, module, own))
            elif (kind := rule(module)) is not None and own.keys() & {"weight", "bias"}:
                parts = (Part.whole(own[r], module._parameters[r]) if r in own else None for r in ("weight", "bias"))
                self._hooked.append((module, kind(site, module, *parts)))
        self._layers = [layer for _, layer in self._hooked]
        for attention in self._attentions:
            self._layers += attention.layers
        found = {name for layer in self._layers for name in layer.names}
        self._slow = [name for name in self._chosen if name not in found]

    def _until_fit(self, work: Callable[[], Result]) -> Result:
        """`work()`, again with more parameters on the slow path whenever a rule turns out not to hold."""
        while True:
            try:
                return work()
            except _UnfitError as error:
                self._unfit.update(dict.fromkeys(error.names, error.reason))
                self._set_layers()
                _announce(error.names, error.reason)

    # --- the fast path ---------------------------------------------------------------------------------------------

    def _batch_pass(self, batch: Any, samples: int) -> Tensor:
        """The hooked parameters' features [samples, width], the other parameters' columns still zero.

        A layer that sees several rows per sample is taken to see equally many of each, in the samples' order. That
        held in the check but may not hold for all data (tokens routed to an expert), so that in every batch one
        sample is compared with a pass of its own.
        """
        features = torch.zeros(samples, self._plan.width, device=self.device)
        spot = max(0, samples // 2 - samples % 2)  # not the middle one, which even a reversal leaves in its place
        in_batch: dict[str, Tensor] = {}

        def sink(name: str, rows: Tensor) -> None:
            features[:, self._plan.columns[name]].add_(rows)
            _accumulate(in_batch, name, rows[spot : spot + 1].clone())

        for scale in self._scales:
            features.zero_()
            in_batch.clear()
            folded = self._one_pass(batch, samples, sink, self.autocast, scale)
            if features.isfinite().all():
                break
        if folded:
            alone = self._rows(take(batch, spot, spot + 1), 1, self.autocast, scale)
            for name in folded & alone.keys():
                usual = float(features[:, self._plan.columns[name]].norm()) / samples**0.5
                if float((in_batch[name] - alone[name]).norm()) > MIXED * usual:
                    raise _UnfitError(folded, "its layer does not see equally many rows of each sample")
        return features

    def _rows(
        self, batch: Any, samples: int, autocast: torch.dtype | None = None, scale: float = 1.0
    ) -> dict[str, Tensor]:
        """Every hooked parameter's sketched gradients, [samples, width]."""
        rows: dict[str, Tensor] = {}
        self._one_pass(batch, samples, partial(_accumulate, rows), autocast, scale)
        return rows

    def _one_pass(self, batch: Any, samples: int, sink: Sink, autocast: torch.dtype | None, scale: float) -> set[str]:
        """Forward and backward of the whole batch; every hooked parameter's sketched gradients go to `sink`.

        scale: of the loss in the backward pass. Returns the parameters of the layers that see more rows than samples.
        """
        folded: set[str] = set()

        def finish(layer: Layer, steps: list[tuple[str, Finish]], d: Tensor) -> None:
            with _naming(layer):
                fold = Fold(samples, self._axes.get(layer.site, 0))
                for name, step in steps:
                    sink(name, step(d, fold) / scale if scale != 1 else step(d, fold))

        def tap(layer: Layer, x: Tensor, y: Tensor) -> Tensor:
            if not torch.is_grad_enabled():
                return y
            axis = self._axes.get(layer.site, 0)
            if samples > 1 and x.shape[axis : axis + 1] != (samples,):
                folded.update(layer.names)
            if not y.requires_grad:  # the first layer: nothing before it is differentiated
                y = _Source.apply(torch.zeros((), requires_grad=True), y)
            with _naming(layer):
                y.register_hook(partial(finish, layer, layer.begin(x, self._plan.sketches)))
            return y

        with self._tapped(tap):  # in the backward pass too: activation checkpointing calls the layers again
            with torch.autocast(self.device.type, autocast, enabled=autocast is not None):
                total = losses_of(self.model, self.losses, batch, samples).float().sum()
            if total.requires_grad:
                (total * scale).backward()
        return folded

    @contextlib.contextmanager
    def _tapped(self, tap: Tap) -> Iterator[None]:
        """The model's layers call `tap(layer, input, output)` and go on with what it returns."""

        def hook(layer: Layer, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Tensor:
            given = args[0] if args else next(iter(kwargs.values()), None)
            with _naming(layer):
                x, y = layer.demand(given, output)
            return tap(layer, x, y)

        with contextlib.ExitStack() as stack:
            for module, layer in self._hooked:
                handle = module.register_forward_hook(partial(hook, layer), with_kwargs=True)
                stack.callback(handle.remove)
            for attention in self._attentions:
                setattr(attention.module, "forward", partial(attention_forward, attention, tap))  # noqa: B010 (a method)
                stack.callback(delattr, attention.module, "forward")
            yield

    # --- the slow path ---------------------------------------------------------------------------------------------

    def _sample_passes(self, batch: Any, samples: int, features: Tensor) -> None:
        """Adds the other parameters' gradients to `features`."""
        with evaluating(self.model, set(self._slow)):
            for i in range(samples):
                sample = take(batch, i, i + 1)
                for scale in self._scales:
                    rows = self._sample_pass(sample, self._slow, self.autocast, scale)
                    if all(row.isfinite().all() for row in rows.values()):
                        break
                for name, row in rows.items():
                    features[i, self._plan.columns[name]] += row[0]

    def _sample_pass(
        self, sample: Any, names: list[str], autocast: torch.dtype | None = None, scale: float = 1.0
    ) -> dict[str, Tensor]:
        """Sketched gradients [1, width] of a batch of one, by autograd; `names` must require gradients."""
        chosen = {name: self._chosen[name] for name in names}
        with torch.autocast(self.device.type, autocast, enabled=autocast is not None):
            gradients = sample_gradient(self.model, lambda m, b: self.losses(m, b).float() * scale, sample, chosen)
        return {name: self._plan.sketches[name](g.reshape(1, -1)) / scale for name, g in gradients.items()}

    @property
    def _scales(self) -> tuple[float, ...]:
        return LOSS_SCALES if self.autocast == torch.float16 else (1.0,)

    # --- trust -----------------------------------------------------------------------------------------------------

    def _check_is_due(self, samples: int) -> bool:
        """At the 1st, 4th, 16th, ... batch, and at the first of several samples."""
        self._batches += 1
        is_due = self._batches == self._next_check
        if is_due:
            self._next_check *= 4
        return self._preflight and (is_due or (samples > 1 and not self._pair_seen))

    def _check(self, batch: Any, samples: int) -> None:
        """Raises _UnfitError for parameters whose fast path disagrees with the slow one, in full precision."""
        singles = [take(batch, i, i + 1) for i in range(samples)]
        if samples > 1:
            self._find_axes(batch, singles)
            self._pair_seen = True
        with evaluating(self.model, self.trainable):
            if not losses_of(self.model, self.losses, batch, samples).requires_grad:
                raise InputError(
                    "the losses do not depend on any of the chosen parameters; look for detach() or torch.no_grad() in "
                    f"`losses`, or for parameters that are not used: {', '.join(sorted(self.trainable)[:5])}"
                )
        names = [name for name in self._chosen if name not in self._slow]
        if not names:
            return
        with evaluating(self.model, set(names)):
            expected = stacked([self._sample_pass(single, names) for single in singles])
        alone = stacked([self._rows(single, 1) for single in singles])
        together = self._rows(batch, samples) if samples > 1 else None
        reasons = unfit(expected, alone, together, tolerance({p.dtype for p in self._chosen.values()}))
        for reason in set(reasons.values()):
            raise _UnfitError({name for name in reasons if reasons[name] == reason}, reason)

    def _find_axes(self, batch: Any, singles: list[Any]) -> None:
        """Which dimension of each layer's input grows with the number of samples."""
        (first, a), (second, b), (whole, every) = (self._input_shapes(part) for part in (*singles[:2], batch))
        refuse_mixing(torch.cat([first, second]), whole[:2])
        for site in {layer.site for layer in self._layers}:
            calls = zip(a[site], b[site], every[site], strict=False)
            axes = {growing_axis(*shapes, len(singles)) for shapes in calls}
            axis = axes.pop() if len(axes) == 1 else None
            if axis is not None:
                self._axes[site] = axis

    def _input_shapes(self, batch: Any) -> tuple[Tensor, dict[str, list[torch.Size]]]:
        """The losses, and the shapes of the inputs of each layer's calls, in a forward pass."""
        seen: dict[str, list[torch.Size]] = defaultdict(list)

        def tap(layer: Layer, x: Tensor, y: Tensor) -> Tensor:
            seen[layer.site].append(x.shape)
            return y

        with self._tapped(tap), torch.no_grad():
            return losses_of(self.model, self.losses, batch, batch_size(batch)).float(), seen


class _Source(torch.autograd.Function):
    """The tensor y as the result of an operation that gradients flow back to, without copying it.

    Sharing storage, rather than being a view, is what allows the model to go on with in-place operations.
    """

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, y: Tensor) -> Tensor:
        source: Tensor = y.new_empty(0).set_(y)  # type: ignore[call-overload]  # torch's stub knows storages alone
        return source

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[None, None]:
        return None, None


def _accumulate(sums: dict[str, Tensor], name: str, rows: Tensor) -> None:
    sums[name] = sums[name] + rows if name in sums else rows


def _announce(names: Iterable[str], reason: str) -> None:
    text = f"gradients of {', '.join(sorted(names))} take one backward pass per sample: {reason}"
    warnings.warn(text, stacklevel=3)


@contextlib.contextmanager
def _naming(layer: Layer) -> Iterator[None]:
    try:
        yield
    except LayoutError as error:
        raise _UnfitError(layer.names, f"{layer.site}: {error}") from error
