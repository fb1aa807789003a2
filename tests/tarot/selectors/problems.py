"""Candidates and targets that tests of selectors choose from, and distances the slow way."""

import numpy as np
import ot

import tarot


def unit(n, d=5, seed=0):
    rows = np.random.default_rng(seed).normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def mixture(n, m, d=12, seed=0):
    """Candidates around 10 centres, targets around 4 of them, unit norm."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(10, d))
    sides = [(generator.integers(0, 10, n), n), (generator.integers(0, 4, m), m)]
    rows = [centres[which] + 0.6 * generator.normal(size=(k, d)) for which, k in sides]
    return tuple((r / np.linalg.norm(r, axis=1, keepdims=True)).astype(np.float32) for r in rows)


def distance_matrix(c, t):
    return np.linalg.norm(c.astype(float)[:, None] - t.astype(float)[None], axis=2)


def uniform_ot(cost):
    return ot.emd2(np.full(len(cost), 1 / len(cost)), np.full(cost.shape[1], 1 / cost.shape[1]), cost)


def select(c, t, selector, **options):
    return tarot.select(c, t, selector, whitening=None, **options)
