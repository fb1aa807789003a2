"""Conversations as tokens: what the model reads, and which of it is learned; batches of them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tarot import InputError
from tarot.gradients import batches_by_cost
from tasks.instruction.reading import NAMED, BadRowError, Row
from tasks.instruction.rendered import Rendered
from tasks.instruction.template import Template
from tasks.instruction.tokenizer import with_blanks

log = logging.getLogger("tarot")
IGNORE = -100  # the label of a token that is not learned
Sample = dict[str, Tensor]
_AT_ONCE = 2048  # rows given to the tokenizer together


@dataclass(frozen=True, eq=False)
class Tokenized:
    """[i] -> {"input_ids": int64 [L], "labels": int64 [L]}, where labels are the ids, or IGNORE where not learned.

    rows: the conversations that are left. starts: int64 [n + 1], sample i is at starts[i]:starts[i + 1] of ids int32
    and learned bool. cut: bool [n], whether a row was longer than the context. dropped: ids of rows that were left out
    because no answer was within it. refused: what was wrong with those that the template could not write.
    """

    rows: tuple[Row, ...]
    starts: np.ndarray
    tokens: np.ndarray
    learned: np.ndarray
    cut: np.ndarray
    dropped: tuple[str, ...] = ()
    refused: tuple[BadRowError, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        place = slice(self.starts[index], self.starts[index + 1])
        ids = torch.from_numpy(self.tokens[place].astype(np.int64))
        return {"input_ids": ids, "labels": ids.masked_fill(torch.from_numpy(~self.learned[place]), IGNORE)}

    @property
    def ids(self) -> list[str]:
        return [row.id for row in self.rows]

    @property
    def tags(self) -> np.ndarray:
        return np.array([row.tag for row in self.rows], dtype=np.str_)

    @property
    def groups(self) -> np.ndarray:
        return np.array([row.group for row in self.rows], dtype=np.str_)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sample, int64 [n]."""
        return np.diff(self.starts)

    @property
    def answer_lengths(self) -> np.ndarray:
        """Learned tokens of each sample, int64 [n]."""
        return np.diff(np.concatenate([[0], np.cumsum(self.learned)])[self.starts])

    @property
    def truncated(self) -> int:
        """How many rows were longer than the context."""
        return int(self.cut.sum())

    def left_out(self, max_length: int) -> Counter[str]:
        """Why rows were left out, and how many."""
        beyond = Counter({f"without an answer within {max_length} tokens": len(self.dropped)})
        return +(beyond + Counter(error.reason for error in self.refused))

    def say(self, name: str, max_length: int) -> None:
        """To the log: how many rows, called `name`, were cut, are without an answer within the length, or could not be
        written by the template, and the first of these."""
        if self.truncated:
            log.warning("%d of %d %s were cut to %d tokens", self.truncated, len(self), name, max_length)
        if self.dropped:
            log.warning("%d %s have no answer within %d tokens and are left out", len(self.dropped), name, max_length)
        if self.refused:
            log.warning("warning: %d %s cannot be written by the template and are left out:", len(self.refused), name)
        for error in self.refused[:NAMED]:
            log.warning("    %s", error)

    def take(self, indices: Sequence[int] | np.ndarray) -> Tokenized:
        """These samples alone, in this order; an index may come more than once."""
        chosen = [range(len(self))[int(i)] for i in indices]
        places = [slice(self.starts[i], self.starts[i + 1]) for i in chosen]
        return _joined(
            [self.rows[i] for i in chosen],
            [self.tokens[place] for place in places],
            [self.learned[place] for place in places],
            [bool(self.cut[i]) for i in chosen],
        )

    def __add__(self, other: Tokenized) -> Tokenized:
        """These samples and then the others."""
        return Tokenized(
            self.rows + other.rows,
            np.concatenate([self.starts, other.starts[1:] + self.starts[-1]]),
            np.concatenate([self.tokens, other.tokens]),
            np.concatenate([self.learned, other.learned]),
            np.concatenate([self.cut, other.cut]),
            self.dropped + other.dropped,
            self.refused + other.refused,
        )


