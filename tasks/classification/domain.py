"""Which images become candidates, targets, validation and test.

`Rotated` asks whether a selection finds what helps: the targets are rotated images of some classes, and so is a part
of the candidates; the others are useless or harmful, each in a way that its tag names. `Plain` is the i.i.d. setting in
which attribution is measured. `corruption.Corrupted` asks whether valuation finds what is spoilt. In all of them, no
image is in two splits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tarot import InputError
from tarot.common import Count, Natural, NonNegative, check_options
from tasks.classification.images import ImageSet
from tasks.task import Split

Splits = dict[Split, ImageSet]


@dataclass(frozen=True)
class Plain:
    """Images as they are: candidates and validation from the train pool, targets and test from the test pool. None: all
    that the others leave."""

    candidates: Count | None
    targets: Count
    validation: Count
    test: Count | None

    def __post_init__(self) -> None:
        check_options(self, "task.plain")

    def splits(self, train: ImageSet, test: ImageSet, seed: int, targets: ImageSet | None = None) -> Splits:
        """`train` and `test` must be disjoint. targets: all of these, instead of some that are drawn. Raises InputError
        where they are too small."""
        rng = np.random.default_rng(seed)
        train_deck, test_deck = Deck(train, rng), Deck(test, rng)
        if self.candidates is None:  # last
            validation = train_deck.draw(self.validation)
            candidates = train_deck.draw(None)
        else:
            candidates = train_deck.draw(self.candidates)
            validation = train_deck.draw(self.validation)
        return {
            "candidates": candidates,
            "validation": validation,
            "targets": test_deck.draw(self.targets) if targets is None else targets,
            "test": test_deck.draw(self.test),
        }


@dataclass(frozen=True)
class Rotated:
    """The target domain: images of `classes`, rotated by quarter turns (so that no pixel is interpolated).

    turns: how many, anticlockwise; images of a class are rotated by each of them in turn.
    shares: of the candidates, by tag; they sum to 1.
        target: from the target domain. upright: of the target's classes, as they are. other_class: rotated, of the
        other classes. mislabelled: from the target domain, but labelled as another of its classes. noisy: from the
        target domain, under Gaussian noise of standard deviation `noise` (1 = from black to white).
    """

    candidates: Count
    targets: Count
    validation: Count
    test: Count
    classes: tuple[Natural, ...] = (0, 1, 2, 3, 4, 5, 6)
    turns: tuple[int, ...] = (1,)
    noise: NonNegative = 1.0
    shares: Mapping[str, NonNegative] = field(
        default_factory=lambda: {"target": 0.2, "upright": 0.25, "other_class": 0.2, "mislabelled": 0.25, "noisy": 0.1}
    )

    def __post_init__(self) -> None:
        check_options(self, "task.rotated")
        if set(self.shares) != {"target", "upright", "other_class", "mislabelled", "noisy"}:
            raise InputError(
                f"shares must name target, upright, other_class, mislabelled, noisy; not {dict(self.shares)}"
            )
        if abs(sum(self.shares.values()) - 1) > 1e-6:
            raise InputError(f"shares must sum to 1; they are {dict(self.shares)}")
        if not self.turns:
            raise InputError("turns must name one or more rotations, such as [1]; it is empty")
        if len(set(self.classes)) < 2:
            raise InputError(f"the target domain needs two classes or more; it has {self.classes}")

    def splits(self, train: ImageSet, test: ImageSet, seed: int) -> Splits:
        """`train` and `test` must be disjoint. Raises InputError where they are too small."""
        rng = np.random.default_rng(seed)
        inside = Deck(train.take(np.flatnonzero(np.isin(train.labels, self.classes))), rng)
        outside = Deck(train.take(np.flatnonzero(~np.isin(train.labels, self.classes))), rng)
        tested = Deck(test.take(np.flatnonzero(np.isin(test.labels, self.classes))), rng)
        counts = self.counts()
        # every class is among the targets, in each rotation: a selection cannot serve what it was not shown
        targets = self._turn(inside.draw(self.targets, balanced=True))
        parts = [
            tagged(self._turn(inside.draw(counts["target"])), "target"),
            tagged(inside.draw(counts["upright"]), "upright"),
            tagged(self._turn(outside.draw(counts["other_class"])), "other_class"),
            tagged(relabelled(self._turn(inside.draw(counts["mislabelled"])), self.classes, rng), "mislabelled"),
            tagged(self._add_noise(self._turn(inside.draw(counts["noisy"])), rng), "noisy"),
        ]
        candidates = sum(parts[1:], start=parts[0])
        return {
            "candidates": candidates.take(rng.permutation(len(candidates))),
            "targets": targets,
            "validation": self._turn(inside.draw(self.validation)),
            "test": self._turn(tested.draw(self.test)),
        }

    def counts(self) -> dict[str, int]:
        """Candidates by tag; what rounding leaves over is of another class."""
        counts = {tag: int(share * self.candidates + 1e-9) for tag, share in self.shares.items()}
        counts["other_class"] += self.candidates - sum(counts.values())
        return counts

    def _turn(self, images: ImageSet) -> ImageSet:
        which = _occurrences(images.labels) % len(self.turns)
        rotated = images.images.copy()
        for i, turns in enumerate(self.turns):
            rotated[which == i] = np.rot90(images.images[which == i], turns, axes=(2, 3))
        return replace(images, images=rotated)

    def _add_noise(self, images: ImageSet, rng: np.random.Generator) -> ImageSet:
        return replace(images, images=with_noise(images.images, self.noise, rng))


class Deck:
    """Shuffled images; each is drawn once."""

    def __init__(self, images: ImageSet, rng: np.random.Generator) -> None:
        self.images, self.order = images, rng.permutation(len(images))

    def draw(self, count: int | None, balanced: bool = False) -> ImageSet:
        """The next `count` images, None: all that are left; balanced: as many of each class, as far as they go
        round."""
        if count is None:
            count = max(1, len(self.order))
        if count > len(self.order):
            raise InputError(
                f"the domain asks for {count} more images where {len(self.order)} of {len(self.images)} are left; "
                "lower candidates, targets, validation or test"
            )
        if balanced:
            self.order = self.order[np.argsort(_occurrences(self.images.labels[self.order]), kind="stable")]
        drawn, self.order = self.order[:count], self.order[count:]
        return self.images.take(drawn)


def _occurrences(labels: np.ndarray) -> np.ndarray:
    """How many equal labels came before each, int64 [n]."""
    before = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        before[labels == label] = np.arange((labels == label).sum())
    return before


def tagged(images: ImageSet, tag: str) -> ImageSet:
    return replace(images, tags=np.full(len(images), tag))


def relabelled(images: ImageSet, classes: Sequence[int] | np.ndarray, rng: np.random.Generator) -> ImageSet:
    """Each image labelled as another one of `classes`, uniformly."""
    ordered = np.unique(classes)
    step = rng.integers(1, len(ordered), size=len(images))
    wrong = ordered[(np.searchsorted(ordered, images.labels) + step) % len(ordered)]
    return replace(images, labels=wrong.astype(np.int64))


def with_noise(images: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """uint8 images under Gaussian noise of this standard deviation (1 = from black to white), rounded and clipped."""
    return as_bytes(images + 255 * noise * rng.standard_normal(images.shape))


def as_bytes(images: np.ndarray) -> np.ndarray:
    return images.round().clip(0, 255).astype(np.uint8)
