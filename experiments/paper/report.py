"""The paper's page: its claims with our verdicts, then its tables and figures, its numbers beside ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from experiments.paper.claims import Arms, Comparison, Finding, findings, select_seconds
from experiments.paper.runs import Ended
from experiments.report import FEWEST, Figure, Interval, Result, Table, Tile, figures, mean_interval
from tarot.common import duration

_CONF = Path(__file__).parents[2] / "conf" / "experiment"
_TABLE_2 = {  # LDS on nuScenes with 1, 10 and 50 models
    "wfd_unwhitened": (0.007, 0.010, 0.017),
    "wfd_unnormalised": (0.024, 0.060, 0.097),
    "wfd_neither": (0.005, 0.008, 0.015),
    "wfd_zca": (0.028, 0.065, 0.098),
}
_PRINTED = {  # of the sweep in mIoU; the paper's other numbers are points of its figures
    "target_only": "58.98 (4.2)",
    "all": "58.21 (4.2)",
    "tarot_otm": "about 24% selected (4.2)",
}
_PICTURES = {  # of runs' own reports, by the part of the page: file, title, caption
    "sweep": ("selected", "Figure 6", "What each method selects, in the plane that t-SNE makes of gradient features."),
    "pictures": (
        "neighbours",
        "Figures 3, 9 and 10",
        "Framed in orange: targets. Beside each its nearest candidates, and its farthest, with their distances; framed "
        "in blue what was selected.",
    ),
}
_ROWS = {  # of Tables 1 and 6, by our selector
    "all": "All",
    "random": "5% random",
    "less": "5% LESS",
    "tsds": "5% TSDS",
    "tarot_fixed": "5% TAROT",
    "tarot_otm": "TAROT-OTM",
}


def page(runs: Sequence[Ended], scale: str, machine: Mapping[str, Any]) -> Result:
    """All that is known so far. machine: what the runs ran on."""
    found = findings(runs)
    counts = {verdict: sum(one.verdict == verdict for one in found) for verdict in _ORDER}
    told = ", ".join(f"{count} {verdict.replace('holds', 'hold')}" for verdict, count in counts.items() if count)
    told = told.replace("does not hold", "do not hold")
    seconds = sum(ended.seconds for ended in runs)
    return Result(
        title=f"The paper at scale {scale}",
        metrics={
            "metrics": {"claims": len(found), **counts},
            "claims": [_plain(one) for one in found],
            "runs": {ended.asked.label: _run_facts(ended) for ended in runs},
            "machine": dict(machine),
        },
        summary=f"Of {len(found)} claims of the paper, asked of runs at scale {scale}: {told}.",
        tiles=[
            *(Tile(verdict, str(count), f"of {len(found)} claims") for verdict, count in counts.items() if count),
            Tile("computed in", duration(seconds), _machine(machine)),
        ],
        tables=[
            _claims_table(found),
            *(table for ended in runs if ended.metrics for table in _part_tables(ended)),
            *_time_table(runs),
            _runs_table(runs),
        ],
        figures=[figure for ended in runs if ended.metrics for figure in _part_figures(ended)],
        made_of={"claims": [_plain(one) for one in found]},
    )


_ORDER = ("holds", "does not hold", "cannot be told", "not run")


def _plain(one: Finding) -> dict[str, Any]:
    return {
        "claim": one.claim,
        "where": one.where,
        "run": one.of,
        "verdict": one.verdict,
        "comparisons": {c.what: [c.by.mean, c.by.low, c.by.high] for c in one.comparisons},
        "note": one.note,
    }


def _run_facts(ended: Ended) -> dict[str, Any]:
    return {
        "part": ended.asked.part,
        "command": ended.command if ended.asked.overrides else None,
        "seeds": len(ended.metrics),
        "seconds": ended.seconds,
        "missing": ended.missing,
        "reports": [str(path) for path in ended.reports],
    }


# --- tables ----------------------------------------------------------------------------------------------------------


def _claims_table(found: Sequence[Finding]) -> Table:
    def ours(one: Finding) -> str:
        if one.weakest is None:
            return one.note or "–"
        ahead = sum(comparison.by.mean > 0 for comparison in one.comparisons)
        many = f"ahead in {ahead} of {len(one.comparisons)}; " if len(one.comparisons) > 1 else ""
        return f"{many}{_told(one.weakest)}{f' ({one.note})' if one.note else ''}"

    caption = (
        "Each claim is a list of comparisons; the one that speaks for it least is shown: how far what is claimed to be "
        "better is ahead of it. A claim holds where all of its 95% intervals lie above 0, and does not where one lies "
        f"below; intervals take {FEWEST} repetitions, and where they contain 0 nothing can be told."
    )
    rows = [[one.claim, one.where or "ours", one.of or "–", ours(one), one.verdict] for one in found]
    return Table("What the paper claims", caption, ["", "where", "asked of", "least in favour", "verdict"], rows)


def _told(comparison: Comparison) -> str:
    by = comparison.by
    interval = f" [{by.low:+.3f}, {by.high:+.3f}]" if by.known else ""
    return f"{by.mean:+.3f}{interval} against {comparison.what}"


def _part_tables(ended: Ended) -> Iterator[Table]:
    makers = {
        "influence": _influence_table,
        "sweep": _sweep_table,
        "folds": _folds_table,
        "instruction": _instruction_table,
    }
    if ended.asked.part in makers:
        yield makers[ended.asked.part](ended)


def _lds(ended: Ended) -> dict[str, dict[int, Interval]]:
    """By estimator and number of models: over seeds, or the one run's own."""
    found: dict[str, dict[int, Interval]] = {}
    for name, by_size in ended.metrics[0]["lds"].items():
        for size in by_size:
            every = [one["lds"][name][size] for one in ended.metrics]
            if all("lds" in facts for facts in every):
                alone = Interval(every[0].get("lds", 0.0), *every[0].get("interval", ()))
                of_seeds = mean_interval([facts["lds"] for facts in every])
                found.setdefault(name, {})[int(size)] = of_seeds if len(every) > 1 else alone
    return found


