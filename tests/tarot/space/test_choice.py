import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import tarot
from tarot import InputError
from tarot.space import Space, distances
from tarot.space.content import content_sample
from tarot.space.target_agreement import agreement, repetition
from tests.tarot.space.test_local import clusters

CHOICES = {
    "local": ("local", "unit"),
    "local, clip norm": ("local", "clip"),
    "centred": ("centred", "unit"),
    "none": (None, "unit"),
}


def rows(n, d=8, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, d))).float()


def by_loops(candidates, targets):
    """The definition: who would be taken first by a selection for all targets but one?"""
    found = []
    for t in range(len(targets)):
        others = torch.cat([targets[:t], targets[t + 1 :]])
        to_others = distances(candidates, others)
        places = [min(int((to_others[:, j] < row[j]).sum()) for j in range(len(others))) for row in to_others]
        own = distances(targets[t : t + 1], others)[0]
        place = min(int((to_others[:, j] < own[j]).sum()) for j in range(len(others)))
        found.append(np.mean([(p > place) + 0.5 * (p == place) for p in places]))
    return np.array(found)


@pytest.mark.parametrize("m", [2, 3, 11])
def test_agreement_is_the_share_of_candidates_that_come_after_a_target(m):
    candidates, targets = rows(60), rows(m, seed=1)
    np.testing.assert_allclose(agreement(candidates, targets), by_loops(candidates, targets), atol=1e-12)


def test_agreement_of_targets_that_are_like_candidates_is_chance_and_of_a_group_apart_is_one():
    chance = [agreement(rows(400, seed=s), rows(40, seed=100 + s)).mean() for s in range(12)]
    assert np.mean(chance) == pytest.approx(0.5, abs=0.05)
    assert (agreement(rows(400), rows(40, seed=1) + 50) > 0.998).all()  # one candidate is the nearest of all


def test_whitening_is_left_out_where_it_hides_the_targets():
    """Pairs of near rows differ along the very axis that tells targets from others, which local whitening flattens."""
    generator = np.random.default_rng(0)
    group = generator.integers(0, 2, 600)

    def side(g):
        told = np.where(g == 1, 1.0, -1.0)[:, None] * generator.uniform(0.2, 1.5, size=(len(g), 1))
        common = generator.normal(size=(len(g), 1)) * 0.01
        return np.concatenate([told, common, 0.001 * generator.normal(size=(len(g), 10))], axis=1).astype(np.float32)

    candidates, targets = side(group), side(np.ones(50, dtype=int))
    s = tarot.select(candidates, targets, "tarot_fixed", size=60)
    assert s.space.chosen and s.space.whitening in ("centred", None)
    assert s.space.agreement["none"] > s.space.agreement["local"]
    assert group[s.indices].mean() > 0.95


def test_whitening_is_chosen_where_what_varies_hides_the_targets():
    """Two axes of noise, the same for all, on top of what tells the groups apart."""
    candidates, targets, group = clusters(noise=0.5)
    generator = np.random.default_rng(1)
    noisy = [
        np.concatenate([side, 40 * generator.normal(size=(len(side), 2))], axis=1) for side in (candidates, targets)
    ]
    s = tarot.select(*noisy, "tarot_fixed", size=60)
    assert s.space.chosen and s.space.whitening == "local" and s.space.centre == "union"
    assert s.space.agreement["local"] > 0.8 > s.space.agreement["none"]
    assert np.isin(group[s.indices], [0, 1]).mean() > 0.95
    same = tarot.select(*noisy, "tarot_fixed", size=60, whitening="local", norm=s.space.norm)
    assert same.indices.tolist() == s.indices.tolist() and same.space.agreement is None and not same.space.chosen


def test_centring_is_chosen_where_all_rows_have_much_in_common():
    generator = np.random.default_rng(0)
    group = generator.integers(0, 4, 600)
    centres = 0.5 * generator.normal(size=(4, 20))
    common = 30 * generator.normal(size=(1, 20))

    def side(g):
        scale = generator.uniform(0.8, 1.2, size=(len(g), 1))  # which unit norm takes away
        return (scale * (common + centres[g] + 0.5 * generator.normal(size=(len(g), 20)))).astype(np.float32)

    candidates, targets = side(group), side(np.zeros(60, dtype=int))
    s = tarot.select(candidates, targets, "tarot_fixed", size=60, whitening="centred")
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (candidates, targets)]
    mean = np.concatenate(unit).astype(np.float64).mean(axis=0)
    expected = (unit[0] - mean) / np.linalg.norm(unit[0] - mean, axis=1, keepdims=True)
    np.testing.assert_allclose(s.problem.candidates[:], expected, atol=1e-4)
    assert s.space.name == "centred, not whitened"


def test_the_choice_is_where_agreement_and_repetition_are_largest():
    for seed in range(6):
        candidates, targets, _ = clusters(n=200, m=20, noise=3.0, seed=seed)
        space = tarot.select(candidates, targets, "tarot_fixed", size=20).space
        total = {name: space.agreement[name] + space.repetition[name] for name in CHOICES}
        best = max(total, key=total.get)
        whitening, norm = CHOICES[best]
        assert space.whitening == whitening and (whitening is None or space.norm == norm)
        ordered = [side[content_sample(side, len(side), "rows")] for side in (candidates, targets)]
        for name, (whitening, norm) in CHOICES.items():
            seen = tarot.whiten(*(torch.from_numpy(side) for side in ordered), whitening, norm=norm)
            assert space.agreement[name] == pytest.approx(agreement(*seen).mean(), abs=1e-3)
            assert space.repetition[name] == pytest.approx(repetition(*seen), abs=1e-2)


