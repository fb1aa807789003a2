"""The traffic simulator: reproducible, physical, connected, and mirrored exactly."""

from __future__ import annotations

import hashlib
from dataclasses import fields, replace

import numpy as np
import pytest

from tarot import InputError
from tasks.motion.formats.scenario import Scenario
from tasks.motion.simulator import scenes as sim_scenes
from tasks.motion.simulator.databases import CANDIDATES, SHARES, database
from tasks.motion.simulator.scenes import RECIPES, overlaps, simulate

SEEDS = range(2)


@pytest.fixture(scope="module")
def scenes() -> dict[str, list[Scenario]]:
    return {name: [simulate(name, seed) for seed in SEEDS] for name in RECIPES}


def everything(scene: Scenario) -> bytes:
    parts = [getattr(scene, field.name) for field in fields(scene)]
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    arrays += [line.xy for line in scene.map] + [light.stop for light in scene.lights]
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    texts = [part for part in parts if not isinstance(part, np.ndarray) and part not in (scene.map, scene.lights)]
    texts += [(line.name, line.kind, line.entries, line.exits) for line in scene.map]
    digest.update(repr((texts, [(light.lane, light.states) for light in scene.lights])).encode())
    return digest.digest()


@pytest.mark.parametrize("name", ["merge", "roundabout_mirrored", "crossing_sporty", "parking"])
def test_the_same_seed_gives_identical_bytes(scenes, name):
    assert everything(simulate(name, 0)) == everything(scenes[name][0])
    assert everything(simulate(name, 5)) != everything(scenes[name][0])


def test_records_have_the_format_s_shapes(scenes):
    for scene in (scene for several in scenes.values() for scene in several):
        count = len(scene.agents)
        assert scene.frames == 81 and scene.current == 20 and scene.dt == 0.1
        assert scene.position.dtype == np.float64 and scene.position.shape == (count, 81, 2)
        for array, tail in ((scene.heading, ()), (scene.velocity, (2,)), (scene.size, (3,))):
            assert array.dtype == np.float32 and array.shape == (count, 81, *tail)
            assert not array[~scene.valid].any()
        assert not scene.position[~scene.valid].any() and np.isfinite(scene.position).all()
        assert scene.valid.dtype == bool and scene.valid.any(1).all()
        assert 1 <= len(scene.to_predict) <= 2 and scene.ego in scene.to_predict
        assert len(set(scene.agents)) == count and set(scene.kinds) == {"VEHICLE"}


def test_vehicles_to_predict_are_there_and_move(scenes):
    for scene in (scene for several in scenes.values() for scene in several):
        for name in scene.to_predict:
            row = scene.agent(name)
            assert scene.valid[row].all()
            assert np.hypot(*np.diff(scene.position[row], axis=0).T).sum() > 2


def test_no_two_vehicles_are_at_the_same_place(scenes):
    for scene in (scene for several in scenes.values() for scene in several):
        assert not overlaps(scene.position, scene.heading, scene.size.max(1), scene.valid).any(), scene.name


def test_overlap_is_that_of_turned_rectangles():
    size = np.array([[4.0, 2.0], [4.0, 2.0]])

    def meet(apart, turned):
        position = np.array([[[0.0, 0.0]], [apart]])
        return overlaps(position, np.array([[0.0], [turned]]), size, np.ones((2, 1), bool))[0, 1]

    assert meet([3.9, 0.0], 0.0) and not meet([4.1, 0.0], 0.0)
    assert meet([0.0, 1.9], 0.0) and not meet([0.0, 2.1], 0.0)
    assert meet([2.9, 0.0], np.pi / 2) and not meet([3.1, 0.0], np.pi / 2)
    corner = 2 + (2 + 1) / np.sqrt(2)  # the other, turned by 45 degrees, points a corner at the first one's front
    assert meet([corner - 0.1, 0.4], np.pi / 4) and not meet([corner + 0.1, 0.4], np.pi / 4)
    position = np.zeros((2, 1, 2))
    assert not overlaps(position, np.zeros((2, 1)), size, np.array([[True], [False]])).any()


