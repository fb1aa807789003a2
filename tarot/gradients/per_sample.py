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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tarot.common import InputError, warn_if_emulated
from tarot.gradients.attention import attention_forward, is_supported
from tarot.gradients.batches import batch_size, take
from tarot.gradients.experts import experts_forward, is_experts
from tarot.gradients.losses import Losses, evaluating, losses_of
from tarot.gradients.preflight import MIXED, Layout, layout_of, refuse_mixing, stacked, tolerance, unfit
from tarot.gradients.projection import Projection, Sketch, fast_jl, plan
from tarot.gradients.reference import sample_gradient
from tarot.gradients.rules import is_formed
from tarot.gradients.sharded import in_shares, sharing
from tarot.gradients.watch import Shapes, Sink, Site, Watch, watchable

CHECKED = 4  # samples that a check looks at
LOSS_SCALES = (2.0**10, 2.0**5, 1.0)  # for float16, whose smallest number is 6e-8; the first without an overflow counts

Result = TypeVar("Result")


@dataclass(frozen=True)
class Coverage:
    """Every parameter of the model, by name: how its gradient is found, or why it is left out."""

    covered: tuple[tuple[str, str], ...]
    excluded: tuple[tuple[str, str], ...]


class _UnfitError(Exception):
    """Rules cannot be used for some parameters, by name, and why; these must take the slow path."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        super().__init__(", ".join(reasons))
        self.reasons = reasons

    def __reduce__(self) -> tuple[Any, ...]:
        return _UnfitError, (self.reasons,)


class GradientFeatures:
    """Maps a batch to features: each sample's loss gradient for the chosen parameters, projected.

    Of a model whose frozen weights are shared out over processes (FSDP2), each process makes a share of the rows and
    has all of them; all must be given the same batches.

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
        self._sharing = sharing(model)
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
        warn_if_emulated(autocast, self.device)
        self.dim = projection.width if self._finish else self._plan.width
        self._layouts: dict[Site, list[Layout]] = {}
        self._is_static = False
        self._kinds: dict[str, list[str]] = {}
        self._computed = 0
        self._preflight, self._pair_seen, self._batches, self._next_check = preflight, False, 0, 1
        self._unfit: dict[str, str] = {}
        seen = watchable(model)
        out_of_sight = [name for name, p in self._chosen.items() if p not in seen]
        if out_of_sight:
            self._refuse(dict.fromkeys(out_of_sight, "their module uses them out of sight"))

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
        formed = (p.numel() for name, p in self._chosen.items() if is_formed(self._plan.sketches[name]))
        return max(self._computed, *formed, 0)

    @property
    def coverage(self) -> Coverage:
        """As known so far: the check of the first batch may still move parameters to the slow path."""
        covered, excluded = [], []
        for alias, parameter in self.model.named_parameters(remove_duplicate=False):
            name = self._names[parameter]
            if name in self._excluded:
                excluded.append((alias, self._excluded[name]))
            elif alias != name:
                covered.append((alias, f"tied to {name}"))
            elif name in self._unfit:
                covered.append((name, f"per sample: {self._unfit[name]}"))
            else:
                covered.append((name, ", ".join(self._kinds.get(name, ["not used so far"]))))
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
            whole = self._batch_pass
            shares = whole if self._sharing is None else partial(in_shares, self._sharing, _UnfitError, whole)
            features = self._until_fit(partial(shares, batch, samples))
            if self._slow:
                self._sample_passes(batch, samples, features)
        return features if self._finish is None else self._finish(features)

    # --- which parameters have rules ------------------------------------------------------------------------------

    @property
    def _slow(self) -> list[str]:
        return [name for name in self._chosen if name in self._unfit]

    @property
    def _fast(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self._chosen.items() if name not in self._unfit}

    def _until_fit(self, work: Callable[[], Result]) -> Result:
        """`work()`, again with more parameters on the slow path whenever a rule turns out not to hold."""
        while True:
            try:
                return work()
            except _UnfitError as error:
                self._refuse(error.reasons)

    def _refuse(self, reasons: Mapping[str, str]) -> None:
        """Puts parameters on the slow path."""
        self._unfit.update(reasons)
        for reason in sorted(set(reasons.values())):
            names = sorted(name for name in reasons if reasons[name] == reason)
            text = f"gradients of {', '.join(names)} take one backward pass per sample: {reason}"
            warnings.warn(text, stacklevel=3)

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
        if folded and not self._is_static:
            alone = self._rows(take(batch, spot, spot + 1), 1, self.autocast, scale)
            for name in folded & alone.keys():
                usual = float(features[:, self._plan.columns[name]].norm()) / samples**0.5
                if float((in_batch[name] - alone[name]).norm()) > MIXED * usual:
                    raise _UnfitError(dict.fromkeys(folded, "its layer does not see equally many rows of each sample"))
        return features

    def _rows(
        self, batch: Any, samples: int, autocast: torch.dtype | None = None, scale: float = 1.0
    ) -> dict[str, Tensor]:
        """Every hooked parameter's sketched gradients, [samples, width]."""
        rows: dict[str, Tensor] = {}
        self._one_pass(batch, samples, partial(_accumulate, rows), autocast, scale)
        return rows

    def _one_pass(self, batch: Any, samples: int, sink: Sink, autocast: torch.dtype | None, scale: float) -> set[str]:
        """Forward and backward of the whole batch; every parameter's sketched gradients go to `sink`.

        scale: of the loss in the backward pass. Returns the parameters that are used where rows are more than samples.
        """
        watch = Watch(self._fast, self._plan.sketches, samples, self._layouts, sink, scale)
        with self._watched(watch):  # in the backward pass too: activation checkpointing calls the layers again
            with torch.autocast(self.device.type, autocast, enabled=autocast is not None):
                total = losses_of(self.model, self.losses, batch, samples).float().sum()
            if total.requires_grad:
                (total * scale).backward()
        if watch.unfit:
            raise _UnfitError(watch.unfit)
        watch.take_back()
        self._computed = max(self._computed, watch.computed)
        for name, kinds in watch.kinds.items():
            self._kinds[name] = list(dict.fromkeys([*self._kinds.get(name, []), *kinds]))
        return watch.folded

    @contextlib.contextmanager
    def _watched(self, watch: Watch) -> Iterator[None]:
        """The model's parameters are watched, those inside of attention and of experts, too."""
        with contextlib.ExitStack() as stack:
            for module in self.model.modules():
                forward: Callable[..., Any] | None = None
                if is_supported(module):
                    forward = partial(attention_forward, module)
                elif is_experts(module):
                    forward = partial(experts_forward, module, watch)
                if forward is not None:
                    setattr(module, "forward", forward)  # noqa: B010 (a method)
                    stack.callback(delattr, module, "forward")
            stack.enter_context(watch.of(self.model))
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
            self._probe(batch, singles)
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
        if reasons:
            raise _UnfitError(reasons)

    def _probe(self, batch: Any, singles: list[Any]) -> None:
        """Along which dimension the output of each use of a parameter grows with the number of samples, if at all.

        What does not grow is computed of parameters alone, and what is done with that is seen once that is known.
        """
        parts = (*singles[:2], batch)
        self._layouts = {}
        while True:
            with _Reordering() as reordering:
                (first, a), (second, b), (whole, every) = map(self._output_shapes, parts)
            refuse_mixing(torch.cat([first, second]), whole[:2])
            found = {
                site: [layout_of(*shapes, len(singles)) for shapes in zip(a[site], b[site], every[site], strict=False)]
                for site in every
            }
            is_settled = found == self._layouts
            self._layouts = found
            if is_settled:
                self._is_static = not reordering.seen
                return

    def _output_shapes(self, batch: Any) -> tuple[Tensor, Shapes]:
        """The losses, and the shapes of what each use of a parameter writes, in a forward pass."""
        samples = batch_size(batch)
        watch = Watch(self._fast, self._plan.sketches, samples, self._layouts)
        with self._watched(watch), torch.no_grad():
            return losses_of(self.model, self.losses, batch, samples).float(), watch.shapes


def is_chosen_by_mask(args: tuple[Any, ...]) -> bool:
    """Whether an operation is given a list of indices of which one is a mask."""
    lists = (argument for argument in args if isinstance(argument, list))
    return any(isinstance(t, Tensor) and t.dtype == torch.bool for indices in lists for t in indices)


class _Reordering(TorchDispatchMode):
    """Sees whether an operation runs whose result's layout depends on the data, such as a choice of rows."""

    NAMES = ("nonzero", "masked_select", "sort", "argsort", "topk", "unique", "multinomial", "bincount", "histc")

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.seen = False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        self.seen = (
            self.seen or func.overloadpacket.__name__.strip("_").startswith(self.NAMES) or is_chosen_by_mask(args)
        )
        return func(*args, **(kwargs or {}))


def _accumulate(sums: dict[str, Tensor], name: str, rows: Tensor) -> None:
    sums[name] = sums[name] + rows if name in sums else rows
