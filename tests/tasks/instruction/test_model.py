"""Gradients of adapters against the loop and the formula; what pads a sequence does not matter; whose state it is."""

from __future__ import annotations

import json
import warnings
from itertools import product

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, BloomConfig, GPT2Config

from tarot import InputError
from tarot.gradients.per_sample import GradientFeatures
from tarot.gradients.preconditioning import BETAS, EPS, adam_features
from tarot.gradients.projection import Projection, plan
from tarot.gradients.reference import loop_gradients
from tasks.common.training import seeded
from tasks.instruction.model import Adapter, Language, LanguageModel, pooled
from tasks.instruction.tokenizer import load_tokenizer
from tasks.instruction.tokens import IGNORE
from tests.tasks.instruction.conversations import write_model

VOCABULARY, PAD = 61, 3
LENGTHS = (12, 5, 9, 2, 12, 7)
KINDS = list(product(("llama", "qwen2"), ("eager", "sdpa")))


def language(kind: str = "llama", attention: str = "sdpa", **options) -> Language:
    sizes = {"hidden": 16, "layers": 2, "heads": 4, "key_heads": 2, "intermediate": 24, "context": 64}
    return Language(kind=kind, attention=attention, **{**sizes, **options})


def model_of(kind: str = "llama", attention: str = "sdpa", **options) -> LanguageModel:
    """With adapters that have learnt something: B is zero at first, and so is the gradient of A."""
    with seeded(1):
        model = language(kind, attention, **options).build(VOCABULARY, Adapter(rank=4, alpha=16.0, dropout=0.5))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.1)
    return model.eval()


