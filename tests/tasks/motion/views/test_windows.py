"""Records are cut into windows whose future is at their end; agents become targets, or are counted with a reason."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tarot import InputError
from tasks.motion.formats.scenario import CYCLIST, PEDESTRIAN, VEHICLE, TrafficLight
from tasks.motion.views.profile import MINI, PAPER_AUTOBOT, Profile
from tasks.motion.views.windows import TargetFilter, targets_of, windows
from tests.tasks.motion.scenes import driving, random_scenario


def recorded_at(window) -> np.ndarray:
    """x at each frame of a window of `numbered`, which tells the frame of the record; -1 where not valid."""
    return np.where(window.valid[0], window.position[0, :, 0], -1).astype(int)


def numbered(frames: int, **changes):
    scenario = driving(frames, **changes)
    scenario.position[0, :, 0] = np.arange(frames)
    return scenario


@pytest.mark.parametrize(
    ("frames", "current", "start", "first", "front", "behind"),
    [
        (81, None, None, 0, 0, 0),
        (201, None, None, 0, 0, 0),
        (201, None, 37, 37, 0, 0),
        (66, None, None, 0, 15, 0),  # nuScenes: the future is at the record's end
        (100, None, 29, 29, 10, 0),
        (110, 49, None, 29, 0, 0),  # Argoverse 2
        (91, 10, None, 0, 0, 0),  # Waymo: a whole window, but too little of a past
        (71, 10, None, 0, 10, 0),
        (66, 10, None, 0, 10, 5),
        (50, 49, None, 29, 0, 60),  # a test split: no future
        (91, 10, -10, 0, 10, 0),  # Waymo's own present, with the past that there is
        (61, 10, -10, 0, 10, 10),
    ],
)
def test_where_a_window_begins(frames, current, start, first, front, behind):
    (window,) = windows(numbered(frames, current=current), MINI, start)
    expected = [-1] * front + list(range(first, first + 81 - front - behind)) + [-1] * behind
    assert recorded_at(window).tolist() == expected
    assert window.current == 20 and window.frames == 81 and window.start is None


def test_what_is_not_valid_is_zero_and_the_record_is_left_alone():
    scenario = random_scenario(frames=60)
    light = TrafficLight("line0", np.zeros(2, np.float32), tuple(str(i) for i in range(60)))
    scenario = replace(scenario, lights=(light,))
    before = {name: getattr(scenario, name).copy() for name in ("position", "heading", "velocity", "size", "valid")}
    (window,) = windows(scenario, MINI)
    targets_of(window)
    for name, array in before.items():
        assert np.array_equal(getattr(scenario, name), array)
        assert not getattr(window, name)[:, :21].any() and np.array_equal(getattr(window, name)[:, 21:], array)
        assert getattr(window, name).dtype == array.dtype
    assert window.lights[0].states == (None,) * 21 + tuple(str(i) for i in range(60))
    assert window.map is scenario.map


def test_windows_every_so_many_seconds():
    scenario = numbered(201)
    cut = windows(scenario, MINI, every=0.5)
    assert [w.start for w in cut] == list(range(0, 121, 5))
    assert all(recorded_at(w).tolist() == list(range(w.start, w.start + 81)) for w in cut)
    assert [w.start for w in windows(scenario, MINI, every=6.0)] == [0, 60, 120]
    (short,) = windows(numbered(70), MINI, every=2.0)
    assert short.start == 0 and recorded_at(short).tolist() == [-1] * 11 + list(range(70))


def test_windows_are_as_long_as_the_profile_says():
    (window,) = windows(numbered(201), Profile("short", past=11, future=30))
    assert window.frames == 41 and window.current == 10


def test_windows_that_cannot_be_cut():
    with pytest.raises(InputError, match=r"every 0\.5 s"):
        windows(driving(dt=0.5), MINI)
    with pytest.raises(InputError, match="81 frames: no window begins at 81"):
        windows(driving(), MINI, start=81)
    with pytest.raises(InputError, match="81 frames: no window begins at -21"):
        windows(driving(), MINI, start=-21)
    with pytest.raises(InputError, match="positive"):
        windows(driving(), MINI, every=0.0)
    with pytest.raises(InputError, match="without a start"):
        windows(driving(), MINI, start=3, every=1.0)


# --- targets ---------------------------------------------------------------------------------------------------------


def scene(**changes):
    """Agents by what they are: all there all the time and moving, but for what their names say."""
    names = ("car", "bicycle", "walker", "cone", "parked", "late", "gone", "short", "ego")
    kinds = (VEHICLE, CYCLIST, PEDESTRIAN, "TRAFFIC_CONE", VEHICLE, VEHICLE, VEHICLE, VEHICLE, VEHICLE)
    one = driving()
    tiled = {name: np.repeat(getattr(one, name), len(names), axis=0) for name in ("heading", "velocity", "size")}
    position, valid = np.repeat(one.position, len(names), axis=0), np.ones((len(names), 81), bool)
    position[names.index("parked")] = position[names.index("parked"), :1]
    valid[names.index("late"), :21] = False
    valid[names.index("gone"), 21:] = False
    valid[names.index("short"), :20] = valid[names.index("short"), 40:] = False
    made = replace(one, agents=names, kinds=kinds, position=position, valid=valid, ego="ego", current=20, **tiled)
    return replace(made, **changes)


def test_without_a_request_moving_vehicles_become_targets_and_the_rest_is_counted():
    chosen, skipped = targets_of(scene())
    assert chosen == ["car", "ego"]
    assert dict(skipped) == {
        "is of another kind": 3,
        "does not move": 1,
        "is not there at the current frame": 1,
        "is not there in the future": 1,
        "is there too little of the time": 1,
    }


def test_thresholds_and_kinds_of_the_filter():
    everyone = TargetFilter(kinds=(VEHICLE, PEDESTRIAN, CYCLIST), valid_share=0.2, moving_distance=0)
    assert targets_of(scene(), everyone)[0] == ["car", "bicycle", "walker", "parked", "short", "ego"]
    still = scene()
    still.position[:] = still.position[:, :1]  # the distance is a rule for vehicles only
    assert targets_of(still, TargetFilter(kinds=(VEHICLE, PEDESTRIAN)))[0] == ["walker"]
    with pytest.raises(InputError, match="TRUCK"):
        TargetFilter(kinds=("TRUCK",))


def test_padding_does_not_count_as_absence():
    scenario = random_scenario(frames=62)
    scenario.valid[0, 41:] = False
    (window,) = windows(scenario, MINI)
    assert window.valid[0].sum() == 41 and "a0" in targets_of(window, TargetFilter(valid_share=41 / 62))[0]
    assert "a0" not in targets_of(window, TargetFilter(valid_share=42 / 62))[0]


def test_distance_is_counted_over_gaps():
    scenario = driving(current=20)
    scenario.valid[0, 1::2] = False
    scenario.position[0, 1::2] = 0
    assert targets_of(scenario, TargetFilter(moving_distance=79.9))[0] == ["car"]
    assert targets_of(scenario, TargetFilter(moving_distance=80.1))[0] == []


def test_a_request_is_followed_but_for_kind_and_presence():
    chosen, skipped = targets_of(scene(to_predict=("parked", "short", "walker", "late", "gone", "nobody")))
    assert chosen == ["parked", "short"]
    assert dict(skipped) == {
        "is of another kind": 1,
        "is not there at the current frame": 1,
        "is not there in the future": 1,
        "is to be predicted, but is not in the record": 1,
    }
    assert targets_of(scene(to_predict=("parked",)), TargetFilter(as_recorded=False))[0] == ["car", "ego"]


def test_an_empty_request_is_none():
    assert targets_of(scene(to_predict=())) == targets_of(scene())


def test_only_the_ego():
    select = TargetFilter(only_ego=True)
    assert targets_of(scene(to_predict=("car",)), select)[0] == ["ego"]
    assert dict(targets_of(scene(ego=None), select)[1]) == {"the record does not say who its ego is": 1}


def test_the_filter_leaves_the_last_future_frame_valid():
    window = scene()
    targets_of(window)
    assert window.valid[0, 80]


def test_a_scenario_that_is_no_window_has_no_targets():
    with pytest.raises(InputError, match="cut it into windows"):
        targets_of(driving())


def test_both_profiles_cut_the_same_windows():
    both = [list(windows(random_scenario(frames=150), p, every=1.0)) for p in (MINI, PAPER_AUTOBOT)]
    assert len(both[0]) > 3
    for mini, paper in zip(*both, strict=True):
        assert np.array_equal(mini.position, paper.position) and mini.start == paper.start
