"""What a parameter is used for decides its rule: weights by hand, broadcast, tables, products, experts, adapters."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tarot.gradients.per_sample import GradientFeatures
from tarot.gradients.projection import Kept, Projection
from tarot.gradients.reference import loop_gradients
from tests.tarot.gradients.gradient_models import Case, Net, losses, normal

SEQUENCES = normal(4, 5, 6)


def matrix(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


def normalised(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def norms_by_hand(m: Net, x: Tensor) -> Tensor:
    """As LLaMA's, as Gemma's, one of a scale for each position that is divided by another; a bias in place."""
    x = m.llama * normalised(x).to(m.llama.dtype)
    x = normalised(x.tanh()) * (1.0 + m.gemma.to(x.dtype))
    x = m.places * x.sin() / (m.gemma**2 + 1)
    x += m.bias
    return torch.sub(x, m.bias, alpha=2) * x.cos()


def products_by_hand(m: Net, x: Tensor) -> Tensor:
    """GPT-2's Conv1D on rows of all samples; a matrix before the samples; one after, times a number."""
    y = torch.addmm(m.b, x.view(-1, 6), m.w).view(*x.shape[:2], 4)
    return (m.v @ y.tanh()) @ (0.5 * m.u) + m.v.mm(m.v.t()).sum(-1, keepdim=True)


def tokens_and_positions(m: Net, x: Tensor) -> Tensor:
    """A mask's token, one of the class, positions, a scale for each channel, as in ViT and ConvNeXt."""
    x = torch.where(x[..., :1] > 0.5, m.mask, x)
    x = torch.cat([m.token.expand(len(x), -1, -1), x], 1) + m.places[:, : x.shape[1] + 1]
    return x + m.scale * x.sin()


def relative_positions(m: Net, x: Tensor) -> Tensor:
    """A table read in a fixed order and added to logits, as Swin does; one that is attention's mask, as in T5."""
    distance = torch.arange(5)[:, None] - torch.arange(5) + 4
    q = m.inner(x).unflatten(-1, (2, 3)).transpose(1, 2)
    bias = m.table[distance.view(-1)].view(5, 5, 2).permute(2, 0, 1).contiguous().unsqueeze(0)
    mixed = torch.softmax(q @ q.mT + bias, -1) @ q
    mask = m.embedding(distance).permute(2, 0, 1)[None]
    return functional.scaled_dot_product_attention(mixed, q, q, attn_mask=mask)


def packed_attention(m: Net, x: Tensor) -> Tensor:
    """Queries, keys and values by one matrix that is used as a function, its parts by slices."""
    q, k, v = functional.linear(x, m.qkv.weight, m.qkv.bias).chunk(3, -1)
    again = functional.linear(v, m.qkv.weight[6:12], m.qkv.bias[6:12])
    return functional.linear(torch.softmax(q @ k.mT, -1) @ again, m.qkv.weight[2:5].T @ m.qkv.weight[:3])


def learned_queries(m: Net, x: Tensor) -> Tensor:
    queries = m.linear(m.queries)  # the same layer reads parameters, and then samples
    return torch.softmax(queries @ x.mT, -1) @ m.linear(x)


def copies(m: Net, x: Tensor) -> Tensor:
    both = torch.stack([x, x.sin()], 1).flatten(0, 1)
    return torch.bmm(m.heads.repeat(len(x), 1, 1), both.mT).unflatten(0, (len(x), -1))


def normalised_weight(m: Net, x: Tensor) -> Tensor:
    return functional.linear(x, m.w / m.w.norm(dim=1, keepdim=True) * m.g[:, None])


class Stacked(nn.Module):
    """Experts in one tensor, as transformers stacks them: its interface, and its forward in turn."""

    def __init__(self, is_transposed: bool = False, has_bias: bool = False, rank: int = 0) -> None:
        super().__init__()
        self.num_experts, self.has_gate, self.has_bias, self.is_transposed = 4, True, has_bias, is_transposed
        for name, (out, width) in {"gate_up_proj": (10, 6), "down_proj": (6, 5)}.items():
            setattr(self, name, matrix(4, *((width, out) if is_transposed else (out, width))))
            if has_bias:
                setattr(self, f"{name}_bias", matrix(4, out))
        if rank:
            nn.utils.parametrize.register_parametrization(self, "down_proj", LowRank(4, 6, 5, rank))
            self.parametrizations.down_proj.original.requires_grad_(False)

    def _apply_gate(self, both: Tensor) -> Tensor:
        gate, up = both.chunk(2, -1)
        return gate.tanh() * up

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        written = torch.zeros_like(x)
        for e in range(self.num_experts):
            token, place = torch.where(chosen == e)
            y = x[token]
            for name in "gate_up_proj", "down_proj":
                weight = getattr(self, name)[e]
                y = y @ weight if self.is_transposed else functional.linear(y, weight)
                y = y + getattr(self, f"{name}_bias")[e] if self.has_bias else y
                y = self._apply_gate(y) if name == "gate_up_proj" else y
            written.index_add_(0, token, y * weights[token, place, None])
        return written


