"""A network for small images and minutes of a CPU: six convolutions and a narrow pyramid of dilated ones."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.segmentation import DeepLabV3
from torchvision.models.segmentation.deeplabv3 import ASPP

_WIDTHS = (24, 48, 48, 72, 72, 72)  # of the convolutions
_STRIDES = (2, 2, 1, 2, 1, 1)
_RATES, _HEAD = (2, 4, 6), 48  # of the pyramid, which sees an eighth of the image's size, and its width


def small_network(classes: int) -> DeepLabV3:
    """Images [B, 3, H, W] -> {"out": logits [B, classes, H, W]}."""
    return DeepLabV3(_Backbone(), _head(classes))


class _Backbone(nn.Sequential):
    """Images [B, 3, H, W] -> {"out": [B, 72, H / 8, W / 8]}."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for before, after, stride in zip((3, *_WIDTHS[:-1]), _WIDTHS, _STRIDES, strict=True):
            convolution = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(after), nn.ReLU()]
        super().__init__(*layers)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": super().forward(images)}


def _head(classes: int) -> nn.Sequential:
    """DeepLabV3's, without the convolution between its pyramid and its last layer, and without dropout: trainings of a
    few hundred steps have no use for it."""
    pyramid = ASPP(_WIDTHS[-1], _RATES, _HEAD)
    for module in pyramid.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return nn.Sequential(pyramid, nn.Conv2d(_HEAD, classes, 1))
