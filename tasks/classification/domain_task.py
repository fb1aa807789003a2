"""What digits and CIFAR-10 have in common: a pool to train on, a pool to test on, and a domain made of them."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import asdict
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
import torch

from tarot.common import checked, fingerprint
from tarot.gradients import penultimate
from tasks.classification.corruption import Corrupted
from tasks.classification.domain import Plain, Rotated, Splits
from tasks.classification.images import ImageSet
from tasks.classification.poison import CONSTANTS, Encode, collide
from tasks.classification.task import ClassificationTask
from tasks.common.cache import cached_arrays, cached_checkpoints
from tasks.common.code import parts_of, source_hash
from tasks.common.training import ONE_SURROGATE


class DomainTask(ClassificationTask):
    """domain: which one of the three the task is about. A subclass brings its pools of images and its model."""

    @checked("task")
    def __init__(
        self,
        *,
        rotated: Rotated,
        plain: Plain,
        corrupted: Corrupted,
        domain: Literal["rotated", "plain", "corrupted"] = "rotated",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        domains: dict[str, Rotated | Plain | Corrupted] = {"rotated": rotated, "plain": plain, "corrupted": corrupted}
        self.domain = domains[domain]

    @abstractmethod
    def pools(self) -> tuple[ImageSet, ImageSet]:
        """Images to train on and images to test on, disjoint; the domain is made of them."""

    def source(self) -> str:
        """Which images they are: what tells one copy of a data set from another."""
        return self.name

    @cached_property
    def splits(self) -> Splits:
        pools = self.pools()
        if isinstance(self.domain, Corrupted):
            return self.domain.splits(*pools, seed=self.seed, craft=partial(self._craft, self.domain))
        return self.domain.splits(*pools, seed=self.seed)

    def candidate_tags(self) -> np.ndarray:
        return self.splits["candidates"].tags

    def data_recipe(self) -> dict[str, Any]:
        domain = _plain(asdict(self.domain))
        if isinstance(self.domain, Corrupted):
            domain["fraction"] = self.domain.share
            if self.domain.kind == "poison_frogs":
                domain |= {"encoder": self._encoder_recipe(), "crafting": CONSTANTS}
        return {"source": self.source(), "domain": type(self.domain).__name__, **domain, "seed": self.seed}

    # --- the model that poison frogs are made for --------------------------------------------------------------------

    def _encoder_recipe(self) -> dict[str, Any]:
        training = self.training.recipe(of_surrogate=True)
        return {"model": self.model_recipe(), "training": training, "seed": 1000 * self.seed + 999}

    def _craft(
        self, domain: Corrupted, clean: ImageSet, bases: ImageSet, victim: ImageSet
    ) -> tuple[np.ndarray, np.ndarray]:
        """Poisons against a model that the task's own training makes of the clean candidates; both are cached."""

        def make() -> dict[str, np.ndarray]:
            images, victims = (torch.from_numpy(some.images).to(self.device) for some in (bases, victim))
            poisons, collided = collide(
                self._encoder(clean), images, victims[0], steps=domain.steps, reach=domain.reach
            )
            return {"images": poisons, "collided": collided}

        made_of = {**self.data_recipe(), "code": source_hash(*parts_of(self))}
        made = cached_arrays(self.cache_dir / "poisons" / f"{self.name}-{fingerprint(made_of)}.npz", make)
        return made["images"], made["collided"]

    def _encoder(self, clean: ImageSet) -> Encode:
        """From images on the scale 0..1 to their embeddings under a model that was trained on `clean`."""
        recipe = self._encoder_recipe()
        code = source_hash(*parts_of(self))
        known = fingerprint({"source": self.source(), "images": clean.ids.tolist(), "code": code, **recipe})
        everyone = np.ones(len(clean), dtype=np.int64)
        [checkpoint] = cached_checkpoints(
            self.cache_dir / "checkpoints" / f"{self.name}-encoder-{known}.safetensors",
            lambda: self.fit(clean, everyone, self.training, recipe["seed"], keep=ONE_SURROGATE)[1],
        )
        model = self.model().to(self.device).to(memory_format=torch.channels_last)
        model.load_state_dict(checkpoint.state)
        model.eval().requires_grad_(False)
        mean, std = (torch.tensor(value, device=self.device).view(-1, 1, 1) for value in (clean.mean, clean.std))
        return lambda images: penultimate(model, (images - mean) / std)


def _plain(value: Any) -> Any:
    """Tuples as lists, all the way down: what a configuration file would say."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