def test_one_target_cannot_be_asked():
    candidates, targets, _ = clusters()
    space = tarot.select(candidates, targets[:1], "tarot_fixed", size=60).space
    assert (space.whitening, space.chosen, space.agreement) == ("local", True, None)


def test_the_order_of_candidates_and_targets_decides_nothing(monkeypatch):
    monkeypatch.setattr("tarot.space.choice.COMPARED", 200)
    monkeypatch.setattr("tarot.space.choice.SHOWN", 30)
    candidates, targets, _ = clusters()
    generator = np.random.default_rng(1)
    one = tarot.select(candidates, targets, "tarot_fixed", size=60)
    order = generator.permutation(600)
    other = tarot.select(candidates[order], targets[generator.permutation(60)], "tarot_fixed", size=60)
    assert other.space.agreement == pytest.approx(one.space.agreement, abs=1e-6)
    assert sorted(order[other.indices]) == one.indices.tolist()


def test_zero_rows_are_nobody():
    candidates, targets, _ = clusters()
    expected = tarot.select(candidates, targets, "tarot_fixed", size=60).space
    with_zeros = [np.insert(side, [0, 5, 9], 0, axis=0) for side in (candidates, targets)]
    with pytest.warns(UserWarning, match="3 of 63 targets have zero features"):
        space = tarot.select(*with_zeros, "tarot_fixed", size=60).space
    assert space.agreement == pytest.approx(expected.agreement, abs=1e-9)


def test_several_models_are_asked_together():
    candidates, targets, _ = clusters()
    other = [side[:, ::2] ** 3 for side in (candidates, targets)]
    space = tarot.select([candidates, other[0]], [targets, other[1]], "tarot_fixed", size=60).space
    assert len(space.regularization) == (2 if space.whitening == "local" else 0)
    assert set(space.agreement) == set(space.repetition) == set(CHOICES)


def test_targets_that_do_not_look_like_one_another_are_warned_of():
    """Each target is alone on its side of the origin, with a crowd of candidates between any two of them."""
    generator = np.random.default_rng(0)
    axes = np.eye(12)
    candidates = axes[generator.integers(0, 6, 400)] + 0.3 * generator.normal(size=(400, 12))
    targets = 5 * axes[6:]
    with pytest.warns(UserWarning, match=r"^targets do not look like one another: .* \(agreement 0\.\d\d, \.5 is"):
        tarot.select(candidates, targets, "tarot_fixed", size=9)


# --- on disk ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whitening", ["auto", "local", "centred", "zca", "paper", None])
def test_a_selection_carries_its_space(tmp_path, whitening):
    candidates, targets, _ = clusters()
    s = tarot.select(candidates, targets, "tarot_fixed", size=30, whitening=whitening)
    s.save(tmp_path / "s.parquet")
    loaded = tarot.Selection.load(tmp_path / "s.parquet").space
    assert loaded == s.space and loaded.name == s.space.name
    names = {None: "unit norm alone", "centred": "centred, not whitened", "paper": "the paper's whitening, ridge 0.001"}
    assert s.space.name == names.get(whitening, s.space.name)


def resaved(path, change):
    table = pq.read_table(path)
    metadata = dict(table.schema.metadata)
    facts = json.loads(metadata[b"selection"])
    change(facts)
    pq.write_table(table.replace_schema_metadata({**metadata, b"selection": json.dumps(facts).encode()}), path)


def test_a_file_from_before_spaces_were_kept_still_loads(tmp_path):
    candidates, targets, _ = clusters()
    tarot.select(candidates, targets, "tarot_fixed", size=30).save(tmp_path / "s.parquet")
    resaved(tmp_path / "s.parquet", lambda facts: facts.pop("space"))
    assert tarot.Selection.load(tmp_path / "s.parquet").space is None


@pytest.mark.parametrize(
    "space", [3, {}, {"whitening": "pca", "norm": "unit", "centre": None, "regularization": []}, {"regularization": 2}]
)
def test_a_space_that_is_none_is_refused(tmp_path, space):
    candidates, targets, _ = clusters()
    tarot.select(candidates, targets, "tarot_fixed", size=30).save(tmp_path / "s.parquet")
    resaved(tmp_path / "s.parquet", lambda facts: facts.update(space=space))
    with pytest.raises(InputError, match=r"is damaged, .*its space is not one"):
        tarot.Selection.load(tmp_path / "s.parquet")


def test_a_space_is_plain_data():
    space = Space("local", "unit", "union", (0.25, 3.0), chosen=True, agreement={"local": 0.9, "none": 0.8})
    assert Space.of_dict(json.loads(json.dumps(space.as_dict()))) == space
    assert space.name == "local whitening, ridge 0.25 / 3"
    assert replace(space, norm="clip").name == "local whitening of clipped rows, ridge 0.25 / 3"
