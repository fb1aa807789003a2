"""Segmentation networks as a module that gives logits and remembers how it did on validation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torchvision.models import segmentation
from torchvision.models.segmentation.lraspp import LRASPP

from tarot import InputError
from tarot.common import Share, check_options, first_line
from tarot.features import BAD_TORCH
from tasks.common.contents import hash_file
from tasks.segmentation.networks import (
    TIMM,
    OfTransformers,
    TimmBackbone,
    identity,
    is_of_transformers,
    names_of_timm,
    network_of_transformers,
    timm_network,
)
from tasks.segmentation.small_network import small_network

OfTorchvision: TypeAlias = segmentation.DeepLabV3 | segmentation.FCN | LRASPP
Net: TypeAlias = OfTorchvision | OfTransformers
_OF_TORCHVISION = {
    "resnet50": segmentation.deeplabv3_resnet50,
    "resnet101": segmentation.deeplabv3_resnet101,
    "mobilenet_v3_large": segmentation.deeplabv3_mobilenet_v3_large,
    "fcn_resnet50": segmentation.fcn_resnet50,
    "fcn_resnet101": segmentation.fcn_resnet101,
    "lraspp_mobilenet_v3_large": segmentation.lraspp_mobilenet_v3_large,
}
_IMAGENET_HEADS = ("fc.", "classifier.")  # of the classifiers whose weights a backbone can start from


@dataclass(frozen=True)
class Architecture:
    """backbone: of DeepLabV3, resnet50 (39.6M parameters with the head of 19 classes), resnet101, mobilenet_v3_large
    (11.0M), or small (0.3M): six convolutions of our own and a narrow head, for images of 64 x 128 pixels and minutes
    of a CPU; or another network of torchvision, fcn_resnet50, fcn_resnet101 or lraspp_mobilenet_v3_large (3.2M);
    timm/NAME for one of timm's backbones under DeepLabV3's head; a folder with a model for semantic segmentation of
    transformers, with or without weights; or transformers/TYPE, such as transformers/segformer, of random weights.

    batch_norm_momentum: null is the network's own, .1, and .01 of MobileNetV3: too slow for trainings of
    a few hundred steps, at whose end evaluation mode would still use statistics of its beginning.
    weights: a file of torch with a state_dict to start from, null for none: of torchvision's network with this backbone
    (its last layer is left out where the classes are others) or of the backbone as a classifier of ImageNet, timm's
    too. Folders of transformers have their own.
    """

    backbone: str = "mobilenet_v3_large"
    batch_norm_momentum: Share | None = None
    weights: str | None = None

    def __post_init__(self) -> None:
        check_options(self, "task.architecture")
        known = (*_OF_TORCHVISION, "small")
        if self.backbone not in known and not self.backbone.startswith(TIMM) and not self._is_of_transformers:
            raise InputError(
                f"task.architecture.backbone must be {', '.join(known[:-1])} or {known[-1]}, timm/NAME, "
                "transformers/TYPE, or a folder with a model of transformers (its config.json); it is "
                f"{self.backbone!r}"
            )
        if self.weights is not None and self._is_of_transformers:
            raise InputError(
                f"task.architecture.weights: a network of transformers has the weights of its folder; leave "
                f"{self.weights} out, and give the folder as task.architecture.backbone"
            )

    @property
    def _is_of_transformers(self) -> bool:
        return is_of_transformers(self.backbone)

    def recipe(self, cache: Path | None = None) -> dict[str, Any]:
        """What determines the model, as plain data. cache: where hashes of files are remembered."""
        recipe: dict[str, Any] = {
            "kind": "torchvision" if "_resnet" in self.backbone or "lraspp" in self.backbone else "deeplabv3",
            "backbone": self.backbone,
            "batch_norm_momentum": self.batch_norm_momentum,
        }
        if self._is_of_transformers:
            recipe |= {"kind": "transformers", **identity(self.backbone, cache)}
        if self.weights is not None:
            recipe["weights"] = hash_file(_existing(self.weights), cache)
        return recipe

    def build(self, classes: int) -> Segmenter:
        net: Net
        if self.backbone == "small":
            net = small_network(classes)
        elif self._is_of_transformers:
            net = network_of_transformers(self.backbone, classes)
        elif self.backbone.startswith(TIMM):
            net = timm_network(self.backbone, classes)
        else:
            make = _OF_TORCHVISION[self.backbone]
            net = make(weights=None, weights_backbone=None, num_classes=classes, aux_loss=None)
        if self.batch_norm_momentum is not None:
            for module in net.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = self.batch_norm_momentum
        if self.weights is not None and not isinstance(net, OfTransformers):
            _load(net, _existing(self.weights))
        return Segmenter(net)


class Segmenter(nn.Module):
    """Images [B, 3, H, W] -> logits [B, classes, H, W].

    validation: the best mIoU on the validation split during training and the last; -1 where there was none. A buffer,
    so that it stays with the weights that it speaks of.
    """

    validation: Tensor

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("validation", torch.full((2,), -1.0, dtype=torch.float64))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images)["out"]
        return logits

    def embeddings(self, images: Tensor) -> Tensor:
        """What the last convolution is given, averaged over the image, [B, channels]: 256 of DeepLabV3."""
        if isinstance(self.net, OfTransformers):
            return self.net.embeddings(images)
        if isinstance(self.net, LRASPP):
            deep, head = self.net.backbone(images)["high"], self.net.classifier
            return (head.cbr(deep) * head.scale(deep)).mean((2, 3))
        deep = self.net.backbone(images)["out"]
        for layer in list(self.net.classifier)[:-1]:
            deep = layer(deep)
        return deep.mean((2, 3))


def _existing(weights: str) -> Path:
    if not Path(weights).is_file():
        raise InputError(f"task.architecture.weights: there is no file {weights}")
    return Path(weights)


def _last_layers(net: OfTorchvision) -> tuple[str, ...]:
    """The beginnings of the names of what depends on the classes."""
    if isinstance(net, LRASPP):
        return ("classifier.low_classifier.", "classifier.high_classifier.")
    return (f"classifier.{len(net.classifier) - 1}.",)


def _load(net: OfTorchvision, path: Path) -> None:
    try:
        given = torch.load(path, weights_only=True, map_location="cpu")
        given = {str(name): value for name, value in given.items() if isinstance(value, Tensor)}
    except BAD_TORCH as error:
        what = first_line(error)
        raise InputError(f"{path} holds no state_dict of tensors: {what}") from error
    own = net.state_dict()
    if any(name.startswith("backbone.") for name in given):
        last = _last_layers(net)
        given = {
            name: value
            for name, value in given.items()
            if not name.startswith("aux_classifier.")
            and not (name.startswith(last) and value.shape[0] != own[name].shape[0])
        }
        needed = {name for name in own if not name.startswith(last)}
    elif isinstance(net.backbone, TimmBackbone):
        given = {f"backbone.net.{name}": value for name, value in names_of_timm(given, net.backbone.net).items()}
        needed = {name for name in own if name.startswith("backbone.")}
    else:
        given = {
            f"backbone.{name.removeprefix('features.')}": value
            for name, value in given.items()
            if not name.startswith(_IMAGENET_HEADS)
        }
        needed = {name for name in own if name.startswith("backbone.")}
    wrong = [name for name, value in given.items() if name not in own or own[name].shape != value.shape]
    lacking = sorted(needed - set(given))
    if wrong or lacking:
        what = f"{wrong[0]} does not fit" if wrong else f"{lacking[0]} is missing"
        raise InputError(f"{path} is of another network: {what}")
    net.load_state_dict(given, strict=False)
