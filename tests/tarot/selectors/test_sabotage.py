"""Selectors that are broken on purpose: the contract's checks must catch each of them, by the check that is named, and
let an honest one pass."""

from __future__ import annotations

import gc
import logging
import random
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch

from tarot.features import blocks
from tarot.selection.problem import SelectionProblem
from tarot.selection.selection import Selection
from tarot.selectors.options import described, random_generator
from tests.tarot.selectors import conformance
from tests.tarot.selectors.conformance import CHECKS, NotPromised, Subject, run
from tests.tarot.selectors.honest import Honest

SABOTAGES: list[tuple[type, Callable[..., None]]] = []


def caught_by(check: Callable[..., None]) -> Callable[[type], type]:
    def keep(broken: type) -> type:
        SABOTAGES.append((dataclass(frozen=True)(broken), check))
        return broken

    return keep


@caught_by(conformance.declares_its_facts)
class DeclaresAnUnknownWhitening(Honest):
    whitening: ClassVar[Any] = "pca"


@dataclass
class CanBeChangedAfterItsCheck:
    features: ClassVar[str | None] = "wfd"
    whitening: ClassVar[Any] = None
    reference: ClassVar[bool] = False

    size: int | None = None
    ratio: float | None = None

    def select(self, problem):
        return Honest(self.size, self.ratio).select(problem)


SABOTAGES.append((CanBeChangedAfterItsCheck, conformance.declares_its_facts))  # `caught_by` would freeze it


@caught_by(conformance.refuses_what_no_option_may_be)
class TakesAnyOption(Honest):
    metric: Literal["cosine", "euclidean"] = "cosine"

    def __post_init__(self):
        pass


@caught_by(conformance.describes_itself)
class ForgetsItsOptions(Honest):
    def select(self, problem):
        return problem.best(self.values(problem), self.size, self.ratio, {"class": "ForgetsItsOptions"})


@caught_by(conformance.keeps_no_state)
class RemembersTheFirstProblem(Honest):
    seen: ClassVar[list[np.ndarray]] = []

    def values(self, problem):
        self.seen.append(super().values(problem))
        return np.resize(self.seen[-1] + len(self.seen) * np.arange(problem.n) / problem.n, problem.n)


@caught_by(conformance.keeps_no_state)
class ResolvesItsRatioOnce(Honest):
    def select(self, problem):
        if "budget" not in vars(self):
            object.__setattr__(self, "budget", problem.budget(self.size, self.ratio))
        return problem.best(self.values(problem), self.budget, None, described(self))


@caught_by(conformance.keeps_no_state)
class WritesIntoItsInput(Honest):
    def values(self, problem):
        values = super().values(problem)
        problem.candidate_views[0][0] = 1
        return values


@caught_by(conformance.keeps_no_state)
class WritesIntoTheSecondView(Honest):
    def values(self, problem):
        values = super().values(problem)
        problem.candidate_views[-1][0] = 1
        return values


@caught_by(conformance.keeps_no_state)
class WritesIntoLabels(Honest):
    def values(self, problem):
        problem.candidate_labels.sort()
        return super().values(problem)


@caught_by(conformance.answers_the_problem_at_hand)
class RemembersProblemsBySize(Honest):
    known: ClassVar[dict[int, np.ndarray]] = {}

    def values(self, problem):
        return self.known.setdefault(problem.n, super().values(problem))


@caught_by(conformance.answers_the_problem_at_hand)
class RemembersProblemsByTheirArrays(Honest):
    known: ClassVar[dict[int, tuple[Any, np.ndarray]]] = {}

    def values(self, problem):
        rows = problem.candidate_views[0]
        _, values = self.known.setdefault(id(rows), (rows, super().values(problem)))  # kept, so that its id stays its
        return values


@caught_by(conformance.leaves_a_shared_problem_as_it_was)
class WritesIntoTheTargets(Honest):
    def values(self, problem):
        values = super().values(problem)
        problem.targets.neg_()
        return values


@caught_by(conformance.leaves_a_shared_problem_as_it_was)
class WritesIntoTheNeighbours(Honest):
    def values(self, problem):
        _, index = problem.neighbours(2)
        index[:] = index.flip(1)
        return super().values(problem)


