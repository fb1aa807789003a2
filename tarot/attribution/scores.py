"""Data attribution: how much a candidate helps each target, as one thing, a score [N, M]; higher is more helpful.

Every estimator takes the features of T independently trained models: `candidates` is one matrix of rows [N, d] or a
sequence of T of them (dimensions may differ between models), `targets` likewise [M, d]. Candidates are read by
blocks, once or twice; the targets, and the scores themselves (float32 [N, M]), are held in memory.

phi(z) is a projected gradient: of the model's output function f (the margin log p/(1-p) of a classifier) for TRAK and
our own estimator, of the loss for WFD as the TAROT paper prints it. Q(z) = |dloss/df| = 1 - p is the residual.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from tarot.common import InputError
from tarot.features import Features, MeanRows, Rows, as_rows, block_size, blocks
from tarot.space import Centre, JoinedRows, Method, WhitenedRows, distances, fit_whitener, unit_norm

Residuals = Sequence[ArrayLike] | NDArray[Any]  # [N], or one [N] per model
RowMap = Callable[[Tensor], Tensor]
Covariance = Literal["candidates", "union"]
BETA, RIDGE = 1 / 3, 0.3  # defaults of the tempered estimator: best or nearly so on all data we tried (docs/lds.md)
Dual = Callable[[Rows, Rows], Tensor]


def graddot_scores(candidates: Features, targets: Features) -> NDArray[np.float32]:
    """GradDot: mean over models of <phi(z), phi(x)>. float32 [N, M]."""
    return _similarity(candidates, targets, lambda _, x: _matrix(x, "targets").T)


def gradcos_scores(candidates: Features, targets: Features) -> NDArray[np.float32]:
    """GradCos: mean over models of cos(phi(z), phi(x)); a zero row scores 0. float32 [N, M]."""
    return _similarity(candidates, targets, lambda _, x: unit_norm(_matrix(x, "targets")).T, unit_norm)


def wfd_scores(
    candidates: Features,
    targets: Features,
    *,
    whitening: Method | None = "cholesky",
    normalise: bool = True,
    regularization: float = 1e-3,
    centre: Centre = "union",
    aggregate: Literal["mean", "per_checkpoint"] = "per_checkpoint",
) -> NDArray[np.float32]:
    """Whitened feature distance as TAROT prints it (Eq. 5-9): tau = -d_w of loss gradients. float32 [N, M].

    Features are centred, whitened and scaled to unit norm; d_w = sqrt(2 - 2 cos), so scores lie in [-2, 0].
    aggregate: "mean" adds up the features of the checkpoints of one run before whitening (Eq. 4, they must share one
    projection); "per_checkpoint" whitens the features of independently trained models each and averages their squared
    distances. A zero gradient is unusable: its scores are the lowest possible, -2.

    The paper's ablation (Table 2): whitening=None takes the projected gradients as they are, neither centred nor
    whitened; "zca" gives what "cholesky" does, up to rounding. normalise=False takes distances of features of any norm,
    which have no bound: a zero gradient then scores as low as the lowest of the others.
    """
    if aggregate not in ("mean", "per_checkpoint"):
        raise InputError(f'aggregate must be "mean" or "per_checkpoint"; it is {aggregate!r}')
    models = _models(candidates, targets)
    if aggregate == "mean":
        models = [(MeanRows([z for z, _ in models]), MeanRows([x for _, x in models]))]
    maps = [_wfd_map(z, x, whitening, normalise, regularization, centre) for z, x in models]
    z, x = (
        JoinedRows(
            [WhitenedRows(pair[side], mapping, name) for pair, mapping in zip(models, maps, strict=True)],
            name,
            unit=normalise,
        )
        for side, name in enumerate(("candidates", "targets"))
    )
    white_targets = _matrix(x, "targets")
    scores = np.empty((z.shape[0], x.shape[0]), dtype=np.float32)
    unusable = np.zeros(z.shape[0], dtype=bool)
    for start, block in blocks(z, block_size(max(z.shape[1], x.shape[0])), "candidates"):
        scores[start : start + len(block)] = -distances(block, white_targets)
        unusable[start : start + len(block)] = ~block.any(dim=1).numpy()
    lost = ~white_targets.any(dim=1).numpy()
    lowest = -2.0 if normalise else scores[~unusable][:, ~lost].min(initial=0.0)
    scores[unusable], scores[:, lost] = lowest, lowest
    return scores


def _wfd_map(
    candidates: Rows, targets: Rows, whitening: Method | None, normalise: bool, regularization: float, centre: Centre
) -> RowMap:
    """What becomes of a model's features before their distances are taken."""
    if whitening is None:
        return unit_norm if normalise else _as_they_are
    whitener = fit_whitener(candidates, targets, whitening, regularization, centre)
    return whitener if normalise else whitener.unnormalised


