"""nuScenes's prediction challenge, from the command line."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tasks.motion.formats.scenarionet_writer import write_database
from tasks.motion.simulator.scenes import simulate
from tasks.motion.submission import read_submission
from tests.experiments.command.test_errors import refused
from tests.experiments.running import command


@pytest.fixture(scope="module")
def options(tmp_path_factory) -> list[str]:
    root = tmp_path_factory.mktemp("databases")
    scenes = {name: [simulate(name, seed, name=f"{name}{seed}") for seed in range(3)] for name in ("crossing", "merge")}
    write_database(root / "waymo", scenes["crossing"])
    write_database(root / "train", scenes["merge"])
    held = [simulate("merge", 5 + i, name=f"scene{i}_{'a' * 32}_{i:032x}") for i in range(2)]
    write_database(root / "lost", held)
    write_database(root / "several", [replace(scene, origin=(600.0, 1600.0)) for scene in held])
    one = [replace(scene, origin=(600.0, 1600.0), to_predict=scene.to_predict[:1]) for scene in held]
    write_database(root / "val", one)
    return [
        "experiment=submission", "task=motion", "selector=tarot_fixed", "selector.ratio=0.5", "features.dim=8",
        "device=cpu", "~task.data", "+task.data._target_=tasks.motion.Databases", "+task.data.target=nuscenes",
        f"+task.data.candidates.waymo={root / 'waymo'}", f"+task.data.targets={root / 'train'}",
        f"+task.data.held_out={root / 'val'}", "+task.data.scene_fields=2", "task.train.steps=2",
        "task.train.batch_size=4", "task.surrogate_train.steps=2", "task.surrogate_train.batch_size=4",
    ]  # fmt: skip


def test_a_run_writes_what_the_challenge_takes(tmp_path, options):
    found = command(tmp_path, *options)
    assert found.code == 0, found.out + found.err
    forecasts = read_submission(found.output / "submission.json")
    assert found.metrics["agents"] == len(forecasts) == 2
    assert {(f.instance, f.sample) for f in forecasts} == {("a" * 32, f"{i:032x}") for i in (0, 1)}
    assert (found.output / "report.html").exists() and (found.output / "selection.parquet").exists()


def test_what_cannot_be_submitted_is_refused_before_anything_is_trained(tmp_path, options):
    for name, words in (("lost", "cannot be placed on nuScenes's map"), ("several", "several forecasts")):
        refused(command(tmp_path, *(option.replace("/val", f"/{name}") for option in options)), words)
    refused(command(tmp_path, "experiment=submission", "task=digits"), "needs a MotionTask")
    refused(command(tmp_path, *options, "experiment.training=-1"), "experiment.training")
    assert not (tmp_path / "cache" / "checkpoints").exists()
