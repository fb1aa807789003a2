"""Influence functions against explicit matrices, retraining, and gradients taken one sample at a time."""

import logging

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

import tarot.influence.curvature
from tarot.common.errors import InputError
from tarot.gradients.reference import loop_gradients
from tarot.influence.curvature import LossSurface, differentiable
from tarot.influence.scores import NegativeCurvatureError, conjugate_gradient, influence_scores, lanczos_range
from tarot.selection.problem import SelectionProblem
from tarot.selectors.influence import Influence
from tests.tarot.gradients import gradient_models

NO_FORWARD = {"weight norm", "embedding with padding", "called without gradients"}  # refused, or wrong and noticed
NEITHER = {"embedding bag", "embedding by frequency"}


def cross_entropy(model: nn.Module, batch: list) -> torch.Tensor:
    x, y = batch
    return functional.cross_entropy(model(x), y, reduction="none")


def samples(n: int, features: int = 6, classes: int = 3, seed: int = 0, shape: tuple | None = None) -> list:
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, classes, (n,), generator=generator)
    x = torch.randn(n, *(shape or (features,)), generator=generator)
    x[:, 0] += y.view(-1, *(1,) * (x.ndim - 2)) / 2
    return list(zip(x, y, strict=True))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    norm = gradient_models.with_statistics(nn.BatchNorm2d(4))
    return nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4 * 9, 3))


IMAGES, IMAGE_TARGETS = samples(17, shape=(1, 5, 5)), samples(6, shape=(1, 5, 5), seed=1)


def gradients(model: nn.Module, losses, data: list) -> torch.Tensor:
    """[n, P] float64, one backward pass each."""
    rows = loop_gradients(model, losses, torch.utils.data.default_collate(data))
    return torch.cat([row.flatten(1).double() for row in rows.values()], 1)


def explicit_curvature(model: nn.Module, losses, data: list, curvature: str) -> torch.Tensor:
    """[P, P] float64: every entry of the Hessian of the mean loss, or of the mean of g g^T."""
    if curvature == "fisher":
        g = gradients(model, losses, data)
        return g.T @ g / len(g)
    parameters = dict(model.named_parameters())
    batch = torch.utils.data.default_collate(data)

    def mean_loss(flat: torch.Tensor) -> torch.Tensor:
        pieces = flat.split([p.numel() for p in parameters.values()])
        values = {n: piece.view(p.shape) for (n, p), piece in zip(parameters.items(), pieces, strict=True)}
        output = torch.func.functional_call(model, values, (batch[0],))
        return functional.cross_entropy(output, batch[1])

    flat = torch.cat([p.detach().flatten() for p in parameters.values()])
    return torch.func.hessian(mean_loss)(flat).double()


def explicit_scores(model, losses, candidates, targets, curvature, damping, rows=slice(None)) -> np.ndarray:
    matrix = explicit_curvature(model.eval(), losses, candidates[rows], curvature)
    goal = gradients(model, losses, targets).mean(0)
    matrix += damping * torch.eye(len(matrix), dtype=torch.float64)
    return (gradients(model, losses, candidates) @ torch.linalg.solve(matrix, goal)).numpy()


def relative(actual: np.ndarray, expected: np.ndarray) -> float:
    assert actual.shape == expected.shape
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


# --- against the explicit inverse ------------------------------------------------------------------------------------


@pytest.mark.parametrize("curvature", ["hessian", "fisher"])
def test_logistic_regression_equals_the_explicit_inverse(curvature):
    x, y = load_digits(return_X_y=True)
    data = list(zip(torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y), strict=True))
    torch.manual_seed(0)
    model = nn.Linear(64, 10)
    candidates, targets = data[:200], data[200:230]
    found = influence_scores(
        model, cross_entropy, candidates, targets, curvature=curvature, damping=0.01, tolerance=1e-6, batch_size=64
    )
    assert found.scores.dtype == np.float64
    assert relative(found.scores, explicit_scores(model, cross_entropy, candidates, targets, curvature, 0.01)) < 1e-4
    assert found.damping == 0.01 and found.residual[0] <= 2e-6 and 1 < found.iterations[0] < 100
    assert found.curvature == curvature


