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
_NO_NAME = re.compile(r"Config group override must be a string or a list")
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
        if isinstance(cause, FileExistsError | NotADirectoryError):
            return f"{cause.filename} is, or is below, a file where a folder is needed: give another path"
        if isinstance(cause, OSError):
            return _one_line(cause)
    if isinstance(causes[0], InstantiationException) and isinstance(causes[-1], TypeError):
        return _no_such_argument(causes)
    if isinstance(causes[0], HydraException | OmegaConfBaseException):
        return _no_such_option(causes) or _no_folder(causes[0]) or _one_line(causes[0])
    if isinstance(causes[0], ValueError) and _NO_NAME.match(str(causes[0])):
        return f"{_one_line(causes[0])}: what is chosen of a group has a name, as in task=digits or selector=less"
    return None


def message_of_hydra(error: BaseException, run: Callable[..., object]) -> str | None:
    """One line for whatever Hydra came upon before it called `run`, which is what the command line says; None for what
    came up inside of it."""
    code = getattr(run, "__wrapped__", run).__code__
    if any(frame.f_code is code for frame, _ in traceback.walk_tb(error.__traceback__)):
        return None
    return f"what the command line asks for cannot be composed: {_one_line(error) or type(error).__name__}"


def _no_such_argument(causes: Sequence[BaseException]) -> str:
    """Where what is built of a group has no option of that name, or an option has the wrong type."""
    where = re.search(r"full_key: (\S+)", str(causes[-2]))
    place = where[1] if where else ""
    unknown = re.search(r"unexpected keyword argument '(\w+)'", str(causes[-1]))
    if unknown:
        return f"there is no option {place}{'.' if place else ''}{unknown[1]}"
    return f"{place}: {_one_line(causes[-1])}" if place else _one_line(causes[-1])


def _no_folder(error: BaseException) -> str | None:
    """Where Hydra is to make the run's folder, and is given none."""
    if "full_key: hydra.run.dir" not in str(error):
        return None
    return "output_dir must be the path of a folder; it is null"


def _no_such_config(asked: str, options: Sequence[str]) -> str:
    """asked: as Hydra looked for it, such as task/instruction/file. options: of the outermost group."""
    from tarot.common import no_such

    group, _, name = asked.partition("/")
    inner = name.rpartition("/")[0]
    if ".." in inner:
        inner = ""  # nothing outside is listed
    beside = [f"{inner}/{path.stem}" for path in sorted((_CONF / group / inner).glob("*.yaml"))] if inner else []
    return no_such(group, name, beside or options)


def _no_such_option(causes: Sequence[BaseException]) -> str | None:
    """Where an override names an option that there is not: those that there are in its place."""
    found = re.match(r"Could not override '([^']+)'", str(causes[0]))
    if found is None:
        return None
    parents = (cause.parent_node for cause in causes if isinstance(cause, OmegaConfBaseException))
    parent = next((parent for parent in parents if isinstance(parent, DictConfig)), None)
    known = [] if parent is None else [str(key) for key in parent if str(key)[0] != "_"]
    if parent is None or not known:
        return None
    place = str(parent._get_full_key(None))  # what is there of the path; the part after it is not
    name = found[1].removeprefix(f"{place}.").partition(".")[0]
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