@caught_by(conformance.leaves_a_shared_problem_as_it_was)
class BelievesWhatItFindsInAProblem(Honest):
    def values(self, problem):
        values = super().values(problem)
        return -values if problem._table else values


@caught_by(conformance.leaves_global_state_alone)
class SeedsTheGlobalGenerators(Honest):
    def values(self, problem):
        random.seed(self.seed)
        np.random.seed(self.seed)  # noqa: NPY002
        torch.manual_seed(self.seed)
        return super().values(problem)


@caught_by(conformance.leaves_global_state_alone)
class WarnsOfEverything(Honest):
    def values(self, problem):
        warnings.warn("candidates are compared with targets", stacklevel=2)
        return super().values(problem)


@caught_by(conformance.reaches_a_worker)
class KeepsALock(Honest):
    def __post_init__(self):
        object.__setattr__(self, "lock", threading.Lock())


@caught_by(conformance.reaches_a_worker)
class HandsOverASelectionThatStaysHere(Honest):
    def select(self, problem):
        selection = super().select(problem)
        object.__setattr__(selection, "again", lambda: self.select(problem))
        return selection


@caught_by(conformance.reaches_a_worker)
class LosesItsWayOnTheWay(Honest):
    def __post_init__(self):
        object.__setattr__(self, "best", True)

    def __getstate__(self):
        return {key: value for key, value in vars(self).items() if key != "best"}

    def values(self, problem):
        values = super().values(problem)
        return values if hasattr(self, "best") else -values


class _ReadsAGlobalGenerator(Honest):
    def noise(self, n):
        raise NotImplementedError

    def values(self, problem):
        return super().values(problem) + self.noise(problem.n)


@caught_by(conformance.leaves_global_state_alone)
class ReadsPythonsGenerator(_ReadsAGlobalGenerator):
    def noise(self, n):
        state = random.getstate()
        drawn = [random.random() for _ in range(n)]
        random.setstate(state)
        return np.array(drawn)


@caught_by(conformance.leaves_global_state_alone)
class DrawsFromNumpysGenerator(_ReadsAGlobalGenerator):
    def noise(self, n):
        return np.random.random(n)  # noqa: NPY002


@caught_by(conformance.leaves_global_state_alone)
class ReadsTorchsGenerator(_ReadsAGlobalGenerator):
    def noise(self, n):
        with torch.random.fork_rng(devices=[]):
            return torch.rand(n).double().numpy()


@caught_by(conformance.leaves_global_state_alone)
class LeavesGradientsOff(Honest):
    def values(self, problem):
        torch.set_grad_enabled(False)
        return super().values(problem)


@caught_by(conformance.leaves_global_state_alone)
class SilencesNumpy(Honest):
    def values(self, problem):
        np.seterr(divide="ignore")
        return super().values(problem)


@caught_by(conformance.leaves_global_state_alone)
class Prints(Honest):
    def values(self, problem):
        print("selecting")
        return super().values(problem)


@caught_by(conformance.leaves_global_state_alone)
class PrintsWhereErrorsGo(Honest):
    def values(self, problem):
        print("selecting", file=sys.stderr)
        return super().values(problem)


@caught_by(conformance.leaves_global_state_alone)
class PrintsTwoDigits(Honest):
    def values(self, problem):
        np.set_printoptions(precision=2)
        return super().values(problem)


@caught_by(conformance.leaves_global_state_alone)
class CollectsNoGarbage(Honest):
    def values(self, problem):
        gc.disable()
        return super().values(problem)


@caught_by(conformance.leaves_global_state_alone)
class KeepsTemporaryFiles(Honest):
    def values(self, problem):
        values = super().values(problem)
        np.save(tempfile.mkdtemp() + "/values.npy", values)
        return values


@caught_by(conformance.leaves_global_state_alone)
class SilencesWarnings(Honest):
    def values(self, problem):
        warnings.simplefilter("ignore")
        return super().values(problem)


@caught_by(conformance.leaves_global_state_alone)
class SetsUpLogging(Honest):
    def values(self, problem):
        logging.basicConfig(level=logging.DEBUG, force=True)
        return super().values(problem)


@caught_by(conformance.leaves_global_state_alone)
class AsksForDeterminism(Honest):
    def values(self, problem):
        torch.use_deterministic_algorithms(True)
        return super().values(problem)


