"""One run: what was asked, what it is asked of, and where its results go."""

from __future__ import annotations

import dataclasses
import logging
import subprocess
import time
from collections.abc import Iterator, Sequence, Set
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal, Protocol, TypeGuard, TypeVar, cast

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from experiments.frame.determinism import one_thread
from experiments.frame.loggers import Logger
from experiments.frame.names import refuse_half_characters
from experiments.frame.options import check_config
from experiments.frame.outputs import Outputs
from experiments.frame.publish import hand_over, publish
from experiments.report import Result
from experiments.stages import SPACE, FeatureRecipe, Features, Workbench, recipe_options, train_surrogates
from tarot import InputError, Selection
from tarot.common import Count, check_option, remove_abandoned, resolve_device, within
from tarot.selectors import Selector
from tarot.workers import Local, Ray, Workers, team
from tasks.features import FeatureTask
from tasks.task import Checkpoint, Task, TaskData

log = logging.getLogger("tarot")
T = TypeVar("T", bound=TaskData, covariant=True)
_BUDGET: dict[str, Any] = {"size": Count | Literal["auto"] | None, "ratio": Annotated[float, within("(0, 1]")] | None}
"""What may be said of one also where it does not apply."""


class Experiment(Protocol):
    """A dataclass of its options, named by `_target_` in conf/experiment. task_type: what it can be asked of. unused:
    patterns of what means nothing to it on the command line; "selector" is the choice, "selector.*" its options."""

    task_type: ClassVar[type[TaskData]]
    unused: ClassVar[frozenset[str]]

    def run(self, run: Run[Any]) -> Result: ...


@dataclass
class Clock:
    """Wall-clock seconds by stage; a stage that is entered twice adds up."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.perf_counter() - start, 3)
            log.info("%-12s %8.1f s", stage, self.seconds[stage])


@dataclass(frozen=True)
class Run(Generic[T]):
    """name: what was chosen of each config group. config: as composed, resolved. cache, output: directories.
    overrides: what the command line said; not_applied: options among them that mean nothing to this selector."""

    name: dict[str, str]
    config: dict[str, Any]
    task: T
    recipe: FeatureRecipe
    selector: Selector
    experiment: Experiment
    logger: Logger
    engine: Workers
    cache: Path
    output: Path
    overrides: list[str]
    not_applied: list[str]
    clock: Clock = field(default_factory=Clock)

    @cached_property
    def outputs(self) -> Outputs:
        """Where results are written."""
        return Outputs(self.output)

    @classmethod
    def of(cls, config: DictConfig) -> Run[TaskData]:
        """Everything that the config names, built. Raises InputError and Hydra's errors where it cannot be."""
        chosen = HydraConfig.get().runtime
        plain = _resolved(config)
        check_config(plain)
        experiment = hydra.utils.instantiate(config.experiment)
        if not issubclass(hydra.utils.get_class(config.task["_target_"]), experiment.task_type):
            raise InputError(
                f"experiment={chosen.choices['experiment']} needs a {experiment.task_type.__name__}, "
                f"which task={chosen.choices['task']} is not"
            )
        overrides = list(HydraConfig.get().overrides.task)
        own = ", ".join(f"experiment.{option}" for option in plain["experiment"] if not option.startswith("_"))
        asked = f"experiment={chosen.choices['experiment']}"
        _refuse_unused(
            overrides, experiment.unused, f"means nothing to {asked}, whose own options say what it does: {own}"
        )
        if issubclass(hydra.utils.get_class(config.task["_target_"]), FeatureTask):
            said = ", ".join(f"features.{option}" for option in SPACE)
            why = f"says how features are made, and this task's are given; of them {said} can be said"
            _refuse_unused(overrides, recipe_options(but=SPACE), why)
        selector, not_applied = make_selector(config.selector, chosen.choices["selector"])
        return cls(
            name={group: chosen.choices[group] for group in ("experiment", "task", "features", "selector")},
            config=plain,
            experiment=experiment,
            recipe=hydra.utils.instantiate(config.features, _convert_="all"),
            selector=selector,
            logger=hydra.utils.instantiate(config.logger),
            engine=_engine(config),
            task=hydra.utils.instantiate(config.task),
            cache=Path(config.cache_dir),
            output=Path(chosen.output_dir),
            overrides=overrides,
            not_applied=not_applied,
        )

    @property
    def seed(self) -> int:
        return self.config["seed"]

    @property
    def device(self) -> str:
        return self.config["device"]

    @cached_property
    def bench(self) -> Workbench[T]:
        """The run's task on its features."""
        return Workbench(self.task, self.recipe, self.cache, self.device, self.engine)

    def features(self) -> Features:
        """The bench's, timed."""
        bench, checkpoints = self.bench, None
        bench.check()
        if isinstance(self.task, Task) and self.recipe.without_surrogates is None:
            checkpoints = self.checkpoints(self.task)
        with self.clock("features"):
            return bench.features(checkpoints)

    def checkpoints(self, task: Task) -> list[Checkpoint]:
        """Of this task, timed; the engine's workers train those that are missing."""
        with self.clock("checkpoints"):
            train_surrogates([task], self.cache, self.engine)
            return task.checkpoints()

    def select(self, total: int | None = None) -> Selection:
        """The choice of the run's own selector, timed; its files are in the run's folder from then on."""
        with self.clock("select"):
            selection = self.bench.select(self.selector, total)
            scores = self.bench.scores(self.selector, total)
        hand_over(self, selection, scores)
        return selection

    def start(self) -> None:
        """Run the experiment and write what came of it: a selection when it is made, the rest when all is done."""
        with self.outputs.held(), one_thread(self.config["deterministic"]), closing(self.engine):
            log.info("%s", "  ".join(f"{group}={choice}" for group, choice in self.name.items()))
            refuse_half_characters(self)
            remove_abandoned(self.cache)
            result = self.experiment.run(self)
            with self.outputs.file("config.yaml") as temporary:
                temporary.write_text(yaml.safe_dump({**self.config, "revision": revision()}, sort_keys=False))
            with self.clock("report"):
                publish(self, result)
            self.logger.publish(self, result)
            log.info("report: %s", self.output / "report.html")


