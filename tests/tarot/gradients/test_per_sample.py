"""Every kind of layer against gradients taken one sample at a time; the properties of features; the errors."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tarot.common.errors import InputError
from tarot.gradients.per_sample import GradientFeatures
from tarot.gradients.projection import Factored, Projection
from tarot.gradients.random_numbers import random_matrix
from tarot.gradients.reference import loop_gradients, vmap_gradients
from tests.tarot.gradients.gradient_models import CASES, Case, Net, losses, normal, routed, with_statistics

pytestmark = pytest.mark.filterwarnings("ignore:gradients of .* take one backward pass")
NO_VMAP = {"recurrent", "embedding by frequency", "sparse embedding", "checkpointed", "transformer encoder"}


def build(name: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    case = CASES[name]
    return case.model().eval(), case.batch()


def assert_close(actual: torch.Tensor, expected: torch.Tensor, relative: float = 1e-4) -> None:
    assert actual.shape == expected.shape
    error, size = float((actual - expected).norm()), float(expected.norm())
    assert error <= relative * size, f"relative error {error / size:.2e}"


@pytest.mark.parametrize("name", CASES)
def test_every_layer_equals_the_loop(name):
    model, batch = build(name)
    features = GradientFeatures(model, losses, Projection("identity"))
    columns = features(batch)
    expected = loop_gradients(model, losses, batch)
    total = torch.cat([rows.flatten(1) for rows in expected.values()], 1)
    start = 0
    for rows in expected.values():
        ours = columns[:, start : start + rows[0].numel()]
        start += rows[0].numel()
        error = float((ours - rows.flatten(1)).norm())
        assert error <= 1e-4 * float(rows.norm()) + 1e-6 * float(total.norm())
    slow = {name for name, how in features.coverage.covered if how.startswith("per sample")}
    assert slow <= set(CASES[name].slow), features.coverage


@pytest.mark.parametrize("name", CASES)
def test_factored_is_the_kronecker_product_of_the_loop(name):
    model, batch = build(name)
    count = sum(p.numel() for p in model.parameters())
    features = GradientFeatures(model, losses, Projection("factored", max(1, count // 3), seed=3))
    expected = torch.zeros(len(batch), features.dim)
    for parameter, rows in loop_gradients(model, losses, batch).items():
        sketch, columns = features._plan.sketches[parameter], features._plan.columns[parameter]
        if isinstance(sketch, Factored):
            r, c = sketch.grid
            left = random_matrix("rademacher", f"3|{parameter}|factored|left", (0, r), (0, sketch.rows), "cpu")
            right = random_matrix("rademacher", f"3|{parameter}|factored|right", (0, c), (0, sketch.columns), "cpu")
            matrix = torch.kron(left, right)[: sketch.width]
        else:
            matrix = random_matrix("rademacher", sketch.key, (0, sketch.width), (0, sketch.size), "cpu")
        expected[:, columns] += rows.flatten(1) @ matrix.T * len(matrix) ** -0.5
    assert_close(features(batch), expected)


@pytest.mark.parametrize("kind", ["rademacher", "normal", "sjlt"])
@pytest.mark.parametrize("name", ["conv2d groups", "transformer encoder", "tied embedding", "bare parameter"])
def test_dense_is_an_explicit_matrix_times_the_loop(name, kind):
    model, batch = build(name)
    features = GradientFeatures(model, losses, Projection(kind, 30))
    expected = torch.zeros(len(batch), 30)
    for parameter, rows in loop_gradients(model, losses, batch).items():
        sketch = features._plan.sketches[parameter]
        if kind == "sjlt":
            matrix = sketch(torch.eye(sketch.size)).T
        else:
            matrix = random_matrix(kind, f"0|{parameter}|{kind}", (0, 30), (0, sketch.size), "cpu") / 30**0.5
        expected += rows.flatten(1) @ matrix.T
    assert_close(features(batch), expected)


@pytest.mark.parametrize("name", [name for name in CASES if name not in NO_VMAP])
def test_the_oracles_agree(name):
    model, batch = build(name)
    loop, vmap = (oracle(model, losses, batch) for oracle in (loop_gradients, vmap_gradients))
    assert loop.keys() == vmap.keys()
    whole = torch.cat([rows.flatten() for rows in loop.values()])
    assert_close(torch.cat([vmap[parameter].flatten() for parameter in loop]), whole, 1e-5)


MIXED = Case(
    lambda: nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1),
        with_statistics(nn.BatchNorm2d(8)),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 12, 3, stride=2),
        nn.Flatten(),
        nn.Linear(12 * 9, 10),
    ),
    normal(9, 2, 8, 8),
)


@pytest.fixture
def mixed():
    torch.manual_seed(0)
    return MIXED.model(), MIXED.batch()


@pytest.mark.parametrize("kind", ["factored", "tensorsketch", "rademacher", "sjlt"])
def test_features_do_not_depend_on_the_batch(mixed, kind):
    model, batch = mixed
    whole = GradientFeatures(model, losses, Projection(kind, 100))(batch)
    for size in 1, 2, 4:
        features = GradientFeatures(model, losses, Projection(kind, 100))
        assert_close(torch.cat([features(part) for part in batch.split(size)]), whole, 1e-5)
    order = torch.randperm(len(batch))
    assert_close(GradientFeatures(model, losses, Projection(kind, 100))(batch[order]), whole[order], 1e-5)
    mates = torch.cat([batch[:1], torch.randn(5, 2, 8, 8)])
    assert_close(GradientFeatures(model, losses, Projection(kind, 100))(mates)[:1], whole[:1], 1e-5)


def test_the_model_is_left_as_it_was(mixed):
    model, batch = mixed
    model = nn.Sequential(model, nn.TransformerEncoderLayer(10, 2, 8, batch_first=True)).train()
    model[0][0].requires_grad_(False)
    model[0][1].eval()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]

    def sequence_losses(model, batch):
        return losses(lambda x: model[1](model[0](x)[:, None]), batch)

    features = GradientFeatures(model, sequence_losses, Projection("factored", 50))
    features(batch)
    with pytest.raises(ZeroDivisionError):
        features.losses = lambda model, batch: model[0](batch) / (1 // 0)
        features(batch)
    assert [module.training for module in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == [
        not n.startswith("0.0.") for n, _ in model.named_parameters()
    ]
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in model.parameters())
    assert all(not module._forward_hooks and "forward" not in vars(module) for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.backends.mha.get_fastpath_enabled() and torch.is_grad_enabled()


def test_works_where_gradients_are_off(mixed):
    model, batch = mixed
    expected = GradientFeatures(model, losses, Projection("factored", 50))(batch)
    for off in torch.no_grad, torch.inference_mode:
        with off():
            assert torch.equal(GradientFeatures(model, losses, Projection("factored", 50))(batch), expected)
            assert all(rows.any() for rows in loop_gradients(model, losses, batch).values())


def test_bits_do_not_depend_on_the_batches_before(mixed):
    """Some of which are checked and some are not: a store that is resumed is the same."""
    model, batch = mixed
    features = GradientFeatures(model, losses, Projection("factored", 50))
    assert len({features(batch).numpy().tobytes() for _ in range(5)}) == 1


@pytest.mark.parametrize("kind", ["factored", "tensorsketch", "rademacher"])
def test_bfloat16_autocast_is_close(mixed, kind):
    model, batch = mixed
    exact = GradientFeatures(model, losses, Projection(kind, 100))(batch)
    rounded = GradientFeatures(model, losses, Projection(kind, 100), autocast=torch.bfloat16)(batch)
    assert rounded.dtype == torch.float32
    assert (functional.cosine_similarity(rounded, exact) > 0.99).all()
    assert not torch.equal(rounded, exact)


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e5])
def test_float16_autocast_neither_underflows_nor_overflows(size):
    """Gradients of 32 x 32 positions under a mean are small; those of a large loss are large."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 4, 3, padding=1), nn.PReLU(4))
    batch = torch.randn(5, 2, 32, 32)

    def of_size(model, batch):
        return size * model(batch).mean((2, 3)).float().square().sum(1)

    exact = GradientFeatures(model, of_size, Projection("identity"))(batch)
    rounded = GradientFeatures(model, of_size, Projection("identity"), autocast=torch.float16)(batch)
    assert_close(rounded, exact, 0.02)


