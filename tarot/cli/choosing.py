"""`tarot select` and `tarot value`: files of features in, a file of candidates or of values out."""

from __future__ import annotations

import argparse
import contextlib
import os
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tarot.api import select, value
from tarot.cli.selector_options import option_lines, selector_of
from tarot.common import InputError, atomic_file
from tarot.features import BAD_NPZ, BAD_PARQUET, NAMING, Rows, common_ids, existing_paths, open_features, read_vector
from tarot.selection import Selection
from tarot.selectors import Ordered
from tarot.space import WHITENINGS

_BUDGETS = {field.name for field in fields(Ordered)}
VALUES_FORMAT = "tarot.values/1"  # of the file that `tarot value` writes


def add_select(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "select",
        help="choose candidates to train on",
        description="Choose which candidates to train on, and how often to repeat each, to serve the targets.",
        epilog=f"selectors and their options (-o NAME=VALUE):\n{option_lines()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--selector", default="tarot_otm", metavar="NAME", help="the method (default: %(default)s)")
    parser.add_argument("--total", type=int, metavar="N", help="what the weights sum to (default: the method's)")
    _add_sides(parser)
    parser.add_argument("--size", metavar="S", help="how many candidates to select")
    parser.add_argument("--ratio", metavar="R", help="what share of the candidates to select, in (0, 1]")
    parser.add_argument("--ids", metavar="FILE", help="of the candidates (default: those in POOL)")
    add = parser.add_argument
    add("--candidate-costs", "--costs", metavar="FILE", help="of each candidate, for a budget by -o tokens=X")
    add("--candidate-sources", "--sources", metavar="FILE", help="of each, for -o quota=NAME:X,... and -o cap=...")
    parser.add_argument("--candidate-tags", metavar="FILE", help="which candidates are like the target, for `oracle`")
    parser.add_argument("--out", type=Path, default=Path("selection.parquet"), help="default: %(default)s")
    parser.set_defaults(run=run_select)
    return parser


def add_value(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "value",
        help="say what each candidate is worth",
        description="Say what every candidate is worth to the targets: higher is more valuable.",
        epilog=f"methods and their options (-o NAME=VALUE):\n{option_lines()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--method", required=True, metavar="NAME", help="such as lava, dsdm, knn_shapley")
    _add_sides(parser)
    parser.add_argument("--ids", metavar="FILE", help="of the candidates (default: those in POOL)")
    parser.add_argument(
        "--out", type=Path, default=Path("values.parquet"), help=".parquet or .npy; default: %(default)s"
    )
    parser.set_defaults(run=run_value)
    return parser


