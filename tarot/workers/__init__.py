"""Where the parts of one piece of work are done: one after another, in threads, or by processes of several machines."""

from tarot.workers.given_up import stop_where_given_up
from tarot.workers.in_process import LOCAL, Local
from tarot.workers.launched import team
from tarot.workers.on_ray import Ray
from tarot.workers.protocol import Workers, check_workers
from tarot.workers.sums import pairwise, ranges
from tarot.workers.threads import Threads

__all__ = [
    "LOCAL",
    "Local",
    "Ray",
    "Threads",
    "Workers",
    "check_workers",
    "pairwise",
    "ranges",
    "stop_where_given_up",
    "team",
]
