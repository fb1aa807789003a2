"""What a method wants to know of a sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tarot import InputError

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
    dim: int | None
    projection: str
    projection_seed: int
    aggregate: Literal["mean", "per_checkpoint"]
    whitening: Literal["cholesky", "zca"] | None
    regularization: float
    dtype: Literal["float32", "float16"]
    batch_size: int | Literal["auto"]
    autocast: Literal["bfloat16", "float16"] | None
    on_nonfinite: Literal["raise", "drop"]
    workers: int

    def __post_init__(self) -> None:
        allowed = {
            "gradient": ("loss", "measurement", None),
            "checkpoints": ("all", "first", "last"),
            "preconditioner": ("adam", "adam_rank1", "adam_released", None),
            "scores": ("error_norm", "influence", None),
            "aggregate": ("mean", "per_checkpoint"),
            "whitening": ("cholesky", "zca", None),
            "dtype": ("float32", "float16"),
            "autocast": (None, "bfloat16", "float16"),
            "on_nonfinite": ("raise", "drop"),
        }
        for option, values in allowed.items():
            if getattr(self, option) not in values:
                raise InputError(f"features.{option} must be one of {values}; it is {getattr(self, option)!r}")
        if self.dim is not None and self.dim < 1:
            raise InputError(f"features.dim must be positive, or null for the default; it is {self.dim}")

    def dim_for(self, n: int, m: int) -> int | None:
        """Total dimensions of the projection; by default no more than half as many as there are points."""
        if self.projection == "identity":
            return None
        return self.dim or max(1, min(_LARGEST_DIM, (n + m) // 2))
