"""Long work that stops where nobody waits for it any more: a thread cannot be ended from outside."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError

_here = threading.local()


def stop_where_given_up() -> None:
    """Between two steps of long work. Raises CancelledError in a thread whose map was given up, by an interrupt or
    because another item failed."""
    event: threading.Event | None = getattr(_here, "given_up", None)
    if event is not None and event.is_set():
        raise CancelledError


def works_for(event: threading.Event) -> None:
    """From here on this thread is one of a map's; `event` says that the map was given up."""
    _here.given_up = event


def is_worker() -> bool:
    """Whether this thread is one of a map's."""
    return getattr(_here, "given_up", None) is not None
