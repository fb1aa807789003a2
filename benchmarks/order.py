"""Does a selection depend on what should not matter: the order of candidates, that of targets, and the features' scale?

    python benchmarks/order.py                # every selector, a table in Markdown for docs/order.md
    python benchmarks/order.py tarot_exact    # these alone

Each number is the share of a selection that stays, the least over the problems: 300 candidates, 24 targets, 16
dimensions, 1 of 10 candidates there twice, selections of 8, 40 and 100; with ids, and without. A candidate that stands
twice counts as the same under either of its places where no ids tell them apart. The last column is what becomes of a
target whose row is zero: it is left out, with a warning, or taken as it is, or no target's row is looked at.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

import tarot
from tarot import InputError
from tarot.selectors import SELECTORS

N, M, DIMENSIONS, TWICE = 300, 24, 16, 30
SIZES = (8, 40, 100)
SCALES = (1e-30, 1e-10, 1e10)
OPTIONS: dict[str, dict[str, Any]] = {"sava": {"batch_size": 64}, "batchwise_lava": {"batch_size": 64}}
AUTO: dict[str, dict[str, Any]] = {
    "tarot_fixed": {"smoothing": "auto"},
    "tarot_exact": {"smoothing": "auto"},
}
COUNTS = {"dsir"}  # its rows are whole numbers
CASES = ("candidates permuted", "targets permuted", *(f"features x {scale:g}" for scale in SCALES))
ZERO = "a zero target is"


def pool(seed: int, ids: bool) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    centres = 2 * rng.normal(size=(4, DIMENSIONS))
    group = rng.integers(0, 4, N)
    candidates = (centres[group] + rng.normal(size=(N, DIMENSIONS))).astype(np.float32)
    twice, again = np.split(rng.permutation(N)[: 2 * TWICE], 2)
    labels, tags = group % 3, np.where(group == 0, "target", "noise")
    measured = rng.random(N)
    for facts in (candidates, labels, tags, measured):
        facts[again] = facts[twice]
    targets = (centres[rng.integers(0, 2, M)] + rng.normal(size=(M, DIMENSIONS))).astype(np.float32)
    known = {
        "candidates": candidates,
        "targets": targets,
        "candidate_labels": labels,
        "target_labels": rng.integers(0, 3, M),
        "target_groups": np.arange(M) % 2,
        "candidate_tags": tags,
        "candidate_scores": measured,
        "learning_rates": [1e-3],
    }
    return {**known, "candidate_ids": np.array([f"candidate {i}" for i in rng.permutation(N)])} if ids else known


def moved(known: dict[str, Any], side: str, order: np.ndarray) -> dict[str, Any]:
    return {key: value[order] if key.startswith(side) else value for key, value in known.items()}


def counted(known: dict[str, Any]) -> dict[str, Any]:
    """Whole numbers of at least 0 in the place of features, in the same order."""
    return {**known, **{side: np.floor(4 * np.exp(known[side] / 2)) for side in ("candidates", "targets")}}


def scaled(known: dict[str, Any], scale: float) -> dict[str, Any]:
    return {**known, **{side: known[side] * np.float32(scale) for side in ("candidates", "targets")}}


def names(known: dict[str, Any]) -> np.ndarray:
    """What each candidate is called: by its id, else by what it holds."""
    if "candidate_ids" in known:
        return known["candidate_ids"]
    return np.array([row.tobytes().hex() for row in known["candidates"]])


def chosen(known: dict[str, Any], called: np.ndarray, name: str, options: dict[str, Any]) -> dict[str, int]:
    """How often each name is selected, with its weight."""
    selection = tarot.select(**known, selector=name, **options)
    counts: dict[str, int] = {}
    for index, weight in zip(selection.indices, selection.weights, strict=True):
        counts[called[index]] = counts.get(called[index], 0) + int(weight)
    return counts


def share(one: dict[str, int], other: dict[str, int]) -> float:
    common = sum(min(count, other.get(name, 0)) for name, count in one.items())
    return common / max(sum(one.values()), sum(other.values())) if one or other else 1.0


def options_of(name: str) -> Iterator[dict[str, Any]]:
    if name in ("all", "target_only", "tarot_otm"):
        yield {}
        return
    for size in SIZES:
        budget = min(size, 20) if name == "oracle" else size
        yield {"size": budget, **OPTIONS.get(name, {})}
    if name in AUTO:
        yield {"size": SIZES[1], **AUTO[name]}
    if name == "tarot_exact":
        yield {"size": "auto"}


def shares(name: str, seeds: int) -> dict[str, float | str]:
    """The least share of a selection that stays in each case, or why there is none."""
    found: dict[str, float | str] = {}
    for seed in range(seeds):
        for ids in (True, False):
            known = counted(pool(seed, ids)) if name in COUNTS else pool(seed, ids)
            called = names(known)
            rng = np.random.default_rng(seed + 100)
            order, of_targets = rng.permutation(N), rng.permutation(M)
            cases = [
                (moved(known, "candidate", order), called[order]),
                (moved(known, "target", of_targets), called),
                *((scaled(known, scale), called) for scale in SCALES),
            ]
            for options in options_of(name):
                one = chosen(known, called, name, options)
                for case, (other, called_there) in zip(CASES, cases, strict=True):
                    try:
                        stays = share(one, chosen(other, called_there, name, options))
                    except InputError as error:
                        found[case] = str(error)
                        continue
                    least = found.get(case, 1.0)
                    found[case] = min(least, stays) if isinstance(least, float) else least
    return found


def of_a_zero_target(name: str) -> str:
    """Left out, taken as it is, or not looked at, as no other target is."""
    known = counted(pool(0, True)) if name in COUNTS else pool(0, True)
    options = next(options_of(name))
    one, targets = chosen(known, names(known), name, options), known["targets"]
    if chosen({**known, "targets": targets.max() - targets}, names(known), name, options) == one:
        return "not looked at"
    zero = targets.copy()
    zero[3] = 0
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        tarot.select(**{**known, "targets": zero}, selector=name, **options)
    return "left out" if any("left out" in str(one.message) for one in heard) else "taken as it is"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("selectors", nargs="*", default=sorted(SELECTORS), help="those to look at")
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"| selector | {' | '.join((*CASES, ZERO))} |\n|---|{'---|' * (len(CASES) + 1)}", flush=True)
    for name in asked.selectors:
        found = shares(name, asked.seeds)
        cells = [f"{cell:.1%}" if isinstance(cell, float) else cell for cell in map(found.get, CASES)]
        print(f"| `{name}` | {' | '.join(map(str, (*cells, of_a_zero_target(name))))} |", flush=True)


if __name__ == "__main__":
    main()