class LowRank(nn.Module):
    """What is added to a stack of matrices, as peft's adapters of single parameters do."""

    def __init__(self, experts: int, out: int, width: int, rank: int) -> None:
        super().__init__()
        self.a, self.b = matrix(experts * rank, width), matrix(out, experts * rank)
        self.experts = experts

    def forward(self, stack: Tensor) -> Tensor:
        a, b = self.a.view(self.experts, -1, self.a.shape[1]), self.b.view(len(self.b), -1, self.experts)
        return stack + torch.einsum("o r e, e r i -> e o i", b, a)


def route(m: Net, x: Tensor) -> Tensor:
    flat = x.reshape(-1, 6)
    weights, chosen = torch.softmax(m.router(flat), -1).topk(2)
    return m.experts(flat, chosen, weights).view_as(x)


def experts(**options: object) -> nn.Module:
    return Net(route, router=nn.Linear(6, 4), experts=Stacked(**options))


def norm_weights() -> dict[str, nn.Parameter]:
    of_channels = {name: nn.Parameter(torch.rand(6) + 0.5) for name in ("llama", "gemma", "bias")}
    return {**of_channels, "places": matrix(5, 1)}


CASES = {
    "norms": Case(lambda: Net(norms_by_hand, **norm_weights()), SEQUENCES),
    "products": Case(
        lambda: Net(products_by_hand, w=matrix(6, 4), v=matrix(3, 5), u=matrix(4, 4), b=matrix(4)), SEQUENCES
    ),
    "tokens": Case(
        lambda: Net(
            tokens_and_positions, token=matrix(1, 1, 6), places=matrix(1, 7, 6), scale=matrix(6), mask=matrix(6)
        ),
        SEQUENCES,
    ),
    "tables": Case(
        lambda: Net(relative_positions, table=matrix(9, 2), embedding=nn.Embedding(9, 1), inner=nn.Linear(6, 6)),
        SEQUENCES,
    ),
    "packed attention": Case(lambda: Net(packed_attention, qkv=nn.Linear(6, 18)), SEQUENCES),
    "learned queries": Case(lambda: Net(learned_queries, queries=matrix(3, 6), linear=nn.Linear(6, 6)), SEQUENCES),
    "copies": Case(lambda: Net(copies, heads=matrix(2, 3, 6)), SEQUENCES),
    "normalised weight": Case(lambda: Net(normalised_weight, w=matrix(4, 6), g=matrix(4)), SEQUENCES),
    "experts": Case(experts, SEQUENCES),
    "experts, transposed, with biases": Case(lambda: experts(is_transposed=True, has_bias=True), SEQUENCES),
    "experts with adapters": Case(lambda: experts(rank=2), SEQUENCES),
    "transposed convolutions": Case(
        lambda: nn.Sequential(
            nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2, dilation=2), nn.PReLU(6)
        ),
        normal(4, 4, 3, 4),
    ),
    "transposed convolutions of signals and volumes": Case(
        lambda: nn.Sequential(
            nn.ConvTranspose1d(4, 6, 4, stride=3), nn.Unflatten(1, (2, 3)), nn.ConvTranspose2d(2, 3, 2)
        ),
        normal(4, 4, 5),
    ),
    "transposed 3-D convolution": Case(lambda: nn.ConvTranspose3d(2, 3, 2, padding=1), normal(4, 2, 3, 4, 5)),
}


