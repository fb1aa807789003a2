"""What a target is shown: against slow loops over frames, agents and points; in any frame; and at the edges."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from tarot import InputError
from tasks.motion.formats.scenario import MapLine
from tasks.motion.formats.scenarionet import databases, read_database
from tasks.motion.views.profile import LINE_CODES, LINE_KINDS, MINI, PAPER_AUTOBOT, PAPER_WAYFORMER, Profile
from tasks.motion.views.tags import TYPES, bucket, difficulty, trajectory_type
from tasks.motion.views.target_view import featurise, view
from tasks.motion.views.windows import windows
from tests.tasks.motion.scenes import data, driving, moved, random_scenario

SMALL = Profile("small", agents=5, segments=12, points=8, lines=("lane", "road_line"), sizes=True)
PIECES = replace(MINI, agents=5, segments=12, points=8, lines=("lane", "road_line"))


def window_of(scenario, profile):
    (window,) = windows(scenario, profile)
    return window


# --- agents ----------------------------------------------------------------------------------------------------------


def slow_agents(window, agent, profile):
    """One number at a time, from the table of columns."""
    row, now, p = window.agents.index(agent), profile.past - 1, profile.steps
    cx, cy = window.position[row, now]
    psi = float(window.heading[row, now])

    def turned(x, y):
        return x * np.cos(psi) + y * np.sin(psi), -x * np.sin(psi) + y * np.cos(psi)

    others = [r for r in range(len(window.agents)) if r != row and window.valid[r, : now + 1].any()]
    far = {r: np.hypot(*(window.position[r, now] - (cx, cy))) if window.valid[r, now] else 1e10 for r in others}
    shown = [row, *sorted(others, key=lambda r: far[r])][: profile.agents]
    frames = range(now - (p - 1) * profile.stride, now + 1, profile.stride)
    out, mask = np.zeros((profile.agents, p, 18 + p)), np.zeros((profile.agents, p), bool)
    for i, r in enumerate(shown):
        for step, t in enumerate(frames):
            if not window.valid[r, t]:
                continue
            f, mask[i, step] = out[i, step], True
            f[0:2] = turned(*(window.position[r, t] - (cx, cy)))
            if profile.sizes:
                f[3:6] = window.size[r, t]
            if window.kinds[r] in ("VEHICLE", "PEDESTRIAN", "CYCLIST"):
                f[6 + ("VEHICLE", "PEDESTRIAN", "CYCLIST").index(window.kinds[r])] = 1
            f[9], f[10], f[11 + step] = r == row, window.agents[r] == window.ego, 1
            f[11 + p] = step * profile.stride * 0.1
            angle = float(window.heading[r, t]) - psi
            f[12 + p : 14 + p] = np.sin(angle), np.cos(angle)
            f[14 + p : 16 + p] = turned(*window.velocity[r, t])
            for one, two in ((t - profile.stride, t), (t, t + profile.stride)):
                if one >= frames[0] and two <= now and window.valid[r, one] and window.valid[r, two]:
                    change = (window.velocity[r, two] - window.velocity[r, one]) / (0.1 * profile.stride)
                    f[16 + p : 18 + p] = turned(*change)
                    break
    return out, mask


@pytest.mark.parametrize("profile", [SMALL, MINI, PAPER_AUTOBOT, Profile("more", agents=32, stride=2, segments=4)])
@pytest.mark.parametrize("seed", range(3))
def test_agents_are_as_the_table_of_columns_says(profile, seed):
    window = window_of(random_scenario(seed, agents=10), profile)
    made = featurise(window, "a0", profile)
    expected, mask = slow_agents(window, "a0", profile)
    assert made["agents"].dtype == np.float32 and made["agents"].shape == (
        profile.agents,
        profile.steps,
        profile.agent_width,
    )
    assert np.array_equal(made["agents_valid"], mask)
    np.testing.assert_allclose(made["agents"], expected, rtol=1e-5, atol=1e-4)


def test_the_table_of_21_steps_has_39_columns_and_others_their_own():
    assert PAPER_AUTOBOT.agent_width == PAPER_WAYFORMER.agent_width == 39
    assert (MINI.steps, MINI.horizon, MINI.agent_width) == (5, 12, 23)
    made = featurise(window_of(random_scenario(), PAPER_WAYFORMER), "a0", PAPER_WAYFORMER)
    assert {name: array.shape for name, array in made.items()} == {
        "agents": (32, 21, 39),
        "agents_valid": (32, 21),
        "lanes": (384, 30, 29),
        "lanes_valid": (384, 30),
        "future": (60, 4),
        "future_valid": (60,),
    }


def test_the_target_is_the_first_row_even_where_another_is_at_its_place():
    scenario = random_scenario()
    scenario.position[3], scenario.valid[3] = scenario.position[0], True
    made = featurise(window_of(scenario, MINI), "a3", MINI)
    assert made["agents"][0, -1, 9] == 1 and np.abs(made["agents"][0, -1, :2]).max() == 0
    assert made["agents"][1:, :, 9].max() == 0


def test_who_was_never_there_before_now_is_not_shown():
    scenario = random_scenario(agents=3)
    scenario.valid[1, :21] = False
    scenario.valid[2, :20], scenario.valid[2, 20] = True, False
    made = featurise(window_of(scenario, MINI), "a0", MINI)
    assert made["agents_valid"].any(1).tolist() == [True, True, False, False, False, False]
    assert not made["agents"][2:].any()


# --- the future ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", [MINI, PAPER_AUTOBOT])
def test_the_future_in_the_targets_frame_to_its_last_frame(profile):
    made = featurise(window_of(driving(speed=10.0), profile), "car", profile)
    time = np.arange(1, profile.horizon + 1) * profile.seconds
    assert time[-1] == pytest.approx(6.0)
    expected = np.stack([10 * time, 0 * time, np.full(len(time), 10.0), 0 * time], axis=1)
    np.testing.assert_allclose(made["future"], expected, atol=1e-4)
    assert made["future_valid"].all()
    past = np.arange(1 - profile.steps, 1) * profile.seconds
    np.testing.assert_allclose(made["agents"][0, :, 0], 10 * past, atol=1e-4)


def test_the_future_is_zero_where_it_is_not_valid():
    scenario = driving()
    scenario.valid[0, 40:60] = False
    made = featurise(window_of(scenario, PAPER_AUTOBOT), "car", PAPER_AUTOBOT)
    assert np.flatnonzero(~made["future_valid"]).tolist() == list(range(19, 39)) and not made["future"][19:39].any()
    assert made["future_valid"][-1]


# --- lanes -----------------------------------------------------------------------------------------------------------


def slow_lanes(window, agent, profile):
    """A piece at a time, a point at a time. Of lines: (distance, points, directions, code) of each piece shown."""
    row, now, m = window.agents.index(agent), profile.past - 1, profile.points
    psi, centre = float(window.heading[row, now]), window.position[row, now]
    codes = {code for kind in profile.lines for code in LINE_KINDS[kind]}

    def turned(v):
        return np.array([v[0] * np.cos(psi) + v[1] * np.sin(psi), -v[0] * np.sin(psi) + v[1] * np.cos(psi)])

    pieces = []
    for line in window.map:
        if LINE_CODES.get(line.kind) not in codes:
            continue
        xy = line.xy.astype(np.float64)
        if profile.pieces or len(xy) < m:
            xy = resampled(xy, profile.spacing)
        directions = [np.zeros(2)]
        for a, b in pairwise(xy):
            directions.append((b - a) / np.linalg.norm(b - a))
        runs, run = [], []
        for i, point in enumerate(xy):
            seen = turned(point - centre)
            inside = profile.box[0] < seen[0] < profile.box[1] and profile.box[2] < seen[1] < profile.box[3]
            if run and (not inside or (profile.pieces and i % m == 0)):
                runs.append(run)
                run = []
            if inside:
                run.append((seen, turned(directions[i])))
        for whole in [*runs, run]:
            if whole:
                kept = whole if len(whole) <= m else [whole[(k * (len(whole) - 1)) // (m - 1)] for k in range(m)]
                points = np.array([p for p, _ in kept])
                if profile.pieces:
                    distance = np.linalg.norm(points.mean(0) - profile.centre)
                else:
                    distance = np.mean([np.linalg.norm(p - profile.centre) for p in points])
                pieces.append((distance, points, np.array([d for _, d in kept]), LINE_CODES[line.kind]))
    pieces.sort(key=lambda piece: piece[0])
    out, mask = np.zeros((profile.segments, m, 29)), np.zeros((profile.segments, m), bool)
    for s, (_, points, directions, code) in enumerate(pieces[: profile.segments]):
        for i, (point, direction) in enumerate(zip(points, directions, strict=True)):
            mask[s, i] = True
            out[s, i, 0:2], out[s, i, 3:5], out[s, i, 6:8] = point, direction, points[max(i - 1, 0)]
            out[s, i, 9 + code] = 1
    return out, mask


def resampled(xy, spacing):
    out, left = [xy[0]], spacing
    for a, b in pairwise(xy):
        length, at = np.linalg.norm(b - a), 0.0
        while length - at > left + 1e-7:
            at += left
            out.append(a + (b - a) * at / length)
            left = spacing
        left -= length - at
    return np.array(out)


@pytest.mark.parametrize("profile", [SMALL, PIECES, MINI, PAPER_AUTOBOT])
@pytest.mark.parametrize("seed", range(3))
def test_lanes_are_as_the_rules_say(profile, seed):
    window = window_of(random_scenario(seed, lanes=60), profile)
    made = featurise(window, "a0", profile)
    expected, mask = slow_lanes(window, "a0", profile)
    assert made["lanes"].dtype == np.float32 and np.array_equal(made["lanes_valid"], mask) and mask.any()
    np.testing.assert_allclose(made["lanes"], expected, atol=1e-4)


def test_a_scene_without_a_lane_in_range():
    far = (MapLine("far", "LANE_FREEWAY", np.array([[5000.0, 5000.0], [5050.0, 5000.0]])),)
    other = (MapLine("paint", "ROAD_LINE_SOLID_SINGLE_WHITE", np.array([[100.0, -50.0], [120.0, -50.0]])),)
    for lines in ((), far, other):
        made = featurise(window_of(driving(map=lines), MINI), "car", MINI)
        assert not made["lanes"].any() and not made["lanes_valid"].any() and made["lanes"].shape == (24, 10, 29)


def test_a_line_of_one_point_and_one_of_no_length_are_points():
    at = np.array([[101.0, -50.0]])
    lines = (MapLine("sign", "STOP_SIGN", at), MapLine("dot", "LANE_FREEWAY", np.repeat(at, 3, axis=0)))
    profile = replace(MINI, lines=("lane", "stop_sign"))
    made = featurise(window_of(driving(map=lines), profile), "car", profile)
    assert made["lanes_valid"].sum(1).tolist()[:3] == [1, 1, 0] and np.isfinite(made["lanes"]).all()


def test_a_point_that_repeats_the_one_before_has_no_direction():
    x = np.array([95.0, 96, 97, 97 + 1e-9, 98])
    line = MapLine("joined", "LANE_FREEWAY", np.stack([x, np.full(5, -50.0)], axis=1))
    profile = replace(PAPER_AUTOBOT, points=5)
    made = featurise(window_of(driving(map=(line,), angle=0.0), profile), "car", profile)
    np.testing.assert_allclose(made["lanes"][0, :, 3:5], [[0, 0], [1, 0], [1, 0], [0, 0], [1, 0]], atol=1e-6)


# --- frames ----------------------------------------------------------------------------------------------------------


def _same(one, two):
    for name, array in one.items():
        if array.dtype == bool:
            assert np.array_equal(array, two[name]), name
        else:
            np.testing.assert_allclose(two[name], array, atol=1e-4, rtol=0, err_msg=name)


@pytest.mark.parametrize("profile", [MINI, SMALL, PAPER_AUTOBOT, PAPER_WAYFORMER])
@pytest.mark.parametrize(("angle", "shift"), [(2.5, (0.0, 0.0)), (-0.7, (400.0, -900.0))])
def test_features_are_the_same_in_any_frame(profile, angle, shift):
    scenario = random_scenario(5, lanes=60)
    other = moved(scenario, angle, shift)
    _same(*(featurise(window_of(s, profile), "a0", profile) for s in (scenario, other)))
    seen = [view(window_of(s, profile), "a0", profile) for s in (scenario, other)]
    assert seen[0].type == seen[1].type
    np.testing.assert_allclose(seen[0].difficulty, seen[1].difficulty, atol=1e-6)


def test_features_of_real_scenes_are_the_same_in_any_frame():
    for scenario in list(read_database(databases(data("nuscenes"))))[::6]:
        other = moved(scenario, 1.234, (-300.0, 250.0))
        (agent,) = scenario.to_predict
        for profile in (MINI, PAPER_AUTOBOT):
            _same(*(featurise(window_of(s, profile), agent, profile) for s in (scenario, other)))


# --- errors ----------------------------------------------------------------------------------------------------------


def test_what_cannot_be_shown_is_named():
    with pytest.raises(InputError, match="Cut it with windows"):
        featurise(driving(100), "car", MINI)
    with pytest.raises(InputError, match="agent bus: there is no such agent"):
        featurise(window_of(driving(), MINI), "bus", MINI)
    scenario = driving()
    scenario.valid[0, 20] = False
    with pytest.raises(InputError, match="not there at the current frame"):
        featurise(window_of(scenario, MINI), "car", MINI)


@pytest.mark.parametrize(
    "wrong",
    [{"stride": 3}, {"points": 1}, {"agents": 0}, {"box": (1, 0, 0, 1)}, {"lines": ("river",)}, {"spacing": 0.0}],
)
def test_profiles_that_cannot_be(wrong):
    with pytest.raises(InputError, match="motion profile mini"):
        replace(MINI, **wrong)


def test_a_recipe_tells_profiles_apart_and_not_their_names():
    assert replace(MINI, name="other").recipe() == MINI.recipe() != replace(MINI, spacing=1.0).recipe()


# --- tags ------------------------------------------------------------------------------------------------------------


def slow_difficulty(z, h, future):
    """A filter for each axis, as it is written down."""
    predicted = []
    for z_axis in z.T:
        n = len(z_axis)
        v = (z_axis[-1] - z_axis[0]) / (n - 1)
        x, p, pv, q, r = z_axis[0], 1.0, 1.0, 1e-5, 1e-4
        for i in range(1, n):
            x = x + v
            p = p + pv + q
            pv = pv + q
            k = p / (p + r)
            x = x + k * (z_axis[i] - x)
            p = (1 - k) * p
            kv = pv / (pv + r)
            pv = (1 - kv) * pv
        predicted.append(x + h * v)
    return np.linalg.norm(np.array(predicted) - future)


def test_difficulty_is_the_error_of_the_filter_of_the_last_run():
    rng = np.random.default_rng(0)
    past, future = np.cumsum(rng.normal(size=(21, 2)), axis=0), rng.normal(size=(60, 2)) * 30
    valid, later = np.ones(21, bool), np.ones(60, bool)
    expected = [slow_difficulty(past, h, future[h - 1]) for h in (20, 40, 60)]
    np.testing.assert_allclose(difficulty(past, valid, future, later), expected)
    valid[[3, 11]], later[39] = False, False
    expected = [slow_difficulty(past[12:], 20, future[19]), -1, slow_difficulty(past[12:], 60, future[59])]
    np.testing.assert_allclose(difficulty(past, valid, future, later), expected)


def test_difficulty_of_a_constant_velocity_is_none_and_of_one_point_unknown():
    window = window_of(driving(), MINI)
    assert np.abs(view(window, "car", MINI).difficulty).max() < 1e-6
    past, future = window.position[0, :21], window.position[0, 21:]
    valid = np.zeros(21, bool)
    valid[20] = True
    assert difficulty(past, valid, future, np.ones(60, bool)).tolist() == [-1, -1, -1]
    assert difficulty(past, ~valid, future[:30], np.ones(30, bool))[1:].tolist() == [-1, -1]


def test_buckets_of_difficulty():
    assert bucket(np.array([-1, 0, 29.9, 30, 59.9, 60, 500])).tolist() == [
        "unknown",
        "easy",
        "easy",
        "medium",
        "medium",
        "hard",
        "hard",
    ]


@pytest.mark.parametrize(
    ("end", "turn", "speed", "kind"),
    [
        ((3.0, 1.0), 2.0, 1.0, "stationary"),
        ((3.0, 1.0), 0.1, 3.0, "straight"),  # slow at the end, but it was not
        ((40.0, 4.9), 0.5, 10.0, "straight"),
        ((40.0, -5.1), -0.5, 10.0, "straight right"),
        ((40.0, 5.1), 0.5, 10.0, "straight left"),
        ((20.0, -20.0), -1.5, 8.0, "right"),
        ((-6.0, -10.0), -3.0, 8.0, "right u-turn"),
        ((20.0, 20.0), 1.5, 8.0, "left"),
        ((-6.0, 10.0), 3.0, 8.0, "left u-turn"),
        ((20.0, 1.0), -1.0, 8.0, "left"),  # turns right, but ended on the left
    ],
)
def test_types_of_trajectories(end, turn, speed, kind):
    future, valid = np.zeros((60, 4)), np.ones(60, bool)
    future[58, :2] = np.array(end) - 0.3 * np.array([np.cos(turn), np.sin(turn)])
    future[59] = [*end, 0.5, 0.5]
    assert TYPES[trajectory_type(future, valid, speed)] == kind
    valid[:58] = False  # only the last two count
    assert TYPES[trajectory_type(future, valid, speed)] == kind


def test_the_type_is_told_at_ten_frames_a_second_whatever_the_profile_shows():
    for seed in range(5):
        scenario = random_scenario(seed)
        assert view(window_of(scenario, MINI), "a0", MINI).type == view(window_of(scenario, SMALL), "a0", SMALL).type
