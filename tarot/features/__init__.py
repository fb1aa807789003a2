"""Matrices of features: how they are read, kept on disk, and brought in from elsewhere."""

from tarot.features.arrays import (
    BLOCK_BYTES,
    Features,
    MatrixLike,
    Rows,
    as_rows,
    block_size,
    blocks,
    read_block,
    read_rows,
)
from tarot.features.building import Blueprint
from tarot.features.foreign_arrays import unmasked
from tarot.features.manifest import StoredDtype, StoreError
from tarot.features.mean_rows import MeanRows
from tarot.features.ngrams import ngram_counts
from tarot.features.part_rows import PartRows
from tarot.features.readers import (
    BAD_NPZ,
    BAD_PARQUET,
    BAD_TORCH,
    NAMING,
    existing_paths,
    file_identity,
    read_vector,
)
from tarot.features.row_names import common_ids, row_ids
from tarot.features.store import FeatureStore, damaged_shards, open_features

__all__ = [
    "BAD_NPZ",
    "BAD_PARQUET",
    "BAD_TORCH",
    "BLOCK_BYTES",
    "NAMING",
    "Blueprint",
    "FeatureStore",
    "Features",
    "MatrixLike",
    "MeanRows",
    "PartRows",
    "Rows",
    "StoreError",
    "StoredDtype",
    "as_rows",
    "block_size",
    "blocks",
    "common_ids",
    "damaged_shards",
    "existing_paths",
    "file_identity",
    "ngram_counts",
    "open_features",
    "read_block",
    "read_rows",
    "read_vector",
    "row_ids",
    "unmasked",
]
