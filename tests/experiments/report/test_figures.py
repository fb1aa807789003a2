"""Figures and tables at their edges, and the numbers in them."""

from __future__ import annotations

import io
import json
import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from experiments.frame import compare
from experiments.report import figures, pictures, style
from experiments.report.findings import selected_by_source
from experiments.report.page import Page, plain
from experiments.report.statistics import Interval, explain, mean_interval
from tarot import Selection
from tarot.selection.problem import SelectionProblem
from tarot.selectors import SELECTORS
from tests.experiments.running import laid_out_flat

RNG = np.random.default_rng(0)


class Points:
    """A task as far as pictures know one. tags, titles: whether it has them."""

    def __init__(self, n: int, m: int, tags: bool = True, titles: bool = True) -> None:
        self.n, self.m, self.tags, self.titles = n, m, tags, titles

    def candidates(self):
        return torch.arange(self.n)

    def targets(self):
        return torch.arange(self.m)

    def candidate_tags(self):
        return np.where(np.arange(self.n) % 2 == 0, "target", "far_away") if self.tags else None

    def lower_is_better(self, metric):
        return False

    def draw(self, sample, axes):
        axes.plot([0, 1], [int(sample), 0])
        if self.titles:
            axes.set_title(f"sample {int(sample)}", loc="center")
            axes.set_axis_off()  # as tasks do; the ticks of fifty axes take longer than all else


def problem(n: int, m: int) -> SelectionProblem:
    return SelectionProblem((RNG.normal(size=(n, 4)),), (RNG.normal(size=(m, 4)),), whitening=None)


def chosen(of: SelectionProblem, size: int) -> Selection:
    return SELECTORS["tarot_fixed"](size=size).select(of) if size else SELECTORS["target_only"]().select(of)


