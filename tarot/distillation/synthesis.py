"""Images of a class that a teacher sees as it sees the class: optimised chunk by chunk (theory.md 12.3)."""

from __future__ import annotations

import copy
import logging
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tarot.common import Count, InputError, Natural, NonNegative, Positive, check_options, fingerprint, hash_tensors
from tarot.distillation.aims import Aim, Loss, Parts, released, squared, sre2l
from tarot.distillation.per_class import ClassStatistics
from tarot.distillation.teacher import Seen, batch_norms, watched
from tarot.distillation.views import LEAST_AREA, Augment, shown
from tarot.workers import LOCAL, Local, Workers

log = logging.getLogger("tarot")
_FORMAT = 1  # of a chunk; a change of what it depends on is a new number

Arrays = Mapping[str, NDArray[Any]]


class Keep(Protocol):
    """Where chunks are kept. folder: that they are below, where workers may be other processes; None: nowhere."""

    @property
    def folder(self) -> Path | None: ...

    def has(self, name: str) -> bool: ...

    def __call__(self, name: str, make: Callable[[], Arrays]) -> Arrays:
        """The arrays of this name, made once."""
        ...


@dataclass(frozen=True)
class Nowhere:
    """Every chunk is made whenever it is asked for."""

    folder: ClassVar[None] = None

    def has(self, name: str) -> bool:
        return False

    def __call__(self, name: str, make: Callable[[], Arrays]) -> Arrays:
        return make()


