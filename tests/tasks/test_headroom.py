"""The embedded tasks can tell good selection from bad: there is something to win by choosing, and it is worth winning.

A task has headroom where it helps to know the candidates' tags: over five seeds, each with its own data, models of the
tagged candidates are better than models of all candidates, of as many random ones, and of the targets alone. The tags
alone are the judge: no task is made to suit a selector.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.report import mean_interval
from tarot import Selection, SelectionProblem
from tarot.selectors import All, Oracle, Random, TargetOnly
from tasks.task import Task
from tests.tasks.configured import CONF, task_of
from tests.tasks.test_contract import NO_MODEL, STAND_IN

SEEDS = range(5)
EMBEDDED = sorted({path.stem for path in CONF.glob("task/*.yaml")} - NO_MODEL - set(STAND_IN))
MARGINS = {  # of the headline metric: what the oracle must be ahead by, on average, of each other arm
    "digits": 0.1,  # accuracy
    "instruction": 0.1,  # exact match
    "motion": 0.3,  # brier-minFDE, metres
    "segmentation": 0.04,  # mean IoU
}


def embedded(name: str, seed: int, cache_dir: Path) -> Task:
    """The task as it is configured."""
    return task_of(name, cache_dir, cache_dir, f"seed={seed}")


def arms(task: Task, seed: int) -> dict[str, Selection]:
    """What the experiments call so. None of them looks at features, so there are none."""
    n, m = len(task.ids("candidates")), len(task.ids("targets"))
    problem = SelectionProblem(
        (np.zeros((n, 1)),),
        (np.zeros((m, 1)),),
        total=task.total(),
        total_may_grow=True,
        candidate_tags=task.candidate_tags(),
    )
    oracle = Oracle().select(problem)
    return {
        "oracle": oracle,
        "target_only": TargetOnly().select(problem),
        "all": All().select(problem),
        "random": Random(size=len(oracle), seed=seed).select(problem),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", EMBEDDED)
def test_knowing_the_tags_helps(name, tmp_path):
    worth: dict[str, list[float]] = {}
    for seed in SEEDS:
        task = embedded(name, seed, tmp_path)
        for arm, selection in arms(task, seed).items():
            metric, value = next(iter(task.evaluate(task.train(selection, 1000 * seed)).items()))
            worth.setdefault(arm, []).append(-value if task.lower_is_better(metric) else value)
    for arm in ("target_only", "all", "random"):
        ahead = mean_interval(np.subtract(worth["oracle"], worth[arm]))
        assert ahead.low > 0 and ahead.mean > MARGINS[name], f"{name}: oracle minus {arm} is {ahead}; all are {worth}"
