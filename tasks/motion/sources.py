"""Where the scenes of a task come from: the simulator, nuScenes-mini's ten scenes, databases on disk."""

from __future__ import annotations

import hashlib
import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, reduce
from itertools import chain
from multiprocessing import get_context
from operator import add
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tarot import InputError
from tarot.common import Count, Natural, NonNegative, Positive, check_options, fingerprint
from tasks.common.identity import hash_file
from tasks.motion.formats import (
    Scenario,
    argoverse2_folders,
    count_unreadable,
    databases,
    read_argoverse2,
    read_database,
    read_scenario,
    scenario_files,
)
from tasks.motion.simulator import CANDIDATES, SHARES, START, database
from tasks.motion.views import LAYOUT, MotionSamples, Profile, TargetFilter, cached_samples, samples_of
from tasks.task import Split

Splits = dict[Split, MotionSamples]
Asked = TypeVar("Asked")
log = logging.getLogger("tarot")
_VERSION = 1  # of the simulator; another one never reads scenes of this one


class MotionData(ABC):
    """What is forecast, and what there is to learn it from. Nothing is read from disk before it is asked for."""

    tagged = False  # whether it is known what a candidate is

    @abstractmethod
    def splits(self, seed: int, profile: Profile, cache: Path) -> Splits:
        """The samples of every split. `cache`: where they are kept as arrays, so that scenes are read once."""

    @abstractmethod
    def recipe(self, seed: int) -> dict[str, Any]:
        """What determines the scenes, as plain data: under "splits" what does so for one split alone, and beside it
        what does for all. What is named in an order that rows follow is a list of pairs: names in a mapping have no
        order in a fingerprint.
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
        return _wanted(self.candidates)

    def splits(self, seed: int, profile: Profile, cache: Path) -> Splits:
        held: dict[Split, str] = {"targets": "target_train", "validation": "target_val", "test": "target_test"}
        agents = {**self._asked, **{name: getattr(self, split) for split, name in held.items()}}
        made = simulated(agents, seed, profile, cache, self.processes)
        return {
            "candidates": _joined(made[name] for name in self._asked),
            **{split: made[name] for split, name in held.items()},
        }

    def recipe(self, seed: int) -> dict[str, Any]:
        held = {split: getattr(self, split) for split in ("targets", "validation", "test")}
        return {
            "source": "simulated",
            "version": _VERSION,
            "splits": {"candidates": _pairs(self._asked), **held},
            "seed": seed,
        }


def _wanted(named: Mapping[str, Asked | None]) -> dict[str, Asked]:
    """Those that are not null."""
    return {name: asked for name, asked in named.items() if asked is not None}


def _pairs(named: Mapping[str, Any]) -> list[list[Any]]:
    return [[name, value] for name, value in named.items()]


def _joined(sources: Iterable[MotionSamples]) -> MotionSamples:
    """Samples of several sources, one after the other. Raises InputError where two have one name."""
    joined = reduce(add, sources)
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
        "version": _VERSION,
        "database": name,
        "shares": dict(SHARES[name]),
        "agents": count,
        "seed": seed,
        "profile": profile.recipe(),
        "layout": LAYOUT,
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
        return _wanted(self.simulated)

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
                "files": _scene_contents(files, scenes),
                "every": self.every,
                "profile": profile.recipe(),
                "layout": LAYOUT,
            }

            def make(scenes: Sequence[str] = scenes) -> MotionSamples:
                read = (read_scenario(files[name], "nuscenes_mini") for name in scenes)
                return samples_of(read, profile, every=self.every)

            path = cache / f"nuscenes_mini-{split}-{fingerprint(made_of)}.npz"
            splits[split] = _tagged(cached_samples(path, profile, make), "target")
            _report(f"nuScenes-mini's {split}", splits[split])
        made = simulated(self._simulated, seed, profile, cache, self.processes)
        drawn = [_tagged(samples, name.removeprefix("cand_")) for name, samples in made.items()]
        return {**splits, "candidates": _joined([splits["candidates"], *drawn])}

    def recipe(self, seed: int) -> dict[str, Any]:
        files = self._files()
        splits: dict[str, Any] = {split: {"scenes": _scene_contents(files, of)} for split, of in self._scenes.items()}
        splits["candidates"]["simulated"] = _pairs(self._simulated)
        return {
            "source": "nuscenes_mini",
            "splits": splits,
            "every": self.every,
            "simulator": _VERSION,
            "seed": seed,
        }


def _scene_contents(files: Mapping[str, Path], scenes: Sequence[str]) -> list[list[str | None]]:
    """(scene, SHA-256 of its file, whole) of each; nothing of those that are not there."""
    return [[name, hash_file(files[name]) if name in files else None] for name in scenes]


@dataclass(frozen=True)
class Databases(MotionData):
    """Databases of ScenarioNet, or folders of Argoverse 2's scenarios.

    candidates: folders by the dataset's name; null leaves a dataset out. targets, held_out: folders of the target's
    dataset, `target`: its name.
    disjoint: validation and test are the scenes of `held_out` in turn; where it is false, both are all of it, so that
    the best on validation is what is reported, as in the paper. A scene is what a scenario's name begins with, up to
    the `scene_fields`-th underscore from the end; 0: each scenario is one.
    start: by name, the frame at which windows begin where it is not so that the record's current frame is theirs;
    negative: before the record, with frames in which nobody is there.
    kinds: of agents that are forecast. moving_distance: metres that a vehicle moves at least, where a record does not
    say who is to be forecast. allow_outside: merged databases point to files outside their own folder.
    """

    candidates: Mapping[str, str | None]
    target: str
    targets: str
    held_out: str
    disjoint: bool = True
    start: Mapping[str, int] = field(default_factory=dict)
    kinds: Sequence[str] = ("VEHICLE",)
    moving_distance: NonNegative = 2.0
    scene_fields: Natural = 0
    allow_outside: bool = False

    def __post_init__(self) -> None:
        check_options(self, "task.data")
        if not self._named or self.target in self._named:
            raise InputError("task.data.candidates must name datasets and folders, none of them the target's")

    @property
    def _named(self) -> dict[str, str]:
        return _wanted(self.candidates)

    @property
    def _targets(self) -> str:
        return f"{self.target} (targets)"

    @property
    def _held(self) -> str:
        return f"{self.target} (held out)"

    def _dataset(self, name: str) -> str:
        return self.target if name in (self._targets, self._held) else name

    @property
    def _select(self) -> TargetFilter:
        return TargetFilter(kinds=tuple(self.kinds), moving_distance=self.moving_distance)

    @property
    def _folders(self) -> dict[str, Path]:
        return {name: Path(folder) for name, folder in self._named.items()} | {
            self._targets: Path(self.targets),
            self._held: Path(self.held_out),
        }

    @cached_property
    def _sources(self) -> dict[str, _Source]:
        missing = [f"{name} in {folder}" for name, folder in self._folders.items() if not folder.is_dir()]
        if missing:
            raise InputError(
                f"not there: {'; '.join(missing)}. Each is a folder of ScenarioNet databases (convert_waymo, "
                "convert_nuplan, convert_nuscenes, convert_argoverse2) or of Argoverse 2's scenarios; set "
                "task.data.candidates, task.data.targets and task.data.held_out, data_dir or TAROT_DATA"
            )
        return {name: _Source(folder, self.allow_outside) for name, folder in self._folders.items()}

    def splits(self, seed: int, profile: Profile, cache: Path) -> Splits:
        self._refuse_shared(
            {name: {str(path.resolve()) for path in source.paths()} for name, source in self._sources.items()}, "file"
        )
        made: dict[str, MotionSamples] = {}
        for name, source in self._sources.items():
            dataset = self._dataset(name)
            start, select = self.start.get(dataset), self._select
            made_of = {
                "files": source.content,
                "start": start,
                "select": asdict(select) | {"kinds": list(select.kinds)},
                "profile": profile.recipe(),
                "layout": LAYOUT,
                "dataset": dataset,
            }

            def make(
                source: _Source = source,
                dataset: str = dataset,
                start: int | None = start,
                select: TargetFilter = select,
            ) -> MotionSamples:
                skipped: Counter[str] = Counter()
                return samples_of(
                    source.scenarios(dataset, skipped), profile, select=select, start=start, skipped=skipped
                )

            made[name] = cached_samples(cache / f"{dataset}-{fingerprint(made_of)}.npz", profile, make)
            _report(name, made[name])
        self._refuse_shared(
            {name: {_scene(i, 0) for i in found.ids.tolist()} for name, found in made.items()}, "scenario"
        )
        held, targets = made.pop(self._held), made.pop(self._targets)
        of_targets = {_scene(name, self.scene_fields) for name in targets.ids.tolist()}
        scenes = [_scene(name, self.scene_fields) for name in held.ids.tolist()]
        self._refuse_shared({self._targets: of_targets, self._held: set(scenes)}, "scene")
        validation, test = self._in_turn(held, scenes) if self.disjoint else (held, held)
        return {"candidates": _joined(made.values()), "targets": targets, "validation": validation, "test": test}

    def _in_turn(self, held: MotionSamples, scenes: Sequence[str]) -> tuple[MotionSamples, MotionSamples]:
        """The samples of every other scene, and of the rest."""
        order = {scene: place for place, scene in enumerate(sorted(set(scenes)))}
        turn = np.array([order[scene] % 2 for scene in scenes], dtype=np.int64)
        if not (turn == 1).any():
            raise InputError(f"{self.held_out} holds one scene; validation and test need one each")
        return held.take(turn == 0), held.take(turn == 1)

    def _refuse_shared(self, named: Mapping[str, set[str]], what: str) -> None:
        """Raises InputError where candidates, targets and what is held out share one. By the folders' names."""
        rest = dict(named)
        for own in (self._held, self._targets):
            held = rest.pop(own)
            for name, others in rest.items():
                if shared := sorted(held & others):
                    raise InputError(
                        f"task.data: {own} and {name} share {len(shared)} {what}s, such as {shared[0]}: what is "
                        "judged must not be learnt from, nor selected for by itself"
                    )

    def recipe(self, seed: int) -> dict[str, Any]:
        made_of = {
            name: {"files": source.content, "start": self.start.get(self._dataset(name))}
            for name, source in self._sources.items()
        }
        held = {**made_of.pop(self._held), "scene_fields": self.scene_fields}
        if not self.disjoint:
            held["disjoint"] = False
        moving = {} if self.moving_distance == TargetFilter().moving_distance else {"moving": self.moving_distance}
        targets = made_of.pop(self._targets)
        return {
            "source": "databases",
            "splits": {"candidates": _pairs(made_of), "targets": targets, "validation": held, "test": held},
            "target": self.target,
            "kinds": list(self.kinds),
            **moving,
            "seed": seed,
        }


