"""The two judges of a layer: each against the transport they measure, and what both of them select."""

import warnings

import numpy as np
import ot
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

import tarot
from tarot.common.errors import InputError
from tarot.selectors import TarotOTM
from tarot.selectors.layer_judges import EntropicJudge, ExactJudge, judge_for
from tarot.space import distances, unit_norm


def mixture(n, m, d=24, seed=0):
    """Candidates around twenty centres of different spread, targets around five of them in unequal parts."""
    generator = np.random.default_rng(seed)
    centres, spread = generator.normal(size=(20, d)), 0.3 + generator.random((20, 1))
    sides = generator.integers(0, 20, n), generator.choice(5, m, p=[0.5, 0.2, 0.15, 0.1, 0.05])
    rows = [centres[z] + spread[z] * generator.normal(size=(len(z), d)) for z in sides]
    return tuple(side.astype(np.float32) for side in rows)


def near_ties(n, m):
    """Every candidate five times, with differences in the third digit."""
    candidates, targets = mixture(n // 5, m)
    noise = 1e-3 * np.random.default_rng(1).normal(size=(5, *candidates.shape))
    return np.concatenate(candidates + noise).astype(np.float32), targets


def noise(n, m, d=32):
    """Directions of falling variance and no clusters: layer after layer helps a little."""
    generator = np.random.default_rng(0)
    scale = np.arange(1, d + 1) ** -0.7
    return tuple((generator.normal(size=(k, d)) * scale).astype(np.float32) for k in (n, m))


def digits(n, m):
    """Gradients of a network on handwritten digits; the targets are of five classes."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.data))
    x, y = torch.from_numpy(data.data[order] / 16).float(), torch.from_numpy(data.target[order])
    of_targets = (y < 5).nonzero()[:m, 0]
    pool = torch.ones(len(y), dtype=torch.bool).index_fill(0, of_targets, False).nonzero()[:n, 0]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        batch = pool[torch.randint(len(pool), (64,))]
        optimizer.zero_grad()
        functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
    gradients = tarot.GradientFeatures(
        model,
        lambda model, batch: functional.cross_entropy(model(batch[0]), batch[1], reduction="none"),
        tarot.Projection("rademacher", dim=128),
    )
    return gradients((x[pool], y[pool])).numpy(), gradients((x[of_targets], y[of_targets])).numpy()


def jaccard(one, other):
    return len(np.intersect1d(one, other)) / len(np.union1d(one, other))


def both_judges(candidates, targets, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a selection that is most of the pool
        return (tarot.select(candidates, targets, TarotOTM(judge=judge, **options)) for judge in ("exact", "entropic"))


# --- what they measure -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m"), [(60, 20), (400, 120)])
def test_both_measure_the_transport_of_all_layers_so_far(n, m):
    """In layers of unequal length; the larger problem is past the dense network simplex."""
    rows, targets = (unit_norm(torch.from_numpy(side)) for side in mixture(n, m))
    cost = distances(rows, targets)
    exact, entropic = (kind(m, torch.device("cpu")) for kind in (ExactJudge, EntropicJudge))
    for start, stop in ((0, n // 2), (n // 2, n // 2 + 1), (n // 2 + 1, n)):
        expected = ot.emd2(np.full(stop, 1 / stop), np.full(m, 1 / m), cost[:stop].double().numpy())
        assert exact.distance_with(cost[start:stop]) == pytest.approx(expected, abs=1e-6)
        found = entropic.distance_with(cost[start:stop])
        assert -1e-3 <= found - expected <= 3e-5  # of 16 bits


def test_the_exact_judge_sees_what_is_added_alone(monkeypatch):
    """Its cost grows in place: rows are copied when room runs out, and not once a layer."""
    moved = []
    monkeypatch.setattr("tarot.selectors.layer_judges.solve_exact", lambda cost, g: moved.append(cost) or _Plan())
    judge = ExactJudge(3, torch.device("cpu"))
    layers = torch.rand(40, 5, 3)
    for layer in layers:
        judge.distance_with(layer)
    assert torch.equal(moved[-1], layers.reshape(-1, 3))
    assert len({cost.data_ptr() for cost in moved}) <= 7  # 5, 10, 20, ... 320 rows of room


class _Plan:
    value, g = 1.0, None


# --- which of them ---------------------------------------------------------------------------------------------------


def sides(m, folds=10):
    parts = np.array_split(np.arange(m), folds)
    return [(np.setdiff1d(np.arange(m), part), part) for part in parts]


@pytest.mark.parametrize(
    ("n", "m", "expected"),
    [(10**6, 300, "exact"), (10**6, 3900, "exact"), (10**6, 4100, "entropic"), (5000, 4100, "exact")],
)
def test_sizes_alone_decide(n, m, expected):
    """The side that selects, the thread count, or the device do not."""
    assert judge_for("auto", n, sides(m)) == expected
    assert judge_for("auto", n, [pair[::-1] for pair in sides(m)]) == expected
    assert judge_for("exact", n, sides(m)) == "exact" and judge_for("entropic", n, sides(m)) == "entropic"


@pytest.mark.parametrize("pairs", [10**9, 10])
def test_the_selection_says_which_it_was(pairs, monkeypatch, tmp_path):
    monkeypatch.setattr("tarot.selectors.layer_judges.EXACT_PAIRS", pairs)
    selection = tarot.select(*mixture(60, 12), "tarot_otm", folds=3)
    selection.save(tmp_path / "selection.parquet")
    for one in (selection, tarot.Selection.load(tmp_path / "selection.parquet")):
        assert one.selector["judge"] == ("exact" if pairs == 10**9 else "entropic")


def test_an_unknown_judge_is_refused():
    with pytest.raises(InputError, match="judge must be"):
        TarotOTM(judge="fair")


# --- what they select ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("data", "side"), [(mixture, "rest"), (mixture, "fold"), (near_ties, "rest")])
def test_both_select_nearly_the_same(data, side):
    exact, entropic = both_judges(*data(500, 60), folds=3, side=side)
    assert jaccard(exact.indices, entropic.indices) >= 0.95
    assert entropic.ot_distance == pytest.approx(exact.ot_distance, rel=0.005)


@pytest.mark.slow
@pytest.mark.parametrize("side", ["rest", "fold"])
@pytest.mark.parametrize(
    ("data", "n", "m"),
    [
        (mixture, 6000, 300),
        (near_ties, 6000, 300),
        (noise, 6000, 300),
        (digits, 1400, 300),
        (mixture, 20_000, 1000),
        (near_ties, 20_000, 1000),
        (noise, 20_000, 1000),
    ],
)
def test_both_select_nearly_the_same_at_size(data, n, m, side):
    exact, entropic = both_judges(*data(n, m), side=side)
    common = jaccard(exact.indices, entropic.indices)
    print(f"{data.__name__} {n} x {m} {side}: Jaccard {common:.3f}, S {len(exact)} and {len(entropic)}")
    assert common >= 0.95
    assert entropic.ot_distance == pytest.approx(exact.ot_distance, rel=0.005)
