"""Scenes that come from databases on disk: ScenarioNet's, or Argoverse 2's scenarios."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from tarot import InputError
from tarot.common import Count, Natural, NonNegative, Positive, check_options, entries, files_below, fingerprint
from tarot.workers import ranges
from tasks.common.code import source_hash
from tasks.common.contents import hash_named
from tasks.motion.formats import (
    Scenario,
    argoverse2_folders,
    count_unreadable,
    databases,
    is_argoverse2_name,
    read_argoverse2,
    read_scenarios,
    scenario_files,
)
from tasks.motion.simulator import START
from tasks.motion.sources import MotionData, Splits, joined, pairs, report, wanted
from tasks.motion.views import MotionSamples, Profile, TargetFilter, cached_samples, samples_of

RECORDS = 128  # of a part, which is in memory while it is made, and made whole or not at all


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
    every: seconds from window to window, as many as a record has; None: one window of each, and what lies outside of it
    is counted. kinds: of agents that are forecast. moving_distance: metres that a vehicle moves at least, where a
    record does not say who is to be forecast. allow_outside: merged databases point to files outside their own folder.
    processes: that read records; results are the same with any number.
    """

    candidates: Mapping[str, str | None]
    target: str
    targets: str
    held_out: str
    disjoint: bool = True
    start: Mapping[str, int] = field(default_factory=dict)
    every: Positive | None = None
    kinds: Sequence[str] = ("VEHICLE",)
    moving_distance: NonNegative = 2.0
    scene_fields: Natural = 0
    allow_outside: bool = False
    processes: Count = 1

    def __post_init__(self) -> None:
        check_options(self, "task.data")
        if not self._named or self.target in self._named:
            raise InputError("task.data.candidates must name datasets and folders, none of them the target's")
        if self.every is not None and self.start:
            raise InputError(
                f"task.data.every={self.every:g} cuts records from their first frame on: leave out task.data.start, "
                f"{dict(self.start)}"
            )

    @property
    def _named(self) -> dict[str, str]:
        return wanted(self.candidates)

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
    def _sources(self) -> dict[str, Source]:
        missing = [f"{name} in {folder}" for name, folder in self._folders.items() if not folder.is_dir()]
        if missing:
            raise InputError(
                f"not there: {'; '.join(missing)}. Each is a folder of ScenarioNet databases (convert_waymo, "
                "convert_nuplan, convert_nuscenes, convert_argoverse2) or of Argoverse 2's scenarios; set "
                "task.data.candidates, task.data.targets and task.data.held_out, data_dir or TAROT_DATA"
            )
        return {name: Source(folder, self.allow_outside) for name, folder in self._folders.items()}

    def splits(self, seed: int, profile: Profile, cache: Path) -> Splits:
        self._refuse_shared(
            {name: {str(path.resolve()) for path in source.paths()} for name, source in self._sources.items()}, "file"
        )
        parts = {name: self._parts(name, profile, cache) for name in self._sources}
        _keep_all([part for of_source in parts.values() for part in of_source], self.processes)
        made: dict[str, MotionSamples] = {}
        for name, of_source in parts.items():
            made[name] = joined(part.samples() for part in of_source)
            report(name, made[name])
        self._refuse_shared(
            {name: {_scene(i, 0) for i in found.ids.tolist()} for name, found in made.items()}, "scenario"
        )
        held, targets = made.pop(self._held), made.pop(self._targets)
        of_targets = {_scene(name, self.scene_fields) for name in targets.ids.tolist()}
        scenes = [_scene(name, self.scene_fields) for name in held.ids.tolist()]
        self._refuse_shared({self._targets: of_targets, self._held: set(scenes)}, "scene")
        validation, test = self._in_turn(held, scenes) if self.disjoint else (held, held)
        return {"candidates": joined(made.values()), "targets": targets, "validation": validation, "test": test}

    def _parts(self, name: str, profile: Profile, cache: Path) -> list[_Part]:
        """Of a source."""
        source, dataset, select = self._sources[name], self._dataset(name), self._select
        parts = []
        for start, stop in ranges(len(source.records), RECORDS) or [(0, 0)]:
            records = source.records[start:stop]
            made_of = {
                "files": source.content(cache, records),
                "start": self.start.get(dataset),
                "select": asdict(select) | {"kinds": list(select.kinds)},
                "profile": profile.recipe(),
                "code": source_hash(read_scenarios, read_argoverse2, samples_of),
                "dataset": dataset,
                **self._cut,
            }
            path = cache / f"{dataset}-{fingerprint(made_of)}.npz"
            window = (self.start.get(dataset), self.every)
            parts.append(_Part(path, tuple(records), source.argoverse, dataset, select, *window, profile))
        return parts

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

    @property
    def _cut(self) -> dict[str, float]:
        return {} if self.every is None else {"every": self.every}

    def recipe(self, seed: int, cache: Path | None = None) -> dict[str, Any]:
        made_of = {
            name: {"files": source.content(cache), "start": self.start.get(self._dataset(name))}
            for name, source in self._sources.items()
        }
        held = {**made_of.pop(self._held), "scene_fields": self.scene_fields}
        if not self.disjoint:
            held["disjoint"] = False
        moving = {} if self.moving_distance == TargetFilter().moving_distance else {"moving": self.moving_distance}
        targets = made_of.pop(self._targets)
        return {
            "source": "databases",
            "splits": {"candidates": pairs(made_of), "targets": targets, "validation": held, "test": held},
            "target": self.target,
            "kinds": list(self.kinds),
            **moving,
            **self._cut,
            "seed": seed,
        }


