"""What the theory says of targets whose row is zero is what the methods do."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest

import tarot
from tests.docs.pages import DOCS

SAID = re.search(
    r"A target whose row is zero is left out, with a warning, by (?P<left_out>.*?), and by every reported.*?"
    r"The others that look at targets' rows, (?P<taken>.*?), take it as it is",
    re.sub(r"\s+", " ", (DOCS / "theory.md").read_text(encoding="utf-8")),
)
# They go by numbers of the caller's, or by nothing of the targets.
BLIND = {
    "all",
    "el2n",
    "herding",
    "influence",
    "k_center",
    "oracle",
    "prototypes",
    "random",
    "target_only",
    "wasserstein_coreset",
}


def names(words: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", words))


def test_all_methods_are_spoken_of():
    said = [names(SAID["left_out"]), names(SAID["taken"]), BLIND]
    assert set.union(*said) == set(tarot.selectors.SELECTORS) and sum(map(len, said)) == len(tarot.selectors.SELECTORS)


@pytest.mark.parametrize("name", sorted(set(tarot.selectors.SELECTORS) - BLIND))
def test_a_zero_target_is_left_out_with_a_warning_where_the_theory_says_so(name):
    rng = np.random.default_rng(0)
    candidates, targets = rng.normal(size=(60, 8)), rng.normal(size=(12, 8))
    if name == "dsir":  # which reads counts
        candidates, targets = (np.floor(np.exp(rows)) for rows in (candidates, targets))
    targets[3] = 0
    labels = {"candidate_labels": rng.integers(0, 3, 60), "target_labels": rng.integers(0, 3, 12)}
    options = {} if name == "tarot_otm" else {"size": 12}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        selection = tarot.select(candidates, targets, name, **options, **labels)
        warned = [str(one.message) for one in caught]
        assert any("left out" in message for message in warned) == (name in names(SAID["left_out"]))
        assert selection.ot_distance > 0
    assert any("left out" in str(one.message) for one in caught), "the reported distance is without it"
