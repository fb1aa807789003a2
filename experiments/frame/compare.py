"""The runs of a sweep side by side: a table and a figure that grow as its jobs end.

python -m experiments.frame.compare outputs/selection/sweep/<time>      # again, by hand
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from experiments.command.resolvers import register_resolvers
from experiments.frame.finished import read_compared
from experiments.frame.one_space import distances_in_one_space
from experiments.frame.outputs import DONE, clear
from experiments.report import Figure, Interval, Page, Table, explain, figures, mean_interval
from tarot.common import atomic_file

_FACTS = {"size": "{:,.4g}", "ratio": "{:.1%}", "precision": "{:.0%}", "ot_distance": "{:.3f}", "lower_bound": "{:.3f}"}


@dataclass(frozen=True)
class Setting:
    """The runs that differ in nothing but their seed. runs: their metrics.json."""

    name: str
    runs: Sequence[dict[str, Any]]

    @property
    def selector(self) -> str:
        return self.runs[0]["run"]["selector"]

    def metric(self, name: str) -> Interval:
        """Over seeds; where there is one seed, that run's own interval."""
        if len(self.runs) > 1:
            return mean_interval([run["metrics"][name] for run in self.runs])
        low, high = self.runs[0]["intervals"].get(name) or (None, None)
        mean = self.runs[0]["metrics"][name]
        return Interval(mean) if low is None or high is None else Interval(mean, low, high)

    def fact(self, name: str) -> float | None:
        """Mean over seeds of what is known of the selection."""
        values = [run.get("selection", {}).get(name) for run in self.runs]
        return None if None in values else sum(values) / len(values)


class CompareRuns(Callback):
    """Hydra calls this: after every job of a sweep, and at its end. Launchers send it to their workers, and it takes
    along the functions that the configs call."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _in_worker, ()

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Runs of an earlier sweep in the same folder are not this one's."""
        for done in Path(config.hydra.sweep.dir).glob(f"*/{DONE}"):
            if done.parent.name.isdigit():
                clear(done.parent)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if config.hydra.mode == RunMode.MULTIRUN:
            write(Path(config.hydra.sweep.dir))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        write(folder, ended=True)  # jobs that ended at the same moment may not have seen each other
        page = folder / "comparison.html"
        if page.exists():
            print(f"comparison: {page}")


def _in_worker() -> CompareRuns:
    register_resolvers()
    return CompareRuns()


def settings(folder: Path) -> list[Setting]:
    """The finished runs of a sweep, grouped by everything that was swept over except the seed.

    What did not apply (the ratio of a selector that chooses its own size) tells no settings apart, and its repetitions
    count once."""
    paths = sorted(folder.glob(f"*/{DONE}"), key=_job_number)
    runs = [{**read_compared(path), "folder": path.parent} for path in paths]
    groups: dict[tuple[str, ...], dict[int, dict[str, Any]]] = {}
    for run in runs:
        idle = {"seed", *run["run"]["not_applied"]}
        varied = tuple(o for o in run["run"]["overrides"] if o.lstrip("+").partition("=")[0] not in idle)
        groups.setdefault(varied, {})[run["run"]["seed"]] = run
    shared = set.intersection(*(set(overrides) for overrides in groups)) if groups else set()
    found = []
    for overrides, by_seed in groups.items():
        same = list(by_seed.values())
        found.append(Setting(_named([o for o in overrides if o not in shared]) or same[0]["run"]["selector"], same))
    return found


def write(folder: Path, ended: bool = False) -> None:
    """comparison.csv and comparison.html, from the runs that have ended so far.

    ended: there will be no more of them, so that selections on different features are measured in one space, which
    reads features again; before, their distances are left out.
    """
    rows = settings(folder)
    if not rows:
        return
    space = _one_space(rows, ended)
    names = [
        name for name in rows[0].runs[0]["metrics"] if all(name in run["metrics"] for row in rows for run in row.runs)
    ]
    facts = [fact for fact in _FACTS if any(row.fact(fact) is not None for row in rows)]
    with atomic_file(folder / "comparison.csv") as temporary, open(temporary, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["setting", "seeds", *(f"{n}{end}" for n in names for end in ("", "_low", "_high")), *facts])
        for row in rows:
            scores = [row.metric(name) for name in names]
            numbers: list[float | None] = [number for score in scores for number in (score.mean, score.low, score.high)]
            numbers += [row.fact(fact) for fact in facts]
            table.writerow([row.name, len(row.runs), *("" if n is None or n != n else f"{n:.6g}" for n in numbers)])
    with atomic_file(folder / "comparison.html") as temporary:
        temporary.write_text(_page(rows, names, facts, space).html(), encoding="utf-8")