@dataclass(frozen=True)
class _Part:
    """Some records of a source, and where their samples are kept."""

    path: Path
    records: Sequence[Path]
    argoverse: bool
    dataset: str
    select: TargetFilter
    start: int | None
    every: float | None
    profile: Profile

    def samples(self) -> MotionSamples:
        return cached_samples(self.path, self.profile, self._made)

    def _made(self) -> MotionSamples:
        skipped: Counter[str] = Counter()
        read = _argoverse2 if self.argoverse else _scenarionet
        return samples_of(
            read(self.records, self.dataset, skipped),
            self.profile,
            select=self.select,
            start=self.start,
            every=self.every,
            skipped=skipped,
        )


def _keep_all(parts: Sequence[_Part], processes: int) -> None:
    """Makes what is missing in as many processes; what they stumble over is said where the parts are read."""
    missing = [part for part in parts if not part.path.exists()]
    if processes > 1 and len(missing) > 1:
        with ProcessPoolExecutor(min(processes, len(missing)), mp_context=get_context(START)) as pool:
            for part in missing:
                pool.submit(_keep, part)


def _keep(part: _Part) -> None:
    part.samples()


class Source:
    """A folder of databases or of Argoverse 2's scenarios."""

    def __init__(self, folder: Path, allow_outside: bool) -> None:
        self.folder, self.allow_outside = folder, allow_outside
        self.argoverse = any(is_argoverse2_name(path.name) for path in files_below(folder))
        self.parts = argoverse2_folders(folder) if self.argoverse else databases(folder)

    @cached_property
    def records(self) -> list[Path]:
        """Argoverse's folders, ScenarioNet's files."""
        if self.argoverse:
            return self.parts
        return [path for part in self.parts for path in scenario_files(part, self.allow_outside).values()]

    def content(self, cache: Path | None = None, records: Sequence[Path] | None = None) -> str:
        """Which files they are: the SHA-256 of their names and of what is in them. records: of these alone."""
        return hash_named(((path.name, path) for path in self.paths(records)), cache)

    def paths(self, records: Sequence[Path] | None = None) -> Iterator[Path]:
        chosen = self.records if records is None else records
        if self.argoverse:
            return chain.from_iterable([path for path in entries(part) if path.is_file()] for part in chosen)
        return iter(chosen)


def _scenarionet(records: Sequence[Path], dataset: str, skipped: Counter[str]) -> Iterator[Scenario]:
    return read_scenarios(records, dataset=dataset, skipped=skipped)


def _argoverse2(records: Sequence[Path], dataset: str, skipped: Counter[str]) -> Iterator[Scenario]:
    for folder in records:
        try:
            scenario = read_argoverse2(folder)
        except InputError as error:
            count_unreadable(skipped, folder, error)
            continue
        yield replace(scenario, dataset=dataset)


def _scene(sample: str, fields: int) -> str:
    scenario = sample.split("/")[1]
    return scenario.rsplit("_", fields)[0] if fields else scenario
