"""The ledger (docs/discrepancies.md): where the paper's text, its algorithm box and its released code disagree.

One test per row that concerns what is built, with the row's own tiny example; the first line of each docstring says
what is wrong elsewhere and what we do. Points are given by their angle in degrees, so features are unit vectors in
the plane, and what is expected was worked out by hand or with an exact solver.

The LESS half of L-22 and TracIn's sign in L-26 (Eq. 1) are in test_less.py.
"""

import itertools

import numpy as np
import ot
import pytest
import torch
from matplotlib.figure import Figure as Canvas
from torch import nn
from torch.utils.data import DataLoader

import tarot
import tarot.selection.problem
import tarot.space.neighbours
from experiments.report import figures
from tarot.features.mean_rows import MeanRows
from tarot.features.store import FeatureStore
from tarot.gradients.dataset_rows import gradient_rows
from tarot.gradients.per_sample import GradientFeatures
from tarot.gradients.projection import Projection
from tarot.selection.problem import SelectionProblem
from tarot.selection.weights import allocate
from tarot.selectors import Dsdm, Random, TarotExact, TarotFixed, TarotOTM
from tarot.space import fit_whitener
from tarot.space.distance import distances
from tarot.transport.entropic import sinkhorn
from tasks.common.training import WeightedSampler, epoch_weights


def whiten(candidates, targets, method="cholesky", regularization=1e-3):
    """Of rows as long as they are, at a ridge of a thousandth, unless a test says otherwise: the formula's own."""
    return tarot.whiten(candidates, targets, method, regularization)


def at(*degrees):
    """Unit vectors at these angles, float64 [n, 2]."""
    radians = np.deg2rad(np.array(degrees, dtype=float))
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


def pick(candidates, targets, selector, **options):
    """The selection among candidates at these angles, for targets at those, in the plane as it is."""
    return tarot.select(at(*candidates), at(*targets), selector, whitening=None, **options)


def ot_between(x, y):
    """Exact OT distance between uniform measures on points at these angles, by POT."""
    return ot.emd2([], [], np.linalg.norm(at(*x)[:, None] - at(*y)[None], axis=2))


def gaussian(d=6, seed=1):
    """Correlated candidates [800, d] and targets [100, d], float64."""
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(d, d))
    return generator.normal(size=(800, d)) @ mixing, generator.normal(size=(100, d)) @ mixing


def wfd(candidates, targets, **options):
    c, t = whiten(candidates, targets, **options)
    return np.linalg.norm(c[:, None].astype(float) - t[None], axis=2)


def with_covariance(covariance):
    """Points [12, 2] of mean zero with exactly this covariance."""
    root = np.linalg.cholesky(np.array(covariance, dtype=float))
    return np.sqrt(2) * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]] * 3) @ root.T


# --- whitening -------------------------------------------------------------------------------------------------------


def test_L01_whitening_multiplies_by_the_inverse_factor_not_its_transpose():
    """The code computes L^-T phi, which does not whiten; we compute L^-1 phi, and cov(Phi_w) = I."""
    for covariance, cosine in (([[1, 0.9], [0.9, 1]], -0.9), ([[4, 1], [1, 1]], -0.5), ([[1, 1], [1, 4]], -0.5)):
        points = with_covariance(covariance)
        whitener = fit_whitener(points[:6], points[6:], regularization=0)
        x, y = whitener(torch.eye(2))
        assert float(x @ y) == pytest.approx(cosine, abs=1e-6)
        white = points @ whitener.matrix.numpy()
        np.testing.assert_allclose(white.T @ white / 12, np.eye(2), atol=1e-6)
    assert float((2 - 2 * torch.tensor(-0.9)).sqrt()) == pytest.approx(1.9494, abs=1e-4)
    c, t = gaussian()
    order = np.random.default_rng(0).permutation(6)
    np.testing.assert_allclose(wfd(c[:, order], t[:, order]), wfd(c, t), atol=1e-4)


