"""Which file it is, for fingerprints."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def hash_file(path: Path, *, ends: int | None = None) -> str | None:
    """SHA-256 of a file, or of its size and its first and last `ends` bytes; None where it cannot be read."""
    try:
        with open(path, "rb") as file:
            if ends is None:
                return hashlib.file_digest(file, "sha256").hexdigest()
            size = file.seek(0, os.SEEK_END)
            digest = hashlib.sha256(f"{size}\n".encode())
            for start in (0, max(0, size - ends)):
                file.seek(start)
                digest.update(file.read(ends))
            return digest.hexdigest()
    except OSError:
        return None
