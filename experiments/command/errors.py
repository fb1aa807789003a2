"""Errors that the user can mend become one line; a bug keeps its traceback."""

from __future__ import annotations

import difflib
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hydra.errors import HydraException, InstantiationException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

_CONF = Path(__file__).parents[2] / "conf"
_READER_ENDED = re.compile(r"DataLoader worker .* (is killed by signal|exited unexpectedly)")


class JobFailed(Exception):
    """A job of a sweep that failed, and said so, for a reason that the user can mend; it may come from a worker."""


def message_of(error: BaseException) -> str | None:
    """One line that says what to mend, or None where the error is not the user's."""
    from tarot import InputError

    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, MissingConfigException) and cause.options:
            return _no_such_config(cause.missing_cfg_file or "", cause.options)
        if isinstance(cause, InputError):
            return _one_line(cause)
        if isinstance(cause, JobFailed):
            return f"a job of the sweep failed: {cause}"
        if type(cause).__name__ == "OutOfMemoryError" or isinstance(cause, MemoryError) or _no_memory(cause):
            return f"out of memory: {_one_line(cause)} (try a smaller features.batch_size or features.dim)"
        if isinstance(cause, RuntimeError) and _READER_ENDED.match(str(cause)):
            return (
                f"a process that reads samples was ended from outside, as it is where memory ends: {_one_line(cause)} "
                "(try fewer features.workers or task.workers, or 0)"
            )
    for cause in causes:
        if isinstance(cause, OSError):
            return _one_line(cause)
    if isinstance(causes[0], InstantiationException) and isinstance(causes[-1], TypeError):  # an option's name or type
        where = re.search(r"full_key: (\S+)", str(causes[-2]))
        return f"{where[1]}: {_one_line(causes[-1])}" if where else _one_line(causes[-1])
    if isinstance(causes[0], HydraException | OmegaConfBaseException):
        return _no_such_option(causes) or _one_line(causes[0])
    return None


def message_of_hydra(error: BaseException, run: Callable[..., object]) -> str | None:
    """One line for whatever Hydra came upon before it called `run`, which is what the command line says; None for what
    came up inside of it."""
    code = getattr(run, "__wrapped__", run).__code__
    if any(frame.f_code is code for frame, _ in traceback.walk_tb(error.__traceback__)):
        return None
    return f"what the command line asks for cannot be composed: {_one_line(error) or type(error).__name__}"


def _no_such_config(asked: str, options: Sequence[str]) -> str:
    """asked: as Hydra looked for it, such as task/instruction/file. options: of the outermost group."""
    group, _, name = asked.partition("/")
    inner = name.rpartition("/")[0]
    if ".." in inner:
        inner = ""  # nothing outside is listed
    beside = [f"{inner}/{path.stem}" for path in sorted((_CONF / group / inner).glob("*.yaml"))] if inner else []
    return f"there is no {group} {name!r}; there are {', '.join(beside or options)}"


def _no_such_option(causes: Sequence[BaseException]) -> str | None:
    """Where an override names an option that there is not: those that there are in its place."""
    found = re.match(r"Could not override '([^']+)'", str(causes[0]))
    if found is None:
        return None
    place, _, name = found[1].rpartition(".")
    parents = (cause.parent_node for cause in causes if isinstance(cause, OmegaConfBaseException))
    known = [str(key) for parent in parents if isinstance(parent, DictConfig) for key in parent if str(key)[0] != "_"]
    if not known:
        return None
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"there is no option {found[1]}; do you mean {'.'.join([*([place] if place else []), near[0]])}?"
    return f"there is no option {found[1]}; {place or 'a run'} has {', '.join(known)}"


def is_interrupt(error: BaseException) -> bool:
    """Whether the user stopped the program. Hydra may come upon another error as it is stopped."""
    return any(isinstance(cause, KeyboardInterrupt) for cause in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and all that was being handled when it came up."""
    left, seen = [error], set()
    while left:
        cause = left.pop()
        if id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            left += [before for before in (cause.__cause__, cause.__context__) if before is not None]


def _no_memory(error: BaseException) -> bool:
    """Whether torch could not allocate on a CPU, which it says in words alone."""
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what caused it, what caused that, ..."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
