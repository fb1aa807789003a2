"""What a language is not made for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

from torch import nn
from transformers import PreTrainedTokenizerBase

from tarot import InputError
from tasks.instruction.model import LanguageModel
from tasks.instruction.tokens import Tokenized


class Extent(NamedTuple):
    """The highest token of conversations, and how many tokens the longest of them has."""

    token: int
    length: int

    @classmethod
    def of(cls, splits: Iterable[Tokenized]) -> Extent:
        found = [(int(split.tokens.max(initial=0)), int(split.lengths.max(initial=0))) for split in splits]
        return cls(max(token for token, _ in found), max(length for _, length in found))


def refuse_beyond(
    model: LanguageModel, tokenizer: PreTrainedTokenizerBase, extent: Extent, needed: Sequence[int]
) -> None:
    """Raises InputError where the language does not know a token that occurs or is needed besides, or where a
    conversation is longer than its context."""
    known = cast("nn.Embedding", model.causal.get_input_embeddings()).num_embeddings
    highest = max(*needed, extent.token)
    if highest >= known:  # a tokenizer may have more tokens, as long as they do not occur, and a language, too
        raise InputError(
            f"the conversations hold the token {tokenizer.convert_ids_to_tokens(highest)!r}, number "
            f"{highest:,}, and the language knows {known:,}: give the tokenizer that it was trained with "
            "(task.tokenizer=null)"
        )
    context = getattr(model.causal.config, "max_position_embeddings", None)
    if context is not None and extent.length > context:
        raise InputError(
            f"a conversation has {extent.length:,} tokens, the language's context {context:,}: lower task.max_length, "
            "or make the language with a larger context (task.language.context)"
        )
