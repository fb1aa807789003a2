"""What a language model is worth: the loss of held-out answers, the choice among options, answers word for word."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tarot.common import Count, check_options
from tasks.instruction.harness import refuse_unknown
from tasks.instruction.model import LanguageModel
from tasks.instruction.reading import Row
from tasks.instruction.targets import exact_match
from tasks.instruction.tokens import IGNORE, Tokenized, collate, token_batches

Tokenize = Callable[[list[Row]], Tokenized]


@dataclass(frozen=True)
class Evaluation:
    """generate: answers are written, the likeliest token after another, and compared with the expected ones. choose:
    rows that have options are answered by the likeliest. Rows with options are not asked to write.
    limit: most tokens of an answer that is written. tokens: most in a batch, with padding.
    harness: what lm-eval is asked for besides, mmlu or bbh (`tasks.instruction.harness`); harness_limit: most questions
    of it per subject; harness_length: most tokens of one with its examples and its answer.
    """

    generate: bool = True
    choose: bool = True
    limit: Count = 64
    tokens: Count = 8192
    harness: Sequence[str] = ()
    harness_limit: Count | None = None
    harness_length: Count = 4096

    def __post_init__(self) -> None:
        check_options(self, "task.evaluation")
        object.__setattr__(self, "harness", tuple(self.harness))
        refuse_unknown(self.harness)

    def recipe(self) -> dict[str, Any]:
        """What determines the metrics, as plain data."""
        kept = {key: value for key, value in asdict(self).items() if key != "tokens"}
        return {**kept, "harness": list(self.harness)}


def is_right(text: str, row: Row) -> bool:
    """Whether what was written is the answer: word for word, or, where a row says what its answer comes to after some
    reasoning, by that (`exact_match`)."""
    if row.answer is not None:
        return exact_match(text, row.answer)
    return text.split() == row.expected.split()


def metrics(
    model: LanguageModel,
    data: Tokenized,
    tokenizer: PreTrainedTokenizerBase,
    tokenize: Tokenize,
    evaluation: Evaluation,
    stops: Sequence[int],
    pad: int,
) -> dict[str, float]:
    """Of held-out conversations: `accuracy` of the choice among options where there are some, `exact_match` of what is
    written, `loss` per token of an answer (each answer counts the same), then each by group.

    tokenize: rows as the model reads them. stops: tokens that end an answer. Rows that were cut so that they lost their
    last answer do not count for `exact_match`.
    """
    model.eval()
    chooses = np.array([evaluation.choose and bool(row.options) for row in data.rows])
    by_row: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # metric -> (places, values)
    if chooses.any():
        places = chooses.nonzero()[0]
        options = [data.rows[i] for i in places]
        by_row["accuracy"] = places, choices(model, options, tokenize, evaluation.tokens, pad)
    whole = np.array([has_last_answer(data, i) for i in range(len(data))])
    if evaluation.generate and (whole & ~chooses).any():
        places = (whole & ~chooses).nonzero()[0]
        texts = written(model, prompts(data.take(places)), tokenizer, evaluation, stops, pad)
        right = [is_right(text, data.rows[i]) for i, text in zip(places, texts, strict=True)]
        by_row["exact_match"] = places, np.array(right, dtype=float)
    by_row["loss"] = np.arange(len(data)), answer_losses(model, data, evaluation.tokens, pad)
    result = {name: float(values.mean()) for name, (_, values) in by_row.items()}
    groups = data.groups
    for name, (places, values) in by_row.items():
        for group in dict.fromkeys(groups[places].tolist()):
            if group:
                result[f"{name}/{group}"] = float(values[groups[places] == group].mean())
    return result


@torch.no_grad()
def answer_losses(model: LanguageModel, data: Tokenized, budget: int, pad: int, *, total: bool = False) -> np.ndarray:
    """Of each sample, its mean over learned tokens, or their sum (`total`), float64 [n]; `budget` tokens a batch."""
    result = np.zeros(len(data))
    for places, batch in _batches(model, data, budget, pad):
        by_token = model.token_losses(batch["input_ids"], batch["labels"]).double()
        learned = (batch["labels"][:, 1:] != IGNORE).sum(1).clamp(min=1)
        result[places] = (by_token.sum(1) / (1 if total else learned)).cpu().numpy()
    return result


def choices(model: LanguageModel, rows: list[Row], tokenize: Tokenize, budget: int, pad: int) -> np.ndarray:
    """1 where the likeliest of a row's options is the right one, else 0, float64 [n]; of equals the first is taken."""
    asked = [_with_answer(row, option, k) for row in rows for k, option in enumerate(row.options)]
    losses = iter(answer_losses(model, tokenize(asked), budget, pad, total=True).tolist())
    right = []
    for row in rows:
        taken = min((next(losses), k) for k in range(len(row.options)))[1]
        right.append(row.options[taken].strip() == row.messages[-1][1].strip().removeprefix(row.prefill).strip())
    return np.array(right, dtype=float)


def _with_answer(row: Row, option: str, number: int) -> Row:
    role = row.messages[-1][0]
    return replace(row, id=f"{row.id}#{number}", messages=(*row.messages[:-1], (role, f"{row.prefill}{option}")))


def prompts(data: Tokenized) -> list[Tensor]:
    """What comes before the last answer of each conversation, tokens int64 [L]."""
    samples = (data[i] for i in range(len(data)))
    return [sample["input_ids"][: answer_start(sample["labels"])] for sample in samples]


def written(
    model: LanguageModel,
    prompts: list[Tensor],
    tokenizer: PreTrainedTokenizerBase,
    evaluation: Evaluation,
    stops: Sequence[int],
    pad: int,
) -> list[str]:
    """What the model goes on with after each prompt."""
    device = next(model.parameters()).device
    texts = [""] * len(prompts)
    for places in token_batches([len(ids) + evaluation.limit for ids in prompts], evaluation.tokens):
        width = max(len(prompts[i]) for i in places)
        ids = torch.full((len(places), width), pad)
        mask = torch.zeros_like(ids)
        for row, i in enumerate(places):
            ids[row, width - len(prompts[i]) :] = prompts[i]
            mask[row, width - len(prompts[i]) :] = 1
        found = model.generate(ids.to(device), mask.to(device), evaluation.limit, stops, pad)
        for i, text in zip(places, tokenizer.batch_decode(found, skip_special_tokens=True), strict=True):
            texts[i] = text
    return texts


def has_last_answer(data: Tokenized, index: int) -> bool:
    """Whether a conversation's last answer, or its beginning, is within the context."""
    return not data.cut[index] or len(_answer_starts(data[index]["labels"])) == data.rows[index].answers


def answer_start(labels: Tensor) -> int:
    """Where the last run of learned tokens begins; at least 1, since something must be said before it."""
    return max(1, int(_answer_starts(labels)[-1]))


def _answer_starts(labels: Tensor) -> Tensor:
    """Where runs of learned tokens begin, int64 [answers]."""
    learned = (labels != IGNORE).int()
    return (learned.diff(prepend=learned.new_zeros(1)) == 1).nonzero()[:, 0]


def _batches(
    model: LanguageModel, data: Tokenized, budget: int, pad: int
) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
    device, joined = next(model.parameters()).device, collate(pad)
    for places in token_batches(data.lengths, budget):
        batch = joined([data[i] for i in places])
        yield places, {name: tensor.to(device) for name, tensor in batch.items()}
