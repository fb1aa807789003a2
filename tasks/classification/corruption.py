"""Images of which a part is spoilt, for asking which method of valuation finds that part.

The four corruptions are those of "LAVA: Data Valuation without Pre-Specified Learning Algorithms" (Just et al. 2023)
and "SAVA: Scalable Learning-Agnostic Data Valuation" (Kessler et al. 2025).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from tarot import InputError
from tarot.common import Count, Natural, NonNegative, Positive, Share, check_options
from tasks.classification.domain import Deck, Splits, as_bytes, relabelled, tagged, with_noise
from tasks.classification.images import ImageSet

Kind = Literal["noisy_labels", "noisy_features", "backdoor", "poison_frogs"]
FRACTIONS: dict[str, float] = {"noisy_labels": 0.3, "noisy_features": 0.3, "backdoor": 0.1, "poison_frogs": 0.1}
PATCH = (18, 28)  # rows and columns of a 32 x 32 image that the patch covers
# craft(clean, bases, victim): an encoder is trained on the clean candidates; the images uint8 [n, C, H, W] in which
# it sees the victim, made of the bases, and whether it does, bool [n]
Craft = Callable[[ImageSet, ImageSet, ImageSet], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Corrupted:
    """Candidates of which a part is corrupted; clean targets and validation images from the same pool; a clean test.

    kind:
        noisy_labels: another label, uniform over the other classes; one draw, so that all see the same wrong label.
        noisy_features: Gaussian noise of standard deviation `noise` on the scale 0..1. Images are uint8, so that the
        sum is rounded and clipped, where the released code keeps it as it comes.
        backdoor: a square patch, and the label of `backdoor_class`; of images of the other classes. The square covers
        rows and columns 18 to 27 of 32, and as much of images of other sizes. patch: `noise` is Gaussian noise of
        its own in each image; `additive` adds one fixed pattern of +-`trigger` to all.
        poison_frogs: images of `poison_class`, little changed, that an encoder takes for a test image of
        `victim_class`; see `tasks.classification.poison` for `steps` and `reach`. The encoder is trained on the clean
        candidates. Where no collision is found the clean image stays, and is not tagged.
    fraction: of all candidates; None is .3 of noise and .1 of attacks. There may be fewer images of `poison_class`.
    A candidate's tag is "target" where it is clean, and the kind where it is not. One seed draws the same images for
    every kind, and one test image, the victim, is kept out of the test split.
    """

    candidates: Count
    targets: Count
    validation: Count
    test: Count
    kind: Kind = "noisy_labels"
    fraction: Share | None = None
    noise: NonNegative = 0.1**0.7
    backdoor_class: Natural = 0
    patch: Literal["noise", "additive"] = "noise"
    trigger: float = 0.5
    poison_class: Natural = 6
    victim_class: Natural = 3
    steps: Count = 100
    reach: Positive = 3.5

    def __post_init__(self) -> None:
        check_options(self, "task.corrupted")
        if self.poison_class == self.victim_class:
            raise InputError(f"corrupted.poison_class and corrupted.victim_class are both {self.victim_class}")

    @property
    def share(self) -> float:
        """Of the candidates, how many are to be corrupted."""
        return FRACTIONS[self.kind] if self.fraction is None else self.fraction

    def splits(self, train: ImageSet, test: ImageSet, seed: int, craft: Craft) -> Splits:
        """`train` and `test` must be disjoint. Raises InputError where they are too small."""
        rng = np.random.default_rng(seed)
        train_deck = Deck(train, rng)
        victims = Deck(test.take(np.flatnonzero(test.labels == self.victim_class)), rng)
        victim = victims.draw(1)
        clean: Splits = {
            "targets": train_deck.draw(self.targets, balanced=True),  # a clean example of every class
            "candidates": tagged(train_deck.draw(self.candidates), "target"),
            "validation": train_deck.draw(self.validation),
            "test": Deck(test.take(np.flatnonzero(test.ids != victim.ids[0])), rng).draw(self.test),
        }
        candidates = clean["candidates"]
        chosen = self._chosen(candidates.labels, rng)
        spoilt = candidates.take(chosen)
        if self.kind == "noisy_labels":
            spoilt = relabelled(spoilt, np.unique(train.labels), rng)
        elif self.kind == "noisy_features":
            spoilt = replace(spoilt, images=with_noise(spoilt.images, self.noise, rng))
        elif self.kind == "backdoor":
            labels = np.full(len(spoilt), self.backdoor_class, dtype=np.int64)
            spoilt = replace(spoilt, images=self._patched(spoilt.images, rng), labels=labels)
        elif len(chosen):
            images, collided = craft(candidates, spoilt, victim)
            chosen, spoilt = chosen[collided], replace(spoilt, images=images).take(np.flatnonzero(collided))
        return clean | {"candidates": _replaced(candidates, chosen, tagged(spoilt, self.kind))}

    def _chosen(self, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Which candidates are to be corrupted, in the order of the candidates."""
        count = int(self.share * len(labels) + 1e-9)
        open_to_it = np.ones(len(labels), dtype=bool)
        if self.kind == "backdoor":
            open_to_it = labels != self.backdoor_class
        elif self.kind == "poison_frogs":
            open_to_it = labels == self.poison_class
        pool = np.flatnonzero(open_to_it)
        if count > len(pool):
            warnings.warn(
                f"{self.kind}: {count} of {len(labels)} candidates were to be corrupted, but only {len(pool)} are of a "
                "class that can be; all of these are",
                stacklevel=3,
            )
        return np.sort(rng.permutation(pool)[:count])

    def _patched(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        rows, columns = (slice(PATCH[0] * size // 32, PATCH[1] * size // 32) for size in images.shape[2:])
        square = (..., rows, columns)
        patched = images.copy()
        if self.patch == "noise":
            patched[square] = with_noise(images[square], self.noise, rng)
        else:
            pattern = np.random.default_rng(0).choice([-1.0, 1.0], size=images[square].shape[1:])  # the same for all
            patched[square] = as_bytes(images[square] + 255 * self.trigger * pattern)
        return patched


def _replaced(images: ImageSet, indices: np.ndarray, by: ImageSet) -> ImageSet:
    """`images` with those of `indices` exchanged; every image keeps its place and its name."""
    tags = images.tags.astype(np.result_type(images.tags, by.tags))
    result = replace(images, images=images.images.copy(), labels=images.labels.copy(), tags=tags)
    result.images[indices], result.labels[indices], result.tags[indices] = by.images, by.labels, by.tags
    return result
