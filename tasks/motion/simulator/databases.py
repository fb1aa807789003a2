"""Databases of simulated scenes: those to choose from, one of which has the target's shares, and the target's own."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_all_start_methods, get_context

import numpy as np

from tarot import InputError
from tasks.motion.formats import Scenario
from tasks.motion.simulator.scenes import RECIPES, simulate

TARGET = {"roundabout": 0.45, "crossing": 0.35, "merge": 0.20}
SHARES: Mapping[str, Mapping[str, float]] = {
    "cand_highway": {"freeway_calm": 0.45, "freeway_sporty": 0.40, "merge": 0.15},
    "cand_roundabout": {"roundabout": 0.35, "roundabout_mirrored": 0.35, "roundabout_large": 0.30},
    "cand_crossing": {"crossing": 0.35, "crossing_mirrored": 0.35, "crossing_sporty": 0.30},
    "cand_parking": {"parking": 1.0},
    "cand_target": TARGET,
    "target_train": TARGET,
    "target_val": TARGET,
    "target_test": TARGET,
}
CANDIDATES = tuple(name for name in SHARES if name.startswith("cand_"))
CHUNK = 16  # scenes that a process makes at a time
START = "fork" if "fork" in get_all_start_methods() else "spawn"  # no imports to wait for; NumPy alone runs there


def database(
    name: str, agents: int, seed: int, *, shares: Mapping[str, float] | None = None, processes: int = 1
) -> list[Scenario]:
    """Scenes with `agents` vehicles to predict in all; the same ones for any number of processes.

    name: what the database is called; no two names share a scene. shares: of the recipes, by name, at most 1 in all
    and with null for those of a known database; each scene's own recipe follows them as evenly as can be.
    Raises InputError for a name without shares, shares that are none, or no agents.
    """
    if shares is None:
        if name not in SHARES:
            raise InputError(
                f"no simulated database is called {name!r}: there are {sorted(SHARES)}; or give its shares"
            )
        shares = SHARES[name]
    unknown = sorted(set(shares) - set(RECIPES))
    if unknown or not shares or min(shares.values()) < 0 or abs(sum(shares.values()) - 1) > 1e-6:
        raise InputError(
            f"the shares of database {name} must be positive, sum to 1 and be of recipes; they are {dict(shares)}"
            + (f", and there is no recipe {', '.join(unknown)}" if unknown else "")
        )
    if agents < 1 or seed < 0:
        raise InputError(f"database {name} needs agents >= 1 and a seed >= 0; they are {agents} and {seed}")
    scenes: list[Scenario] = []
    make = partial(_scenes, name, dict(shares), seed)
    while (left := agents - sum(len(scene.to_predict) for scene in scenes)) > 0:
        begins = range(len(scenes), len(scenes) + (left + 1) // 2, CHUNK)
        ends = [min(start + CHUNK, len(scenes) + (left + 1) // 2) for start in begins]
        if processes > 1 and len(begins) > 1:
            with ProcessPoolExecutor(processes, mp_context=get_context(START)) as pool:
                parts = list(pool.map(make, begins, ends))
        else:
            parts = list(map(make, begins, ends))
        scenes += [scene for part in parts for scene in part]
    return _trimmed(scenes, agents)


def _scenes(name: str, shares: Mapping[str, float], seed: int, begin: int, end: int) -> list[Scenario]:
    """Scenes begin..end-1 of a database: each has a recipe and a seed that depend on its number alone."""
    stream = zlib.crc32(name.encode())
    first = np.random.default_rng([seed, stream]).random()
    recipes, bounds = list(shares), np.cumsum(list(shares.values()))
    made = []
    for number in range(begin, end):
        place = (first + number * 0.6180339887498949) % 1.0  # the golden ratio: even for any number of scenes
        recipe = recipes[min(int(np.searchsorted(bounds, place, side="right")), len(recipes) - 1)]
        own = int(np.random.default_rng([seed, stream, number]).integers(2**31))
        made.append(simulate(recipe, own, dataset=name, name=f"{number:05d}-{recipe}"))
    return made


def _trimmed(scenes: list[Scenario], agents: int) -> list[Scenario]:
    """As many scenes as are needed; the last may lose its second vehicle to predict."""
    kept, left = [], agents
    for scene in scenes:
        if not left:
            break
        if len(scene.to_predict) > left:
            scene = replace(scene, to_predict=scene.to_predict[:left])
        kept.append(scene)
        left -= len(scene.to_predict)
    return kept
