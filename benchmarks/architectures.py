"""Gradient features of widely used architectures beside a plain forward and backward pass, and beside the loop.

    python benchmarks/architectures.py                       # every architecture, all parameters and LoRA
    python benchmarks/architectures.py llama vit --size tiny # some of them, small: seconds
    python benchmarks/architectures.py --log rows.jsonl      # rows that are there are kept, the others are added

Models are made from their configurations with random weights; nothing is downloaded. For each it prints the parameters,
the share of them whose gradient comes by a rule in the one pass of the batch, the relative error to one backward pass
per sample, projected alike, in float32, and processor seconds of features as a multiple of a plain pass in which the
same parameters learn: the medians of rounds in which both took turns, on one thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tarot.gradients import GradientFeatures, Projection, evaluating, loop_gradients, plan, take

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Size:
    """How large models and batches are made."""

    width: int
    layers: int
    heads: int
    tokens: int
    vocabulary: int
    image: int
    batch: int


SIZES = {
    "tiny": Size(width=32, layers=2, heads=2, tokens=12, vocabulary=64, image=64, batch=3),
    "small": Size(width=256, layers=2, heads=4, tokens=128, vocabulary=2048, image=96, batch=8),
}


@dataclass(frozen=True)
class Architecture:
    """kind: what a batch of it is and what its loss, one of `BATCHES`. adapters: where LoRA goes; none if empty."""

    kind: str
    make: Callable[[Size], nn.Module]
    adapters: str | list[str] = ""


@dataclass(frozen=True)
class Row:
    name: str
    learning: str
    parameters: int
    by_rule: float
    error: float
    ratio: float
    plain_ms: float


# --- architectures ---------------------------------------------------------------------------------------------------


def of_config(kind: str, auto: str = "AutoModelForCausalLM", **changes: Any) -> Callable[[Size], nn.Module]:
    """A model of transformers by its model type. changes: settings of the configuration, or functions of the size."""

    def make(size: Size) -> nn.Module:
        import transformers

        settings = {
            "hidden_size": size.width,
            "intermediate_size": 2 * size.width,
            "num_hidden_layers": size.layers,
            "num_attention_heads": size.heads,
            "num_key_value_heads": size.heads // 2,
            "vocab_size": size.vocabulary,
            "max_position_embeddings": 2 * size.tokens,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        }
        for name, value in changes.items():
            settings[name] = value(size) if callable(value) else value
        config = transformers.AutoConfig.for_model(kind, **settings)
        model: nn.Module = getattr(transformers, auto).from_config(config)
        return model

    return make


def of_torchvision(name: str, **options: Any) -> Callable[[Size], nn.Module]:
    def make(size: Size) -> nn.Module:
        import torchvision

        changes = {key: value(size) if callable(value) else value for key, value in options.items()}
        model: nn.Module = torchvision.models.get_model(name, weights=None, **{"num_classes": 10, **changes})
        return model

    return make


def head_width(size: Size) -> int:
    return size.width // size.heads


def width(size: Size) -> int:
    return size.width


def language(kind: str, **changes: Any) -> Architecture:
    return Architecture("language", of_config(kind, **changes), "all-linear")


def encoder(kind: str, **changes: Any) -> Architecture:
    return Architecture("text", of_config(kind, "AutoModelForSequenceClassification", **changes), "all-linear")


def images(name: str, **options: Any) -> Architecture:
    return Architecture("images", of_torchvision(name, **options))


EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": width}

ARCHITECTURES: dict[str, Architecture] = {
    "llama": language("llama"),
    "mistral": language("mistral"),
    "qwen2": language("qwen2"),
    "qwen3": language("qwen3", head_dim=head_width),
    "gemma": language("gemma", head_dim=head_width),
    "gemma2": language("gemma2", head_dim=head_width),
    "gemma3": language("gemma3_text", head_dim=head_width),
    "phi3": language("phi3"),
    "olmo2": language("olmo2"),
    "smollm3": language("smollm3"),
    "mixtral": language("mixtral", num_local_experts=4),
    "qwen3_moe": language("qwen3_moe", head_dim=head_width, num_experts=4, **EXPERTS),
    "deepseek_v3": language(
        "deepseek_v3",
        n_routed_experts=4,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=1,
        q_lora_rank=lambda size: size.width // 2,
        kv_lora_rank=lambda size: size.width // 2,
        qk_rope_head_dim=head_width,
        qk_nope_head_dim=head_width,
        v_head_dim=head_width,
        num_key_value_heads=lambda size: size.heads,
        **EXPERTS,
    ),
    "gpt2": language("gpt2"),
    "gpt_neox": language("gpt_neox"),
    "opt": language("opt", ffn_dim=lambda size: 2 * size.width, word_embed_proj_dim=width),
    "bloom": language("bloom"),
    "falcon": language("falcon"),
    "bert": encoder("bert"),
    "roberta": encoder("roberta", max_position_embeddings=lambda size: 2 * size.tokens + 2),
    "distilbert": encoder("distilbert", dim=width, hidden_dim=lambda size: 2 * size.width, n_layers=2),
    "deberta_v2": encoder("deberta-v2", relative_attention=True, pos_att_type=["p2c", "c2p"]),
    "t5": Architecture(
        "translation",
        of_config(
            "t5",
            "AutoModelForSeq2SeqLM",
            d_model=width,
            d_kv=head_width,
            d_ff=lambda size: 2 * size.width,
            num_layers=lambda size: size.layers,
            num_heads=lambda size: size.heads,
            decoder_start_token_id=0,
        ),
        "all-linear",
    ),
    "vit": Architecture(
        "hub images",
        of_config("vit", "AutoModelForImageClassification", image_size=lambda size: size.image, patch_size=16),
        "all-linear",
    ),
    "resnet18": images("resnet18"),
    "resnet50": images("resnet50"),
    "vgg11_bn": images("vgg11_bn"),
    "densenet121": images("densenet121"),
    "mobilenet_v3": images("mobilenet_v3_small"),
    "efficientnet_b0": images("efficientnet_b0"),
    "regnet_y_400mf": images("regnet_y_400mf"),
    "convnext_tiny": images("convnext_tiny"),
    "vit_b_16": images("vit_b_16", image_size=lambda size: size.image),
    "swin_t": images("swin_t"),
    "deeplabv3": Architecture("masks", of_torchvision("deeplabv3_mobilenet_v3_large", weights_backbone=None)),
}


# --- batches and losses ----------------------------------------------------------------------------------------------


def batch_of(kind: str, size: Size) -> Batch:
    """Random inputs and labels; texts end in padding of different lengths."""
    if kind in ("images", "hub images", "masks"):
        count = size.batch if kind == "hub images" else (size.batch + 1) // 2
        pictures = torch.randn(count, 3, size.image, size.image)
        of_label = (count, size.image, size.image) if kind == "masks" else (count,)
        return {"pixel_values": pictures, "labels": torch.randint(0, 2, of_label)}
    ids = torch.randint(3, size.vocabulary, (size.batch, size.tokens))
    lengths = size.tokens - torch.arange(size.batch) * size.tokens // (2 * size.batch)
    mask = (torch.arange(size.tokens) < lengths[:, None]).long()
    labels = torch.randint(0, 2, (size.batch,)) if kind == "text" else ids.masked_fill(mask == 0, -100)
    return {"input_ids": ids * mask, "attention_mask": mask, "labels": labels}


def losses_of(kind: str) -> Callable[[nn.Module, Batch], Tensor]:
    """(model, batch) -> [B]"""

    def language(model: nn.Module, batch: Batch) -> Tensor:
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
        by_token = functional.cross_entropy(logits[:, :-1].mT, batch["labels"][:, 1:], reduction="none")
        return by_token.sum(1) / (batch["labels"][:, 1:] != -100).sum(1)

    def translation(model: nn.Module, batch: Batch) -> Tensor:
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        logits = model(**inputs, decoder_input_ids=batch["input_ids"], use_cache=False).logits
        by_token = functional.cross_entropy(logits[:, :-1].mT, batch["labels"][:, 1:], reduction="none")
        return by_token.sum(1) / (batch["labels"][:, 1:] != -100).sum(1)

    def text(model: nn.Module, batch: Batch) -> Tensor:
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return functional.cross_entropy(logits, batch["labels"], reduction="none")

    def images(model: nn.Module, batch: Batch) -> Tensor:
        return functional.cross_entropy(model(batch["pixel_values"]), batch["labels"], reduction="none")

    def hub_images(model: nn.Module, batch: Batch) -> Tensor:
        logits = model(pixel_values=batch["pixel_values"]).logits
        return functional.cross_entropy(logits, batch["labels"], reduction="none")

    def masks(model: nn.Module, batch: Batch) -> Tensor:
        logits = model(batch["pixel_values"])["out"]
        return functional.cross_entropy(logits, batch["labels"], reduction="none").mean((1, 2))

    return {
        "language": language,
        "translation": translation,
        "text": text,
        "images": images,
        "hub images": hub_images,
        "masks": masks,
    }[kind]


def built(name: str, learning: str, size: Size) -> nn.Module:
    """The model in eval mode, with running statistics and adapters as after some training: nothing is zero."""
    architecture = ARCHITECTURES[name]
    torch.manual_seed(0)
    model = architecture.make(size)
    if learning != "all":
        from peft import LoraConfig, get_peft_model

        options = {"r": 8, "target_modules": architecture.adapters, "use_dora": learning == "DoRA"}
        model = get_peft_model(model, LoraConfig(**options))  # type: ignore[arg-type]
    for parameter in model.parameters():
        if parameter.requires_grad and not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return model.eval()


# --- what is measured ------------------------------------------------------------------------------------------------


def relative_error(model: nn.Module, kind: str, batch: Batch, features: GradientFeatures) -> float:
    """Of features to the same projection of the loop's gradients, which are held one sample at a time."""
    losses, count = losses_of(kind), len(batch["labels"])
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}
    layout = plan(features.projection, shapes)
    expected = torch.zeros(count, layout.width)
    for i in range(count):
        for name, gradient in loop_gradients(model, losses, take(batch, i, i + 1)).items():
            expected[i, layout.columns[name]] += layout.sketches[name](gradient.flatten(1))[0]
    return float((features(batch) - expected).norm() / expected.norm())


