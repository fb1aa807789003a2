"""`tarot_fixed` against a slow, obvious transcription of its specification."""

import numpy as np
import pytest

import tarot
from tests.tarot.selectors.problems import distance_matrix, mixture, select, uniform_ot, unit


def slow_fixed(distance, size):
    """theory.md 1.2: the whole layers, and the layer that does not fit."""
    order = np.argsort(distance, axis=0, kind="stable")
    chosen = []
    for row in order:
        layer = sorted(set(row.tolist()) - set(chosen))
        if len(chosen) + len(layer) > size:
            return chosen, layer
        chosen += layer
        if len(chosen) == size:
            return chosen, []
    raise AssertionError("fewer candidates than the budget")


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("size", [1, 3, 8, 14, 30])
def test_fixed_with_exact_ranking_is_the_algorithm_with_eq_13(seed, size):
    c, t = unit(30, seed=seed), unit(6, seed=50 + seed)
    distance = distance_matrix(c, t)
    chosen, layer = slow_fixed(distance, size)
    price = [uniform_ot(distance[[*chosen, z]]) for z in layer]
    taken = [layer[i] for i in np.argsort(price, kind="stable")[: size - len(chosen)]]
    assert select(c, t, "tarot_fixed", size=size, exact=True).indices.tolist() == sorted(chosen + taken)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("size", [2, 7, 13, 21])
def test_fixed_ranks_the_last_layer_by_potentials_of_the_union(seed, size):
    c, t = mixture(40, 6, seed=seed)
    chosen, layer = slow_fixed(distance_matrix(c, t), size)
    f = tarot.potentials(c[chosen + layer], t)[0][len(chosen) :]
    taken = [layer[i] for i in np.argsort(f, kind="stable")[: size - len(chosen)]]
    assert select(c, t, "tarot_fixed", size=size).indices.tolist() == sorted(chosen + taken)


def test_fixed_takes_layers_whole_while_they_fit():
    c, t = unit(40), unit(5, seed=1)
    order = np.argsort(distance_matrix(c, t), axis=0, kind="stable")
    for layers in (1, 2, 4):
        union = np.unique(order[:layers])
        assert select(c, t, "tarot_fixed", size=len(union)).indices.tolist() == union.tolist()


@pytest.mark.parametrize("exact", [False, True])
def test_fixed_reaches_every_budget(exact):
    c, t = unit(25), unit(4, seed=1)
    for size in range(1, 26):
        assert len(select(c, t, "tarot_fixed", size=size, exact=exact)) == size
