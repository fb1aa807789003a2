"""Prototypes and EL2N: the two methods that look at no target."""

import numpy as np
import pytest
from sklearn.cluster import KMeans, MiniBatchKMeans

from tarot.common.errors import InputError
from tarot.selection.problem import SelectionProblem
from tarot.selectors.el2n import El2n
from tarot.selectors.prototypes import Prototypes
from tarot.space.content import content_order


def blobs(n=90, d=6, seed=0):
    """Rows around three well separated directions, of lengths that must not matter, and which."""
    g = np.random.default_rng(seed)
    kind = g.integers(0, 3, n)
    rows = np.eye(d)[kind] + 0.15 * g.normal(size=(n, d))
    return (rows * g.uniform(0.5, 20, (n, 1))).astype(np.float32), kind


def problem(*views, **more):
    return SelectionProblem(views, tuple(np.ones((2, v.shape[1]), dtype=np.float32) for v in views), **more)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def cosine_distance(rows, centres):
    return 1 - (unit(rows.astype(float)) * unit(centres.astype(float))).sum(1)


# --- prototypes ------------------------------------------------------------------------------------------------------


def test_equals_scikit_learn_step_by_step():
    rows, _ = blobs()
    order = np.random.default_rng(5).permutation(content_order([rows], "candidates"))
    means = MiniBatchKMeans(4, random_state=5, n_init=1, batch_size=40)
    for start in (0, 40, 80):
        means.partial_fit(unit(rows)[order[start : start + 40]])
    expected = cosine_distance(rows, means.cluster_centers_[means.predict(unit(rows))])
    values = Prototypes(centroids=4, batch=40, epochs=1, seed=5).values(problem(rows))
    assert values.dtype == np.float64
    assert values == pytest.approx(expected, abs=1e-5)


def test_converges_to_the_clusters_of_full_k_means():
    rows, _ = blobs(n=3000)
    full = KMeans(3, n_init=4, random_state=0).fit(unit(rows))
    expected = cosine_distance(rows, full.cluster_centers_[full.labels_])
    values = Prototypes(centroids=3, batch=256, epochs=4).values(problem(rows))
    assert np.corrcoef(values, expected)[0, 1] > 0.99


def test_the_most_prototypical_are_left_out_first():
    rows, kind = blobs(n=300)
    centres = np.stack([unit(rows)[kind == k].mean(0) for k in range(3)])
    distance = cosine_distance(rows, centres[kind])
    chosen = Prototypes(size=150, centroids=3).select(problem(rows))
    left = np.setdiff1d(np.arange(300), chosen.indices)
    assert distance[left].max() < np.quantile(distance, 0.6)
    assert distance[left].mean() < distance[chosen.indices].mean()


def test_is_deterministic_and_reads_lengths_and_precisions_alike():
    rows, _ = blobs()
    first = Prototypes().values(problem(rows))
    assert np.array_equal(first, Prototypes().values(problem(rows)))
    assert np.array_equal(first, Prototypes().values(problem(4 * rows)))
    half = unit(rows).astype(np.float16)
    assert Prototypes().values(problem(half)) == pytest.approx(Prototypes().values(problem(half.astype(np.float32))))
    assert not np.array_equal(first, Prototypes(seed=1, centroids=9).values(problem(rows)))


def test_permuting_the_pool_permutes_the_values():
    rows, _ = blobs(n=3000)
    rows[7], rows[8] = rows[3], 0
    values = Prototypes(batch=500).values(problem(rows))
    p = np.random.default_rng(0).permutation(3000)
    assert Prototypes(batch=500).values(problem(rows[p])) == pytest.approx(values[p], abs=1e-6)


def test_a_sorted_pool_is_read_in_mixed_order():
    rows, kind = blobs(n=3000)
    rows = rows[np.argsort(kind, kind="stable")]
    full = KMeans(3, n_init=4, random_state=0).fit(unit(rows))
    expected = cosine_distance(rows, full.cluster_centers_[full.labels_])
    values = Prototypes(centroids=3, batch=100, epochs=2).values(problem(rows))
    assert np.corrcoef(values, expected)[0, 1] > 0.99


