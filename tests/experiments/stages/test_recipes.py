"""What each feature recipe hands to a selector, against the model itself."""

from __future__ import annotations

import weakref
from dataclasses import replace

import hydra
import numpy as np
import pytest
import torch
import yaml

from experiments.frame.methods import features_of
from experiments.stages import OF_ONE_RECIPE, FeatureRecipe, Features, Workbench
from experiments.stages.recipe import SHARED
from experiments.stages.views import views_of
from tarot import InputError
from tarot.gradients.reference import loop_gradients
from tarot.selectors import SELECTORS
from tasks.task import Checkpoint, Task
from tests.experiments.command.test_configs import CONF, choices, composed
from tests.experiments.running import SMALL

OPTIONS = [o for o in SMALL if not o.startswith(("experiment", "task.surrogate"))]
OPTIONS += ["task.surrogate.runs=2", "task.surrogate.checkpoints=2"]


def test_what_all_recipes_share_is_what_an_experiment_of_several_takes():
    """Of what `features` says: the rest is refused beside it."""
    shared = yaml.safe_load((CONF / "recipes" / "every.yaml").read_text())["wfd"]
    assert set(shared) == set(SHARED) and all(value == f"${{features.{key}}}" for key, value in shared.items())
    assert not [one for one in OF_ONE_RECIPE if one.removeprefix("features.") in SHARED]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    return tmp_path_factory.mktemp("recipes")


@pytest.fixture(scope="module")
def task(places) -> Task:
    return hydra.utils.instantiate(composed(*OPTIONS, f"cache_dir={places}").task)


@pytest.fixture(scope="module")
def checkpoints(task) -> list[Checkpoint]:
    return task.checkpoints()


def recipe(name: str, *options: str) -> FeatureRecipe:
    return hydra.utils.instantiate(composed(*OPTIONS, *options, f"features={name}").features)


def made(task: Task, checkpoints: list[Checkpoint], recipe: FeatureRecipe, cache) -> Features:
    return Workbench(task, recipe, cache, "cpu").features(checkpoints)


def at(task: Task, checkpoint: Checkpoint) -> torch.nn.Module:
    model = task.model()
    model.load_state_dict(dict(checkpoint.state))
    return model.eval()


def everyone(images):
    return images.batch(slice(None))


@pytest.mark.parametrize("name", sorted(SELECTORS))
def test_a_selector_and_its_config_name_the_same_features(name):
    config = CONF / "selector" / f"{name}.yaml"
    assert config.is_file(), f"{name} is in SELECTORS, and nobody can run it: write conf/selector/{config.name}"
    wanted = features_of(name)
    assert composed(f"selector={name}").features.kind == wanted and wanted in choices("features")


def test_embeddings_are_the_activations_before_the_last_layer(task, checkpoints, places):
    features = made(task, checkpoints, recipe("embedding"), places)
    assert len(features.candidates) == 2 and features.runs == (0, 1) and features.residuals is None
    for run, rows in enumerate(features.candidates):
        last = [c for c in checkpoints if c.run == run][-1]
        with torch.no_grad():
            expected = at(task, last)[:-1](everyone(task.candidates())[0])
        np.testing.assert_allclose(rows[:], expected, rtol=1e-5, atol=1e-6)


def test_error_norms_are_of_the_first_checkpoints(task, checkpoints, places):
    features = made(task, checkpoints, recipe("el2n"), places)
    images, labels = everyone(task.candidates())
    for run, scores in enumerate(features.scores):
        first = next(c for c in checkpoints if c.run == run)
        with torch.no_grad():
            probabilities = at(task, first)(images).softmax(1)
        wrong = probabilities - torch.nn.functional.one_hot(labels, 10)
        np.testing.assert_allclose(scores, wrong.norm(dim=1), rtol=1e-5)


def test_less_compares_adam_steps_with_plain_gradients_in_one_space(task, checkpoints, places):
    features = made(task, checkpoints, recipe("less", "features.projection=identity"), places)
    assert len(features.candidates) == 4 and features.learning_rates == tuple(c.learning_rate for c in checkpoints)
    for candidates, targets, checkpoint in zip(features.candidates, features.targets, checkpoints, strict=True):
        model = at(task, checkpoint)
        of_targets = loop_gradients(model, task.losses, everyone(task.targets()))
        np.testing.assert_allclose(targets[:], torch.cat([g.flatten(1) for g in of_targets.values()], 1), atol=1e-5)
        steps = []
        for name, g in loop_gradients(model, task.losses, everyone(task.candidates())).items():
            state = checkpoint.optimizer_state[name]
            t, g = float(state["step"]) + 1, g.double()
            m = (0.9 * state["exp_avg"].double() + 0.1 * g) / (1 - 0.9**t)
            v = (0.999 * state["exp_avg_sq"].double() + 0.001 * g**2) / (1 - 0.999**t)
            steps.append((m / (v.sqrt() + 1e-8)).flatten(1))
        np.testing.assert_allclose(candidates[:], torch.cat(steps, 1), rtol=1e-3, atol=1e-4)


def test_less_needs_adam(task, checkpoints, places):
    without = [replace(c, optimizer_state=None) for c in checkpoints]
    with pytest.raises(InputError, match="optimizer"):
        made(task, without, recipe("less"), places)