def built(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return CASES[name].model().eval(), CASES[name].batch()


@pytest.mark.filterwarnings("error:gradients of")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("name", CASES)
def test_rules_equal_the_loop(name, dtype, tolerance):
    model, batch = built(name)
    model, batch = model.to(dtype), batch.to(dtype)

    def as_it_is(name, sketch):
        return Whole(sketch.width)

    features = GradientFeatures(model, losses, Projection("identity"), sketches=as_it_is)
    features(batch)
    rows = features._rows(batch, len(batch))
    expected = loop_gradients(model, losses, batch)
    size = torch.cat([gradient.flatten() for gradient in expected.values()]).norm()
    for parameter, gradient in expected.items():
        ours = rows.get(parameter, torch.zeros(len(batch), gradient[0].numel()))
        assert ours.dtype == dtype
        error = (ours - gradient.flatten(1)).norm()
        assert error <= tolerance * (gradient.norm() + 1e-3 * size), f"{parameter}: {error / gradient.norm():.1e}"


class Whole(Kept):
    """The gradient as it is, in its own dtype."""

    def __call__(self, gradient: Tensor) -> Tensor:
        return gradient


@pytest.mark.filterwarnings("error:gradients of")
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, kind) for name in CASES for kind in ("tensorsketch", "factored")),
        *((name, kind) for name in ("tables", "experts with adapters") for kind in ("rademacher", "sjlt")),
    ],
)
def test_every_projection_is_that_of_the_loop_whoever_shares_the_batch(name, kind):
    model, batch = built(name)
    features = GradientFeatures(model, losses, Projection(kind, 20))
    rows = features(batch)
    expected = torch.zeros(len(batch), features.dim)
    for parameter, gradient in loop_gradients(model, losses, batch).items():
        expected[:, features._plan.columns[parameter]] += features._plan.sketches[parameter](gradient.flatten(1))
    torch.testing.assert_close(rows, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    mates = torch.cat([batch[2:3], torch.randn_like(batch[:2]), batch[1:2]])
    torch.testing.assert_close(features(mates)[[3, 0]], rows[1:3], rtol=1e-3, atol=1e-4 * float(rows.abs().max()))


def test_coverage_says_what_each_parameter_is_used_for():
    model, batch = built("tokens")
    features = GradientFeatures(model, losses, Projection("identity"))
    assert dict(features.coverage.covered)["token"] == "not used so far"
    features(batch)
    assert dict(features.coverage.covered) == {
        "token": "copies",
        "places": "addend",
        "scale": "scale",
        "mask": "elementwise",
    }


def test_operations_without_a_rule_are_named():
    torch.manual_seed(0)
    model = Net(lambda m, x: torch.cdist(x, m.centres) + m.linear(x), centres=matrix(3, 6), linear=nn.Linear(6, 3))
    batch = torch.randn(4, 5, 6)
    features = GradientFeatures(model, losses, Projection("identity"))
    with pytest.warns(UserWarning, match="centres take one backward pass per sample: cdist: there is no rule for it"):
        rows = features(batch)
    expected = torch.cat([gradient.flatten(1) for gradient in loop_gradients(model, losses, batch).values()], 1)
    torch.testing.assert_close(rows, expected, rtol=1e-4, atol=1e-5)
    assert dict(features.coverage.covered)["linear.weight"] == "linear"


def test_parameters_are_put_back_whatever_happens():
    model, batch = built("experts with adapters")
    before = dict(model.named_parameters())

    def fail(model, batch):
        model(batch)
        raise ZeroDivisionError

    for attempt in losses, fail:
        features = GradientFeatures(model, attempt, Projection("factored", 9))
        if attempt is fail:
            with pytest.raises(ZeroDivisionError):
                features(batch)
        else:
            features(batch)
        assert all(parameter is before[name] for name, parameter in model.named_parameters())
        assert "forward" not in vars(model.experts)


@pytest.mark.filterwarnings("error:gradients of")
def test_adapters_of_every_kind():
    """DoRA on fused and transposed matrices, and adapters of the embedding; peft's own forward of each."""
    peft = pytest.importorskip("peft")
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=8, bos_token_id=0, eos_token_id=0)
    options = {"r": 2, "use_dora": True, "fan_in_fan_out": True, "target_modules": ["c_attn", "wte"]}
    model = peft.get_peft_model(GPT2LMHeadModel(config), peft.LoraConfig(**options)).eval()
    for parameter in model.parameters():
        if parameter.requires_grad and not parameter.any():
            nn.init.normal_(parameter, std=0.1)

    def by_sample(model: nn.Module, ids: Tensor) -> Tensor:
        return functional.cross_entropy(model(input_ids=ids).logits.mT, ids, reduction="none").sum(1)

    ids = torch.randint(0, 20, (3, 7))
    rows = GradientFeatures(model, by_sample, Projection("identity"))(ids)
    expected = loop_gradients(model, by_sample, ids)
    assert sum("magnitude" in name for name in expected) == 2 and sum("embedding" in name for name in expected) >= 2
    torch.testing.assert_close(rows, torch.cat([g.flatten(1) for g in expected.values()], 1), rtol=1e-4, atol=1e-5)
