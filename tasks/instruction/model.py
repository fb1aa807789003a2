"""Causal language models with LoRA adapters: what of them learns, what they make of tokens, and their state."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    GenerationConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging as transformers_logging

from tarot import InputError
from tarot.common import Count, check_options, files_below, within
from tarot.gradients import shard_frozen
from tarot.workers import team
from tasks.common.contents import hash_named
from tasks.common.model_folders import base_of, refuse_odd_files
from tasks.common.training import seeded
from tasks.instruction.refusals import reason, refuse_no_folder
from tasks.instruction.tokens import IGNORE

_CONFIGS = {"llama": LlamaConfig, "qwen2": Qwen2Config}
_PLAIN_HEADS = ("llama", "mistral", "qwen2", "qwen3")  # logits are head(last hidden state) and nothing else
_WEIGHTS_PER_BYTE = 4  # of files in 2 bits each; nobody keeps fewer

_NOT_WEIGHTS = ("attention", "checkpointing", "shard")  # options by which nothing else is computed

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Adapter:
    """LoRA: a frozen linear layer W x becomes W x + alpha / rank * B A x; A and B alone learn.

    modules: names of the layers, or their ends; null: all that the model has but its head, as peft's `all-linear`.
    """

    rank: Count = 128
    alpha: float = 512.0
    dropout: Annotated[float, within("[0, 1)")] = 0.1
    modules: Sequence[str] | None = ("q_proj", "k_proj", "v_proj", "o_proj")

    def __post_init__(self) -> None:
        check_options(self, "task.adapter")
        if self.modules is None:
            return
        object.__setattr__(self, "modules", tuple(self.modules))
        if not self.modules:
            raise InputError("task.adapter.modules must name one or more, or be null for all")

    def recipe(self) -> dict[str, Any]:
        return {**asdict(self), "modules": None if self.modules is None else list(self.modules)}

    def attach(self, net: PreTrainedModel) -> PeftModel:
        """`net` with adapters, drawn from torch's global generator, and everything else frozen. A is float32 where
        the model is of half precision, as is B. Raises InputError where `modules` names what is not there."""
        self.refuse_unknown(net)
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]  # peft divides it by the rank: no need to be whole
            lora_dropout=self.dropout,
            target_modules="all-linear" if self.modules is None else list(self.modules),
            task_type="CAUSAL_LM",
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers 5 in the words of 4
            return get_peft_model(net, config)

    def refuse_unknown(self, net: PreTrainedModel) -> None:
        """Raises InputError where `modules` names what `net` does not have."""
        linear = [name for name, module in net.named_modules() if isinstance(module, nn.Linear | Conv1D)]
        unknown = [m for m in self.modules or () if not any(name == m or name.endswith(f".{m}") for name in linear)]
        if unknown:
            there = sorted({name.rsplit(".", 1)[-1] for name in linear})
            raise InputError(
                f"task.adapter.modules: {type(net).__name__} has no linear layer {unknown[0]!r}; there are "
                f"{', '.join(there)}"
            )


@dataclass(frozen=True)
class Language:
    """A causal language model, either of given sizes or by name.

    path: a folder in transformers' format, or a name on the hub; null: random weights of the sizes below, which
        pretraining may replace.
    kind: llama or qwen2. hidden, layers, heads, key_heads, intermediate, context: its sizes; a tied head is the
        embedding. seed: of the random weights.
    attention: sdpa or eager, or any that transformers knows; null: what it takes for the model.
    dtype: of the weights, float32 or bfloat16; null: the file's, float32 for random weights.
    quantize: 4bit loads the frozen weights as NF4 (needs bitsandbytes and a GPU); null: as they are.
    checkpointing: activations are computed again in training's backward pass: less memory, a third more time.
    shard: fsdp shares out the frozen weights of the layers over the processes of torchrun, for gradients of models that
        do not fit one GPU; null: every process has them all.
    """

    path: str | None = None
    kind: Literal["llama", "qwen2"] = "llama"
    hidden: Count = 128
    layers: Count = 4
    heads: Count = 4
    key_heads: Count = 2
    intermediate: Count = 384
    context: Count = 512
    tied: bool = True
    seed: int = 0
    attention: str | None = None
    dtype: Literal["float32", "bfloat16"] | None = None
    quantize: Literal["4bit"] | None = None
    checkpointing: bool = False
    shard: Literal["fsdp"] | None = None

    def __post_init__(self) -> None:
        check_options(self, "task.language")
        if self.quantize and self.path is None:
            raise InputError("task.language.quantize is of weights that exist: give task.language.path")
        if self.quantize and self.shard:
            raise InputError("task.language: weights of 4 bits cannot be shared out; give quantize or shard")
        if self.shard and team().size == 1:
            raise InputError(
                "task.language.shard=fsdp shares out weights over several processes, and there is one: "
                "torchrun --nproc-per-node=2 run.py ..."
            )
        if self.hidden % self.heads or self.heads % self.key_heads:
            raise InputError(
                "task.language: heads must divide hidden, and key_heads must divide heads; they are "
                f"{self.heads}, {self.hidden}, {self.key_heads}"
            )

    def recipe(self, cache: Path | None = None) -> dict[str, Any]:
        """What determines the weights and what is computed of them, as plain data. cache: where hashes of files are
        remembered."""
        known = {key: value for key, value in asdict(self).items() if key not in _NOT_WEIGHTS}
        if self.path is None:
            return known
        return {
            "path": Path(self.path).name,
            "dtype": self.dtype,
            "quantize": self.quantize,
            **_identity(self.path, cache),
        }

    def base(self, vocabulary: int, weights: State | None = None) -> PreTrainedModel:
        """The model without adapters, on the CPU. weights: what replaces the random ones, where there is no path."""
        if self.path is not None:
            return self._from_path(self.path)
        config = _CONFIGS[self.kind](
            vocab_size=vocabulary,
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_heads,
            intermediate_size=self.intermediate,
            max_position_embeddings=self.context,
            tie_word_embeddings=self.tied,
            bos_token_id=None,
            eos_token_id=None,
        )
        with seeded(self.seed):
            net = AutoModelForCausalLM.from_config(
                config,
                dtype=getattr(torch, self.dtype or "float32"),
                attn_implementation=self.attention,
                trust_remote_code=False,
            )
        if weights is not None:
            net.load_state_dict(dict(weights))
        return net

    def _from_path(self, path: str) -> PreTrainedModel:
        options: dict[str, Any] = {"dtype": getattr(torch, self.dtype) if self.dtype else "auto"}
        if self.quantize:
            if importlib.util.find_spec("bitsandbytes") is None or not torch.cuda.is_available():
                raise InputError("task.language.quantize=4bit needs a CUDA device and bitsandbytes: pip install it")
            options["quantization_config"] = BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
            )
        try:
            self._refuse_empty(path)
            with _bar_on_terminals_alone():
                found: Any = AutoModelForCausalLM.from_pretrained(
                    path,
                    attn_implementation=self.attention,
                    trust_remote_code=False,
                    output_loading_info=True,
                    **options,
                )
                net, loaded = found
        except (InputError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever a broken folder makes the library come upon
            raise InputError(_unreadable(path, error)) from error
        if lacking := sorted(loaded["missing_keys"]):  # transformers would draw them at random
            raise InputError(
                f"task.language.path: {path!r} lacks weights that its config.json speaks of: {lacking[0]}"
                + (f" and {len(lacking) - 1:,} others" if len(lacking) > 1 else "")
            )
        net.generation_config = GenerationConfig()  # the file's may ask for penalties, where we say nothing
        return prepare_model_for_kbit_training(net, use_gradient_checkpointing=False) if self.quantize else net

    def _refuse_empty(self, path: str) -> None:
        """Raises InputError where a config.json speaks of more weights than the files of its folder can hold, before
        room is made for them: what it does not say, transformers takes to be a model of billions."""
        refuse_odd_files(path)
        if not (Path(path) / "config.json").is_file():
            return
        with torch.device("meta"):
            config = AutoConfig.from_pretrained(path, trust_remote_code=False)
            net = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        said = sum(parameter.numel() for parameter in net.parameters())
        held = sum(file.stat().st_size for file in files_below(path) if file.suffix in (".safetensors", ".bin"))
        if held and said > _WEIGHTS_PER_BYTE * held:
            raise InputError(
                f"task.language.path: {path!r} has a config.json of {said:,} weights, and files of {held:,} bytes, "
                "which cannot hold them; fetch it again"
            )

    def outline(self, vocabulary: int, adapter: Adapter) -> LanguageModel:
        """The names and shapes of a model's parameters, without their values."""
        with torch.device("meta"):
            if self.path is None:
                return LanguageModel(adapter.attach(self.base(vocabulary)), self)
            try:
                config = AutoConfig.from_pretrained(self.path, trust_remote_code=False)
                net = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
            except Exception as error:
                raise InputError(_unreadable(self.path, error)) from error
            return LanguageModel(adapter.attach(net), self)

    def build(
        self, vocabulary: int, adapter: Adapter, weights: State | None = None, base: PreTrainedModel | None = None
    ) -> LanguageModel:
        """A model with fresh adapters from torch's global generator. base: the same language without adapters, where it
        is at hand and nobody else's."""
        net = self.base(vocabulary, weights) if base is None else base
        if self.checkpointing:
            net.gradient_checkpointing_enable({"use_reentrant": False})
        return LanguageModel(adapter.attach(net), self)


