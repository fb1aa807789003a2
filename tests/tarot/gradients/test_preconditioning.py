"""Adam-preconditioned features against the formula and a loop of autograd; the states that must be refused."""

import numpy as np
import pytest
import torch
from torch import nn

from tarot.common.errors import InputError
from tarot.gradients.dataset_rows import auto_batch_size, gradient_rows
from tarot.gradients.per_sample import GradientFeatures
from tarot.gradients.preconditioning import AdamState, adam_features, rank_one
from tarot.gradients.projection import Factored, Projection, plan
from tarot.gradients.reference import loop_gradients
from tests.tarot.gradients.gradient_models import CASES, losses

pytestmark = pytest.mark.filterwarnings("ignore:gradients of .* take one backward pass")
pytestmark = [pytestmark, pytest.mark.filterwarnings("ignore:b.* has no second moment")]  # the case "unused"
IDENTITY = Projection("identity")
LAYERS = (
    "linear on sequences",
    "conv2d groups",
    "conv1d",
    "batch norm 2d",
    "layer norm over two dimensions",
    "embedding with padding",
    "attention",
    "transformer encoder",
    "called twice",
    "tied embedding",
    "linear layers with one weight",
    "bare parameter",
    "in place convolutions",
    "unused",
)


def trained(name="in place convolutions", steps=4):
    """A model after some steps of AdamW, a batch, and the optimizer's state by parameter name."""
    torch.manual_seed(0)
    case = CASES[name]
    model, batch = case.model().eval(), case.batch()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        noise = torch.randn(()) + 2  # other gradients at every step
        total = (noise * losses(model, case.batch())).mean()
        total = total + sum(0 * p.sum() for p in model.parameters())  # all of them get a state, as in distributed runs
        total.backward()
        optimizer.step()
    return model, batch, {n: dict(optimizer.state[p]) for n, p in model.named_parameters()}


def formula(gradient, m, v, steps, b1=0.9, b2=0.999, eps=1e-8):
    """The paper's Gamma, in float64."""
    g, m, v, t = gradient.astype(np.float64), m.astype(np.float64), v.astype(np.float64), steps + 1
    m_hat = (b1 * m + (1 - b1) * g) / (1 - b1**t)
    v_hat = (b2 * v + (1 - b2) * g**2) / (1 - b2**t)
    return m_hat / (np.sqrt(v_hat) + eps)


def released_formula(gradient, m, v, steps, b1=0.9, b2=0.999, eps=1e-8):
    """`avg / sqrt(avg_sq + eps)` without bias correction."""
    g, m, v = gradient.astype(np.float64), m.astype(np.float64), v.astype(np.float64)
    return (b1 * m + (1 - b1) * g) / np.sqrt(b2 * v + (1 - b2) * g**2 + eps)


def expected(model, batch, state, rule=formula, **options):
    """[B, P]: the rule on the gradients of one sample at a time."""
    columns = []
    for name, rows in loop_gradients(model, losses, batch).items():
        m, v, steps = (state[name][key].numpy() for key in ("exp_avg", "exp_avg_sq", "step"))
        columns.append(rule(rows.numpy(), m, v, float(steps), **options).reshape(len(rows), -1))
    return np.concatenate(columns, 1)


def assert_near(actual, wanted, relative=1e-4):
    actual = np.asarray(actual, dtype=np.float64)
    assert actual.shape == wanted.shape
    assert np.linalg.norm(actual - wanted) <= relative * np.linalg.norm(wanted)


def cosines(a, b):
    a, b = (np.asarray(x, dtype=np.float64) for x in (a, b))
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


# --- the exact modes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode, rule", [("adam", formula), ("adam_released", released_formula)])
@pytest.mark.parametrize("name", LAYERS)
def test_exact_mode_is_the_formula_on_a_loop_of_gradients(name, mode, rule):
    model, batch, state = trained(name)
    features = adam_features(model, losses, IDENTITY, state, mode=mode, eps=1e-4)
    # Where a gradient is zero but for rounding, rounding decides its sign; a larger eps than Adam's keeps it small.
    assert_near(features(batch), expected(model, batch, state, rule, eps=1e-4), 2e-3)


