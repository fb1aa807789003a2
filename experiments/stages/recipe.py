"""What a method wants to know of a sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tarot.common import Count, Natural, NonNegative, check_options
from tarot.gradients import ProjectionKind
from tarot.space import check_space

_LARGEST_DIM = 4096


@dataclass(frozen=True)
class FeatureRecipe:
    """What a method wants to know of a sample; conf/features says what each option means."""

    kind: str
    gradient: Literal["loss", "measurement"] | None
    checkpoints: Literal["all", "first", "last"]
    preconditioner: Literal["adam", "adam_rank1", "adam_released"] | None
    scores: Literal["error_norm", "influence"] | None
    influence: Mapping[str, Any]
    dim: Count | None
    projection: ProjectionKind
    projection_seed: int
    aggregate: Literal["mean", "per_checkpoint"]
    whitening: Literal["chosen", "local", "cholesky", "zca", "paper"] | None
    regularization: NonNegative | None
    norm: Literal["unit", "clip"] | None
    dtype: Literal["float32", "float16"]
    batch_size: Count | Literal["auto"]
    autocast: Literal["bfloat16", "float16"] | None
    on_nonfinite: Literal["raise", "drop"]
    workers: Natural

    def __post_init__(self) -> None:
        check_options(self, "features")
        check_space(self.whitening, self.regularization, self.norm)

    def dim_for(self, n: int, m: int) -> int | None:
        """Total dimensions of the projection; by default no more than half as many as there are points."""
        if self.projection == "identity":
            return None
        return self.dim or max(1, min(_LARGEST_DIM, (n + m) // 2))