def test_L02_zca_and_cholesky_give_the_same_distances():
    """The text prefers ZCA for LDS and Cholesky for selection; they differ by a rotation, so there is nothing in it."""
    c, t = gaussian()
    np.testing.assert_allclose(wfd(c, t, method="zca"), wfd(c, t, method="cholesky"), atol=1e-5)
    chosen = [tarot.select(c, t, "tarot_otm", whitening=method).indices.tolist() for method in ("zca", "cholesky")]
    assert chosen[0] == chosen[1]


def test_L03_features_are_centred_on_candidates_and_targets():
    """Eq. 8 whitens the uncentred vector; we centre, so adding 5 to every feature changes nothing."""
    c, t = gaussian()
    np.testing.assert_allclose(wfd(c + 5, t + 5), wfd(c, t), atol=1e-4)
    moved, stayed = (fit_whitener(x, y, centre="none") for x, y in ((c + 5, t + 5), (c, t)))
    change = moved(torch.from_numpy(c + 5)) @ moved(torch.from_numpy(t + 5)).T
    change -= stayed(torch.from_numpy(c)) @ stayed(torch.from_numpy(t)).T
    assert change.abs().max() > 0.5  # what the uncentred variant would do
    np.testing.assert_allclose(fit_whitener(c, t).mean, np.concatenate([c, t]).mean(0), atol=1e-6)


def test_L04_all_checkpoints_are_aggregated():
    """The code uses the last-listed checkpoint alone; we average them: with g1 = -g2 + noise the noise is left."""
    generator = np.random.default_rng(0)
    first, noise = generator.normal(size=(2, 60, 4)).astype(np.float32)
    targets = generator.normal(size=(5, 4)).astype(np.float32)
    mean = MeanRows([first, 2 * noise - first])
    np.testing.assert_allclose(mean[:], noise, atol=1e-6)
    aggregated, of_noise, of_last = (
        tarot.select(rows, targets, "tarot_fixed", size=12).indices.tolist()
        for rows in (mean, noise, 2 * noise - first)
    )
    assert aggregated == of_noise != of_last


def test_L05_the_ridge_is_relative_to_the_features_scale():
    """The code adds 1e-5 I to gradients of any scale; standard deviations (10, .1) must whiten to 1 at every scale."""
    points = np.random.default_rng(0).normal(size=(900, 2)) * [10, 0.1]
    for scale in (1, 1e-2, 1e-4):
        whitener = fit_whitener(points[:800] * scale, points[800:] * scale, regularization=1e-9)
        white = (points * scale - whitener.mean.numpy()) @ whitener.matrix.numpy()
        np.testing.assert_allclose(white.std(axis=0), [1, 1], rtol=1e-3)
    c, t = gaussian()
    np.testing.assert_allclose(wfd(c * 1e-4, t * 1e-4), wfd(c, t), atol=1e-4)


# --- fixed size ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exact", [False, True])
def test_L06_the_lowest_potential_is_taken_and_weighs_most(exact):
    """The code takes the highest potential, the worst points, and repeats them most; we take and repeat the lowest."""
    assert ot_between((1, 91, 2), (0, 90)) == pytest.approx(0.249, abs=1e-3)
    assert ot_between((1, 91, 130), (0, 90)) == pytest.approx(0.428, abs=1e-3)
    s = pick((1, 2, 91, 130), (0, 90), TarotFixed(size=3, exact=exact))
    assert s.indices.tolist() == [0, 1, 2]
    with_far = pick((1, 91, 130), (0, 90), "all")
    assert with_far.potentials.argmax() == 2 and with_far.ot_distance > s.ot_distance
    weighted = pick((1, 91, 130), (0, 90), TarotFixed(size=3, exact=exact), total=40)
    assert weighted.weights.argmin() == 2 and weighted.weights[2] < 6 < weighted.weights[0]


