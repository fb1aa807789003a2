"""Which command runs, how it shows itself, and how it ends: 0, 1 for what the user can mend, 130 when interrupted."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence

import torch

import tarot
from tarot.cli import choosing, feature_files
from tarot.common import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; `arguments` default to those of the process. Returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        with _told_plainly(options.quiet):
            code: int = options.run(options)
            return code
    except KeyboardInterrupt as interrupt:
        print(f"\ninterrupted: {'; '.join(_notes(interrupt)) or 'nothing was written half'}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (InputError, OSError) as error:
        return _failed("; ".join([str(error), *_notes(error)]))
    except (MemoryError, torch.OutOfMemoryError) as error:
        return _failed(f"out of memory: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tarot",
        description="Targeted data selection by optimal transport, for features on disk: .npy, .npz, .safetensors, "
        ".pt, .parquet, a feature store, a TRAK run, or a bergson index.",
    )
    parser.add_argument("--version", action="version", version=f"tarot {tarot.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (
        choosing.add_select,
        choosing.add_value,
        feature_files.add_inspect,
        feature_files.add_verify,
        feature_files.add_convert,
    ):
        add(commands).add_argument("-q", "--quiet", action="store_true", help="no progress and no summary")
    return parser


@contextlib.contextmanager
def _told_plainly(quiet: bool) -> Iterator[None]:
    """Warnings as one line each, and no progress where it is not wanted."""
    before = os.environ.get("TAROT_PROGRESS")
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
        try:
            if quiet:
                os.environ["TAROT_PROGRESS"] = "0"
            yield
        finally:
            os.environ.pop("TAROT_PROGRESS", None)
            if before is not None:
                os.environ["TAROT_PROGRESS"] = before


def _notes(error: BaseException) -> list[str]:
    """What was said of it where it passed, such as what stays of a store."""
    notes: list[str] = getattr(error, "__notes__", [])
    return notes


def _failed(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 1
