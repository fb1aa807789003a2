import numpy as np
import pytest
import torch

import tarot
from tarot import InputError
from tarot.space import fit_whitener, unit_norm
from tarot.space.norm import norm_map


def lengths(n=400, d=12, sigma=2.0, seed=0):
    """Rows whose lengths have a heavy tail, float32 [n, d]."""
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(n, d)) * np.exp(sigma * generator.normal(size=(n, 1)))
    return rows.astype(np.float32)


def test_the_length_of_a_row_decides_nothing():
    """A gradient of another scale is the same row, whitened or not."""
    c, t = lengths(), lengths(30, seed=1)
    generator = np.random.default_rng(2)
    other = [rows * generator.choice([2.0**-12, 1, 2.0**9], size=(len(rows), 1)) for rows in (c, t)]
    for how in ({}, {"whitening": "local"}, {"whitening": "cholesky", "norm": "unit"}, {"whitening": None}):
        one, same = (tarot.select(*pair, "tarot_fixed", size=40, **how) for pair in ((c, t), other))
        np.testing.assert_array_equal(one.indices, same.indices)
        assert one.ot_distance == pytest.approx(same.ot_distance, abs=1e-5)


def test_a_small_gradient_is_not_a_zero_gradient():
    """Centred first, small rows all land beside minus the mean; with unit norm first they keep their directions."""
    rows = lengths(sigma=0) + 1
    rows[:100] *= 1e-3
    cosine = {}
    for norm in ("unit", None):
        white, _ = tarot.whiten(rows, rows[100:150], "cholesky", norm=norm)
        cosine[norm] = float((white[:100] @ white[:100].T)[np.triu_indices(100, 1)].mean())
    assert cosine["unit"] < 0.2 < 0.9 < cosine[None]


@pytest.mark.filterwarnings("ignore:4 of 440 rows make up")
@pytest.mark.parametrize("norm", ["unit", "clip"])
def test_one_row_does_not_decide_how_the_others_are_seen(norm):
    c, t = lengths(sigma=0.3), lengths(40, sigma=0.3, seed=1)
    with_outlier = c.copy()
    with_outlier[7] *= 1000
    changed = {}
    for how in (norm, None):
        chosen = [
            set(tarot.select(rows, t, "tarot_fixed", size=60, whitening="cholesky", norm=how).indices.tolist())
            for rows in (c, with_outlier)
        ]
        changed[how] = len(chosen[0] - chosen[1])
    assert changed[norm] <= 5 < changed[None]


def test_clipping_shortens_the_longest_alone():
    rows = torch.from_numpy(lengths())
    norms = torch.linalg.vector_norm(rows, dim=1)
    clipped = norm_map("clip", [("candidates", rows[:250]), ("targets", rows[250:])])(rows)
    longest = norms.double().sort().values[int(0.99 * 399)]
    torch.testing.assert_close(torch.linalg.vector_norm(clipped, dim=1).double(), norms.double().clamp(max=longest))
    torch.testing.assert_close(unit_norm(clipped), unit_norm(rows))


def test_few_rows_that_are_most_of_the_variance_are_warned_of():
    c, t = lengths(sigma=0), lengths(40, sigma=0, seed=1)
    c[7] *= 1000
    with pytest.warns(UserWarning, match=r"^4 of 440 rows make up 100% of the variance.*norm=\"unit\" or \"clip\""):
        fit_whitener(c, t)
    fit_whitener(c, t, norm="unit")


def test_an_unknown_norm_is_refused():
    with pytest.raises(InputError, match="norm must be auto, unit, clip or null; it is 'max'"):
        tarot.select(lengths(), lengths(9), "tarot_fixed", size=3, norm="max")
