"""From a PyTorch model and a dataset to features on disk, in one call: resumable, and never mixed up."""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import inspect
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import IterableDataset, default_collate

from tarot.common import Count, InputError, Natural, check_option, fingerprint, hash_tensors, resolve_device
from tarot.features import Blueprint, FeatureStore, StoredDtype
from tarot.gradients import Engine, GradientFeatures, Losses, Projection, Samples, gradient_rows
from tarot.workers import LOCAL, Local, Workers, check_workers

_VERSION = 1  # of what is computed here; another one never mixes with stores of this one
_AUTOCASTS = {None: None, "bfloat16": torch.bfloat16, "float16": torch.float16}
_PLAIN = (bool, int, float, str, type(None))

Extras = Mapping[str, Callable[[nn.Module, Any], Tensor]]


def featurize(
    model: nn.Module,
    losses: Losses,
    dataset: Samples,
    path: str | os.PathLike[str],
    *,
    projection: Projection | None = None,
    dim: int | None = None,
    batch_size: int | Literal["auto"] = "auto",
    ids: Sequence[str] | Sequence[int] | NDArray[Any] | None = None,
    collate: Callable[[list[Any]], Any] = default_collate,
    device: torch.device | str = "auto",
    dtype: StoredDtype = "float32",
    workers: int = 0,
    parameters: Callable[[str], bool] | None = None,
    autocast: torch.dtype | Literal["bfloat16", "float16"] | None = None,
    cost: Callable[[Any], float] | None = None,
    on_nonfinite: Literal["raise", "drop"] = "raise",
    recipe: Mapping[str, Any] | None = None,
    rows_per_shard: int = 4096,
    engine: Workers = LOCAL,
) -> FeatureStore:
    """Projected loss gradients of every sample of `dataset`, as a FeatureStore [n, dim] at `path`.

        pool = tarot.featurize(model, losses, candidates, "features/pool")
        wanted = tarot.featurize(model, losses, targets, "features/targets")
        selection = tarot.select(pool, wanted, "tarot_fixed", ratio=0.05)

    model: in any mode; it is evaluated (no dropout, BatchNorm's running statistics) and left as it was.
    losses(model, batch) -> [B]: one loss per sample, which does not depend on the rest of its batch.
    dataset: map-style, with a length n; sample i is always the same.
    projection: default `Projection()`, a tensor sketch. dim: its number of dimensions, where only that is said. The two
        sides of a selection must share both, and so they do by default: neither depends on the dataset.
    batch_size, collate, cost, workers, on_nonfinite: as in `gradient_rows`; they change no row, but for rounding, and
        `collate` where it changes the samples. With on_nonfinite="drop" the store's column "dropped" [n] says which.
    ids: a unique name per row; default 0..n-1.
    device: "auto" is where the model is, or a GPU where there is one and the model is on the CPU. The model is moved
        there for the pass, and back.
    dtype: on disk, "float32", "float16" or "bfloat16". autocast: of the forward pass, "bfloat16", "float16" or None.
    parameters: which of the trainable parameters, by name; None for all.
    recipe: what else tells this data from other data, such as {"file": "pool.jsonl", "version": 3}; plain data.
    rows_per_shard: a call that was killed, or failed, goes on from its last whole shard when it is made again; until
        then that is in a hidden folder beside `path`, and where there is none nothing stays.
    engine: whose workers make the shards, such as `tarot.workers.Ray(workers=8, gpus=1)`; each has a copy of the model.

    A finished store of the same fingerprint is opened, not computed again. The fingerprint holds the model's parameters
    and buffers, the source of its modules' classes, of `losses` and of `collate`, n, ids, `recipe`, and every option
    that changes rows. It does not see the samples themselves (say in `recipe` when they change), nor what a function
    calls or reads from outside, nor the insides of PyTorch.

    Raises InputError (StoreError where `path` holds other features, naming what differs): for a loss that is not one
    per sample, a sample whose gradient is not finite, duplicate ids, and options that make no sense.
    """
    _check_kinds(model, losses, collate, parameters, cost)
    check_workers(engine)
    check_option("workers", workers, Natural)
    check_option("rows_per_shard", rows_per_shard, Count)
    check_option("recipe", recipe, Mapping[str, Any] | None)
    ids = _checked_ids(ids, _length(dataset))
    projection, forward = _projection(projection, dim), _autocast(autocast)
    with _on_device(model, device) as where:
        gradients = GradientFeatures(model, losses, projection, parameters=parameters, autocast=forward)
        made_of = {
            "featurize": _VERSION,
            "model": _model_described(model),
            "losses": _described(losses),
            "data": {"rows": len(ids), "ids": fingerprint({"ids": ids}), "collate": _described(collate)},
            "recipe": None if recipe is None else dict(recipe),
            "parameters": sorted(gradients.trainable),
            "projection": projection.as_dict(),
            "autocast": None if forward is None else str(forward),
            "on_nonfinite": on_nonfinite,
            "dtype": dtype,
        }
        wanted = RowsOf(
            path,
            _itself,
            dataset,
            made_of,
            ids,
            collate=collate,
            batch_size=batch_size,
            cost=cost,
            dtype=dtype,
            on_nonfinite=on_nonfinite,
            workers=workers,
            rows_per_shard=rows_per_shard,
            description=f"gradients of {len(ids)} samples",
        )
        setup: Callable[[], Engine] = partial(_itself, gradients)
        if not isinstance(engine, Local):
            kept = copy.deepcopy(model).cpu() if where.type != "cpu" else model
            setup = partial(_gradients_of_copy, kept, device, losses, projection, parameters, forward)
        return stored_rows([wanted], setup, engine)[0]


