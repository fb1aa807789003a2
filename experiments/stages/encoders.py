"""Rows of samples by what has learnt nothing of the task: a language model before its warm-up, encoders of sentences
and of images, counts of words. They need no checkpoints."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import default_collate

from tarot import InputError
from tarot.common import Count, Natural, check_options, files_below, first_line, read_json
from tarot.features import ngram_counts
from tarot.gradients import Samples, evaluating, penultimate, to_device
from tasks.common.contents import hash_file, hash_named
from tasks.common.model_folders import refuse_odd_files
from tasks.common.training import seeded
from tasks.common.weights import load_state_strictly, read_state
from tasks.task import Batch, CostsSamples, GivesImages, GivesStates, GivesTexts, Split, Task, able

_SAFE = 6  # of sentence-transformers: the first that does not run the code of a local folder
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and standard deviation that backbones were trained with


@dataclass(frozen=True, eq=False)
class Encoded:
    """What makes rows (`tarot.gradients.Engine`): embed(batch) -> [B, dim], by this model."""

    model: nn.Module
    embed: Callable[[Batch], Tensor]
    dim: int
    device: torch.device

    row_kind = "embedding"
    largest_formed = 0

    @property
    def trainable(self) -> set[str]:
        return set()

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Nothing learns here: one number a sample, by whose graph a batch is sized."""
        return self.embed(batch).sum(dim=1)

    def __call__(self, batch: Batch) -> Tensor:
        with torch.no_grad(), evaluating(self.model):
            return self.embed(batch).float()


@dataclass(frozen=True, eq=False)
class Encoding:
    """How the samples of a split become rows. maker: makes them, asked only where a row has to be computed; cost: of a
    sample, where batches are padded to the largest."""

    samples: Samples
    maker: Callable[[], Encoded]
    collate: Callable[[list[Any]], Batch] = default_collate
    cost: Callable[[Any], float] | None = None


class Encoder(ABC):
    """A dataclass of its options. needs: what a task must be able to do, of tasks.task."""

    needs: ClassVar[type]

    @abstractmethod
    def recipe(self, task: Task, cache: Path) -> dict[str, Any]:
        """All that determines rows beside the samples, as plain data. cache: where hashes of files are remembered."""

    @abstractmethod
    def encoding(self, task: Task, split: Split, device: torch.device) -> Encoding:
        """Of a split. Raises InputError where the task does not give what is to be encoded."""


@dataclass(frozen=True)
class BaseStates(Encoder):
    """Pooled hidden states of the task's language before it learns anything (RDS+, arXiv 2503.01807); `layers` are its
    own and counted as a list is."""

    needs: ClassVar[type] = GivesStates

    layers: Sequence[int] = (-1,)

    def __post_init__(self) -> None:
        check_options(self, "features")
        if not self.layers or len(set(self.layers)) < len(self.layers):
            raise InputError(f"features.layers must name one or more layers, each once; they are {list(self.layers)}")

    def recipe(self, task: Task, cache: Path) -> dict[str, Any]:
        return {"states": list(self.layers), "model": task.recipe()["model"]}

    def encoding(self, task: Task, split: Split, device: torch.device) -> Encoding:
        pooled_states = able(task, GivesStates).pooled_states

        def maker() -> Encoded:
            model = task.model().to(device).eval()

            def embed(batch: Batch) -> Tensor:
                return pooled_states(model, batch, self.layers)

            return _encoded(model, embed, task.collate([task.samples(split)[0]]), device)

        return Encoding(task.samples(split), maker, task.collate, task.cost if isinstance(task, CostsSamples) else None)