def _as_they_are(block: Tensor) -> Tensor:
    return block.float()


def trak_scores(
    candidates: Features,
    targets: Features,
    residuals: Residuals | None = None,
    *,
    regularization: float = 0.0,
    rescale: bool = False,
) -> NDArray[np.float32]:
    """TRAK (Park et al. 2023, Eq. 17): a product of two averages over models, float32 [N, M].

    tau(z, x) = [mean_t phi_t(z)^T (Phi_t^T Phi_t + ridge)^-1 phi_t(x)] * [mean_t Q_t(z)], Phi_t the candidates of
    model t.

    residuals: Q, [N] or one [N] per model; None is Q = 1. regularization: the ridge, relative to the mean diagonal of
    Phi_t^T Phi_t; TRAK's own default is none, which asks for more rows than dimensions (InputError where the matrix
    is singular). rescale: divide each model's inverse by its mean absolute entry, as the `traker` package does.
    """

    def dual(z: Rows, x: Rows) -> Tensor:
        gram = _ridged_gram([z], regularization)
        phi = _matrix(x, "targets").T.double()
        if not rescale:
            return _solve(gram, phi)
        inverse = _solve(gram, torch.eye(len(gram), dtype=torch.float64))
        return inverse / inverse.abs().mean() @ phi

    scores = _similarity(candidates, targets, dual)
    return _times(scores, residuals, len(_sequence(candidates)))


def tempered_scores(
    candidates: Features,
    targets: Features,
    residuals: Residuals | None = None,
    *,
    beta: float = BETA,
    regularization: float = RIDGE,
    covariance: Covariance = "candidates",
) -> NDArray[np.float32]:
    """Tempered whitened similarity, our own estimator: Q^beta times <whitened z, whitened x>. float32 [N, M].

    tau(z, x) = [mean_t Q_t(z)]^beta * mean_t phi_t(z)^T (Sigma_t + ridge)^-1 phi_t(x), with gradients of the output
    function, not centred. beta = 1 is TRAK (with a ridge), beta = 0 is whitened similarity. A model that fits its
    candidates drives Q to zero where a model trained without the candidate would still err; the power undoes part of
    that, so a smaller beta suits models that fit well and generalise poorly.

    regularization: the ridge, relative to the mean diagonal of Sigma_t. covariance: the rows Sigma_t is of.
    `tarot.attribution.choose` picks both beta and the ridge by a few held-back subset models.
    """
    if not 0 <= beta <= 1:
        raise InputError(f"beta must lie in [0, 1]; it is {beta!r}")
    if covariance not in ("candidates", "union"):
        raise InputError(f'covariance must be "candidates" or "union"; it is {covariance!r}')

    def dual(z: Rows, x: Rows) -> Tensor:
        gram = _ridged_gram([z] if covariance == "candidates" else [z, x], regularization)
        return _solve(gram, _matrix(x, "targets").T.double())

    scores = _similarity(candidates, targets, dual)
    return _times(scores, residuals, len(_sequence(candidates)), beta)


def temper(similarity: ArrayLike, residuals: Residuals | None, beta: float) -> NDArray[np.float32]:
    """Q^beta times a whitened similarity [N, M] (`tempered_scores` with beta = 0), which many beta can share."""
    return _times(np.array(similarity, dtype=np.float32), residuals, None, beta)