def test_bfloat16_model():
    model, batch = build("transformer encoder, norm first")
    exact = GradientFeatures(model, losses, Projection("factored", 60))(batch)
    model.bfloat16()
    features = GradientFeatures(model, lambda m, b: losses(m, b.bfloat16()), Projection("factored", 60))
    assert (functional.cosine_similarity(features(batch), exact) > 0.97).all()
    assert not any(how.startswith("per sample") for _, how in features.coverage.covered)


def test_coverage_names_every_parameter():
    model, batch = build("tied embedding")
    model.extra = nn.Linear(3, 3)
    model.extra.bias.requires_grad_(False)
    model.scale = nn.Parameter(torch.ones(3))
    features = GradientFeatures(model, losses, Projection("identity"), parameters=lambda name: name != "extra.weight")
    features(batch)
    assert dict(features.coverage.covered) == {
        "e.weight": "embedding, linear",
        "out.weight": "tied to e.weight",
        "out.bias": "linear",
        "scale": "not used so far",
    }
    assert dict(features.coverage.excluded) == {
        "extra.weight": "not among the chosen parameters",
        "extra.bias": "frozen: requires_grad is False",
    }
    names = {name for name, _ in features.coverage.covered + features.coverage.excluded}
    assert names == {name for name, _ in model.named_parameters(remove_duplicate=False)}


