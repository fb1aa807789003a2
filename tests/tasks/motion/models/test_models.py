"""AutoBot and Wayformer: their sizes, what they do not see, what they compute, and gradient features of them."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import nn

from tarot import InputError
from tarot.gradients.per_sample import GradientFeatures
from tarot.gradients.projection import Projection
from tarot.gradients.reference import loop_gradients, vmap_gradients
from tasks.motion.models.autobots import MINI_AUTOBOT, AutoBotArchitecture, sinusoids
from tasks.motion.models.layers import FUSED_FROM, Attention, PooledAttention, attendable, bias_of
from tasks.motion.models.losses import MINI_LOSS, PAPER_LOSS, LossWeights, autobot_losses, wayformer_losses
from tasks.motion.models.wayformer import MINI_WAYFORMER, WayformerArchitecture
from tests.tasks.motion.batches import motion_batch

STEPS = WayformerArchitecture(
    width=32, heads=2, latents=9, queries=8, encoder_layers=1, decoder_layers=2, expansion=2, scale=10.0
)  # all the parts of the large one


def build(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    match name:
        case "autobot":
            model = MINI_AUTOBOT.build(5, 12)
        case "wayformer":
            model = MINI_WAYFORMER.build(5, 12, 6, 10)
        case "wayformer steps":
            model = STEPS.build(5, 12, 6, 10)
    with torch.no_grad():  # where a weight starts at zero, nothing would be tested of it
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model


def losses_for(name: str, weights: LossWeights = MINI_LOSS):
    loss = autobot_losses if name.startswith("autobot") else wayformer_losses
    return lambda model, batch: loss(model(batch), batch, weights)


NAMES = ["autobot", "wayformer", "wayformer steps"]


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_autobot_has_the_papers_parts():
    model = AutoBotArchitecture().build(21, 60)
    assert parameters(model) == 1_504_006 and all(p.requires_grad for p in model.parameters())
    assert {name: tuple(b.shape) for name, b in model.named_buffers()}["positions"] == (21, 128)  # 2,688 numbers
    assert "positions" in model.state_dict()
    layers = [*model.temporal, *model.social]
    assert [parameters(layer) for layer in layers] == [165_376] * 4
    assert [parameters(layer) for layer in model.decoder] == [231_680] * 2
    parts = model.point_attention, model.lane_net, model.map_attention, model.mode_attention, model.mode_map_attention
    assert [parameters(part) for part in parts] == [66_048, 33_024, 66_048, 66_048, 66_048]
    rest = model.head, model.queries, model.mode_queries, model.agent_input, model.point_input, model.mode_output
    assert [parameters(part) for part in rest] == [33_669, 46_080, 768, 384, 384, 129]


def test_wayformer_has_the_papers_parts():
    model = WayformerArchitecture().build(21, 60, 32, 30)
    assert parameters(model) == 15_184_685
    assert sum(parameters(layer) for layer in model.cross) == 6_322_176
    assert sum(parameters(layer) for layer in model.own) == 6_318_080
    assert [parameters(layer) for layer in (model.reader, *model.encoder)] == [790_272, 789_760, 789_760]
    rest = model.latents, model.queries, model.head, model.mode_output
    assert [parameters(part) for part in rest] == [49_152, 16_384, 77_100, 257]
    scene = model.scene
    rest = scene.agent_input, scene.lane_input, scene.agent_places, scene.times
    assert [parameters(part) for part in rest] == [10_240, 7_680, 8_448, 5_376]


@pytest.mark.parametrize("name", NAMES)
def test_predictions_are_distributions(name):
    prediction = build(name)(motion_batch())
    assert prediction.trajectories.shape == (4, 6, 12, 5) and prediction.logits.shape == (4, 6)
    assert (prediction.trajectories[..., 2:4] > 0).all() and (prediction.trajectories[..., 4].abs() < 1).all()
    assert torch.allclose(prediction.probabilities.sum(1), torch.ones(4))
    width = {"autobot": 48, "wayformer": 64, "wayformer steps": 32}[name]
    assert build(name).embeddings(motion_batch()).shape == (4, width)


# --- attention -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [7, FUSED_FROM])
def test_attention_is_pytorchs(keys):
    torch.manual_seed(0)
    ours, theirs = Attention(12, 3), nn.MultiheadAttention(12, 3, batch_first=True)
    assert parameters(ours) == parameters(theirs)
    with torch.no_grad():
        for parameter in ours.parameters():
            nn.init.normal_(parameter)
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    query, memory = torch.randn(2, 5, 12), torch.randn(2, keys, 12)
    valid = torch.rand(2, keys) < 0.6
    expected, _ = theirs(query, memory, memory, key_padding_mask=~valid)
    assert torch.allclose(ours(query, memory, bias_of(valid)[:, None, None]), expected, atol=1e-5)


def test_initial_weights_are_spread_as_pytorchs():
    torch.manual_seed(0)
    ours, theirs = Attention(128, 8), nn.MultiheadAttention(128, 8)
    for linear in ours.query, ours.key, ours.value:
        assert linear.weight.std().item() == pytest.approx(theirs.in_proj_weight.std().item(), rel=0.03)
        assert not linear.bias.any()
    assert ours.out.weight.std().item() == pytest.approx(theirs.out_proj.weight.std().item(), rel=0.05)


def test_pooled_attention_is_attention():
    torch.manual_seed(0)
    pooled, plain = PooledAttention(12, 3), Attention(12, 3)
    plain.load_state_dict(pooled.state_dict())
    with torch.no_grad():
        for parameter in pooled.parameters():
            nn.init.normal_(parameter)
    plain.load_state_dict(pooled.state_dict())
    query, points, valid = torch.randn(2, 12), torch.randn(2, 4, 5, 12), torch.rand(2, 4, 5) < 0.6
    valid = attendable(valid)
    expected = plain(query[:, None, None].expand(-1, 4, -1, -1), points, bias_of(valid)[:, :, None, None])
    assert torch.allclose(pooled(query, points, bias_of(valid)), expected.squeeze(2), atol=1e-5)


def test_a_row_of_nothing_attends_to_its_padding():
    valid = torch.tensor([[True, False], [False, False]])
    assert attendable(valid).tolist() == [[True, False], [True, True]]


def test_sinusoids_are_vaswanis():
    table = sinusoids(9, 6)
    for position in range(9):
        for i in range(3):
            angle = position / 10000 ** (2 * i / 6)
            assert table[position, 2 * i] == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[position, 2 * i + 1] == pytest.approx(math.cos(angle), abs=1e-6)


# --- what is seen --------------------------------------------------------------------------------------------------


def changed(batch: dict, **tensors: torch.Tensor) -> dict:
    return {**batch, **tensors}


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_valid_is_not_seen(name):
    model, batch = build(name).eval(), motion_batch()
    expected = model(batch)
    other = dict(batch)
    for key in "agents", "lanes":
        garbage = torch.full_like(batch[key], torch.nan)
        other[key] = torch.where(batch[f"{key}_valid"][..., None], batch[key], garbage)
    for a, b in zip(model(other), expected, strict=True):
        assert torch.allclose(a, b, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_lanes_have_no_order(name):
    model, batch = build(name).eval(), motion_batch()
    order = torch.randperm(24)
    other = changed(batch, lanes=batch["lanes"][:, order], lanes_valid=batch["lanes_valid"][:, order])
    for a, b in zip(model(other), model(batch), strict=True):
        assert torch.allclose(a, b, atol=1e-3)


@torch.no_grad()
def test_autobot_sees_positions_alone():
    model, batch = build("autobot").eval(), motion_batch()
    noise = {
        key: torch.randn_like(batch[key]) * torch.tensor([0.0] * 2 + [1.0] * (batch[key].shape[-1] - 2))
        for key in ("agents", "lanes")
    }
    other = changed(batch, **{key: batch[key] + noise[key] for key in noise})
    assert torch.equal(model(other).trajectories, model(batch).trajectories)
    other = changed(batch, agents=batch["agents"].flip(1))
    assert not torch.allclose(model(other).trajectories, model(batch).trajectories)


@torch.no_grad()
def test_small_wayformer_reads_the_columns_that_it_says():
    model, batch = build("wayformer").eval(), motion_batch()
    expected = model(batch).trajectories
    for key, columns in ("agents", {0, 1, 17, 18, 19, 20}), ("lanes", {0, 1, 3, 4}):  # 5 steps: 11 + 5 + 1 is the sine
        for column in range(batch[key].shape[-1]):
            other = changed(batch, **{key: batch[key].clone()})
            other[key][..., column] += 1.0
            assert torch.equal(model(other).trajectories, expected) == (column not in columns), (key, column)


@torch.no_grad()
def test_autobots_steps_do_not_see_later_ones():
    model, batch = build("autobot").eval(), motion_batch()
    before = model(batch).trajectories
    model.queries.table.weight.view(6, 12, 48)[:, 7:] += 1.0
    after = model(batch).trajectories
    assert torch.equal(after[:, :, :7], before[:, :, :7]) and not torch.equal(after[:, :, 7:], before[:, :, 7:])


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_samples_do_not_mix(name):
    model, batch = build(name).eval(), motion_batch()
    alone = model({key: value[2:3] for key, value in batch.items()})
    assert torch.allclose(alone.trajectories[0], model(batch).trajectories[2], atol=1e-4)


# --- gradients -----------------------------------------------------------------------------------------------------


def awkward(samples: int = 5, **sizes: int) -> dict:
    """A scene without lanes, one without a future, one with the target alone, and ordinary ones."""
    batch = motion_batch(samples, **sizes)
    for key in "lanes", "lanes_valid":
        batch[key][1] = 0
    for key in "future", "future_valid":
        batch[key][2] = 0
    for key in "agents", "agents_valid":
        batch[key][3, 1:] = 0
    return batch


def flat(gradients: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([gradients[name].flatten(1) for name in sorted(gradients)], 1)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float(((found - expected).norm(dim=1) / expected.norm(dim=1)).max())


def compare(model: nn.Module, losses, batch: dict) -> None:
    expected = loop_gradients(model, losses, batch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of the slow path, and of operations without a rule in vmap
        features = GradientFeatures(model, losses, Projection("identity"))
        found = features(batch)
        by_vmap = vmap_gradients(model, losses, batch)
    assert {how for _, how in features.coverage.covered} == {"linear", "norm", "embedding"}
    assert not features.coverage.excluded
    assert features.dim == sum(p.numel() for p in model.parameters())
    ours = {name: found[:, features._plan.columns[name]] for name in expected}
    assert relative(flat(ours), flat(expected)) < 1e-3
    assert relative(flat(by_vmap), flat(expected)) < 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_features_and_vmap_are_the_loops(name):
    compare(build(name), losses_for(name), awkward())


@pytest.mark.slow
def test_features_and_vmap_are_the_loops_in_the_papers_autobot():
    torch.manual_seed(0)
    batch = awkward(4, agents=15, past=21, lanes=256, points=20, future=60)
    compare(AutoBotArchitecture().build(21, 60), losses_for("autobot", PAPER_LOSS), batch)


@pytest.mark.slow
def test_features_are_the_loops_in_the_papers_wayformer():
    """With a tenth of its lanes, which are still so many tokens that attention is fused; `vmap` makes a slow loop of
    that, with a warning."""
    torch.manual_seed(0)
    model, losses = WayformerArchitecture().build(21, 60, 32, 30), losses_for("wayformer", LossWeights(distance=0.0))
    batch = awkward(4, agents=32, past=21, lanes=38, points=30, future=60)
    assert FUSED_FROM <= 33 * 21 + 38 * 30
    expected = loop_gradients(model, losses, batch)
    features = GradientFeatures(model, losses, Projection("identity"))
    found = features(batch)
    ours = {name: found[:, features._plan.columns[name]] for name in expected}
    assert {how for _, how in features.coverage.covered} == {"linear", "norm", "embedding"}
    assert relative(flat(ours), flat(expected)) < 1e-3
    assert relative(flat(vmap_gradients(model, losses, batch)), flat(expected)) < 1e-3


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_valid_is_finite(name, train):
    """No lane in the batch, not even the padding of another scene."""
    batch = awkward()
    batch["lanes"].zero_(), batch["lanes_valid"].zero_()
    model = build(name).train(train)
    losses = losses_for(name)(model, batch)
    losses.sum().backward()
    assert losses.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_a_scene_without_lanes_has_no_enormous_gradient():
    """Fresh biases are zero, and a norm after a norm of zeros would multiply gradients by 10^5."""
    torch.manual_seed(0)
    norms = flat(loop_gradients(MINI_AUTOBOT.build(5, 12), losses_for("autobot"), awkward())).norm(dim=1)
    assert norms[1] < 10 * norms[[0, 2, 3, 4]].max()


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_finite(name):
    with torch.autocast("cpu", torch.bfloat16):
        losses = losses_for(name)(build(name), awkward())
    assert losses.float().isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_does_not_round_positions(name):
    """What reads coordinates and what says where futures are works in float32 under autocast, as `Prediction` says."""
    model, batch, seen = build(name).eval(), motion_batch(scale=80.0), {}
    wanted = {"agent_input", "point_input", "lane_input", "head", "mode_output"}
    parts = {path.rpartition(".")[2]: module for path, module in model.named_modules()}
    for part in wanted & parts.keys():
        parts[part].register_forward_hook(lambda module, given, out, part=part: seen.update({part: (*given, out)}))
    with torch.autocast("cpu", torch.bfloat16):
        prediction = model(batch)
    assert prediction.trajectories.dtype == prediction.logits.dtype == torch.float32
    assert len(seen) == 4
    for part, (given, out) in seen.items():
        assert torch.equal(out, parts[part](given)), part


@pytest.mark.parametrize("name", NAMES)
def test_features_in_half_precision_are_nearly_those_in_full(name):
    model, losses, batch = build(name), losses_for(name), awkward()
    full = GradientFeatures(model, losses, Projection("identity"))(batch)
    half = GradientFeatures(model, losses, Projection("identity"), autocast=torch.bfloat16)(batch)
    similar = torch.cosine_similarity(half, full)
    assert similar.median() > 0.98 and similar.min() > 0.9


def test_initial_weights_are_as_spread_as_said():
    for spread in 0.02, 0.07:
        torch.manual_seed(0)
        model = WayformerArchitecture(width=64, spread=spread).build(5, 12, 6, 10)
        assert model.encoder[0].net[1].weight.std().item() == pytest.approx(spread, rel=0.03)
        assert not model.scene.times.table.weight.any() and not model.head.bias.any()


# --- options -------------------------------------------------------------------------------------------------------


def test_recipes_are_plain_and_tell_architectures_apart():
    assert MINI_AUTOBOT.recipe()["kind"] == "autobot" and MINI_WAYFORMER.recipe()["kind"] == "wayformer"
    assert MINI_AUTOBOT.recipe() != AutoBotArchitecture().recipe()


@pytest.mark.parametrize(
    ("kind", "options", "word"),
    [
        (AutoBotArchitecture, {"width": 50}, "heads"),
        (AutoBotArchitecture, {"modes": 0}, "modes must be at least 1"),
        (AutoBotArchitecture, {"floor": 0.0}, "floor must be positive"),
        (WayformerArchitecture, {"width": 255}, "heads"),
        (WayformerArchitecture, {"queries": 5}, "queries"),
        (WayformerArchitecture, {"tokens": "lanes"}, "tokens"),
    ],
)
def test_architectures_that_cannot_be(kind, options, word):
    with pytest.raises(InputError, match=word):
        kind(**options)


@pytest.mark.parametrize("name", ["autobot", "wayformer"])
def test_small_models_learn(name):
    """Of sixteen agents where each drives, by heart."""
    batch, losses = motion_batch(16), losses_for(name)
    batch["future"][..., :2] = 0.1 * batch["agents"][:, :1, -1, :2] * torch.arange(1, 13)[:, None]
    model = build(name).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

    def nearest() -> float:
        with torch.no_grad():
            misses = model(batch).trajectories[..., :2] - batch["future"][:, None, :, :2]
        return float(misses.norm(dim=-1).mean(2).amin(1).mean())

    before = nearest()
    for _ in range(40):
        optimizer.zero_grad()
        losses(model, batch).mean().backward()
        optimizer.step()
    assert nearest() < 0.7 * before