def dsdm_scores(
    candidates: Features,
    targets: Features,
    residuals: Residuals | None = None,
    regularization: float = 0.0,
    groups: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """DsDm (Engstrom et al. 2024): the mean TRAK score over the targets, float64 [N].

    groups [M]: the subtask of each target; then the mean over subtasks of their means, so that a subtask counts the
    same with many targets as with few (theory.md 3.2). TRAK is linear in phi(x), so the mean target feature
    gives it without the [N, M] matrix.
    """
    models = _models(candidates, targets)
    subtasks = _subtasks(groups, models[0][1].shape[0])
    centres = [_subtask_means(x, *subtasks).mean(dim=0, keepdim=True).float() for _, x in models]
    scores = trak_scores([z for z, _ in models], centres, residuals, regularization=regularization)
    return scores[:, 0].astype(np.float64)


def less_scores(
    candidates: Features,
    targets: Features,
    learning_rates: Sequence[float] | None = None,
    groups: ArrayLike | None = None,
    *,
    variant: Literal["paper", "released"] = "paper",
) -> NDArray[np.float64]:
    """LESS (Xia et al. 2024): influence of each candidate on each subtask, float64 [N, G].

    Inf(z, D_j) = sum_t eta_t cos(mean of phi_t over the targets of subtask j, Gamma_t(z)); the score of a candidate is
    its maximum over j. candidates: Gamma, Adam-preconditioned gradients (`adam_features`), one matrix per
    checkpoint; targets: plain gradients. The two kinds share each checkpoint's projection.

    learning_rates: eta, one per checkpoint; None is 1/T each. groups: the subtask of each target [M], of any sizes;
    columns are in the order of `np.unique(groups)`. None is one subtask. variant: "released" is the authors' code, a
    mean of cosines within a subtask, with learning rates that sum to one.

    A candidate that is zero at every checkpoint is unusable, and so is a subtask whose mean is: their scores are the
    lowest possible, - sum_t eta_t.
    """
    if variant not in ("paper", "released"):
        raise InputError(f'variant must be "paper" or "released"; it is {variant!r}')
    models = _models(candidates, targets)
    rates = _rates(learning_rates, len(models))
    if variant == "released":
        rates = rates / rates.sum()
    code, names = _subtasks(groups, models[0][1].shape[0])
    directions = []
    for _, x in models:
        if variant == "paper":
            directions.append(unit_norm(_subtask_means(x, code, names)))
        else:
            directions.append(_subtask_means(x, code, names, unit_norm).float())
    usable = np.any([direction.any(dim=1).numpy() for direction in directions], axis=0)
    if not usable.all():
        if not usable.any():
            raise InputError("targets: every subtask's mean gradient is zero, so nothing points their way")
        lost = ", ".join(str(name) for name in names[~usable])
        warnings.warn(f"the targets' mean gradient is zero for subtasks {lost}: they are left out", stacklevel=2)
    reached = np.zeros(models[0][0].shape[0], dtype=bool)
    scores = np.zeros((len(reached), len(names)))
    for (z, _), direction, rate in zip(models, directions, rates, strict=True):
        for start, block in blocks(z, name="candidates"):
            part = slice(start, start + len(block))
            scores[part] += rate * (unit_norm(block) @ direction.T).double().numpy()
            reached[part] |= block.any(dim=1).numpy()
    scores[~reached] = scores[:, ~usable] = -rates.sum()
    return scores


def tracin_scores(
    candidates: Features, targets: Features, learning_rates: Sequence[float] | None = None
) -> NDArray[np.float32]:
    """TracInCP (Pruthi et al. 2020): sum over checkpoints of eta_t <phi_t(z), phi_t(x)>, float32 [N, M].

    Both sides are gradients of the loss: positive where a step on z lowers the loss of x. learning_rates: eta, one per
    checkpoint; None is 1/T each.
    """
    rates = _rates(learning_rates, len(_sequence(candidates)))
    return _similarity(candidates, targets, lambda _, x: _matrix(x, "targets").T, weights=rates)


def tracin_values(
    candidates: Features, targets: Features, learning_rates: Sequence[float] | None = None
) -> NDArray[np.float64]:
    """The sum of a candidate's TracIn scores over the targets, float64 [N].

    The scores are linear in phi(x), so that the mean target gives the sum without the [N, M] matrix.
    """
    models = _models(candidates, targets)
    m = models[0][1].shape[0]
    alone = _subtasks(None, m)
    values = np.zeros(models[0][0].shape[0])
    for (z, x), rate in zip(models, _rates(learning_rates, len(models)).tolist(), strict=True):
        total = (rate * m) * _subtask_means(x, *alone)[0]
        for start, block in blocks(z, name="candidates"):
            # in float64: products of small gradients underflow before
            values[start : start + len(block)] += (block.double() @ total).numpy()
    return values


def _rates(learning_rates: Sequence[float] | None, models: int) -> NDArray[np.float64]:
    """One weight per model, float64 [T]."""
    if learning_rates is None:
        return np.full(models, 1 / models)
    rates = np.asarray(learning_rates, dtype=np.float64)
    if rates.shape != (models,):
        raise InputError(f"learning_rates must be one per checkpoint, {models}; their shape is {list(rates.shape)}")
    if not (np.isfinite(rates).all() and (rates >= 0).all() and rates.any()):
        raise InputError(f"learning_rates must be finite, not negative and not all zero; they are {rates.tolist()}")
    return rates


def _subtasks(groups: ArrayLike | None, m: int) -> tuple[Tensor, NDArray[Any]]:
    """The subtask of each target, int64 [M], and the names of all subtasks [G], sorted."""
    if groups is None:
        return torch.zeros(m, dtype=torch.int64), np.array(["all targets"])
    groups = np.asarray(groups)
    if groups.shape != (m,):
        raise InputError(f"groups must say the subtask of each of the {m} targets; their shape is {list(groups.shape)}")
    names, code = np.unique(groups, return_inverse=True)
    return torch.from_numpy(code.astype(np.int64)), names


def _subtask_means(targets: Rows, code: Tensor, names: NDArray[Any], mapping: RowMap = lambda block: block) -> Tensor:
    """The mean row of every subtask, float64 [G, d]."""
    sums = torch.zeros(len(names), targets.shape[1], dtype=torch.float64)
    for start, block in blocks(targets, name="targets"):
        sums.index_add_(0, code[start : start + len(block)], mapping(block).double())
    return sums / torch.bincount(code)[:, None]


def _similarity(
    candidates: Features,
    targets: Features,
    dual: Dual,
    mapping: RowMap = lambda block: block,
    weights: NDArray[np.float64] | None = None,
) -> NDArray[np.float32]:
    """sum_t w_t phi_t(z)^T dual_t(x), float32 [N, M]; dual(candidates, targets) is [d, M]. weights: default 1/T."""
    models = _models(candidates, targets)
    weights = np.full(len(models), 1 / len(models)) if weights is None else weights
    total = torch.zeros(models[0][0].shape[0], models[0][1].shape[0])
    for (z, x), weight in zip(models, weights.tolist(), strict=True):
        dual_targets = (dual(z, x) * weight).float()
        for start, block in blocks(z, name="candidates"):
            total[start : start + len(block)].addmm_(mapping(block), dual_targets)
    return total.numpy()


def _ridged_gram(sources: Sequence[Rows], regularization: float) -> Tensor:
    """sum phi phi^T over all rows of candidates, then targets, plus the relative ridge: float64 [d, d]."""
    if not 0 <= regularization < np.inf:
        raise InputError(f"regularization must be a finite number >= 0; it is {regularization!r}")
    d = sources[0].shape[1]
    gram = torch.zeros(d, d, dtype=torch.float64)
    for name, rows in zip(("candidates", "targets"), sources, strict=False):
        for _, block in blocks(rows, block_size(d) // 4, name):
            block = block.double()
            gram.addmm_(block.T, block)
    gram.diagonal().add_(regularization * gram.diagonal().mean())
    return gram


def _solve(gram: Tensor, right: Tensor) -> Tensor:
    """gram^-1 right, float64. Raises InputError where gram is singular to working precision."""
    lower, failed = torch.linalg.cholesky_ex(gram)
    floor = len(gram) * torch.finfo(torch.float64).eps * gram.diagonal().max()
    if failed or lower.diagonal().square().min() <= floor:
        raise InputError(
            f"the {len(gram)} x {len(gram)} matrix of candidate features is singular (fewer rows than dimensions, or "
            "dependent features): it cannot be inverted without a larger regularization; 0.1 is a good start"
        )
    return torch.cholesky_solve(right, lower)


def _times(
    scores: NDArray[np.float32], residuals: Residuals | None, models: int | None, power: float = 1.0
) -> NDArray[np.float32]:
    """scores [N, M], in place, times the power of the mean residual of each candidate; its sign is kept."""
    if residuals is None:
        return scores
    q = np.atleast_2d(np.stack([np.asarray(values, dtype=np.float64) for values in residuals]))
    if q.shape not in {(1, len(scores)), (models or len(q), len(scores))}:
        raise InputError(
            f"residuals must be one number per candidate, [{len(scores)}], or that per model, "
            f"[{models or 'models'}, {len(scores)}]; their shape is {q.shape}"
        )
    if not np.isfinite(q).all():
        model, row = np.argwhere(~np.isfinite(q))[0]
        raise InputError(f"residuals must be finite: candidate {row} of model {model} has {q[model, row]}")
    q = q.mean(axis=0)
    scores *= (np.sign(q) * np.abs(q) ** power if power else np.ones_like(q)).astype(np.float32)[:, None]
    return scores


def _models(candidates: Features, targets: Features) -> list[tuple[Rows, Rows]]:
    """One (candidates, targets) pair per model, checked to agree."""
    pairs = [_sequence(candidates), _sequence(targets)]
    if len(pairs[0]) != len(pairs[1]) or not pairs[0]:
        raise InputError(f"candidates are of {len(pairs[0])} models and targets of {len(pairs[1])}: give one each")
    models = []
    for t, (z, x) in enumerate(zip(*pairs, strict=True)):
        z, x = as_rows(z, f"candidates of model {t}"), as_rows(x, f"targets of model {t}")
        if z.shape[1] != x.shape[1]:
            raise InputError(f"model {t}: candidates have {z.shape[1]} feature dimensions and targets {x.shape[1]}")
        models.append((z, x))
    for name, lengths in (
        ("candidates", {z.shape[0] for z, _ in models}),
        ("targets", {x.shape[0] for _, x in models}),
    ):
        if len(lengths) > 1:
            raise InputError(f"all models must see the same {name}; their numbers of rows are {sorted(lengths)}")
    return models


def _sequence(features: Features) -> list[Features]:
    """One matrix per model, which `as_rows` is still to look at."""
    return list(features) if isinstance(features, list | tuple) else [features]


def _matrix(rows: Rows, name: str) -> Tensor:
    """All rows, float32 [n, d]."""
    return torch.cat([block for _, block in blocks(rows, name=name)])
