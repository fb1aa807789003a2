"""What a language is not made for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import nn
from transformers import PreTrainedTokenizerBase

from tarot import InputError
from tasks.instruction.model import LanguageModel
from tasks.instruction.tokens import Tokenized


def refuse_beyond(
    model: LanguageModel, tokenizer: PreTrainedTokenizerBase, splits: Sequence[Tokenized], needed: Sequence[int]
) -> None:
    """Raises InputError where the language does not know a token that occurs or is needed besides, or where a
    conversation is longer than its context."""
    known = cast("nn.Embedding", model.causal.get_input_embeddings()).num_embeddings
    highest = max(*needed, *(int(split.tokens.max(initial=0)) for split in splits))
    if highest >= known:  # a tokenizer may have more tokens, as long as they do not occur, and a language, too
        raise InputError(
            f"the conversations hold the token {tokenizer.convert_ids_to_tokens(highest)!r}, number "
            f"{highest:,}, and the language knows {known:,}: give the tokenizer that it was trained with "
            "(task.tokenizer=null)"
        )
    context = getattr(model.causal.config, "max_position_embeddings", None)
    longest = max(int(split.lengths.max(initial=0)) for split in splits)
    if context is not None and longest > context:
        raise InputError(
            f"a conversation has {longest:,} tokens, the language's context {context:,}: lower task.max_length, "
            "or make the language with a larger context (task.language.context)"
        )
