"""Progress of long work: a bar with rate and time left on a terminal, nothing elsewhere."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.3g} {task.fields['unit']}/s", style="progress.data.speed")


@contextlib.contextmanager
def progress(description: str, total: int | None, unit: str = "rows") -> Iterator[Callable[[int], None]]:
    """`with progress("gradients", n) as advance: advance(k)`. `TAROT_PROGRESS=0` turns it off, `=1` forces it on."""
    wish = os.environ.get("TAROT_PROGRESS")
    console = Console(stderr=True, force_terminal=True if wish == "1" else None)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=wish == "0" or not console.is_terminal, transient=True) as bar:
        task = bar.add_task(description, total=total, unit=unit)

        def advance(amount: int = 1) -> None:
            bar.advance(task, amount)

        yield advance
