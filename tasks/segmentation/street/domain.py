"""The two domains of the rendered streets: kinds of scenes, their looks, and which scenes make up each split.

The target has three modes. The pool's first three kinds are the same streets from a "game": other houses, cars and
paint, stronger colours, less noise. All its other kinds show such streets too, and mislead, as their tags say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tarot import InputError
from tasks.segmentation.street.world import Colours
from tasks.task import Split

SMALLEST = 16  # pixels: below this a street has no room for a car


@dataclass(frozen=True)
class Look:
    """What a domain's camera makes of a scene. saturation, contrast: 1 changes nothing. gain: of red, green and blue.
    noise: standard deviation, of 1. blur: share of each pixel that comes from its neighbours. vignette: how much
    darker the corners are."""

    colours: Colours
    saturation: float
    contrast: float
    gain: tuple[float, float, float]
    noise: float
    blur: float
    vignette: float


REAL = Look(
    Colours(
        walls=(
            (0.62, 0.57, 0.5),
            (0.7, 0.68, 0.63),
            (0.55, 0.44, 0.37),
            (0.5, 0.5, 0.5),
            (0.72, 0.64, 0.5),
            (0.44, 0.34, 0.3),
        ),
        houses=((0.78, 0.76, 0.72), (0.7, 0.62, 0.5), (0.56, 0.36, 0.3), (0.66, 0.68, 0.7)),
        roofs=((0.45, 0.24, 0.19), (0.3, 0.28, 0.28), (0.38, 0.3, 0.26)),
        leaves=((0.2, 0.3, 0.14), (0.27, 0.35, 0.17), (0.16, 0.25, 0.13), (0.33, 0.36, 0.18)),
        cars=(
            (0.12, 0.12, 0.13),
            (0.6, 0.61, 0.62),
            (0.82, 0.82, 0.82),
            (0.16, 0.2, 0.34),
            (0.45, 0.1, 0.1),
            (0.3, 0.31, 0.32),
        ),
        clothes=(
            (0.1, 0.1, 0.13),
            (0.16, 0.18, 0.28),
            (0.3, 0.28, 0.25),
            (0.22, 0.22, 0.22),
            (0.6, 0.15, 0.14),
            (0.7, 0.7, 0.68),
        ),
        asphalt=(0.36, 0.36, 0.37),
        paving=(0.54, 0.51, 0.49),
        lawn=(0.28, 0.37, 0.17),
        line=(0.8, 0.8, 0.78),
        lamps=(1.0, 0.82, 0.55),
        horizon=((0.86, 0.88, 0.9), (0.9, 0.88, 0.83), (0.78, 0.83, 0.88)),
        zenith=((0.5, 0.64, 0.82), (0.62, 0.7, 0.8), (0.42, 0.58, 0.8)),
        texture=1.25,
    ),
    saturation=0.88,
    contrast=1.0,
    gain=(0.97, 1.0, 0.97),
    noise=0.028,
    blur=0.22,
    vignette=0.25,
)
GAME = Look(
    Colours(
        walls=(
            (0.74, 0.64, 0.48),
            (0.8, 0.74, 0.64),
            (0.64, 0.4, 0.3),
            (0.55, 0.56, 0.6),
            (0.82, 0.58, 0.42),
            (0.45, 0.5, 0.56),
        ),
        houses=((0.86, 0.8, 0.66), (0.6, 0.7, 0.72), (0.8, 0.6, 0.46), (0.84, 0.84, 0.8)),
        roofs=((0.62, 0.3, 0.18), (0.34, 0.32, 0.34), (0.5, 0.38, 0.28)),
        leaves=((0.22, 0.38, 0.1), (0.32, 0.44, 0.12), (0.18, 0.32, 0.14), (0.42, 0.44, 0.14)),
        cars=(
            (0.1, 0.1, 0.12),
            (0.75, 0.1, 0.1),
            (0.88, 0.88, 0.9),
            (0.12, 0.3, 0.62),
            (0.85, 0.65, 0.1),
            (0.4, 0.42, 0.46),
        ),
        clothes=(
            (0.12, 0.14, 0.2),
            (0.2, 0.3, 0.5),
            (0.35, 0.3, 0.22),
            (0.2, 0.2, 0.2),
            (0.8, 0.25, 0.15),
            (0.85, 0.84, 0.78),
        ),
        asphalt=(0.42, 0.41, 0.41),
        paving=(0.66, 0.62, 0.56),
        lawn=(0.32, 0.48, 0.14),
        line=(0.9, 0.74, 0.28),
        lamps=(1.0, 0.74, 0.4),
        horizon=((0.86, 0.9, 0.96), (0.96, 0.88, 0.76), (0.76, 0.86, 0.96)),
        zenith=((0.3, 0.55, 0.9), (0.42, 0.6, 0.88), (0.24, 0.46, 0.84)),
        texture=0.8,
    ),
    saturation=1.12,
    contrast=1.08,
    gain=(1.03, 1.0, 0.96),
    noise=0.008,
    blur=0.0,
    vignette=0.05,
)


@dataclass(frozen=True)
class Kind:
    """One kind of scene. modes: the streets it may show. camera: who looks at it. spoilt: what is done to its picture
    or its labels. tag: "target" where it resembles the target, else why it misleads."""

    tag: str
    modes: tuple[str, ...]
    look: Look
    camera: str = "driver"
    spoilt: str = ""


OPEN, ANY = ("city", "residential"), ("city", "residential", "tunnel")
TARGETS = {mode: Kind("target", (mode,), REAL) for mode in ANY}
CANDIDATES = {
    "game_city": Kind("target", ("city",), GAME),
    "game_residential": Kind("target", ("residential",), GAME),
    "game_tunnel": Kind("target", ("tunnel",), GAME),
    "birds_eye": Kind("viewpoint", OPEN, GAME, camera="birds_eye"),
    "tilted": Kind("viewpoint", ANY, GAME, camera="tilted"),
    "sideways": Kind("viewpoint", OPEN, GAME, camera="sideways"),
    "inverted": Kind("palette", ANY, GAME, spoilt="inverted"),
    "false_colours": Kind("palette", ANY, GAME, spoilt="false_colours"),
    "close_up": Kind("skyless", OPEN, GAME, camera="close_up"),
    "crowded": Kind("clutter", OPEN, GAME, spoilt="clutter"),
    "swapped_labels": Kind("label_shift", ANY, GAME, spoilt="swapped"),
    "displaced_labels": Kind("label_shift", ANY, GAME, spoilt="displaced"),
}
KINDS: dict[str, Kind] = {**TARGETS, **CANDIDATES}

TARGET_SHARES: dict[str, float] = {"city": 0.45, "residential": 0.3, "tunnel": 0.25}
SHARES: dict[str, float] = {
    "game_city": 0.17,
    "game_residential": 0.08,
    "game_tunnel": 0.05,
    "birds_eye": 0.08,
    "tilted": 0.07,
    "sideways": 0.05,
    "inverted": 0.07,
    "false_colours": 0.08,
    "close_up": 0.09,
    "crowded": 0.08,
    "swapped_labels": 0.10,
    "displaced_labels": 0.08,
}


class Scene(NamedTuple):
    """All that `render` needs, and a name: `kind-seed`. tag is for diagnosis only."""

    id: str
    tag: str
    kind: str
    seed: int


def street_splits(
    candidates: int,
    targets: int,
    validation: int,
    test: int,
    shares: Mapping[str, float] | None = None,
    seed: int = 0,
    height: int = 96,
    width: int = 160,
) -> dict[Split, list[Scene]]:
    """The scenes of each split; no seed occurs twice, so no street is in two of them.

    shares: kind of the pool -> its share of the candidates, adding up to 1 (default SHARES; kinds not named have none).
    In the other splits the modes have TARGET_SHARES. Counts are rounded so that they add up (largest remainder).
    height, width: the size that the scenes are meant for. Raises InputError where it is too small, where a count is
    negative, or where shares name no kind of the pool or do not add up.
    """
    shares = SHARES if shares is None else dict(shares)
    unknown = sorted(set(shares) - set(CANDIDATES))
    if unknown:
        raise InputError(f"shares name kinds that the pool does not have: {unknown}; it has {sorted(CANDIDATES)}")
    if abs(sum(shares.values()) - 1) > 1e-6 or min(shares.values()) < 0:
        raise InputError(f"shares must be at least 0 and add up to 1; they are {dict(shares)}")
    check_size(height, width)
    if seed < 0:
        raise InputError(f"the seed of the splits must be at least 0; it is {seed}")
    rng = np.random.default_rng(seed)
    start = seed * 1_000_000
    splits: dict[Split, list[Scene]] = {}
    sizes: dict[Split, int] = {"candidates": candidates, "targets": targets, "validation": validation, "test": test}
    if min(sizes.values()) < 0 or sum(sizes.values()) > 1_000_000:
        raise InputError(f"sizes of splits must be at least 0 and at most 1,000,000 in all; they are {sizes}")
    for split, size in sizes.items():
        counts = _counts(shares if split == "candidates" else TARGET_SHARES, size)
        kinds = [kind for kind, count in counts.items() for _ in range(count)]
        kinds = [kinds[i] for i in rng.permutation(size)]
        splits[split] = [
            Scene(f"{kind}-{start + i:08d}", KINDS[kind].tag, kind, start + i) for i, kind in enumerate(kinds)
        ]
        start += size
    return splits


def _counts(shares: Mapping[str, float], size: int) -> dict[str, int]:
    """Whole numbers near size * share that add up to `size`: those with the largest remainders are rounded up."""
    counts = {kind: int(size * share + 1e-9) for kind, share in shares.items()}
    order = sorted(shares, key=lambda kind: counts[kind] - size * shares[kind])
    for kind in order[: size - sum(counts.values())]:
        counts[kind] += 1
    return counts


def check_size(height: int, width: int) -> None:
    """Raises InputError where a scene cannot be drawn at this size."""
    if height < SMALLEST or width < SMALLEST:
        raise InputError(f"scenes are drawn from {SMALLEST} x {SMALLEST} pixels on; not at {height} x {width}")