def share_by_rule(model: nn.Module, features: GradientFeatures) -> float:
    """Of the numbers that learn, in modules that are called."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    how = {name: text for name, text in features.coverage.covered if name in sizes}
    return sum(sizes[n] for n, text in how.items() if not text.startswith("per sample")) / sum(sizes[n] for n in how)


def processor_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def measured(name: str, learning: str, size: Size, kind: str, dim: int, rounds: int) -> Row:
    architecture = ARCHITECTURES[name]
    model = built(name, learning, size)
    batch, losses = batch_of(architecture.kind, size), losses_of(architecture.kind)
    few = {key: value[:2] for key, value in batch.items()}
    projected = GradientFeatures(model, losses, Projection(kind, dim))  # type: ignore[arg-type]
    error = relative_error(model, architecture.kind, few, projected)
    share = share_by_rule(model, projected)

    def plain() -> None:
        model.zero_grad(set_to_none=True)
        with evaluating(model):
            losses(model, batch).mean().backward()

    for warm in (lambda: projected(batch), plain, lambda: projected(batch)):
        warm()
    times = [(processor_seconds(plain), processor_seconds(lambda: projected(batch))) for _ in range(rounds)]
    theirs, ours = (statistics.median(column) for column in zip(*times, strict=True))
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return Row(name, learning, count, share, error, ours / theirs, 1e3 * theirs)


def rows_of(names: list[str], options: argparse.Namespace) -> Iterator[Row]:
    log = Path(options.log) if options.log else None
    known = [json.loads(line) for line in log.read_text().splitlines()] if log and log.exists() else []
    done = {(row["name"], row["learning"]): Row(**row) for row in known}
    for name in names:
        for learning in options.learning:
            if learning != "all" and not ARCHITECTURES[name].adapters:
                continue
            row = done.get((name, learning))
            if row is None:
                row = measured(name, learning, SIZES[options.size], options.kind, options.dim, options.rounds)
                if log:
                    with log.open("a") as file:
                        file.write(json.dumps(asdict(row)) + "\n")
            yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(ARCHITECTURES)}")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--learning", nargs="*", choices=["all", "LoRA", "DoRA"], default=["all", "LoRA"])
    parser.add_argument("--kind", default="tensorsketch")
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--log", help="a file of rows, one a line")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    print(f"1 thread, torch {torch.__version__}, {options.kind}, {options.dim} dims, {options.size} models")
    print("| model | learning | parameters | by rule | error to the loop | features / pass | pass, ms |")
    print("|---|---|---|---|---|---|---|")
    for row in rows_of(options.names or list(ARCHITECTURES), options):
        print(
            f"| {row.name} | {row.learning} | {row.parameters:,} | {row.by_rule:.1%} | {row.error:.0e} "
            f"| {row.ratio:.2f} | {row.plain_ms:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
