"""Targets as a dataset: arrays that stay on disk where they are kept there, and the batches that models are given."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tarot import InputError
from tasks.common.cache import kept
from tasks.common.rows_on_disk import LazyRows, stored_arrays
from tasks.motion.formats import Scenario, placed
from tasks.motion.views.lanes import lines_of
from tasks.motion.views.profile import STATE_WIDTH, Profile
from tasks.motion.views.target_view import SHOWN, View, featurised, view
from tasks.motion.views.windows import NoWindow, TargetFilter, targets_of, windows

Batch = dict[str, Tensor]

_LANES = ("lane_points", "lane_counts", "lane_codes")
_TEXT = ("ids", "tags", "datasets")
_HELD = (*_TEXT, "type", "difficulty", "frame", "origin")
"""What is in memory of every sample: a few hundred bytes. The rest, a thousand times as much, is read when needed."""


class Frames(NamedTuple):
    """Where targets are now in their scenarios' frames. centre: float64 [n, 2], metres; heading: float64 [n].

    origin: float64 [n, 2], where those frames begin on the map of their dataset, metres; NaN where that is not known.
    """

    centre: np.ndarray
    heading: np.ndarray
    origin: np.ndarray


@dataclass(frozen=True)
class Scene:
    """What there is to draw of one sample, in metres, in the target's frame; the target is row 0.

    past: float32 [A, P, 2], NaN where not valid; heading: float32 [A], at the last step at which an agent is there;
    size: float32 [A, 3]; kinds: int8 [A]; here: bool [A], there at the current frame; ego: bool [A];
    futures: float32 [A, F, 2], NaN where not valid; lanes: float32 [n, 2] each; lane_codes: int8, one for each.
    """

    past: np.ndarray
    heading: np.ndarray
    size: np.ndarray
    kinds: np.ndarray
    here: np.ndarray
    ego: np.ndarray
    futures: np.ndarray
    lanes: list[np.ndarray]
    lane_codes: np.ndarray


class MotionSamples:
    """Targets in one order that does not change; sample i is a dict of tensors, see `features.featurised`.

    ids: str [n], "dataset/scenario/agent", and "@start" behind it where the record was cut into several windows
    tags: str [n], what simulated scenes are made to be, for diagnosis only; datasets: str [n]
    types: int64 [n], places in `features.TYPES`; difficulty: float64 [n, 3] (at 2, 4, 6 s; -1: unknown)
    skipped: how many agents, windows, frames or files were left out, by reason
    """

    def __init__(
        self,
        profile: Profile,
        arrays: Mapping[str, np.ndarray | LazyRows],
        skipped: Mapping[str, int] | None = None,
    ) -> None:
        self.profile, self.skipped = profile, Counter(skipped or {})
        self.arrays: dict[str, Any] = {
            name: array if name in _HELD or isinstance(array, LazyRows) else LazyRows([array])
            for name, array in arrays.items()
        }
        self.ids, self.tags, self.datasets = (self.arrays[name] for name in _TEXT)
        self.types, self.difficulty = self.arrays["type"], self.arrays["difficulty"]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def frames(self) -> Frames:
        frame = self.arrays["frame"]
        return Frames(frame[:, :2], frame[:, 2], self.arrays["origin"])

    def batch(self, indices: Any = slice(None), device: torch.device | str = "cpu") -> Batch:
        """The samples of these indices (a slice or integers), as `default_collate` would make of them, but faster; and
        made on the device, to which a small part of them goes."""
        chosen = np.arange(len(self))[indices] if isinstance(indices, slice) else np.asarray(indices, np.int64)
        return featurised(
            self.profile, {name: torch.from_numpy(self.arrays[name][chosen]).to(device) for name in SHOWN}
        )

    def __getitem__(self, index: int) -> Batch:
        index = range(len(self))[index]
        return {name: tensor[0] for name, tensor in self.batch([index]).items()}

    def take(self, indices: Any) -> MotionSamples:
        """The samples of these indices or this mask, in their order; nothing counts as skipped."""
        indices = np.asarray(indices)
        if not indices.size:
            indices = indices.astype(np.int64)
        arrays = {
            name: array.take(indices) if isinstance(array, LazyRows) else array[indices]
            for name, array in self.arrays.items()
        }
        return MotionSamples(self.profile, arrays)

    def __add__(self, other: MotionSamples) -> MotionSamples:
        return MotionSamples.joined([self, other])

    @staticmethod
    def joined(several: Sequence[MotionSamples]) -> MotionSamples:
        """One after the other. Raises InputError where profiles differ."""
        first = several[0]
        for other in several[1:]:
            if first.profile.recipe() != other.profile.recipe():
                raise InputError(
                    f"samples of profile {first.profile.name} cannot stand beside those of another, "
                    f"{other.profile.name}"
                )
        arrays: dict[str, Any] = {}
        for name, array in first.arrays.items():
            all_of_them = [samples.arrays[name] for samples in several]
            lazy = isinstance(array, LazyRows)
            arrays[name] = LazyRows.joined(all_of_them) if lazy else np.concatenate(all_of_them)
        skipped: Counter[str] = Counter()
        for samples in several:
            skipped += samples.skipped
        return MotionSamples(first.profile, arrays, skipped)

    def scene(self, index: int) -> Scene:
        """What there is to draw of a sample."""
        index = range(len(self))[index]
        kept = {name: array[index] for name, array in self.arrays.items()}
        valid, states = kept["valid"], kept["agents"]
        last = valid.shape[1] - 1 - np.argmax(valid[:, ::-1], axis=1)
        sin, cos = np.moveaxis(states[np.arange(len(valid)), last, 2:4], 1, 0)
        there = kept["lane_counts"] > 0
        lanes = zip(kept["lane_points"][there], kept["lane_counts"][there], strict=True)
        return Scene(
            past=np.where(valid[..., None], states[..., :2], np.nan).astype(np.float32),
            heading=np.arctan2(sin, cos),
            size=kept["size"],
            kinds=kept["kinds"],
            here=valid[:, -1],
            ego=kept["ego"],
            futures=kept["agents_future"],
            lanes=[points[:count, :2] for points, count in lanes],
            lane_codes=kept["lane_codes"][there],
        )

    def to_scene(self, index: int, xy: np.ndarray) -> np.ndarray:
        """Points [..., 2] of a sample's frame in the frame of its scenario, float64."""
        x, y, heading = self.arrays["frame"][index]
        return placed(xy, (x, y), heading)