def test_chosen_parameters_are_the_columns():
    model, batch = build("in place convolutions")
    chosen = {"3.weight", "1.bias"}
    features = GradientFeatures(model, losses, Projection("identity"), parameters=chosen.__contains__)
    expected = loop_gradients(model, losses, batch, chosen.__contains__)
    assert expected.keys() == chosen
    assert_close(features(batch), torch.cat([rows.flatten(1) for rows in expected.values()], 1))


def test_rows_that_are_shared_out_unequally_are_noticed():
    """As many tokens of each sample in the first batches, other numbers later, their sum divisible all the same."""
    torch.manual_seed(0)
    model = Net(routed, e=nn.Linear(6, 6))
    batch = torch.randn(4, 4, 6)
    features = GradientFeatures(model, losses, Projection("identity"))
    for _ in range(2):  # the third is not checked by other means
        batch[..., 0] = torch.tensor([[1, 1, -1, -1], [1, -1, 1, -1], [-1, -1, 1, 1], [-1, 1, -1, 1.0]])
        features(batch)
    batch[..., 0] = torch.tensor([[1, 1, -1, -1], [1, -1, 1, -1], [1, 1, 1, -1], [-1, -1, -1, 1.0]])
    assert dict(features.coverage.covered)["e.weight"] == "linear"
    with pytest.warns(UserWarning, match="equally many rows"):
        rows = features(batch)
    expected = loop_gradients(model, losses, batch)
    assert_close(rows, torch.cat([rows.flatten(1) for rows in expected.values()], 1))


def test_samples_that_a_model_reorders_are_noticed():
    """The first two are in order, as a check of a pair would want them."""

    def by_first_feature(m, x):
        order = x[:, 0].argsort(descending=True)
        return m.l(x[order])[order.argsort()]

    torch.manual_seed(0)
    model, batch = Net(by_first_feature, l=nn.Linear(6, 3)), torch.randn(9, 6)
    batch[:4, 0] = torch.tensor([9.0, 8.0, -1.0, 2.0])
    with pytest.warns(UserWarning, match="samples in their order"):
        rows = GradientFeatures(model, losses, Projection("identity"))(batch)
    expected = loop_gradients(model, losses, batch)
    assert_close(rows, torch.cat([rows.flatten(1) for rows in expected.values()], 1))