def tokens(length: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, VOCABULARY, (length,), generator=generator)
    labels = ids.clone()
    labels[: max(1, length // 2)] = IGNORE
    return ids, labels


def batch_of(samples: range | list[int], pad: int = PAD, width: int = 0) -> dict[str, Tensor]:
    """Some of the samples, padded on the right to the longest of them, or to `width`."""
    rows = [tokens(LENGTHS[i], i) for i in samples]
    width = max(width, *(len(ids) for ids, _ in rows))
    ids = torch.stack([functional.pad(ids, (0, width - len(ids)), value=pad) for ids, _ in rows])
    labels = torch.stack([functional.pad(labels, (0, width - len(labels)), value=IGNORE) for _, labels in rows])
    return {"input_ids": ids, "labels": labels}


def losses(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return model.losses(batch["input_ids"], batch["labels"])


def alone(model: LanguageModel) -> Tensor:
    """Each sample by itself and without padding, its whole gradient by autograd, [samples, parameters]."""
    rows = [loop_gradients(model, losses, batch_of([i])) for i in range(len(LENGTHS))]
    return torch.cat([torch.cat([g.flatten(1) for g in row.values()], 1) for row in rows])


# --- gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "attention"), KINDS)
def test_features_are_the_loop_of_batches_of_one(kind, attention):
    model = model_of(kind, attention)
    expected = alone(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a parameter that takes the slow path is announced by a warning
        features = GradientFeatures(model, losses, Projection("identity"))
        everyone = features(batch_of(range(6)))
        torch.testing.assert_close(everyone, expected, rtol=1e-4, atol=1e-6)
        for batch in (batch_of([4, 3, 1]), batch_of([1], width=40), batch_of(range(6), pad=17, width=23)):
            samples = {3: [4, 3, 1], 1: [1], 6: list(range(6))}[len(batch["labels"])]
            torch.testing.assert_close(features(batch), expected[samples], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_every_adapter_has_a_rule_and_nothing_else_learns(kind):
    model = model_of(kind)
    features = GradientFeatures(model, losses, Projection("factored", 64))
    features(batch_of([0, 1]))
    covered, excluded = dict(features.coverage.covered), dict(features.coverage.excluded)
    assert set(covered) == {n for n, _ in model.named_parameters() if "lora_" in n} == set(model.adapters)
    assert set(covered.values()) == {"linear"} and set(excluded.values()) == {"frozen: requires_grad is False"}
    assert len(covered) == 2 * 4 * 2  # layers x modules x (A, B)


@pytest.mark.parametrize("kind", ["factored", "tensorsketch", "rademacher"])
def test_features_are_projections_of_the_loop(kind):
    model, projection = model_of(), Projection(kind, 48, seed=5)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}
    layout, whole = plan(projection, shapes), loop_gradients(model, losses, batch_of(range(6)))
    expected = torch.zeros(6, layout.width)
    for name, sketch in layout.sketches.items():
        expected[:, layout.columns[name]] += sketch(whole[name].flatten(1))
    features = GradientFeatures(model, losses, projection)(batch_of(range(6)))
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "attention"), KINDS)
def test_adam_features_are_the_formula(kind, attention):
    model = model_of(kind, attention)
    generator = torch.Generator().manual_seed(0)
    state = {
        name: {
            "exp_avg": 1e-3 * torch.randn(p.shape, generator=generator),
            "exp_avg_sq": 1e-5 * torch.rand(p.shape, generator=generator),
            "step": torch.tensor(7.0),
        }
        for name, p in model.named_parameters()
        if p.requires_grad
    }
    (b1, b2), t = BETAS, 8
    g = alone(model)
    m, v = (torch.cat([of[key].flatten() for of in state.values()]) for key in ("exp_avg", "exp_avg_sq"))
    first = (b1 * m + (1 - b1) * g) / (1 - b1**t)
    second = (b2 * v + (1 - b2) * g**2) / (1 - b2**t)
    features = adam_features(model, losses, Projection("identity"), state)(batch_of(range(6), width=19))
    torch.testing.assert_close(features, first / (second.sqrt() + EPS), rtol=1e-4, atol=1e-5)


def test_dropout_is_off_and_the_model_stays_as_it_was():
    model = model_of().train()
    features = GradientFeatures(model, losses, Projection("identity"))
    one, two = (features(batch_of(range(4))) for _ in range(2))
    assert torch.equal(one, two) and model.training
    assert {n for n, p in model.named_parameters() if p.requires_grad} == set(model.adapters)


# --- losses -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "attention"), KINDS)
def test_a_loss_is_the_mean_over_labelled_tokens(kind, attention):
    """From the logits, whatever the padding and whoever shares the batch."""
    model = model_of(kind, attention)
    for i, length in enumerate(LENGTHS):
        ids, labels = tokens(length, i)
        logits = model(ids[None])[0]
        expected = [-logits[t - 1].log_softmax(0)[ids[t]] for t in range(1, length) if labels[t] != IGNORE]
        for batch, row in ((batch_of([i]), 0), (batch_of(range(6), pad=9, width=20), i), (batch_of([0, i]), 1)):
            torch.testing.assert_close(losses(model, batch)[row], torch.stack(expected).mean(), rtol=1e-4, atol=1e-5)


def test_a_sample_without_labels_loses_nothing():
    model, batch = model_of(), batch_of(range(3))
    batch["labels"][1] = IGNORE
    found = losses(model, batch)
    assert found[1] == 0 and found[0] > 0 and torch.isfinite(found).all()
    nothing = {"input_ids": batch["input_ids"], "labels": torch.full_like(batch["labels"], IGNORE)}
    assert losses(model, nothing).tolist() == [0, 0, 0]


def test_an_adapted_head_sees_all_positions():
    with seeded(0):
        model = language(tied=False).build(VOCABULARY, Adapter(rank=2, modules=["q_proj", "lm_head"])).eval()
    expected = torch.cat([losses(model, batch_of([i])) for i in range(6)])
    torch.testing.assert_close(losses(model, batch_of(range(6))), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = GradientFeatures(model, losses, Projection("identity"))(batch_of(range(6)))
    torch.testing.assert_close(found, alone(model), rtol=1e-4, atol=1e-6)


def test_half_precision_keeps_adapters_whole():
    model = model_of(dtype="bfloat16")
    kinds = {name: p.dtype for name, p in model.named_parameters()}
    assert {kinds[name] for name in model.adapters} == {torch.float32}
    assert {dtype for name, dtype in kinds.items() if name not in model.adapters} == {torch.bfloat16}
    found = GradientFeatures(model, losses, Projection("identity"))(batch_of(range(6)))
    exact = alone(model_of())
    assert functional.cosine_similarity(found, exact).min() > 0.98


# --- state ------------------------------------------------------------------------------------------------------------


def test_state_is_the_adapters_alone():
    model, fresh = model_of(), model_of()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(0.1)
    state = model.state_dict()
    assert set(state) == set(model.adapters)
    fresh.load_state_dict(state)
    torch.testing.assert_close(losses(fresh, batch_of(range(6))), losses(model, batch_of(range(6))))
    with pytest.raises(InputError, match="other adapters"):
        fresh.load_state_dict({name: state[name] for name in list(state)[1:]})


def test_frozen_weights_come_from_their_seed_and_adapters_from_the_global_one():
    torch.manual_seed(0)
    one, two = (language().build(VOCABULARY, Adapter(rank=2)) for _ in range(2))
    other = language(seed=1).build(VOCABULARY, Adapter(rank=2))
    weights = [dict(model.named_parameters()) for model in (one, two, other)]
    frozen = [name for name in weights[0] if name not in one.adapters and "norm" not in name]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in frozen)
    assert not any(torch.equal(weights[0][name], weights[2][name]) for name in frozen if "bias" not in name)
    assert not any(torch.equal(weights[0][name], weights[1][name]) for name in one.adapters if "lora_A" in name)


def test_weights_come_from_a_folder(tmp_path):
    saved = language("qwen2", tied=False).base(VOCABULARY)
    saved.save_pretrained(tmp_path)
    given = Language(path=str(tmp_path))
    with seeded(0):
        model = given.build(VOCABULARY, Adapter(rank=2)).eval()
    ids = batch_of(range(3))["input_ids"]
    torch.testing.assert_close(model(ids), saved(input_ids=ids).logits)
    before = given.recipe()
    language("qwen2", tied=False, seed=3).base(VOCABULARY).save_pretrained(tmp_path)
    assert given.recipe() != before, "other weights of the same sizes look the same"


def test_a_folder_does_not_say_how_answers_are_written(tmp_path):
    saved = language().base(VOCABULARY)
    ids = batch_of([0])["input_ids"]
    found = []
    for penalty in (None, 5.0):
        saved.generation_config.repetition_penalty = penalty
        saved.save_pretrained(tmp_path)
        with seeded(0):
            model = Language(path=str(tmp_path)).build(VOCABULARY, Adapter(rank=2)).eval()
        found.append(model.generate(ids, torch.ones_like(ids), 12, [PAD], PAD))
    assert torch.equal(*found)
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="is no model of transformers' format"):
        Language(path=str(tmp_path)).base(VOCABULARY)


# --- generation -------------------------------------------------------------------------------------------------------


def test_generation_is_greedy_whatever_the_padding():
    model, stop = model_of(), 5
    prompts = [tokens(length, i)[0] for i, length in enumerate(LENGTHS)]

    def by_hand(prompt: Tensor, limit: int) -> list[int]:
        ids, found = prompt.tolist(), []
        while len(found) < limit and stop not in found:
            found.append(int(model(torch.tensor([ids + found]))[0, -1].argmax()))
        return found

    width = max(LENGTHS)
    ids = torch.stack([functional.pad(p, (width - len(p), 0), value=PAD) for p in prompts])
    mask = torch.stack([functional.pad(torch.ones_like(p), (width - len(p), 0)) for p in prompts])
    found = model.generate(ids, mask, 8, [stop], PAD)
    for row, prompt in zip(found.tolist(), prompts, strict=True):
        expected = by_hand(prompt, 8)
        assert row[: len(expected)] == expected and set(row[len(expected) :]) <= {PAD}


# --- errors -----------------------------------------------------------------------------------------------------------


def test_any_architecture_gets_its_own_attention_and_adapters(tmp_path):
    """Bloom has no sdpa, and GPT-2 no linear layer of LLaMA's names."""
    sizes = {"vocab_size": VOCABULARY, "n_layer": 1, "n_head": 2, "bos_token_id": 0, "eos_token_id": 0}
    for config, kind, modules in (
        (BloomConfig(**sizes, hidden_size=8), "eager", {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}),
        (GPT2Config(**sizes, n_embd=8, n_positions=16), "sdpa", {"c_attn", "c_proj", "c_fc"}),
    ):
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / config.model_type)
        at = Language(path=str(tmp_path / config.model_type))
        model = at.build(VOCABULARY, Adapter(rank=2, alpha=4.0, modules=None))
        assert model.net.config._attn_implementation == kind
        learning = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        assert {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in learning} == modules
        named = at.build(VOCABULARY, Adapter(rank=2, alpha=4.0, modules=sorted(modules)))
        assert [name for name, parameter in named.named_parameters() if parameter.requires_grad] == learning
    with pytest.raises(InputError, match="no linear layer 'q_proj'; there are c_attn, c_fc, c_proj, lm_head"):
        at.build(VOCABULARY, Adapter())


