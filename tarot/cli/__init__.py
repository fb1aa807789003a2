"""The command `tarot`, for features that are already on disk; `tarot --help` lists what it can do."""

from tarot.cli.command import main

__all__ = ["main"]