@caught_by(conformance.leaves_global_state_alone)
class KeepsValuesWhereItIsCalled(Honest):
    def values(self, problem):
        values = super().values(problem)
        np.save("values.npy", values)
        return values


@caught_by(conformance.refuses_impossible_budgets)
class ClampsItsBudget(Honest):
    def select(self, problem):
        size = self.size if self.size is not None else int((self.ratio or 0) * problem.n)
        budget = max(1, min(int(size), problem.n))
        ranked = np.argsort(-self.values(problem), kind="stable")
        return problem.selection(problem.first_usable(ranked, budget), described(self))


@caught_by(conformance.refuses_impossible_budgets)
class SelectsATenthUnasked(Honest):
    def select(self, problem):
        ratio = 0.1 if self.size is None and self.ratio is None else self.ratio
        return problem.best(self.values(problem), self.size, ratio, described(self))


@caught_by(conformance.refuses_impossible_budgets)
class PrefersSizeToRatio(Honest):
    def select(self, problem):
        ratio = self.ratio if self.size is None else None
        return problem.best(self.values(problem), self.size, ratio, described(self))


@caught_by(conformance.meets_its_size)
class SelectsOneTooFew(Honest):
    def select(self, problem):
        budget = problem.budget(self.size, self.ratio)
        ranked = np.argsort(-self.values(problem), kind="stable")
        return problem.selection(problem.first_usable(ranked, max(1, budget - 1)), described(self))


@caught_by(conformance.meets_its_size)
class TakesOneOfEquals(Honest):
    def select(self, problem):
        values, budget = self.values(problem), problem.budget(self.size, self.ratio)
        ranked = problem.ranked(values, np.arange(problem.n))
        different = np.sort(np.unique(values[ranked].round(6), return_index=True)[1])
        return problem.selection(problem.first_usable(ranked[different], budget), described(self))


@caught_by(conformance.meets_its_size)
class RoundsItsRatio(Honest):
    def select(self, problem):
        size = self.size or max(1, round(self.ratio * problem.n))
        return problem.best(self.values(problem), size, None, described(self))


@caught_by(conformance.selects_valid_candidates)
class SelectsTheBestTwice(Honest):
    def select(self, problem):
        chosen = np.argsort(-self.values(problem))[: problem.budget(self.size, self.ratio)]
        return problem.selection(np.concatenate([chosen[:1], chosen[:-1]]), described(self))


@caught_by(conformance.never_selects_zero_rows)
class TakesZeroRows(Honest):
    def select(self, problem):
        values = np.abs(self.values(problem))
        chosen = np.argsort(values, kind="stable")[: problem.budget(self.size, self.ratio)]
        return problem.selection(chosen, described(self), blind=True)


@caught_by(conformance.follows_its_candidates)
class PrefersTheFirst(Honest):
    def values(self, problem):
        return super().values(problem) - np.arange(problem.n) / problem.n


@caught_by(conformance.follows_its_candidates)
class ReadsTheFirstHundred(Honest):
    def values(self, problem):
        values = super().values(problem)
        return np.where(np.arange(problem.n) < 100, values, values.min())


@caught_by(conformance.follows_its_candidates)
class FillsUpByPlace(Honest):
    """With candidates that are no target's near neighbours."""

    def select(self, problem):
        near = np.unique(problem.neighbours(min(20, problem.n))[1][:, :20])
        ranked = problem.ranked(self.values(problem), near)
        filled = np.append(ranked, np.setdiff1d(np.arange(problem.n), near))
        return problem.selection(problem.first_usable(filled, problem.budget(self.size, self.ratio)), described(self))


@caught_by(conformance.follows_its_seed)
class DrawsWithoutASeed(Honest):
    def values(self, problem):
        random_generator(self.seed)
        return np.random.default_rng().random(problem.n)


@caught_by(conformance.follows_its_seed)
class TakesAnySeed(Honest):
    seed: int = 0

    def values(self, problem):
        return Honest(seed=0 if self.seed == -1 else self.seed).values(problem)


@caught_by(conformance.differs_by_seed)
class IgnoresItsSeed(Honest):
    def values(self, problem):
        random_generator(self.seed)
        return Honest(seed=0).values(problem)


@caught_by(conformance.is_the_same_in_every_kind_of_array)
class KnowsSinglePrecisionAlone(Honest):
    def values(self, problem):
        return super().values(problem) * (1 if problem.candidate_views[0].dtype == np.float32 else -1)


