"""Rows that say what another row says: word for word, or nearly, or as a model sees it.

Nearly the same are rows of whose runs of three words most are the same (Jaccard), and of those of what is learned, too:
two questions about one long text are not. Rows that may be are found by MinHash
(Broder, 1997) in bands (locality-sensitive hashing), and then compared themselves: what is found is so, and a pair at
the threshold is missed three times in a hundred thousand, one above it more seldom.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tarot.common import progress
from tasks.instruction.reading import Row

SAME = 0.8
"""The share of runs of three words from which on two rows are nearly the same."""
_WORDS = 3
_BANDS, _IN_A_BAND = 20, 4  # of hashes; a pair at the threshold shares no band with probability (1 - .8^4)^20 = 3e-5
LOOKS_SAME = 0.99
"""The cosine, from the mean of all, from which on two rows look the same to a model."""
_BLOCK = 1024  # rows
_COMPARED = 32  # rows of a band that one is compared with
log = logging.getLogger("tarot")
Places = NDArray[np.int64]
Runs = NDArray[np.uint32]  # of three words, each once, ascending


def same(rows: Sequence[Row]) -> Places:
    """The place of the first row that says the same, and has the same learned of it, int64 [n]; its own for that row.
    Blanks around a message do not count."""
    first: dict[str, int] = {}
    return np.array([first.setdefault(_text(row), place) for place, row in enumerate(rows)], dtype=np.int64)


def nearly_same(rows: Sequence[Row]) -> Places:
    """The place of the first row that says nearly the same and stands for itself, int64 [n]; its own for that row."""
    found = same(rows)
    firsts = np.flatnonzero(found == np.arange(len(rows))).tolist()
    factors, shifts = _hashes()
    runs = [_runs(rows[place], range(len(rows[place].messages))) for place in firsts]
    learned = [_runs(rows[place], rows[place].learned) for place in firsts]
    buckets: defaultdict[bytes, list[int]] = defaultdict(list)
    stands_for = np.arange(len(rows))
    with progress("near duplicates", len(firsts), "rows") as advance:
        for number, run in enumerate(runs):
            keys = _bands(run, factors, shifts)
            known = dict.fromkeys(one for key in keys for one in buckets[key])
            for other in known:
                if min(_alike(run, runs[other]), _alike(learned[number], learned[other])) >= SAME:
                    stands_for[firsts[number]] = firsts[other]
                    break
            else:
                for key in keys:
                    if len(buckets[key]) < _COMPARED:
                        buckets[key].append(number)
            advance(1)
    return stands_for[found]


def alike(vectors: NDArray[np.float32], least: float = LOOKS_SAME) -> Places:
    """The place of the first row that looks the same and stands for itself, int64 [n]; its own for that row.

    vectors: float32 [n, d], what rows look like; of two that look the same the cosine, measured from the mean of all,
    is at least `least`. A row that is the mean looks like no other.
    """
    rows = vectors - vectors.mean(axis=0)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    stands_for = np.arange(len(rows))
    kept: list[int] = []
    with progress("candidates that look the same", len(rows), "rows") as advance:
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            before = block @ rows[kept].T
            inside = np.tril(block @ block.T, -1)
            own, numbers = stands_for[start:], np.arange(start, start + len(block))
            for place in range(len(block)):
                earlier = np.flatnonzero(before[place] >= least)
                beside = np.flatnonzero((inside[place] >= least) & (own[: len(block)] == numbers))
                if len(earlier):
                    stands_for[start + place] = kept[int(earlier[0])]
                elif len(beside):
                    stands_for[start + place] = start + beside[0]
            kept += [place for place in range(start, start + len(block)) if stands_for[place] == place]
            advance(len(block))
    return stands_for


def copies(stands_for: Places) -> int:
    """How many rows another stands for."""
    return int((stands_for != np.arange(len(stands_for))).sum())


def one_of_each(rows: Sequence[Row], stands_for: Places) -> list[Row]:
    """The rows that stand for themselves, each with how many it stands for (`copies`)."""
    count = np.bincount(stands_for, minlength=len(rows))
    return [replace(rows[place], copies=int(count[place])) for place in np.flatnonzero(count).tolist()]


def say(rows: Sequence[Row], exact: Places, near: Places) -> None:
    """To the log: how many rows are copies of others, and that one of each can be kept."""
    copies = np.flatnonzero(exact != np.arange(len(rows)))
    nearly = np.flatnonzero((near != np.arange(len(rows))) & (exact == np.arange(len(rows))))
    found = (
        (copies, exact, "word for word (task.deduplicate=exact"),
        (nearly, near, "nearly (task.deduplicate=minhash"),
    )
    for places, first, how in found:
        if len(places):
            one = places[0]
            log.warning(
                "warning: %s of %s candidates say what another says, %s keeps one of each), such as %s and %s",
                f"{len(places):,}",
                f"{len(rows):,}",
                how,
                rows[one].where or rows[one].id,
                rows[first[one]].where or rows[first[one]].id,
            )


def _text(row: Row) -> str:
    turns = [(role, content.strip()) for role, content in row.messages]
    besides = [sorted(row.masked), sorted(row.more.items()), row.tools]
    return json.dumps([turns, besides if row.masked or row.more or row.tools else []], default=str)


def _runs(row: Row, places: Sequence[int]) -> Runs:
    """A number for every run of three words in these messages, each once; of a shorter text for all of it."""
    words = " ".join(row.messages[place][1] for place in places).lower().split()
    words += [json.dumps(row.more[place], sort_keys=True, default=str) for place in places if place in row.more]
    numbers = np.array([zlib.crc32(word.encode()) for word in words], dtype=np.uint64)
    width = min(_WORDS, max(1, len(numbers)))
    total = np.zeros(max(0, len(numbers) - width + 1), dtype=np.uint64)
    for offset in range(width):
        total = total * np.uint64(0x9E3779B97F4A7C15) + numbers[offset : offset + len(total)]
    return np.unique(
        ((total ^ (total >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9) >> np.uint64(32)).astype(np.uint32)
    )


def _hashes() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    rng = np.random.default_rng(0)
    factors = rng.integers(1, 2**63, (_BANDS * _IN_A_BAND, 1), dtype=np.uint64) | np.uint64(1)
    return factors, rng.integers(0, 2**63, (_BANDS * _IN_A_BAND, 1), dtype=np.uint64)


def _bands(runs: Runs, factors: NDArray[np.uint64], shifts: NDArray[np.uint64]) -> list[bytes]:
    """What two rows share with probability J^4 for each of the bands, J being the share of runs that they share."""
    if not len(runs):
        return [b""]
    hashed = (runs * factors + shifts) >> np.uint64(32)  # multiply and shift (Dietzfelbinger et al., 1997)
    least = hashed.min(axis=1).reshape(_BANDS, _IN_A_BAND)
    return [band.to_bytes(1, "big") + least[band].tobytes() for band in range(_BANDS)]


def _alike(one: Runs, other: Runs) -> float:
    """Of the runs of either, the share that both have."""
    if not len(one) or not len(other):
        return float(len(one) == len(other))
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)