def _itself(state: Engine) -> Engine:
    return state


def _gradients_of_copy(
    model: nn.Module, device: torch.device | str, losses: Losses, projection: Projection, parameters: Any, autocast: Any
) -> GradientFeatures:
    """A worker's own: others may work in the same process."""
    model = copy.deepcopy(model).to(resolve_device(str(device)))
    return GradientFeatures(model, losses, projection, parameters=parameters, autocast=autocast)


@dataclass(frozen=True, eq=False)
class RowsOf:
    """A store of rows, one for each sample of a dataset, that is to be at `path`: the one that is there, or made.

    maker(state): what makes rows, such as `GradientFeatures`; asked for where a row has to be computed. state: what a
    worker has set up. made_of: all that determines the rows. extras: the store's columns. The others are arguments of
    `gradient_rows` and of `FeatureStore.build`, and so are the errors.
    """

    path: str | os.PathLike[str]
    maker: Callable[[Any], Engine]
    dataset: Samples
    made_of: Mapping[str, Any]
    ids: Sequence[str] | Sequence[int]
    collate: Callable[[list[Any]], Any] = default_collate
    batch_size: int | Literal["auto"] = "auto"
    cost: Callable[[Any], float] | None = None
    extras: Extras = field(default_factory=dict)
    dtype: StoredDtype = "float32"
    on_nonfinite: Literal["raise", "drop"] = "raise"
    workers: int = 0
    rows_per_shard: int = 4096
    description: str = "features"

    def blueprint(self) -> Blueprint:
        return Blueprint(
            Path(self.path),
            self.made_of,
            self.ids,
            dtype=self.dtype,
            rows_per_shard=self.rows_per_shard,
            columns=(*self.extras, *(("dropped",) if self.on_nonfinite == "drop" else ())),
            description=self.description,
        )

    def rows(self, maker: Engine, start: int, stop: int) -> dict[str, Tensor]:
        return gradient_rows(
            maker,
            self.dataset,
            range(start, stop),
            collate=self.collate,
            batch_size=self.batch_size,
            cost=self.cost,
            extras=self.extras,
            ids=self.ids,
            on_nonfinite=self.on_nonfinite,
            workers=self.workers,
        )


def stored_rows(wanted: Sequence[RowsOf], setup: Callable[[], Any], engine: Workers = LOCAL) -> list[FeatureStore]:
    """The stores that are wanted, in their order. What is missing is made by the engine's workers, in one map over the
    shards of all of them. setup(): what `maker` is given of each, once for each worker, where a row has to be computed.
    """
    missing = [rows for rows in wanted if not os.path.exists(rows.path)]
    if missing:
        FeatureStore.build_all([rows.blueprint() for rows in missing], partial(_Made, missing), setup, engine)
    return [FeatureStore.open(rows.path, rows.made_of) for rows in wanted]


class _Made:
    """What fills one of the stores."""

    def __init__(self, wanted: Sequence[RowsOf], number: int, state: Any) -> None:
        self._wanted = wanted[number]
        self._maker = self._wanted.maker(state)
        self._has_seen_rows = False

    @property
    def dim(self) -> int:
        return self._maker.dim

    def rows(self, start: int, stop: int) -> dict[str, Tensor]:
        self._has_seen_rows = True
        return self._wanted.rows(self._maker, start, stop)

    def notes(self) -> dict[str, Any]:
        """Which parameters the rows are made of, for the manifest."""
        if not hasattr(self._maker, "coverage"):  # activations
            return {"covered_parameters": {}, "excluded_parameters": {}}
        if not self._has_seen_rows:  # all shards were there: how a parameter is used is seen as a row is made
            self.rows(0, 1)
        coverage = self._maker.coverage
        return {"covered_parameters": dict(coverage.covered), "excluded_parameters": dict(coverage.excluded)}


# --- the arguments ---------------------------------------------------------------------------------------------------


def _check_kinds(model: object, losses: object, collate: object, parameters: object, cost: object) -> None:
    if not isinstance(model, nn.Module):
        raise InputError(f"model must be a torch.nn.Module; it is {type(model).__name__}")
    for name, given in {"losses": losses, "collate": collate}.items():
        if not callable(given):
            raise InputError(f"{name} must be a function; it is {given!r}")
    for name, given in {"parameters": parameters, "cost": cost}.items():
        if given is not None and not callable(given):
            advice = ', such as lambda name: "head" in name' if name == "parameters" else " of a sample"
            raise InputError(f"{name} must be a function{advice}, or None; it is {given!r}")