@caught_by(conformance.reads_every_precision)
class TellsPrecisionsApart(Honest):
    def values(self, problem):
        return super().values(problem) * (-1 if problem.candidate_views[0].dtype == np.float16 else 1)


@caught_by(conformance.reads_rows_wherever_they_are)
class WantsAnArray(Honest):
    def values(self, problem):
        assert isinstance(problem.candidate_views[0], np.ndarray)
        return super().values(problem)


@caught_by(conformance.reads_rows_wherever_they_are)
class WantsRowsInMemory(Honest):
    def values(self, problem):
        assert not isinstance(problem.candidate_views[0], np.memmap)
        return super().values(problem)


@caught_by(conformance.reads_rows_wherever_they_are)
class WantsRowsInOneOrder(Honest):
    def values(self, problem):
        rows = problem.candidate_views[0]
        assert not isinstance(rows, np.ndarray) or rows.flags.c_contiguous
        return super().values(problem)


@caught_by(conformance.reads_rows_wherever_they_are)
class WritesWhatStoodThere(Honest):
    def values(self, problem):
        rows = problem.candidate_views[0]
        if type(rows) is np.ndarray:
            rows[0] = rows[0]
        return super().values(problem)


@caught_by(conformance.reads_rows_wherever_they_are)
class ReadsTheFirstBlockAlone(Honest):
    def values(self, problem):
        _, rows = next(iter(blocks(problem.candidates)))
        values = (rows @ problem.targets.mean(0)).double().numpy()
        return np.concatenate([values, np.full(problem.n - len(values), -1.0)])


@caught_by(conformance.does_not_look_at_ids)
class ChoosesByIds(Honest):
    def select(self, problem):
        values = self.values(problem)
        if problem.candidate_ids is not None:
            values = values + np.argsort(np.argsort(problem.candidate_ids))
        return problem.best(values, self.size, self.ratio, described(self))


@caught_by(conformance.orders_equals_by_id)
class TakesTheFirstOfEquals(Honest):
    def select(self, problem):
        ranked = np.argsort(-self.values(problem), kind="stable")
        budget = problem.budget(self.size, self.ratio)
        return problem.selection(problem.first_usable(ranked, budget), described(self))


@caught_by(conformance.follows_no_scale)
class AddsAnAbsoluteNumber(Honest):
    def values(self, problem):
        rows = np.asarray(problem.candidate_views[0], dtype=np.float64)
        return super().values(problem) / (np.linalg.norm(rows, axis=1) + 1e-6)


@caught_by(conformance.follows_no_order_of_targets)
class ServesTheFirstTargetAlone(Honest):
    def values(self, problem):
        return np.asarray(problem.candidate_views[0], dtype=np.float64) @ problem.target_views[0][0]


@caught_by(conformance.follows_no_order_of_targets)
class ReadsTheFirstHundredTargets(Honest):
    def values(self, problem):
        return (problem.candidates[:] @ problem.targets[:100].mean(0)).double().numpy()


@caught_by(conformance.goes_by_the_space_that_it_names)
class ReadsRowsAsTheyWereGiven(Honest):
    def values(self, problem):
        candidates, targets = (
            torch.cat([rows for _, rows in blocks(views[0])]).double()
            for views in (problem.candidate_views, problem.target_views)
        )
        return (candidates @ targets.mean(0)).numpy()


@caught_by(conformance.looks_at_its_targets)
class RanksByAnAxis(Honest):
    def values(self, problem):
        return problem.candidates[:].double().numpy()[:, 0]


@caught_by(conformance.looks_at_its_targets)
class RanksByNorms(Honest):
    def values(self, problem):
        return np.linalg.norm(np.asarray(problem.candidate_views[0], dtype=np.float64), axis=1)


@caught_by(conformance.serves_its_targets)
class IgnoresTheLastColumn(Honest):
    def values(self, problem):
        return (problem.candidates[:][:, :-1] @ problem.targets[:, :-1].mean(0)).double().numpy()


@caught_by(conformance.serves_its_targets)
class SelectsTheWorst(Honest):
    def values(self, problem):
        return -super().values(problem)


@caught_by(conformance.serves_its_targets)
class SelectsTheWorstIfMany(Honest):
    def select(self, problem):
        sign = -1 if problem.budget(self.size, self.ratio) > 20 else 1
        return problem.best(sign * self.values(problem), self.size, self.ratio, described(self))


