"""Metrics beside cases by hand and a slow oracle; nuScenes's files."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from tarot import InputError
from tasks.motion.metrics import HEADLINE, errors, nuscenes_steps, summary
from tasks.motion.submission import Forecast, demand_challenge, forecasts, read_submission, tokens, write_submission


def case(seed: int, b: int = 6, k: int = 6, f: int = 60):
    generator = torch.Generator().manual_seed(seed)
    trajectories = 2 * torch.randn(b, k, f, 5, generator=generator)
    valid = torch.rand(b, f, generator=generator) < 0.6
    valid[0, f // 2 :] = False
    return trajectories, torch.rand(b, k, generator=generator), torch.randn(b, f, 4, generator=generator), valid


def slowly(trajectories, probabilities, future, valid, every: int) -> dict[str, float]:
    """Of one agent, by the words of the definitions."""
    shares = [p / sum(probabilities) for p in probabilities]
    distance = [[math.dist(p[:2], y[:2]) for p, y in zip(mode, future, strict=True)] for mode in trajectories]
    known = [t for t, ok in enumerate(valid) if ok]
    ade = [sum(row[t] for t in known) / len(known) for row in distance]
    fde = [row[known[-1]] for row in distance]
    i, j = ade.index(min(ade)), fde.index(min(fde))
    found = {
        "min_ade": ade[i],
        "min_fde": fde[j],
        "miss_rate": float(fde[j] > 2),
        "brier_min_ade": ade[i] + (1 - shares[i]) ** 2,
        "brier_min_fde": fde[j] + (1 - shares[j]) ** 2,
    }
    points = [t for t in known if (t + 1) % every == 0]
    ranked = sorted(range(len(shares)), key=lambda k: -shares[k])
    for k in 5, 10:
        found[f"nuscenes_min_ade_{k}"] = min(sum(distance[m][t] for t in points) / len(points) for m in ranked[:k])
        found[f"nuscenes_miss_rate_{k}"] = float(all(max(distance[m][t] for t in points) >= 2 for m in ranked[:k]))
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("f", "hz"), [(60, 10.0), (12, 2.0)])
def test_metrics_are_their_definitions(seed, f, hz):
    trajectories, probabilities, future, valid = case(seed, f=f)
    found = errors(trajectories, probabilities, future, valid, hz)
    assert next(iter(found)) == HEADLINE
    for b in range(len(valid)):
        expected = slowly(*(x[b].double().tolist() for x in (trajectories, probabilities, future, valid)), int(hz / 2))
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            assert found[name][b].item() == pytest.approx(value), name


def by_hand(probabilities=(0.2, 0.8), valid=(True,) * 4):
    """The truth stands still at 0; future 0 is 1 m away, but 3 m at the last step; future 1 is 2 m away throughout."""
    trajectories = torch.zeros(1, 2, 4, 2)
    trajectories[0, 0, :, 0] = torch.tensor([1.0, 1.0, 1.0, 3.0])
    trajectories[0, 1, :, 1] = 2.0
    return errors(trajectories, torch.tensor([probabilities]), torch.zeros(1, 4, 2), torch.tensor([valid]), 2.0)


def test_a_case_by_hand():
    found = {name: value.item() for name, value in by_hand().items()}
    assert found["min_ade"] == 1.5 and found["min_fde"] == 2.0  # of different futures
    assert found["miss_rate"] == 0.0  # 2 m is no miss, but nuScenes's
    assert found["nuscenes_miss_rate_5"] == 1.0
    assert found["brier_min_fde"] == pytest.approx(2.04) and found["brier_min_ade"] == pytest.approx(1.5 + 0.64)


def test_the_last_step_that_is_known_counts():
    found = by_hand(valid=(True, True, True, False))
    assert found["min_fde"] == 1.0 and found["min_ade"] == 1.0
    assert found["brier_min_fde"] == pytest.approx(1 + 0.64)  # of the future that is less probable


def test_brier_adds_nothing_where_the_model_was_sure():
    assert by_hand((0.0, 1.0))["brier_min_fde"] == 2.0
    assert by_hand((2.0, 8.0))["brier_min_fde"] == pytest.approx(2.04)  # in any unit


def test_six_equally_probable_futures_cost_069():
    found = errors(torch.zeros(1, 6, 4, 2), torch.ones(1, 6), torch.zeros(1, 4, 2), torch.ones(1, 4).bool(), 2.0)
    assert found["brier_min_fde"].item() == pytest.approx(25 / 36)


def test_only_the_most_probable_five_count_for_nuscenes():
    trajectories = torch.ones(1, 6, 4, 2)
    trajectories[0, 3] = 0  # the best future is the least probable
    shares = torch.tensor([[0.18, 0.18, 0.18, 0.05, 0.2, 0.21]])
    found = errors(trajectories, shares, torch.zeros(1, 4, 2), torch.ones(1, 4).bool(), 2.0)
    assert found["nuscenes_min_ade_5"].item() == pytest.approx(2**0.5) and found["nuscenes_min_ade_10"] == 0
    assert found["min_ade"] == 0


def test_an_agent_without_a_future_does_not_count():
    trajectories, probabilities, future, valid = case(0)
    valid[2], valid[3] = False, torch.arange(60) == 0  # and one that is known at no point of nuScenes's
    future[2] = torch.nan
    found = errors(trajectories, probabilities, future, valid, 10.0)
    assert all(value[2].isnan() for value in found.values())
    assert found["nuscenes_min_ade_5"].isnan().sum() == 2 and found["min_ade"].isnan().sum() == 1
    means = summary(found)
    assert means["min_ade"] == pytest.approx(found["min_ade"][[0, 1, 3, 4, 5]].mean().item())


def test_averages_by_tag():
    found = {"min_ade": torch.tensor([1.0, 2.0, 4.0, torch.nan])}
    means = summary(found, {"dataset": ["a", "a", "b", "c"], "type": ["x", "y", "y", "y"]})
    assert means == {
        "min_ade": pytest.approx(7 / 3),
        "min_ade/dataset=a": 1.5,
        "min_ade/dataset=b": 4.0,
        "min_ade/type=x": 1.0,
        "min_ade/type=y": 3.0,
    }
    with pytest.raises(InputError, match="dataset"):
        summary(found, {"dataset": ["a"]})


def test_nuscenes_points_are_every_half_second():
    assert nuscenes_steps(60, 10.0) == [4, 9, 14, 19, 24, 29, 34, 39, 44, 49, 54, 59]
    assert nuscenes_steps(12, 2.0) == list(range(12))
    for future, hz in (12, 5.0), (12, 1.0), (3, 10.0):
        with pytest.raises(InputError, match="half second"):
            nuscenes_steps(future, hz)


def test_steps_beside_half_seconds_have_no_measures_of_nuscenes():
    trajectories, probabilities, future, valid = case(0, f=30)
    found = errors(trajectories, probabilities, future, valid, 5.0)
    assert set(found) == {"brier_min_fde", "min_fde", "min_ade", "miss_rate", "brier_min_ade"}
    assert found["min_ade"].isfinite().all()


def test_metrics_refuse_what_does_not_fit():
    trajectories, probabilities, future, valid = case(0)
    with pytest.raises(InputError, match="shapes"):
        errors(trajectories, probabilities[:, 1:], future, valid, 10.0)
    with pytest.raises(InputError, match="shapes"):
        errors(trajectories, probabilities, future, valid[:, 1:], 10.0)
    for row in (0.0, -1.0, torch.nan):
        bad = probabilities.clone()
        bad[1] = row
        with pytest.raises(InputError, match="agent 1"):
            errors(trajectories, bad, future, valid, 10.0)


# --- nuScenes's files ----------------------------------------------------------------------------------------------

A, B = "a" * 32, "0123456789abcdef" * 2


def test_submission(tmp_path):
    """Frames turned by a right angle; the layout is that of the challenge."""
    trajectories = np.zeros((2, 3, 60, 5))
    trajectories[:, 0, :, 0] = np.arange(1, 61)  # ahead
    made = forecasts(
        [(A, B), (B, A)],
        trajectories,
        np.full((2, 3), 2.0),
        np.array([[600.0, 1600.0], [0, 0]]),
        np.array([np.pi / 2, 0]),
        10.0,
    )
    write_submission(tmp_path / "s.json", made)
    rows = json.loads((tmp_path / "s.json").read_text())
    assert [set(row) for row in rows] == [{"instance", "sample", "prediction", "probabilities"}] * 2
    assert (rows[0]["instance"], rows[0]["sample"]) == (A, B)
    prediction = np.array(rows[0]["prediction"])
    assert prediction.shape == (3, 12, 2)
    assert np.allclose(prediction[0, :, 1], 1600 + 5 * np.arange(1, 13)) and np.allclose(prediction[0, :, 0], 600)
    assert np.allclose(rows[1]["prediction"][0][-1], [60, 0]) and np.allclose(rows[0]["probabilities"], 1 / 3)
    again = read_submission(tmp_path / "s.json")
    assert [(f.instance, f.sample) for f in again] == [(A, B), (B, A)]
    assert np.array_equal(again[0].futures, made[0].futures)


def test_submissions_that_the_challenge_would_refuse(tmp_path):
    fine = Forecast(A, B, np.zeros((2, 12, 2)), np.ones(2))
    for change, word in (
        ({"futures": np.zeros((2, 11, 2))}, "12 points"),
        ({"futures": np.zeros((26, 12, 2)), "probabilities": np.ones(26)}, "25 futures"),
        ({"probabilities": np.ones(3)}, "as many probabilities"),
        ({"probabilities": np.array([1.0, -1.0])}, "negative"),
        ({"futures": np.full((2, 12, 2), np.nan)}, "finite"),
        ({"futures": [["x"]]}, "numbers"),
        ({"instance": ""}, "tokens"),
    ):
        with pytest.raises(InputError, match=word):
            Forecast(**{**vars(fine), **change})
    with pytest.raises(InputError, match="twice"):
        write_submission(tmp_path / "s.json", [fine, fine])
    with pytest.raises(InputError, match="no forecast"):
        write_submission(tmp_path / "s.json", [])
    assert not list(tmp_path.iterdir())
    for text, word in (("{", "not JSON"), ("{}", "list of objects"), ('[{"instance": "a"}]', "list of objects")):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(InputError, match=word):
            read_submission(tmp_path / "bad.json")
    with pytest.raises(InputError, match="no file"):
        read_submission(tmp_path / "none.json")
    for given, word in (
        ((12, 2.0, 26), "25 futures"),
        ((60, 10.0, 26), "25 futures"),
        ((30, 5.0, 6), "half second"),
        ((10, 2.0, 6), "6 s"),
    ):
        with pytest.raises(InputError, match=word):
            demand_challenge(*given)
    demand_challenge(60, 10.0, 25)
    with pytest.raises(InputError, match="6 s"):
        forecasts([(A, B)], np.zeros((1, 2, 50, 2)), np.ones((1, 2)), np.zeros((1, 2)), np.zeros(1), 10.0)


def test_tokens_of_scenarios():
    assert tokens(f"scene-0103_{A}_{B}") == (A, B)
    for name in ("scene-0103", f"scene_{A}", f"scene_{A}_{B.upper()}"):
        with pytest.raises(InputError, match="scene_instance_sample"):
            tokens(name)