def _one_space(rows: list[Setting], ended: bool) -> str:
    """In which space distances are, for a person; nothing where there are none. Those in other spaces are replaced in
    the rows: by those in the one space, or by nothing."""
    runs = [run for row in rows for run in row.runs if run.get("selection", {}).get("ot_distance") is not None]
    spaces = {json.dumps([run["run"]["features"], _whitening(run)]) for run in runs}
    if len(spaces) < 2:
        return f"OT distances are in one space: {', '.join(filter(None, json.loads(spaces.pop())))}." if spaces else ""
    name, found = distances_in_one_space(runs) if ended else ("", {})
    for run in runs:
        run["selection"]["ot_distance"] = found.get(run["folder"])
        run["selection"]["lower_bound"] = None
    if not found:
        return "OT distances are left out: they are in different spaces."
    return f"OT distances are in one space, whatever was selected in: {name}."


def _whitening(run: dict[str, Any]) -> str | None:
    """As it was asked for, of which each seed may have made something else."""
    space = run["selection"].get("space")
    if space is None:
        return None
    return "whitening chosen" if space["chosen"] else space["whitening"] or "unit norm alone"


def _page(rows: list[Setting], names: list[str], facts: list[str], space: str) -> Page:
    seeds = max(len(row.runs) for row in rows)
    how = explain(seeds, "seed") if seeds > 1 else rows[0].runs[0]["interval"]
    shown = names[:2]
    body = [
        [
            row.name,
            *(str(row.metric(name)) for name in shown),
            *("–" if row.fact(fact) is None else _FACTS[fact].format(row.fact(fact)) for fact in facts),
        ]
        for row in rows
    ]
    table = Table(
        "Comparison",
        f"{how} {space}".strip(),
        ["", *shown, *(fact.replace("_", " ").replace("ot ", "OT ") for fact in facts)],
        body,
    )
    run = rows[0].runs[0]["run"]
    title = f"{run['task']}, {sum(len(row.runs) for row in rows)} runs"
    return Page(
        title=title,
        kicker=f"{run['experiment']} · sweep",
        summary="",
        tables=[table],
        pictures=[figure.render() for figure in _figures(rows, names, how)],
    )


def _figures(rows: list[Setting], names: list[str], how: str) -> list[Figure]:
    """The headline metric: by size where a selector was given several, else side by side."""
    if not names:
        return []
    ratios: dict[str, set[float | None]] = {}
    for row in rows:
        ratios.setdefault(row.selector, set()).add(row.fact("ratio"))
    if None not in set.union(*ratios.values()) and max(map(len, ratios.values())) > 1:
        sized = [(row, row.fact("ratio")) for row in rows]
        points = [(row.selector, ratio, row.metric(names[0])) for row, ratio in sized if ratio is not None]
        return [figures.sweep(names[0], points, how)]
    return [figures.arms(names[0], {row.name: row.metric(names[0]) for row in rows}, how)]


def _named(overrides: Sequence[str]) -> str:
    """["selector=random", "selector.ratio=0.1"] -> "random, ratio 0.1" """
    words = [
        value if key in ("selector", "task", "features", "experiment") else f"{key.rpartition('.')[2]} {value}"
        for key, _, value in (override.lstrip("+").partition("=") for override in overrides)
    ]
    return ", ".join(words)


def _job_number(path: Path) -> tuple[int, str]:
    name = path.parent.name
    return (int(name) if name.isdigit() else sys.maxsize, name)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        write(Path(argument), ended=True)