def drawn(figure: style.Figure, *, themes: tuple[style.Theme, ...] = ("light", "dark")) -> None:
    """Each theme gives a picture of more than one colour on paper of its own, all of one size. Themes change colours
    alone, and drawing takes its time: of a figure of many cases one or two are drawn in both."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "DPI", 40)
        found = {theme: imread(io.BytesIO(figure.png(theme))) for theme in themes}
    assert len({picture.shape for picture in found.values()}) == 1
    assert all(picture.std() > 0 for picture in found.values())
    for theme, picture in found.items():
        paper = picture[0, 0, :3].mean()
        assert paper > 0.9 if theme == "light" else paper < 0.2
    assert figure.caption.endswith((".", ")")) and figure.title


@pytest.mark.parametrize(
    ("n", "m", "size", "tags"),
    [(30, 3, 6, True), (30, 1, 6, False), (30, 3, 1, True), (3, 2, 3, False), (30, 3, 0, True), (2, 1, 1, False)],
)
def test_every_figure_of_a_selection_is_drawn(n, m, size, tags):
    of, task = problem(n, m), Points(n, m, tags=tags, titles=tags)
    own = chosen(of, size)
    results = {
        "tarot_fixed": Interval(0.5, 0.4, 0.6),
        "random": Interval(0.3),
        "new method": Interval(0.2, values=(0.1, 0.3)),
    }
    with nullcontext() if (m, size) in ((3, 6), (1, 1)) else laid_out_flat():  # t-SNE has one edge: how few they are
        points = figures.embedding(of, own, points=20, seed=0)
    every = [
        pictures.overview(task, own, "accuracy", results, "How.", seed=0),
        pictures.neighbours(task, of, own, seed=0),
        points,
    ]
    if size:
        every += [figures.weights(own), figures.certificate({"own": own.ot_distance}, {"own": own.lower_bound})]
        every += [figures.tags(task.candidate_tags(), own)] if tags else []
    for figure in every:
        both = (m, size) == (3, 6) and figure.name != "overview"  # which is drawn in both below
        drawn(figure, themes=("light", "dark") if both else ("light",))


class Wide(Points):
    """Images 96 x 32, and models that are numbers: 0 predicts black, 1 white; the truth is grey."""

    def test(self):
        return torch.arange(6)

    def draw(self, sample, axes):
        axes.imshow(np.full((32, 96), int(sample)), vmin=0, vmax=self.n)
        axes.set_axis_off()

    def draw_prediction(self, model, sample, axes):
        self.asked.append((model, int(sample)))
        axes.imshow(np.full((32, 96), 0.5 if model is None else model), vmin=0, vmax=1, cmap="gray")
        axes.plot([], [], "s", label="road")
        axes.set_axis_off()


def test_predictions_stand_beside_the_truth():
    task = Wide(30, 5)
    task.asked = []
    figure = pictures.predictions(task, {"random": 0.0, "tarot_otm": 1.0}, seed=0)
    task.asked.clear()
    drawn(figure)
    samples = [sample for model, sample in task.asked if model is None]
    assert len(set(samples)) == 4 and task.asked[:3] == [(m, samples[0]) for m in (None, 0.0, 1.0)]
    assert "random beside tarot_otm" in figure.caption
    canvas = figure.draw()
    shown = [axes for axes in canvas.axes if axes.images]
    assert len(shown) == 16, "sample, truth, and two predictions of four samples"
    assert [text.get_text() for text in canvas.legends[0].get_texts()] == ["road"]


def test_wide_pictures_fill_their_places():
    """Three times as broad as high, so fewer stand in a row, and rows are as high as they must be."""
    task, of = Wide(30, 5), problem(30, 5)
    assert pictures.breadth(task) == pytest.approx(3) and pictures.breadth(Points(3, 3)) == 1
    own = chosen(of, 6)
    figure = pictures.neighbours(task, of, own, seed=0)
    drawn(figure, themes=("light",))
    drawn(pictures.overview(task, own, "accuracy", {"own": Interval(0.5)}, "How.", seed=0), themes=("light",))
    canvas = figure.draw()
    canvas.draw_without_rendering()
    for axes in canvas.axes:
        given, used = axes.get_position(original=True), axes.get_position()
        assert used.width == pytest.approx(given.width, rel=0.05) and used.height > 0.9 * given.height
    assert len(canvas.axes) == 5 * 6


def test_figures_do_not_change_the_selection():
    """Ledger L-19."""
    of = problem(30, 5)
    own = chosen(of, 6)
    before = own.weights.copy(), own.indices.copy(), own.potentials.copy()
    drawn(figures.weights(own))
    drawn(pictures.overview(Points(30, 5), own, "accuracy", {"own": Interval(0.5)}, "How.", seed=0))
    assert all(np.array_equal(a, b) for a, b in zip(before, (own.weights, own.indices, own.potentials), strict=True))


@pytest.mark.parametrize(
    ("weights", "words"), [([1, 1], "occurs once"), ([3, 3], "occurs 3 times"), ([1, 5], "6 times")]
)
def test_weights_are_put_into_words(weights, words):
    own = Selection(np.array([0, 1]), 4, 2, {})
    own._remember("weights", np.array(weights))
    figure = figures.weights(own)
    assert words in figure.caption
    drawn(figure)


def test_curves_are_drawn():
    drawn(figures.layer_curves([[1.0], [1.0, 0.9, 0.95]]))
    curve = {"size": [1, 5, 10], "held_out": [1.0, 0.8, 0.9], "standard_error": [0.1, 0.1, 0.1], "chosen": [5]}
    drawn(figures.held_out_curve(curve))
    drawn(figures.lds_curves({"wfd": [(1, Interval(0.1, 0.0, 0.2))], "new": [(1, Interval(0.2, 0.1, 0.3))]}, "How."))
    drawn(figures.sweep("accuracy", [("random", 0.1, Interval(0.5)), ("random", 0.2, Interval(0.6, 0.5, 0.7))], "How."))


@pytest.mark.parametrize("name", [*SELECTORS, "tempered", "wfd", "trak", "a method of tomorrow"])
def test_a_method_looks_the_same_everywhere(name):
    assert style.colour(name) == style.colour(f"{name}, ratio 0.1") and style.colour(name).startswith("#")
    assert style.marker(name) == style.marker(f"{name}, ratio 0.1")


def test_selectors_can_be_told_apart():
    assert len({(style.colour(name), style.marker(name)) for name in SELECTORS}) == len(SELECTORS)


# --- numbers ---------------------------------------------------------------------------------------------------------


def test_an_interval_is_students():
    """By hand: 1, 2, 3 has standard error 1/sqrt(3), and t(2) is 4.3027 at 97.5%."""
    interval = mean_interval([1, 2, 3])
    assert interval.mean == 2 and interval.high - 2 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert interval.high - 2 == pytest.approx(2 - interval.low)


def test_intervals_cover_what_they_promise():
    rng = np.random.default_rng(0)
    hits = sum((i := mean_interval(rng.normal(size=5))).low <= 0 <= i.high for _ in range(2000))
    assert 0.93 < hits / 2000 < 0.97


@pytest.mark.parametrize(("values", "shown"), [([0.5], ()), ([0.5, 0.7], (0.5, 0.7))])
def test_too_few_repetitions_have_no_interval(values, shown):
    interval = mean_interval(values)
    assert not interval.known and interval.values == shown and "[" not in str(interval)
    assert "interval" in explain(len(values), "seed") and "95%" not in explain(len(values), "seed")


def test_what_json_does_not_know_becomes_null():
    assert plain({1: (np.float32(2.0), math.nan, np.int64(3)), "a": {"b": math.inf}}) == {
        "1": [2.0, None, 3],
        "a": {"b": None},
    }
    json.dumps(plain({"a": np.bool_(True)}), allow_nan=False)


def test_a_page_escapes_what_it_shows():
    page = Page(title="<script>", kicker="a & b", summary="", config="x: <b>").html()
    assert "<script>" not in page and "&lt;script&gt;" in page and "<b>" not in page


# --- sweeps ----------------------------------------------------------------------------------------------------------


def a_run(folder, number, *overrides, seed=0, accuracy=0.5, idle=(), ratio=0.1):
    selector = next((o.partition("=")[2] for o in overrides if o.startswith("selector=")), "random")
    run = {
        "run": {
            "experiment": "selection", "task": "digits", "features": "wfd", "selector": selector, "seed": seed,
            "overrides": [*overrides, f"seed={seed}"], "not_applied": list(idle),
        },
        "metrics": {"accuracy": accuracy}, "intervals": {"accuracy": [None, None]}, "interval": "One training.",
        "selection": {"size": 5, "ratio": ratio, "ot_distance": 1.0, "lower_bound": 0.9},
    }  # fmt: skip
    (folder / str(number)).mkdir()
    (folder / str(number) / "metrics.json").write_text(json.dumps(run))


def test_seeds_are_averaged_and_nothing_else(tmp_path):
    for number, (ratio, seed) in enumerate([(r, s) for r in ("0.1", "0.2") for s in range(3)]):
        a_run(tmp_path, number, "selector=random", f"selector.ratio={ratio}", seed=seed, accuracy=seed + float(ratio))
    found = compare.settings(tmp_path)
    assert [setting.name for setting in found] == ["ratio 0.1", "ratio 0.2"]
    assert [setting.metric("accuracy").mean for setting in found] == [pytest.approx(1.1), pytest.approx(1.2)]
    assert found[0].metric("accuracy").low == pytest.approx(1.1 - 4.302653 / math.sqrt(3), rel=1e-6)


def test_what_does_not_apply_makes_no_setting(tmp_path):
    idle = ("selector.size", "selector.ratio")
    for number, ratio in enumerate(("0.1", "0.2")):
        a_run(tmp_path, number, "selector=all", f"selector.ratio={ratio}", idle=idle, ratio=1.0)
    a_run(tmp_path, 2, "selector=random", "selector.ratio=0.1")
    assert [(s.name, len(s.runs)) for s in compare.settings(tmp_path)] == [("all", 1), ("random, ratio 0.1", 1)]


def test_a_comparison_of_runs_without_a_common_metric(tmp_path):
    a_run(tmp_path, 0, "selector=random")
    a_run(tmp_path, 1, "selector=all")
    other = json.loads((tmp_path / "1" / "metrics.json").read_text())
    (tmp_path / "1" / "metrics.json").write_text(json.dumps(other | {"metrics": {}, "intervals": {}}))
    compare.write(tmp_path)
    assert (tmp_path / "comparison.csv").read_text().startswith("setting,seeds,size,ratio")
    assert "data:image" not in (tmp_path / "comparison.html").read_text()


def test_a_metric_that_is_not_a_number_is_left_empty_and_the_others_stand(tmp_path):
    for number, seed in enumerate(range(4)):
        a_run(
            tmp_path, number, f"selector={('random', 'all')[number % 2]}", seed=seed, accuracy=(None, 0.5)[number % 2]
        )
    compare.write(tmp_path)
    rows = (tmp_path / "comparison.csv").read_text().splitlines()
    assert rows[1].startswith("random,2,,,") and rows[2].startswith("all,2,0.5,")


def test_distances_in_different_features_are_said_not_to_compare(tmp_path):
    for number, features in enumerate(("wfd", "wfd", "trak")):
        a_run(tmp_path, number, f"selector={number}")
        path = tmp_path / str(number) / "metrics.json"
        path.write_text(path.read_text().replace('"features": "wfd"', f'"features": "{features}"'))
        compare.write(tmp_path)
        page = (tmp_path / "comparison.html").read_text()
        assert ("left out: they are in different spaces" in page) == (features == "trak")


def test_no_run_no_comparison(tmp_path):
    compare.write(tmp_path)
    assert not list(tmp_path.iterdir())


def test_shares_by_dataset_are_counted_and_drawn():
    sources = np.array(["b"] * 6 + ["a"] * 4)
    own = Selection(np.array([0, 6, 7, 8]), 10, 2, {})
    found = selected_by_source(sources, own)
    assert list(found) == ["b", "a"], "in the order of the candidates"
    assert found["a"] == {"candidates": 4, "selected": 3, "share_of_candidates": 0.4, "share_of_selected": 0.75}
    assert found["b"]["selected"] == 1 and found["b"]["share_of_candidates"] == pytest.approx(0.6)
    none = selected_by_source(sources, Selection(np.array([], dtype=np.int64), 10, 2, {}))
    assert none["a"]["selected"] == 0 and math.isnan(none["a"]["share_of_selected"])
    figure = figures.sources(sources, own)
    drawn(figure)
    widths = [patch.get_width() for patch in figure.draw().axes[0].patches]
    assert widths == pytest.approx([0.25, 0.75, 0.6, 0.4])


@pytest.mark.parametrize("name", [r"\frac $a_$ b", "costs $5, not $6", "$", r"$\mathdefault{10^{"])
def test_names_are_text_and_no_formulas(name):
    scores = {name: Interval(0.5, 0.4, 0.6), "random": Interval(0.3, 0.2, 0.4)}
    drawn(figures.arms(name, scores, "One seed."))


def test_axes_say_numbers_and_no_formulas():
    curve = {"size": [10, 30, 100, 4000], "held_out": [4.0, 3, 2, 1], "standard_error": [0.1] * 4, "chosen": [100]}
    with style.themed("light"):
        canvas = figures.held_out_curve(curve).draw()
        canvas.draw_without_rendering()
        labels = [label.get_text() for label in canvas.axes[0].get_xticklabels(which="both")]
    assert {"10", "100", "1,000"} <= set(labels) and not any("$" in label for label in labels)
