"""Random numbers against the published generator; sketches against explicit matrices and what they promise."""

import hashlib
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tarot.common.errors import InputError
from tarot.gradients.projection import (
    Dense,
    Factored,
    Projection,
    SparseSign,
    fast_jl,
    plan,
)
from tarot.gradients.random_numbers import random_matrix, random_words

SHAPES = {"a.weight": (12, 30), "a.bias": (12,), "b.weight": (20, 4, 3, 3), "norm": (7,), "table": (50, 9)}
SIZE = sum(int(np.prod(shape)) for shape in SHAPES.values())


def matrix(projection: Projection, shapes=SHAPES) -> torch.Tensor:
    """The whole projection as an explicit matrix [dim, size], column by column."""
    laid_out = plan(projection, shapes)
    blocks = []
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        block = torch.zeros(size, laid_out.width)
        block[:, laid_out.columns[name]] = laid_out.sketches[name](torch.eye(size))
        blocks.append(block)
    return torch.cat(blocks).T


def splitmix64(state: int, count: int) -> list[int]:
    """The published algorithm in Python's integers."""
    mask, outputs = (1 << 64) - 1, []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        outputs.append(z ^ (z >> 31))
    return outputs


def test_generator_is_splitmix64():
    assert splitmix64(1234567, 3) == [6457827717110365317, 3203168211198807973, 9817491932198370423]  # published values
    words = random_words("key", (0, 3), (0, 2000), "cpu").numpy().view(np.uint64)
    streams = splitmix64(int.from_bytes(hashlib.sha256(b"key").digest()[:8], "little"), 3)
    assert words.tolist() == [splitmix64(stream, 2000) for stream in streams]


@pytest.mark.parametrize("distribution", ["rademacher", "normal"])
def test_random_matrix_does_not_depend_on_blocks(distribution):
    whole = random_matrix(distribution, "key", (0, 9), (0, 300), "cpu")
    for rows, columns in ((2, 5), (17, 211)), ((0, 9), (64, 128)), ((8, 9), (299, 300)):
        assert torch.equal(
            random_matrix(distribution, "key", rows, columns, "cpu"), whole[slice(*rows), slice(*columns)]
        )
    assert not torch.equal(random_matrix(distribution, "other", (0, 9), (0, 300), "cpu"), whole)


def test_random_matrix_moments():
    signs = random_matrix("rademacher", "key", (0, 64), (0, 4096), "cpu")
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    for values in signs, random_matrix("normal", "key", (0, 64), (0, 4096), "cpu"):
        assert abs(float(values.mean())) < 0.01 and float(values.var()) == pytest.approx(1, abs=0.02)
        correlations = values @ values.T / 4096 - torch.eye(64)  # standard deviation 1/64 each
        assert float(correlations.abs().max()) < 6 / 64
        assert float(correlations.square().mean().sqrt()) == pytest.approx(1 / 64, rel=0.1)
    normal = random_matrix("normal", "key", (0, 64), (0, 4096), "cpu")
    assert float((normal**4).mean()) == pytest.approx(3, abs=0.1)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["factored", "tensorsketch", "rademacher", "normal", "sjlt"])
def test_same_numbers_on_a_gpu(kind):
    assert torch.equal(random_words("k", (3, 9), (5, 500), "cuda").cpu(), random_words("k", (3, 9), (5, 500), "cpu"))
    for distribution in "rademacher", "normal":
        ours = random_matrix(distribution, "k", (3, 9), (5, 500), "cuda").cpu()
        assert torch.equal(ours, random_matrix(distribution, "k", (3, 9), (5, 500), "cpu"))
    laid_out = plan(Projection(kind, 60), SHAPES)
    for name, sketch in laid_out.sketches.items():
        gradient = torch.randn(3, int(np.prod(SHAPES[name])))
        torch.testing.assert_close(sketch(gradient.cuda()).cpu(), sketch(gradient), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["factored", "tensorsketch", "rademacher", "normal", "sjlt"])
def test_inner_products_are_preserved_in_expectation(kind):
    generator = torch.Generator().manual_seed(0)
    shapes = {"a": (8, 10), "b": (12, 15), "c": (6,)}
    g = {name: torch.randn(2, int(np.prod(shape)), generator=generator) for name, shape in shapes.items()}
    for gradient in g.values():
        gradient[1] += 0.5 * gradient[0]  # two vectors with an inner product
    true = torch.cat(list(g.values()), 1)
    estimates = []
    for seed in range(300):
        laid_out = plan(Projection(kind, 40, seed), shapes)
        features = torch.zeros(2, 40)
        for name, gradient in g.items():
            features[:, laid_out.columns[name]] += laid_out.sketches[name](gradient)
        estimates.append(float(features[0] @ features[1]))
    error = abs(np.mean(estimates) - float(true[0] @ true[1]))
    assert error < 4 * np.std(estimates) / 300**0.5
    assert np.std(estimates) < 2.5 * float(true[0].norm() * true[1].norm()) / 40**0.5


@pytest.mark.parametrize("kind", ["factored", "tensorsketch", "rademacher", "normal", "sjlt"])
@pytest.mark.parametrize("dim", [1, 3, 37, 64, 500])
def test_exact_dimension_and_linearity(kind, dim):
    laid_out = plan(Projection(kind, dim), SHAPES)
    assert laid_out.width == dim
    covered = torch.zeros(dim)
    for columns in laid_out.columns.values():
        covered[columns] += 1
    assert (covered > 0).all()
    s, g = matrix(Projection(kind, dim)), torch.randn(2, 50 * 9)
    sketch = laid_out.sketches["table"]
    torch.testing.assert_close(sketch(g), g @ s[:, -450:][laid_out.columns["table"]].T, rtol=1e-4, atol=1e-4)