def sample_id(window: Scenario, agent: str) -> str:
    return f"{window.dataset}/{window.name}/{agent}" + ("" if window.start is None else f"@{window.start}")


UNSEEN = "frame outside of the one window of its record (task.data.every: seconds from window to window)"


def samples_of(
    scenarios: Iterable[Scenario],
    profile: Profile,
    *,
    select: TargetFilter | None = None,
    start: int | None = None,
    every: float | None = None,
    skipped: Mapping[str, int] | None = None,
) -> MotionSamples:
    """All targets of all windows of the scenarios, in their order.

    start, every: see `windows`; select: which agents are targets; skipped: what a reader left out already; it is read
    when all scenarios have been.
    Records of which no window can be cut are counted in `skipped`, too.
    Raises InputError where two samples would have the same id.
    """
    counted: Counter[str] = Counter()
    ids, tags, datasets, views = [], [], [], []
    for scenario in scenarios:
        counted.update(scenario.problems)
        try:
            cut = windows(scenario, profile, start, every)
        except NoWindow as error:
            counted[f"record {error.reason}"] += 1
            continue
        if every is None and scenario.frames > profile.frames:
            counted[UNSEEN] += scenario.frames - profile.frames
        lines = lines_of(scenario.map, profile)
        for window in cut:
            agents, left_out = targets_of(window, select)
            counted.update({f"agent {reason}": count for reason, count in left_out.items()})
            if not agents:
                counted["window without a target"] += 1
            for agent in agents:
                views.append(view(window, agent, profile, lines))
                ids.append(sample_id(window, agent))
                tags.append(window.tag or "")
                datasets.append(window.dataset)
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            raise InputError(f"two motion samples are called {name}: scenarios of a dataset need different names")
        seen.add(name)
    counted.update(skipped or {})
    text = {"ids": np.array(ids, str), "tags": np.array(tags, str), "datasets": np.array(datasets, str)}
    return MotionSamples(profile, {**_stacked(views, profile), **text}, counted)


def _stacked(views: list[View], profile: Profile) -> dict[str, np.ndarray]:
    if not views:
        return _none(profile)
    arrays = {
        name: np.stack([getattr(seen, name) for seen in views])
        for name in View.__dataclass_fields__
        if name not in _LANES
    }
    most = max(len(seen.lane_codes) for seen in views)
    for name in _LANES:
        of = [getattr(seen, name) for seen in views]
        arrays[name] = np.zeros((len(of), most, *of[0].shape[1:]), of[0].dtype)
        for row, array in zip(arrays[name], of, strict=True):
            row[: len(array)] = array
    return arrays


def _none(profile: Profile) -> dict[str, np.ndarray]:
    """No sample at all, of the right shapes."""
    a, p, f, m = profile.agents, profile.steps, profile.horizon, profile.points
    shapes: dict[str, tuple[tuple[int, ...], type]] = {
        "agents": ((a, p, STATE_WIDTH), np.float32),
        "valid": ((a, p), np.bool_),
        "kinds": ((a,), np.int8),
        "ego": ((a,), np.bool_),
        "size": ((a, 3), np.float32),
        "agents_future": ((a, f, 2), np.float32),
        "lane_points": ((0, m, 4), np.float32),
        "lane_counts": ((0,), np.int16),
        "lane_codes": ((0,), np.int8),
        "future": ((f, 4), np.float32),
        "future_valid": ((f,), np.bool_),
        "frame": ((3,), np.float64),
        "origin": ((2,), np.float64),
        "difficulty": ((3,), np.float64),
        "type": ((), np.int64),
    }
    return {name: np.zeros((0, *shape), dtype) for name, (shape, dtype) in shapes.items()}


def cached_samples(path: Path, profile: Profile, make: Callable[[], MotionSamples]) -> MotionSamples:
    """Open `path` (.npz), or make and save it; what is large stays there. The path's name must tell all that determines
    the samples: a fingerprint of `profile.recipe()` and of what the scenarios are made of.

    Raises InputError where the file does not hold samples of the profile.
    """

    def save(temporary: Path) -> None:
        samples = make()
        notes = {"profile": samples.profile.recipe(), "skipped": dict(samples.skipped)}
        arrays: Mapping[str, Any] = {**samples.arrays, "notes": np.array(json.dumps(notes))}
        with open(temporary, "wb") as file:
            np.savez(file, **arrays)

    stored = kept(path, save, stored_arrays)
    try:
        notes = json.loads(str(stored.pop("notes").rows(np.zeros(1, np.int64))[0]))
        made_for = notes["profile"]
    except (KeyError, TypeError, IndexError, json.JSONDecodeError) as error:
        raise InputError(f"{path} does not hold motion samples; delete it to make them again") from error
    if made_for != profile.recipe():
        raise InputError(f"{path} holds samples of another profile than {profile.name}; delete it to make them again")
    arrays = {
        name: array.rows(np.arange(array.shape[0])) if name in _HELD else LazyRows([array])
        for name, array in stored.items()
    }
    return MotionSamples(profile, arrays, notes["skipped"])