def test_L06_the_worst_of_all_four_weighs_least():
    """S = 4 is a multiple of M = 2: exact duals are degenerate, entropic ones are not (theory.md 0.2); 130 is last."""
    potentials = pick((1, 2, 91, 130), (0, 90), "all").potentials
    assert potentials[3] > potentials[:3].max() + 0.3
    np.testing.assert_allclose(potentials, [-0.125, -0.107, -0.217, 0.449], atol=0.02)


@pytest.mark.parametrize("exact", [False, True])
def test_L07_a_layer_that_fills_the_budget_ends_the_selection(exact):
    """The code goes on and `sorted[-0:]` adds everything; we stop at |Ds| = S, so exactly S are selected."""
    assert pick((5, 10, 20, 40, 70, 100), (0,), TarotFixed(size=3, exact=exact)).indices.tolist() == [0, 1, 2]
    assert len(pick((5, 10, 80, 100), (0, 90), TarotFixed(size=2, exact=exact))) == 2
    c, t = gaussian()
    for selector in (TarotFixed(size=50, exact=exact), TarotExact(size=50), Dsdm(size=50), Random(size=50)):
        assert len(tarot.select(c, t[:1], selector)) == 50
    for kind, options in ((TarotFixed, {"exact": exact}), (TarotExact, {}), (Dsdm, {}), (Random, {})):
        with pytest.raises(ValueError, match="it is 0"):
            tarot.select(c, t, kind(size=0, **options))


@pytest.mark.parametrize("exact", [False, True])
def test_L08_the_partial_layer_is_ranked_beside_what_is_chosen(exact):
    """The code solves for the new layer alone; Eq. 13 is about Ds + z, and so are we: 60 degrees, not 200."""
    assert ot_between((180, 160, 60), (111, 181)) == pytest.approx(0.492, abs=1e-3)
    assert ot_between((180, 160, 200), (111, 181)) == pytest.approx(0.571, abs=1e-3)
    s = pick((60, 200, 180, 230, 160), (111, 181), TarotFixed(size=3, exact=exact))
    assert s.indices.tolist() == [0, 2, 4]
    problem = SelectionProblem((at(60, 200, 180, 230, 160),), (at(111, 181),))
    chosen, layer = np.array([2, 4]), np.array([0, 1])
    np.testing.assert_allclose(problem.marginal_cost(chosen, layer, exact=True), [0.492, 0.571], atol=1e-3)
    fast = problem.marginal_cost(chosen, layer)
    assert fast[0] < fast[1]


def test_L08_the_gap_between_their_potentials():
    """The union's potentials of 60 and 200 degrees are some .2 apart (four candidates, two targets: degenerate)."""
    f = tarot.potentials(at(180, 160, 60, 200), at(111, 181))[0]
    assert f[3] - f[2] == pytest.approx(0.236, abs=0.02)


def test_L09_neighbours_never_run_out():
    """The code knows 2000 neighbours and its loop forgets the last layer; our order is complete, however deep."""
    generator = np.random.default_rng(0)
    pool = generator.normal(size=(5000, 4))
    for selector in (TarotFixed(size=2500), TarotExact(size=2500)):
        s = tarot.select(pool, pool[:1], selector, whitening=None)
        cosine = pool @ pool[0] / np.linalg.norm(pool, axis=1)
        assert s.indices.tolist() == sorted(np.argsort(-cosine)[:2500].tolist())
    assert pick((40,), (0,), "tarot_otm").indices.tolist() == [0]  # N = 1
    assert pick((-1, 2), (0, 1), TarotOTM(folds=1)).indices.tolist() == [0, 1]
    assert len(pick((30, -30), (0,), TarotOTM(folds=1))) == 2  # layer 2 of N = 2 is evaluated, and kept


# --- OT minimisation -------------------------------------------------------------------------------------------------


