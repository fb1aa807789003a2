"""Costs that are grown in place or held in 16 bits, against the distances they are of."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from tarot.common.errors import InputError
from tarot.space import distances
from tarot.transport import costs, entropic_potentials, sinkhorn, solve_exact
from tarot.transport.costs import Grown, HeldCost, blocks_of, dense


def unit(n, seed, d=16):
    """Rows around six centres, of unit norm."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(6, d))
    rows = centres[generator.integers(0, 6, n)] + 0.5 * generator.normal(size=(n, d))
    return torch.from_numpy(rows / np.linalg.norm(rows, axis=1, keepdims=True)).float()


def held(distance, parts=1):
    cost = HeldCost(distance.shape[1], 2.0)
    for part in distance.split(-(-len(distance) // parts)):
        cost.add(part)
    return cost


@pytest.mark.parametrize("dtype", [torch.float32, torch.int16])
def test_a_grown_matrix_is_what_was_added(dtype):
    parts = [torch.arange(k * 3).reshape(k, 3).to(dtype) for k in (1, 0, 5, 2, 40, 1)]
    grown = Grown(3, dtype)
    for part in parts:
        grown.add(part)
    assert torch.equal(grown.matrix, torch.cat(parts))


def test_a_held_cost_is_off_by_half_a_step(monkeypatch):
    monkeypatch.setattr(costs, "CACHED_PAIRS", 7 * 30)  # 7 rows a block, the last one short
    distance = distances(unit(60, 0), unit(30, 1))
    distance[0, 0], distance[1, 1] = 0.0, 2.0  # the ends
    cost = held(distance, parts=4)
    assert cost.shape == (60, 30) and len(cost) == 60
    for whole in (dense(cost), cost.rows(1), torch.cat([block.clone() for _, block in blocks_of(cost)])):
        assert float((whole - distance).abs().max()) <= 1.0001 / 65535
        assert whole[0, 0] == 0 and whole[1, 1] == pytest.approx(2.0, abs=1e-6)
    starts = [start for start, _ in blocks_of(cost)]
    assert starts == list(range(0, 60, 7))
    assert torch.equal(cost.rows(4), dense(cost)[::4])


@pytest.mark.parametrize("epsilon", [0.03, 0.01])
def test_potentials_of_a_held_cost_are_those_of_the_cost(epsilon):
    """And so is the value: neither can move by more than the cost does."""
    distance = distances(unit(120, 0), unit(40, 1))
    seed = solve_exact(distance).g
    exact = sinkhorn(distance, epsilon, g=seed, tolerance=1e-4)
    mine = sinkhorn(held(distance), epsilon, g=seed, tolerance=1e-4)
    assert spearmanr(mine.f, exact.f).statistic >= 0.9999
    assert abs((mine.f - mine.f.mean()) - (exact.f - exact.f.mean())).max() <= 1e-4
    assert mine.value == pytest.approx(exact.value, abs=5e-5)
    assert spearmanr(entropic_potentials(held(distance), epsilon).f, exact.f).statistic >= 0.99


def test_the_streamed_solver_takes_far_pairs_for_nothing():
    """exp of less than -87 is not asked for; a row that is far from every target but one is still right."""
    distance = distances(unit(40, 0), unit(12, 1))
    cost = torch.cat([distance, torch.full((1, 12), 1.99).index_fill(1, torch.tensor([3]), 0.01)])
    solution = sinkhorn(held(cost), 0.002, tolerance=1e-3)
    coupling = np.exp((solution.f[:, None] + solution.g - cost.double().numpy()) / 0.002) / cost.numel()
    assert abs(coupling.sum(0) - 1 / 12).sum() < 0.03 and abs(coupling.sum(1) - 1 / 41).sum() < 0.03
    assert solution.value == pytest.approx(solve_exact(cost).value, abs=0.002 * np.log(cost.numel()))


def test_an_epsilon_below_zero_is_refused():
    with pytest.raises(InputError, match="epsilon must be positive"):
        sinkhorn(held(torch.rand(3, 2)), -1.0)
