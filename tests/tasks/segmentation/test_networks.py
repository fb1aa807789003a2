"""Networks of timm and of transformers, by name or from a folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("torchvision")
pytest.importorskip("transformers")

import transformers

from tarot import InputError
from tarot.gradients import GradientFeatures, Projection, loop_gradients
from tasks.segmentation import Architecture
from tasks.segmentation.model import Segmenter
from tasks.segmentation.networks import OfTransformers
from tasks.segmentation.scenes import IGNORE
from tasks.segmentation.task import _losses

WIDTHS = {"hidden_sizes": [8] * 4, "depths": [1] * 4, "num_attention_heads": [1] * 4, "decoder_hidden_size": 16}
IMAGES = torch.randn(2, 3, 32, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """SegFormers of four classes: bare (a config alone), whole, a classifier's backbone, and others."""
    folder = tmp_path_factory.mktemp("segformers")
    torch.manual_seed(0)
    config = transformers.SegformerConfig(**WIDTHS, num_labels=4)
    config.save_pretrained(folder / "bare")
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(folder / "whole")
    transformers.SegformerForImageClassification(config).save_pretrained(folder / "classifier")
    shutil.copytree(folder / "whole", folder / "wider")
    wider = json.loads((folder / "wider" / "config.json").read_text())
    (folder / "wider" / "config.json").write_text(json.dumps({**wider, "decoder_hidden_size": 24}))
    shutil.copytree(folder / "whole", folder / "torn")
    (folder / "torn" / "model.safetensors").write_bytes(b"nonsense")
    shutil.copytree(folder / "whole", folder / "kernels")
    asking = {**wider, "attn_implementation": "somebody/kernels"}
    (folder / "kernels" / "config.json").write_text(json.dumps(asking))
    (folder / "code").mkdir()
    code = {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "mine.Mine", "AutoModelForSemanticSegmentation": "mine.Net"},
    }
    (folder / "code" / "config.json").write_text(json.dumps(code))
    (folder / "code" / "mine.py").write_text("raise SystemExit('the code of a folder was run')")
    return folder


def differences(model: Segmenter) -> dict[str, float]:
    """Of features to the loop, by parameter, relative to the loop's of all."""
    labels = torch.randint(0, 3, (2, 32, 64), generator=torch.Generator().manual_seed(1))
    labels[0, :9] = IGNORE

    def losses(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return _losses(model(batch[0]), batch[1])

    features = GradientFeatures(model, losses, Projection("identity"))
    columns, start, found = features((IMAGES, labels)), 0, {}
    expected = loop_gradients(model, losses, (IMAGES, labels))
    total = torch.cat([rows.flatten() for rows in expected.values()]).norm()
    for name, rows in expected.items():
        ours = columns[:, start : start + rows[0].numel()]
        start += rows[0].numel()
        found[name] = float((ours - rows.flatten(1)).norm() / total)
    assert start == columns.shape[1] and total > 0
    assert not [name for name, how in features.coverage.covered if how.startswith("per sample")]
    return found


def test_a_folder_of_transformers(folder):
    whole = Architecture(str(folder / "whole"))
    model = whole.build(3).eval()
    assert model(IMAGES).shape == (2, 3, 32, 64) and model.embeddings(IMAGES).shape == (2, 16)
    assert max(differences(model).values()) < 1e-5
    given = transformers.SegformerForSemanticSegmentation.from_pretrained(folder / "whole").state_dict()
    own = model.net.net.state_dict()
    assert [name for name in own if not own[name].equal(given[name])] == [  # tells three classes and not four
        "decode_head.classifier.weight",
        "decode_head.classifier.bias",
    ]
    assert all(a.equal(given[name]) for name, a in whole.build(4).net.net.state_dict().items())
    recipes = [Architecture(str(folder / name)).recipe() for name in ("whole", "bare", "wider")]
    assert len({recipe["files"] for recipe in recipes}) == 3 and recipes[0]["kind"] == "transformers"


def test_what_a_folder_has_no_weights_of_is_drawn_and_said(folder, caplog):
    caplog.set_level("INFO", logger="tarot")
    torch.manual_seed(1)
    bare = [Architecture(str(folder / "bare")).build(3).net.net.state_dict() for _ in range(2)]
    assert not bare[0]["decode_head.linear_fuse.weight"].equal(bare[1]["decode_head.linear_fuse.weight"])
    given = transformers.SegformerForImageClassification.from_pretrained(folder / "classifier").state_dict()
    own = Architecture(str(folder / "classifier")).build(3).net.net.state_dict()
    assert all(own[name].equal(value) for name, value in given.items() if name.startswith("segformer."))
    assert "classifier has no weights of decode_head, which are drawn at random" in caplog.text


@pytest.mark.parametrize(
    "backbone, says",
    [
        ("{}/wider", r"the weights in .*wider are of another network: decode_head\.\S+ does not fit; fetch the folder"),
        ("{}/torn", r"torn is no model of transformers that can be made \("),
        ("{}/code", r"code is no model of transformers that can be made \("),
        ("{}/kernels", r"asks for attn_implementation 'somebody/kernels', which is code on the hub"),
        ("transformers/bert", r"is no model for semantic segmentation of transformers, which are beit, .*segformer"),
        (
            "{}/nowhere",
            r"must be resnet50, .* or small, timm/NAME, transformers/TYPE, or a folder .* it is '.*nowhere'",
        ),
    ],
)
def test_what_is_no_network(folder, backbone, says):
    with pytest.raises(InputError, match=says):
        Architecture(backbone.format(folder)).build(3)


def test_weights_come_with_a_folder_of_transformers(folder):
    with pytest.raises(InputError, match=r"has the weights of its folder; leave w\.pt out"):
        Architecture(str(folder / "whole"), weights="w.pt")


def test_images_of_another_size_than_a_network_was_made_for():
    class Net(nn.Module):
        def forward(self, pixel_values: Tensor) -> Tensor:
            raise ValueError("Input image size doesn't match")

    with pytest.raises(InputError, match=r"does not take images of 32 x 64 .* set task\.data\.height and"):
        Segmenter(OfTransformers(Net(), 3))(IMAGES)


def test_backbones_of_timm(tmp_path):
    timm = pytest.importorskip("timm")
    name = "test_resnet"
    torch.manual_seed(0)
    model = Architecture(f"timm/{name}").build(3).eval()
    assert model(IMAGES).shape == (2, 3, 32, 64) and model.embeddings(IMAGES).shape == (2, 256)
    assert max(differences(model).values()) < 1e-5
    classifier = timm.create_model(name, num_classes=7)
    torch.save(classifier.state_dict(), tmp_path / "w.pt")
    given, path = classifier.state_dict(), str(tmp_path / "w.pt")
    loaded = Architecture(f"timm/{name}", weights=path).build(3).net.backbone.net.state_dict()
    assert all(value.equal(given[key]) for key, value in loaded.items())
    with pytest.raises(InputError, match="of another network"):
        Architecture("timm/test_vit", weights=path).build(3)
    for spelt in ("test_vit", "test_convnext"):  # by size, and with names of its own
        assert Architecture(f"timm/{spelt}").build(3).eval()(IMAGES).shape == (2, 3, 32, 64)
    with pytest.raises(InputError, match="timm has no model 'hf-hub:timm/resnet18'"):
        Architecture("timm/hf-hub:timm/resnet18").build(3)


def test_timm_is_a_package_of_its_own(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"timm/resnet18 needs the package: pip install"):
        Architecture("timm/resnet18").build(3)