def test_L10_the_layer_that_raises_the_distance_is_left_out():
    """The code keeps the offending layer, and repeats its bad point most; we keep what was before."""
    assert ot_between((0,), (1,)) == pytest.approx(0.0175, abs=1e-4)
    assert ot_between((0, 60), (1,)) == pytest.approx(0.50, abs=0.01)
    s = pick((0, 60, 80), (1, -1), TarotOTM(folds=2))
    assert s.indices.tolist() == [0]
    for fold in s.curve["ot_by_layer"]:
        assert fold == pytest.approx([0.0175 * 2, 0.5], abs=0.03)


@pytest.mark.parametrize(("side", "expected"), [("fold", [0, 1]), ("rest", [0, 1, 2])])
def test_L11_one_fold_selects_and_the_rest_evaluate(side, expected):
    """Text and code let 1/K select, the box (K-1)/K; we follow the box, and offer the text as side="fold"."""
    assert pick((0, 45, 80), (5, 20, 60), TarotOTM(folds=3, side=side)).indices.tolist() == expected
    assert TarotOTM().side == "rest"


@pytest.mark.parametrize("folds", [1, 2])
def test_L12_an_equal_distance_goes_on_and_the_end_of_the_pool_ends(folds):
    """The code stops at >=, the box never ends; we stop above the least, skip empty layers, and end at k = N."""
    assert pick((0,), (1, 2), TarotOTM(folds=folds)).indices.tolist() == [0]
    assert pick((0, 0, 0), (0, 0), TarotOTM(folds=folds)).indices.tolist() == [0, 1, 2]  # 0, 0, 0: never a rise
    assert pick((0, 0, 90), (0, 0), TarotOTM(folds=folds)).indices.tolist() == [0, 1]


@pytest.mark.parametrize(("stop", "kept"), [("least", 1), ("paper", 5)])
def test_L29_small_rises_do_not_add_up(stop, kept):
    """Each layer raises the distance by up to 2.5%: the box goes on while each is compared with the layer before."""
    angles, targets = (40, 41, 42, 43, 44), (0,)
    distances = [ot_between(angles[:k], targets) for k in range(1, 6)]
    assert all(1 < after / before < 1.025 for before, after in itertools.pairwise(distances))
    assert pick(angles, targets, TarotOTM(folds=1, stop=stop, tolerance=0.025)).indices.tolist() == list(range(kept))


def test_L13_there_is_no_hidden_similarity_threshold():
    """The code drops candidates of cosine <= 0 and crashes where none is left; we do so only when asked, and say so."""
    s = pick((100, 110, 120), (0, 1, 2, 3), TarotOTM(folds=2))
    assert s.indices.tolist()[0] == 0
    assert TarotOTM().min_cos is None
    with pytest.raises(ValueError, match="no candidate is within min_cos"):
        pick((100, 110, 120), (0, 1, 2, 3), TarotOTM(folds=2, min_cos=0.0))


def test_L14_distances_are_converged_at_one_fold_too():
    """The code's solver is 10% off, enough to flip the stop; ours is exact: .5436, then .6272, so layer 2 is out."""
    s = pick((0, 15, 165), (5, 105), TarotOTM(folds=1))
    assert s.curve["ot_by_layer"] == [pytest.approx([0.5436, 0.6272], abs=1e-4)]
    assert s.indices.tolist() == [0, 2]
    np.testing.assert_allclose(
        s.curve["ot_by_layer"][0], [ot_between((0, 165), (5, 105)), ot_between((0, 15, 165), (5, 105))], atol=1e-6
    )


def test_L15_a_diameter_of_zero_is_solved_and_no_biased_value_is_reported():
    """The code takes log 0 where all points coincide, and its OT(X, X) is not 0; ours is, and is the exact value."""
    for selector in (TarotOTM(), TarotFixed(size=1), TarotExact(size=1)):
        s = pick((30,), (30, 30, 30), selector)
        assert s.ot_distance == pytest.approx(0, abs=1e-7) and np.isfinite(s.potentials).all()
    x = at(0, 30, 70, 200)
    assert tarot.ot_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert tarot.select(x, x, "all").ot_distance == pytest.approx(0, abs=1e-6)
    zero = sinkhorn(torch.zeros(3, 2), 0.01)
    assert zero.value == pytest.approx(0, abs=1e-9)


