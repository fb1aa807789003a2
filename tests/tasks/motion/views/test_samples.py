"""Targets as a dataset: names, batches, parts and sums of it, what is drawn, and the cache."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from tarot import InputError
from tasks.common.cache import cached_arrays
from tasks.motion.views.profile import MINI, PAPER_AUTOBOT
from tasks.motion.views.samples import MotionSamples, cached_samples, samples_of
from tasks.motion.views.target_view import featurise
from tasks.motion.views.windows import TargetFilter, windows
from tests.tasks.motion.scenes import driving, random_scenario


def scenarios(n: int = 4):
    return [random_scenario(i, lanes=10 * i) for i in range(n)]


@pytest.fixture(scope="module")
def samples() -> MotionSamples:
    return samples_of(scenarios(), MINI)


def same(one, two) -> bool:
    return one.keys() == two.keys() and all(
        one[name].dtype == two[name].dtype and torch.equal(one[name], two[name]) for name in one
    )


def test_samples_are_the_features_of_their_targets(samples):
    assert len(samples) > 6
    for i, name in enumerate(samples.ids):
        dataset, scenario, agent = name.split("/")
        (window,) = windows(random_scenario(int(scenario[-1]), lanes=10 * int(scenario[-1])), MINI)
        expected = {key: torch.from_numpy(array) for key, array in featurise(window, agent, MINI).items()}
        assert dataset == "made" and same(samples[i], expected)
    assert same(samples[-1], samples[len(samples) - 1])
    with pytest.raises(IndexError):
        samples[len(samples)]


def test_a_batch_is_what_collating_makes(samples):
    order = [3, 0, 3]
    assert same(samples.batch(order), default_collate([samples[i] for i in order]))
    assert same(samples.batch(), default_collate(list(map(samples.__getitem__, range(len(samples))))))


def test_a_batch_is_nobodys_but_its_owners(samples):
    kept = {name: tensor.clone() for name, tensor in samples.batch().items()}
    for indices in (slice(None), [0, 1], np.arange(3)):
        for tensor in samples.batch(indices).values():
            tensor.zero_()
    for tensor in samples[0].values():
        tensor.zero_()
    assert same(samples.batch(), kept)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_batch_made_on_another_device_is_the_same(samples):
    made = samples.batch([4, 0, 2], "cuda")
    assert all(tensor.is_cuda for tensor in made.values())
    assert same({name: tensor.cpu() for name, tensor in made.items()}, samples.batch([4, 0, 2]))


def test_names_tell_dataset_scenario_agent_and_where_a_window_begins():
    scenario = driving(131, tag="ring", dataset="streets")
    cut = samples_of([scenario], MINI, every=2.5)
    assert cut.ids.tolist() == ["streets/drive/car@0", "streets/drive/car@25", "streets/drive/car@50"]
    assert cut.tags.tolist() == ["ring"] * 3 and cut.datasets.tolist() == ["streets"] * 3
    assert samples_of([scenario], MINI).ids.tolist() == ["streets/drive/car"]


def test_both_profiles_give_the_same_names_types_and_difficulties(samples):
    paper = samples_of(scenarios(), PAPER_AUTOBOT)
    assert np.array_equal(paper.ids, samples.ids) and np.array_equal(paper.types, samples.types)
    assert np.array_equal(paper.difficulty, samples.difficulty)


def test_what_is_left_out_is_counted():
    bad = replace(driving(name="bad"), problems={"frame broken": 3})
    still = driving(name="still", speed=0.0)
    made = samples_of([bad, still, driving()], MINI, skipped=Counter({"file unreadable": 2}))
    assert made.ids.tolist() == ["made/bad/car", "made/drive/car"]
    assert dict(made.skipped) == {
        "frame broken": 3,
        "agent does not move": 1,
        "window without a target": 1,
        "file unreadable": 2,
    }


def test_records_of_which_no_window_can_be_cut_are_counted():
    """One of another frame rate, or that ends before windows begin, does not stop all others."""
    records = [driving(name="slow", dt=0.5), driving(name="short", frames=60), driving(frames=131)]
    made = samples_of(records, MINI, start=60)
    assert [name.split("/")[1] for name in made.ids.tolist()] == ["drive"]
    assert made.skipped["record has a frame every 0.5 s; motion windows need one every 0.1 s"] == 1
    assert made.skipped["record has 60 frames: no window begins at 60"] == 1


def test_two_samples_of_one_name_are_refused():
    with pytest.raises(InputError, match="two motion samples are called made/drive/car"):
        samples_of([driving(), driving()], MINI)


def test_parts_and_sums(samples):
    some = samples.take([5, 1])
    assert some.ids.tolist() == samples.ids[[5, 1]].tolist() and same(some[0], samples[5])
    assert samples.take(samples.types == samples.types[0]).ids[0] == samples.ids[0]
    other = samples_of([driving()], MINI)  # a map with fewer lanes, none
    for both in (some + other, other + some):
        at = both.ids.tolist().index("made/drive/car")
        assert len(both) == 3 and same(both[at], other[0])
    assert (other + replace_skipped(other)).skipped == Counter({"x": 1})
    with pytest.raises(InputError, match="profile mini cannot stand beside"):
        samples + samples_of([driving()], PAPER_AUTOBOT)


def replace_skipped(samples: MotionSamples) -> MotionSamples:
    return MotionSamples(samples.profile, samples.arrays, {"x": 1})


def test_no_samples_at_all(samples):
    none = samples_of([], MINI)
    assert len(none) == len(samples.take([])) == 0
    assert none.batch()["agents"].shape == (0, 6, 5, 23) and none.batch()["lanes"].shape == (0, 24, 10, 29)
    assert same((none + samples)[2], samples[2]) and same((samples + none)[2], samples[2])


def test_back_to_the_frame_of_the_scenario(samples):
    for i, name in enumerate(samples.ids):
        _, scenario, agent = name.split("/")
        record = random_scenario(int(scenario[-1]), lanes=10 * int(scenario[-1]))
        row, valid = record.agent(agent), samples[i]["future_valid"].numpy()
        expected = record.position[row, 25::5][valid]
        np.testing.assert_allclose(samples.to_scene(i, samples[i]["future"][valid, :2].numpy()), expected, atol=1e-4)
        np.testing.assert_allclose(samples.frames.centre[i], record.position[row, 20])
        assert samples.frames.heading[i] == record.heading[row, 20]


def test_what_there_is_to_draw(samples):
    for i in range(len(samples)):
        scene, sample = samples.scene(i), samples[i]
        valid = sample["agents_valid"].numpy()
        assert np.array_equal(np.isfinite(scene.past[..., 0]), valid)
        assert np.array_equal(scene.past[valid], sample["agents"].numpy()[valid][:, :2])
        future = sample["future_valid"].numpy()
        assert np.array_equal(scene.futures[0][future], sample["future"].numpy()[future, :2])
        assert np.isnan(scene.futures[0][~future]).all()
        assert (
            abs(scene.heading[0]) < 1e-6 and scene.here[0] and scene.size[0].tolist() == pytest.approx([4.5, 1.9, 1.6])
        )
        counts = sample["lanes_valid"].sum(1).numpy()
        assert [len(lane) for lane in scene.lanes] == counts[counts > 0].tolist()
        for lane, points in zip(scene.lanes, sample["lanes"].numpy(), strict=False):
            assert np.array_equal(lane, points[: len(lane), :2])
        # where others go is not in what a model is given
        assert set(sample) == {"agents", "agents_valid", "lanes", "lanes_valid", "future", "future_valid"}


def test_samples_are_made_once_and_read_back(samples, tmp_path):
    path, calls = tmp_path / "motion" / "samples.npz", []

    def make():
        calls.append(1)
        return samples_of(scenarios(), MINI, select=TargetFilter())

    one, two = (cached_samples(path, MINI, make) for _ in range(2))
    assert len(calls) == 1
    for made in (one, two):
        assert made.ids.tolist() == samples.ids.tolist() and made.skipped == samples.skipped
        assert same(made.batch(), samples.batch()) and np.array_equal(made.types, samples.types)
    with np.load(path, allow_pickle=False) as file:
        assert all(file[name].dtype.kind != "O" for name in file.files)
    with pytest.raises(InputError, match="another profile than mini"):
        cached_samples(path, replace(MINI, spacing=1.0), make)
    for content in (b"half a file", path.read_bytes()[:-1]):
        path.write_bytes(content)
        assert cached_samples(path, MINI, make).ids.tolist() == samples.ids.tolist()
    assert len(calls) == 3, "what is damaged is made again"
    other = tmp_path / "other.npz"
    cached_arrays(other, lambda: {"ids": np.array(["a"])})
    with pytest.raises(InputError, match="does not hold motion samples"):
        cached_samples(other, MINI, make)


def test_a_target_without_a_future_is_none():
    scenario = driving()
    scenario.valid[0, 21:] = False
    made = samples_of([scenario], MINI)
    assert len(made) == 0 and made.skipped["agent is not there in the future"] == 1