def test_exact_mode_takes_betas_and_eps():
    model, batch, state = trained()
    options = {"b1": 0.5, "b2": 0.9, "eps": 1e-2}
    features = adam_features(model, losses, IDENTITY, state, betas=(0.5, 0.9), eps=1e-2)
    assert_near(features(batch), expected(model, batch, state, **options))


@pytest.mark.parametrize("kind", ["factored", "tensorsketch", "rademacher", "normal", "sjlt"])
def test_exact_mode_is_projected_as_plain_gradients_are(kind):
    model, batch, state = trained()
    projection = Projection(kind, 64, seed=5)
    features = adam_features(model, losses, projection, state)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    layout, gamma = plan(projection, shapes), torch.from_numpy(expected(model, batch, state)).float()
    wanted, start = torch.zeros(len(batch), layout.width), 0
    for name, p in model.named_parameters():
        wanted[:, layout.columns[name]] += layout.sketches[name](gamma[:, start : start + p.numel()])
        start += p.numel()
    assert features.dim == GradientFeatures(model, losses, projection).dim
    assert_near(features(batch), wanted.numpy())


@pytest.mark.parametrize("kind", ["factored", "tensorsketch"])
@pytest.mark.parametrize("mode", ["adam", "adam_rank1"])
def test_candidates_and_plain_targets_share_the_projected_space(mode, kind):
    """Inner products of preconditioned and plain features are kept, on the mean over projections."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 8))
    batch = torch.randn(4, 12)
    state = {
        n: {"exp_avg": torch.randn_like(p) * 0.1, "exp_avg_sq": torch.rand_like(p) + 0.1, "step": torch.tensor(9.0)}
        for n, p in model.named_parameters()
    }

    def products(projection):
        candidates = adam_features(model, losses, projection, state, mode=mode)(batch)
        return candidates @ GradientFeatures(model, losses, projection)(batch).T

    true = products(IDENTITY)
    drawn = torch.stack([products(Projection(kind, 100, seed)) for seed in range(20)])
    error = (drawn.mean(0) - true).abs() / (drawn.std(0) / 20**0.5)
    assert float(error.max()) < 4.5  # standard errors, 16 numbers
    other = adam_features(model, losses, Projection(kind, 100, 1), state, mode=mode)(batch)
    plain = GradientFeatures(model, losses, Projection(kind, 100, 0))(batch)
    assert float((other @ plain.T).norm()) != pytest.approx(float(true.norm()), rel=1e-3)


@pytest.mark.parametrize("mode", ["adam", "adam_rank1", "adam_released"])
@pytest.mark.parametrize("kind", ["factored", "tensorsketch", "identity"])
def test_features_do_not_depend_on_the_batch(mode, kind):
    model, batch, state = trained()
    whole = adam_features(model, losses, Projection(kind, 90), state, mode=mode, eps=1e-6)(batch)
    for size in 1, 3:
        features = adam_features(model, losses, Projection(kind, 90), state, mode=mode, eps=1e-6)
        assert_near(torch.cat([features(part) for part in batch.split(size)]), whole.double().numpy())


def test_bias_correction_cancels_and_eps_inside_the_root_does_not():
    """Ledger LESS (a)."""
    gradient, late = np.zeros(2), 10_000
    m, v = np.array([1e-6, 1e-3]), np.array([1e-12, 1e-6])
    paper, code = formula(gradient, m, v, late), released_formula(gradient, m, v, late)
    direction = [x / x[np.abs(x).argmax()] for x in (paper, code)]
    np.testing.assert_allclose(direction[0], (0.99, 1), atol=2e-3)
    np.testing.assert_allclose(direction[1], (0.01, 1), atol=2e-3)  # (.01, .995) before scaling
    assert cosines(paper[None], code[None])[0] == pytest.approx(0.72, abs=0.02)

    def both(state, mode):
        """The engine itself on one parameter of two numbers."""
        model = nn.Linear(2, 1, bias=False)
        state = {
            "weight": {
                "exp_avg": torch.from_numpy(m[None]).float(),
                "exp_avg_sq": torch.from_numpy(v[None]).float(),
                "step": state,
            }
        }
        flat = lambda model, batch: 1e-20 * model(batch)[:, 0]  # a gradient that adds nothing  # noqa: E731
        return adam_features(model, flat, IDENTITY, state, mode=mode)(torch.ones(1, 2)).numpy()

    engine = [both(torch.tensor(float(late)), mode) for mode in ("adam", "adam_released", "adam_rank1")]
    assert cosines(engine[0], engine[1])[0] == pytest.approx(0.72, abs=0.02)
    assert cosines(engine[0], paper[None])[0] > 0.9999 and cosines(engine[2], paper[None])[0] > 0.9999
    assert cosines(engine[1], code[None])[0] > 0.9999


def test_bias_correction_cancels_after_normalisation():
    model, batch, state = trained()
    for of in state.values():
        of["step"] = torch.tensor(400.0)
    corrected = adam_features(model, losses, IDENTITY, state)(batch)
    late = {name: {**of, "step": torch.tensor(1e6)} for name, of in state.items()}  # both corrections are 1
    assert cosines(corrected, adam_features(model, losses, IDENTITY, late)(batch)).min() > 0.9999


# --- rank one --------------------------------------------------------------------------------------------------------


def of_rank_one(model):
    """A state whose second moments are products of rows and columns, many orders of magnitude apart."""
    state = {}
    for name, p in model.named_parameters():
        rows = 10 ** torch.empty(len(p), 1).uniform_(-2, 0)
        columns = 10 ** torch.empty(1, p[0].numel()).uniform_(-2, 0)
        v = (rows * columns if p.ndim > 1 else rows).view_as(p)
        state[name] = {"exp_avg": 0.1 * torch.randn_like(p) * v.sqrt(), "exp_avg_sq": v, "step": torch.tensor(30.0)}
    return state


@pytest.mark.parametrize("name", LAYERS)
def test_rank_one_mode_is_the_formula_where_v_is_of_rank_one(name):
    """... and where the sample's own square adds nothing to it: beta2 near one."""
    model, batch, _ = trained(name)
    state = of_rank_one(model)
    betas = (0.9, 1 - 1e-12)
    features = adam_features(model, losses, IDENTITY, state, mode="adam_rank1", betas=betas)
    wanted = expected(model, batch, state, b2=betas[1])
    assert_near(features(batch), wanted)


