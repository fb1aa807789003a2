"""What a method wants to know of a sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal

from experiments.stages.encoders import BaseStates, Encoder
from tarot import InputError
from tarot.common import Count, Natural, NonNegative, check_options, within
from tarot.gradients import ProjectionKind
from tarot.space import check_space
from tasks.task import GivesEmbeddings, GivesErrorNorms

_LARGEST_DIM = 4096
SPACE = ("whitening", "regularization", "norm")
"""Options of a recipe that say where rows are compared, and not what they are."""
SHARED = ("dim", "projection", "dtype", "batch_size", "autocast", "on_nonfinite", "workers")
"""What conf/recipes/every.yaml gives to all recipes."""
Dimensions = Annotated[int, within("[1, 1048576]")]


@dataclass(frozen=True)
class InfluenceOptions:
    """Those of `tarot.influence_scores` that a recipe may give, as `FeatureRecipe.influence`."""

    curvature: Literal["hessian", "fisher"] = "hessian"
    damping: NonNegative | Literal["auto"] = "auto"
    rows: Count | None = None
    tolerance: Annotated[float, within("(0, 1)")] = 1e-3
    max_iterations: Count = 100
    batch_size: Count = 128

    def __post_init__(self) -> None:
        check_options(self, "features.influence")


@dataclass(frozen=True)
class FeatureRecipe:
    """What a method wants to know of a sample; conf/features says what each option means."""

    kind: str
    gradient: Literal["loss", "measurement"] | None
    layers: Sequence[int] | None
    encoder: Encoder | None
    checkpoints: Literal["all", "first", "last"]
    preconditioner: Literal["auto", "adam", "adam_rank1", "adam_released"] | None
    scores: Literal["error_norm", "influence"] | None
    influence: Mapping[str, Any]
    dim: Dimensions | None
    projection: ProjectionKind
    projection_seed: int
    aggregate: Literal["mean", "per_checkpoint"]
    whitening: Literal["chosen", "local", "centred", "cholesky", "zca", "paper"] | None
    regularization: NonNegative | None
    norm: Literal["auto", "unit", "clip"] | None
    dtype: Literal["float32", "float16"]
    batch_size: Count | Literal["auto"]
    autocast: Literal["bfloat16", "float16"] | None
    on_nonfinite: Literal["raise", "drop"]
    workers: Natural

    def __post_init__(self) -> None:
        check_options(self, "features")
        known = [field.name for field in fields(InfluenceOptions)]
        for name, value in self.influence.items():
            if name not in known:
                raise InputError(f"features.influence.{name} is no option ({value!r}); there are {', '.join(known)}")
        InfluenceOptions(**self.influence)
        check_space(self.whitening, self.regularization, self.norm)
        taken = {"gradient": self.gradient, "layers": self.layers, "encoder": self.encoder}
        given = [name for name, value in taken.items() if value is not None]
        if len(given) > 1:
            raise InputError(f"features.{given[0]} and features.{given[1]} each say what a row is: give one of them")
        if given and given[0] != "gradient" and self.scores is not None:
            raise InputError(
                f"features.scores={self.scores} is measured on surrogates, which features.{given[0]} has none of"
            )
        self.without_surrogates  # noqa: B018  # its options are checked as it is made

    @property
    def without_surrogates(self) -> Encoder | None:
        """What makes rows that need no checkpoint; None where checkpoints do."""
        return self.encoder if self.layers is None else BaseStates(tuple(self.layers))

    @property
    def needs(self) -> tuple[type, ...]:
        """What a task must be able to do, of tasks.task, for rows and what is measured beside them."""
        if self.without_surrogates is not None:
            return (self.without_surrogates.needs,)
        rows = () if self.gradient else (GivesEmbeddings,)
        return (*rows, GivesErrorNorms) if self.scores == "error_norm" else rows

    def of_optimizer(self, optimizer: str | None) -> FeatureRecipe:
        """The same for checkpoints of this optimizer (None: nobody knows it): `auto` is then Adam's step, or nothing
        where SGD trained them, whose step is the gradient itself."""
        if self.preconditioner != "auto":
            return self
        return replace(self, preconditioner=None if optimizer == "sgd" else "adam")

    def note(self, optimizer: str | None) -> str | None:
        """What is to be said of the recipe for checkpoints of this optimizer, as a sentence."""
        if self.preconditioner != "auto" or self.of_optimizer(optimizer).preconditioner is not None:
            return None
        return (
            f"{optimizer.upper() if optimizer else 'Nobody'} trained the surrogates, so {self.kind} compares plain "
            "gradients: candidates' are not scaled by Adam's moments, which there are none of."
        )

    def dim_for(self, n: int, m: int) -> int | None:
        """Total dimensions of the projection; by default no more than half as many as there are points."""
        if self.projection == "identity":
            return None
        return self.dim or max(1, min(_LARGEST_DIM, (n + m) // 2))


def recipe_options(but: Sequence[str]) -> frozenset[str]:
    """Patterns of a recipe's options on the command line, and of what is below them, but for these."""
    rest = [one.name for one in fields(FeatureRecipe) if one.name not in but]
    return frozenset(pattern for name in rest for pattern in (f"features.{name}", f"features.{name}.*"))


OF_ONE_RECIPE = frozenset({"features"}) | recipe_options(but=SHARED)
"""What an experiment with several recipes has no use for: each says it for itself."""
