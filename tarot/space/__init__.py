"""The space in which candidates and targets are compared: whitening, distance, neighbours."""

from tarot.space.choice import (
    WHITENINGS,
    FittedSpace,
    Space,
    Whitening,
    check_space,
    fit_space,
    in_space,
    resolved,
    whiten,
)
from tarot.space.content import content_order
from tarot.space.distance import distances, row_distances
from tarot.space.in_parts import nearest, nearest_in_parts
from tarot.space.local import content_keys
from tarot.space.neighbours import Closest, nearest_unit
from tarot.space.norm import AskedNorm, unit_norm
from tarot.space.ranking import MEMORY_BYTES, SORTED_AT_ONCE, ascending, distance_blocks, nearest_of_many
from tarot.space.target_agreement import agreement
from tarot.space.whitening import (
    Centre,
    JoinedRows,
    Method,
    WhitenedRows,
    fit_whitener,
)

__all__ = [
    "MEMORY_BYTES",
    "SORTED_AT_ONCE",
    "WHITENINGS",
    "AskedNorm",
    "Centre",
    "Closest",
    "FittedSpace",
    "JoinedRows",
    "Method",
    "Space",
    "WhitenedRows",
    "Whitening",
    "agreement",
    "ascending",
    "check_space",
    "content_keys",
    "content_order",
    "distance_blocks",
    "distances",
    "fit_space",
    "fit_whitener",
    "in_space",
    "nearest",
    "nearest_in_parts",
    "nearest_of_many",
    "nearest_unit",
    "resolved",
    "row_distances",
    "unit_norm",
    "whiten",
]