def _add_sides(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("pool", metavar="POOL", help="features of the candidates [N, d]; of several models: FILE,FILE,...")
    add("targets", metavar="TARGETS", help="features of the targets [M, d], as many files")
    add("--seed", metavar="I", help="of a method that draws")
    add("-o", "--option", action="append", default=[], metavar="NAME=VALUE", help="an option of the method; repeatable")
    whitenings = ["auto", *(name or "none" for name in WHITENINGS)]
    add("--whitening", choices=whitenings, default="auto", help="default: %(default)s")
    add("--regularization", type=float, metavar="X", help="ridge of the whitening (default: chosen)")
    norms = ["auto", "unit", "clip", "none"]
    add("--norm", choices=norms, default="auto", help="of rows before that (default: %(default)s)")
    add("--tensor", metavar="NAME", help="which tensor of .safetensors, .pt or .npz files with several")
    vector = "a .npy vector, or a text file with one value per line"
    add("--candidate-labels", "--labels", metavar="FILE", help=f"of the candidates: {vector}")
    add("--target-labels", metavar="FILE", help="of the targets")
    add("--target-groups", "--groups", metavar="FILE", help="the subtask of each target")
    add("--candidate-residuals", "--residuals", metavar="FILES", help="TRAK's Q of each, one file per model (dsdm)")
    add("--candidate-scores", "--scores", metavar="FILES", help="of each, one file per model (el2n, influence)")
    add(
        "--learning-rates", metavar="X,X,...", help="one per file of POOL, where they are of checkpoints (less, tracin)"
    )


def run_select(options: argparse.Namespace) -> int:
    _check_out(options, ".parquet")
    budget = [f"{name}={text}" for name, text in (("size", options.size), ("ratio", options.ratio)) if text is not None]
    selector = selector_of(options.selector, [*budget, *_method_options(options)])
    candidates, targets = _sides(options)
    n = candidates[0].shape[0]
    selection = select(
        candidates,
        targets,
        selector,
        total=options.total,
        candidate_ids=_ids(options, candidates),
        candidate_tags=read_vector(options.candidate_tags, "--candidate-tags", n),
        candidate_costs=_vector_of_numbers(options.candidate_costs, "--candidate-costs", n),
        candidate_sources=read_vector(options.candidate_sources, "--candidate-sources", n),
        **_known(options, n, targets[0].shape[0]),
    )
    selection.save(options.out)
    if not options.quiet:
        print(_summary(selection, options.out))
    return 0


def run_value(options: argparse.Namespace) -> int:
    _check_out(options, ".parquet", ".npy")
    given = _method_options(options)
    for name in (option.partition("=")[0] for option in given):
        if name in _BUDGETS:
            raise InputError(f"{name} says how much is selected, and every candidate is valued; leave it out")
    method = selector_of(options.method, given)
    candidates, targets = _sides(options)
    n = candidates[0].shape[0]
    ids = _ids(options, candidates)
    values = value(candidates, targets, method, **_known(options, n, targets[0].shape[0]))
    with atomic_file(options.out) as temporary:
        if options.out.suffix == ".npy":
            with open(temporary, "wb") as file:
                np.save(file, values)
        else:
            named = {} if ids is None else {"id": ids}
            table = pa.table({"index": np.arange(n), "value": values, **named})
            pq.write_table(table.replace_schema_metadata({"format": VALUES_FORMAT}), temporary)
    if not options.quiet:
        best = ", ".join(str(i if ids is None else ids[i]) for i in np.argsort(-values, kind="stable")[:5])
        print(f"valued {n} candidates from {values.min():.6g} to {values.max():.6g}; the highest: {best}")
        print(f"written to {options.out}")
    return 0


def _summary(selection: Selection, out: Path) -> str:
    size, bracket = len(selection), selection.ot_bracket
    exactly = "" if bracket.lower == bracket.upper else f" (at least {bracket.lower:.6g})"
    return "\n".join(
        [
            f"selected {size} of {selection.n} candidates for {selection.m} targets, weights sum to "
            f"{int(selection.weights.sum())}",
            f"OT distance {selection.ot_distance:.6g}{exactly}; no {size} candidates go below "
            f"{selection.lower_bound:.6g}",
            f"written to {out}",
        ]
    )


# --- the arguments ---------------------------------------------------------------------------------------------------


_FILES = (
    "pool",
    "targets",
    "ids",
    "candidate_labels",
    "target_labels",
    "target_groups",
    "candidate_residuals",
    "candidate_scores",
    "candidate_costs",
    "candidate_sources",
    "candidate_tags",
)
"""The arguments that are read from."""


def _check_out(options: argparse.Namespace, *suffixes: str) -> None:
    """Before the work begins, not after it: nothing that took longer to make is written over by mistake."""
    out: Path = options.out
    if out.suffix not in suffixes:
        raise InputError(f"--out must end in {' or '.join(suffixes)}; it is {out}")
    if out.is_dir():
        raise InputError(f"--out: {out} is a directory; name a file in it")
    above = next(folder for folder in out.absolute().parents if os.path.lexists(folder))
    if not above.is_dir():
        raise InputError(f"--out: {above} is a file, where a folder is needed for {out}")
    if not out.exists():
        return
    given = vars(options)
    read = [Path(part) for name in _FILES if given.get(name) for part in (given[name], *given[name].split(","))]
    if any(path.is_file() and path.samefile(out) for path in read):
        raise InputError(f"--out: {out} is read by this command, which would write over it; give another path")
    if kind_of(out) is None:
        raise InputError(f"--out: {out} is there, and no selection nor values; give another path, or delete it")


def kind_of(path: Path) -> Literal["selection", "values"] | None:
    """What of ours a .parquet or .npy file holds; None where it is another file."""
    if path.suffix == ".npy":
        with contextlib.suppress(*BAD_NPZ):
            vector = np.load(path, mmap_mode="r", allow_pickle=False)
            return "values" if vector.ndim == 1 and vector.dtype == np.float64 else None
        return None
    try:
        metadata = pq.read_schema(path).metadata or {}
    except BAD_PARQUET:
        return None
    if b"selection" in metadata:
        return "selection"
    return "values" if metadata.get(b"format") == VALUES_FORMAT.encode() else None


def _method_options(options: argparse.Namespace) -> list[str]:
    return [*([] if options.seed is None else [f"seed={options.seed}"]), *options.option]


def _sides(options: argparse.Namespace) -> tuple[list[Rows], list[Rows]]:
    """One matrix per model of the candidates, and of the targets."""
    paths = [_paths(options.pool, "POOL"), _paths(options.targets, "TARGETS")]
    if len(paths[0]) != len(paths[1]):
        raise InputError(f"POOL has {len(paths[0])} files and TARGETS {len(paths[1])}; give one per model on each side")
    if options.tensor is not None and not any(path.suffix in NAMING for side in paths for path in side):
        raise InputError(f"--tensor {options.tensor}: tensors have names in {', '.join(NAMING)} alone; leave it out")
    candidates, targets = ([_opened(path, options.tensor) for path in side] for side in paths)
    return candidates, targets


def _opened(path: Path, tensor: str | None) -> Rows:
    return open_features(path, tensor if path.suffix in NAMING else None)


def _paths(text: str, name: str) -> list[Path]:
    """Files with commas between them; a file that has a comma in its own name is one."""
    parts = [part for part in text.split(",") if part]
    if not parts:
        raise InputError(f"{name} must name a file; it is {text!r}")
    return existing_paths(text if Path(text).exists() else parts, name)


def _ids(options: argparse.Namespace, candidates: list[Rows]) -> NDArray[Any] | None:
    if options.ids is None:
        return common_ids(candidates, "POOL")
    path: str | None = options.ids
    return read_vector(path, "--ids", candidates[0].shape[0])


def _known(options: argparse.Namespace, n: int, m: int) -> dict[str, Any]:
    """What `tarot.select` and `tarot.value` are both told."""
    return {
        "whitening": None if options.whitening == "none" else options.whitening,
        "regularization": options.regularization,
        "norm": None if options.norm == "none" else options.norm,
        "candidate_labels": read_vector(options.candidate_labels, "--candidate-labels", n),
        "target_labels": read_vector(options.target_labels, "--target-labels", m),
        "target_groups": read_vector(options.target_groups, "--target-groups", m),
        "candidate_residuals": _numbers(options.candidate_residuals, "--candidate-residuals", n),
        "candidate_scores": _numbers(options.candidate_scores, "--candidate-scores", n),
        "learning_rates": _rates(options.learning_rates),
    }


def _numbers(text: str | None, name: str, length: int) -> list[NDArray[Any]] | None:
    """One vector of numbers per model."""
    if text is None:
        return None
    vectors = []
    for path in _paths(text, name):
        vector = read_vector(path, name, length)
        try:
            vectors.append(vector.astype(np.float64))
        except (TypeError, ValueError) as error:
            row = next(i for i, item in enumerate(vector) if not _is_number(item))
            raise InputError(f"{name}: {path} must hold numbers; row {row} is {str(vector[row])!r}") from error
    return vectors


def _is_number(item: Any) -> bool:
    try:
        float(item)
    except (TypeError, ValueError):
        return False
    return True


def _vector_of_numbers(text: str | None, name: str, length: int) -> NDArray[Any] | None:
    found = _numbers(text, name, length)
    return None if found is None else found[0]


def _rates(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"--learning-rates must be numbers with commas between them; they are {text!r}") from error