def test_L16_nothing_is_computed_in_half_precision():
    """The code accumulates and factors in float16 and scores in its resolution; stored float16 is all we take of it."""
    for vector in ([0.6, 0.8], [3**-0.5] * 3):
        row = np.array([vector], dtype=np.float16)
        assert tarot.nearest(row, row, k=1, whitening=None)[0].item() < 1e-7  # not .0198 or .0374
    c, t = (x.astype(np.float16) for x in gaussian())
    expected = tarot.select(c.astype(np.float64), t.astype(np.float64), "tarot_fixed", size=77)
    s = tarot.select(c, t, "tarot_fixed", size=77)
    assert s.indices.tolist() == expected.indices.tolist() and s.weights.tolist() == expected.weights.tolist()
    large = (c.astype(np.float32) * 2000).clip(-6e4, 6e4).astype(np.float16)  # squares overflow float16
    assert np.isfinite(whiten(large, t)[0]).all()


def test_L17_rounding_above_one_is_distance_zero():
    """sqrt(abs(2 - 2 cos)) makes a positive distance of a cosine that was rounded above 1; ours is 0."""
    rows = torch.nn.functional.normalize(torch.randn(400, 300, generator=torch.Generator().manual_seed(0)))
    assert ((rows @ rows.T).diagonal() > 1).any()
    assert (distances(rows, rows).diagonal() == 0).all()
    assert (tarot.nearest(rows.numpy(), rows.numpy(), k=1, whitening=None)[0] == 0).all()


def test_L18_weights_are_positive_integers_that_sum_to_what_was_asked():
    """The code drops points of negative potential and loses part of the total; everyone gets 1, the rest is shared."""
    s = pick((1, 2, 91, 130), (0, 90), TarotFixed(size=3), total=6)  # N + M
    assert s.weights.min() >= 1 and s.weights.sum() == 6
    assert pick((1, 2, 91, 130), (0, 90), TarotFixed(size=3)).weights.sum() == 4  # N by default
    assert tarot.integer_weights([-0.4, 0.1, -0.2], 9).min() >= 1
    assert allocate([0.1, 0.2, 0.7], 5).tolist() == [1, 2, 2]
    with pytest.raises(ValueError, match="total 2"):
        pick((1, 2, 91, 130), (0, 90), TarotFixed(size=3), total=2)


# --- around the selection --------------------------------------------------------------------------------------------


def test_L19_drawing_and_saving_leave_the_weights_alone(tmp_path):
    """The code's t-SNE helper sets every weight to 1 in place; ours are (5, 1) before and after."""
    problem = SelectionProblem((at(0, 50, 90),), (at(1, 2),), candidate_tags=np.array(["target", "a", "b"]))
    s = problem.selection(np.array([0, 1]), {"class": "Example"}, weights=np.array([5, 1]))
    for figure in (figures.weights(s), figures.tags(problem.candidate_tags, s)):
        assert isinstance(figure, figures.Figure | Canvas)
    s.save(tmp_path / "s.parquet")
    assert s.weights.tolist() == tarot.Selection.load(tmp_path / "s.parquet").weights.tolist() == [5, 1]
    sampler = WeightedSampler(s.weights, seed=0)
    s.weights[:] = 1
    assert sorted(sampler) == [0, 0, 0, 0, 0, 1]