def _influence_table(ended: Ended) -> Table:
    found = _lds(ended)
    sizes = sorted({size for by_size in found.values() for size in by_size})

    def row(name: str) -> list[str]:
        printed = " / ".join(f"{value:.3f}" for value in _TABLE_2.get(name, ()))
        return [name, printed or "–", *(str(found[name].get(size, "–")) for size in sizes)]

    columns = ["", "paper, Table 2: 1 / 10 / 50 models", *(f"{size} model{'s' * (size > 1)}" for size in sizes)]
    caption = f"LDS. {_over(ended)} The paper's numbers are of nuScenes; those of Figure 4 are not printed."
    return Table(f"Figure 4 and Table 2: {ended.asked.label}", caption, columns, [row(name) for name in found])


def _sweep_table(ended: Ended) -> Table:
    arms = Arms(ended.metrics[0])
    printed = _PRINTED if arms.metrics["headline"] == "miou" else {}

    def row(arm: str) -> list[str]:
        return [arm, printed.get(arm, "–"), str(arms.score(arm)), f"{arms.fact(arm, 'ratio').mean:.1%}"]

    how = ended.metrics[0]["interval"]
    caption = f"{how} The paper's numbers are mIoU on Cityscapes; it prints no others of its Figures 5 and 7."
    columns = ["", "paper", arms.metrics["headline"], "selected"]
    return Table(f"Figures 5 and 7: {ended.asked.label}", caption, columns, [row(arm) for arm in arms.names])


def _instruction_table(ended: Ended) -> Table:
    arms = Arms(ended.metrics[0])
    columns, printed = _printed("table1")
    printed = {**printed, **{name: row for name, row in _printed("table6")[1].items() if name not in printed}}

    def row(arm: str) -> list[str]:
        of_the_papers_size = not isinstance(arms.at(arm), str)
        of_paper = printed.get(_ROWS.get(arms.selector(arm), ""), []) if of_the_papers_size else []
        figures_of = [str(value) for value in of_paper] + ["–"] * (len(columns) - len(of_paper))
        return [arm, *figures_of, str(arms.score(arm)), f"{arms.fact(arm, 'ratio').mean:.1%}"]

    caption = f"{ended.metrics[0]['interval']} The paper's numbers are percent."
    heads = ["", *(f"paper, {column}" for column in columns), arms.metrics["headline"], "selected"]
    return Table(f"Tables 1 and 6: {ended.asked.label}", caption, heads, [row(arm) for arm in arms.names])