def has_model(run: Run[TaskData]) -> TypeGuard[Run[Task]]:
    """Whether the run's task has one to train and to judge."""
    return isinstance(run.task, Task)


def _refuse_unused(overrides: Sequence[str], unused: Set[str], why: str) -> None:
    """Raises InputError where the command line says what would be left out in silence. unused: patterns, as those of an
    `Experiment`."""
    for said in overrides:
        key = said.lstrip("+~").partition("=")[0]
        if any(fnmatchcase(key, pattern) for pattern in unused):
            raise InputError(f"{said} {why}")


def _engine(config: DictConfig) -> Workers:
    """Raises InputError where workers would be without the GPU that is asked for, or beside the processes that a
    launcher has started."""
    engine: Workers = hydra.utils.instantiate(config.engine)
    if team().size > 1 and not isinstance(engine, Local):
        raise InputError(f"{team().size} processes of a launcher share the work already: engine=local")
    if isinstance(engine, Ray) and engine.gpus == 0 and resolve_device(config.device).type == "cuda":
        raise InputError("engine.gpus is 0, so that workers have none: engine.gpus=1, or device=cpu")
    return engine


def make_selector(config: DictConfig, name: str) -> tuple[Selector, list[str]]:
    """The selector of the config, and the options that do not apply to it: some choose their own size, which a line
    says where `size` or `ratio` is given all the same."""
    options = _resolved(config)
    fields = {f.name for f in dataclasses.fields(hydra.utils.get_class(options["_target_"]))}
    unknown = sorted(option for option in set(options) - fields - {"size", "ratio"} if option[0] != "_")
    if unknown:
        raise InputError(f"there is no option selector.{unknown[0]}; {name} has {', '.join(sorted(fields))}")
    idle = {"size", "ratio"} - fields
    if options.get("size") == "auto":
        idle |= {"ratio"}
    given = {option: options.pop(option) for option in sorted(idle & set(options))}
    for option, value in given.items():
        check_option(f"selector.{option}", value, _BUDGET[option])
        if value is not None:
            log.info("%s chooses its own size: selector.%s=%s does not apply", name, option, value)
    return hydra.utils.instantiate(options, _convert_="all"), [f"selector.{option}" for option in given]


def _resolved(config: DictConfig) -> dict[str, Any]:
    return cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True))  # of a list it would be a list


def revision() -> str | None:
    """The checkout's commit, with a + where it has been changed since; None outside of one."""
    try:
        command = ["git", "describe", "--always", "--abbrev=12", "--dirty=+"]
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
