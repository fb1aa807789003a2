"""The task of a user's own files and model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from tarot import InputError
from tarot.common import checked, within
from tasks.instruction.data import Files, Paths
from tasks.instruction.model import Language
from tasks.instruction.task import InstructionTask
from tasks.instruction.training import WarmUp


class FilesTask(InstructionTask):
    """The task of a user's own files (`Files` says what they are); options are `InstructionTask`'s. The language is the
    user's own, too: InputError where its path is not given."""

    @checked("task")
    def __init__(
        self,
        *,
        candidates: Paths,
        targets: Paths,
        validation: Paths | None = None,
        test: Paths | None = None,
        held_out: Annotated[float, within("[0, 1)")] = 0.3,
        columns: Mapping[str, str] | None = None,
        on_bad_row: Literal["drop", "raise"] = "drop",
        deduplicate: Literal["exact", "minhash", "features"] | None = None,
        language: Language,
        surrogate: WarmUp,
        **options: Any,
    ) -> None:
        if language.path is None and surrogate.adapters is None:
            raise InputError(
                "task.language.path names no language model, whose gradients are to select: give a folder in "
                "transformers' format or a name on the hub (task.language.path=/models/Qwen2.5-0.5B), features of your "
                "own (task=features), or see it run without any file of yours (task=instruction)"
            )
        options |= {"language": language, "surrogate": surrogate}
        data = Files(candidates, targets, validation, test, held_out, columns, on_bad_row, deduplicate)
        super().__init__(data=data, **options)
