"""The one contract: everything a new task must say, what else it may be able to do, and nothing else.

A task brings candidates to choose from, targets that show what the model must be good at, and the model that is to
learn it. The experiments do the rest. What is optional is a protocol of one method: a task has the ability by writing
the method, and whoever needs it asks `isinstance(task, WritesSelected)`. `tasks/common/supervised.py` is a good place
to begin a task from; `tests/tasks/test_contract.py` tells whether it keeps its word.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from tarot.common import InputError
from tarot.gradients import Samples

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tarot import Selection

Batch = Any
Split = Literal["candidates", "targets", "validation", "test"]
SPLITS: tuple[Split, ...] = ("candidates", "targets", "validation", "test")
ONE_EACH = 1  # `total` of a task whose selections have no weights
Ability = TypeVar("Ability")
Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Checkpoint:
    """One moment of a surrogate's training.

    state: parameters AND buffers by name, on the CPU (BatchNorm statistics belong to their checkpoint).
    learning_rate: the mean one since the checkpoint before it.
    optimizer_state: parameter name -> torch's own state of it (`exp_avg`, `exp_avg_sq`, `step` for Adam), or None.
    run: which of the independently trained models it belongs to.
    Raises InputError where it cannot be one.
    """

    name: str
    state: Mapping[str, Tensor]
    learning_rate: float
    optimizer_state: Mapping[str, Mapping[str, Tensor]] | None = None
    run: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.learning_rate) and self.learning_rate >= 0):
            raise InputError(f"checkpoint {self.name}: learning_rate must be at least 0; it is {self.learning_rate}")
        if self.run < 0:
            raise InputError(f"checkpoint {self.name}: run must be at least 0; it is {self.run}")
        unknown = sorted(set(self.optimizer_state or ()) - set(self.state))
        if unknown:
            raise InputError(f"checkpoint {self.name}: optimizer_state is of {unknown[0]}, which state has not")


class TaskData(ABC):
    """What a selection needs to know of a task, whether or not there is a model behind it."""

    has_model: ClassVar[bool]
    name: str

    @abstractmethod
    def recipe(self) -> dict[str, Any]:
        """All that determines the task, as plain data, for fingerprints.

        Keys: `data` and `model` (what they are made of), `surrogate` (what else makes the checkpoints) and `train`
        (what else makes the downstream model); `evaluation` where `evaluate` has options. A stage depends on those that
        come before it, so that another `train` does not compute features again.
        """

    def split_recipe(self, split: Split) -> Any:
        """What determines the samples of one split, as plain data: features of that split depend on it and the model.

        Default: all of the data. A task that can tell them apart need not compute candidates again for other targets.
        """
        return self.recipe()["data"]

    @abstractmethod
    def ids(self, split: Split) -> list[str]:
        """The samples' names: unique in their split, and the same whenever and wherever the task is built."""

    @abstractmethod
    def total(self) -> int | None:
        """What the weights of a selection sum to where the experiment does not say; of a larger selection they are one
        each, and so they always are with `ONE_EACH`. None: the selector's own choice."""

    def labels(self, split: Split = "candidates") -> np.ndarray | None:
        """Class of each sample, int64 [n], where there are classes."""
        return None

    def target_groups(self) -> np.ndarray | None:
        """Which subtask each target belongs to, [M], where there are several."""
        return None

    def candidate_tags(self) -> np.ndarray | None:
        """What each candidate is, str [N], for diagnosis only; "target" means that it resembles the targets."""
        return None

    def candidate_sources(self) -> np.ndarray | None:
        """The dataset that each candidate comes from, str [N], where there are several; for diagnosis and quotas."""
        return None

    def candidate_costs(self) -> np.ndarray | None:
        """What each candidate costs whoever trains on it, such as its tokens, float64 [N]; for budgets."""
        return None

    def target_weights(self) -> Mapping[str, float] | None:
        """In which proportion a selection is shared out to the groups of targets; None: they are not told apart."""
        return None