def test_modules_that_are_not_there_are_named():
    with pytest.raises(InputError, match=r"no linear layer 'query'; there are .*q_proj"):
        language().build(VOCABULARY, Adapter(modules=["q_proj", "query"]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Language(kind="gpt"), "kind must be llama or qwen2"),
        (lambda: Language(heads=3), "heads must divide hidden"),
        (lambda: Language(dtype="float64"), "dtype must be"),
        (lambda: Language(quantize="4bit"), "give task.language.path"),
        (lambda: Language(path="x", quantize="4bit", shard="fsdp"), "give quantize or shard"),
        (lambda: Adapter(rank=0), "task.adapter.rank must be at least 1"),
        (lambda: Adapter(modules=[]), "task.adapter.modules must name one or more"),
    ],
)
def test_impossible_options_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="is no model of transformers' format"):
        Language(path=str(tmp_path)).base(VOCABULARY)


def test_a_folder_is_looked_through_before_it_is_loaded(tmp_path):
    (tmp_path / "config.json").write_text('{"attn_implementation": "somebody/kernels"}')
    for ask in (lambda: Language(path=str(tmp_path)).base(VOCABULARY), lambda: load_tokenizer(tmp_path)):
        with pytest.raises(InputError, match="which is code on the hub"):
            ask()