def _length(dataset: Any) -> int:
    if isinstance(dataset, IterableDataset) or not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise InputError(
            f"dataset must be map-style, with a length and items by number; {type(dataset).__name__} is not. For a "
            "stream, make a list of its samples"
        )
    if not len(dataset):
        raise InputError("dataset is empty")
    return len(dataset)


def _checked_ids(ids: Any, rows: int) -> list[Any]:
    listed = list(range(rows)) if ids is None else np.asarray(ids).tolist()
    if not isinstance(listed, list):
        raise InputError(f"ids must be a list of names; they are {ids!r}")
    if len(listed) != rows:
        raise InputError(f"ids must name each of the {rows} samples; there are {len(listed)}")
    return listed


def _projection(projection: Projection | None, dim: int | None) -> Projection:
    check_option("dim", dim, Count | None)
    check_option("projection", projection, Projection | None)
    if projection is None:
        return Projection() if dim is None else Projection(dim=dim)
    if dim is not None:
        raise InputError(f"give either projection or dim, not both: the projection has dim {projection.dim}")
    return projection


def _autocast(autocast: torch.dtype | str | None) -> torch.dtype | None:
    known = str(autocast).removeprefix("torch.") if isinstance(autocast, torch.dtype) else autocast
    if known not in _AUTOCASTS:
        raise InputError(f"autocast must be bfloat16, float16 or null; it is {autocast!r}")
    return _AUTOCASTS[known]


@contextlib.contextmanager
def _on_device(model: nn.Module, device: torch.device | str) -> Iterator[torch.device]:
    """The model on `device`, and back where it was at the end. "auto" leaves a model that is on a GPU there."""
    parameter = next(model.parameters(), None)
    if parameter is None:
        raise InputError(f"the model has no parameters to take gradients of: {type(model).__name__}")
    before = parameter.device
    wanted = before if device == "auto" and before.type != "cpu" else resolve_device(str(device))
    if wanted == before:
        yield before
        return
    try:
        model.to(wanted)
        yield parameter.device
    finally:
        model.to(before)


# --- what made the rows ----------------------------------------------------------------------------------------------


def _model_described(model: nn.Module) -> dict[str, Any]:
    """The model's class, a hash of its parameters and buffers, and of the source of every class of module in it that
    is not PyTorch's own."""
    kinds = {type(module) for module in model.modules()}
    return {
        "class": _name(type(model)),
        "modules": {name: [_name(type(module)), _options(module)] for name, module in model.named_modules()},
        "source": {_name(kind): _source(kind) for kind in kinds if not _is_torchs(kind)},
        "tensors": hash_tensors({**dict(model.named_parameters()), **dict(model.named_buffers())}),
    }


def _described(function: Any) -> dict[str, Any]:
    """A function as plain data: its name, a hash of its source where there is one, and plain values that it closes
    over. A function of PyTorch goes by its name alone."""
    if isinstance(function, functools.partial):
        return {
            "partial": _described(function.func),
            "arguments": [_plain(value) for value in function.args],
            "options": {name: _plain(value) for name, value in function.keywords.items()},
        }
    owner: Any = None
    if inspect.ismethod(function):
        owner, function = function.__self__, function.__func__
    elif not inspect.isroutine(function):
        owner, function = function, type(function)  # an object that is called, such as nn.CrossEntropyLoss
    closed = zip(
        getattr(getattr(function, "__code__", None), "co_freevars", ()),
        getattr(function, "__closure__", None) or (),
        strict=True,
    )
    kept = {name: _plain(value) for name, cell in closed for value in _cell(cell)}
    return {"name": _name(function), "source": _source(function), "closure": kept, "owner": _options(owner)}


def _options(owner: Any) -> dict[str, Any]:
    """An object's public attributes, as far as they are data: what a module's forward or a loss reads of itself."""
    own = getattr(owner, "__dict__", {})
    return {name: _plain(value) for name, value in own.items() if not name.startswith("_") and name != "training"}


def _cell(cell: Any) -> list[Any]:
    try:
        return [cell.cell_contents]
    except ValueError:  # a name that has no value yet
        return []


def _plain(value: Any) -> Any:
    """What is plain data as it is; of everything else only the type, since a repr may differ between two processes."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return hash_tensors({"value": torch.as_tensor(value)})
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if type(value) in _PLAIN else f"a {type(value).__name__}"


def _name(what: Any) -> str:
    """Without its module where that is a script: one that is imported is the same code."""
    module, name = getattr(what, "__module__", None), getattr(what, "__qualname__", type(what).__qualname__)
    return name if module in (None, "__main__") else f"{module}.{name}"


def _source(what: Any) -> str | None:
    if _is_torchs(what):
        return None
    try:
        return hashlib.sha256(inspect.getsource(what).encode()).hexdigest()[:16]
    except (OSError, TypeError):  # built in, or typed at a prompt
        return None


def _is_torchs(what: Any) -> bool:
    return (getattr(what, "__module__", None) or "").partition(".")[0] == "torch"
