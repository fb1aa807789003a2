"""What a loss does around a checkpoint, along a vector v as long as all chosen parameters: slopes and curvature.

Nothing here is projected or approximated, and no matrix is formed. The model is seen as it is evaluated: BatchNorm
uses its buffers, dropout is off.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from tarot.common import InputError, first_line
from tarot.gradients import (
    Fitting,
    Losses,
    Samples,
    chosen_parameters,
    collated,
    evaluating,
    in_halves,
    losses_of,
    map_tensors,
    refuse_mixing,
    sample_gradient,
    take,
    to_device,
)
from tarot.gradients import batch_size as samples_in

Curvature = Literal["hessian", "fisher"]

log = logging.getLogger("tarot")
CHECKED = 4  # samples whose slopes are compared with their gradients, taken one at a time
KEPT = 1 << 30  # bytes of batches that are not read a second time


@contextlib.contextmanager
def differentiable(model: nn.Module, trainable: set[str]) -> Iterator[None]:
    """`evaluating`, with every fused kernel off that can be differentiated once at most.

    Convolutions on a GPU are made deterministic, without TF32, whose rounding conjugate gradients would amplify.
    """
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(evaluating(model, trainable))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        fused = torch.backends.cudnn.enabled and not recurrent
        stack.enter_context(torch.backends.cudnn.flags(enabled=fused, deterministic=True, allow_tf32=False))
        if recurrent:
            stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
        yield


class Batches:
    """Samples `dataset[i]` of the chosen i in collated batches: (their i, the batch on `device`) on each pass.

    A dataset must give the same sample each time (no random augmentation). keep: batches stay in memory, up to KEPT
    bytes.
    """

    def __init__(
        self,
        dataset: Samples,
        indices: Sequence[int] | NDArray[np.int64],
        name: str,
        *,
        collate: Callable[[list[Any]], Any],
        batch_size: int,
        device: torch.device | str,
        keep: bool = False,
    ) -> None:
        self.dataset, self.name, self.collate, self.device = dataset, name, collate, device
        self.chunks = [list(map(int, indices[i : i + batch_size])) for i in range(0, len(indices), batch_size)]
        self.samples = len(indices)
        self._kept: dict[int, Any] = {}
        self._free = KEPT if keep else 0

    def __iter__(self) -> Iterator[tuple[list[int], Any]]:
        for position, chunk in enumerate(self.chunks):
            batch = self._kept.get(position)
            if batch is None:
                batch = collated(self.collate, [self.dataset[i] for i in chunk])
                size = _bytes(batch)
                if size <= self._free:
                    self._kept[position] = batch
                    self._free -= size
            yield chunk, to_device(batch, self.device)

    def first(self, count: int) -> Any:
        """The first `count` samples as one batch."""
        chosen = [i for chunk in self.chunks for i in chunk][:count]
        return to_device(collated(self.collate, [self.dataset[i] for i in chosen]), self.device)


def _bytes(batch: Any) -> int:
    sizes: list[int] = []
    map_tensors(batch, lambda tensor: sizes.append(tensor.nbytes))
    return sum(sizes)


class _LossModule(nn.Module):
    """The losses as a module, so that `functional_call` can exchange the parameters below it."""

    def __init__(self, model: nn.Module, losses: Losses) -> None:
        super().__init__()
        self.model, self.losses = model, losses

    def forward(self, batch: Any) -> Tensor:
        return losses_of(self.model, self.losses, batch, samples_in(batch))


@dataclass(frozen=True, eq=False)
class LossSurface:
    """The losses of samples as functions of the `chosen` parameters, P numbers in the order of their names.

    forward_mode: slopes by one forward pass that carries derivatives (about two plain ones); otherwise by
    differentiating the backward pass, which every operation with a second derivative allows. Both are exact.
    Vectors are float64 [P], on the model's device. Use it within `differentiable(model, set(chosen))`.
    """

    model: nn.Module
    losses: Losses
    chosen: Mapping[str, nn.Parameter]
    forward_mode: bool = True

    @classmethod
    def of(cls, model: nn.Module, losses: Losses, parameters: Callable[[str], bool] | None) -> LossSurface:
        """Raises InputError where no parameter is left, or one of them has less than single precision."""
        chosen = chosen_parameters(model, parameters)
        if not chosen:
            raise InputError("no trainable parameter is left; look at `parameters` and requires_grad")
        for name, parameter in chosen.items():
            if parameter.dtype not in (torch.float32, torch.float64):
                raise InputError(
                    f"influence needs float32 or float64 parameters; {name} is {parameter.dtype}: model.float()"
                )
        return cls(model, losses, chosen)

    @property
    def size(self) -> int:
        return sum(parameter.numel() for parameter in self.chosen.values())

    @property
    def device(self) -> torch.device:
        return next(iter(self.chosen.values())).device

    # --- one batch ---------------------------------------------------------------------------------------------------

    def gradient(self, batch: Any) -> dict[str, Tensor]:
        """{"losses": [B], "sum": the sum of their gradients, [P]}"""
        losses = self._losses(batch)
        return {"losses": losses.detach(), "sum": self._pull(losses, torch.ones_like(losses))}

    def hessian_product(self, v: Tensor, batch: Any) -> dict[str, Tensor]:
        """{"losses": [B], "sum": the Hessian of their sum, times v, [P]}"""
        losses = self._losses(batch)
        gradients, directions = self._gradients(losses, torch.ones_like(losses), v)
        if not gradients:  # linear in all parameters
            return {"losses": losses.detach(), "sum": torch.zeros_like(v)}
        products = torch.autograd.grad(
            gradients, list(self.chosen.values()), directions, allow_unused=True, materialize_grads=True
        )
        return {"losses": losses.detach(), "sum": _flat(products)}

    def fisher_product(self, v: Tensor, batch: Any) -> dict[str, Tensor]:
        """{"losses": [B], "sum": sum over samples of g <g, v>, [P]}, g being a sample's gradient."""
        slopes = self.slopes(v, batch)["slopes"]
        losses = self._losses(batch)
        return {"losses": losses.detach(), "sum": self._pull(losses, slopes)}

    def slopes(self, v: Tensor, batch: Any) -> dict[str, Tensor]:
        """{"losses": [B], "slopes": <g, v> of every sample, [B]}, in the losses' dtype."""
        return self._carried(v, batch) if self.forward_mode else self._twice(v, batch)

    def _carried(self, v: Tensor, batch: Any) -> dict[str, Tensor]:
        """Slopes by forward-mode differentiation."""
        with forward_ad.dual_level():
            duals = {
                f"model.{name}": forward_ad.make_dual(parameter.detach(), direction)
                for (name, parameter), direction in zip(self.chosen.items(), self._parts(v), strict=True)
            }
            values = torch.func.functional_call(_LossModule(self.model, self.losses), duals, (batch,))
            losses, slopes = forward_ad.unpack_dual(values)
        return {"losses": losses.detach(), "slopes": torch.zeros_like(losses) if slopes is None else slopes.detach()}

    def _twice(self, v: Tensor, batch: Any) -> dict[str, Tensor]:
        """Slopes as the derivative of <sum_i w_i g_i, v> by w."""
        losses = self._losses(batch)
        w = torch.ones_like(losses).requires_grad_()
        gradients, directions = self._gradients(losses, w, v)
        slopes = torch.autograd.grad(gradients, w, directions)[0] if gradients else torch.zeros_like(losses)
        return {"losses": losses.detach(), "slopes": slopes}

    def _losses(self, batch: Any) -> Tensor:
        return losses_of(self.model, self.losses, batch, samples_in(batch))

    def _pull(self, losses: Tensor, weights: Tensor) -> Tensor:
        """The gradient of <weights, losses>, float64 [P]."""
        if not losses.requires_grad:
            return torch.zeros(self.size, dtype=torch.float64, device=self.device)
        parameters = list(self.chosen.values())
        return _flat(torch.autograd.grad(losses, parameters, weights, allow_unused=True, materialize_grads=True))

    def _gradients(self, losses: Tensor, weights: Tensor, v: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The gradients of <weights, losses> that can be differentiated again, and their parts of v."""
        if not losses.requires_grad:
            return [], []
        found = torch.autograd.grad(losses, list(self.chosen.values()), weights, create_graph=True, allow_unused=True)
        pairs = [(g, part) for g, part in zip(found, self._parts(v), strict=True) if g is not None and g.requires_grad]
        return [g for g, _ in pairs], [part for _, part in pairs]

    def _parts(self, v: Tensor) -> list[Tensor]:
        """v as tensors of the parameters' shapes and dtypes."""
        parameters = list(self.chosen.values())
        pieces = v.split([p.numel() for p in parameters])
        return [piece.view(p.shape).to(p.dtype) for p, piece in zip(parameters, pieces, strict=True)]

    # --- a dataset ---------------------------------------------------------------------------------------------------

    def mean_gradient(self, batches: Batches, advance: Callable[[int], None]) -> Tensor:
        """The gradient of the mean loss, float64 [P]. Raises InputError naming the sample whose loss is not finite."""
        return self._mean(self.gradient, batches, advance)

    def mean_product(self, curvature: Curvature, batches: Batches, v: Tensor, advance: Callable[[int], None]) -> Tensor:
        """C v, float64 [P]: C the Hessian of the mean loss ("hessian"), or the mean of g g^T ("fisher")."""
        product = {"hessian": self.hessian_product, "fisher": self.fisher_product}[curvature]
        return self._mean(partial(product, v), batches, advance)

    def all_slopes(self, batches: Batches, v: Tensor, advance: Callable[[int], None]) -> Tensor:
        """<g, v> for every sample, float64 [n] on the CPU."""
        found, fitting = [], Fitting()
        for indices, batch in batches:
            parts = in_halves(partial(self.slopes, v), batch, fitting)
            slopes = torch.cat([part["slopes"] for part in parts]).double().cpu()
            refuse_nonfinite(torch.cat([part["losses"] for part in parts]), batches.name, indices, "loss")
            refuse_nonfinite(slopes, batches.name, indices, "gradient")
            found.append(slopes)
            advance(len(indices))
        return torch.cat(found)

    def _mean(
        self, work: Callable[[Any], dict[str, Tensor]], batches: Batches, advance: Callable[[int], None]
    ) -> Tensor:
        total = torch.zeros(self.size, dtype=torch.float64, device=self.device)
        fitting = Fitting()
        for indices, batch in batches:
            for part in (parts := in_halves(work, batch, fitting)):
                total += part["sum"]
            refuse_nonfinite(torch.cat([part["losses"] for part in parts]), batches.name, indices, "loss")
            if not total.isfinite().all():
                raise InputError(
                    f"{batches.name}: a gradient or its derivative is not finite in the batch of samples "
                    f"{indices[0]} to {indices[-1]}, whose losses are; look for square roots, norms or logarithms of 0"
                )
            advance(len(indices))
        return total / batches.samples

    # --- trust -------------------------------------------------------------------------------------------------------

    def checked(self, batch: Any, curvature: Curvature) -> LossSurface:
        """The surface with the mode that can be used, once slopes equal those of gradients taken one at a time.

        Logs why forward mode is left, if it is. Raises InputError where a loss depends on the others in its batch or
        on no parameter, where neither mode is right, and where the Hessian is wanted without second derivatives.
        """
        samples = min(samples_in(batch), CHECKED)
        batch = take(batch, 0, samples)
        singles = [take(batch, i, i + 1) for i in range(samples)]
        with torch.no_grad():
            apart, together = [self._losses(single) for single in singles], self._losses(batch)
        if not together.isfinite().all():
            return self  # the pass over the dataset names the sample
        refuse_mixing(torch.cat(apart), together)
        if not self._losses(batch).requires_grad:
            raise InputError("the losses depend on none of the chosen parameters; look for detach() or torch.no_grad()")
        rows = [sample_gradient(self.model, self.losses, single, dict(self.chosen)) for single in singles]
        gradients = torch.stack([_flat(list(row.values())) for row in rows])
        generator = torch.Generator().manual_seed(0)
        v = torch.randn(self.size, generator=generator, dtype=torch.float64).to(self.device)
        size = gradients.norm(dim=1)

        def refute(slopes: Tensor) -> str | None:
            wrong = (slopes.double() - gradients @ v).abs() > 1e-2 * size + 1e-6 * size.max()
            return "it disagrees with the gradients of single samples" if wrong.any() else None

        surface = self
        with warnings.catch_warnings():  # of torch's own, when it first loads its rules of forward mode
            warnings.filterwarnings("ignore", message=".*torch.jit.script.* is deprecated")
            reason = _failure(lambda: refute(self._carried(v, batch)["slopes"]))
        if reason:
            log.warning("slopes are found by differentiating backward passes, not in forward mode: %s", reason)
            surface = replace(self, forward_mode=False)
            if reason := _failure(lambda: refute(self._twice(v, batch)["slopes"])):
                raise InputError(f"the gradients of this model cannot be differentiated: {reason}")

        if curvature == "hessian" and (reason := _failure(lambda: self._whole_hessian_product(v, batch))):
            raise InputError(f"the Hessian of this model cannot be found, but curvature='fisher' can: {reason}")
        return surface

    def _whole_hessian_product(self, v: Tensor, batch: Any) -> None:
        """Runs all of the second backward pass.

        torch.autograd.grad leaves out what does not lead to the parameters. That includes the nodes by which PyTorch
        says that a function cannot be differentiated twice, and would make its part of the Hessian zero.
        """
        parameters = list(self.chosen.values())
        kept = [parameter.grad for parameter in parameters]
        try:
            for parameter in parameters:
                parameter.grad = None
            losses = self._losses(batch)
            gradients, directions = self._gradients(losses, torch.ones_like(losses), v)
            if gradients:
                torch.autograd.backward(gradients, directions)
        finally:
            for parameter, gradient in zip(parameters, kept, strict=True):
                parameter.grad = gradient


def _failure(attempt: Callable[[], str | None]) -> str | None:
    """What `attempt` found wrong, or PyTorch's word that a derivative is missing; None if all is well."""
    try:
        return attempt()
    except torch.OutOfMemoryError:
        raise
    except (NotImplementedError, RuntimeError) as error:  # what a missing derivative raises
        return first_line(error)


def refuse_nonfinite(values: Tensor, name: str, indices: Sequence[int], what: str) -> None:
    """Raises InputError naming the first sample whose value is NaN or infinite."""
    bad = (~values.isfinite()).nonzero()
    if len(bad):
        raise InputError(f"{name}: the {what} of sample {indices[int(bad[0])]} is not finite; leave such samples out")


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().to_dense().reshape(-1).double() for tensor in tensors])