class Task(TaskData, Generic[Model]):
    """Data, a model, and how it is trained and judged. Model: the class of the model, for a type checker.

    device: where models are trained and judged.
    """

    has_model = True
    device: torch.device = torch.device("cpu")
    collate: Callable[[list], Batch] = staticmethod(default_collate)

    @abstractmethod
    def candidates(self) -> Samples:
        """What is chosen from."""

    @abstractmethod
    def targets(self) -> Samples:
        """What selection may look at."""

    @abstractmethod
    def validation(self) -> Samples:
        """For early stopping and the choice of a model; disjoint from `test`, but where a benchmark reports the best on
        it (`data.disjoint=false`)."""

    @abstractmethod
    def test(self) -> Samples:
        """What `evaluate` reports on; never seen by selection or training."""

    def samples(self, split: Split) -> Samples:
        """The same by name."""
        makers = {
            "candidates": self.candidates,
            "targets": self.targets,
            "validation": self.validation,
            "test": self.test,
        }
        return makers[split]()

    @abstractmethod
    def model(self) -> Model:
        """A fresh model, the one of `checkpoints`; its weights come from torch's global generator."""

    def downstream(self) -> Model:
        """A fresh model of the kind that `train` gives: by default `model`, whose gradients select."""
        return self.model()

    @abstractmethod
    def losses(self, model: Model, batch: Batch) -> Tensor:
        """One loss per sample, [B]: what gradients are taken of. A sample's loss does not depend on its batch."""

    def measurements(self, model: Model, batch: Batch) -> Tensor:
        """The quantity that attribution predicts, [B]; higher is better."""
        return -self.losses(model, batch)

    def residuals(self, model: Model, batch: Batch) -> Tensor:
        """TRAK's Q: how fast a sample's loss falls as its measurement rises, -d loss / d measurement, [B]."""
        return torch.ones_like(self.losses(model, batch))

    @abstractmethod
    def checkpoints(self) -> list[Checkpoint]:
        """The surrogate's checkpoints: loaded, or trained once and cached."""

    def surrogate_optimizer(self) -> str | None:
        """What trained the checkpoints, such as adamw; None where nobody knows."""
        return None

    @abstractmethod
    def train(self, selection: Selection, seed: int) -> Model:
        """The downstream model: the selected candidates with their weights, plus the targets where the config's
        `train.merge_targets` says so, or the targets alone where nothing is selected."""

    def merges_targets(self) -> bool:
        """Whether `train` shows a model the targets beside what is selected."""
        return False

    @abstractmethod
    def evaluate(self, model: Model, split: Split = "test") -> dict[str, float]:
        """What the model is worth on a split; the headline metric first. Other splits than `test` may have fewer."""

    def lower_is_better(self, metric: str) -> bool:
        """Whether a smaller value of this metric of `evaluate` is the better one."""
        return False

    @abstractmethod
    def draw(self, sample: Any, axes: Axes) -> None:
        """How a sample looks to a person."""


# --- what a task may be able to do ------------------------------------------------------------------------------------


@runtime_checkable
class WritesSelected(Protocol):
    """A run that makes a selection writes it as selected.jsonl."""

    def write_selected(self, selection: Selection, path: Path) -> None:
        """The selected candidates as a file that other programs train on, one JSON object per line."""


@runtime_checkable
class WritesForTrainers(Protocol):
    """A run that makes a selection writes these files beside selected.jsonl."""

    def selected_files(self, selection: Selection) -> dict[str, Callable[[Path], None]]:
        """Names of files, and what writes each to a path."""


@runtime_checkable
class AccountsForSamples(Protocol):
    """metrics.json says what became of the data, under `data`."""

    def account(self) -> Mapping[Split, Mapping[str, Any]]:
        """Of every split, as plain data: `used`, how many samples it has; `left_out`, how many it has not, by reason;
        and what else the task knows."""


@runtime_checkable
class TrainsSurrogates(Protocol):
    """An engine's workers train its surrogates side by side; `checkpoints` trains those that are missing then."""

    def surrogates(self) -> Sequence[int]:
        """Those that are still to be trained, by number."""

    def train_surrogate(self, number: int) -> None:
        """Trains one, whose checkpoints are in the cache from then on."""


@runtime_checkable
class GivesEmbeddings(Protocol):
    """Methods that compare embeddings."""

    def embeddings(self, model: nn.Module, batch: Batch) -> Tensor:
        """What the model makes of each sample before its last layer, [B, d]."""