class LanguageModel(nn.Module):
    """A causal language model of which adapters learn; its state is theirs alone.

    Sequences are padded on the right, and a causal model never looks there: no attention mask is needed, so what pads a
    sequence, and how far, does not matter, and attention is free to take its fastest kernel.
    """

    def __init__(self, net: PeftModel, language: Language) -> None:
        super().__init__()
        self.net, self.language = net, language
        self.adapters = tuple(name for name, parameter in self.named_parameters() if parameter.requires_grad)

    @property
    def causal(self) -> PreTrainedModel:
        """transformers' own model, its layers with adapters."""
        return cast("PreTrainedModel", self.net.get_base_model())

    def share(self) -> None:
        """Shares out the frozen weights of its layers over all processes; embeddings and head stay whole. Raises
        InputError where the layers are not where transformers' decoders have them."""
        layers = getattr(self.causal.base_model, "layers", None)
        if not isinstance(layers, nn.ModuleList):
            raise InputError(f"task.language.shard: {type(self.causal).__name__} has no list of layers to share out")
        shard_frozen(layers)

    def without_adapters(self) -> PreTrainedModel:
        """What they were attached to, as it was before; this model is not to be used any more."""
        return cast("PreTrainedModel", self.net.unload())

    def forward(self, input_ids: Tensor) -> Tensor:
        """Tokens int64 [B, L] -> logits [B, L, vocabulary]: of the token after each."""
        return self.causal(input_ids=input_ids, use_cache=False).logits

    def hidden(self, input_ids: Tensor) -> Tensor:
        """What the head is given, [B, L, hidden]."""
        return self.causal.base_model(input_ids=input_ids, use_cache=False).last_hidden_state

    def token_losses(self, input_ids: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of each label given the tokens before it, [B, L - 1] float32; 0 where it is ignored.

        The head sees labelled positions alone: with a vocabulary of a hundred thousand the logits of all would be most
        of the memory.
        """
        labels = labels[:, 1:]
        wanted = labels != IGNORE
        head = self.causal.get_output_embeddings()
        if type(head) is nn.Linear and self.causal.config.model_type in _PLAIN_HEADS:
            logits = head(self.hidden(input_ids)[:, :-1][wanted])
        else:
            logits = self(input_ids)[:, :-1][wanted]
        losses = torch.zeros(labels.shape, device=labels.device)
        losses[wanted] = functional.cross_entropy(logits.float(), labels[wanted], reduction="none")
        return losses

    def losses(self, input_ids: Tensor, labels: Tensor) -> Tensor:
        """Each sample's mean loss over its labelled tokens, [B]; 0 where it has none."""
        return self.token_losses(input_ids, labels).sum(1) / (labels[:, 1:] != IGNORE).sum(1).clamp(min=1)

    def embeddings(self, input_ids: Tensor, labels: Tensor) -> Tensor:
        """What the head is given at the labelled tokens, averaged, float32 [B, hidden]."""
        wanted = (labels != IGNORE).float()[..., None]
        return (self.hidden(input_ids).float() * wanted).sum(1) / wanted.sum(1).clamp(min=1)

    def pooled_states(self, input_ids: Tensor, attention_mask: Tensor, layers: Sequence[int]) -> Tensor:
        """RDS (arXiv 2503.01807), of the language without its adapters, float32 [B, layers * hidden]: the mean of a
        layer's states over all tokens of a sequence, the t-th of which weighs t, of unit norm.

        attention_mask: int64 [B, L], 0 where a sequence is padded. layers: places in the list of the embeddings of
        tokens, what each layer makes of them, and, as the last one, what the head is given. Raises InputError for a
        place that the list does not have.
        """
        with self.net.disable_adapter():
            found = self.causal.base_model(input_ids=input_ids, use_cache=False, output_hidden_states=True)
        states = [*found.hidden_states[:-1], found.last_hidden_state]
        for layer in layers:
            if not -len(states) <= layer < len(states):
                raise InputError(
                    f"features.layers: there is no layer {layer}; there are 0 (the embeddings of tokens) to "
                    f"{len(states) - 1} (after the final norm), or -1 to {-len(states)}"
                )
        return torch.cat([functional.normalize(pooled(states[layer], attention_mask)) for layer in layers], dim=1)

    @torch.no_grad()
    def generate(self, input_ids: Tensor, attention_mask: Tensor, limit: int, stops: Sequence[int], pad: int) -> Tensor:
        """The likeliest token after another, with a cache: prompts int64 [B, L], padded on the LEFT -> what follows,
        [B, at most limit]; `pad` after one of the tokens `stops`."""
        config = GenerationConfig(max_new_tokens=limit, do_sample=False, eos_token_id=list(stops), pad_token_id=pad)
        found = self.net.generate(input_ids=input_ids, attention_mask=attention_mask, generation_config=config)
        return found[:, input_ids.shape[1] :]

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The adapters, by name. The frozen weights are the architecture's, not the training's."""
        whole = super().state_dict(*args, **kwargs)
        learnt = {kwargs.get("prefix", "") + name for name in self.adapters}
        for name in [name for name in whole if name not in learnt]:
            del whole[name]
        return whole

    def load_state_dict(self, state_dict: State, strict: bool = True, assign: bool = False) -> Any:
        """Raises InputError where the state is not of these adapters."""
        wrong = sorted(set(state_dict) ^ set(self.adapters))
        if strict and wrong:
            raise InputError(f"the state is of other adapters: {wrong[0]} is in one of them alone")
        return super().load_state_dict(state_dict, strict=False, assign=assign)


def pooled(states: Tensor, present: Tensor) -> Tensor:
    """sum_t t h_t / sum_t t over the tokens that are present, [B, L, d] and [B, L] -> float32 [B, d]; t counts them
    from 1."""
    weights = present.float().cumsum(dim=1) * present
    return (weights[..., None] * states.float()).sum(dim=1) / weights.sum(dim=1, keepdim=True).clamp(min=1)


@contextlib.contextmanager
def _bar_on_terminals_alone() -> Iterator[None]:
    """transformers shows a bar while it loads weights; in a log it would be in the way."""
    hidden = transformers_logging.is_progress_bar_enabled() and not sys.stderr.isatty()
    if hidden:
        transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if hidden:
            transformers_logging.enable_progress_bar()


def refuse_no_model(path: str | None) -> None:
    """Raises InputError where a path is given and a look at its place tells that no model is there."""
    if path is not None:
        refuse_no_folder(path, "task.language.path", "config.json", "adapter_config.json")


def _unreadable(path: str, error: Exception) -> str:
    what = "is no model of transformers' format" if Path(path).is_dir() else "is neither a folder nor on the hub"
    return f"task.language.path: {path!r} {what}: {reason(error)}"


def _identity(path: str, cache: Path | None = None, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """What tells these weights from others. A folder of adapters names the model that they belong to. above: folders
    of adapters that led here. Raises InputError where they lead back to themselves."""
    if not Path(path).is_dir():
        try:
            config: PreTrainedConfig = AutoConfig.from_pretrained(path, trust_remote_code=False)
        except Exception as error:
            raise InputError(_unreadable(path, error)) from error
        return {"commit": getattr(config, "_commit_hash", None), "name": path}
    known = [file for file in files_below(path) if file.suffix in (".safetensors", ".bin", ".json")]
    files = {file.relative_to(path).as_posix(): file for file in known if file.is_file()}
    identity: dict[str, Any] = {"files": hash_named(files, cache)}
    base = base_of(Path(path))
    if base is None:
        return identity
    above = (*above, Path(path).resolve())
    if Path(base).resolve() in above:
        raise InputError(f"{path} holds adapters of a model that is said to be {base!r}, which leads back to them")
    return {**identity, "base": _identity(base, cache, above)}
