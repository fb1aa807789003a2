"""Tensor sketches against explicit count sketch matrices, by every way of making them, and what they promise."""

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from tarot.gradients import tensor_sketch
from tarot.gradients.per_sample import GradientFeatures
from tarot.gradients.projection import Projection, plan
from tarot.gradients.random_numbers import random_matrix, random_words
from tarot.gradients.reference import loop_gradients
from tarot.gradients.tensor_sketch import Signs, TensorSketch
from tests.tarot.gradients.gradient_models import CASES, losses

pytestmark = pytest.mark.filterwarnings("ignore:gradients of .* take one backward pass")
SHAPES = [(12, 30), (30, 12), (40, 5), (1, 50), (7, 7), (3, 200), (90, 64), (2, 3)]


def explicit(sketch) -> torch.Tensor:
    """The count sketch matrix [width, size], entry by entry."""
    if isinstance(sketch, Signs):
        return torch.diag(random_matrix("rademacher", sketch.key, (0, 1), (0, sketch.size), "cpu")[0])
    left, right = (
        random_matrix("rademacher", f"{sketch.key}|{role}", (0, 1), (0, size), "cpu")[0]
        for role, size in (("left", sketch.rows), ("right", sketch.columns))
    )
    offset = (int(random_words(f"{sketch.key}|layout", (0, 1), (0, 2), "cpu")[0, 1]) >> 1) % (1 << 62)
    buckets = []
    for i in range(sketch.rows):
        for j in range(sketch.columns):
            moved = i + j * sketch.stride if sketch.rows > sketch.columns else i * sketch.stride + j
            buckets.append((moved % sketch.modulus % sketch.width + offset) % sketch.width)
    matrix = torch.zeros(sketch.width, len(buckets))
    matrix[buckets, torch.arange(len(buckets))] = torch.outer(left, right).flatten()
    return matrix


@pytest.fixture(params=["transformed", "formed"])
def way(request, monkeypatch):
    """Both ways of every layer, in pieces that are smaller than a batch."""
    monkeypatch.setattr(tensor_sketch, "WRITE", 1e9 if request.param == "transformed" else 0)
    monkeypatch.setattr(tensor_sketch, "MULTIPLY", 0)
    monkeypatch.setattr(tensor_sketch, "PIECE", 100)
    return request.param