def test_less_of_sgd_is_of_plain_gradients_and_says_so(places, caplog):
    """SGD's step is the gradient; there are no moments to scale it by."""
    task = hydra.utils.instantiate(composed(*OPTIONS, "task.train.optimizer=sgd", f"cache_dir={places}").task)
    checkpoints = task.checkpoints()
    with caplog.at_level("INFO", logger="tarot"):
        features = made(task, checkpoints, recipe("less"), places)
    assert "SGD trained the surrogates, so less compares plain gradients" in caplog.text
    plain = made(task, checkpoints, recipe("gradients"), places)
    assert features.preconditioner is None and features.fingerprint == plain.fingerprint
    assert features.learning_rates == tuple(checkpoint.learning_rate for checkpoint in checkpoints)
    for rows, expected in zip(features.candidates, plain.candidates, strict=True):
        np.testing.assert_array_equal(rows[:], expected[:])
    with pytest.raises(InputError, match="Adam"):
        made(task, checkpoints, recipe("less", "features.preconditioner=adam"), places)


def test_less_of_adam_has_nothing_to_say(task, checkpoints, places, caplog):
    with caplog.at_level("INFO", logger="tarot"):
        features = made(task, checkpoints, recipe("less"), places)
    assert "plain gradients" not in caplog.text and features.preconditioner == "adam"


def test_influences_are_kept_and_their_features_are_plain_gradients(task, checkpoints, places):
    asked = recipe("influence")
    features = made(task, checkpoints, asked, places)
    plain = made(task, checkpoints, recipe("gradients", "features.checkpoints=last"), places)
    assert [s.shape for s in features.scores] == [(60,), (60,)] and plain.scores is None
    for a, b in zip(features.candidates, plain.candidates, strict=True):
        np.testing.assert_array_equal(a[:], b[:])

    written = {file: file.stat().st_mtime_ns for file in places.rglob("*") if file.is_file()}
    again = made(task, checkpoints, asked, places)
    np.testing.assert_array_equal(again.scores, features.scores)
    assert {file: file.stat().st_mtime_ns for file in written} == written, "influences were computed again"


def test_one_model_does_for_all_checkpoints(task, checkpoints, tmp_path, monkeypatch):
    """Models of eight billion parameters do not fit side by side, and take minutes to load."""
    known: list[weakref.ref] = []

    def model() -> torch.nn.Module:
        built = type(task).model(task)
        known.append(weakref.ref(built))
        return built

    monkeypatch.setattr(task, "model", model, raising=False)
    made(task, checkpoints, recipe("wfd", "features.checkpoints=all"), tmp_path)
    assert len(checkpoints) > 1 and len(known) == 1 and known[0]() is None


def test_what_selectors_are_given_is_in_the_fingerprint(task, checkpoints, places):
    plain = made(task, checkpoints, recipe("gradients"), places)
    slower = [replace(c, learning_rate=c.learning_rate / (1 + i)) for i, c in enumerate(checkpoints)]
    assert made(task, slower, recipe("gradients"), places).fingerprint != plain.fingerprint
    damped = [recipe("influence", f"features.influence.damping={damping}") for damping in (5.0, 6.0)]
    assert len({made(task, checkpoints, one, places).fingerprint for one in damped}) == 2


@pytest.mark.parametrize("name", ["gradients", "influence"])
def test_another_order_of_candidates_has_features_of_its_own(task, checkpoints, places, monkeypatch, name):
    before, ids = made(task, checkpoints, recipe(name), places), task.ids
    swap = {**{i: i for i in range(60)}, 0: 1, 1: 0}
    monkeypatch.setattr(task, "ids", lambda split: [ids(split)[swap.get(i, i)] for i in range(len(ids(split)))])
    assert made(task, checkpoints, recipe(name), places).fingerprint != before.fingerprint


def test_recipes_share_what_is_the_same(task, checkpoints, places):
    cache = places / "shared"
    made(task, checkpoints, recipe("gradients"), cache)
    stores = set((cache / "features").glob("[!.]*"))
    assert len(stores) == 8  # two runs, two checkpoints, two splits
    made(task, checkpoints, recipe("wfd", "features.aggregate=per_checkpoint"), cache)
    assert set((cache / "features").glob("[!.]*")) == stores
    made(task, checkpoints, recipe("less"), cache)
    new = set((cache / "features").glob("[!.]*")) - stores
    assert len(new) == 4 and all("candidates" in path.name for path in new), "targets' gradients are plain"


def test_views(checkpoints):
    def names(*how: str) -> list[list[str]]:
        return [[c.name for c in group] for group in views_of(checkpoints, *how)]

    assert names("mean") == [["run0-step5", "run0-step10"], ["run1-step5", "run1-step10"]]
    assert names("per_checkpoint") == [["run0-step5"], ["run0-step10"], ["run1-step5"], ["run1-step10"]]
    assert names("per_checkpoint", "first") == [["run0-step5"], ["run1-step5"]]
    assert names("mean", "last") == [["run0-step10"], ["run1-step10"]]


def test_of_runs_keeps_what_belongs_together(task, checkpoints, places):
    features = made(task, checkpoints, recipe("gradients"), places)
    one = features.of_runs(1)
    assert one.runs == (0, 0) and one.learning_rates == features.learning_rates[:2]
    assert len(one.residuals) == len(one.candidates) == 2 and one.scores is None
