import numpy as np
import pytest
import torch

import tarot.space.neighbours
from tarot.common.errors import InputError
from tarot.space import fit_whitener, unit_norm, whiten
from tarot.space.in_parts import nearest
from tarot.space.neighbours import nearest_unit


def brute_force(candidates, targets, k):
    """Distances and indices of every target's k nearest usable candidates, in float64, ties to the smaller index."""
    x, y = candidates.double(), targets.double()
    distance = (y[:, None] - x[None]).norm(dim=2)
    distance[:, (x == 0).all(dim=1)] = torch.inf
    distance[(y == 0).all(dim=1)] = torch.inf
    values, index = distance.sort(dim=1, stable=True)
    return values[:, :k], index.where(values < torch.inf, -1)[:, :k]


def unit(n, d, seed=0):
    return unit_norm(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("k", [1, 7, 60, 500])
@pytest.mark.parametrize("block", [1, 3000, 1 << 22])
def test_agrees_with_brute_force(k, block):
    candidates, targets = unit(500, 6), unit(23, 6, seed=1)
    distance, index = nearest_unit(candidates, targets, k, block)
    expected = brute_force(candidates, targets, k)
    torch.testing.assert_close(distance.double(), expected[0], rtol=0, atol=1e-6)
    assert torch.equal(index, expected[1])
    assert distance.dtype == torch.float32 and index.dtype == torch.int64


def test_exact_where_every_block_is_nearer_than_the_last():
    angle = torch.linspace(3.0, 0.0, 4000)
    candidates = torch.stack([angle.cos(), angle.sin()], dim=1)
    _, index = nearest_unit(candidates, torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), 5, 200)
    assert index.tolist() == [[3999, 3998, 3997, 3996, 3995], [0, 1, 2, 3, 4]]


@pytest.mark.parametrize("block", [40, 1000, 1 << 22])
def test_ties_go_to_the_smaller_index(block):
    few = unit(10, 5)
    candidates = few.repeat(30, 1)  # candidate i equals i + 10, i + 20, ...
    distance, index = nearest_unit(candidates, few, 12, block)
    for j in range(10):
        assert index[j].tolist() == list(range(j, 120, 10))
    assert torch.equal(distance, torch.zeros(10, 12))


def test_thousands_of_equal_candidates_fill_no_memory_and_give_the_first():
    candidates = unit(1, 16).repeat(5000, 1)
    _, index = nearest_unit(candidates, unit(3, 16, seed=1), 4, 300)
    assert index.tolist() == [[0, 1, 2, 3]] * 3


def test_near_duplicates_keep_their_order_below_the_resolution_of_a_cosine():
    """2 - 2 cos cannot tell angles below 3e-4 apart in float32; ||x - y|| can."""
    angle = torch.tensor([4e-5, 1e-5, 3e-5, 2e-5, 1.0])
    candidates = torch.stack([angle.cos(), angle.sin()], dim=1)
    distance, index = nearest_unit(candidates, torch.tensor([[1.0, 0.0]]), 4)
    assert index.tolist() == [[1, 3, 2, 0]]
    torch.testing.assert_close(distance, torch.tensor([[1e-5, 2e-5, 3e-5, 4e-5]]), rtol=1e-5, atol=0)


def test_zero_rows_are_nobodys_neighbours():
    candidates, targets = unit(20, 4), unit(3, 4, seed=1)
    candidates[2:18] = 0
    targets[1] = 0
    distance, index = nearest_unit(candidates, targets, 6)
    expected = brute_force(candidates, targets, 6)
    assert torch.equal(index, expected[1])
    assert (index[0, 4:] == -1).all() and torch.isinf(distance[0, 4:]).all()
    assert (index[1] == -1).all()
    only_zeros = nearest_unit(torch.zeros(5, 4), targets, 2)
    assert (only_zeros[1] == -1).all()


@pytest.mark.parametrize("vector", [[0.6, 0.8], [3**-0.5] * 3])
def test_a_float16_row_is_at_distance_zero_of_itself(vector):
    """Ledger L-16, L-17: (.6, .8) in float16 has squared norm .99980, which made its distance to itself .0198."""
    row = np.array([vector], dtype=np.float16)
    distance, _ = nearest_unit(row, torch.from_numpy(row).float(), 1)
    assert distance.item() < 1e-7
    distance, _ = nearest_unit(row, unit_norm(torch.from_numpy(row)), 1)
    assert distance.item() < 1e-7


def test_a_float16_memory_map_gives_what_its_float32_copy_gives(tmp_path):
    candidates, targets = unit(300, 8).half(), unit(11, 8, seed=1)
    np.save(tmp_path / "c.npy", candidates.numpy())
    stored = np.load(tmp_path / "c.npy", mmap_mode="r")
    distance, index = nearest_unit(stored, targets, 9, 500)
    expected = brute_force(unit_norm(candidates), targets, 9)
    assert torch.equal(index, expected[1])
    torch.testing.assert_close(distance.double(), expected[0], rtol=0, atol=1e-6)


def test_gathering_by_parts_changes_nothing(monkeypatch):
    candidates, targets = unit(200, 5), unit(9, 5, seed=1)
    whole = nearest_unit(candidates, targets, 10)
    monkeypatch.setattr(tarot.space.neighbours, "GATHER_BYTES", 200)
    parts = nearest_unit(candidates, targets, 10)
    assert torch.equal(whole[0], parts[0]) and torch.equal(whole[1], parts[1])


def test_permuting_candidates_permutes_the_result():
    candidates, targets = unit(400, 6), unit(7, 6, seed=1)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(2))
    distance, index = nearest_unit(candidates, targets, 20)
    permuted = nearest_unit(candidates[order], targets, 20)
    assert torch.equal(order[permuted[1]], index)
    torch.testing.assert_close(permuted[0], distance)


def test_public_nearest_whitens_as_selection_does_unless_told_otherwise():
    generator = np.random.default_rng(0)
    mixing = generator.normal(size=(5, 5))
    candidates, targets = generator.normal(size=(90, 5)) @ mixing + 3, generator.normal(size=(8, 5)) @ mixing + 3
    x, y = torch.from_numpy(candidates).float(), torch.from_numpy(targets).float()
    whitener = fit_whitener(x, y, regularization=None)
    by_whitening = {"auto": whiten(x, y), "cholesky": (whitener(x), whitener(y)), None: (unit_norm(x), unit_norm(y))}
    for whitening, (c, t) in by_whitening.items():
        distance, index = nearest(candidates, targets, k=4, whitening=whitening)
        expected = brute_force(c, t, 4)
        np.testing.assert_allclose(distance, expected[0], atol=1e-6)
        np.testing.assert_array_equal(index, expected[1])
    assert isinstance(distance, np.ndarray) and distance.dtype == np.float32 and index.dtype == np.int64


def test_bad_arguments_are_named():
    candidates, targets = np.ones((4, 3), np.float32), np.ones((2, 2), np.float32)
    for k in (0, 5):
        with pytest.raises(InputError, match="k must be between 1 and the number of candidates, 4"):
            nearest(candidates, candidates, k=k)
    for whitening in ("auto", None):
        with pytest.raises(InputError, match=r"candidates have 3 .* targets"):
            nearest(candidates, targets, k=1, whitening=whitening)
    with pytest.raises(InputError, match="candidates row 1 column 2"):
        bad = candidates.copy()
        bad[1, 2] = np.nan
        nearest(bad, candidates, k=1, whitening=None)