def test_L20_a_subset_gets_a_sampler_of_its_own():
    """The code keeps the old sampler, which indexes range(N); ours visits the S selected, and merged targets, only."""
    s = tarot.select(at(*range(10)), at(0, 90), TarotFixed(size=3), whitening=None, total=3)
    for merge, behind in ((False, []), ("one", [10, 11])):
        sampler = WeightedSampler(epoch_weights(s, 10, 2, merge), seed=0)
        loader = DataLoader(torch.arange(12), batch_size=2, sampler=sampler)
        assert sorted(torch.cat(list(loader)).tolist()) == [*s.indices.tolist(), *behind]


def test_L21_selectors_and_solvers_keep_no_state():
    """The code's solver is changed by its first use, so a second selection fails; ours selects the same again."""
    for selector in (TarotOTM(folds=2), TarotFixed(size=2), TarotExact(size=2)):
        first, second = (pick((0, 45, 80), (5, 20, 60), selector) for _ in range(2))
        assert first.potentials.tolist() == second.potentials.tolist()
        assert first.indices.tolist() == second.indices.tolist()


def test_L22_dsdm_is_the_mean_trak_score():
    """The code's `dsdm` and `less` are both the mean WFD cosine; DsDm is the mean of phi (Phi^T Phi)^-1 phi Q."""
    targets = np.eye(2)  # one of subtask A, one of B
    # the rest of the pool makes Phi^T Phi = 10 I and scores below both candidates of the example
    rest = -np.linalg.cholesky(10 * np.eye(2) - [[1.36, 0.36], [0.36, 0.36]]).T
    candidates = np.array([[1.0, 0.0], [0.6, 0.6], *rest])
    np.testing.assert_allclose(candidates.T @ candidates, 10 * np.eye(2), atol=1e-12)
    assert tarot.select(candidates, targets, Dsdm(size=1)).indices.tolist() == [1]  # .6 > .5: the mean over subtasks
    residuals = np.array([1.0, 0.5, 1.0, 1.0])
    with_q = tarot.select(candidates, targets, Dsdm(size=1), candidate_residuals=residuals)
    assert with_q.indices.tolist() == [0]  # .5 > .3
    longer = candidates * [[2.0], [1.0], [1.0], [1.0]]  # cosines do not change, scores do
    assert tarot.select(longer, targets, Dsdm(size=1)).indices.tolist() == [0]


def test_L23_one_seed_drives_everything():
    """The code never uses its seed, so `random` differs from run to run; ours repeats, and another seed differs."""
    c, t = gaussian()
    for kind in (Random, TarotOTM):
        options = {"size": 40} if kind is Random else {"folds": 5}
        again = [tarot.select(c, t, kind(seed=seed, **options)).indices.tolist() for seed in (0, 0, 1)]
        assert again[0] == again[1] != again[2]
    auto = [tarot.select(c[:40], t[:7], TarotExact(size="auto", seed=s)).curve["held_out"] for s in (0, 0, 1)]
    assert auto[0] == auto[1] != auto[2]


def test_L24_candidates_and_targets_are_collected_apart_and_completely(tmp_path):
    """The code's pointer resets at N: with N = 4, M = 6, batch 2 two target rows stay zero; none of ours does."""
    torch.manual_seed(0)
    data = [(torch.randn(3), torch.randn(2)) for _ in range(10)]
    model = nn.Linear(3, 2)
    features = GradientFeatures(
        model, lambda model, batch: (model(batch[0]) - batch[1]).square().sum(1), Projection("identity")
    )
    rows = [gradient_rows(features, data, indices, batch_size=2)["features"] for indices in (range(4), range(4, 10))]
    assert [len(r) for r in rows] == [4, 6]
    for row, (x, y) in zip(torch.cat(rows), data, strict=True):
        weight, bias = torch.outer(2 * (model(x) - y), x), 2 * (model(x) - y)
        expected = torch.cat([weight.flatten(), bias]).sort().values  # in whichever order the parameters stand
        torch.testing.assert_close(row.sort().values, expected.detach(), rtol=1e-4, atol=1e-5)
    short = {"recipe": {"kind": "test"}, "ids": ["a", "b", "c"], "dim": 2}
    with pytest.raises(ValueError, match="2"):  # one row too few
        FeatureStore.build(tmp_path / "store", compute=lambda i, j: {"features": torch.ones(j - i - 1, 2)}, **short)


