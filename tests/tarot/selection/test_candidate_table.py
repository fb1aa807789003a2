"""What a selection says of every candidate, against all distances."""

import numpy as np
import pyarrow.parquet as pq
import pytest

import tarot
from tarot.common.errors import InputError
from tarot.selection.selection import Selection


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("selector", ["tarot_fixed", "tsds", "random", "less"])
def test_scores_are_of_every_candidate(tmp_path, monkeypatch, selector, small):
    """Against all distances; of a pool that is not looked at as a whole, layers are known where somebody looked."""
    if not small:
        monkeypatch.setattr("tarot.selection.problem.WHOLE_TABLE", 0)
        monkeypatch.setattr("tarot.selection.problem.FIRST_NEIGHBOURS", 2)
    generator = np.random.default_rng(0)
    candidates, targets = generator.normal(size=(30, 6)), generator.normal(size=(4, 6))
    candidates[7], targets[2] = 0, 0
    names, ids = [f"t{i}" for i in range(4)], [f"c{i}" for i in range(30)]
    with pytest.warns(UserWarning):
        selection = tarot.select(candidates, targets, selector, size=5, whitening=None, candidate_ids=ids)
        selection.save_scores(tmp_path / "scores.parquet", names)
    found = pq.read_table(tmp_path / "scores.parquet").to_pydict()
    unit = {name: rows / np.linalg.norm(rows, axis=1, keepdims=True) for name, rows in
            (("c", np.delete(candidates, 7, 0)), ("t", np.delete(targets, 2, 0)))}  # fmt: skip
    distance = np.linalg.norm(unit["c"][:, None] - unit["t"][None], axis=2)
    usable = [i for i in range(30) if i != 7]
    assert found["index"] == list(range(30)) and found["id"] == ids
    assert found["nearest_distance"][7] is None and found["nearest_target"][7] is None and found["layer"][7] is None
    np.testing.assert_allclose([found["nearest_distance"][i] for i in usable], distance.min(1), atol=1e-5)
    nearest = np.array([0, 1, 3])[distance.argmin(1)]
    assert [found["nearest_target"][i] for i in usable] == nearest.tolist()
    assert [found["nearest_target_id"][i] for i in usable] == [names[i] for i in nearest]
    rank = distance.argsort(0).argsort(0).min(1) + 1
    layers = [found["layer"][i] for i in usable]
    assert all(layer in (None, known) for layer, known in zip(layers, rank.tolist(), strict=True))
    assert (None not in layers) if small else {1, 2} <= set(layers)
    chosen = selection.indices.tolist()
    assert [i for i in range(30) if found["selected"][i]] == chosen
    assert [found["weight"][i] for i in chosen] == selection.weights.tolist() and sum(found["weight"]) == sum(
        selection.weights
    )
    assert [found["potential"][i] for i in chosen] == selection.potentials.tolist()
    assert sum(value is not None for value in found["potential"]) == len(chosen)
    assert ("value" in found) == (selector == "less")
    if selector == "less":
        assert found["value"] == tarot.value(candidates, targets, "less").tolist()


def test_scores_of_a_selection_from_a_file_are_refused(tmp_path):
    generator = np.random.default_rng(0)
    tarot.select(generator.normal(size=(9, 3)), generator.normal(size=(2, 3)), "random", size=3).save(tmp_path / "s")
    with pytest.raises(InputError, match="not at hand"):
        Selection.load(tmp_path / "s").save_scores(tmp_path / "scores")
