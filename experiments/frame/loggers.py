"""Where a run's results go besides its own directory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import pyarrow.parquet as pq

from experiments.frame.publish import SELECTION
from tarot import InputError
from tarot.common import check_options

if TYPE_CHECKING:
    from experiments.frame.run import Run
    from experiments.report import Result

_ROWS = 10_000  # of a selection's table


class Logger(Protocol):
    def publish(self, run: Run, result: Result) -> None: ...


@dataclass(frozen=True)
class Files:
    """Nowhere: the run's directory has everything."""

    def publish(self, run: Run, result: Result) -> None:
        return None


@dataclass(frozen=True)
class Wandb:
    """Weights & Biases: metrics, the selection as a table, the figures as images.

    mode: "offline" needs no account; `wandb sync` uploads it later. group: runs that belong together.
    """

    project: str = "tarot"
    mode: Literal["offline", "online", "disabled"] = "offline"
    group: str | None = None

    def __post_init__(self) -> None:
        check_options(self, "logger")
        try:
            import wandb  # noqa: F401
        except ImportError as error:
            raise InputError('logger=wandb needs the package: pip install -e ".[wandb]"') from error

    def publish(self, run: Run, result: Result) -> None:
        import wandb

        os.environ.setdefault("WANDB_SILENT", "true")
        name = " ".join(run.name[group] for group in ("experiment", "task", "selector"))
        with wandb.init(
            project=self.project,
            mode=self.mode,
            group=self.group,
            name=f"{name} seed {run.seed}",
            config=run.config,
            dir=run.output,
            settings=wandb.Settings(console="off", quiet=True),
        ) as record:
            record.log({key: value for key, value in flatten(result.metrics).items() if isinstance(value, int | float)})
            if (run.output / SELECTION).exists():
                table = pq.read_table(run.output / SELECTION).slice(0, _ROWS)
                record.log({"selection": wandb.Table(dataframe=table.to_pandas())})
            for figure in result.figures:
                path = run.output / "figures" / f"{figure.name}.png"
                record.log({f"figures/{figure.name}": wandb.Image(str(path))})


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a/b": 1}"""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}/") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
