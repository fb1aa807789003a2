"""What every selector selects where strings have other hashes, which order sets: of a process they are drawn at its
start. And selectors that are broken on purpose, for they go by hashes."""

from __future__ import annotations

import subprocess
import sys
from itertools import count
from typing import Any

import numpy as np

from tarot.selectors import SELECTORS
from tests.tarot.selectors.conformance import Subject
from tests.tarot.selectors.conformance.subjects import pool, rows_for
from tests.tarot.selectors.honest import Honest
from tests.tarot.selectors.registered import subject_of

_SMALL = 7  # a set of up to four stands in the order of these bits of its hashes


class GoesByHashesOfIds(Honest):
    def values(self, problem):
        return np.array([hash(name) % 1000 for name in problem.candidate_ids.tolist()], dtype=np.float64)


class ServesTheFirstGroupOfASet(Honest):
    def values(self, problem):
        first, *_ = set(problem.target_groups.tolist())
        rows, targets = (np.asarray(views[0]) for views in (problem.candidate_views, problem.target_views))
        return (rows @ targets[problem.target_groups == first].mean(0)).astype(np.float64)


BROKEN = {kind.__name__: kind for kind in (GoesByHashesOfIds, ServesTheFirstGroupOfASet)}


def words() -> tuple[str, str]:
    """What candidates are called: two strings whose hashes differ in this process where sets look at them."""
    return "target", next(word for i in count() if order("target", word := f"noise {i}"))


def order(one: str, other: str) -> int:
    """How they stand in a set: -1 or 1, whichever comes in first, or 0 where that decides."""
    return int(np.sign((hash(one) & _SMALL) - (hash(other) & _SMALL)))


def opposite_seed(one: str, other: str) -> str:
    """Of hashes: one by which the two stand in the other order than in this process."""
    compared = f"a, b = (hash(word) & {_SMALL} for word in {(one, other)}); print((a > b) - (a < b))"
    for seed in map(str, count(1)):
        bare = [sys.executable, "-S", "-c", compared]
        found = subprocess.run(bare, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True)
        if int(found.stdout) == -order(one, other):
            return seed
    raise AssertionError


def choices(*called: str) -> dict[str, list[Any]]:
    """Name -> the indices and weights of what every registered selector selects, and every broken one. called: the two
    words that labels, groups and tags are made of."""
    subjects = {name: subject_of(name) for name in sorted(SELECTORS)}
    subjects |= {name: Subject(kind) for name, kind in BROKEN.items()}
    found = {}
    for name, subject in subjects.items():
        with rows_for(subject):
            known = pool()
            for key in ("candidate_labels", "target_labels", "target_groups"):
                known[key] = np.array(called)[known[key]]
            known["candidate_tags"] = np.where(known["candidate_tags"] == "target", *called)
            selection = subject.select(known)
        found[name] = [selection.indices.tolist(), selection.weights.tolist()]
    return found