@pytest.mark.parametrize("name", ["roundabout", "crossing"])
def test_a_mirrored_scene_is_the_reflection_in_the_vehicle_s_frame(scenes, name):
    for one, other in zip(scenes[name], scenes[f"{name}_mirrored"], strict=True):
        assert one.agents == other.agents and one.to_predict == other.to_predict
        row = one.agent(one.to_predict[0])
        frames = []
        for scene in (one, other):
            centre, psi = scene.position[row, 20], float(scene.heading[row, 20])
            turn = np.array([[np.cos(psi), np.sin(psi)], [-np.sin(psi), np.cos(psi)]])
            heading = np.exp(1j * (scene.heading - psi))[scene.valid]
            frames.append(((scene.position - centre) @ turn.T, scene.velocity @ turn.T, heading, scene))
        shown, flip = one.valid, np.array([1, -1])
        assert np.array_equal(shown, other.valid)
        # headings are float32: 1e-7 of a radian, at some hundred metres
        np.testing.assert_allclose(frames[0][0][shown], frames[1][0][shown] * flip, atol=1e-4)
        np.testing.assert_allclose(frames[0][1][shown], frames[1][1][shown] * flip, atol=1e-4)
        np.testing.assert_allclose(frames[0][2], frames[1][2].conj(), atol=1e-6)
        assert [line.exits for line in one.map] == [line.exits for line in other.map]
        assert [light.states for light in one.lights] == [light.states for light in other.lights]


