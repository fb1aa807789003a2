"""Where the scenes of a task come from: the simulator, nuScenes-mini's ten scenes."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tarot import InputError
from tarot.common import Count, Positive, check_options, fingerprint
from tasks.common.code import source_hash
from tasks.common.contents import hash_files
from tasks.motion.formats import (
    read_scenario,
    scenario_files,
)
from tasks.motion.simulator import CANDIDATES, SHARES, START, database
from tasks.motion.views import MotionSamples, Profile, cached_samples, samples_of
from tasks.task import Split

Splits = dict[Split, MotionSamples]
Asked = TypeVar("Asked")
log = logging.getLogger("tarot")


class MotionData(ABC):
    """What is forecast, and what there is to learn it from. Nothing is read from disk before it is asked for."""

    tagged = False  # whether it is known what a candidate is

    @abstractmethod
    def splits(self, seed: int, profile: Profile, cache: Path) -> Splits:
        """The samples of every split. `cache`: where they are kept as arrays, so that scenes are read once."""

    @abstractmethod
    def recipe(self, seed: int, cache: Path | None = None) -> dict[str, Any]:
        """What determines the scenes but for the code, as plain data: under "splits" what does so for one split alone,
        and beside it what does for all. What is named in an order that rows follow is a list of pairs: names in a
        mapping have no order in a fingerprint. cache: where hashes of files are remembered.
        """


# --- simulated -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Simulated(MotionData):
    """Databases of the simulator, by name how many vehicles are to be predicted: candidates in some of which scenes
    resemble the targets (in cand_target all do); targets, validation and test of one kind.

    candidates: null instead of a number leaves a database out, which is how a setting takes one from the default's.
    processes: that simulate; results are the same with any number.
    """

    candidates: Mapping[str, Count | None]
    targets: Count
    validation: Count
    test: Count
    processes: Count = 2
    tagged = True

    def __post_init__(self) -> None:
        check_options(self, "task.data")
        _check_simulated(self._asked)
        if not self._asked:
            raise InputError("task.data.candidates: there must be candidates")

    @property
    def _asked(self) -> dict[str, int]:
        return wanted(self.candidates)

    def splits(self, seed: int, profile: Profile, cache: Path) -> Splits:
        held: dict[Split, str] = {"targets": "target_train", "validation": "target_val", "test": "target_test"}
        agents = {**self._asked, **{name: getattr(self, split) for split, name in held.items()}}
        made = simulated(agents, seed, profile, cache, self.processes)
        return {
            "candidates": joined(made[name] for name in self._asked),
            **{split: made[name] for split, name in held.items()},
        }

    def recipe(self, seed: int, cache: Path | None = None) -> dict[str, Any]:
        held = {split: getattr(self, split) for split in ("targets", "validation", "test")}
        return {
            "source": "simulated",
            "splits": {"candidates": pairs(self._asked), **held},
            "seed": seed,
        }


def wanted(named: Mapping[str, Asked | None]) -> dict[str, Asked]:
    """Those that are not null."""
    return {name: asked for name, asked in named.items() if asked is not None}


def pairs(named: Mapping[str, Any]) -> list[list[Any]]:
    return [[name, value] for name, value in named.items()]


def joined(sources: Iterable[MotionSamples]) -> MotionSamples:
    """Samples of several sources, one after the other. Raises InputError where two have one name."""
    joined = MotionSamples.joined([*sources])
    names, counts = np.unique(joined.ids, return_counts=True)
    if (counts > 1).any():
        raise InputError(
            f"two candidates are called {names[counts > 1][0]}: sources of task.data need different names, and "
            "scenarios of a dataset, too"
        )
    return joined


def _check_simulated(agents: Mapping[str, int]) -> None:
    unknown = sorted(set(agents) - set(CANDIDATES))
    if unknown:
        raise InputError(
            f"simulated candidates must be positive numbers of {', '.join(CANDIDATES)}; they are {dict(agents)}"
        )


def simulated(
    agents: Mapping[str, int], seed: int, profile: Profile, cache: Path, processes: int
) -> dict[str, MotionSamples]:
    """Samples of simulated databases, by name; `agents` of each. Kept in `cache`."""
    jobs = [(name, count, seed, profile, cache) for name, count in agents.items()]
    missing = [job for job in jobs if not _simulated_path(*job).exists()]
    if processes > 1 and len(missing) > 1:
        largest_first = sorted(missing, key=lambda job: -job[1])
        with ProcessPoolExecutor(min(processes, len(missing)), mp_context=get_context(START)) as pool:
            for job in largest_first:
                pool.submit(_keep, *job)
    return {job[0]: _simulate(*job) for job in jobs}


def _simulated_path(name: str, count: int, seed: int, profile: Profile, cache: Path) -> Path:
    made_of = {
        "code": source_hash(database, samples_of),
        "database": name,
        "shares": dict(SHARES[name]),
        "agents": count,
        "seed": seed,
        "profile": profile.recipe(),
    }
    return cache / f"{name}-{fingerprint(made_of)}.npz"


def _simulate(name: str, count: int, seed: int, profile: Profile, cache: Path) -> MotionSamples:
    path = _simulated_path(name, count, seed, profile, cache)
    return cached_samples(path, profile, lambda: samples_of(database(name, count, seed), profile))


def _keep(*job: Any) -> None:
    """`_simulate`, by another process: the samples stay in the cache, where the errors happen again, too."""
    _simulate(*job)


# --- on disk ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NuScenesMini(MotionData):
    """The ten scenes of nuScenes-mini as ScenarioNet has them, cut into windows; no scene is in two splits.

    Candidates: `candidates` of the scenes, and vehicles of simulated databases.
    folder: the database. every: seconds from window to window. simulated: how many vehicles of which databases; null
    instead of a number leaves one out.
    """

    folder: str
    candidates: Sequence[str]
    targets: Sequence[str]
    validation: Sequence[str]
    test: Sequence[str]
    every: Positive = 0.5
    simulated: Mapping[str, Count | None] = field(default_factory=dict)
    processes: Count = 2
    tagged = True

    def __post_init__(self) -> None:
        check_options(self, "task.data")
        _check_simulated(self._simulated)
        named = [name for split in self._scenes.values() for name in split]
        if len(set(named)) < len(named):
            raise InputError("task.data: a scene is in two splits, or twice in one: " + ", ".join(sorted(named)))

    @property
    def _simulated(self) -> dict[str, int]:
        return wanted(self.simulated)

    @property
    def _scenes(self) -> dict[Split, Sequence[str]]:
        return {split: getattr(self, split) for split in ("candidates", "targets", "validation", "test")}

    def _files(self) -> dict[str, Path]:
        folder = Path(self.folder)
        if not folder.is_dir():
            raise InputError(
                f"nuScenes-mini is not in {folder}: convert v1.0-mini with ScenarioNet's convert_nuscenes, or set "
                "task.data.folder, data_dir or TAROT_DATA"
            )
        return {path.stem.rpartition("_")[2]: path for path in scenario_files(folder).values()}

    def splits(self, seed: int, profile: Profile, cache: Path) -> Splits:
        files = self._files()
        missing = sorted({name for scenes in self._scenes.values() for name in scenes} - set(files))
        if missing:
            raise InputError(f"{self.folder} has no {', '.join(missing)}; it has {', '.join(sorted(files))}")
        splits: Splits = {}
        for split, scenes in self._scenes.items():
            made_of = {
                "files": _scene_contents(files, scenes, cache),
                "every": self.every,
                "profile": profile.recipe(),
                "code": source_hash(read_scenario, samples_of),
            }

            def make(scenes: Sequence[str] = scenes) -> MotionSamples:
                read = (read_scenario(files[name], "nuscenes_mini") for name in scenes)
                return samples_of(read, profile, every=self.every)

            path = cache / f"nuscenes_mini-{split}-{fingerprint(made_of)}.npz"
            splits[split] = tagged(cached_samples(path, profile, make), "target")
            report(f"nuScenes-mini's {split}", splits[split])
        made = simulated(self._simulated, seed, profile, cache, self.processes)
        drawn = [tagged(samples, name.removeprefix("cand_")) for name, samples in made.items()]
        return {**splits, "candidates": joined([splits["candidates"], *drawn])}

    def recipe(self, seed: int, cache: Path | None = None) -> dict[str, Any]:
        files = self._files()
        splits: dict[str, Any] = {
            split: {"scenes": _scene_contents(files, of, cache)} for split, of in self._scenes.items()
        }
        splits["candidates"]["simulated"] = pairs(self._simulated)
        return {
            "source": "nuscenes_mini",
            "splits": splits,
            "every": self.every,
            "seed": seed,
        }


def _scene_contents(files: Mapping[str, Path], scenes: Sequence[str], cache: Path | None) -> list[list[str | None]]:
    """(scene, SHA-256 of its file) of each; null for those that are not there."""
    there = [name for name in scenes if name in files]
    known = dict(zip(there, hash_files([files[name] for name in there], cache), strict=True))
    return [[name, known.get(name)] for name in scenes]


def tagged(samples: MotionSamples, tag: str) -> MotionSamples:
    tags = np.full(len(samples), tag, dtype=f"U{max(len(tag), 1)}")
    return MotionSamples(samples.profile, {**samples.arrays, "tags": tags}, samples.skipped)


def report(name: str, samples: MotionSamples) -> None:
    """What was left out is said, and why; raises InputError where nothing is left."""
    if not len(samples):
        raise InputError(f"{name} have no agent to forecast: {_reasons(samples.skipped)}")
    if samples.skipped:
        log.info("%s: %d samples; left out: %s", name, len(samples), _reasons(samples.skipped))


def _reasons(skipped: Mapping[str, int]) -> str:
    listed = sorted(skipped.items(), key=lambda item: -item[1])
    return "; ".join(f"{count:,} x {reason}" for reason, count in listed) or "there is nothing"