@pytest.mark.parametrize("curvature", ["hessian", "fisher"])
def test_a_convolutional_network_equals_the_explicit_inverse(curvature):
    model = network().double()
    candidates, targets = ([(x.double(), y) for x, y in data] for data in (IMAGES, IMAGE_TARGETS))
    matrix = explicit_curvature(model.eval(), cross_entropy, candidates, curvature)
    damping = 0.1 + max(0.0, -float(torch.linalg.eigvalsh(matrix)[0]))
    found = influence_scores(
        model, cross_entropy, candidates, targets, curvature=curvature, damping=damping, tolerance=1e-10
    )
    assert relative(found.scores, explicit_scores(model, cross_entropy, candidates, targets, curvature, damping)) < 1e-8


def test_two_parameters_by_hand():
    """l = (a x + b - y)^2 / 2 at a = b = 0: g = -y (x, 1), H = mean of (x, 1)(x, 1)^T."""
    model = nn.Linear(1, 1)
    nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)

    def squares(model, batch):
        return (model(batch[0]) - batch[1]).square()[:, 0] / 2

    candidates = [(torch.tensor([x]), torch.tensor([y])) for x, y in [(1.0, 2.0), (-1.0, 1.0)]]  # H = identity
    targets = [(torch.tensor([3.0]), torch.tensor([1.0]))]  # g = (-3, -1)
    found = influence_scores(model, squares, candidates, targets, damping=0.0)
    np.testing.assert_allclose(found.scores, [8.0, -2.0], rtol=1e-6)  # <(3, 1), (2, 2)>, <(3, 1), (-1, 1)>


def test_leaving_one_out_and_training_again():
    """Newton's method to convergence in float64, without each of 20 points."""
    weight_decay = 0.05
    candidates, targets = samples(60), samples(40, seed=1)

    def pair(data):
        return torch.stack([x for x, _ in data]).double(), torch.stack([y for _, y in data])

    def trained(kept: list[int]) -> nn.Linear:
        model = nn.Linear(6, 3).double()
        nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)
        x, y = pair([candidates[i] for i in kept])
        optimizer = torch.optim.LBFGS(
            model.parameters(), max_iter=500, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
        )

        def closure():
            optimizer.zero_grad()
            norm = sum(p.square().sum() for p in model.parameters())
            # divided by all N, so that leaving one out moves nothing else
            loss = functional.cross_entropy(model(x), y, reduction="sum") / len(candidates) + weight_decay / 2 * norm
            loss.backward()
            return loss

        optimizer.step(closure)
        return model

    def target_loss(model) -> float:
        x, y = pair(targets)
        with torch.no_grad():
            return float(functional.cross_entropy(model(x), y))

    model = trained(list(range(60)))
    found = influence_scores(
        model,
        lambda m, b: cross_entropy(m, [b[0].double(), b[1]]),
        candidates,
        targets,
        damping=weight_decay,
        tolerance=1e-8,
    )
    whole, chosen = target_loss(model), range(0, 60, 3)
    retrained = [target_loss(trained([j for j in range(60) if j != i])) - whole for i in chosen]
    predicted = found.scores[list(chosen)] / 60
    assert np.corrcoef(predicted, retrained)[0, 1] > 0.95
    assert 0.7 < np.polyfit(retrained, predicted, 1)[0] < 1.1  # the size, too; the first order is a little small


# --- slopes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", gradient_models.CASES)
def test_slopes_of_every_layer_equal_the_loop(name, caplog):
    torch.manual_seed(0)
    case = gradient_models.CASES[name]
    model, batch = case.model().eval(), case.batch()
    surface = LossSurface.of(model, gradient_models.losses, None)
    with differentiable(model, set(surface.chosen)):
        if name in NEITHER:
            with pytest.raises(InputError, match="cannot be differentiated"):
                surface.checked(batch, "fisher")
            return
        surface = surface.checked(batch, "hessian")
        assert surface.forward_mode == (name not in NO_FORWARD)
        assert ("not in forward mode" in caplog.text) == (name in NO_FORWARD)
        v = torch.randn(surface.size, dtype=torch.float64)
        slopes = [surface.slopes(v, batch), surface._twice(v, batch)]
    rows = loop_gradients(model, gradient_models.losses, batch)
    rows = torch.cat([row.flatten(1).double() for row in rows.values()], 1)
    for found in slopes:
        error = (found["slopes"].double() - rows @ v).norm()
        assert error <= 1e-5 * rows.norm()


