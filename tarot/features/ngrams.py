"""Texts as counts of n-grams of words, hashed: what importance resampling goes by (DSIR, arXiv 2302.03169)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix

from tarot.common import Count, checked

WORDS = r"\w+|[^\w\s]+"
"""A run of letters and digits, or of other signs: as NLTK's wordpunct, which the authors' code uses."""


@checked()
def ngram_counts(texts: Sequence[str], buckets: Count = 10_000, longest: Count = 2) -> csr_matrix:
    """How often each text has the n-grams of 1 to `longest` words that fall into each bucket, float32 [n, buckets].

    Words are in lower case. The bucket of an n-gram, its words joined by blanks, is the absolute value of its signed
    32-bit MurmurHash3, modulo `buckets`, whichever machine asks. A text without words is a row of zeros.
    """
    from sklearn.feature_extraction.text import HashingVectorizer

    counting = HashingVectorizer(
        n_features=buckets,
        ngram_range=(1, longest),
        token_pattern=WORDS,
        alternate_sign=False,
        norm=None,
        dtype=np.float32,
    )
    return csr_matrix(counting.transform(texts))