def test_adapters_that_lead_back_to_themselves_are_refused(tmp_path):
    for name, base in (("a", tmp_path / "b"), ("b", tmp_path / "a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    with pytest.raises(InputError, match="which leads back to them"):
        Language(path=str(tmp_path / "a")).recipe()


def test_a_folder_that_lacks_weights_is_refused(tmp_path):
    """transformers would draw those that are missing at random, and take what is not said to be a model of billions."""
    folder = write_model(tmp_path / "model")
    weights, config = folder / "model.safetensors", folder / "config.json"
    whole, said = load_file(weights), config.read_bytes()
    save_file({name: value for name, value in whole.items() if name != "lm_head.weight"}, weights, {"format": "pt"})
    with pytest.raises(InputError, match=r"lacks weights that its config\.json speaks of: lm_head\.weight$"):
        Language(path=str(folder)).base(512)
    save_file(whole, weights, {"format": "pt"})
    config.write_bytes(said.replace(b"intermediate_size", b"intermediate_sise"))
    with pytest.raises(InputError, match=r"has a config\.json of .* weights, and files of .* bytes"):
        Language(path=str(folder)).base(512)
    config.write_bytes(said)
    assert Language(path=str(folder)).base(512).lm_head.weight.equal(whole["lm_head.weight"])


# --- pooled states ----------------------------------------------------------------------------------------------------


def test_later_tokens_weigh_more():
    """Two tokens, (1, 0) and (0, 1): a third and two thirds; what is padded counts nothing, wherever it is."""
    states = torch.tensor([[[1.0, 0], [0, 1], [9, 9]], [[7, 7], [1, 0], [0, 1]], [[5, 3], [8, 8], [8, 8]]])
    present = torch.tensor([[1, 1, 0], [0, 1, 1], [1, 0, 0]])
    expected = torch.tensor([[1 / 3, 2 / 3], [1 / 3, 2 / 3], [5, 3]])
    torch.testing.assert_close(pooled(states, present), expected)


def states_of(model: LanguageModel, samples: range | list[int], layers: list[int], **padding: int) -> Tensor:
    ids = batch_of(samples, **padding)["input_ids"]
    lengths = torch.tensor([LENGTHS[i] for i in samples])
    return model.pooled_states(ids, (torch.arange(ids.shape[1]) < lengths[:, None]).long(), layers)


@torch.no_grad()
def test_pooled_states_are_the_bases_alone_and_unpadded():
    model, everybody = model_of(), range(len(LENGTHS))
    found = states_of(model, everybody, [-1, 1], pad=7, width=40)
    one_by_one = torch.cat([states_of(model, [i], [-1, 1]) for i in everybody])
    torch.testing.assert_close(found, one_by_one)
    torch.testing.assert_close(found.view(len(LENGTHS), 2, -1).norm(dim=2), torch.ones(len(LENGTHS), 2))

    base = language().build(VOCABULARY, Adapter(rank=4, alpha=16.0)).without_adapters().base_model.eval()
    for i in everybody:  # token by token, from the base as transformers has it
        seen = base(input_ids=tokens(LENGTHS[i], i)[0][None], output_hidden_states=True)
        for place, states in enumerate((seen.last_hidden_state[0], seen.hidden_states[1][0])):
            mean = sum((t + 1) * state for t, state in enumerate(states)) / sum(range(1, LENGTHS[i] + 1))
            torch.testing.assert_close(found[i].view(2, -1)[place], mean / mean.norm(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", [3, -4])
def test_a_layer_that_is_not_there_is_refused(layer):
    with pytest.raises(InputError, match=rf"features.layers: there is no layer {layer}; there are 0 .* to 2"):
        states_of(model_of(), [0], [layer])
