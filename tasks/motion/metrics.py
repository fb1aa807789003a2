"""How good predicted futures are: Argoverse's and nuScenes's measures, of each agent and on average.

    ADE_k, FDE_k   mean distance of future k to the truth over the steps that are known, and that at the last of them
    min_ade, min_fde   the least of them over all K
    miss_rate   share of agents whose min_fde is more than 2 m
    brier_min_fde   min_fde + (1 - p)^2 with p the probability of the future that has it; brier_min_ade alike

nuScenes's look at 2 points in a second and at the most probable futures alone: of 5, nuscenes_min_ade_5 is the least
ADE, and nuscenes_miss_rate_5 the share of agents of whom each of the 5 is 2 m or more away at some point.
They are left out where steps do not fall on half seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from tarot import InputError

MISS = 2.0  # metres
NUSCENES_HZ = 2
NUSCENES_TOP = (5, 10)
HEADLINE = "brier_min_fde"


def errors(trajectories: Tensor, probabilities: Tensor, future: Tensor, valid: Tensor, hz: float) -> dict[str, Tensor]:
    """Every measure of every agent, float64 [B]; the headline first. NaN where nothing of a future is known, and in
    nuScenes's measures where nothing at its points is.

    trajectories: [B, K, F, 2 or more], x and y first; probabilities: [B, K], in any unit; future: [B, F, 2 or more];
    valid: bool [B, F]. hz: steps in a second; the first step is 1 / hz seconds ahead.
    """
    _demand(trajectories, probabilities, future, valid)
    known = valid.any(1)
    truth = torch.where(valid[..., None], future[..., :2].double(), 0.0)
    distance = (trajectories[..., :2].double() - truth[:, None]).norm(dim=-1)  # [B, K, F]
    distance = torch.where(valid[:, None], distance, 0.0)
    probabilities = probabilities.double() / probabilities.double().sum(1, keepdim=True)

    ade = _mean(distance, valid)
    steps = torch.arange(valid.shape[1], device=valid.device)
    last = (steps * valid).amax(1)  # 0 where nothing is known
    fde = distance.gather(2, last[:, None, None].expand(-1, distance.shape[1], 1)).squeeze(2)
    min_ade, of_ade = ade.min(1)
    min_fde, of_fde = fde.min(1)
    sure = {k: probabilities.gather(1, i[:, None]).squeeze(1) for k, i in (("ade", of_ade), ("fde", of_fde))}
    found = {
        "brier_min_fde": min_fde + (1 - sure["fde"]) ** 2,
        "min_fde": min_fde,
        "min_ade": min_ade,
        "miss_rate": (min_fde > MISS).double(),
        "brier_min_ade": min_ade + (1 - sure["ade"]) ** 2,
    }
    found = {name: torch.where(known, value, torch.nan) for name, value in found.items()}
    return found | _nuscenes(distance, probabilities, valid, hz)


def _nuscenes(distance: Tensor, probabilities: Tensor, valid: Tensor, hz: float) -> dict[str, Tensor]:
    if not _half_seconds(valid.shape[1], hz):
        return {}
    steps = nuscenes_steps(valid.shape[1], hz)
    distance, valid = distance[:, :, steps], valid[:, steps]
    order = probabilities.argsort(dim=1, descending=True, stable=True)
    distance = distance.gather(1, order[:, :, None].expand_as(distance))
    ade, missed = _mean(distance, valid), distance.amax(2) >= MISS
    found = {f"nuscenes_min_ade_{k}": ade[:, :k].amin(1) for k in NUSCENES_TOP}
    found |= {f"nuscenes_miss_rate_{k}": missed[:, :k].all(1).double() for k in NUSCENES_TOP}
    return {name: torch.where(valid.any(1), value, torch.nan) for name, value in found.items()}


def nuscenes_steps(future: int, hz: float) -> list[int]:
    """Which of `future` steps are nuScenes's points: every half second. Raises InputError where there are none."""
    if not _half_seconds(future, hz):
        raise InputError(
            f"nuScenes's measures need a step at every half second; there are {future} steps, {hz:g} in a second"
        )
    stride = int(hz / NUSCENES_HZ)
    return list(range(stride - 1, future, stride))


def _half_seconds(future: int, hz: float) -> bool:
    stride = hz / NUSCENES_HZ
    return stride >= 1 and stride == int(stride) and future >= stride


def _mean(distance: Tensor, valid: Tensor) -> Tensor:
    """[B, K]; 0 where nothing is valid. What is not valid has distance 0."""
    return distance.sum(2) / valid.sum(1, keepdim=True).clamp(min=1)


def _demand(trajectories: Tensor, probabilities: Tensor, future: Tensor, valid: Tensor) -> None:
    shapes = [list(tensor.shape) for tensor in (trajectories, probabilities, future, valid)]
    b, k, f = (*trajectories.shape[:3], 0, 0, 0)[:3]
    fits = trajectories.ndim == 4 and min(k, f) > 0 and trajectories.shape[3] >= 2
    if not (fits and shapes[1] == [b, k] and shapes[2][:2] == [b, f] and future.ndim == 3 and shapes[3] == [b, f]):
        raise InputError(
            "metrics need trajectories [B, K, F, 2], probabilities [B, K], future [B, F, 2] and valid [B, F]; their "
            f"shapes are {shapes[0]}, {shapes[1]}, {shapes[2]} and {shapes[3]}"
        )
    for i in range(b):
        row = probabilities[i]
        if not (row.isfinite().all() and (row >= 0).all() and row.sum() > 0):
            raise InputError(f"probabilities must not be negative nor all zero; those of agent {i} are {row.tolist()}")


def summary(
    found: Mapping[str, Tensor | np.ndarray], tags: Mapping[str, Sequence[str]] | None = None
) -> dict[str, float]:
    """Averages over agents: "min_ade", and for each value of each tag, such as `dataset`, "min_ade/dataset=x".
    Agents of whom a measure is NaN do not count in it; what no agent is left of is absent.

    found: name -> [n], as `errors` gives it; tags: name -> what each of the n agents is.
    """
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in found.items()}
    groups: dict[str, np.ndarray | slice] = {"": slice(None)}
    for tag, values in (tags or {}).items():
        kinds = np.asarray(values)
        for name, array in arrays.items():
            if kinds.shape != array.shape:
                raise InputError(f"tag {tag} is of {len(kinds)} agents, {name} of {len(array)}")
        groups |= {f"/{tag}={kind}": kinds == kind for kind in np.unique(kinds)}
    means = {}
    for suffix, group in groups.items():
        for name, array in arrays.items():
            counted = array[group][~np.isnan(array[group])]
            if len(counted):
                means[name + suffix] = float(counted.mean())
    return means
