"""What every room needs: errors, files, fingerprints, progress."""

from tarot.common.errors import InputError
from tarot.common.files import atomic_directory, atomic_file
from tarot.common.fingerprints import canonical, difference, fingerprint, hash_tensors
from tarot.common.memory import memory_limit
from tarot.common.progress_bars import progress

__all__ = [
    "InputError",
    "atomic_directory",
    "atomic_file",
    "canonical",
    "difference",
    "fingerprint",
    "hash_tensors",
    "memory_limit",
    "progress",
]