def tokenize(
    rows: Sequence[Row],
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    *,
    max_length: int = 2048,
    nothing_left: str = "raise",
) -> Tokenized:
    """The rows' first `max_length` tokens.

    A token is learned where the text it stands for begins in a learned span (blanks before it aside). nothing_left:
    what becomes of a row without a learned token in its context that the model could predict, and of one that the
    template cannot write: "raise", or "drop".

    Raises InputError for such a row, naming it, and where no row is left.
    """
    if nothing_left not in ("raise", "drop"):
        raise InputError(f"nothing_left must be 'raise' or 'drop'; it is {nothing_left!r}")
    if max_length < 2:
        raise InputError(f"max_length must be at least 2; it is {max_length}")
    kept, tokens, learned, cut, dropped = [], [], [], [], []
    refused: list[BadRowError] = []
    for start in range(0, len(rows), _AT_ONCE):
        some, rendered = [], []
        for row in rows[start : start + _AT_ONCE]:
            try:
                rendered.append(template(row))
                some.append(row)
            except BadRowError as error:
                if nothing_left == "raise":
                    raise
                refused.append(error)
        for row, (ids, mask) in zip(some, _encode(rendered, tokenizer), strict=True):
            if mask[1:max_length].any():
                kept.append(row)
                tokens.append(ids[:max_length])
                learned.append(mask[:max_length])
                cut.append(len(ids) > max_length)
            elif nothing_left == "drop":
                dropped.append(row.id)
            else:
                raise InputError(
                    f"{row.where or f'row {row.id}'}: {len(ids):,} tokens, of which the first {max_length:,} hold no "
                    "answer, so there is nothing left to learn; raise max_length, or drop such rows "
                    "(nothing_left=drop)"
                )
    if not kept:
        first = f"; {len(refused)} cannot be written, such as {refused[0]}" if refused else ""
        advice = "raise task.max_length"
        raise InputError(f"none of {len(rows)} rows has an answer within {max_length} tokens{first}; {advice}")
    return _joined(kept, tokens, learned, cut, tuple(dropped), tuple(refused))


def _encode(rendered: Sequence[Rendered], tokenizer: PreTrainedTokenizerBase) -> list[tuple[np.ndarray, np.ndarray]]:
    """(tokens int32 [L], learned bool [L]) of each text."""
    tokenizer = with_blanks(tokenizer)
    encoded: list = [None] * len(rendered)
    for whole in (False, True):
        places = [i for i, one in enumerate(rendered) if one.whole == whole]
        if not places:
            continue
        found = tokenizer(
            [rendered[i].text for i in places],
            add_special_tokens=not whole,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )
        for i, ids, offsets in zip(places, found["input_ids"], found["offset_mapping"], strict=True):
            encoded[i] = (np.array(ids, dtype=np.int32), learned_tokens(rendered[i], offsets))
    return encoded


def learned_tokens(rendered: Rendered, offsets: Sequence[tuple[int, int]]) -> np.ndarray:
    """Which tokens are learned, bool [L]: those that begin in a span. Blanks before a span do not count, since some
    tokenizers put the blank between two words into the token of the second; tokens of no text are not learned."""
    places = np.array(offsets, dtype=np.int64).reshape(-1, 2)
    learned = np.zeros(len(places), dtype=bool)
    for start, stop in rendered.spans:
        reach = start - (len(rendered.text[:start]) - len(rendered.text[:start].rstrip()))
        learned |= (places[:, 0] >= reach) & (places[:, 1] > start) & (places[:, 0] < stop)
    return learned & (places[:, 1] > places[:, 0])


def _joined(
    rows: list[Row],
    tokens: list,
    learned: list,
    cut: list,
    dropped: tuple[str, ...] = (),
    refused: tuple[BadRowError, ...] = (),
) -> Tokenized:
    starts = np.concatenate([[0], np.cumsum([len(ids) for ids in tokens], dtype=np.int64)]).astype(np.int64)
    none = [np.zeros(0, dtype=np.int32)]
    return Tokenized(
        tuple(rows),
        starts,
        np.concatenate(none + tokens).astype(np.int32),
        np.concatenate(none + learned).astype(bool),
        np.array(cut, dtype=bool),
        dropped,
        refused,
    )


def collate(pad_id: int) -> Callable[[Sequence[Sample]], dict[str, Tensor]]:
    """Samples -> {"input_ids", "attention_mask", "labels"}, int64 [B, L], filled up on the right."""
    return partial(_padded, pad_id)


def _padded(pad_id: int, samples: Sequence[Sample]) -> dict[str, Tensor]:
    def fill(name: str, value: int) -> Tensor:
        parts = [sample[name] for sample in samples]
        return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=value)

    present = [torch.ones_like(sample["input_ids"]) for sample in samples]
    return {
        "input_ids": fill("input_ids", pad_id),
        "attention_mask": torch.nn.utils.rnn.pad_sequence(present, batch_first=True, padding_value=0),
        "labels": fill("labels", IGNORE),
    }


def token_batches(
    lengths: Sequence[int] | np.ndarray, budget: int, generator: torch.Generator | None = None
) -> list[list[int]]:
    """Every position once, in batches of similar length that hold at most `budget` tokens with their padding (or one
    longer sample). With a generator, samples of the same length and the batches are shuffled; without, ascending."""
    if budget < 1:
        raise InputError(f"a batch's budget of tokens must be positive; it is {budget}")
    lengths = np.asarray(lengths)
    order = torch.randperm(len(lengths), generator=generator).numpy() if generator else np.arange(len(lengths))
    batches = [order[batch].tolist() for batch in batches_by_cost(lengths[order].tolist(), budget)]
    if generator is None:
        return batches
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
