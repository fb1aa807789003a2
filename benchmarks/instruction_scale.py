"""What the paper's size of instruction tuning takes, from slopes that are measured on smaller ones: memory and disk.

    python benchmarks/instruction_scale.py features             # the features stage at several numbers of rows: minutes
    python benchmarks/instruction_scale.py selection            # whitening and selection on stored features: minutes
    python benchmarks/instruction_scale.py features --files my.jsonl other.jsonl

The paper's size is 270,679 conversations, 8,192 dimensions in float16, 4 checkpoints. Each number of rows is measured
in a process of its own. Two peaks are told: the resident set (ru_maxrss), which counts the pages of stores that are
mapped, and which the system takes back when it likes; and, of it, the memory of the process' own (RssAnon, looked at
fifty times a second), which it cannot do without. A slope is the least squares' over the numbers of rows.

features: what `experiments.stages.Workbench.features` does for a language of two small layers, of which nothing
depends on the number of rows; conversations are those of --files, repeated, or made of code, cut to --length tokens.
selection: random features that are written to stores, one for each checkpoint, and averaged as they are read.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from own_memory import Memory

import tarot
from experiments.stages import FeatureRecipe, Workbench
from tarot.features import FeatureStore, MeanRows
from tasks.instruction import Adapter, Evaluation, InstructionTask, Language, Pretraining, Skills, Tuning, WarmUp
from tasks.instruction.data import Files
from tasks.instruction.reading import read_rows

PAPER = 270_679  # conversations: FLAN v2, CoT, Dolly, OASST1
TARGETS = 285  # MMLU's development questions; BBH's are 81
GIB = 2**30


@contextmanager
def measured(result: dict[str, float]) -> Iterator[None]:
    """Puts CPU seconds and both peaks, in bytes, into `result`."""
    memory, start = Memory(), time.process_time()
    memory.look()
    result["own before"] = memory.own
    memory.start()
    yield
    memory.look(), memory.done.set()
    result["CPU seconds"] = time.process_time() - start
    result["own"] = memory.own
    result["resident"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def disk(folder: Path, pattern: str) -> int:
    return sum(file.stat().st_size for file in folder.glob(pattern) if file.is_file())


# --- features --------------------------------------------------------------------------------------------------------


def task_of(rows: int, options: argparse.Namespace, folder: Path) -> InstructionTask:
    """Conversations of the files, or made of code: so many, from the first on again after the last, without ids, which
    would be there twice."""
    made = Skills(targets=round(TARGETS / 0.7)).rows(0, lambda row: True)
    raw = [row.raw for row in (read_rows(options.files) if options.files else made["candidates"])]
    with open(folder / "candidates.jsonl", "w") as file:
        for i in range(rows):
            file.write(json.dumps({key: value for key, value in raw[i % len(raw)].items() if key != "id"}) + "\n")
    (folder / "targets.jsonl").write_text("".join(json.dumps(row.raw) + "\n" for row in made["targets"]))
    candidates, targets = (str(folder / f"{name}.jsonl") for name in ("candidates", "targets"))
    tuning = Tuning(steps=options.checkpoints, batch_size=4)
    return InstructionTask(
        name="scale",
        data=Files(candidates, targets),  # of which three tenths are held out
        language=Language(hidden=64, layers=2, heads=2, key_heads=1, intermediate=64, context=options.length),
        adapter=Adapter(rank=32, alpha=128),
        train=tuning,
        surrogate=WarmUp(checkpoints=options.checkpoints, train=tuning),
        evaluation=Evaluation(),
        pretraining=Pretraining(steps=1, length=32),
        max_length=options.length,
        nothing_left="drop",
        cache_dir=folder,
        device="cpu",
    )


def features(rows: int, options: argparse.Namespace, folder: Path) -> dict[str, float]:
    task, found = task_of(rows, options, folder), {}
    checkpoints = task.checkpoints()
    recipe = FeatureRecipe(
        kind="wfd",
        gradient="loss",
        checkpoints="all",
        preconditioner=None,
        scores=None,
        influence={},
        dim=options.dim,
        projection="factored",
        projection_seed=0,
        aggregate="mean",
        whitening="cholesky",
        regularization=1e-3,
        dtype="float16",
        batch_size=64,
        autocast=None,
        on_nonfinite="raise",
        workers=0,
    )
    with measured(found):
        made = Workbench(task, recipe, folder, "cpu").features(checkpoints)
    assert made.dim == options.dim
    stores = disk(folder, "features/*-candidates-*/*")
    return {"rows": made.candidates[0].shape[0], **found, "disk": stores / options.checkpoints}


# --- selection -------------------------------------------------------------------------------------------------------


def stored(name: str, rows: int, options: argparse.Namespace, folder: Path) -> MeanRows:
    """Random features: directions that vary less and less, as gradients' do."""
    spread = torch.arange(1, options.dim + 1).float() ** -0.5

    def compute(start: int, stop: int) -> dict[str, torch.Tensor]:
        return {"features": torch.randn(stop - start, options.dim) * spread}

    ids = [f"{name}{i}" for i in range(rows)]
    return MeanRows(
        [
            FeatureStore.build(
                folder / f"{name}{c}", recipe={"c": c}, ids=ids, dim=options.dim, compute=compute, dtype="float16"
            )
            for c in range(options.checkpoints)
        ]
    )


