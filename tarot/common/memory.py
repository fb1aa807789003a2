"""How much memory this process may use."""

from __future__ import annotations

import os
from pathlib import Path


def memory_limit(root: str | os.PathLike[str] = "/") -> int:
    """Bytes of memory that this process may use: the machine's, or fewer where its container says so."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in "sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes":  # versions 2 and 1
        path = Path(root, file)
        if path.is_file() and (text := path.read_text().strip()).isdigit():  # "max": no limit
            limits.append(int(text))
    return min(limits)