@caught_by(conformance.survives_a_zero_target)
class FallsOverZeroTargets(Honest):
    def values(self, problem):
        assert np.asarray(problem.target_views[0]).any(axis=1).all()
        return super().values(problem)


@caught_by(conformance.survives_a_zero_target)
class DividesByTheNormsOfTargets(Honest):
    def select(self, problem):
        targets = np.asarray(problem.target_views[0], dtype=np.float64)
        with np.errstate(invalid="ignore"):
            units = targets / np.linalg.norm(targets, axis=1, keepdims=True)
        values = np.asarray(problem.candidate_views[0], dtype=np.float64) @ units.mean(0)
        return problem.best(values, self.size, self.ratio, described(self))


@caught_by(conformance.survives_little_data)
class NeedsSeveralTargets(Honest):
    def values(self, problem):
        assert problem.m > 1
        return super().values(problem)


@caught_by(conformance.survives_little_data)
class InvertsACovariance(Honest):
    def values(self, problem):
        rows = problem.candidates[:].double().numpy()
        return rows @ np.linalg.inv(rows.T @ rows) @ problem.targets.mean(0).double().numpy()


@caught_by(conformance.refuses_candidates_that_are_not_finite)
class TakesNaNForZero(Honest):
    def select(self, problem):
        rows, targets = np.nan_to_num(problem.candidate_views[0]), problem.target_views[0]
        ranked = np.argsort(-(rows @ targets.mean(0)), kind="stable")
        return problem.selection(ranked[: problem.budget(self.size, self.ratio)], described(self), blind=True)


@caught_by(conformance.works_with_several_views)
class TakesTheFirstViewForAll(Honest):
    def values(self, problem):
        view = SelectionProblem(problem.candidate_views[0], problem.target_views[0])
        return super().values(view)


@caught_by(conformance.works_with_several_views)
class RefusesSeveralViews(Honest):
    def values(self, problem):
        (_,) = problem.candidate_views
        return super().values(problem)


class _ChoosesByOneView(Honest):
    view: ClassVar[int]

    def select(self, problem):
        rows, targets = problem.candidate_views[self.view], problem.target_views[self.view]
        values = super().values(SelectionProblem(rows, targets))
        return problem.best(values, self.size, self.ratio, described(self))


@caught_by(conformance.hears_every_view)
class ChoosesByTheFirstView(_ChoosesByOneView):
    view: ClassVar[int] = 0


@caught_by(conformance.hears_every_view)
class ChoosesByTheLastView(_ChoosesByOneView):
    view: ClassVar[int] = -1


@caught_by(conformance.refuses_what_is_missing_by_name)
class FallsOverMissingLabels(Honest):
    def values(self, problem):
        return super().values(problem) + problem.candidate_labels[: problem.n]


@caught_by(conformance.refuses_what_is_missing_by_name)
class FallsOverMissingGroups(Honest):
    def values(self, problem):
        return super().values(problem) + problem.target_groups[0]


@caught_by(conformance.refuses_what_is_missing_by_name)
class FallsOverMissingResiduals(Honest):
    def values(self, problem):
        return super().values(problem) * problem.candidate_residuals[0]


@caught_by(conformance.refuses_what_is_missing_by_name)
class DoesWithoutLabelsInSilence(Honest):
    def values(self, problem):
        values = super().values(problem)
        return values if problem.candidate_labels is None else values + problem.candidate_labels


@caught_by(conformance.refuses_what_is_missing_by_name)
class NeedsLabelsInSecret(Honest):
    def values(self, problem):
        problem.labels("it")
        return super().values(problem)


@caught_by(conformance.refuses_what_is_missing_by_name)
class NeedsNothingOfTheKind(Honest):
    needs: ClassVar[tuple[str, ...]] = ("candidate_tags",)


@caught_by(conformance.says_what_it_does_without)
class DoesWithoutResidualsInSilence(Honest):
    def values(self, problem):
        values = super().values(problem)
        return values if problem.candidate_residuals is None else values * problem.candidate_residuals[0]


@caught_by(conformance.says_what_it_does_without)
class DoesWithoutLearningRatesInSilence(Honest):
    def values(self, problem):
        values = super().values(problem)
        first = np.asarray(problem.candidate_views[0], dtype=np.float64)[:, 0]
        return values if problem.learning_rates is None else values + 1e3 * problem.learning_rates[-1] * first