def test_factored_is_a_kronecker_product():
    sketch = Factored("key", rows=20, columns=36, width=23)
    r, c = sketch.grid
    assert r * c >= 23 and r <= 20 and c <= 36
    kronecker = torch.kron(sketch.left(torch.device("cpu")), sketch.right(torch.device("cpu")))[:23] / 23**0.5
    left, right = torch.randn(5, 11, 20), torch.randn(5, 11, 36)
    gradient = left.transpose(1, 2) @ right
    expected = gradient.flatten(1) @ kronecker.T
    torch.testing.assert_close(sketch(gradient.flatten(1)), expected, rtol=1e-4, atol=1e-4)
    combined = sketch.combine(left @ sketch.left(left.device).T, right @ sketch.right(left.device).T)
    torch.testing.assert_close(combined, expected, rtol=1e-4, atol=1e-4)


def test_factored_grid_always_fits():
    for rows in 1, 2, 7, 30:
        for columns in 1, 3, 50:
            for width in range(1, rows * columns):
                r, c = Factored("k", rows, columns, width).grid
                assert 1 <= r <= rows and 1 <= c <= columns and r * c >= width


@pytest.mark.parametrize("size", [5, 70_000])
def test_dense_in_blocks_equals_the_matrix(size, monkeypatch):
    monkeypatch.setattr("tarot.gradients.projection.HELD", 1000)
    monkeypatch.setattr("tarot.gradients.projection.BLOCK", 1 << 14)
    gradient = torch.randn(3, size)
    explicit = random_matrix("rademacher", "key", (0, 10), (0, size), "cpu") / 10**0.5
    torch.testing.assert_close(
        Dense("rademacher", "key", size, 10)(gradient), gradient @ explicit.T, rtol=1e-3, atol=1e-3
    )
    sparse = SparseSign("key", size, 10)
    columns, signs = sparse.targets(0, size, torch.device("cpu"))
    explicit = torch.zeros(10, size)
    for column, sign in zip(columns, signs, strict=True):
        explicit[column, torch.arange(size)] += sign / 2
    assert torch.equal((explicit != 0).sum(0), torch.full((size,), 4))
    torch.testing.assert_close(sparse(gradient), gradient @ explicit.T, rtol=1e-3, atol=1e-3)


def test_more_dimensions_keep_the_numbers():
    small, large = (Dense("rademacher", "key", 100, width).block(0, 100, torch.device("cpu")) for width in (8, 32))
    assert torch.equal(small, large[:8])


def test_seeds_and_names_are_independent():
    first, second = matrix(Projection("rademacher", 30, 0)), matrix(Projection("rademacher", 30, 1))
    assert abs(float((first * second).mean() * 30)) < 5 / first.numel() ** 0.5  # uncorrelated entries
    laid_out = plan(Projection("rademacher", 30), {"a": (10, 10), "b": (10, 10)})
    assert not torch.equal(laid_out.sketches["a"](torch.eye(100)), laid_out.sketches["b"](torch.eye(100)))


def test_shares_are_by_size():
    laid_out = plan(Projection("factored", 1000), {"big": (100, 300), "small": (100, 100), "bias": (100,)})
    assert laid_out.width == 1000
    widths = {name: sketch.width for name, sketch in laid_out.sketches.items()}
    assert widths == {"big": 748, "small": 249, "bias": 3}


@pytest.mark.parametrize("kind", ["factored", "tensorsketch"])
def test_more_dimensions_than_parameters_keeps_the_gradient(kind):
    laid_out = plan(Projection(kind, 10_000), SHAPES)
    assert laid_out.width == SIZE
    assert torch.equal(matrix(Projection(kind, 10_000)), torch.eye(SIZE))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "gaussian"}, "projection.kind must be factored, .* or fast_jl; it is 'gaussian'"),
        ({"kind": "factored", "dim": 0}, "at least 1"),
        ({"kind": "normal", "dim": None}, "at least 1"),
        ({"kind": "fast_jl", "dim": 100}, "multiple of 512"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(InputError, match=message):
        Projection(**arguments)


def test_fast_jl_says_what_is_missing(monkeypatch):
    """TRAK's module is there but its CUDA package is not; then not even the module."""

    def without_kernel(*arguments):
        raise ModuleNotFoundError("fast_jl")

    module = SimpleNamespace(CudaProjector=without_kernel, ProjectionType=SimpleNamespace(rademacher="rademacher"))
    for projectors in module, None:
        monkeypatch.setitem(sys.modules, "trak", SimpleNamespace(projectors=projectors))
        monkeypatch.setitem(sys.modules, "trak.projectors", projectors)
        with pytest.raises(InputError, match=r"needs the packages traker and fast_jl; projection\.kind=rademacher is"):
            fast_jl(Projection("fast_jl", 512), 10, torch.device("cuda"))


def test_as_dict_is_the_recipe():
    assert Projection("sjlt", 64, 3).as_dict() == {"kind": "sjlt", "dim": 64, "seed": 3}
    assert Projection("identity", 64).as_dict() == {"kind": "identity", "dim": None, "seed": 0}
