"""`tarot.select`: arrays in, a Selection out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from inspect import signature
from typing import Any, Literal, ParamSpec, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tarot.common import InputError, no_such
from tarot.features import Features
from tarot.selection import Selection, SelectionProblem
from tarot.selectors import SELECTORS, Ordered, Selector, Valuing, check_selector, unknown_option
from tarot.space import AskedNorm, Whitening, resolved
from tarot.workers import LOCAL, Workers

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


def _asked(
    candidates: Features,
    targets: Features,
    selector: str | Selector,
    *,
    whitening: Whitening | Literal["auto"] = "auto",
    regularization: float | None = None,
    norm: AskedNorm = "auto",
    total: int | None = None,
    total_may_grow: bool = False,
    candidate_labels: ArrayLike | None = None,
    target_labels: ArrayLike | None = None,
    target_groups: ArrayLike | None = None,
    candidate_ids: ArrayLike | None = None,
    candidate_tags: ArrayLike | None = None,
    candidate_residuals: ArrayLike | Sequence[ArrayLike] | None = None,
    candidate_scores: ArrayLike | Sequence[ArrayLike] | None = None,
    candidate_costs: ArrayLike | None = None,
    candidate_sources: ArrayLike | None = None,
    group_weights: Mapping[str, float] | None = None,
    learning_rates: Sequence[float] | NDArray[np.floating] | None = None,
    engine: Workers = LOCAL,
    device: str = "auto",
    **options: Any,
) -> tuple[Selector, SelectionProblem]:
    """What `select` and `value` are asked: their arguments are these."""
    method = _selector(selector, options)
    given: dict[str, Any] = {  # in forms of many kinds, which SelectionProblem reads and checks
        "candidate_views": candidates,
        "target_views": targets,
        "whitening": resolved(whitening, regularization, method.whitening),
        "regularization": regularization,
        "norm": norm,
        "total": total,
        "total_may_grow": total_may_grow,
        "candidate_labels": candidate_labels,
        "target_labels": target_labels,
        "target_groups": target_groups,
        "candidate_ids": candidate_ids,
        "candidate_tags": candidate_tags,
        "candidate_residuals": candidate_residuals,
        "candidate_scores": candidate_scores,
        "candidate_costs": candidate_costs,
        "candidate_sources": candidate_sources,
        "group_weights": group_weights,
        "learning_rates": learning_rates,
        "engine": engine,
        "device": device,
    }
    return method, SelectionProblem(**given)


def _asking(
    asked: Callable[Arguments, tuple[Selector, SelectionProblem]],
) -> Callable[[Callable[[Selector, SelectionProblem], Answer]], Callable[Arguments, Answer]]:
    """Gives a function of selector and problem the arguments of `asked`, for callers, type checkers and `help`."""

    taken = signature(asked)

    def decorate(answer: Callable[[Selector, SelectionProblem], Answer]) -> Callable[Arguments, Answer]:
        @wraps(answer)
        def ask(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
            try:
                taken.bind(*args, **kwargs)
            except TypeError as error:  # what is said of it names the function that was called
                raise TypeError(f"{answer.__name__}(): {error}") from None
            return answer(*asked(*args, **kwargs))

        returned = signature(answer).return_annotation
        ask.__signature__ = taken.replace(return_annotation=returned)  # type: ignore[attr-defined]
        return ask

    return decorate


@_asking(_asked)
def select(method: Selector, problem: SelectionProblem) -> Selection:
    """Choose which candidates [N, d] to train on, and how often, to serve the targets [M, d].

    candidates, targets: NumPy arrays, memory maps, torch tensors, `FeatureStore`s, SciPy sparse matrices, data frames
    of numbers or of one column of lists; or a list of them, one per checkpoint or independently trained model, whose
    similarities are then averaged.
    selector: a name from `tarot.selectors.SELECTORS` with its `options`, or a selector object.
    whitening: how rows are made comparable. "local": by the covariance of near neighbours' differences; "centred": by
    subtracting the mean alone; None: rows as they are; "chosen": that of these three in which targets agree best on
    candidates; "cholesky" or "zca" (the same distances): by the covariance of all rows; "paper": Cholesky at a ridge of
    1e-3, of rows as long as they are.
    "auto": what the selector declares, "chosen" for `tarot_*` ("local" where a ridge is given), none for the others.
    Methods that compare rows in their own way (`less`, `dsdm`, `tracin`, `lava`, `sava`, `batchwise_lava`,
    `knn_shapley`, `prototypes`) value them as they are; for them it shapes the reported distances alone.
    regularization: ridge of the whitening, relative to the mean variance; None: chosen.
    norm: of rows before they are whitened: "unit", "clip" (at the 99th percentile), None, or "auto": none before
    "cholesky", "zca" and "paper", as in the paper, one of "unit" and "clip" where all is chosen, and unit before the
    rest. After whitening it is always 1.
    total: what the weights sum to; None: N for `tarot_*`, sampling counts for `tsds`, one each for the others.
    total_may_grow: where the selection is larger than `total`, one each, instead of an error.
    candidate_labels, target_labels: the class of each candidate [N] and target [M].
    target_groups: the subtask of each target [M].
    candidate_ids: the name of each candidate [N]; None: those of the rows, where they have names, as a store's have.
    candidate_tags: what each is [N], for the `oracle` arm.
    candidate_residuals, candidate_scores: one vector [N] per model: TRAK's Q; what was measured on the model itself
    (`el2n`: error norms, `influence`: influences).
    learning_rates: one per checkpoint (`less`, `tracin`).
    candidate_costs: what the option `tokens` counts of each candidate [N]. candidate_sources: the source of each [N],
    which the options `quota` and `cap` are of. group_weights: of each of the target_groups, {"math": 2, "code": 1}: in
    these proportions the budget is shared out to them. All for selectors with an order (`tarot_fixed`, `less`, ...).
    engine: where passes over the candidates and the folds of `tarot_otm` are computed: `tarot.workers.Threads(8)`,
    `tarot.workers.Ray(workers=8)`; it changes no result.
    device: what whitens, looks for neighbours and solves entropic transports: "auto" (a GPU where there is one), "cpu",
    "cuda", "cuda:1", ...

    A method that needs one of these and is not given it says so; one of your own that returns anything but a Selection
    from these candidates is refused.
    Raises InputError (a ValueError) or TypeError with what was wrong with which argument.
    """
    return chosen(method, problem)


@_asking(_asked)
def value(method: Selector, problem: SelectionProblem) -> NDArray[np.float64]:
    """What every candidate is worth to the targets: float64 [N], HIGHER = more valuable, -inf = of no use at all.

    The arguments are those of `select`. Methods that choose a set without valuing its members (`random`, `all`, ...)
    raise InputError; and so does a method of your own whose values are anything else than these.
    """
    if not isinstance(method, Valuing):
        able = ", ".join(name for name, kind in sorted(SELECTORS.items()) if issubclass(kind, Valuing))
        raise InputError(f"{type(method).__name__} gives candidates no values; these do: {able}")
    return _checked_values(method.values(problem), method, problem)


def chosen(method: Selector, problem: SelectionProblem) -> Selection:
    """What `select` answers for a problem that is there already, whose space several methods may share."""
    if problem.group_weights is not None and method.features is not None and not isinstance(method, Ordered):
        able = ", ".join(name for name, kind in sorted(SELECTORS.items()) if issubclass(kind, Ordered))
        raise InputError(f"group_weights: {type(method).__name__} shares out no budget; these do: {able}")
    return _checked_selection(method.select(problem), method, problem)


def _selector(selector: str | Selector, options: dict[str, Any]) -> Selector:
    if not isinstance(selector, str):
        if options:
            raise TypeError(f"options {sorted(options)} belong into the selector object {selector}")
        if isinstance(selector, type) or not callable(getattr(selector, "select", None)):
            raise TypeError(f"selector must be a name or have a `select` method; it is {selector!r}")
        check_selector(selector)
        return selector
    if selector not in SELECTORS:
        raise InputError(no_such("selector", selector, sorted(SELECTORS)))
    kind = SELECTORS[selector]
    wrong = unknown_option(selector, kind, options)
    if wrong is not None:
        raise TypeError(wrong)
    return kind(**options)


def _checked_selection(found: object, selector: Selector, problem: SelectionProblem) -> Selection:
    """What the selector's `select` returned, which must be a Selection from the problem's candidates."""
    name = f"the selector {type(selector).__name__}"
    if not isinstance(found, Selection):
        raise InputError(
            f"{name} returned a {type(found).__name__} instead of a Selection: end its `select` with "
            "`return problem.selection(chosen, described(self))`"
        )
    if found.n != problem.n:
        raise InputError(f"{name} returned a Selection from {found.n} candidates, and the problem has {problem.n}")
    return found


def _checked_values(found: object, selector: Valuing, problem: SelectionProblem) -> NDArray[np.float64]:
    """What the selector's `values` returned, which must be float64 [N] without NaN or +inf."""
    name, wanted = f"the selector {type(selector).__name__}", f"float64 of shape ({problem.n},)"
    if not isinstance(found, np.ndarray):
        raise InputError(f"{name} returned a {type(found).__name__} as values: they must be a NumPy array, {wanted}")
    if found.dtype != np.float64 or found.shape != (problem.n,):
        raise InputError(f"{name} returned values of {found.dtype} and shape {found.shape}: they must be {wanted}")
    wrong = np.flatnonzero(np.isnan(found) | (found == np.inf))
    if len(wrong):
        raise InputError(
            f"{name} values candidate {wrong[0]} at {found[wrong[0]]}: values must be numbers, or -inf for the useless"
        )
    return found