@dataclass(frozen=True)
class Synthesis:
    """How images are made.

    loss: "squared" is the paper's, in which classes are independent problems; "released" is that of the released code
    and "sre2l" SRe2L's, and both couple the images of a chunk. init: the matched real images ("coreset"), real images
    drawn by the seed ("random"), or Gaussian noise ("noise", the paper's).
    feature_weight, statistics_weight: of the distance to the atoms and of the statistics of BatchNorm (the paper's
    lambda; the released code's r_bn). cross_entropy_weight: of the losses that have one. first_layer: how often SRe2L
    counts the first layer's statistics. statistics: of every class, or the teacher's own of all classes ("global").
    iterations, learning_rate: of Adam (betas .5 and .9), on a cosine to 0. augment: see `views`. curriculum: the share
    of the steps in which crops become small; null: not at all. chunk: images that are optimised together, in whole
    classes.
    """

    loss: Loss = "squared"
    init: Literal["coreset", "random", "noise"] = "coreset"
    feature_weight: NonNegative = 1.0
    statistics_weight: NonNegative = 10.0
    cross_entropy_weight: NonNegative = 1.0
    first_layer: NonNegative = 10.0
    statistics: Literal["class", "global"] = "class"
    iterations: Natural = 300
    learning_rate: Positive = 0.1
    augment: Augment = "none"
    curriculum: Positive | None = None
    chunk: Count = 100

    def __post_init__(self) -> None:
        check_options(self, "synthesis")
        if self.loss == "sre2l" and self.statistics == "class":
            raise InputError("synthesis.statistics must be global where synthesis.loss is sre2l: it is of all classes")

    def rate(self, step: int) -> float:
        """Learning rate of step 0..iterations-1."""
        return self.learning_rate * (1 + math.cos(math.pi * step / self.iterations)) / 2

    def least_area(self, step: int) -> float:
        """Of a crop: it falls on a cosine from 1 over the first steps where there is a curriculum (CDA)."""
        if self.curriculum is None:
            return LEAST_AREA
        done = min(1.0, step / (self.curriculum * self.iterations))
        return LEAST_AREA + (1 - LEAST_AREA) * (1 + math.cos(math.pi * done)) / 2

    def named(self, arm: str, released_weight: float | None = None) -> Synthesis:
        """These options as an arm has them: `wmdd` (ours: from real images), `wmdd_noise` (the paper: from noise),
        `wmdd_released` (the released code's loss, from noise), `sre2l`. released_weight: of the statistics in the last
        two, whose scale is another."""
        weight = self.statistics_weight if released_weight is None else released_weight
        arms = {
            "wmdd": {"loss": "squared", "init": "coreset", "statistics": "class"},
            "wmdd_noise": {"loss": "squared", "init": "noise", "statistics": "class"},
            "wmdd_released": {
                "loss": "released",
                "init": "noise",
                "statistics": "class",
                "first_layer": 1.0,
                "statistics_weight": weight,
            },
            "sre2l": {"loss": "sre2l", "init": "noise", "statistics": "global", "statistics_weight": weight},
        }
        return replace(self, **arms[arm])  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Synthesised:
    """images: uint8 [C, m, channels, H, W]. curve: of every step the cost of features, of cross-entropy and of
    statistics, weighted and summed over chunks, float64 [iterations, 3]."""

    images: NDArray[np.uint8]
    curve: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Pixels:
    """The scale of an image in the teacher's eyes: (x - mean) / std per channel, of x from 0 to 1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalised(self, images: NDArray[np.uint8]) -> Tensor:
        """float32 of uint8 [..., channels, H, W]"""
        mean, std = self._columns()
        return (torch.from_numpy(np.ascontiguousarray(images)).float() / 255 - mean) / std

    def bytes_of(self, images: Tensor) -> NDArray[np.uint8]:
        mean, std = self._columns()
        rounded: NDArray[np.uint8] = ((images.cpu() * std + mean) * 255).round().clamp(0, 255).byte().numpy()
        return rounded

    def clip(self, images: Tensor) -> None:
        """To what bytes can hold, in place."""
        mean, std = (column.to(images.device) for column in self._columns())
        images.copy_(torch.minimum(torch.maximum(images, -mean / std), (1 - mean) / std))

    def _columns(self) -> tuple[Tensor, Tensor]:
        return torch.tensor(self.mean).view(-1, 1, 1), torch.tensor(self.std).view(-1, 1, 1)


@dataclass(frozen=True, eq=False)
class Task:
    """What is to be synthesised. atoms: [C, m, d]. weights: [C, m], of sum 1 in each class. init: uint8
    [C, m, channels, H, W], which noise takes the shape of. names: of the classes, for errors."""

    atoms: NDArray[np.float64]
    weights: NDArray[np.float64]
    statistics: ClassStatistics
    init: NDArray[np.uint8]
    names: Sequence[str]

    def of(self, classes: NDArray[np.int64]) -> Task:
        """The same of these classes alone, int64 [k]."""
        statistics = ClassStatistics(
            self.statistics.counts[classes],
            {name: of_layer[classes] for name, of_layer in self.statistics.means.items()},
            {name: of_layer[classes] for name, of_layer in self.statistics.variances.items()},
        )
        names = [self.names[number] for number in classes.tolist()]
        return Task(self.atoms[classes], self.weights[classes], statistics, self.init[classes], names)


@dataclass(frozen=True, eq=False)
class _Chunk:
    """name: that it is kept by. classes: int64 [k]. task: of these alone."""

    name: str
    classes: NDArray[np.int64]
    task: Task


@dataclass(frozen=True, eq=False)
class _How:
    """How chunks are made of a teacher. device: where."""

    pixels: Pixels
    options: Synthesis
    seed: int
    device: torch.device


def synthesise(
    model: nn.Module,
    task: Task,
    pixels: Pixels,
    options: Synthesis,
    *,
    seed: int = 0,
    device: torch.device | None = None,
    keep: Keep = Nowhere(),  # it holds nothing
    engine: Workers = LOCAL,
) -> Synthesised:
    """m images of each of C classes, in chunks of whole classes, each of which is made once and kept by its name.

    engine: whose workers make those that are missing. With the squared loss an image depends on its class alone, and
    not on how classes are chunked.
    Raises InputError where a cost becomes NaN, with the class and the weight of the statistics; warns where the last
    cost is above the first.
    """
    classes, m = task.weights.shape
    step = max(1, options.chunk // m)
    numbers = [np.arange(start, min(start + step, classes)) for start in range(0, classes, step)]
    how = _How(pixels, options, seed, device or next(model.parameters()).device)
    teacher = hash_tensors(model.state_dict())
    names = [_name_of(task.of(which), which, teacher, how) for which in numbers]

    def chunk(place: int) -> _Chunk:
        return _Chunk(names[place], numbers[place], task.of(numbers[place]))

    missing = [not keep.has(name) for name in names]
    if any(missing) and keep.folder is not None:
        engine.shares(keep.folder)
    asked = (chunk(place) for place, absent in enumerate(missing) if absent)
    sent = model if isinstance(engine, Local) else copy.deepcopy(model).cpu()
    made = engine.map(_made, asked, sent, how, keep, setup=_own)
    parts = []
    for place, absent in enumerate(missing):
        parts.append(next(made) if absent else _made(chunk(place), model, model, how, keep))
        _say(numbers[place], classes, parts[-1]["curve"], task.names)
    return Synthesised(np.concatenate([part["images"] for part in parts]), np.sum([part["curve"] for part in parts], 0))


def _own(model: nn.Module, how: _How, keep: Keep) -> nn.Module:
    """The teacher of one worker: while it is watched, nobody else may use it."""
    return copy.deepcopy(model).to(how.device)


def _made(chunk: _Chunk, model: nn.Module, sent: nn.Module, how: _How, keep: Keep) -> Arrays:
    return keep(chunk.name, partial(_arrays, model, chunk, how))


def _arrays(model: nn.Module, chunk: _Chunk, how: _How) -> Arrays:
    """images: uint8 [k, m, channels, H, W]. curve: as of `Synthesised`, of these images."""
    task, pixels, options, seed = chunk.task, how.pixels, how.options, how.seed
    noise = options.init == "noise"
    start = _noise(task.init.shape, chunk.classes, seed) if noise else pixels.normalised(task.init)
    images = start.to(how.device).requires_grad_()
    with torch.no_grad():
        pixels.clip(images)
    aim = _aim(model, chunk, options, how.device)
    optimizer = torch.optim.Adam([images], lr=options.learning_rate, betas=(0.5, 0.9), eps=1e-8)
    curve = np.zeros((options.iterations, 3))
    with watched(model) as see:
        for step in range(options.iterations):
            optimizer.param_groups[0]["lr"] = options.rate(step)
            area = options.least_area(step)
            views = [
                shown(of_class, options.augment, (seed, int(number), step), area)
                for number, of_class in zip(chunk.classes, images, strict=True)
            ]
            parts = _parts(see(torch.cat(views)), aim, options)
            weighted = (
                parts.features * options.feature_weight,
                parts.cross_entropy * options.cross_entropy_weight,
                parts.statistics * options.statistics_weight,
            )
            curve[step] = [part.item() for part in weighted]
            _check(parts, curve[step], task.names, options)
            optimizer.zero_grad()
            torch.stack(weighted).sum().backward()
            optimizer.step()
            with torch.no_grad():
                pixels.clip(images)
    return {"images": pixels.bytes_of(images.detach()), "curve": curve}


def _aim(model: nn.Module, chunk: _Chunk, options: Synthesis, device: torch.device) -> Aim:
    task = chunk.task
    if options.statistics == "class":
        means, variances = task.statistics.means, task.statistics.variances
    else:
        norms = batch_norms(model)
        if any(norm.running_mean is None for norm in norms.values()):
            raise InputError("the model's BatchNorm layers keep no running statistics; take synthesis.statistics=class")
        k = len(chunk.classes)
        means = {name: norm.running_mean[None].expand(k, -1) for name, norm in norms.items()}  # type: ignore[index]
        variances = {name: norm.running_var[None].expand(k, -1) for name, norm in norms.items()}  # type: ignore[index]
    return Aim(
        torch.from_numpy(task.atoms).float().to(device),
        torch.from_numpy(task.weights).float().to(device),
        torch.from_numpy(chunk.classes).to(device),
        {name: of_layer.float().to(device) for name, of_layer in means.items()},
        {name: of_layer.float().to(device) for name, of_layer in variances.items()},
    )


def _parts(seen: Seen, aim: Aim, options: Synthesis) -> Parts:
    if options.loss == "squared":
        return squared(seen, aim)
    return released(seen, aim) if options.loss == "released" else sre2l(seen, aim, options.first_layer)


def _noise(shape: tuple[int, ...], chunk: NDArray[np.int64], seed: int) -> Tensor:
    """By (seed, class, image): float32 [k, m, channels, H, W]."""
    drawn = [
        [np.random.default_rng((seed, int(number), place)).standard_normal(shape[2:]) for place in range(shape[1])]
        for number in chunk
    ]
    return torch.from_numpy(np.array(drawn, dtype=np.float32))


def _check(parts: Parts, costs: NDArray[np.float64], names: Sequence[str], options: Synthesis) -> None:
    if np.isfinite(costs).all():
        return
    which = np.arange(len(names))
    if parts.by_class is not None:
        weights = parts.by_class.new_tensor([options.feature_weight, options.statistics_weight])
        broken = ~torch.isfinite(parts.by_class * weights).all(dim=1).cpu().numpy()
        which = np.flatnonzero(broken) if broken.any() else which
    diverged = ", ".join(names[number] for number in which.tolist())
    raise InputError(
        f"synthesis of class {diverged} diverged (a cost is not finite): lower "
        f"synthesis.learning_rate={options.learning_rate:g} or "
        f"synthesis.statistics_weight={options.statistics_weight:g}"
    )


def _say(chunk: NDArray[np.int64], classes: int, curve: NDArray[np.float64], names: Sequence[str]) -> None:
    if not len(curve):
        return
    first, last = curve[0], curve[-1]
    log.info(
        "classes %d-%d of %d: cost %.4g -> %.4g (features %.4g, cross-entropy %.4g, statistics %.4g)",
        chunk[0] + 1,
        chunk[-1] + 1,
        classes,
        first.sum(),
        last.sum(),
        *last,
    )
    if last.sum() > first.sum():
        warnings.warn(
            f"synthesis of {names[chunk[0]]} to {names[chunk[-1]]} ends at a cost of {last.sum():.4g}, above the "
            f"{first.sum():.4g} that it began with; lower synthesis.learning_rate",
            stacklevel=3,
        )


def _name_of(task: Task, classes: NDArray[np.int64], teacher: str, how: _How) -> str:
    """All that determines a chunk: the teacher's own bits among it, not its name (D-10). task: of these classes."""
    tensors = {
        "atoms": torch.from_numpy(task.atoms),
        "weights": torch.from_numpy(task.weights),
        "init": torch.from_numpy(np.ascontiguousarray(task.init)),
        **{f"mean {name}": of_layer for name, of_layer in task.statistics.means.items()},
        **{f"variance {name}": of_layer for name, of_layer in task.statistics.variances.items()},
    }
    made_of = {
        "format": _FORMAT,
        "classes": classes.tolist(),
        "teacher": teacher,
        "inputs": hash_tensors(tensors),
        "pixels": asdict(how.pixels),
        "options": {name: value for name, value in asdict(how.options).items() if name != "chunk"},
        "seed": how.seed,
    }
    return f"synthesis-{fingerprint(made_of)}"