def test_L25_layers_are_joined_as_sets():
    """The box counts |Ds| + |Dk| with overlaps and may pick what it has; we take the union: all three of {0, 1, 2}."""
    # layer 1 is {0, 1}; layer 2 is {1, 2}, for 1 is the second neighbour of the first target
    candidates, targets = (0, 40, 75), (10, 45)
    problem = SelectionProblem((at(*candidates),), (at(*targets),))
    second = problem.neighbours(3)[1][:, :2]
    assert second[:, 0].tolist() == [0, 1] and sorted(second[:, 1].tolist()) == [1, 2]
    assert pick(candidates, targets, TarotFixed(size=3)).indices.tolist() == [0, 1, 2]
    assert pick(candidates, targets, TarotFixed(size=3, exact=True)).indices.tolist() == [0, 1, 2]


def test_L26_the_whitened_distance_ranks_and_the_whole_pool_may_be_selected():
    """The box requires S = N and says d_Z; we take any S up to N, and neighbours are by d_w."""
    c, t = gaussian()
    c, t = c[:50], t[:5]
    assert tarot.select(c, t, TarotFixed(ratio=1.0)).indices.tolist() == list(range(50))
    first = np.unique(wfd(c, t).argmin(axis=0))
    s = tarot.select(c, t, TarotFixed(size=len(first)), whitening="paper")
    assert s.indices.tolist() == first.tolist()
    plain = np.linalg.norm(c[:, None] - t[None], axis=2).argmin(axis=0)
    assert np.unique(plain).tolist() != first.tolist()


@pytest.mark.parametrize(("targets", "folds"), [((0, 40, 80), 10), ((0, 40, 80), 1), ((0,), 10), ((0, 40), 2)])
def test_L27_folds_are_clamped_to_the_number_of_targets(targets, folds):
    """The code asks for 2 <= K <= M; the paper uses K = 1: we take min(K, M), and K = 1 uses all targets twice."""
    s = pick((1, 41, 81, 170), targets, TarotOTM(folds=folds))
    assert len(s.curve["ot_by_layer"]) == min(folds, len(targets))
    assert len(s) >= 1
    if folds == 1:
        assert s.indices.tolist() == [0, 1, 2]


def test_L28_a_pool_larger_than_memory_is_streamed(monkeypatch):
    """The code holds S x M costs and N x M scores; we read blocks, and no matrix is larger than one: same selection."""
    c, t = gaussian()
    expected = tarot.select(c, t, TarotFixed(size=240))
    monkeypatch.setattr("tarot.features.arrays.BLOCK_BYTES", 1)  # 256 rows a block
    monkeypatch.setattr(tarot.selection.problem, "WHOLE_TABLE", 0)
    monkeypatch.setattr(tarot.selection.problem, "DENSE_PAIRS", 0)
    monkeypatch.setattr(tarot.transport.solve, "SEED_PAIRS", 5000)
    monkeypatch.setattr(tarot.transport.costs, "block_size", lambda columns: 50)  # rows
    pairs = []

    def counted(x, y):
        pairs.append(len(x) * len(y))
        return distances(x, y)

    for module in (tarot.selection.problem, tarot.transport.costs):
        monkeypatch.setattr(module, "distances", counted)
    s = tarot.select(c, t, TarotFixed(size=240))
    assert s.indices.tolist() == expected.indices.tolist()
    assert len(s.weights) == 240 and len(s.nearest_target) == 240
    assert s.ot_bracket.lower <= expected.ot_distance <= s.ot_distance
    assert max(pairs) <= 80 * 100 < 240 * 100 and len(pairs) > 5  # of 80,000 and 24,000 pairs
