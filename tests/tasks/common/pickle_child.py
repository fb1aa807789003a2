"""Reads pickles that are made to do harm: `main`, for a process of its own.

Prints a line before each file and one after it, as JSON: what it is, what came of it, seconds of the processor and
megabytes of memory at the most. Ends at once where one takes a minute or half a gigabyte. Runs in FOLDER.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import re
import resource
import sys
import time
from pathlib import Path

from tarot import InputError
from tasks.common.safe_pickle import load_keys, load_pickle
from tasks.motion.formats.scenarionet import read_scenario
from tests.tasks.common.hostile_pickles import mutated, write_all

ROOM = 512 * 2**20


def _status(field: str) -> int:
    """Bytes, of this process: VmHWM is its largest memory so far, VmRSS what it has now, VmSize its addresses."""
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def outcome(read, path: str) -> str:
    try:
        read(path)
    except InputError as error:
        message = str(error)
        return "refused" if "\n" not in message and Path(path).name in message and len(message) < 1000 else message
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "read"


def load(path: str) -> None:
    """Reads the file, and uses what it holds."""
    str(load_pickle(path, max_bytes=2**28))


def load_outline(path: str) -> None:
    """Reads the keys, and compares them where the whole can be read, too."""
    found = load_keys(path, max_bytes=2**28)
    try:
        whole = load_pickle(path, max_bytes=2**28)
    except InputError:  # for what is wrong with a value
        assert isinstance(found, dict) and set(found.values()) == {None}
        return
    assert list(found) == list(whole) if isinstance(whole, dict) else type(found) is type(whole)


def measured(what: str, read, path: str) -> None:
    print(json.dumps({"begins": what}), flush=True)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the largest memory is counted from here
    before, began = _status("VmRSS"), time.process_time()
    faulthandler.dump_traceback_later(60, exit=True)
    result = outcome(read, path)
    faulthandler.cancel_dump_traceback_later()
    seconds, memory = time.process_time() - began, _status("VmHWM") - before
    line = {"what": what, "outcome": result, "seconds": seconds, "megabytes": memory / 2**20}
    print(json.dumps(line), flush=True)


def main(folder: Path, count: int, output: Path) -> None:
    """count: of mutated files. output: what it prints to, errors beside it."""
    sys.stdout, sys.stderr = (open(path, "w") for path in (output, output.with_suffix(".err")))  # noqa: SIM115
    os.chdir(folder)
    limit = _status("VmSize") + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    gc.freeze()  # what is imported is not searched each time
    named = write_all(".")
    for what, file in named:
        measured(what, load, file)
    for what, file in named:
        measured(f"{what}, as a scenario", read_scenario, file)
    for what, file in named:
        measured(f"{what}, its keys", load_outline, file)
    faulthandler.dump_traceback_later(300, exit=True)
    for at, content in enumerate(mutated(count)):
        Path("sd_mutated.pkl").write_bytes(content)
        results = {outcome(read, "sd_mutated.pkl") for read in (load, load_outline)}
        for result in results - {"refused", "read"}:
            Path(f"failed_{at}.pkl").write_bytes(content)
            print(json.dumps({"mutated": at, "outcome": result}), flush=True)
    print(json.dumps({"mutations": count}), flush=True)
