"""The space in which candidates and targets are compared: whitening, distance, neighbours."""

from tarot.space.distance import distances
from tarot.space.neighbours import nearest, nearest_unit
from tarot.space.ranking import MEMORY_BYTES, SORTED_AT_ONCE, ascending, distance_blocks, nearest_of_many
from tarot.space.whitening import (
    Centre,
    JoinedRows,
    Method,
    WhitenedRows,
    check_regularization,
    fit_whitener,
    unit_norm,
    whiten,
)

__all__ = [
    "MEMORY_BYTES",
    "SORTED_AT_ONCE",
    "Centre",
    "JoinedRows",
    "Method",
    "WhitenedRows",
    "ascending",
    "check_regularization",
    "distance_blocks",
    "distances",
    "fit_whitener",
    "nearest",
    "nearest_of_many",
    "nearest_unit",
    "unit_norm",
    "whiten",
]
