"""By parts, whoever looks through them, as in one pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tarot
from tarot.space import covariance, in_parts
from tarot.space.distance import SMALL_ROW, distances, row_distances
from tarot.space.in_parts import nearest_in_parts
from tarot.space.local import mean_and_sample
from tarot.space.neighbours import Closest, nearest_unit
from tarot.space.norm import as_they_are, unit_norm
from tarot.workers import LOCAL, Threads

ENGINES = [LOCAL, Threads(2)]


def unit_rows(n: int, d: int, seed: int) -> torch.Tensor:
    rows = unit_norm(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)))
    rows[n // 2 :: 7] = rows[: len(rows[n // 2 :: 7])]  # copies, at the same distances
    rows[5] = 0
    return rows


@pytest.mark.parametrize("engine", ENGINES, ids=repr)
@pytest.mark.parametrize("placed", [False, True])
@pytest.mark.parametrize(("k", "part"), [(1, 7), (9, 50), (40, 64), (300, 128)])
def test_neighbours_are_those_of_one_pass(monkeypatch, engine, placed, k, part):
    monkeypatch.setattr(in_parts, "PART", part)
    candidates, targets = unit_rows(300, 6, 0), unit_rows(20, 6, 1)
    places = np.random.default_rng(0).permutation(300) if placed else None
    whole, parts = Closest.unknown(300), Closest.unknown(300)
    expected = nearest_unit(candidates, targets, k, places=places, closest=whole)
    found = nearest_in_parts(candidates, targets, k, places, parts, engine)
    assert all(map(torch.equal, found, expected))
    assert torch.equal(parts.distance, whole.distance) and torch.equal(parts.target, whole.target)


@pytest.mark.parametrize("centred", [False, True])
def test_moments_are_those_of_all_rows_and_the_same_bits_on_every_engine(monkeypatch, centred):
    monkeypatch.setattr(covariance, "PART", 50)
    sources = {"candidates": unit_rows(230, 5, 2) + 9, "targets": unit_rows(21, 5, 3) + 9}
    sources["candidates"][:50] = 0  # all of a part
    rows = torch.cat([rows[rows.any(dim=1)] for rows in sources.values()]).double()
    n, mean, scatter = covariance.moments(sources, as_they_are, centred)
    assert n == len(rows)
    centre = rows.mean(0) if centred else torch.zeros(5)
    torch.testing.assert_close(mean, centre.double(), rtol=1e-12, atol=0)
    torch.testing.assert_close(scatter, (rows - centre).T @ (rows - centre) / n, rtol=1e-9, atol=1e-12)
    again = covariance.moments(sources, as_they_are, centred, engine=Threads(2))
    assert torch.equal(again[1], mean) and torch.equal(again[2], scatter)
    assert torch.equal(
        covariance.mean_of(sources, as_they_are, engine=Threads(2)), covariance.mean_of(sources, as_they_are)
    )


class Counting(Threads):
    """Two threads, and how often they were asked."""

    maps = 0

    def map(self, *args, **kwargs):
        Counting.maps += 1
        return super().map(*args, **kwargs)


@pytest.mark.parametrize(("name", "maps"), [("auto", 3), ("cholesky", 3), (None, 1)])
def test_public_functions_take_an_engine(monkeypatch, name, maps):
    monkeypatch.setattr(covariance, "PART", 50)
    monkeypatch.setattr(in_parts, "PART", 60)
    monkeypatch.setattr(Counting, "maps", 0)
    c, t = unit_rows(230, 5, 2).numpy(), unit_rows(21, 5, 3).numpy()
    spaced = {"device": "cpu", "engine": Counting(2)}
    assert all(map(np.array_equal, tarot.whiten(c, t, name, device="cpu"), tarot.whiten(c, t, name, **spaced)))
    assert all(map(np.array_equal, tarot.nearest(c, t, 7, name, device="cpu"), tarot.nearest(c, t, 7, name, **spaced)))
    assert Counting.maps >= maps
    for function in (tarot.whiten, tarot.nearest):
        with pytest.raises(TypeError, match=r"engine must be one of tarot\.workers"):
            function(c, t, engine=2)


def test_samples_are_those_of_one_pass(monkeypatch):
    sources = {"candidates": unit_rows(230, 5, 2), "targets": unit_rows(21, 5, 3)}
    mean, sample = mean_and_sample(sources, as_they_are, 60)
    monkeypatch.setattr(covariance, "PART", 50)
    for engine in ENGINES:
        found = mean_and_sample(sources, as_they_are, 60, engine=engine)
        assert torch.equal(found[1], sample)
        torch.testing.assert_close(found[0], mean, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("d", [6, 300])
def test_a_row_has_the_same_distances_whoever_is_beside_it(d):
    x, y = unit_rows(64, d, 4), unit_rows(20, d, 5)
    assert (20 * d <= SMALL_ROW) == (d == 6)
    whole = row_distances(x, y)
    torch.testing.assert_close(whole, distances(x, y), rtol=1e-6, atol=1e-6)
    for chosen in ([3], [9, 1], [5, 6, 7], [*range(10, 50, 3)]):
        assert torch.equal(row_distances(x[chosen], y), whole[chosen])


@pytest.mark.parametrize("n", [3, 8, 9, 10, 11])
def test_distances_of_rows_have_the_same_bits_in_blocks(n, monkeypatch):
    """What is left at the end joins the block before: BLAS rounds products of few rows otherwise."""
    x, y = torch.randn(n, 64), torch.randn(50, 64)
    assert y.numel() > SMALL_ROW
    whole = row_distances(x, y)
    monkeypatch.setattr("tarot.space.distance.BLOCK", 4 * len(y))
    assert torch.equal(row_distances(x, y), whole)
