"""Segmentation networks of timm and of transformers: nothing is fetched, and no code of a folder is run."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.segmentation import DeepLabV3
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from tarot import InputError
from tarot.common import entries, first_line
from tasks.common.contents import hash_named
from tasks.common.model_folders import refuse_odd_files

TIMM, TRANSFORMERS = "timm/", "transformers/"
_OPTION = "task.architecture.backbone"
_WEIGHTS = (".safetensors", ".bin")
log = logging.getLogger("tarot")


# --- timm ------------------------------------------------------------------------------------------------------------


def timm_network(name: str, classes: int) -> DeepLabV3:
    """The deepest features of the backbone under DeepLabV3's head: images [B, 3, H, W] -> {"out": logits}."""
    backbone = TimmBackbone(name.removeprefix(TIMM))
    return DeepLabV3(backbone, DeepLabHead(backbone.channels, classes))


class TimmBackbone(nn.Module):
    """Images [B, 3, H, W] -> {"out": [B, channels, h, w]}, an eighth of the size where the network can be dilated for
    it, else what it comes to."""

    def __init__(self, name: str) -> None:
        super().__init__()
        if importlib.util.find_spec("timm") is None:
            raise InputError(f'{_OPTION}={TIMM}{name} needs the package: pip install -e ".[timm]"')
        import timm

        if not timm.is_model(name):  # hf-hub:NAME would be fetched
            raise InputError(f"{_OPTION}: timm has no model {name!r}; timm.list_models() names those that it has")
        self.net = _features(name)
        self.channels: int = self.net.feature_info.channels()[-1]
        self._is_last = str(getattr(self.net, "output_fmt", "NCHW")).endswith("NHWC")

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        with _of_its_size(images):
            deepest = self.net(images)[-1]
        return {"out": deepest.permute(0, 3, 1, 2) if self._is_last else deepest}


def _features(name: str) -> Any:
    import timm

    for options in ({"output_stride": 8}, {"dynamic_img_size": True}, {}):
        try:
            return timm.create_model(name, pretrained=False, features_only=True, out_indices=(-1,), **options)
        except TypeError:  # it knows no such option
            continue
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"{_OPTION}: {name!r} of timm gives no maps of features: {reason}") from error
    raise InputError(f"{_OPTION}: {name!r} of timm gives no maps of features; take another backbone")


