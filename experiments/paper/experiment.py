"""`experiment=paper`: runs what a scale declares, and writes one page of the paper's claims, tables and figures."""

from __future__ import annotations

import logging
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from experiments.frame.run import Run
from experiments.paper.report import page
from experiments.paper.runs import Asked, Ended, carry_out, quoted
from experiments.report import Result
from tarot import InputError
from tarot.common import check_options, progress, resolve_device
from tasks.task import TaskData

log = logging.getLogger("tarot")

_ENGINE = re.compile(r"[+~]*engine\b")


@dataclass(frozen=True)
class Paper:
    """conf/experiment/paper.yaml says what each option means."""

    task_type: ClassVar = TaskData
    unused: ClassVar[frozenset[str]] = frozenset(
        {"task", "task.*", "features", "features.*", "selector", "selector.*", "seed"}
    )  # which each of its runs says for itself

    scale: str
    runs: Mapping[str, Asked]
    only: Sequence[str] | None = None

    def __post_init__(self) -> None:
        check_options(self, "experiment")
        unknown = [name for name in self.only or [] if name not in self.runs]
        if unknown:
            raise InputError(
                f"experiment.only: scale={self.scale} has no run {unknown[0]!r}; it has {', '.join(self.runs)}"
            )

    def run(self, run: Run[TaskData]) -> Result:
        wanted = {name: asked for name, asked in self.runs.items() if self.only is None or name in self.only}
        total = sum(asked.seeds for asked in wanted.values() if asked.overrides)
        log.info("%d runs at scale %s: %s", total, self.scale, ", ".join(wanted))
        ended: dict[str, Ended] = {}
        with run.clock("runs"), progress("paper", total, "runs") as advance:
            for name, asked in wanted.items():
                for ended[name] in carry_out(asked, run.cache / "paper", _common(run)):
                    advance(1)
                if ended[name].missing:
                    log.info("%s: %s", name, ended[name].missing)
        with run.clock("figures"):
            return page(list(ended.values()), self.scale, _machine(resolve_device(run.device).type))


def _common(run: Run[TaskData]) -> list[str]:
    """What the page's own run hands on to all of its runs."""
    config = run.config
    return [
        f"cache_dir={quoted(run.cache)}",
        f"data_dir={quoted(config['data_dir'])}",
        f"device={config['device']}",
        f"deterministic={str(config['deterministic']).lower()}",
        *(said for said in run.overrides if _ENGINE.match(said)),
    ]


def _machine(device: str) -> dict[str, Any]:
    return {
        "device": device,
        "cores": f"{os.cpu_count()} cores",
        "system": platform.machine(),
        "torch": f"torch {torch.__version__}",
    }
