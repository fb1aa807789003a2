"""A tokenizer trained on the spot: byte-level BPE, so that no text is unknown, in which every digit is a token."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from tarot import InputError
from tasks.common.cache import kept
from tasks.instruction.refusals import reason, refuse_no_folder
from tasks.instruction.template import TAGS

PAD, BEGIN, END = "<pad>", "<s>", "</s>"
SMALLEST = 256 + 3 + len(TAGS)  # bytes, special tokens, tags


def train_tokenizer(texts: Iterable[str], vocabulary: int = 512, *, most: int = 2_000_000) -> PreTrainedTokenizerFast:
    """The same texts give the same tokenizer. `vocabulary`: all tokens, or fewer where texts are short.
    most: it learns from as many of the texts as have so many characters.

    Tags of the template are tokens of their own, which are text all the same. Like LLaMA's it begins every text with a
    token. Raises InputError below the smallest vocabulary.
    """
    if vocabulary < SMALLEST:
        raise InputError(f"vocabulary must be at least {SMALLEST} (bytes, special tokens, tags); it is {vocabulary}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(TAGS),
        special_tokens=[PAD, BEGIN, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_first(texts, most), trainer)
    tokenizer.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in TAGS])
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[(BEGIN, tokenizer.token_to_id(BEGIN))]),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, bos_token=BEGIN, eos_token=END)


def _first(texts: Iterable[str], most: int) -> Iterator[str]:
    for text in texts:
        yield text
        most -= len(text)
        if most <= 0:
            return


def cached_tokenizer(path: Path, make: Callable[[], PreTrainedTokenizerBase]) -> PreTrainedTokenizerBase:
    """The tokenizer in the folder `path`, or a new one that is saved there; others that want it wait."""

    def save(folder: Path) -> None:
        make().save_pretrained(folder)

    return kept(path, save, load_tokenizer, folder=True)


def load_tokenizer(name: str | Path, option: str = "task.tokenizer") -> PreTrainedTokenizerBase:
    """By a local folder, or by its name on the hub. option: that says it.

    Raises InputError where there is none, or it cannot say which characters its tokens stand for.
    """
    refuse_no_folder(name, option)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(name), trust_remote_code=False)
    except Exception as error:  # whatever a broken folder makes the library come upon
        raise InputError(f"{option}: no tokenizer can be loaded from {name}: {reason(error)}") from error
    if not tokenizer.is_fast:
        raise InputError(f"the tokenizer {name} has no fast version, which says which characters a token stands for")
    return tokenizer


def identity(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of all that decides which tokens a text becomes, and which of them are special. How a call of it last cut
    or filled up texts does not count."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return hashlib.sha256(json.dumps([backend, special], sort_keys=True).encode()).hexdigest()


def with_blanks(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The same, saying of every token all the characters that it stands for. Some (GPT-NeoX's, RoBERTa's) leave blanks
    out of that, so that a line's indentation seems to stand for nothing."""
    processor = tokenizer.backend_tokenizer.post_processor
    if processor is None or b'"trim_offsets":true' not in processor.__getstate__():
        return tokenizer
    return _with_blanks(tokenizer, len(tokenizer))


@lru_cache(maxsize=4)
def _with_blanks(tokenizer: PreTrainedTokenizerBase, _: int) -> PreTrainedTokenizerBase:
    """The number of its tokens is there so that one to which some are added is made again."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    told = json.dumps(state["post_processor"]).replace('"trim_offsets": true', '"trim_offsets": false')
    exact = copy.deepcopy(tokenizer)
    whole = Tokenizer.from_str(json.dumps(state | {"post_processor": json.loads(told)}))
    exact.backend_tokenizer.post_processor = whole.post_processor
    return exact


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """What fills up a batch: the padding token, or the end token where there is none (LLaMA), or where the padding
    token was added after all others, so that the language may not know it. It is never seen: padded places are masked
    from attention and from the loss."""
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    if pad is None and end is None:
        raise InputError("the tokenizer has neither a padding token nor an end token; give it one (eos_token)")
    if pad is None or (end is not None and pad > max(end, tokenizer.vocab_size - 1)):
        return int(end)
    return int(pad)
