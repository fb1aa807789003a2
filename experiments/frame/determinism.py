"""The same numbers however many threads and cores there are: one thread for every sum."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits


@contextmanager
def one_thread(wanted: bool) -> Iterator[None]:
    """Within it torch and the libraries of linear algebra compute in one thread, and a GPU by algorithms that do not
    depend on chance where it has such; nothing changes where it is not `wanted`.

    Sums of floats are rounded by their order, and several threads share them out.
    """
    if not wanted:
        yield
        return
    threads = torch.get_num_threads()
    algorithms = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True, warn_only=True)
        with threadpool_limits(1), torch.backends.cudnn.flags(benchmark=False, deterministic=True):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(algorithms[0], warn_only=algorithms[1])
