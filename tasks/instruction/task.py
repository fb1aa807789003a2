"""Instruction tuning: which conversations should a language model learn from to be good at a few of them?"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tarot import InputError, Selection
from tarot.common import Count, NonNegative, Positive, checked, fingerprint
from tasks.common.cache import cached_checkpoints
from tasks.common.code import source_hash
from tasks.common.supervised import SupervisedTask
from tasks.common.training import Surrogate
from tasks.instruction.accounts import accounts_of
from tasks.instruction.data import Conversations, Rows
from tasks.instruction.evaluation import Evaluation, answer_start, metrics, written
from tasks.instruction.harness import harness_metrics
from tasks.instruction.limits import Extent, refuse_beyond
from tasks.instruction.looks import look, one_of_those_alike
from tasks.instruction.model import Adapter, Language, LanguageModel, State, refuse_no_model
from tasks.instruction.pictures import draw_conversation
from tasks.instruction.reading import Row
from tasks.instruction.selected import ForTrainers, write_selected
from tasks.instruction.template import Template, stop_tokens, template_of
from tasks.instruction.tokenizer import cached_tokenizer, identity, load_tokenizer, padding_id, train_tokenizer
from tasks.instruction.tokens import IGNORE, Sample, Tokenized, collate, tokenize
from tasks.instruction.trained import Trained
from tasks.instruction.training import Pretraining, Tuning, WarmUp, for_learner, pretrain, tune
from tasks.task import SPLITS, Batch, Checkpoint, Split

if TYPE_CHECKING:
    from matplotlib.axes import Axes

log = logging.getLogger("tarot")


class InstructionTask(SupervisedTask[LanguageModel]):
    """data: the conversations. language, adapter: what learns. train: on a selection. surrogate: the warm-up.

    pretraining: of a language without a path; null leaves its weights random. One with a path is never pretrained.
    tokenizer: a folder or a name on the hub; null: that of language.path, or one of `vocabulary` tokens made of the
    text that pretraining sees.
    template: less or chat (the tokenizer's own). max_length: of a conversation, in tokens; the rest is cut off.
    nothing_left: what becomes of conversations without an answer within it: raise, or drop them.
    transfer: the language that is trained on a selection and judged, or its fields; null for the one that it was
    selected with. It has a tokenizer of its own, the same adapter, and the same pretraining where it has no path.
    total_share: what the weights of a selection sum to, as a share of the candidates, where it is not larger than that
    (then they are one each); null: the selector's own choice.
    target_weights: in which proportion a selection is shared out to the datasets of the targets; null: as one.
    format: of the trainer that what is selected is written for, too; repeat: there rows come as often as their weights
    say.
    Other options are `SupervisedTask`'s.
    """

    trains_together = True
    training: Tuning
    surrogate_training: Tuning
    surrogate: WarmUp

    @checked("task")
    def __init__(
        self,
        *,
        data: Conversations,
        language: Language,
        adapter: Adapter,
        surrogate: WarmUp,
        evaluation: Evaluation,
        pretraining: Pretraining | None = None,
        tokenizer: str | None = None,
        vocabulary: Count = 512,
        template: Literal["less", "chat"] = "less",
        max_length: Count = 2048,
        nothing_left: Literal["raise", "drop"] = "raise",
        transfer: Language | Mapping[str, Any] | None = None,
        total_share: Positive | None = None,
        target_weights: Mapping[str, NonNegative] | None = None,
        format: Literal["trl", "llamafactory", "axolotl"] | None = None,
        repeat: bool = False,
        **options: Any,
    ) -> None:
        self.trained = None if surrogate.adapters is None else Trained.of(surrogate.adapters)
        if self.trained is not None:
            adapter = self.trained.adapter
            language = replace(language, path=language.path or self.trained.base)
        if isinstance(transfer, Mapping):
            transfer = Language(**transfer)
        if evaluation.harness and (transfer or language).path is None:
            raise InputError(
                "task.evaluation.harness is for real models: give task.language.path, or 'task.transfer={path: ...}' "
                "where another one is trained"
            )
        super().__init__(surrogate=surrogate, surrogate_train=surrogate.train, **options)
        self.data, self.language, self.adapter = data, language, adapter
        self.evaluation, self.pretraining = evaluation, pretraining if language.path is None else None
        self.tokenizer_path, self.vocabulary, self.template_kind = tokenizer or language.path, vocabulary, template
        self.max_length, self.nothing_left, self.total_share = max_length, nothing_left, total_share
        self.weights = target_weights
        self.for_trainers = ForTrainers(format, repeat)
        self.one_of_each = data.by_features
        self.learner = self if transfer is None else self._with(transfer)
        self._spare: PreTrainedModel | None = None  # of a warm-up, for the model that is asked for next

    def __getstate__(self) -> dict[str, Any]:
        """Without a model of gigabytes, which other processes build themselves."""
        return {**vars(self), "_spare": None}

    def _with(self, language: Language) -> InstructionTask:
        """The same task for another language."""
        task = InstructionTask(
            name=self.name,
            data=self.data,
            language=language,
            adapter=self.adapter,
            train=self.training,
            surrogate=replace(self.surrogate, adapters=None),
            evaluation=self.evaluation,
            pretraining=self.pretraining,
            tokenizer=None if language.path is not None else self.tokenizer_path,
            vocabulary=self.vocabulary,
            template=self.template_kind,
            max_length=self.max_length,
            nothing_left=self.nothing_left,
            cache_dir=self.cache_dir,
            seed=self.seed,
            device=str(self.device),
        )
        task.one_of_each = False  # the other language may see others as the same, and is given those of this one
        return task

    # --- data ---------------------------------------------------------------------------------------------------------

    @cached_property
    def rows(self) -> Rows:
        return self.data.rows(self.seed, self._fits)

    def _fits(self, row: Row) -> bool:
        rendered = self.template(row)
        found = self.tokenizer(rendered.text, add_special_tokens=not rendered.whole, verbose=False)
        return len(found["input_ids"]) <= self.max_length

    @cached_property
    def splits(self) -> dict[Split, Tokenized]:
        splits = {split: self._tokenize(self.rows[split], self.nothing_left) for split in SPLITS}
        if self.one_of_each:
            splits["candidates"] = self._distinct(splits["candidates"])
        for split, found in splits.items():
            found.say(split, self.max_length)
        return splits

    def account(self) -> dict[Split, dict[str, Any]]:
        return accounts_of(self.rows, self.splits, self.data.accounts, self.max_length)

    def _distinct(self, candidates: Tokenized) -> Tokenized:
        """One of those that look the same to the language before it learns anything."""
        seen = [self.data.recipe(self.seed, self.rows)["rows"]["candidates"], self._read_as, self._model_recipe]
        path = self.cache_dir / "looks" / f"{self.name}-{fingerprint({'seen': seen, 'code': source_hash(look)})}"

        def looks() -> Tensor:
            model = self.language.build(len(self.tokenizer), self.adapter, self._weights).to(self.device)
            found = look(model, candidates, self.evaluation.tokens, self.pad)
            self._spare = model.without_adapters()
            return found

        return one_of_those_alike(candidates, path.with_suffix(".safetensors"), looks)

    def _tokenize(self, rows: list[Row], nothing_left: str = "raise") -> Tokenized:
        if not rows:  # nothing is held out
            none = np.zeros(0, bool)
            return Tokenized((), np.zeros(1, np.int64), np.zeros(0, np.int32), none, none)
        return tokenize(rows, self.tokenizer, self.template, max_length=self.max_length, nothing_left=nothing_left)

    def target_groups(self) -> np.ndarray | None:
        """Subtasks where all targets have one, else the datasets that they come from where these are several."""
        groups, sources = self.targets().groups, np.array([row.dataset for row in self.targets().rows], dtype=np.str_)
        if self.weights is not None or ((groups == "").any() and len(set(sources.tolist())) > 1):
            return sources
        return groups if (groups != "").all() else None

    def target_weights(self) -> Mapping[str, float] | None:
        return self.weights

    def candidate_costs(self) -> np.ndarray:
        """Tokens, as far as they fit the context."""
        return self.candidates().lengths.astype(np.float64)

    def candidate_tags(self) -> np.ndarray | None:
        return self.candidates().tags if self.data.tagged else None

    def candidate_sources(self) -> np.ndarray:
        return np.array([row.dataset for row in self.candidates().rows], dtype=np.str_)

    def total(self) -> int | None:
        return None if self.total_share is None else max(1, int(self.total_share * len(self.candidates()) + 1e-9))

    @cached_property
    def collate(self) -> Callable[[list[Sample]], Batch]:  # type: ignore[override]  # made when the tokenizer is there
        """Right padding."""
        return collate(self.pad)

    @staticmethod
    def cost(sample: Sample) -> float:
        """Tokens."""
        return float(len(sample["input_ids"]))

    # --- tokens -------------------------------------------------------------------------------------------------------

    @cached_property
    def text(self) -> list[Row]:
        """What a language that is made on the spot learns; the same for all seeds of the task."""
        return self.data.general(self.language.seed)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        if self.tokenizer_path is not None:
            refuse_no_model(self.language.path)
            of_language = self.tokenizer_path == self.language.path
            return load_tokenizer(self.tokenizer_path, f"task.{'language.path' if of_language else 'tokenizer'}")
        texts = [content for row in self.text for _, content in row.messages]
        digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()
        made_of = fingerprint({"text": digest, "vocabulary": self.vocabulary, "code": source_hash(train_tokenizer)})
        path = self.cache_dir / "tokenizers" / f"{self.name}-{made_of}"
        return cached_tokenizer(path, lambda: train_tokenizer(texts, self.vocabulary))

    @cached_property
    def template(self) -> Template:
        return template_of(self.template_kind, self.tokenizer)

    @property
    def pad(self) -> int:
        return padding_id(self.tokenizer)

    @cached_property
    def stops(self) -> list[int]:
        """The tokens that end an answer."""
        return stop_tokens(self.template, self.tokenizer)

    # --- recipe -------------------------------------------------------------------------------------------------------

    @cached_property
    def _data_recipe(self) -> dict[str, Any]:
        recipe = {**self.data.recipe(self.seed, self.rows), **self._read_as}
        return {**recipe, "one_of_each": self._model_recipe} if self.one_of_each else recipe

    @property
    def _read_as(self) -> dict[str, Any]:
        return {
            "tokenizer": identity(self.tokenizer),
            "template": self.template.recipe(),
            "max_length": self.max_length,
            "nothing_left": self.nothing_left,
        }

    def split_recipe(self, split: Split) -> dict[str, Any]:
        """Candidates, their warm-up and their features stay the same for other targets."""
        of_all = {key: value for key, value in self._data_recipe.items() if key not in ("rows", "seed")}
        return {**of_all, "rows": self._data_recipe["rows"][split]}

    @cached_property
    def _model_recipe(self) -> dict[str, Any]:
        recipe: dict[str, Any] = {"language": self.language.recipe(self.cache_dir), "adapter": self.adapter.recipe()}
        if self.language.path is None:
            recipe["vocabulary"] = len(self.tokenizer)
        if self.pretraining is not None:
            text = hashlib.sha256(self._text.tokens.tobytes() + self._text.learned.tobytes()).hexdigest()
            recipe["pretraining"] = {**asdict(self.pretraining), "text": text}
        return recipe

    def data_recipe(self) -> dict[str, Any]:
        return self._data_recipe

    def model_recipe(self) -> dict[str, Any]:
        return self._model_recipe

    def train_recipe(self) -> dict[str, Any]:
        recipe = super().train_recipe()
        if self.learner is self:
            return recipe
        return {**recipe, "transfer": [self.learner.data_recipe(), self.learner.model_recipe()]}

    def surrogate_data(self) -> dict[str, Any]:
        return self.split_recipe("candidates")

    def surrogate_recipe(self) -> dict[str, Any]:
        return super().surrogate_recipe() if self.trained is None else self.trained.recipe(self.cache_dir)

    def surrogate_optimizer(self) -> str | None:
        return super().surrogate_optimizer() if self.trained is None else self.trained.optimizer

    def given_checkpoints(self) -> Callable[[], list[Checkpoint]] | None:
        """Of adapters that are there, in the place of a warm-up."""
        trained = self.trained
        return None if trained is None else lambda: trained.checkpoints(self.language, len(self.tokenizer))

    def recipe(self) -> dict[str, Any]:
        return {**super().recipe(), "evaluation": self.evaluation.recipe()}

    # --- model --------------------------------------------------------------------------------------------------------

    @cached_property
    def _text(self) -> Tokenized:
        return self._tokenize(self.text, "drop")

    @cached_property
    def _weights(self) -> State | None:
        """What pretraining gave: computed once for all tasks of the same text and sizes."""
        training = self.pretraining
        if training is None:
            return None

        def make() -> list[Checkpoint]:
            net = self.language.base(len(self.tokenizer))
            self.adapter.refuse_unknown(net)  # before minutes of pretraining
            state = pretrain(net, self._text, training, self.language.seed, self.device)
            return [Checkpoint("pretrained", state, training.learning_rate)]

        made_of = {key: value for key, value in self._model_recipe.items() if key != "adapter"}
        made_of["code"] = source_hash(pretrain, type(self.language))
        name = f"{self.name}-{fingerprint(made_of)}.safetensors"
        return cached_checkpoints(self.cache_dir / "pretrained" / name, make)[0].state

    @cached_property
    def _extent(self) -> Extent:
        return Extent.of(self.splits.values())

    def model(self) -> LanguageModel:
        """Its frozen weights are always the same; the adapters are fresh. Raises InputError where the language does
        not know a token that occurs, or is not made for so long conversations."""
        base, self._spare = self._spare, None
        model = self.language.build(len(self.tokenizer), self.adapter, self._weights, base)
        refuse_beyond(model, self.tokenizer, self._extent, [self.pad, *self.stops])
        return model

    def sharing(self) -> Callable[[LanguageModel], None] | None:
        return LanguageModel.share if self.language.shard else None

    def losses(self, model: LanguageModel, batch: Batch) -> Tensor:
        """Each sample's mean cross-entropy over the tokens of its answers, [B]."""
        return model.losses(batch["input_ids"], batch["labels"])

    def residuals(self, model: LanguageModel, batch: Batch) -> Tensor:
        return torch.ones(len(batch["labels"]), device=batch["labels"].device)

    def embeddings(self, model: LanguageModel, batch: Batch) -> Tensor:
        """What the head is given, averaged over the answers' tokens, [B, hidden]."""
        return model.embeddings(batch["input_ids"], batch["labels"])

    def pooled_states(self, model: LanguageModel, batch: Batch, layers: Sequence[int]) -> Tensor:
        return model.pooled_states(batch["input_ids"], batch["attention_mask"], layers)

    def texts(self, split: Split) -> list[str]:
        """What all messages of a conversation say, one below the other."""
        return ["\n".join(content for _, content in row.messages) for row in self.splits[split].rows]

    def fit_surrogate(self, seed: int, *, run: int, keep: Surrogate) -> list[Checkpoint]:
        """A warm-up."""
        candidates = self.candidates()
        weights = self.surrogate.drawn(len(candidates), seed)
        self.surrogate.refuse_short(int(weights.sum()))  # before minutes of pretraining
        model = self.fresh(self.model, seed)
        training, snapshots = self.surrogate_training, self.snapshots(run)
        kept = tune(model, candidates, weights, training, seed, self.pad, run=run, keep=keep, snapshots=snapshots)
        self._spare = model.without_adapters()
        return kept

    def downstream(self) -> LanguageModel:
        """The language that selections are trained with: another one where the task says `transfer`."""
        return self.learner.model()

    def fit_downstream(self, weights: np.ndarray, seed: int) -> LanguageModel:
        learner = self.learner
        if learner is not self:
            ours, theirs = ([*task.ids("candidates"), *task.ids("targets")] for task in (self, learner))
            weights = for_learner(weights, ours, theirs, self.max_length)
        model = learner.fresh(learner.model, seed)
        tune(model, learner.candidates() + learner.targets(), weights, self.training, seed, learner.pad)
        return model

    # --- results ------------------------------------------------------------------------------------------------------

    def evaluate(self, model: LanguageModel, split: Split = "test") -> dict[str, float]:
        """On a split: `accuracy` of the choice among options, `exact_match` of answers that are written, `loss` of the
        right answers; those that there are, in this order, and then by group. On test, before them, what lm-eval says
        where it is asked."""
        task, asked = self.learner, self.evaluation
        if not len(task.splits[split]):
            raise InputError(f"task.held_out is 0, so that there is no {split} to judge by; give task.{split} a file")
        found = metrics(model, task.splits[split], task.tokenizer, task._tokenize, asked, task.stops, task.pad)
        if split != "test" or not asked.harness:
            return found
        standard = harness_metrics(
            model,
            task.tokenizer,
            asked.harness,
            tokens=asked.tokens,
            length=asked.harness_length,
            limit=asked.harness_limit,
            chat=self.template_kind == "chat",
        )
        return standard | found

    def write_selected(self, selection: Selection, path: Path) -> None:
        write_selected(self.candidates().rows, self.ids("targets"), selection, path)

    def selected_files(self, selection: Selection) -> dict[str, Callable[[Path], None]]:
        return self.for_trainers.files(self.candidates().rows, self.ids("targets"), selection)

    def lower_is_better(self, metric: str) -> bool:
        return metric.partition("/")[0] == "loss"

    def draw(self, sample: Sample, axes: Axes) -> None:
        """What is asked, and the answer in bold."""
        self._draw(sample, None, axes)

    def draw_prediction(self, model: LanguageModel | None, sample: Sample, axes: Axes) -> None:
        """What the model answers; the right answer without a model."""
        self._draw(sample, model, axes)

    def _draw(self, sample: Sample, model: LanguageModel | None, axes: Axes) -> None:
        start = answer_start(sample["labels"])
        asked = self._words(sample["input_ids"][:start])
        learned = sample["input_ids"][start:][sample["labels"][start:] != IGNORE]
        answer = self._words(learned)
        if model is not None:
            answer = self.answer(model, sample)
        draw_conversation(asked, answer, axes)

    def _words(self, ids: Tensor) -> str:
        return cast("str", self.tokenizer.decode(ids, skip_special_tokens=True))  # as it is of one sequence

    def answer(self, model: LanguageModel, sample: Sample) -> str:
        """What the model, of either language, writes where the sample's last answer is."""
        ids = sample["input_ids"][: answer_start(sample["labels"])]
        task = self.learner if model.language == self.learner.language else self
        if task is not self:
            ids = task.tokenizer(self._words(ids), return_tensors="pt").input_ids[0]
        return written(model, [ids], task.tokenizer, self.evaluation, task.stops, task.pad)[0]
