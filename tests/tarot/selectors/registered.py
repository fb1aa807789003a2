"""Every registered selector as the contract's checks are given it."""

from __future__ import annotations

from functools import cache

from tarot.selectors import SELECTORS
from tests.tarot.selectors.conformance import Subject

# Those whose `size` is a number of draws with replacement.
DRAWS = {"tsds"}
# Those who draw candidates, which they do by name.
BY_NAME = {"dsir", "random", "oracle", "tsds", "sava", "batchwise_lava", "prototypes"}
# Those who compare counts.
COUNTS = {"dsir"}
# Options without which there would be nothing to choose in a pool as small as the checks'.
OPTIONS = {
    "sava": {"batch_size": 20},
    "batchwise_lava": {"batch_size": 20},
    "wasserstein_coreset": {"starts": 1},  # which takes a third of the time
}


@cache
def subject_of(name: str) -> Subject:
    """One for all of its checks, which share what it usually selects."""
    return Subject(
        SELECTORS[name], OPTIONS.get(name, {}), draws=name in DRAWS, by_name=name in BY_NAME, counts=name in COUNTS
    )
