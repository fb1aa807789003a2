"""Counts of hashed n-grams against a dictionary of them."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

import numpy as np
from sklearn.utils import murmurhash3_32

from tarot.features import ngram_counts

TEXTS = ["Sort 3, 1 and 2.", "sort 3, 1 and 2.", "Wie weit ist es? 12 km!", "", "a a a b a"]


def transcribed(text: str, buckets: int) -> Counter:
    """Word by word and pair by pair."""
    words = re.findall(r"\w+|[^\w\s]+", text.lower())
    pairs = [f"{one} {other}" for one, other in pairwise(words)]
    return Counter(abs(murmurhash3_32(gram, seed=0)) % buckets for gram in [*words, *pairs])


def test_counts_are_those_of_a_dictionary():
    for buckets in (7, 10_000):
        counts = ngram_counts(TEXTS, buckets).toarray()
        assert counts.shape == (len(TEXTS), buckets) and counts.dtype == np.float32
        for row, text in zip(counts, TEXTS, strict=True):
            assert {place: int(row[place]) for place in np.flatnonzero(row)} == transcribed(text, buckets)
    assert (counts[0] == counts[1]).all() and not counts[3].any()
