"""DSIR against a dictionary of words, and its draws against their probabilities."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from sklearn.utils import murmurhash3_32

import tarot
from tarot import InputError
from tarot.features import ngram_counts
from tarot.selection import SelectionProblem
from tarot.selectors import Dsir

POOL = ["sort the numbers", "the sky is blue", "Sort: 3 1 2!", "blue, blue sky", "convert miles to km"]
WANTED = ["sort these numbers: 3, 1", "sort the words"]
BUCKETS = 40  # so few that words meet in one


def counted(text: str) -> Counter:
    words = re.findall(r"\w+|[^\w\s]+", text.lower())
    grams = [*words, *(" ".join(pair) for pair in pairwise(words))]
    return Counter(abs(murmurhash3_32(gram, seed=0)) % BUCKETS for gram in grams)


def test_log_weights_are_those_of_a_dictionary():
    pool, wanted = (sum(map(counted, texts), Counter()) for texts in (POOL, WANTED))

    def share(counts: Counter, bucket: int) -> float:
        return (counts[bucket] + 1) / (sum(counts.values()) + BUCKETS)

    expected = [
        sum(times * np.log(share(wanted, bucket) / share(pool, bucket)) for bucket, times in counted(text).items())
        for text in POOL
    ]
    found = tarot.value(ngram_counts(POOL, BUCKETS), ngram_counts(WANTED, BUCKETS), "dsir", size=2)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found.argmax() in (0, 2) and found[3] < 0


def test_draws_follow_their_weights():
    """Of one: as often as its share of all weights; of several, without replacement, more often than that."""
    problem = SelectionProblem(ngram_counts(POOL, BUCKETS), ngram_counts(WANTED, BUCKETS))
    weights = np.exp(Dsir(size=1).values(problem))
    drawn = Counter(int(Dsir(size=1, seed=seed).select(problem).indices[0]) for seed in range(600))
    shares = np.array([drawn[i] for i in range(len(POOL))]) / 600
    expected = weights / weights.sum()
    assert (np.abs(shares - expected) < 4 * np.sqrt(expected * (1 - expected) / 600)).all()


def test_what_is_no_count_is_refused():
    counts = ngram_counts(POOL, BUCKETS).toarray()
    counts[1, 3] = -0.5
    with pytest.raises(InputError, match=r"candidates row 1 column 3 is -0.5: dsir reads counts, .*features=ngrams"):
        tarot.select(counts, ngram_counts(WANTED, BUCKETS), "dsir", size=2)