@pytest.mark.parametrize("quiet", [3, 30])
def test_a_weight_that_is_seen_late_is_noticed(quiet):
    """Used outside its module, by samples that are not the first of the first batch, or not in it."""
    torch.manual_seed(0)
    model = Net(lambda m, x: functional.linear(x.relu(), m.b.weight), b=nn.Linear(6, 3))
    data = torch.randn(40, 6)
    data[:quiet] = -data[:quiet].abs()
    features = GradientFeatures(model, lambda m, x: m(x).square().sum(1), Projection("identity"))
    rows = torch.cat([features(batch) for batch in data.split(10)])
    expected = loop_gradients(model, features.losses, data)
    assert_close(rows, torch.cat([rows.flatten(1) for rows in expected.values()], 1))


@pytest.mark.parametrize("kind", ["factored", "tensorsketch"])
def test_samples_without_a_finite_gradient_do_not_disturb_the_check(mixed, kind):
    model, batch = mixed
    clean = GradientFeatures(model, losses, Projection(kind, 50))(batch)
    batch = batch.clone()
    batch[:2, 0, 0, 0] = torch.tensor([torch.nan, torch.inf])
    features = GradientFeatures(model, losses, Projection(kind, 50))
    rows = features(batch)
    assert not rows[:2].isfinite().all(1).any()
    assert_close(rows[2:], clean[2:], 1e-5)
    assert not features._unfit


def test_a_loss_that_depends_on_its_batch_is_an_error(mixed):
    _, batch = mixed
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, track_running_stats=False))
    with pytest.raises(InputError, match="depends on the others in its batch"):
        GradientFeatures(model, losses, Projection("factored", 5))(batch)


def test_input_changed_in_place_is_an_error():
    def forward(m, x):
        h = x * 1
        y = m.a(h)
        h.zero_()
        return y

    with pytest.raises(InputError, match="changed in place"):
        model = Net(forward, a=nn.Linear(6, 3))
        GradientFeatures(model, losses, Projection("identity"), preflight=False)(torch.randn(4, 6))


def test_errors(mixed):
    model, batch = mixed
    with pytest.raises(InputError, match=r"one value per sample.*reduction='none'"):
        GradientFeatures(model, lambda m, b: losses(m, b).mean(), Projection("factored", 5))(batch)
    with pytest.raises(InputError, match=r"one value per sample.*returned list"):
        GradientFeatures(model, lambda m, b: [1.0] * len(b), Projection("factored", 5))(batch)
    with pytest.raises(InputError, match=r"do not depend on any of the chosen parameters.*detach"):
        GradientFeatures(model, lambda m, b: losses(m, b).detach(), Projection("factored", 5))(batch)
    with pytest.raises(InputError, match="no trainable parameter"):
        GradientFeatures(model, losses, Projection("factored", 5), parameters=lambda name: False)
    with pytest.raises(InputError, match="needs a CUDA device"):
        GradientFeatures(model, losses, Projection("fast_jl", 512))
    with pytest.raises(InputError, match="samples along dimension 0"):
        GradientFeatures(model, losses, Projection("factored", 5))({"names": ["a", "b"]})


def test_finite_differences(mixed):
    """Independent of autograd: the loss moves as the gradient says."""
    model, batch = mixed
    model, batch = model.double().eval(), batch.double()
    features = GradientFeatures(model, losses, Projection("identity"))(batch)
    direction = [torch.randn_like(p) for p in model.parameters()]
    values = []
    for sign in 1, -1:
        with torch.no_grad():
            for p, d in zip(model.parameters(), direction, strict=True):
                p += sign * 1e-5 * d * (1 if sign == 1 else 2)
            values.append(losses(model, batch))
    slope = (values[0] - values[1]) / 2e-5
    along = features.double() @ torch.cat([d.flatten() for d in direction])
    np.testing.assert_allclose(along.numpy(), slope.numpy(), rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["factored", "tensorsketch"])
@pytest.mark.parametrize("name", CASES)
def test_a_gpu_gives_the_same_features(name, kind):
    model, batch = build(name)
    if name == "attention with masks":
        pytest.skip("its masks are made on the CPU")
    cpu = GradientFeatures(model, losses, Projection(kind, 20))(batch)
    torch.backends.cudnn.allow_tf32 = False
    with torch.device("cuda"):
        gpu = GradientFeatures(model.cuda(), losses, Projection(kind, 20))(batch.cuda())
    assert_close(gpu.cpu(), cpu, 1e-3)