@caught_by(conformance.does_not_look_at_tags_unless_it_needs_them)
class PeeksAtTheTags(Honest):
    def values(self, problem):
        values = super().values(problem)
        return values if problem.candidate_tags is None else values + (problem.candidate_tags == "target")


@caught_by(conformance.weighs_up_to_a_total)
class IgnoresTheTotal(Honest):
    def select(self, problem):
        chosen = problem.best(self.values(problem), self.size, self.ratio, described(self))
        return Selection(chosen.indices, problem.n, problem.m, described(self), chosen.ids, problem=problem)


@caught_by(conformance.weighs_up_to_a_total)
class RepeatsTheWorstMost(Honest):
    def select(self, problem):
        chosen = problem.best(self.values(problem), self.size, self.ratio, described(self))
        worst = np.where(chosen.potentials == chosen.potentials.max(), 100, 1)
        return problem.selection(chosen.indices, described(self), weights=None if problem.total is None else worst)


class _HandsOverPotentials(Honest):
    potential: ClassVar[float]

    def select(self, problem):
        chosen = problem.best(self.values(problem), self.size, self.ratio, described(self)).indices
        return problem.selection(chosen, described(self), potentials=np.full(len(chosen), self.potential))


@caught_by(conformance.hands_over_usable_potentials)
class HandsOverZeroPotentials(_HandsOverPotentials):
    potential: ClassVar[float] = 0.0


@caught_by(conformance.hands_over_usable_potentials)
class HandsOverPotentialsThatAreNoNumbers(_HandsOverPotentials):
    potential: ClassVar[float] = float("nan")


@caught_by(conformance.hands_over_usable_potentials)
class HandsOverValuesForPotentials(Honest):
    def select(self, problem):
        values = self.values(problem)
        chosen = problem.best(values, self.size, self.ratio, described(self)).indices
        return problem.selection(chosen, described(self), potentials=values[chosen])


@caught_by(conformance.survives_a_file)
class KeepsACurveThatIsNoData(Honest):
    def select(self, problem):
        chosen = problem.best(self.values(problem), self.size, self.ratio, described(self))
        return problem.selection(chosen.indices, described(self), curve={"values": torch.zeros(3)})


@caught_by(conformance.is_judged_by_the_transport)
class ClaimsADistanceOfZero(Honest):
    def select(self, problem):
        chosen = problem.best(self.values(problem), self.size, self.ratio, described(self))
        return problem.selection(chosen.indices, described(self), ot_distance=0.0)


@caught_by(conformance.values_every_candidate)
class ValuesSinglePrecision(Honest):
    def values(self, problem):
        return super().values(problem).astype(np.float32)


@caught_by(conformance.values_every_candidate)
class ValuesSomeAtInfinity(Honest):
    def values(self, problem):
        values = super().values(problem)
        return np.where(values > 0, np.inf, values)


@caught_by(conformance.selects_what_it_values)
class ValuesUpsideDown(Honest):
    def select(self, problem):
        return problem.best(-self.values(problem), self.size, self.ratio, described(self))


@caught_by(conformance.selects_the_most_valuable)
class LeavesTheBest(Honest):
    def select(self, problem):
        ranked = np.argsort(-self.values(problem), kind="stable")
        budget = problem.budget(self.size, self.ratio)
        ranked = np.append(ranked[1:], ranked[0])
        return problem.selection(problem.first_usable(ranked, budget), described(self))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_an_honest_selector_passes(check, tmp_path):
    try:
        run(check, Subject(Honest), tmp_path)
    except NotPromised as reason:
        pytest.fail(f"not checked at all: {reason}")


@pytest.mark.parametrize(
    ("broken", "check"), SABOTAGES, ids=[f"{broken.__name__}, {check.__name__}" for broken, check in SABOTAGES]
)
def test_a_broken_selector_is_caught(broken, check, tmp_path):
    with pytest.raises(Exception) as caught:  # an assertion, or what the selector or its selection raised
        run(check, Subject(broken), tmp_path)
    assert not isinstance(caught.value, NotPromised)


def test_every_check_catches_something():
    assert {check for _, check in SABOTAGES} == set(CHECKS)
