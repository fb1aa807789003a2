"""What the paper claims, and what the metrics of our runs say of it.

A claim is a list of comparisons. Each is a difference over repetitions that is above 0 where the claim holds of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from experiments.paper.runs import Ended
from experiments.report import Interval, mean_interval

Verdict = Literal["holds", "does not hold", "cannot be told", "not run"]
OURS = ("tarot_fixed", "tarot_exact", "tarot_otm")
_REFERENCES = ("all", "target_only", "oracle")
_ABLATED = {
    "wfd_unwhitened": "without whitening",
    "wfd_unnormalised": "without unit norm",
    "wfd_neither": "without both",
}


@dataclass(frozen=True)
class Comparison:
    """what: "less at 5%", which something is compared with. by: how far that is ahead."""

    what: str
    by: Interval

    @property
    def verdict(self) -> Verdict:
        if not self.by.known or self.by.low <= 0 <= self.by.high:
            return "cannot be told"
        return "holds" if self.by.low > 0 else "does not hold"


@dataclass(frozen=True)
class Finding:
    """claim, where: the paper's. of: the run that it is asked of. comparisons: none where there was no run, and `note`
    says why."""

    claim: str
    where: str
    of: str
    comparisons: Sequence[Comparison] = ()
    note: str = ""

    @property
    def verdict(self) -> Verdict:
        """It holds if it does of every comparison, and does not if there is one of which it does not."""
        verdicts = {one.verdict for one in self.comparisons}
        if not verdicts:
            return "not run"
        if "does not hold" in verdicts:
            return "does not hold"
        return "holds" if verdicts == {"holds"} else "cannot be told"

    @property
    def weakest(self) -> Comparison | None:
        """The comparison that speaks for the claim least; one that is not known, if there is one."""
        unknown = (one for one in self.comparisons if math.isnan(one.by.mean))
        return next(unknown, None) or min(self.comparisons, key=lambda one: one.by.mean, default=None)


def findings(runs: Sequence[Ended]) -> list[Finding]:
    """All of the claims, run by run; none of a run that the scale leaves out, which the table of runs tells."""
    ask = {"influence": _influence, "sweep": _sweep, "folds": _folds, "instruction": _instruction}
    asked = [ended for ended in runs if ended.asked.overrides]
    found = [one for ended in asked if ended.asked.part in ask for one in ask[ended.asked.part](ended)]
    return [*found, *_time([ended for ended in asked if ended.asked.part == "time"])]


def _influence(ended: Ended) -> Iterator[Finding]:
    claims = {
        "WFD predicts models' outputs better than TRAK, by one model or many": ("Figure 4", {"trak": "TRAK"}),
        "It does so where TRAK has the ridge that suits it best": ("", {"trak_ridge": "TRAK with a ridge"}),
        "Whitening and unit norm are both worth something": ("Table 2", _ABLATED),
    }
    for claim, (where, others) in claims.items():
        if not ended.metrics:
            yield Finding(claim, where, ended.asked.label, note=ended.missing)
            continue
        known = {name: text for name, text in others.items() if name in ended.metrics[0]["lds"]}
        comparisons = [one for name, text in known.items() for one in _lds_differences(ended.metrics, name, text)]
        if known:
            yield Finding(claim, where, ended.asked.label, comparisons, _without_score(ended.metrics, known))


def _lds_differences(metrics: Sequence[Mapping[str, Any]], other: str, text: str) -> Iterator[Comparison]:
    """WFD (by ZCA, as the paper has it here) less another, by number of models. Over seeds; of a single one the
    interval is its own, over subset models and targets."""
    for size in metrics[0]["lds"]["wfd_zca"]:
        pairs = [(one["lds"]["wfd_zca"][size].get("lds"), one["lds"][other][size].get("lds")) for one in metrics]
        if any(value is None for pair in pairs for value in pair):
            continue
        by = mean_interval([ours - theirs for ours, theirs in pairs])
        first = next(iter(metrics[0]["lds"]))  # whose differences to the others are known
        paired = metrics[0]["differences"].get(other, {}).get(size) if first == "wfd_zca" else None
        if len(metrics) == 1 and paired is not None:
            by = Interval(*paired)
        yield Comparison(f"{text}, {size} model{'s' * (int(size) > 1)}", by)


def _without_score(metrics: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> str:
    reasons = [
        f"{text} has no score: {facts['reason']}"
        for name, text in names.items()
        for facts in metrics[0]["lds"][name].values()
        if "reason" in facts
    ]
    return reasons[0] if reasons else ""


@dataclass(frozen=True)
class Arms:
    """Of a sweep's metrics.json: what each arm came to in every repetition."""

    metrics: Mapping[str, Any]

    @property
    def names(self) -> list[str]:
        return list(self.metrics["arms"])

    def selector(self, arm: str) -> str:
        return self.metrics["arms"][arm]["selector"]

    def values(self, arm: str) -> list[float]:
        return self.metrics["arms"][arm]["metrics"][self.metrics["headline"]]["values"]

    def score(self, arm: str) -> Interval:
        return mean_interval(self.values(arm))

    def fact(self, arm: str, name: str) -> Interval:
        return mean_interval(self.metrics["arms"][arm]["selection"][name]["values"])

    def ahead(self, arm: str, other: str) -> Comparison:
        """How far the first is better than the second, pair by pair."""
        sign = -1 if self.metrics["lower_is_better"] else 1
        pairs = zip(self.values(arm), self.values(other), strict=True)
        return Comparison(other, mean_interval([sign * (one - two) for one, two in pairs]))

    def aheads(self, arm: str, others: Sequence[str]) -> list[Comparison]:
        return [self.ahead(arm, other) for other in others if other in self.names and arm in self.names]

    def at_same_size(self, ours: Sequence[str], others: Sequence[str] = ()) -> list[Comparison]:
        """Of TAROT's arms against each other method's of the same size; others: only these, if any are named."""
        return [
            Comparison(f"{arm} and {other}", self.ahead(arm, other).by)
            for arm in self.names
            for other in self.names
            if self.selector(arm) in ours
            and self.selector(other) not in (*OURS, *_REFERENCES)
            and (not others or self.selector(other) in others)
            and self.at(other) == (self.at(arm) or self.selector(arm))
        ]

    def at(self, arm: str) -> float | str | None:
        return self.metrics["arms"][arm]["at"]

    def at_ratios(self, selector: str) -> list[str]:
        """Its arms at ratios that were asked for: not at the size that another method chose."""
        return [arm for arm in self.names if self.selector(arm) == selector and isinstance(self.at(arm), int | float)]