@runtime_checkable
class GivesStates(Protocol):
    """RDS: what a language model makes of whole samples before it has learnt anything of the task."""

    def pooled_states(self, model: nn.Module, batch: Batch, layers: Sequence[int]) -> Tensor:
        """Hidden states of these layers under the model without what `checkpoints` or `train` change of it: averaged
        over all tokens of a sample with weights that grow linearly, each layer's of unit norm, side by side, [B, d].
        Layers are counted as a list: 0 the embeddings of tokens, -1 what the head is given."""


@runtime_checkable
class GivesTexts(Protocol):
    """Methods that compare words, and encoders of sentences."""

    def texts(self, split: Split) -> list[str]:
        """All that each sample says, in the order of `ids`."""


@runtime_checkable
class GivesImages(Protocol):
    """Encoders of images."""

    def images(self, batch: Batch) -> Tensor:
        """What a person sees of each sample: float [B, 1 or 3, H, W], from 0 to 1."""


@runtime_checkable
class GivesErrorNorms(Protocol):
    """EL2N."""

    def error_norms(self, model: nn.Module, batch: Batch) -> Tensor:
        """How far the predicted probabilities are from the label, ||softmax - onehot||_2, [B]."""


@runtime_checkable
class MeasuresSubsets(Protocol):
    """What attribution is to predict (experiment=lds)."""

    def subset_measurements(self, mask: np.ndarray, seed: int) -> Tensor:
        """The targets' measurements, [M], by a model of the surrogate's kind trained on the candidates of mask
        (bool [N]) alone, each of which it sees as many times as a training on all of them would."""


@runtime_checkable
class StacksSubsets(MeasuresSubsets, Protocol):
    """Models of subsets that are trained side by side, as one."""

    def stacks_subsets(self) -> bool:
        """Whether that is faster for the task's model, where it is trained."""

    def stacked_subset_measurements(self, masks: Sequence[np.ndarray], seeds: Sequence[int]) -> Tensor:
        """`subset_measurements` of k equally large masks, [k, M]."""


@runtime_checkable
class CostsSamples(Protocol):
    """Where a batch's samples are padded to the largest: features are then taken of samples of similar cost together,
    more at once where they cost less."""

    def cost(self, sample: Any) -> float:
        """A sample's tokens or pixels."""


@runtime_checkable
class SharesModels(Protocol):
    """Gradients of models that do not fit one device."""

    def sharing(self) -> Callable[[Any], None] | None:
        """What shares out the frozen weights of a model on the CPU over the processes of the launcher, in place and in
        all of them at the same time; None where every process is to have them all."""


@runtime_checkable
class DrawsPredictions(Protocol):
    """Reports show predictions before and after."""

    def draw_prediction(self, model: nn.Module | None, sample: Any, axes: Axes) -> None:
        """What a model predicts of a sample, as a person sees it; without a model the truth, drawn in the same way.
        What it labels stands in a legend below the pictures."""


_LACKING = {
    GivesEmbeddings: "gives no embeddings: write its method embeddings(model, batch), or choose a method that needs "
    "none",
    GivesStates: "gives no hidden states of a language model: write its method pooled_states(model, batch, layers), or "
    "choose other features, such as features=embedding",
    GivesTexts: "gives no texts: write its method texts(split), or choose a method and features that need none",
    GivesImages: "gives no images: write its method images(batch), or choose other features, such as "
    "features=embedding",
    GivesErrorNorms: "gives no error norms: write its method error_norms(model, batch), or choose a method that needs "
    "none",
    DrawsPredictions: "draws no predictions: write its method draw_prediction(model, sample, axes)",
    MeasuresSubsets: "trains no models of subsets: write its method subset_measurements(mask, seed), or choose another "
    "task",
}


def able(task: TaskData, ability: type[Ability]) -> Ability:
    """The task, which has this ability (of those that somebody cannot do without). Raises InputError where it has not,
    with what to do."""
    if not isinstance(task, ability):
        raise InputError(f"task {task.name} {_LACKING[ability]}")
    return task