def names_of_timm(given: Mapping[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """A classifier's weights under the names that its features have: `stages.0.x` is `stages_0.x` there. What stands
    behind the features, such as the classifier itself, is left out."""
    own = {name.removeprefix("model.").replace(".", "_"): name for name in net.state_dict()}
    return {own[key]: value for name, value in given.items() if (key := name.replace(".", "_")) in own}


# --- transformers ----------------------------------------------------------------------------------------------------


class OfTransformers(nn.Module):
    """A model for semantic segmentation: images [B, 3, H, W] -> {"out": logits [B, classes, H, W]}."""

    def __init__(self, net: nn.Module, classes: int) -> None:
        super().__init__()
        self.net, self.classes = net, classes

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        with _of_its_size(images):
            logits = self.net(pixel_values=images).logits
        return {"out": functional.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=False)}

    def embeddings(self, images: Tensor) -> Tensor:
        """What the last layer that tells the classes is given, averaged over the image, [B, channels]."""
        kept: list[Tensor] = []
        last = [m for m in self.net.modules() if isinstance(m, nn.Conv2d) and m.out_channels == self.classes][-1]
        hook = last.register_forward_pre_hook(lambda module, args: kept.append(args[0]))
        try:
            self(images)
        finally:
            hook.remove()
        return kept[-1].mean((2, 3))


def is_of_transformers(backbone: str) -> bool:
    return backbone.startswith(TRANSFORMERS) or _is_folder(backbone)


def network_of_transformers(backbone: str, classes: int) -> OfTransformers:
    """backbone: a folder with config.json, whose weights are read where it has some, all but those of the classes where
    these are others; or transformers/TYPE, as the library makes that type by default, with random weights.

    Raises InputError for what is no model for semantic segmentation, and for weights that are missing or do not fit.
    """
    from transformers import AutoModelForSemanticSegmentation

    config = _config(backbone)
    config.num_labels = classes
    if getattr(config, "use_auxiliary_head", False):  # a second head, for the library's own losses
        config.use_auxiliary_head = False
    auto: Any = AutoModelForSemanticSegmentation
    try:
        if not _is_folder(backbone) or not any(_held(backbone)):
            return OfTransformers(auto.from_config(config, trust_remote_code=False), classes)
        net, loaded = auto.from_pretrained(
            backbone,
            config=config,
            trust_remote_code=False,
            local_files_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            dtype=torch.float32,
        )
    except Exception as error:  # whatever a broken folder makes the library come upon
        raise InputError(_unreadable(backbone, error)) from error
    own = net.state_dict()
    mismatched = [name for name, *_ in loaded["mismatched_keys"]]
    wrong = [name for name in mismatched if own[name].shape[0] != classes]
    missing = set(loaded["missing_keys"]) - set(mismatched)
    heads = {name.split(".")[0] for name in missing} - {net.base_model_prefix}
    untold = {head for head in heads if all(name in missing for name in own if name.split(".")[0] == head)}
    lacking = sorted(name for name in missing if name.split(".")[0] not in untold)
    if wrong or lacking:
        what = f"{wrong[0]} does not fit" if wrong else f"{lacking[0]} is missing"
        raise InputError(
            f"{_OPTION}: the weights in {backbone} are of another network: {what}; fetch the folder again, or give one "
            "with config.json alone for random weights"
        )
    if untold:
        log.info("%s has no weights of %s, which are drawn at random", backbone, " and ".join(sorted(untold)))
    return OfTransformers(net, classes)


def identity(backbone: str, cache: Path | None) -> dict[str, Any]:
    """What determines a network of transformers, as plain data."""
    if not _is_folder(backbone):
        return {"backbone": backbone}
    files = {path.name: path for path in (Path(backbone) / "config.json", *_held(backbone))}
    return {"backbone": Path(backbone).name, "files": hash_named(files, cache)}


def _config(backbone: str) -> Any:
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES as KINDS

    kind = backbone.removeprefix(TRANSFORMERS)
    if _is_folder(backbone):
        refuse_odd_files(backbone)
    try:
        if _is_folder(backbone):
            config = AutoConfig.from_pretrained(backbone, trust_remote_code=False, local_files_only=True)
            kind = config.model_type
        if kind in KINDS:
            return config if _is_folder(backbone) else AutoConfig.for_model(kind)
    except Exception as error:
        raise InputError(_unreadable(backbone, error)) from error
    raise InputError(
        f"{_OPTION}: {backbone} is no model for semantic segmentation of transformers, which are {', '.join(KINDS)}"
    )


def _unreadable(backbone: str, error: Exception) -> str:
    return (
        f"{_OPTION}: {backbone} is no model of transformers that can be made ({first_line(error)}); give another folder"
    )


def _is_folder(backbone: str) -> bool:
    return (Path(backbone) / "config.json").is_file()


def _held(folder: str) -> Iterator[Path]:
    """The files of weights, which stand in the folder itself."""
    return (path for path in entries(folder) if path.suffix in _WEIGHTS)


@contextlib.contextmanager
def _of_its_size(images: Tensor) -> Iterator[None]:
    """Raises InputError where a network is made for images of another size, which it finds out when it sees one."""
    try:
        yield
    except (ValueError, AssertionError) as error:
        height, width = images.shape[-2:]
        raise InputError(
            f"{_OPTION}: the network does not take images of {height} x {width} ({error}); set task.data.height and "
            "task.data.width to what it was made for, or take another"
        ) from error
