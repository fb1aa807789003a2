"""What a run leaves for those who train elsewhere, and rows of similar length that go through the model together."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from tarot import InputError, Selection

pytest.importorskip("peft")

import hydra

from experiments.stages import Workbench
from tasks.instruction.reading import read_rows
from tasks.instruction.selected import write_selected
from tests.experiments.command.test_configs import composed
from tests.experiments.command.test_errors import refused
from tests.experiments.running import Outcome, command

SMALL = (
    "task=instruction",
    "task.data.candidates=40",
    "task.data.targets=9",
    "task.data.validation=3",
    "task.data.test=3",
    "task.data.general_rows=60",
    "task.language.hidden=16",
    "task.language.layers=1",
    "task.language.intermediate=24",
    "task.pretraining.steps=2",
    "task.surrogate.checkpoints=1",
    "task.surrogate.train.epochs=1",
    "task.train.steps=1",
    "task.adapter.rank=2",
    "features.dim=16",
    "device=cpu",
)


def written(path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def selection(indices: list[int], distances: list[float]) -> Selection:
    found = Selection(np.array(indices, dtype=np.int64), 4, 2, {"name": "test"})
    for name, values in (
        ("weights", np.arange(1, len(indices) + 1)),
        ("nearest_target", np.array(indices) % 2),
        ("nearest_distance", np.array(distances)),
    ):
        found._remember(name, values)
    return found


def test_rows_are_unchanged(tmp_path):
    raw = [
        {
            "id": 7,
            "messages": [{"role": "user", "content": "a\u2028b\x85c"}, {"role": "assistant", "content": "更 🙂"}],
        },
        {"prompt": "left", "completion": "out"},
        {"completion": "y", "prompt": "x", "score": 1.0, "more": [{"deep": None}]},
        {"prompt": "x", "completion": "y", "note": "\ud83d"},
    ]
    source, path = tmp_path / "a.jsonl", tmp_path / "selected.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in raw))
    write_selected(read_rows(source), ["t0", "t1"], selection([0, 2, 3], [0.25, 0.5, np.inf]), path)
    found = written(path)
    assert [{k: v for k, v in row.items() if k in raw[i]} for row, i in zip(found, (0, 2, 3), strict=True)] == [
        raw[0],
        raw[2],
        raw[3],
    ]
    assert [(row["weight"], row["nearest_target"], row["distance"]) for row in found] == [
        (1, "t0", 0.25),
        (2, "t0", 0.5),
        (3, "t1", None),
    ]
    assert [list(row)[-3:] for row in found] == [["weight", "nearest_target", "distance"]] * 3
    assert len(path.read_text(encoding="utf-8").splitlines()) == 3  # for programs that take U+2028 for a line's end
    assert "更 🙂" in path.read_text(encoding="utf-8")


def test_names_that_rows_have_already(tmp_path):
    source, path = tmp_path / "a.jsonl", tmp_path / "selected.jsonl"
    source.write_text('{"prompt": "x", "completion": "y", "weight": "5 kg"}\n{"prompt": "x", "completion": "z"}\n' * 2)
    write_selected(read_rows(source), ["t0", "t1"], selection([0, 1], [0.1, 0.2]), path)
    assert [row.get("weight") for row in written(path)] == ["5 kg", None]
    assert [row["tarot_weight"] for row in written(path)] == [1, 2]
    assert [row["distance"] for row in written(path)] == [0.1, 0.2]
    write_selected(read_rows(source), [], selection([], []), path)
    assert path.read_bytes() == b""


RUN = (*SMALL, "selector=tarot_fixed", "selector.size=6", "experiment.trainings=1", "experiment.tsne_points=30")


@pytest.fixture(scope="module")
def outcome(tmp_path_factory) -> Outcome:
    return command(tmp_path_factory.mktemp("run"), *RUN)


def test_a_run_writes_what_it_selected(outcome):
    assert outcome.metrics["selection"]["size"] == 6
    chosen, rows = Selection.load(outcome.output / "selection.parquet"), written(outcome.output / "selected.jsonl")
    assert [row["id"] for row in rows] == chosen.ids.tolist()
    assert [row["id"] for row in written(outcome.output / "selected.messages.jsonl")] == chosen.ids.tolist()
    assert [row["weight"] for row in rows] == chosen.weights.tolist()
    assert [row["distance"] for row in rows] == chosen.nearest_distance.tolist()
    assert [row["nearest_target"] for row in rows] == [f"targets_{i}" for i in chosen.nearest_target]
    assert all({turn["role"] for turn in row["messages"]} == {"user", "assistant"} for row in rows)
    assert [row.id for row in read_rows(outcome.output / "selected.jsonl")] == chosen.ids.tolist()  # and can be read


def test_without_trainings_a_run_ends_with_the_selection(outcome):
    """Everything about it is there; nothing was trained on it."""
    folder = outcome.output.parent
    before = set((folder / "cache" / "models").iterdir())
    alone = command(folder, *RUN, "experiment.trainings=0", "selector.size=5", name="alone")
    assert set((folder / "cache" / "models").iterdir()) == before
    assert alone.metrics["metrics"] == {} and alone.metrics["selection"]["size"] == 5
    assert set(alone.metrics["arms"]) == {"random", "all"} and "train" not in alone.metrics["seconds"]
    assert "to train" not in alone.out and "selected 5 of 40" in alone.out
    assert "to train: 3 models, 1 on each of tarot_fixed (6 candidates), random (6 candidates), all (40" in outcome.out
    known = pq.read_table(alone.output / "scores.parquet").to_pydict()
    rows = written(alone.output / "selected.jsonl")
    assert [name for name, chosen in zip(known["id"], known["selected"], strict=True) if chosen] == [
        row["id"] for row in rows
    ]
    assert len(known["id"]) == 40 and sum(known["weight"]) == sum(row["weight"] for row in rows)
    assert {row["nearest_target"] for row in rows} <= set(known["nearest_target_id"])


def test_what_is_selected_is_there_before_anything_is_trained(outcome, monkeypatch):
    def fail(*_):
        raise InputError("no more")

    monkeypatch.setattr(Workbench, "train", fail)
    failed = command(outcome.output.parent, *RUN, "selector.size=4", name="failed")
    assert failed.code == 1 and failed.err == "error: no more\n"
    assert len(written(failed.output / "selected.jsonl")) == 4
    assert {"selection.parquet", "scores.parquet"} <= {path.name for path in failed.output.iterdir()}


def test_a_tasks_total_gives_way_to_a_larger_selection_and_the_users_does_not(outcome):
    folder = outcome.output.parent
    for share, name, total in ((0.1, "fewer", 6), (0.25, "more", 10)):  # 4 and 10 of 40
        found = command(folder, *RUN, f"task.total_share={share}", name=name)
        weights = [row["weight"] for row in written(found.output / "selected.jsonl")]
        assert len(weights) == 6 and sum(weights) == total
        assert found.metrics["arms"]["all"]["selection"]["size"] == 40
    refused(command(folder, *RUN, "task.total_share=0.1", "experiment.total=4", name="told"), "total 4 is less than")


def test_features_do_not_depend_on_which_rows_go_together(tmp_path):
    found, padded = {}, {}
    for kind in ("by length", "in order"):
        config = composed(*SMALL, "features.batch_size=5", f"cache_dir={tmp_path / 'shared'}")
        task, recipe = (hydra.utils.instantiate(config[key]) for key in ("task", "features"))
        if kind == "in order":
            task.cost = None
        task.collate, padded[kind] = _counting(task.collate)
        made = Workbench(task, recipe, tmp_path / kind, "cpu").features()
        found[kind] = [np.asarray(rows[:]) for rows in (*made.candidates, *made.targets)]
    for one, other in zip(*found.values(), strict=True):
        assert np.abs(one).max() > 0
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(other).max())
    assert len(padded["by length"]) < len(padded["in order"])
    assert sum(padded["by length"]) < sum(padded["in order"])


def _counting(collate):
    """The same, and the list of how many tokens its batches hold with their padding."""
    sizes: list[int] = []

    def counted(samples):
        batch = collate(samples)
        sizes.append(batch["input_ids"].numel())
        return batch

    return counted, sizes