def _sweep(ended: Ended) -> Iterator[Finding]:
    where = "Figures 5, 7"
    yield from _of_arms(
        ended,
        {
            ("All candidates are worse than none, the targets alone", "4.2"): lambda arms: arms.aheads(
                "target_only", ["all"]
            ),
            ("TAROT is above the other methods at every ratio", where): lambda arms: arms.at_same_size(OURS),
            **_transfer(ended, "4.3"),
            ("OTM is above all candidates", where): lambda arms: arms.aheads("tarot_otm", ["all"]),
            ("OTM's own ratio is the best", where): lambda arms: arms.aheads(
                "tarot_otm", arms.at_ratios("tarot_fixed")
            ),
        },
    )


def _instruction(ended: Ended) -> Iterator[Finding]:
    yield from _of_arms(
        ended,
        {
            ("TAROT is above random and LESS at 5%", "Table 1"): lambda arms: arms.at_same_size(
                ["tarot_fixed"], ["random", "less"]
            ),
            ("TAROT is above TSDS at 5%", "Table 6"): lambda arms: arms.at_same_size(["tarot_fixed"], ["tsds"]),
            **_transfer(ended, "4.4"),
            ("OTM is above all candidates", "Table 1"): lambda arms: arms.aheads("tarot_otm", ["all"]),
            ("OTM's own ratio is above 5%", "Table 1"): lambda arms: arms.aheads(
                "tarot_otm", arms.at_ratios("tarot_fixed")
            ),
        },
    )


def _transfer(ended: Ended, where: str) -> dict[tuple[str, str], Any]:
    if not ended.asked.transfer:
        return {}
    claim = "What one model selects helps another, more than as many random candidates"
    return {(claim, where): lambda arms: arms.at_same_size(OURS, ["random"])}


def _of_arms(ended: Ended, claims: Mapping[tuple[str, str], Any]) -> Iterator[Finding]:
    for (claim, where), compare in claims.items():
        comparisons = compare(Arms(ended.metrics[0])) if ended.metrics else []
        note = ended.missing if comparisons or not ended.metrics else "the run has no such arms"
        yield Finding(claim, where, ended.asked.label, comparisons, note)


def _folds(ended: Ended) -> Iterator[Finding]:
    """Of `tarot_otm`'s folds."""
    best, falling = "Ten folds are the best on test", "The more folds, the worse on the targets"
    if not ended.metrics:
        yield from (Finding(claim, "Figure 8", ended.asked.label, note=ended.missing) for claim in (best, falling))
        return
    metrics = ended.metrics[0]
    by_folds = {int(folds): facts for folds, facts in metrics["folds"].items()}
    sign = -1 if metrics["lower_is_better"] else 1

    def ahead(one: int, two: int, split: str) -> Interval:
        pairs = zip(by_folds[one][split]["values"], by_folds[two][split]["values"], strict=True)
        return mean_interval([sign * (first - second) for first, second in pairs])

    others = [Comparison(f"{k} folds", ahead(10, k, "test")) for k in by_folds if k != 10 and 10 in by_folds]
    yield Finding(best, "Figure 8", ended.asked.label, others, "" if others else "the run has no ten folds")
    least, most = min(by_folds), max(by_folds)
    yield Finding(falling, "Figure 8", ended.asked.label, [Comparison(f"{most} folds", ahead(least, most, "targets"))])


def _time(runs: Sequence[Ended]) -> Iterator[Finding]:
    """Of runs that select and do nothing else, each by one method."""
    claim = "TSDS takes longer to select than TAROT"
    tsds = [ended for ended in runs if "selector=tsds" in ended.asked.overrides and ended.metrics]
    others = [
        ended for ended in runs if any(f"selector={name}" in ended.asked.overrides for name in OURS) and ended.metrics
    ]
    if tsds and others:
        yield Finding(claim, "Table 8", "", [_slower(tsds[0], other) for other in others])
    elif runs:
        yield Finding(claim, "Table 8", "", note=next((ended.missing for ended in runs if ended.missing), ""))


def _slower(one: Ended, other: Ended) -> Comparison:
    """By how many seconds the first takes longer, seed by seed."""
    pairs = zip(select_seconds(one), select_seconds(other), strict=False)
    return Comparison(other.asked.label, mean_interval([first - second for first, second in pairs]))


def select_seconds(ended: Ended) -> list[float]:
    return [float(one["seconds"]["select"]) for one in ended.metrics]