@dataclass(frozen=True)
class SentenceEncoder(Encoder):
    """name: of a model of sentence-transformers, as a folder or as it is called on the hub. download: whether it may be
    fetched from there; otherwise it must have been before. Nothing of its own code is run."""

    needs: ClassVar[type] = GivesTexts

    name: str | None = None
    download: bool = False

    def __post_init__(self) -> None:
        check_options(self, "features.encoder")

    @property
    def folder(self) -> Path:
        """Where its files are. Raises InputError where they are not."""
        if self.name is None:
            raise InputError(
                "features.encoder.name must name a model of sentence-transformers, such as a folder that has one or "
                "sentence-transformers/gtr-t5-base; it is null"
            )
        if Path(self.name).is_dir():
            return Path(self.name)
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(self.name, local_files_only=not self.download))
        except (OSError, ValueError) as error:  # what the hub raises is one of these
            fetch = "" if self.download else "; features.encoder.download=true fetches it"
            raise InputError(
                f"features.encoder.name: {self.name!r} is neither a folder nor at hand from the hub{fetch}"
            ) from error

    def recipe(self, task: Task, cache: Path) -> dict[str, Any]:
        folder = self.folder
        files = {file.relative_to(folder).as_posix(): file for file in files_below(folder) if file.is_file()}
        return {"sentences": hash_named(files, cache)}

    def encoding(self, task: Task, split: Split, device: torch.device) -> Encoding:
        texts = able(task, GivesTexts).texts(split)

        def maker() -> Encoded:
            model = self._loaded(device)

            def embed(batch: Tensor) -> Tensor:
                some = [texts[i] for i in batch.tolist()]
                found: Tensor = model.encode(
                    some,
                    batch_size=len(some),
                    normalize_embeddings=True,
                    convert_to_tensor=True,
                    show_progress_bar=False,
                )
                return found.clone()  # out of inference mode

            return _encoded(model, embed, torch.zeros(1, dtype=torch.int64), device)

        return _of_texts(texts, maker)

    def _loaded(self, device: torch.device) -> Any:
        if importlib.util.find_spec("sentence_transformers") is None:
            raise InputError('features=sentence needs the package: pip install -e ".[sentence]"')
        if int(importlib.metadata.version("sentence_transformers").partition(".")[0]) < _SAFE:
            raise InputError(
                f"features=sentence needs sentence-transformers {_SAFE} or later, as earlier ones run the code of a "
                'model\'s folder: pip install -e ".[sentence]"'
            )
        _refuse_code(self.folder)
        from sentence_transformers import SentenceTransformer  # takes seconds to import

        try:
            return SentenceTransformer(
                str(self.folder), device=str(device), trust_remote_code=False, local_files_only=True
            ).eval()
        except Exception as error:  # whatever a broken folder makes the library come upon
            raise InputError(
                f"features.encoder.name: {self.name!r} holds no model of sentence-transformers: {first_line(error)}"
            ) from error


def _refuse_code(folder: Path) -> None:
    """Raises InputError where a model of sentences is made of code that is not the library's own, and where its folder
    holds what no model's may."""
    refuse_odd_files(folder)
    listed = folder / "modules.json"
    modules = read_json(listed) if listed.is_file() else []
    for module in modules if isinstance(modules, list) else [None]:
        kind = module.get("type") if isinstance(module, dict) else None
        if not isinstance(kind, str) or not kind.startswith("sentence_transformers."):
            raise InputError(
                f"{listed} asks for {kind!r:.100}, which is no class of sentence-transformers; it was not run"
            )


@dataclass(frozen=True)
class ImageEncoder(Encoder):
    """name: a classifier of torchvision's, such as resnet18, or one of timm's, as timm/resnet18; a row is what its last
    linear layer is given. weights: a file with its state_dict, of as many classes as it has; pretrained: the library's
    own, which it downloads; random: drawn by `seed`. size: edge in pixels that images are scaled to."""

    needs: ClassVar[type] = GivesImages

    name: str | None = None
    weights: str | None = None
    size: Count = 224
    seed: Natural = 0

    def __post_init__(self) -> None:
        check_options(self, "features.encoder")

    def recipe(self, task: Task, cache: Path) -> dict[str, Any]:
        self._check()
        known = {key: value for key, value in asdict(self).items() if key != "seed" or self.weights == "random"}
        if self.weights in ("pretrained", "random"):
            return known
        return {**known, "weights": hash_file(Path(str(self.weights)), cache)}

    def encoding(self, task: Task, split: Split, device: torch.device) -> Encoding:
        images = able(task, GivesImages).images

        def maker() -> Encoded:
            model = self._loaded().to(device).eval()

            def embed(batch: Batch) -> Tensor:
                return functional.normalize(penultimate(model, prepared(images(batch), self.size)).float())

            return _encoded(model, embed, task.collate([task.samples(split)[0]]), device)

        return Encoding(task.samples(split), maker, task.collate)

    def _check(self) -> None:
        if self.name is None:
            raise InputError(
                "features.encoder.name must name a backbone, such as resnet18 (torchvision's) or timm/resnet18; it is "
                "null"
            )
        if self.weights is None:
            raise InputError(
                "features.encoder.weights must be a file with the backbone's weights, pretrained (the library "
                "downloads its own) or random; it is null"
            )

    def _loaded(self) -> nn.Module:
        self._check()
        name, weights = str(self.name), str(self.weights)
        if weights in ("pretrained", "random"):
            with seeded(self.seed):
                return network(name, pretrained=weights == "pretrained")
        given = read_state(weights, "features.encoder.weights")
        last = [module for module in network(name).named_modules() if isinstance(module[1], nn.Linear)][-1][0]
        if f"{last}.weight" not in given:
            raise InputError(f"features.encoder.weights: {weights} is of another network ({last}.weight is missing)")
        model = network(name, num_classes=len(given[f"{last}.weight"]))
        load_state_strictly(model, given, f"features.encoder.weights: {weights}")
        return model


