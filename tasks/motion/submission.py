"""Predictions as nuScenes's prediction challenge takes them: a JSON file with one list of all agents' futures.

    [{"instance": token, "sample": token, "prediction": [K][12][2], "probabilities": [K]}, ...]

in metres of nuScenes's global frame, at every half second up to 6, with at most 25 futures of an agent.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tarot import InputError
from tarot.common import atomic_file, read_json
from tasks.motion.formats import placed
from tasks.motion.metrics import nuscenes_steps
from tasks.motion.views import MotionSamples

POINTS, MOST_FUTURES, MOST_BYTES = 12, 25, 1 << 30
_TOKENS = re.compile(r"(?:.*_)?([0-9a-f]{32})_([0-9a-f]{32})")


@dataclass(frozen=True)
class Forecast:
    """One agent's futures. instance, sample: nuScenes's tokens. futures: float64 [K, 12, 2], metres in the global
    frame; probabilities: float64 [K], which are scaled to a sum of 1.
    """

    instance: str
    sample: str
    futures: np.ndarray
    probabilities: np.ndarray

    def __post_init__(self) -> None:
        where = f"the forecast of instance {self.instance!r} at sample {self.sample!r}"
        if not (isinstance(self.instance, str) and isinstance(self.sample, str) and self.instance and self.sample):
            raise InputError(f"{where} must have two tokens")
        try:
            futures, shares = (np.asarray(given, dtype=np.float64) for given in (self.futures, self.probabilities))
        except (ArithmeticError, TypeError, ValueError) as error:
            raise InputError(f"{where}: its futures and probabilities must be arrays of numbers") from error
        k = len(shares) if shares.ndim == 1 else 0
        if not 1 <= k <= MOST_FUTURES or futures.shape != (k, POINTS, 2):
            raise InputError(
                f"{where} must have 1 to {MOST_FUTURES} futures of {POINTS} points, and as many probabilities; their "
                f"shapes are {list(futures.shape)} and {list(shares.shape)}"
            )
        if not (np.isfinite(futures).all() and np.isfinite(shares).all() and (shares >= 0).all() and shares.sum() > 0):
            raise InputError(f"{where} must be finite, its probabilities not negative nor all zero")
        object.__setattr__(self, "futures", futures)
        object.__setattr__(self, "probabilities", shares / shares.sum())


def tokens(scenario: str) -> tuple[str, str]:
    """(instance, sample) of a ScenarioNet scenario of nuScenes's challenge, which is named scene_instance_sample."""
    match = _TOKENS.fullmatch(scenario)
    if match is None:
        raise InputError(
            f"scenario {scenario!r} is not named scene_instance_sample with two tokens of 32 hexadecimal digits: it "
            "was not made for nuScenes's prediction challenge"
        )
    return match[1], match[2]


def challenged(samples: MotionSamples) -> list[tuple[str, str]]:
    """(instance, sample) of every agent. Raises InputError where one is none of the challenge's, or where its record
    does not tell where on the map it lies: see `scenarionet.read_scenario`."""
    scenarios = [name.split("/")[1] for name in samples.ids.tolist()]
    found = [tokens(scenario) for scenario in scenarios]
    lost = np.flatnonzero(~np.isfinite(samples.frames.origin).all(1))
    if len(lost):
        raise InputError(
            f"{len(lost)} of {len(found)} agents cannot be placed on nuScenes's map, such as that of "
            f"{scenarios[lost[0]]}: ScenarioNet moves a record so that its ego begins at (0, 0), and only positions "
            "of frames that are not valid tell by how far; this record has none, or they have been changed"
        )
    repeated = [agent for agent, times in Counter(found).items() if times > 1]
    if repeated:
        instance, sample = repeated[0]
        raise InputError(
            f"instance {instance} at sample {sample} has several forecasts; nuScenes's challenge wants one"
        )
    return found


def demand_challenge(future: int, hz: float, modes: int) -> None:
    """Raises InputError where the challenge does not take `modes` futures of `future` steps, hz of them in a second."""
    if len(nuscenes_steps(future, hz)) != POINTS:
        raise InputError(f"nuScenes's challenge wants 6 s; the predictions are of {future / hz:g} s")
    if modes > MOST_FUTURES:
        raise InputError(f"nuScenes's challenge takes {MOST_FUTURES} futures of an agent at most, not {modes}")


def forecasts(
    agents: Sequence[tuple[str, str]],
    trajectories: np.ndarray,
    probabilities: np.ndarray,
    centres: np.ndarray,
    headings: np.ndarray,
    hz: float,
) -> list[Forecast]:
    """What the challenge wants of predictions in each agent's own frame.

    agents: n pairs of tokens. trajectories: [n, K, F, 2 or more], metres; probabilities: [n, K]. centres: float64
    [n, 2], where the agents' frames lie in nuScenes's global frame, and `headings`: [n], their x axes, radians. hz:
    steps in a second.
    """
    demand_challenge(trajectories.shape[2], hz, trajectories.shape[1])
    steps = nuscenes_steps(trajectories.shape[2], hz)
    found = []
    for agent, futures, shares, centre, heading in zip(
        agents, trajectories, probabilities, centres, headings, strict=True
    ):
        found.append(Forecast(*agent, placed(futures[:, steps, :2], centre, heading), shares))
    return found


def write_submission(path: str | Path, found: Iterable[Forecast]) -> None:
    """Raises InputError where an agent is there twice, or none is."""
    found = list(found)
    _demand(found, "the submission")
    rows = [
        {
            "instance": f.instance,
            "sample": f.sample,
            "prediction": f.futures.tolist(),
            "probabilities": f.probabilities.tolist(),
        }
        for f in found
    ]
    with atomic_file(path) as temporary:
        Path(temporary).write_text(json.dumps(rows, allow_nan=False))


def read_submission(path: str | Path) -> list[Forecast]:
    """What a file holds. Raises InputError where the challenge would refuse it, or would not read all of it."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    if path.stat().st_size > MOST_BYTES:
        raise InputError(f"{path} is larger than {MOST_BYTES >> 20} MiB")
    rows = read_json(path)
    names = ("instance", "sample", "prediction", "probabilities")
    if not isinstance(rows, list) or not all(isinstance(row, dict) and set(row) == set(names) for row in rows):
        raise InputError(f"{path} must be a list of objects with {', '.join(names)}")
    found = [Forecast(*(row[name] for name in names)) for row in rows]
    _demand(found, str(path))
    return found


def _demand(found: Sequence[Forecast], where: str) -> None:
    if not found:
        raise InputError(f"{where} holds no forecast")
    seen = set()
    for forecast in found:
        key = forecast.instance, forecast.sample
        if key in seen:
            raise InputError(f"{where} has instance {key[0]} at sample {key[1]} twice")
        seen.add(key)