class Block(nn.Module):
    """Attention by PyTorch's fused function, and GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.head, self.norm = nn.Linear(8, 24), nn.Linear(8, 3), nn.LayerNorm(8)

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        y = functional.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        return self.head(functional.gelu(x + y).mean(1))


@pytest.mark.parametrize("curvature", ["hessian", "fisher"])
def test_fused_attention(curvature, caplog):
    torch.manual_seed(0)
    model = Block()
    candidates, targets = samples(9, shape=(5, 8)), samples(4, shape=(5, 8), seed=1)
    found = influence_scores(
        model, cross_entropy, candidates, targets, curvature=curvature, damping=2.0, tolerance=1e-6
    )
    assert not caplog.records
    with sdpa_kernel(SDPBackend.MATH):
        expected = explicit_scores(model, cross_entropy, candidates, targets, curvature, 2.0)
    assert relative(found.scores, expected) < 1e-4


# --- properties ------------------------------------------------------------------------------------------------------


def scores(model=None, candidates=IMAGES, targets=IMAGE_TARGETS, **options):
    options = {"damping": 2.0, "tolerance": 1e-6} | options
    return influence_scores(network() if model is None else model, cross_entropy, candidates, targets, **options)


@pytest.mark.parametrize("curvature", ["hessian", "fisher"])
@pytest.mark.parametrize("size", [1, 5])
def test_the_batch_size_does_not_matter(curvature, size):
    assert relative(scores(batch_size=size, curvature=curvature).scores, scores(curvature=curvature).scores) < 1e-5


def test_permuting_candidates_permutes_scores():
    order = np.random.default_rng(0).permutation(len(IMAGES))
    permuted = scores(candidates=[IMAGES[i] for i in order], curvature="fisher", damping="auto").scores
    assert relative(permuted, scores(curvature="fisher", damping="auto").scores[order]) < 1e-3


def test_running_again_gives_the_same():
    np.testing.assert_array_equal(scores().scores, scores().scores)


def test_the_model_is_left_as_it_was():
    model = network().train()
    model[0].weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    scores(model)
    assert model.training and not model[0].weight.requires_grad and model[4].weight.requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_some_parameters():
    found = scores(parameters=lambda name: name.startswith("4."), curvature="fisher")
    frozen = network()
    for name, parameter in frozen.named_parameters():
        parameter.requires_grad_(name.startswith("4."))
    expected = explicit_scores(frozen, cross_entropy, IMAGES, IMAGE_TARGETS, "fisher", 2.0)
    assert relative(found.scores, expected) < 1e-4


def test_tied_parameters():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Linear(6, 3))
    model[2].weight = model[0].weight
    candidates, targets = samples(12), samples(5, seed=1)
    found = influence_scores(model, cross_entropy, candidates, targets, damping=1.0, tolerance=1e-6)
    expected = explicit_scores(model, cross_entropy, candidates, targets, "hessian", 1.0)
    assert relative(found.scores, expected) < 1e-4


@pytest.mark.parametrize("curvature", ["hessian", "fisher"])
def test_rows_are_evenly_spaced(curvature):
    found = scores(rows=4, curvature=curvature, damping=8.0)  # 0, 17/4, 34/4, 51/4
    chosen = [0, 4, 8, 12]
    model = network().eval()
    matrix = explicit_curvature(model, cross_entropy, [IMAGES[i] for i in chosen], curvature)
    matrix += 8.0 * torch.eye(len(matrix))
    x = torch.linalg.solve(matrix, gradients(model, cross_entropy, IMAGE_TARGETS).mean(0))
    assert relative(found.scores, (gradients(model, cross_entropy, IMAGES) @ x).numpy()) < 1e-4
    np.testing.assert_array_equal(scores(rows=100).scores, scores().scores)


def test_groups_have_influences_of_their_own():
    groups = np.array(["b", "a", "b", "b", "a", "c"])
    found = scores(groups=groups)
    assert found.groups == ("a", "b", "c") and found.scores.shape == (17, 3)
    for column, group in enumerate(found.groups):
        alone = scores(targets=[t for t, g in zip(IMAGE_TARGETS, groups, strict=True) if g == group])
        assert relative(found.scores[:, column], alone.scores) < 1e-5
    np.testing.assert_allclose(found.scores @ [2 / 6, 3 / 6, 1 / 6], scores().scores, rtol=1e-3, atol=1e-6)


def test_one_candidate_and_one_target():
    assert scores(candidates=IMAGES[:1], targets=IMAGE_TARGETS[:1], damping=25.0).scores.shape == (1,)


def test_batches_beyond_memory_are_read_again(monkeypatch):
    expected = scores(batch_size=4).scores
    monkeypatch.setattr(tarot.influence.curvature, "KEPT", 500)
    np.testing.assert_array_equal(scores(batch_size=4).scores, expected)


# --- damping ---------------------------------------------------------------------------------------------------------


def test_negative_curvature_is_refused_by_name():
    with pytest.raises(InputError, match=r"curvature -\d.*damping='auto' or more than .*curvature='fisher'"):
        scores(damping=0.0)


@pytest.mark.parametrize("curvature", ["hessian", "fisher"])
def test_automatic_damping(curvature, caplog):
    model = network()
    caplog.set_level(logging.WARNING)
    found = scores(model, damping="auto", curvature=curvature, max_iterations=400)
    eigenvalues = torch.linalg.eigvalsh(explicit_curvature(model.eval(), cross_entropy, IMAGES, curvature)).numpy()
    assert found.damping > max(0.0, -eigenvalues[0])
    if curvature == "fisher":
        assert found.damping == pytest.approx(1e-2 * eigenvalues[-1], rel=0.01)
    expected = explicit_scores(model, cross_entropy, IMAGES, IMAGE_TARGETS, curvature, found.damping)
    assert relative(found.scores, expected) < 1e-2


def test_damping_grows_where_negative_curvature_was_overlooked(monkeypatch, caplog):
    monkeypatch.setattr(tarot.influence.scores, "lanczos_range", lambda *_: (0.0, 1e-4))
    found = scores(damping="auto", max_iterations=400)
    assert "damping grows" in caplog.text
    expected = explicit_scores(network(), cross_entropy, IMAGES, IMAGE_TARGETS, "hessian", found.damping)
    assert found.damping > 1e-5 and relative(found.scores, expected) < 1e-2


def test_too_few_iterations_are_said(caplog):
    found = scores(max_iterations=1)
    assert found.residual[0] > 1e-6 and "above the tolerance" in caplog.text


def symmetric(eigenvalues: list[float]) -> torch.Tensor:
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(len(eigenvalues), len(eigenvalues), dtype=torch.float64))[0]
    return basis * torch.tensor(eigenvalues, dtype=torch.float64) @ basis.T


def test_conjugate_gradients_solve_in_as_many_steps_as_eigenvalues():
    matrix, b = symmetric([1.0, 1.0, 4.0, 9.0, 9.0]), torch.arange(1.0, 6.0, dtype=torch.float64)
    found = conjugate_gradient(matrix.mv, b, 0.5, 1e-12, 100)
    torch.testing.assert_close(found.x, torch.linalg.solve(matrix + 0.5 * torch.eye(5), b))
    assert found.iterations == 3 and found.residual < 1e-12


def test_conjugate_gradients_meet_negative_curvature():
    with pytest.raises(NegativeCurvatureError) as caught:
        conjugate_gradient(symmetric([-3.0, 1.0, 2.0]).mv, torch.ones(3, dtype=torch.float64), 0.1)
    assert -3 <= caught.value.curvature <= -0.1


def test_lanczos_finds_the_ends_of_the_spectrum():
    start = torch.ones(40, dtype=torch.float64)
    low, high = lanczos_range(symmetric([-2.0, *np.linspace(-0.5, 3, 38), 10.0]).mv, start, 20)
    assert -2.0 - 1e-9 <= low < -1.9 and 9.99 < high <= 10.0 + 1e-9
    assert lanczos_range(torch.zeros_like, start, 20) == (0.0, 0.0)
    one = lanczos_range(lambda v: 3 * v, torch.ones(1, dtype=torch.float64), 20)
    assert one == pytest.approx((3.0, 3.0))


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"curvature": "gauss"}, "curvature must be 'hessian' or 'fisher'"),
        ({"damping": -1.0}, "damping must be 'auto' or a number"),
        ({"damping": "much"}, "damping must be 'auto' or a number"),
        ({"damping": float("nan")}, "damping must be 'auto' or a number"),
        ({"rows": 0}, "rows must be a positive integer"),
        ({"tolerance": 0.0}, "tolerance must be between 0 and 1"),
        ({"max_iterations": 0}, "max_iterations must be a positive integer"),
        ({"batch_size": 2.5}, "batch_size must be a positive integer"),
        ({"groups": [0, 1]}, "one label per target, 6; it has 2"),
        ({"candidates": []}, "0 candidates and 6 targets"),
        ({"targets": []}, "17 candidates and 0 targets"),
        ({"parameters": lambda name: False}, "no trainable parameter is left"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(InputError, match=message):
        scores(**options)


@pytest.mark.parametrize("position", [1, 11])  # among the samples that are checked first, and not
@pytest.mark.parametrize("side", ["candidates", "targets"])
def test_losses_that_are_not_finite_are_named(position, side):
    data = list(IMAGES)
    data[position] = (torch.full_like(data[position][0], torch.nan), data[position][1])
    with pytest.raises(InputError, match=f"{side}: the loss of sample {position} is not finite"):
        scores(**{side: data}, batch_size=4)


def test_candidates_outside_the_rows_are_named_too():
    data = list(IMAGES)
    data[15] = (torch.full_like(data[15][0], torch.nan), data[15][1])
    with pytest.raises(InputError, match="candidates: the loss of sample 15 is not finite"):
        scores(candidates=data, rows=2, curvature="fisher")


def test_gradients_that_are_not_finite_are_placed():
    def losses(model, batch):
        return model(batch[0]).square().sum(1).sqrt()

    data = [(torch.tensor([float(i)]), i) for i in (1, 2, 3, 4, 5, 0, 6)]  # the root of 0
    with pytest.raises(InputError, match=r"candidates: .* batch of samples 4 to 6"):
        influence_scores(nn.Linear(1, 2, bias=False), losses, data, data[:2], damping=1.0, batch_size=4)


def test_losses_that_mix_samples_are_refused():
    def mixing(model, batch):
        values = cross_entropy(model, batch)
        return values - values.mean()

    with pytest.raises(InputError, match="depends on the others in its batch"):
        influence_scores(network(), mixing, IMAGES, IMAGE_TARGETS)


def test_losses_without_parameters_are_refused():
    with pytest.raises(InputError, match="depend on none of the chosen parameters"):
        influence_scores(network(), lambda m, b: cross_entropy(m, b).detach(), IMAGES, IMAGE_TARGETS)


def test_half_precision_is_refused():
    with pytest.raises(InputError, match=r"0.weight is torch.bfloat16: model.float\(\)"):
        scores(network().bfloat16())


def test_targets_without_a_gradient_are_refused():
    def losses(model, batch):
        return (model(batch[:, None]) * batch[:, None])[:, 0]

    data = [torch.tensor(1.0), torch.tensor(2.0)]
    with pytest.raises(InputError, match="gradient of the targets is zero"):
        influence_scores(nn.Linear(1, 1), losses, data, [torch.tensor(0.0)], curvature="fisher")


class Cube(torch.autograd.Function):
    """x^3 with derivatives forward and backward, but no second one."""

    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx, d):
        return d * 3 * ctx.saved_tensors[0] ** 2

    @staticmethod
    def jvp(ctx, t):
        return t * 3 * ctx.saved_tensors[0] ** 2


def test_without_second_derivatives_the_fisher_matrix_is_left():
    torch.manual_seed(0)
    model = gradient_models.Net(lambda m, x: m.b(Cube.apply(m.a(x))), a=nn.Linear(6, 4), b=nn.Linear(4, 3))
    candidates, targets = samples(8), samples(4, seed=1)
    with pytest.raises(InputError, match="Hessian of this model cannot be found, but curvature='fisher' can"):
        influence_scores(model, cross_entropy, candidates, targets)
    found = influence_scores(model, cross_entropy, candidates, targets, curvature="fisher", damping=1.0, tolerance=1e-6)
    expected = explicit_scores(model, cross_entropy, candidates, targets, "fisher", 1.0)
    assert relative(found.scores, expected) < 1e-4


# --- the selector ----------------------------------------------------------------------------------------------------


def problem(scores: tuple[np.ndarray, ...] | None) -> SelectionProblem:
    rows = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    models = 1 if scores is None else len(scores)
    ids = np.array(list("abcde"))
    return SelectionProblem((rows,) * models, (rows[:2],) * models, candidate_scores=scores, candidate_ids=ids)


def test_the_selector_takes_the_most_helpful():
    views = np.array([3.0, -1.0, 0.0, 2.0, 1.0]), np.array([1.0, -5.0, 4.0, 2.0, 1.0])
    np.testing.assert_array_equal(Influence(size=2).values(problem(views)), [2.0, -3.0, 2.0, 2.0, 1.0])
    chosen = Influence(size=2).select(problem(views))
    np.testing.assert_array_equal(chosen.indices, [0, 2])  # ties: by id
    np.testing.assert_array_equal(Influence(ratio=0.2).select(problem(views[:1])).indices, [0])


def test_the_selector_says_where_influences_come_from():
    with pytest.raises(InputError, match=r"features=influence .*tarot\.influence_scores"):
        Influence(size=2).select(problem(None))