@dataclass(frozen=True)
class NGrams(Encoder):
    """How often a text has each n-gram of words, hashed into `buckets` (DSIR, arXiv 2302.03169)."""

    needs: ClassVar[type] = GivesTexts

    buckets: Count = 10_000
    longest: Count = 2

    def __post_init__(self) -> None:
        check_options(self, "features.encoder")

    def recipe(self, task: Task, cache: Path) -> dict[str, Any]:
        return {"ngrams": asdict(self)}

    def encoding(self, task: Task, split: Split, device: torch.device) -> Encoding:
        texts = able(task, GivesTexts).texts(split)

        def maker() -> Encoded:
            counts = ngram_counts(texts, self.buckets, self.longest)

            def embed(batch: Tensor) -> Tensor:
                return torch.from_numpy(counts[batch.cpu().numpy()].toarray())

            return Encoded(nn.Module(), embed, self.buckets, torch.device("cpu"))

        return Encoding(Numbers(len(texts)), maker)


class Numbers(Samples):
    """The samples' places, for what looks at texts by itself."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return range(self.count)[index]


def prepared(images: Tensor, size: int) -> Tensor:
    """Images [B, 1 or 3, H, W] from 0 to 1 as backbones were trained on them: [B, 3, size, size], less ImageNet's mean,
    in units of its deviation."""
    if images.shape[1] not in (1, 3):
        raise InputError(f"features=encoder looks at images of 1 or 3 channels, and these have {images.shape[1]}")
    mean, std = (torch.tensor(value, device=images.device).view(-1, 1, 1) for value in _IMAGENET)
    scaled = functional.interpolate(images.float(), (size, size), mode="bilinear", antialias=True, align_corners=False)
    return (scaled.expand(-1, 3, -1, -1) - mean) / std


def _encoded(model: nn.Module, embed: Callable[[Batch], Tensor], sample: Batch, device: torch.device) -> Encoded:
    """With as many dimensions as a batch of one sample has."""
    with torch.no_grad(), evaluating(model):
        dim = embed(to_device(sample, device)).shape[1]
    return Encoded(model, embed, dim, device)


def _of_texts(texts: Sequence[str], maker: Callable[[], Encoded]) -> Encoding:
    return Encoding(Numbers(len(texts)), maker, cost=lambda place: 1.0 + len(texts[place]))


def network(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
    """Of torchvision, or of timm as timm/NAME; with weights of the library's or of chance."""
    if name.startswith("timm/"):
        if importlib.util.find_spec("timm") is None:
            raise InputError(f'features.encoder.name={name} needs the package: pip install -e ".[timm]"')
        import timm

        short = name.removeprefix("timm/")
        if not timm.is_model(short):
            raise InputError(f"features.encoder.name: timm has no model {short!r}")
        found: nn.Module = timm.create_model(short, pretrained=pretrained, **options)
        return found
    from torchvision import models  # takes seconds to import

    if name not in models.list_models(module=models):
        raise InputError(
            f"features.encoder.name: torchvision has no classifier {name!r}; one of timm's is called timm/{name}"
        )
    found = models.get_model(name, weights="DEFAULT" if pretrained else None, **options)
    return found