def test_views_are_averaged_and_zero_rows_worth_least():
    a, b = blobs()[0], blobs(seed=1)[0]
    ids = np.arange(len(a))
    both = Prototypes().values(problem(a, b, candidate_ids=ids))
    alone = [Prototypes().values(problem(view, candidate_ids=ids)) for view in (a, b)]
    assert both == pytest.approx((alone[0] + alone[1]) / 2)
    a[[3, 50]] = 0
    values = Prototypes().values(problem(a))
    assert (values[[3, 50]] == 0).all()
    assert (np.delete(values, [3, 50]) > 0).all()


def test_tiny_pools_and_bad_options():
    assert Prototypes().values(problem(blobs(1)[0])) == pytest.approx([0], abs=1e-6)
    assert Prototypes().values(problem(blobs(2)[0])) == pytest.approx([0, 0], abs=1e-6)
    rows = blobs()[0]
    for options, message in [
        ({"centroids": 91}, "centroids is 91, but only 90"),
        ({"centroids": 0}, "centroids must be at least 1"),
        ({"batch": 3, "centroids": 4}, "batch must hold at least one row per centroid, 4"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"seed": -1}, "seed must be"),
    ]:
        with pytest.raises(InputError, match=message):
            Prototypes(**options).values(problem(rows))
    with pytest.raises(InputError, match="zero"):
        Prototypes().values(problem(np.zeros((5, 3), dtype=np.float32)))


# --- el2n ------------------------------------------------------------------------------------------------------------

SCORES = np.array([0.3, 0.9, 0.1, 0.7, 0.5])


def scored(*scores):
    return problem(*[np.ones((len(s), 2), dtype=np.float32) for s in scores], candidate_scores=tuple(scores))


def test_scores_are_averaged_over_models_and_signed():
    models = scored(SCORES, SCORES[::-1])
    mean = (SCORES + SCORES[::-1]) / 2
    assert El2n().values(models) == pytest.approx(-mean)
    assert El2n(prefer="hard").values(models) == pytest.approx(mean)
    assert El2n(size=2).select(scored(SCORES)).indices.tolist() == [0, 2]
    assert El2n(size=2, prefer="hard").select(scored(SCORES)).indices.tolist() == [1, 3]


def test_the_window_bounds_what_may_be_selected():
    pool = scored(SCORES)
    assert El2n(window=(0.2, 0.8)).select(pool).indices.tolist() == [0, 3, 4]
    assert El2n(window=(0.0, 0.4)).select(pool).indices.tolist() == [0, 2]
    assert El2n(window=[0.6, 1.0], prefer="hard").select(pool).indices.tolist() == [1, 3]
    assert El2n(size=1, window=(0.2, 1.0)).select(pool).indices.tolist() == [0]
    assert El2n(size=1, window=(0.0, 0.8), prefer="hard").select(pool).indices.tolist() == [3]
    tied = scored(np.zeros(5))
    assert El2n(window=(0.2, 0.6)).select(tied).indices.tolist() == [1, 2]
    assert El2n(window=(0.2, 0.6), prefer="hard").select(tied).indices.tolist() == [1, 2]


def test_what_is_missing_or_impossible_is_named():
    with pytest.raises(InputError, match=r"el2n needs candidate_scores.*features=el2n"):
        El2n(size=1).select(problem(np.ones((5, 2))))
    pool = scored(SCORES)
    with pytest.raises(InputError, match="prefer must be"):
        El2n(size=1, prefer="noisy").select(pool)
    for window in [(0.5, 0.5), (0.8, 0.2), (-0.1, 1), (0, 1.5), (0.5,), 0.5, (float("nan"), 1)]:
        with pytest.raises(InputError, match=r"^window(\[0\])? must be"):
            El2n(size=1, window=window).select(pool)
    with pytest.raises(InputError, match=r"leaves 2 of 5 candidates; 3 wanted"):
        El2n(size=3, window=(0.0, 0.4)).select(pool)
    with pytest.raises(InputError, match="either size or ratio"):
        El2n().select(pool)
