"""Text and JSON of a file that somebody else wrote: read whole, or refused by a line that names the file."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from tarot.common.errors import InputError


def check_is_file(path: str | os.PathLike[str]) -> None:
    """Raises InputError for what cannot be read to its end: what is not there, folders, devices, and named pipes, which
    would be waited for."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError as error:
        raise InputError(f"{path} is not there") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be opened ({error})") from error
    if not stat.S_ISREG(mode):
        raise InputError(f"{path} is no file but a folder, a pipe or a device")


def read_text(path: str | os.PathLike[str]) -> str:
    """A text in UTF-8, without the mark for the order of bytes that some programs put first. Raises InputError where it
    is none, or cannot be read."""
    check_is_file(path)
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: {error.reason} at byte {error.start:,}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error


def read_json(path: str | os.PathLike[str]) -> Any:
    """The value that a JSON file holds, in any of JSON's encodings. Raises InputError where it is none, or cannot be
    read."""
    check_is_file(path)
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:  # a number of too many digits; brackets within brackets
        raise InputError(f"{path} is not JSON: {error}") from error
