"""What every room needs: errors, files, fingerprints, options, progress."""

from tarot.common.devices import CPU, products_in, resolve_device, selection_device, warn_if_emulated
from tarot.common.errors import InputError, first_line, no_such
from tarot.common.files import atomic_directory, atomic_file, make_folder, remove_abandoned
from tarot.common.fingerprints import canonical, difference, fingerprint, hash_content, hash_tensors
from tarot.common.folders import entries, files_below, is_name
from tarot.common.locks import claimed, locked
from tarot.common.memory import memory_limit
from tarot.common.options import (
    Count,
    Natural,
    NonNegative,
    Positive,
    Share,
    above,
    at_least,
    check_fields,
    check_option,
    check_options,
    checked,
    within,
)
from tarot.common.progress_bars import duration, part_of_progress, progress
from tarot.common.texts import check_is_file, read_json, read_text

__all__ = [
    "CPU",
    "Count",
    "InputError",
    "Natural",
    "NonNegative",
    "Positive",
    "Share",
    "above",
    "at_least",
    "atomic_directory",
    "atomic_file",
    "canonical",
    "check_fields",
    "check_is_file",
    "check_option",
    "check_options",
    "checked",
    "claimed",
    "difference",
    "duration",
    "entries",
    "files_below",
    "fingerprint",
    "first_line",
    "hash_content",
    "hash_tensors",
    "is_name",
    "locked",
    "make_folder",
    "memory_limit",
    "no_such",
    "part_of_progress",
    "products_in",
    "progress",
    "read_json",
    "read_text",
    "remove_abandoned",
    "resolve_device",
    "selection_device",
    "warn_if_emulated",
    "within",
]
