"""Two processes of a launcher on one model: what they make and train is what one makes and trains."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tarot.features import FeatureStore
from tarot.workers import team
from tarot.workers.launched import Team
from tasks.common.cache import read_tensors
from tests.experiments.running import ROOT, command, places
from tests.experiments.selection.test_instruction_selected import SMALL

ASKED = (
    *SMALL,
    "task.language.layers=2",
    "task.surrogate.train.batch_size=8",
    "task.train.steps=3",
    "task.adapter.dropout=0",
    "features.batch_size=7",  # whose halves are unequal
    "selector=tarot_fixed",
    "selector.size=6",
    "experiment.trainings=1",
    "experiment.arms=[]",
    "experiment.tsne_points=0",
)


TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node=2")
ACCELERATE = (
    "accelerate.commands.accelerate_cli",
    "launch",
    "--multi_gpu",  # processes without a GPU, too
    "--num_processes=2",
    "--num_machines=1",
    "--mixed_precision=no",
    "--dynamo_backend=no",
    "--main_process_port=0",
)


def the(folder: Path, pattern: str) -> Path:
    """The only one."""
    (found,) = folder.glob(pattern)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "preconditioner"),
    [(TORCHRUN, "null"), (TORCHRUN, "adam"), (ACCELERATE, "null")],
    ids=["torchrun", "torchrun, Adam", "accelerate"],
)
def test_two_processes_are_as_good_as_one(tmp_path, launcher, preconditioner):
    pytest.importorskip(launcher[0].partition(".")[0])
    asked = [*ASKED, f"features.preconditioner={preconditioner}"]
    alone, both = tmp_path / "alone", tmp_path / "both"
    metrics = command(alone, *asked).metrics
    given = [*asked, "task.language.shard=fsdp", *places(both, "run")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}  # where accelerate keeps its settings
    command_line = [sys.executable, "-m", *launcher, str(ROOT / "run.py"), *given]
    subprocess.run(command_line, cwd=tmp_path, env=environment, check=True, timeout=600)
    for kind in ("checkpoints", "models"):
        one, two = (read_tensors(the(folder / "cache" / kind, "*.safetensors"))[0] for folder in (alone, both))
        for name in one:
            torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-6)
    for split in ("candidates", "targets"):
        stores = (the(folder / "cache" / "features", f"instruction-{split}-*") for folder in (alone, both))
        one, two = (np.asarray(FeatureStore.open(store)[:]) for store in stores)
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-4 * np.abs(one).max())
    found = (both / "run" / "metrics.json").read_text()
    assert f'"loss": {metrics["metrics"]["loss"]:.4f}'[:-1] in found


def test_of_one_process_a_team_is_nothing_special():
    alone = team()
    assert (alone.rank, alone.size, alone.together) == (0, 1, False)
    assert alone.call(divmod, 7, 3) == (2, 1)
    alone.dismiss()
    tensor = torch.ones(3)
    alone.add_up([tensor])
    assert tensor.tolist() == [1, 1, 1]


def test_a_team_that_has_lost_one_another_is_not_waited_for(monkeypatch):
    """As the leader of two, whose follower hears nothing of this."""
    monkeypatch.setattr("torch.distributed.broadcast_object_list", lambda told, src: None)
    leader = Team(0, 2)
    assert leader.call(divmod, 7, 3) == (2, 1)
    assert leader.call(lambda: leader.together and leader.call(divmod, 7, 3)) == (2, 1), "within a call each is alone"
    with pytest.raises(ZeroDivisionError):
        leader.call(divmod, 7, 0)
    with pytest.raises(ChildProcessError, match="have lost one another"):
        leader.call(divmod, 7, 3)
    leader.dismiss()


def test_weights_are_not_shared_out_in_one_process(tmp_path):
    outcome = command(tmp_path, *ASKED, "task.language.shard=fsdp")
    assert outcome.code == 1 and "torchrun --nproc-per-node=2 run.py" in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1