class _Source:
    """A folder of databases or of Argoverse 2's scenarios."""

    def __init__(self, folder: Path, allow_outside: bool) -> None:
        self.folder, self.allow_outside = folder, allow_outside
        self.argoverse = next(folder.rglob("scenario_*.parquet"), None) is not None
        self.parts = argoverse2_folders(folder) if self.argoverse else databases(folder)

    @cached_property
    def content(self) -> str:
        """Which files they are: the SHA-256 of their names and of `hash_file`."""
        digest = hashlib.sha256()
        for path in self.paths():
            digest.update(f"{path.name}\n{hash_file(path, blocks=2)}\n".encode())
        return digest.hexdigest()

    def paths(self) -> Iterator[Path]:
        if self.argoverse:
            return chain.from_iterable(sorted(path for path in part.iterdir() if path.is_file()) for part in self.parts)
        return chain.from_iterable(scenario_files(part, self.allow_outside).values() for part in self.parts)

    def scenarios(self, dataset: str, skipped: Counter[str]) -> Iterator[Scenario]:
        if not self.argoverse:
            yield from read_database(self.parts, dataset=dataset, allow_outside=self.allow_outside, skipped=skipped)
            return
        for part in self.parts:
            try:
                scenario = read_argoverse2(part)
            except InputError as error:
                count_unreadable(skipped, part, error)
                continue
            yield replace(scenario, dataset=dataset)


def _scene(sample: str, fields: int) -> str:
    scenario = sample.split("/")[1]
    return scenario.rsplit("_", fields)[0] if fields else scenario


def _tagged(samples: MotionSamples, tag: str) -> MotionSamples:
    tags = np.full(len(samples), tag, dtype=f"U{max(len(tag), 1)}")
    return MotionSamples(samples.profile, {**samples.arrays, "tags": tags}, samples.skipped)


def _report(name: str, samples: MotionSamples) -> None:
    """What was left out is said, and why; raises InputError where nothing is left."""
    if not len(samples):
        raise InputError(f"{name} have no agent to forecast: {_reasons(samples.skipped)}")
    if samples.skipped:
        log.info("%s: %d samples; left out: %s", name, len(samples), _reasons(samples.skipped))


def _reasons(skipped: Mapping[str, int]) -> str:
    listed = sorted(skipped.items(), key=lambda item: -item[1])
    return "; ".join(f"{count:,} x {reason}" for reason, count in listed) or "there is nothing"