def test_a_mirror_is_exact_before_numbers_are_rounded(scenes):
    """The pose alone differs: turned back in float64, positions agree to a billionth of a metre."""
    scene = replace(scenes["roundabout"][0], heading=scenes["roundabout"][0].heading.astype(np.float64))
    plain, mirrored = (sim_scenes._posed(scene, mirror, np.random.default_rng(3)) for mirror in (False, True))
    angle = float(np.random.default_rng(3).uniform(-np.pi, np.pi))
    for valid, one, other in zip(scene.valid, plain.position, mirrored.position, strict=True):
        a, b = (np.diff(xy[valid], axis=0) @ [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
                for xy in (one, other))  # fmt: skip
        np.testing.assert_allclose(a, b * [1, -1], atol=1e-9)


def test_traffic_keeps_to_the_right_and_in_a_mirror_to_the_left(scenes):
    """Round the middle of a roundabout: counterclockwise, or the other way."""
    for name, sign in (("roundabout", 1), ("roundabout_large", 1), ("roundabout_mirrored", -1)):
        for scene in scenes[name]:
            rings = [line.xy for line in scene.map if line.name.startswith(("ring", "mouth"))]
            middle = np.concatenate(rings).mean(0)
            radius = np.hypot(*(rings[0][0] - middle))
            away = scene.position - middle
            spin = away[..., 0] * scene.velocity[..., 1] - away[..., 1] * scene.velocity[..., 0]
            inside = scene.valid & (np.hypot(*away.transpose(2, 0, 1)) < radius + 0.5)
            inside &= np.hypot(*scene.velocity.transpose(2, 0, 1)) > 1
            assert inside.any() and (spin[inside] * sign > 0).mean() > 0.95


def test_motion_is_physical(scenes):
    for name, several in scenes.items():
        for scene in several:
            for row in range(len(scene.agents)):
                valid = scene.valid[row]
                xy, heading = scene.position[row, valid], scene.heading[row, valid]
                velocity = scene.velocity[row, valid].astype(np.float64)
                speed = np.hypot(*velocity.T)
                assert speed.max() < 45, name
                measured = np.diff(xy, axis=0) / 0.1
                np.testing.assert_allclose(measured, (velocity[1:] + velocity[:-1]) / 2, atol=0.35, err_msg=name)
                acceleration = np.hypot(*np.diff(velocity, axis=0).T) / 0.1
                assert acceleration.max(initial=0) < 9, f"{name}: {acceleration.max()}"
                ahead = np.stack([np.cos(heading), np.sin(heading)], 1)
                along = np.abs((velocity * ahead).sum(1))[speed > 1] / speed[speed > 1]
                assert (along > 0.95).all(), f"{name}: a vehicle moves sideways"


def test_styles_differ(scenes):
    def speed(name):
        return np.mean([np.hypot(*scene.velocity[scene.valid].T).mean() for scene in scenes[name]])

    assert speed("freeway_sporty") > speed("freeway_calm") + 2 > speed("merge") > speed("parking") + 5


def test_lanes_are_connected_where_they_meet(scenes):
    for scene in (scene for several in scenes.values() for scene in several):
        lines = {line.name: line for line in scene.map}
        assert len(lines) == len(scene.map)
        for line in scene.map:
            assert line.kind in ("LANE_SURFACE_STREET", "LANE_FREEWAY") and line.xy.dtype == np.float32
            spacing = np.hypot(*np.diff(line.xy, axis=0).T)
            assert spacing.min() > 0.3 and spacing.max() < 1.3, (scene.name, line.name)
            for name in line.exits:
                assert line.name in lines[name].entries
                np.testing.assert_allclose(line.xy[-1], lines[name].xy[0], atol=0.05)
                one, other = line.xy[-1] - line.xy[-2], lines[name].xy[1] - lines[name].xy[0]
                assert one @ other > 0.8 * np.linalg.norm(one) * np.linalg.norm(other), "the way has a corner"
        assert any(line.exits for line in scene.map) == ("freeway" not in scene.name)


def test_a_mirror_keeps_who_is_whose_neighbour_and_merges_have_a_ramp(scenes):
    for scene in scenes["merge"]:
        lines = {line.name: line for line in scene.map}
        assert lines["ramp"].exits == ("taper",) and lines["taper"].exits == ("lane0b",)
        assert set(lines["lane0b"].entries) == {"lane0", "taper"}


def test_lights_are_exported_and_heeded(scenes):
    for name in ("crossing", "crossing_mirrored"):
        for scene in scenes[name]:
            assert len(scene.lights) == 4
            lines = {line.name: line for line in scene.map}
            for light in scene.lights:
                np.testing.assert_allclose(light.stop, lines[light.lane].xy[-1], atol=1e-4)
                assert len(light.states) == 81 and set(light.states) <= {
                    "LANE_STATE_GO", "LANE_STATE_CAUTION", "LANE_STATE_STOP"
                }  # fmt: skip
            for frame in range(81):
                green = [light.lane for light in scene.lights if light.states[frame] == "LANE_STATE_GO"]
                assert len(green) in (0, 2), "streets that cross have green together"
    assert not scenes["crossing_sporty"][0].lights


def test_nobody_passes_a_red_light():
    crossed = 0
    for seed in range(4):
        scene = simulate("crossing", seed)
        lines = {line.name: line for line in scene.map}
        for light in scene.lights:
            end = lines[light.lane].xy[-2:].astype(np.float64)
            ahead = (end[1] - end[0]) / np.linalg.norm(end[1] - end[0])
            away = scene.position - end[1]
            along, across = away @ ahead, np.abs(away @ [-ahead[1], ahead[0]])
            before = (along < 0) & (along > -10) & (across < 1) & scene.valid
            passes = before[:, :-1] & (along[:, 1:] >= 0) & scene.valid[:, 1:]
            for _, frame in np.argwhere(passes):
                crossed += 1
                assert light.states[frame] != "LANE_STATE_STOP"
    assert crossed


def test_tags_say_what_resembles_the_target(scenes):
    like = {name for name in RECIPES if scenes[name][0].tag == "target"}
    assert like == set(SHARES["target_train"]) == {"roundabout", "crossing", "merge"}
    assert all(scenes[name][0].tag == name for name in RECIPES if name not in like)


# --- databases -------------------------------------------------------------------------------------------------------


def test_databases_have_the_agents_and_shares_that_are_asked_for():
    scenes = database("cand_crossing", 41, 7)
    assert sum(len(scene.to_predict) for scene in scenes) == 41
    assert all(scene.dataset == "cand_crossing" for scene in scenes) and len({s.name for s in scenes}) == len(scenes)
    share = np.mean([scene.tag == "target" for scene in scenes])
    assert abs(share - 0.35) < 0.08
    assert set(CANDIDATES) == {"cand_highway", "cand_roundabout", "cand_crossing", "cand_parking", "cand_target"}
    assert {scene.tag for scene in database("cand_target", 20, 7)} == {"target"}


def test_databases_are_the_same_from_any_number_of_processes_and_another_of_another_name():
    shares = {"parking": 0.5, "freeway_calm": 0.5}
    one = database("a", 34, 3, shares=shares)
    two = database("a", 34, 3, shares=shares, processes=2)
    assert [everything(scene) for scene in one] == [everything(scene) for scene in two]
    assert everything(database("b", 1, 3, shares=shares)[0]) != everything(one[0])
    assert everything(replace(database("a", 2, 4, shares=shares)[0])) != everything(one[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: simulate("racetrack", 0), "no simulated scene is called 'racetrack'"),
        (lambda: simulate("merge", -1), "must be 0 or more"),
        (lambda: database("mine", 5, 0), "no simulated database is called 'mine'"),
        (lambda: database("mine", 5, 0, shares={"merge": 0.5}), "sum to 1"),
        (lambda: database("mine", 5, 0, shares={"racetrack": 1.0}), "there is no recipe racetrack"),
        (lambda: database("cand_parking", 0, 0), "agents >= 1"),
    ],
)
def test_wrong_wishes_are_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
