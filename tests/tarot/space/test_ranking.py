"""Orders of distance against NumPy's stable sort and against the streaming nearest neighbours."""

import numpy as np
import pytest
import torch

from tarot.space.neighbours import nearest_unit
from tarot.space.ranking import ascending, distance_blocks, nearest_of_many


def unit(n, d=6, seed=0):
    rows = np.random.default_rng(seed).normal(size=(n, d))
    return torch.from_numpy((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))


@pytest.mark.parametrize("k", [None, 1, 7, 50, 80])
def test_equals_a_stable_sort(k):
    generator = np.random.default_rng(0)
    for values in (generator.random((5, 50)), generator.integers(0, 4, (5, 50)), np.full((5, 50), np.inf)):
        distance = values.astype(np.float32)
        distance[0, :3] = -0.0
        assert np.array_equal(ascending(distance, k), np.argsort(distance, axis=1, kind="stable")[:, :k])


def test_blocks_are_all_distances():
    c, t = np.random.default_rng(1).normal(size=(2, 40, 3))
    expected = np.linalg.norm(t[:11, None] - c[None], axis=2)
    for memory in (1, 4 * 40 * 3, 1 << 20):
        parts = list(distance_blocks(c, t[:11], memory))
        assert [i for part, _ in parts for i in range(part.start, part.stop)] == list(range(11))
        assert np.concatenate([d for _, d in parts]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("k", [1, 9, 40])
def test_nearest_are_those_of_the_streaming_search(k, monkeypatch):
    c, t = unit(40), unit(7, seed=1)
    c[[4, 30]] = 0
    c[20] = c[10]
    expected = nearest_unit(c, t, k)
    for pairs in (1, 100, 1 << 21):
        monkeypatch.setattr("tarot.space.ranking.SORTED_AT_ONCE", pairs)
        distance, index = nearest_of_many(c, t, k)
        assert np.array_equal(index, expected[1].numpy())
        assert distance == pytest.approx(expected[0].numpy(), abs=1e-6)