@pytest.mark.parametrize("width", [1, 2, 16, 37, 101])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_way_is_the_count_sketch_matrix(shape, width, monkeypatch):
    monkeypatch.setattr(tensor_sketch, "PIECE", 300)
    rows, columns = shape
    sketch, matrix = TensorSketch("key", rows, columns, width), explicit(TensorSketch("key", rows, columns, width))
    left, right = torch.randn(5, 9, rows), torch.randn(5, 9, columns)
    gradient = (left.transpose(1, 2) @ right).flatten(1)
    expected = gradient @ matrix.T
    for ours in sketch(gradient), sketch.of_factors(left, right), sketch.of_products(left, right):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    ids = torch.randint(rows, (5, 9))
    hot = torch.nn.functional.one_hot(ids, rows).float()
    expected = (hot.transpose(1, 2) @ right).flatten(1) @ matrix.T
    torch.testing.assert_close(sketch.of_rows(ids, right), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_scales_are_those_of_rows_and_columns(shape):
    row_scale, column_scale = torch.rand(shape[0]) + 0.5, torch.rand(shape[1]) + 0.5
    plain = TensorSketch("key", *shape, 16)
    gradient = torch.randn(4, *shape)
    expected = plain((gradient * row_scale[:, None] * column_scale).flatten(1))
    plain(gradient.flatten(1))  # what it holds is not what the scaled one holds
    actual = plain.scaled(row_scale, column_scale)(gradient.flatten(1))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_features_are_the_count_sketch_of_the_loop(name, way):
    torch.manual_seed(0)
    model, batch = CASES[name].model(), CASES[name].batch()
    dim = max(1, sum(p.numel() for p in model.parameters()) // 7)
    features = GradientFeatures(model, losses, Projection("tensorsketch", dim, seed=3))
    expected = torch.zeros(len(batch), dim)
    for parameter, rows in loop_gradients(model, losses, batch).items():
        sketch, columns = features._plan.sketches[parameter], features._plan.columns[parameter]
        assert sketch.key == f"3|{parameter}|tensorsketch"
        expected[:, columns] += rows.flatten(1) @ explicit(sketch).T
    actual = features(batch)
    assert float((actual - expected).norm()) <= 1e-4 * float(expected.norm())
    unfit = {parameter for parameter, how in features.coverage.covered if how.startswith("per sample")}
    assert unfit <= set(CASES[name].slow), features.coverage


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("width", [16, 64])
def test_rows_and_columns_that_are_near_never_fall_together(shape, width):
    """What a layout with drawn buckets does not have, and so has a larger variance for outer products."""
    matrix = explicit(TensorSketch("key", *shape, width)).reshape(width, *shape).abs()
    assert torch.equal(matrix.sum(0), torch.ones(shape))
    for together in torch.einsum("wij,wkj->ik", matrix, matrix), torch.einsum("wij,wik->jk", matrix, matrix):
        near = torch.tril(torch.triu(together, 1 - width), width - 1)
        assert torch.equal(near, torch.diag(together.diag()))


@pytest.mark.parametrize("rank", [1, 5])
def test_variance_is_that_of_a_dense_sketch(rank):
    """(|g|^2 |h|^2 + <g, h>^2) / width less what its own entries add, of sums of few outer products."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(2, rank, n, generator=generator) for n in (40, 60))
    gradient = (left.transpose(1, 2) @ right).flatten(1)
    gradient[1] += 0.5 * gradient[0]
    g, h = gradient
    estimates = []
    for seed in range(600):
        first, second = TensorSketch(f"{seed}|w", 40, 60, 64)(gradient)
        estimates.append(float(first @ second))
    wanted = float(g.square().sum() * h.square().sum() + (g @ h) ** 2 - 2 * (g * h).square().sum()) / 64
    assert abs(np.mean(estimates) - float(g @ h)) < 4 * wanted**0.5 / 600**0.5
    assert np.var(estimates) < 1.35 * wanted  # the factored projection's is 6 times as large, of rank 1


def test_parameters_that_fit_are_signed_and_kept():
    laid_out = plan(Projection("tensorsketch", 64), {"a": (30, 30), "b": (8, 8), "c": (5,), "d": (70,)})
    kinds = {name: type(sketch).__name__ for name, sketch in laid_out.sketches.items()}
    assert kinds == {"a": "TensorSketch", "b": "Signs", "c": "Signs", "d": "TensorSketch"}
    g = torch.randn(3, 5)
    assert torch.equal(laid_out.sketches["c"](g).abs(), g.abs())
    assert laid_out.columns["b"] == slice(0, 64)
    assert laid_out.columns["c"].stop - laid_out.columns["c"].start == 5 and laid_out.columns["c"].stop <= 64


def test_small_parameters_are_spread_over_all_columns():
    """Sixteen places, each about as often."""
    starts = [Signs(f"{seed}|b", 5).start(20) for seed in range(1600)]
    counts = np.bincount(starts, minlength=16)
    assert len(counts) == 16 and ((counts - 100) ** 2 / 100).sum() < chi2.ppf(0.999, 15)


def test_bits_do_not_depend_on_batches_before_or_workers():
    torch.manual_seed(0)
    case = CASES["transformer encoder"]
    model, batch = case.model(), case.batch()
    features = GradientFeatures(model, losses, Projection("tensorsketch", 50))
    assert len({features(batch).numpy().tobytes() for _ in range(5)}) == 1


def test_no_gradient_of_the_batch_is_formed():
    model = torch.nn.Linear(300, 200)
    features = GradientFeatures(model, losses, Projection("tensorsketch", 128))
    assert features.largest_formed <= 200


def test_awkward_widths_have_fast_transforms():
    assert TensorSketch("key", 40, 60, 1021).modulus == 1024
    assert TensorSketch("key", 40, 60, 898).modulus == 900
