"""Why transformers does not read a model or a tokenizer, in one line."""

from __future__ import annotations

import os
from pathlib import Path

from tarot import InputError
from tarot.common import first_line
from tasks.common.model_folders import refuse_odd_files


def reason(error: Exception) -> str:
    """The error's first line; where it asks for the code of a model's folder to be run, that this is not done."""
    if "trust_remote_code" in str(error):
        return "it needs code of its own to be run, which is not done; use a model of transformers' own classes"
    return first_line(error)


def refuse_no_folder(name: str | Path, option: str, *needed: str) -> None:
    """Raises InputError where a name is a path, and not one on the hub, and there is no folder, or one with none of the
    files of which it needs one; transformers would look for it on the hub."""
    path, what = Path(name), "give a folder in transformers' format, or a name on the hub"
    if path.is_dir():
        refuse_odd_files(path)
        if needed and not any((path / file).is_file() for file in needed):
            raise InputError(
                f"{option}: the folder {name} has no {' and no '.join(needed)}, so it is no model's; {what}"
            )
    elif path.exists():
        raise InputError(f"{option}: {name} is no folder; {what}")
    elif path.is_absolute() or str(name).startswith((".", "~")) or len(Path(name).parts) > 2 or os.sep == str(name)[-1]:
        raise InputError(f"{option}: there is no folder {name}; {what}")
