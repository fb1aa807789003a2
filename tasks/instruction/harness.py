"""What a language model is worth by `lm-eval`, which papers report: real models, on data that it finds by itself.

MMLU with 5 examples before a question: accuracy of the likeliest letter. BBH with 3 worked examples: exact match of the
answer that follows the reasoning. Both are means over all questions, not over subjects.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from tarot import InputError
from tarot.common import first_line
from tasks.instruction.model import LanguageModel


@dataclass(frozen=True)
class HarnessTask:
    """task: lm-eval's name of it, and of its subtasks' beginning. examples: before a question; null: as the task says.
    metric: what is reported, by lm-eval's name `metric,filter`."""

    task: str
    metric: str
    examples: int | None = None


BENCHMARKS = {
    "mmlu": HarnessTask("mmlu", "acc,none", examples=5),
    "bbh": HarnessTask("bbh_cot_fewshot", "exact_match,get-answer"),  # its 3 examples belong to the task
}


def refuse_unknown(names: Sequence[str]) -> None:
    """Raises InputError for a benchmark that there is not, or where lm-eval is not installed."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise InputError(f"task.evaluation.harness: there is no {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    if names and importlib.util.find_spec("lm_eval") is None:
        raise InputError(
            "task.evaluation.harness: lm-eval is not installed: pip install lm-eval, or leave it out ([]) for the "
            "evaluation on local files alone"
        )


def harness_metrics(
    model: LanguageModel,
    tokenizer: PreTrainedTokenizerBase,
    names: Sequence[str],
    *,
    tokens: int,
    length: int,
    limit: int | None = None,
    chat: bool = False,
) -> dict[str, float]:
    """name -> its metric over all questions, then name/subject -> that of a subject.

    tokens: most in a batch. length: most of a question with its examples and its answer; what is longer loses its
    beginning. limit: most questions per subject. chat: questions in the tokenizer's chat template.

    Raises InputError where lm-eval cannot find its data.
    """
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    length = min(length, getattr(model.causal.config, "max_position_embeddings", length))
    wrapped = HFLM(
        pretrained=model.causal.eval(),
        tokenizer=tokenizer,
        batch_size=max(1, tokens // length),
        max_length=length,
        truncation=True,
    )
    known = TaskManager()  # reads thousands of files: once
    overall, by_subject = {}, {}
    for name in names:
        asked = BENCHMARKS[name]
        try:
            found = lm_eval.simple_evaluate(
                model=wrapped,
                tasks=[asked.task],
                num_fewshot=asked.examples,
                limit=limit,
                apply_chat_template=chat,
                fewshot_as_multiturn=chat,
                task_manager=known,
                bootstrap_iters=0,
                log_samples=False,
                random_seed=None,  # the global generators are not the harness' own
                numpy_random_seed=None,
                torch_random_seed=None,
            )
        except OSError as error:  # of the hub, too
            raise InputError(f"lm-eval cannot run {asked.task}: {first_line(error)}") from error
        results = found["results"]
        overall[name] = float(results[asked.task][asked.metric])
        for task in sorted(set(results) & set(found["n-samples"])):  # groups of tasks have no samples of their own
            subject = task.removeprefix(f"{asked.task}_")
            by_subject[f"{name}/{subject}"] = float(results[task][asked.metric])
    return overall | by_subject
