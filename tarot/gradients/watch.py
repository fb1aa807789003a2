"""Parameters that tell when they are used: where each of them meets samples, by which operation, and beside what.

While a model is watched, its modules hold, in the place of parameters, tensors that report every operation on them.
What is computed of parameters alone, a slice, a transpose, `1 + weight`, a table's rows in a fixed order, is a
parameter for the next operation: its gradient is found for each sample where it meets samples, and is then taken back
to the parameters through that computation, for all samples at once.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tarot.gradients.fold import Fold, LayoutError, OwnedRows
from tarot.gradients.preflight import Layout
from tarot.gradients.projection import Sketch
from tarot.gradients.rules import IN_PLACE, NAMES, RULES, AsItIs, Call, Step, Target

Site = tuple[str, str]  # (what is read, the operation): every call there is one more
Shapes = Mapping[Site, list[torch.Size | None]]  # of what each call at a site wrote, in their order
Sink = Callable[[str, Tensor], None]  # (parameter name, its sketched gradients [B, width]): adds them up
COPYING = ("expand", "expand_as", "broadcast_to", "repeat", "tile", "repeat_interleave")  # by sizes that may be samples
QUIET = ("detach", "data_ptr", "requires_grad_", "numpy", "tolist", "item", "backward", "register_hook")
VALUES = tuple(getattr(Tensor, name).__get__ for name in ("data", "grad"))
TURNS = tuple(getattr(Tensor, name).__get__ for name in ("T", "mT"))


@dataclass(frozen=True, eq=False)
class Origin:
    """What a watched tensor is.

    name: of the parameter, or of how it is computed of parameters. of: those. plain: its value, without a graph.
    graph: its value with the graph back to the parameters. target: how its gradient gets to a sketch.
    """

    name: str
    of: frozenset[str]
    plain: Tensor
    graph: Callable[[], Tensor]
    target: Target
    is_parameter: bool = False


class Watched(Tensor):
    """A parameter, or what is computed of parameters alone, that reports what is done with it."""

    origin: Origin
    watch: Watch

    @classmethod
    def of(cls, origin: Origin, watch: Watch) -> Watched:
        watched = origin.plain.as_subclass(cls)
        watched.origin, watched.watch = origin, watch
        return watched

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            watched = next(leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, Watched))
            return watched.watch.operation(func, args, kwargs)


class Watch:
    """One forward and backward pass of a model whose parameters are watched.

    parameters: by name. sketches: theirs. samples: in the batch. layouts: of the calls at each site, in their order, as
    found in a probe; sites that it does not know have samples along dimension 0. scale: of the loss. A probe itself
    (`is_probe`) takes no gradients and writes down the shape of every call's output instead.

    What it finds: `shapes` of a probe; `unfit`, the parameters that no rule is for, and why; `folded`, those used where
    there are several rows for each sample; `kinds` of operations by parameter; `computed`, the largest gradient, in
    numbers, of what is computed of parameters.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        sketches: Mapping[str, Sketch],
        samples: int,
        layouts: Mapping[Site, list[Layout]],
        sink: Sink | None = None,
        scale: float = 1.0,
    ) -> None:
        self.parameters, self.sketches, self.samples, self.layouts = parameters, sketches, samples, layouts
        self.sink, self.scale = sink, scale
        self.shapes: dict[Site, list[torch.Size | None]] = defaultdict(list)
        self.unfit: dict[str, str] = {}
        self.folded: set[str] = set()
        self.kinds: dict[str, list[str]] = defaultdict(list)
        self.computed = 0
        self._owners: Tensor | None = None
        self._collected: dict[Origin, Tensor] = {}
        self._origins: dict[Any, Origin] = {}  # of what is computed of parameters, by the key of its target
        self._hooks: list[RemovableHandle] = []
        self._leaves: dict[str, Tensor] = {}

    @property
    def is_probe(self) -> bool:
        return self.sink is None

    @contextlib.contextmanager
    def of(self, model: nn.Module) -> Iterator[None]:
        """The model's modules hold watched parameters meanwhile."""
        names = {parameter: name for name, parameter in self.parameters.items()}
        watched = {parameter: Watched.of(self._parameter(name), self) for parameter, name in names.items()}
        held: list[tuple[dict[str, Any], str, nn.Parameter]] = []
        try:
            for module in model.modules():
                for role, parameter in module._parameters.items():
                    if parameter is not None and parameter in watched:
                        held.append((module._parameters, role, parameter))
                        module._parameters[role] = watched[parameter]  # type: ignore[assignment]
            yield
        finally:
            for parameters, role, parameter in held:
                parameters[role] = parameter
            for hook in self._hooks:  # which hold what they hang on: a batch would stay until garbage is collected
                hook.remove()
            self._hooks.clear()

    @contextlib.contextmanager
    def rows_of(self, owners: Tensor) -> Iterator[None]:
        """Operations meanwhile read rows of which each belongs to the sample that `owners`, int64 [rows], says."""
        self._owners = owners
        try:
            yield
        finally:
            self._owners = None

    def _parameter(self, name: str) -> Origin:
        plain = self.parameters[name].detach()
        target = Target.whole(name, self.sketches[name], plain.shape)
        return Origin(name, frozenset((name,)), plain, functools.partial(self._leaf, name), target, is_parameter=True)

    def _leaf(self, name: str) -> Tensor:
        if name not in self._leaves:
            self._leaves[name] = self.parameters[name].detach().requires_grad_()
        return self._leaves[name]

    # --- what an operation is --------------------------------------------------------------------------------------

    def operation(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The result of an operation on watched tensors, which is one again where no sample has a part in it."""
        if func in VALUES or func.__name__ in QUIET:
            return func(*plain(args), **plain(kwargs))
        name = NAMES.get(func.__name__, func.__name__)
        read = [leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, Watched)]
        view = as_view(func, args, kwargs)
        if view is not None:
            return Watched.of(view, self) if torch.is_grad_enabled() or self.is_probe else view.plain
        others = any(isinstance(leaf, Tensor) and not isinstance(leaf, Watched) for leaf in leaves((args, kwargs)))
        if not others and name not in COPYING:
            return self._computed(func, name, read, args, kwargs)
        if self._owners is not None:
            return self._met(func, name, read, args, kwargs, OwnedRows(self.samples, owners=self._owners))
        site = read[0].origin.name, name
        layout = self._layout(site)
        if layout.is_constant:
            result = self._computed(func, name, read, args, kwargs)
            self.shapes[site].append(result.shape if isinstance(result, Tensor) else None)
            return result
        result = self._met(func, name, read, args, kwargs, Fold(self.samples, layout.axis or 0))
        self.shapes[site].append(result.shape if isinstance(result, Tensor) else None)
        return result

    def _layout(self, site: Site) -> Layout:
        """Of the next call there; the last known where a probe saw fewer."""
        known, calls = self.layouts.get(site, []), len(self.shapes[site])
        if calls < len(known):
            return known[calls]
        return known[-1] if known and all(layout == known[0] for layout in known) else Layout(0)

    def _computed(
        self,
        func: Callable[..., Any],
        name: str,
        read: list[Watched],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Any:
        """What is computed of parameters alone."""
        if not (torch.is_grad_enabled() or self.is_probe):
            return func(*plain(args), **plain(kwargs))
        with torch.enable_grad():
            value = func(*graphs(args), **graphs(kwargs))
        same = next((watched for watched in read if watched.origin.graph() is value), None)
        if same is not None:
            return same
        of = frozenset[str]().union(*(watched.origin.of for watched in read))
        where = f"{read[0].origin.name}.{name}"

        def watched(value: Any, where: str) -> Any:
            if not isinstance(value, Tensor) or not value.requires_grad:
                return value
            origin = computed_origin(where, of, value)
            self._origins[origin.target.key] = origin
            return Watched.of(origin, self)

        if isinstance(value, tuple | list):
            return type(value)(watched(part, f"{where}.{i}") for i, part in enumerate(value))
        return watched(value, where)

    def _met(
        self,
        func: Callable[..., Any],
        name: str,
        read: list[Watched],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        fold: Fold,
    ) -> Any:
        """What parameters and samples make together: the gradient of it will give each sample's of the parameters."""
        plain_args, plain_kwargs = plain(args), plain(kwargs)
        y = func(*plain_args, **plain_kwargs)
        if self.is_probe or not torch.is_grad_enabled():
            return y
        names = set[str]().union(*(watched.origin.of for watched in read))
        if isinstance(y, Tensor) and not y.is_floating_point():
            return y
        try:
            if not isinstance(y, Tensor):
                raise LayoutError("it writes several tensors")
            if name not in RULES:
                raise LayoutError("there is no rule for it")
            if func.__name__.endswith("_") and func.__name__ not in IN_PLACE and not func.__name__.startswith("__"):
                raise LayoutError("it is done in place")
            kind, rule = RULES[name]
            given: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
            targets = {key: value.origin.target for key, value in given if isinstance(value, Watched)}
            if len(targets) < len(read):
                raise LayoutError("it reads a list of tensors")
            call = Call(name, f"{name} of {read[0].origin.name}", func, plain_args, plain_kwargs, targets, y)
            if y is next((leaf for leaf in plain_args if isinstance(leaf, Tensor)), None) and not y.requires_grad:
                raise LayoutError("it is done in place")
            steps = rule(call)
        except LayoutError as error:
            self.unfit.update(dict.fromkeys(names, f"{name}: {error}"))
            return y
        for known in names:
            if kind not in self.kinds[known]:
                self.kinds[known].append(kind)
        is_known = isinstance(fold, OwnedRows) or y.shape[fold.axis : fold.axis + 1] == (self.samples,)
        if not is_known and not any(is_in_order(leaf, self.samples) for leaf in plain_args):
            self.folded.update(names)
        if not y.requires_grad:  # the first layer: nothing before it is differentiated
            y = _Source.apply(torch.zeros((), requires_grad=True), y)
        self._hooks.append(y.register_hook(functools.partial(self._finish, name, names, steps, fold)))
        return y

    # --- gradients -------------------------------------------------------------------------------------------------

    def _finish(self, operation: str, names: set[str], steps: list[Step], fold: Fold, d: Tensor) -> None:
        try:
            for target, step in steps:
                rows = step(d, fold)
                self._add(target.key, rows / self.scale if self.scale != 1 else rows)
        except LayoutError as error:
            self.unfit.update(dict.fromkeys(names, f"{operation}: {error}"))

    def _add(self, key: Any, rows: Tensor) -> None:
        if isinstance(key, str):
            self._give(key, rows)
            return
        origin, row = key if isinstance(key, tuple) else (self._origins[key], None)
        if origin not in self._collected:
            self._collected[origin] = rows.new_zeros(self.samples, *origin.plain.shape)
            self.computed = max(self.computed, origin.plain.numel())
        collected = self._collected[origin]
        (collected if row is None else collected[:, row]).add_(
            rows.view(self.samples, *collected.shape[1 + (row is not None) :])
        )

    def _give(self, name: str, rows: Tensor) -> None:
        if self.sink is not None:
            self.sink(name, rows)

    def take_back(self) -> None:
        """Takes the gradients of what was computed of parameters back to these, after the backward pass."""
        for origin in [origin for origin in self._collected if origin.is_parameter]:
            self._give(origin.name, origin.target.sketched(self._collected.pop(origin)))
        if not self._collected:
            return
        leaves = {name: self._leaf(name) for name in sorted(set().union(*(o.of for o in self._collected)))}
        values = [origin.graph() for origin in self._collected]
        rows = [rows.to(value.dtype) for rows, value in zip(self._collected.values(), values, strict=True)]
        for name, gradients in zip(leaves, pulled_back(values, list(leaves.values()), rows), strict=True):
            if gradients is not None:
                target = Target.whole(name, self.sketches[name], leaves[name].shape)
                self._give(name, target.sketched(gradients))
        self._collected.clear()


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


def is_in_order(x: Any, samples: int) -> bool:
    """Whether x is another view of all of a tensor of one row for each sample: [B, T, ...] as [B * T, ...]."""
    base = x._base if isinstance(x, Tensor) and x.is_floating_point() else None
    if base is None or base.shape[:1] != (samples,):
        return False
    return x.numel() == base.numel() and x.is_contiguous() and base.is_contiguous()


def pulled_back(values: list[Tensor], leaves: list[Tensor], rows: list[Tensor]) -> list[Tensor | None]:
    """For each leaf, sum over values of the vector-Jacobian products of its B rows, [B, *leaf]; None without a way."""
    gradient = functools.partial(
        torch.autograd.grad, values, leaves, allow_unused=True, retain_graph=True, is_grads_batched=True
    )
    try:
        return list(gradient(rows))
    except RuntimeError:  # an operation that cannot be batched: sample by sample
        each = [
            torch.autograd.grad(values, leaves, [row[i] for row in rows], allow_unused=True, retain_graph=True)
            for i in range(len(rows[0]))
        ]
    return [None if of_leaf[0] is None else torch.stack(of_leaf) for of_leaf in zip(*each, strict=True)]


def computed_origin(name: str, of: frozenset[str], value: Tensor) -> Origin:
    target = Target.whole(object(), AsItIs(value.numel()), value.shape)
    return Origin(name, of, value.detach(), lambda: value, target)


def as_view(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Origin | None:
    """Rows, one row of a stack of matrices, or the transpose of a matrix, which sketches know; None for all else."""
    if kwargs or not args or not isinstance(args[0], Watched):
        return None
    origin, target = args[0].origin, args[0].origin.target
    if (func in TURNS and len(target.read_shape) == 2) or (
        func.__name__ == "t" or (func.__name__ == "transpose" and set(args[1:]) in ({0, 1}, {-1, -2}))
    ):
        if len(target.read_shape) != 2:
            return None
        return viewed(origin, func, args[1:], replace(target, transposed=not target.transposed), "T")
    if func.__name__ != "__getitem__" or target.transposed or not target.shape:
        return None
    index = args[1]
    if isinstance(index, slice) and index.step in (None, 1):
        start, stop, _ = index.indices(target.stop - target.start)
        if stop > start:
            part = replace(target, start=target.start + start, stop=target.start + stop)
            return viewed(origin, func, args[1:], part, "rows")
    is_one = isinstance(index, int) or (isinstance(index, Tensor) and index.ndim == 0 and not index.is_floating_point())
    if is_one and len(target.shape) >= 2 and (target.start, target.stop) == (0, target.shape[0]):
        if isinstance(index, Tensor) and (isinstance(index, Watched) or index.dtype == torch.bool):
            return None
        row = int(index) % target.shape[0]
        size = math.prod(target.shape[1:])
        of_row = Target((origin, row), AsItIs(size), target.shape[1:], 0, target.shape[1])
        return viewed(origin, func, args[1:], of_row, "row")
    return None


def viewed(origin: Origin, func: Callable[..., Any], rest: tuple[Any, ...], target: Target, how: str) -> Origin:
    graph = functools.cache(lambda: func(origin.graph(), *rest))
    return Origin(f"{origin.name}.{how}", origin.of, func(origin.plain, *rest), graph, target)


def leaves(nest: Any) -> Iterator[Any]:
    """What is in a nest of tuples, lists and dicts."""
    if isinstance(nest, tuple | list):
        for item in nest:
            yield from leaves(item)
    elif isinstance(nest, dict):
        for item in nest.values():
            yield from leaves(item)
    else:
        yield nest


def exchanged(nest: Any, function: Callable[[Watched], Tensor]) -> Any:
    """The same nest with `function` of its watched tensors."""
    if isinstance(nest, Watched):
        return function(nest)
    if isinstance(nest, tuple | list) and type(nest) in (tuple, list):
        return type(nest)(exchanged(item, function) for item in nest)
    if isinstance(nest, dict):
        return {name: exchanged(item, function) for name, item in nest.items()}
    return nest


def plain(nest: Any) -> Any:
    return exchanged(nest, lambda watched: watched.origin.plain)


def graphs(nest: Any) -> Any:
    return exchanged(nest, lambda watched: watched.origin.graph())


def watchable(model: nn.Module) -> Collection[nn.Parameter]:
    """The parameters whose uses can be seen: not those that recurrent layers keep in lists of their own."""
    found: set[nn.Parameter] = set()
    for module in model.modules():
        if type(module._parameters) is dict and not isinstance(module, nn.RNNBase):
            found.update(parameter for parameter in module._parameters.values() if parameter is not None)
    return found