def _printed(name: str) -> tuple[list[str], dict[str, list[Any]]]:
    """The columns and rows of one of the paper's tables, as its configuration has them."""
    config = yaml.safe_load((_CONF / f"{name}.yaml").read_text())
    return list(config["columns"]), {row: list(value["paper"]) for row, value in config["rows"].items()}


def _folds_table(ended: Ended) -> Table:
    metrics = ended.metrics[0]

    def row(folds: str) -> list[str]:
        facts = metrics["folds"][folds]
        scores = [str(mean_interval(facts[split]["values"])) for split in ("test", "targets")]
        return [folds, *scores, f"{facts['selection']['size']['mean']:,.0f}"]

    columns = ["folds", f"{metrics['metric']}, test", f"{metrics['metric']}, targets", "selected"]
    caption = f"{metrics['interval']} The paper prints no numbers of its Figure 8."
    return Table(f"Figure 8: {ended.asked.label}", caption, columns, [row(folds) for folds in metrics["folds"]])


def _time_table(runs: Sequence[Ended]) -> list[Table]:
    timed = [ended for ended in runs if ended.asked.part == "time" and ended.metrics]
    if not timed:
        return []
    printed = _printed("table8")[1]
    rows = [
        [ended.asked.label, str(printed.get(ended.asked.label, ["", "–"])[1]), _seconds(select_seconds(ended))]
        for ended in timed
    ]
    caption = (
        "Of selecting alone, features being there. The paper's are of one H100 and 270,679 candidates in 8,192 "
        "dimensions, ours of the candidates of this scale."
    )
    return [Table("Table 8: seconds to select", caption, ["", "paper", "ours"], rows)]


def _seconds(values: Sequence[float]) -> str:
    interval = mean_interval(values)
    return f"{interval.mean:.2f} s" + (f" [{interval.low:.2f}, {interval.high:.2f}]" if interval.known else "")


def _runs_table(runs: Sequence[Ended]) -> Table:
    def state(ended: Ended) -> str:
        return ended.missing or f"{len(ended.metrics)} run{'s' * (len(ended.metrics) > 1)}"

    rows = [
        [
            ended.asked.label,
            ended.command if ended.asked.overrides else "–",
            state(ended),
            duration(ended.seconds) if ended.metrics else "–",
            ", ".join(str(path) for path in ended.reports) or "–",
        ]
        for ended in runs
    ]
    caption = "Seconds are of the first time, with nothing in the cache."
    return Table("Runs", caption, ["", "command", "what became of it", "took", "report"], rows)


def _over(ended: Ended) -> str:
    seeds = len(ended.metrics)
    return f"Mean and 95% interval over {seeds} seeds." if seeds >= FEWEST else "One seed; intervals by bootstrap."


# --- figures ---------------------------------------------------------------------------------------------------------


def _part_figures(ended: Ended) -> Iterator[Figure]:
    """Named by the run, since every page's figures have names of their own."""
    name = "".join(letter if letter.isalnum() else "_" for letter in ended.asked.label.lower())
    if ended.asked.part == "influence":
        curves = {estimator: list(by_size.items()) for estimator, by_size in _lds(ended).items()}
        drawn = figures.lds_curves(curves, _over(ended))
        yield Figure(f"influence_{name}", f"Figure 4: {ended.asked.label}", drawn.caption, drawn.draw)
    if ended.asked.part in ("sweep", "instruction"):
        arms = Arms(ended.metrics[0])
        points = [
            (arms.selector(arm), arms.fact(arm, "ratio").mean, arms.score(arm))
            for arm in arms.names
            if arms.selector(arm) != "target_only"
        ]
        drawn = figures.sweep(arms.metrics["headline"], points, ended.metrics[0]["interval"])
        yield Figure(f"sweep_{name}", f"By ratio: {ended.asked.label}", drawn.caption, drawn.draw)
    if ended.asked.part in _PICTURES:
        file, title, caption = _PICTURES[ended.asked.part]
        paths = [report.parent / "figures" / f"{file}.png" for report in ended.reports[:1]]
        for path in filter(Path.is_file, paths):  # a sweep by scores, say, has no plane to draw
            yield Figure.of_file(path, f"{file}_{name}", f"{title}: {ended.asked.label}", caption)


def _machine(machine: Mapping[str, Any]) -> str:
    return ", ".join(str(value) for value in machine.values())