def selection(rows: int, options: argparse.Namespace, folder: Path) -> dict[str, float]:
    if not options.ready:  # in another process, whose memory does not count
        stored("c", rows, options, folder), stored("t", TARGETS, options, folder)
        return {}
    candidates, targets = (
        MeanRows([FeatureStore.open(folder / f"{name}{c}") for c in range(options.checkpoints)]) for name in "ct"
    )
    found: dict[str, float] = {}
    with measured(found):
        whitening = None if options.plain else "cholesky"
        size = {} if options.selector == "tarot_otm" else {"ratio": 0.05}
        chosen = tarot.select(candidates, targets, options.selector, whitening=whitening, **size)
        chosen.save(folder / "selection.parquet")
    return {"rows": rows, **found, "disk": disk(folder, "c*/*") / options.checkpoints, "selected": len(chosen)}


# --- both ------------------------------------------------------------------------------------------------------------


def in_a_process(rows: int, folder: str, *more: str) -> dict[str, float]:
    command = [sys.executable, *sys.argv, "--measure", str(rows), "--folder", folder, *more]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["features", "selection"])
    parser.add_argument("--rows", type=int, nargs="+", default=[8_000, 16_000, 32_000])  # several shards
    parser.add_argument("--dim", type=int, default=8_192)
    parser.add_argument("--checkpoints", type=int, default=1, help="measured; the paper has 4")
    parser.add_argument("--length", type=int, default=64, help="features: most tokens of a conversation")
    parser.add_argument("--files", nargs="+", help="features: jsonl files of conversations")
    parser.add_argument("--selector", default="tarot_fixed", help="selection: of 5%%, or of its own size")
    parser.add_argument("--plain", action="store_true", help="selection: without whitening")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--ready", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    stage = {"features": features, "selection": selection}[options.stage]
    if options.measure:
        print(json.dumps(stage(options.measure, options, Path(options.folder))))
        return
    results = []
    print(f"{options.stage}, {options.dim:,} dims, float16, {options.checkpoints} checkpoints")
    print(
        f"{'rows':>9s}{'resident':>10s}{'own':>8s}{'before':>8s}{'disk':>8s}{'CPU s':>8s}   GiB; disk: a checkpoint's"
    )
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            if options.stage == "selection":
                in_a_process(rows, folder)
            found = in_a_process(rows, folder, "--ready")
        results.append(found)
        sizes = [found[name] / GIB for name in ("resident", "own", "own before", "disk")]
        print(
            f"{found['rows']:9,d}{sizes[0]:10.2f}{sizes[1]:8.2f}{sizes[2]:8.2f}{sizes[3]:8.3f}"
            f"{found['CPU seconds']:8.1f}" + (f"   selected {found['selected']:,}" if "selected" in found else ""),
            flush=True,
        )
    if len(results) < 2:
        return
    print(f"\nslope over rows, and what it makes of {PAPER:,} rows")
    scales = {"resident": ("KiB", 1024, "GiB", GIB), "CPU seconds": ("ms", 1e-3, "s", 1)}
    for name in ("resident", "own", "disk", "CPU seconds"):
        slope, start = np.polyfit([found["rows"] for found in results], [found[name] for found in results], 1)
        small, by_row, large, in_all = scales.get(name, scales["resident"])
        print(f"{name:12s}{slope / by_row:10.2f} {small} / row{(start + slope * PAPER) / in_all:12.2f} {large}")


if __name__ == "__main__":
    main()
