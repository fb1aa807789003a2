"""Where the parts of one piece of work are done: one after another, in threads, or by processes of several machines."""

from tarot.workers.in_process import LOCAL, Local
from tarot.workers.on_ray import Ray
from tarot.workers.protocol import Workers
from tarot.workers.threads import Threads

__all__ = [
    "LOCAL",
    "Local",
    "Ray",
    "Threads",
    "Workers",
]
