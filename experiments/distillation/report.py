"""What the distillation of a set says: accuracies of arms, by images per class and kind of labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from experiments.distillation import figures
from experiments.distillation.findings import ALL, REFERENCE, Findings
from experiments.report import Interval, Result, Table, Tile, explain, mean_interval

if TYPE_CHECKING:
    from experiments.distillation.pool import Pool
    from experiments.frame.run import Run


def result(run: Run, found: Findings, pool: Pool, shown: int) -> Result:
    how = explain(found.seeds, "seed") + " A seed is of synthesis and student; the teacher is one."
    return Result(
        title=f"{run.name['task']}, distillation",
        metrics=_metrics(found),
        summary=_summary(found),
        tiles=_tiles(found),
        tables=[
            _accuracies(found, found.students[0], "Accuracy by images per class", how),
            *_gains(found, how),
            *[
                _accuracies(found, student, f"Accuracy of another network: {student}", how)
                for student in found.students[1:]
            ],
            _distances(found),
        ],
        figures=figures.all_of(found, pool, shown, how),
        made_of={"experiment": run.config["experiment"], "teacher": pool.made_of["teacher"]},
    )


def _metrics(found: Findings) -> dict[str, Any]:
    cells = {
        f"accuracy/{arm}/{labels}/{m or ALL}": mean_interval(values)
        for (arm, student, labels, m), values in found.accuracies.items()
        if student == found.students[0]
    }
    others = {
        f"accuracy/{student}/{arm}/{labels}/{m or ALL}": mean_interval(values)
        for (arm, student, labels, m), values in found.accuracies.items()
        if student != found.students[0]
    }
    gains, recoveries = {}, {}
    for m in found.per_class:
        for arm in found.small:
            if REFERENCE in found.arms and arm != REFERENCE:
                for labels in found.labels:
                    gains[f"{arm}/{labels}/{m}"] = _numbers(found.gain(arm, labels, m))
            if ALL in found.arms and "hard" in found.labels:
                recoveries[f"{arm}/{m}"] = _numbers(found.recovery(arm, m))
    return {
        "metrics": {name: one.mean for name, one in (cells | others).items()},
        "intervals": {name: [one.low, one.high] for name, one in (cells | others).items()},
        "improvement_over_random": gains,
        "hard_label_recovery": recoveries,
        "distance": {arm: {m: found.distance(arm, m) for m in found.per_class} for arm in found.small},
        "teacher": {"accuracy": found.teacher},
        "images": {"classes": dict(zip(found.names, found.classes, strict=True))},
    }


def _numbers(one: Interval) -> list[float]:
    return [one.mean, one.low, one.high]


def _summary(found: Findings) -> str:
    m, labels = found.per_class[0], "hard" if "hard" in found.labels else found.labels[0]
    best = max(found.small, key=lambda arm: found.accuracy(arm, labels, m).mean)
    said = (
        f"At {m} image{'s' * (m > 1)} per class and {labels} labels {best} is best: {found.accuracy(best, labels, m)}"
    )
    if REFERENCE not in found.arms or best == REFERENCE:
        return said + "."
    said += f", {found.gain(best, labels, m)} above as many random images"
    if labels == "hard" and "soft" in found.labels:
        said += f"; with soft labels {found.gain(best, 'soft', m)} of that are left"
    return said + "."


def _tiles(found: Findings) -> list[Tile]:
    m = found.per_class[0]
    tiles = [Tile("teacher", f"{found.teacher:.3f}", "all images")]
    for labels in found.labels:
        best = max(found.small, key=lambda arm: found.accuracy(arm, labels, m).mean)
        tiles.append(Tile(f"{best}, {labels} labels", f"{found.accuracy(best, labels, m).mean:.3f}", f"{m} per class"))
    return tiles


def _columns(found: Findings) -> list[tuple[int, str]]:
    return [(m, labels) for m in found.per_class for labels in found.labels]


def _accuracies(found: Findings, student: str, title: str, how: str) -> Table:
    columns = _columns(found)
    rows = [[arm, *(str(found.accuracy(arm, labels, m, student)) for m, labels in columns)] for arm in found.arms]
    best = max(range(len(found.small)), key=lambda row: found.accuracy(found.small[row], *columns[0][::-1]).mean)
    caption = (
        f"On test, at the end of trainings of the same length, rate and views. Hard labels are the classes, soft ones "
        f"the teacher's logits of every view. all: every candidate, as long. The teacher has {found.teacher:.3f}. {how}"
    )
    return Table(title, caption, ["", *(f"{m}, {labels}" for m, labels in columns)], rows, strong=best)


def _gains(found: Findings, how: str) -> list[Table]:
    if REFERENCE not in found.arms:
        return []
    columns = _columns(found)
    others = [arm for arm in found.small if arm != REFERENCE]
    rows = [[f"{arm} − random", *(str(found.gain(arm, labels, m)) for m, labels in columns)] for arm in others]
    if ALL in found.arms and "hard" in found.labels:
        rows += [
            [
                f"all − {arm}",
                *(str(found.recovery(arm, m)) if labels == "hard" else "–" for m, labels in columns),
            ]
            for arm in found.small
        ]
    caption = f"Differences of accuracies in pairs of one seed each. {how}"
    return [
        Table("What it gains over random images", caption, ["", *(f"{m}, {labels}" for m, labels in columns)], rows)
    ]


def _distances(found: Findings) -> Table:
    rows = [[arm, *(f"{found.distance(arm, m):.3f}" for m in found.per_class)] for arm in found.small]
    caption = (
        "Squared 2-Wasserstein distance between features of an arm's images and those of their class, mean over "
        "classes and seeds. A smaller distance is no better set: statistics of the first layers are not in it."
    )
    return Table("Distance to the classes in feature space", caption, ["", *map(str, found.per_class)], rows)