@pytest.mark.parametrize("kind", ["factored", "tensorsketch"])
@pytest.mark.parametrize("name", LAYERS)
def test_rank_one_mode_is_the_projection_of_what_it_is_without(name, kind):
    """Scales on the factors of the projection equal scales on the gradient."""
    model, batch, state = trained(name)
    projection = Projection(kind, max(4, sum(p.numel() for p in model.parameters()) // 3), seed=2)
    whole = adam_features(model, losses, IDENTITY, state, mode="adam_rank1", eps=1e-6)(batch)
    features = adam_features(model, losses, projection, state, mode="adam_rank1", eps=1e-6)
    layout = plan(projection, {n: tuple(p.shape) for n, p in model.named_parameters()})
    wanted, start = torch.zeros(len(batch), layout.width), 0
    for name, p in model.named_parameters():
        wanted[:, layout.columns[name]] += layout.sketches[name](whole[:, start : start + p.numel()])
        start += p.numel()
    assert_near(features(batch), wanted.double().numpy(), 1e-3)


def test_rank_one_mode_forms_no_gradient_that_plain_features_do_not():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(200, 300), nn.ReLU(), nn.Linear(300, 10))
    state, projection = of_rank_one(model), Projection("factored", 128)
    plain = GradientFeatures(model, losses, projection)
    exact, rank1 = (adam_features(model, losses, projection, state, mode=m) for m in ("adam", "adam_rank1"))
    count = sum(p.numel() for p in model.parameters())
    assert rank1.largest_formed == plain.largest_formed < 1000
    assert 3 * exact.largest_formed >= count + 3 * 60_000  # the whole gradient, and the largest twice more at work
    batch = torch.randn(2, 200)
    assert auto_batch_size(exact, batch, memory=16 << 20) < auto_batch_size(rank1, batch, memory=16 << 20)
    assert any(isinstance(s, Factored) for s in rank1._features._plan.sketches.values())


@pytest.mark.parametrize("autocast", [torch.bfloat16, torch.float16])
def test_rank_one_scales_survive_low_precision(autocast):
    torch.manual_seed(0)
    model, batch = nn.Sequential(nn.Linear(40, 60), nn.Tanh(), nn.Linear(60, 30)), torch.randn(4, 40)
    state = of_rank_one(model)
    for of in state.values():
        of["exp_avg_sq"] *= 1e-14  # 1 / sqrt(v) beyond float16's largest number
        of["exp_avg"] *= 1e-7
    projection = Projection("factored", 400)
    full = adam_features(model, losses, projection, state, mode="adam_rank1")(batch)
    low = adam_features(model, losses, projection, state, mode="adam_rank1", autocast=autocast)(batch)
    assert low.isfinite().all() and cosines(full, low).min() > 0.995


def test_rank_one_factorisation():
    rng = np.random.default_rng(0)
    v = torch.from_numpy(rng.random((5, 7)))
    rows, columns = rank_one(v)
    np.testing.assert_allclose(torch.outer(rows, columns), torch.outer(v.sum(1), v.sum(0)) / v.sum(), rtol=1e-12)
    exact = torch.outer(v[:, 0], v[0])
    np.testing.assert_allclose(torch.outer(*rank_one(exact)), exact, rtol=1e-12)
    v[2] = 0
    v[:, 3] = 0
    rows, columns = rank_one(v, 1e-3)
    assert rows[2] == pytest.approx(1e-3 * v.mean()) and columns[3] == pytest.approx(1e-3)


def test_rows_that_training_never_saw_do_not_explode():
    """An embedding's unseen rows have v = 0. The formula moves them by 3.2 at most; 0.1 g / eps would be 1e7 g."""
    torch.manual_seed(0)
    model = nn.Embedding(7, 5)
    state = of_rank_one(model)
    state["weight"]["exp_avg_sq"][4:] = state["weight"]["exp_avg"][4:] = 0
    batch = torch.tensor([[1, 5], [2, 3], [4, 6]])
    exact, rank1 = (adam_features(model, losses, IDENTITY, state, mode=m)(batch) for m in ("adam", "adam_rank1"))
    assert float(rank1.abs().max()) < 100 * float(exact.abs().max())
    state["weight"]["exp_avg_sq"][:] = state["weight"]["exp_avg"][:] = 0
    with pytest.warns(UserWarning, match="weight has no second moment"):
        assert not adam_features(model, losses, IDENTITY, state, mode="adam_rank1")(batch).any()


def test_rank_one_mode_comes_near_the_formula_on_a_trained_model():
    model, batch, state = trained("in place convolutions", steps=100)
    exact, rank1 = (adam_features(model, losses, IDENTITY, state, mode=m)(batch) for m in ("adam", "adam_rank1"))
    plain = GradientFeatures(model, losses, IDENTITY)(batch)
    near = cosines(exact, rank1)
    assert near.min() > 0.6 and near.mean() > cosines(exact, plain).mean() + 0.1


@pytest.mark.parametrize("kind", ["rademacher", "normal", "sjlt"])
def test_rank_one_mode_refuses_dense_projections(kind):
    model, _, state = trained()
    with pytest.raises(InputError, match=f"{kind}.*exact mode, adam"):
        adam_features(model, losses, Projection(kind, 8), state, mode="adam_rank1")


# --- what engines are used for ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["adam", "adam_rank1", "adam_released"])
def test_rows_of_a_dataset(mode):
    model, batch, state = trained()
    features = adam_features(model, losses, Projection("factored", 50), state, mode=mode, eps=1e-6)
    rows = gradient_rows(features, batch, range(len(batch)))["features"]
    assert_near(rows, features(batch).double().numpy())
    assert {name for name, _ in features.coverage.covered} == {name for name, _ in model.named_parameters()}
    broken = batch.clone()
    broken[1, 0, 0, 0] = torch.nan
    with pytest.raises(InputError, match="sample 1 is not finite"):
        gradient_rows(features, broken, range(len(batch)))


def test_frozen_and_unchosen_parameters_need_no_state():
    model, batch, state = trained()
    model[0].requires_grad_(False)
    state = {name: {} if name.startswith("0.") else of for name, of in state.items()}
    features = adam_features(model, losses, IDENTITY, state, parameters=lambda name: name != "1.bias")
    assert features.trainable == {"1.weight", "3.weight", "3.bias"}
    assert features(batch).shape == (len(batch), 6 + 6 * 3 * 9 + 3)


# --- states that are refused -----------------------------------------------------------------------------------------


def broken(state, name, **changes):
    return {**state, name: {**state[name], **changes}}


def without(mapping, key):
    return {k: v for k, v in mapping.items() if k != key}


REFUSED = {
    "none": (lambda s: None, r"no optimizer state.*LESS.*task\.train\.optimizer=adamw"),
    "missing parameter": (lambda s: without(s, "0.weight"), r"'0\.weight' is missing.*never updated"),
    "empty entry": (lambda s: {**s, "0.weight": {}}, r"'0\.weight' is missing.*never updated"),
    "extra parameter": (lambda s: {**s, "9.weight": s["0.weight"]}, r"'9\.weight' that is no parameter"),
    "numbered": (lambda s: dict(enumerate(s.values())), r"entry 0 that is no parameter.*not by torch's numbers"),
    "sgd": (
        lambda s: {n: {"momentum_buffer": of["exp_avg"]} for n, of in s.items()},
        r"'0\.weight' has the keys momentum_buffer; 'exp_avg' is missing.*not of SGD.*optimizer=adamw",
    ),
    "missing key": (
        lambda s: {**s, "3.bias": without(s["3.bias"], "exp_avg_sq")},
        r"'3\.bias'.*'exp_avg_sq' is missing",
    ),
    "no step": (lambda s: {**s, "3.bias": without(s["3.bias"], "step")}, r"'3\.bias'.*'step' is missing"),
    "amsgrad": (
        lambda s: broken(s, "3.bias", max_exp_avg_sq=s["3.bias"]["exp_avg_sq"]),
        "'max_exp_avg_sq' is too much.*AMSGrad",
    ),
    "wrong shape": (
        lambda s: broken(s, "3.bias", exp_avg=torch.zeros(17)),
        r"'3\.bias' has 'exp_avg' of shape \[17\].*is \[3\].*another model",
    ),
    "transposed": (
        lambda s: broken(s, "0.weight", exp_avg_sq=s["0.weight"]["exp_avg_sq"].permute(3, 2, 1, 0)),
        r"'0\.weight' has 'exp_avg_sq'.*transposed",
    ),
    "wrong order": (
        lambda s: {**s, "0.weight": s["3.weight"], "3.weight": s["0.weight"]},
        r"'0\.weight'.*shape of '3\.weight'.*order",
    ),
    "nan": (
        lambda s: broken(s, "3.bias", exp_avg=torch.full((3,), torch.nan)),
        r"'3\.bias'.*'exp_avg' that is not finite",
    ),
    "infinite": (
        lambda s: broken(s, "3.bias", exp_avg_sq=torch.full((3,), torch.inf)),
        r"'exp_avg_sq' that is not finite",
    ),
    "negative": (
        lambda s: broken(s, "3.bias", exp_avg_sq=torch.tensor([1.0, -2, 3])),
        r"'3\.bias'.*negative number, -2",
    ),
    "step 0": (lambda s: broken(s, "3.bias", step=torch.tensor(0.0)), r"'3\.bias' says 'step' is 0"),
    "step nan": (lambda s: broken(s, "3.bias", step=torch.tensor(torch.nan)), r"'3\.bias' says 'step' is nan"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_states_that_cannot_be_used_are_refused_by_name(case):
    model, _, state = trained()
    change, message = REFUSED[case]
    with pytest.raises(InputError, match=f"(?s){message}"):
        AdamState.of(model, change(state))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"mode": "sgd"}, "adam, adam_rank1, adam_released"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"betas": (-0.1, 0.9)}, "betas"),
        ({"eps": 0.0}, "eps must be a positive number"),
        ({"mode": "adam_rank1", "eps": -1.0}, "eps must be a positive number"),
    ],
)
def test_options_are_checked(options, message):
    model, _, state = trained()
    with pytest.raises(InputError, match=message):
        adam_features(model, losses, IDENTITY, state, **options)
