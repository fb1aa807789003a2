"""Adapters of a training that was made elsewhere, as the surrogate: peft's folders, and checkpoints of a Trainer.

A folder is one of adapters (adapter_config.json), or holds checkpoint-* folders of adapters, in the order of their
steps. Adam's moments are read where they are there: moments.safetensors (`tarot.integrations`), by the names of
parameters, or a Trainer's optimizer.pt, by their order in it. What is read runs no code.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from tarot import InputError
from tarot.common import read_json
from tarot.features import BAD_TORCH
from tarot.integrations.moments import FILE, KEYS, read_moments
from tasks.common.contents import hash_named
from tasks.instruction.model import Adapter, Language, LanguageModel
from tasks.task import Checkpoint

log = logging.getLogger("tarot")
CONFIG = "adapter_config.json"
_NOT_ITS_KIND = ("base_model_name_or_path", "inference_mode", "revision", "auto_mapping", "peft_version")
_READ = (CONFIG, "adapter_model.safetensors", "adapter_model.bin", FILE, "optimizer.pt", "trainer_state.json")


@dataclass(frozen=True)
class TrainedAdapter(Adapter):
    """LoRA as a folder's adapter_config.json has it; what else it says of rank and modules is not its own."""

    folder: str = ""

    @cached_property
    def config(self) -> LoraConfig:
        path = Path(self.folder) / CONFIG
        try:
            read_json(path)
            found = PeftConfig.from_pretrained(self.folder)
        except (AttributeError, OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path} is no adapter's of peft: {' '.join(str(error).split())}") from error
        if not isinstance(found, LoraConfig):
            raise InputError(f"{path}: adapters must be LoRA's; they are {found.peft_type}")
        found.inference_mode = False
        return found

    def recipe(self) -> dict[str, Any]:
        path = Path(self.folder) / CONFIG
        try:
            known = dict(read_json(path))
        except (TypeError, ValueError) as error:  # an InputError is a ValueError
            raise InputError(f"{path} is no adapter's of peft: {' '.join(str(error).split())}") from error
        return {"config": {key: value for key, value in sorted(known.items()) if key not in _NOT_ITS_KIND}}

    def attach(self, net: PreTrainedModel) -> PeftModel:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers 5 in the words of 4
                warnings.filterwarnings("ignore", "The PEFT config's")  # the base may lie elsewhere now
                return get_peft_model(net, self.config)
        except Exception as error:  # peft raises whatever an odd config makes it come upon
            raise InputError(
                f"{self.folder}: the adapters are of another model than {type(net).__name__}: "
                f"{' '.join(str(error).split())}"
            ) from error

    def refuse_unknown(self, net: PreTrainedModel) -> None:
        """peft does, when they are attached."""


@dataclass(frozen=True)
class Trained:
    """folders: of adapters, each a checkpoint; those of one parent folder are one training."""

    folders: tuple[Path, ...]

    @classmethod
    def of(cls, paths: str | Sequence[str]) -> Trained:
        """Raises InputError where a path holds no adapters, or adapters of another kind than the first."""
        given = [Path(path) for path in ([paths] if isinstance(paths, str) else paths)]
        folders = [folder for path in given for folder in _checkpoints_in(path)]
        found = cls(tuple(dict.fromkeys(folders)))
        if not found.folders:
            raise InputError("task.surrogate.adapters must name one or more folders")
        kinds = [TrainedAdapter(folder=str(folder)).recipe() for folder in found.folders]
        for folder, kind in zip(found.folders, kinds, strict=True):
            if kind != kinds[0]:
                other = next(key for key in {**kind["config"], **kinds[0]["config"]}
                             if kind["config"].get(key) != kinds[0]["config"].get(key))  # fmt: skip
                raise InputError(
                    f"task.surrogate.adapters: {folder} has another {other} than {found.folders[0]}; one model is to "
                    "have them in turn"
                )
        return found

    @property
    def adapter(self) -> TrainedAdapter:
        return TrainedAdapter(folder=str(self.folders[0]))

    @property
    def base(self) -> str:
        """The model that they were trained on, as they name it."""
        named = self.adapter.config.base_model_name_or_path
        if not named:
            raise InputError(f"{self.folders[0] / CONFIG} names no model: give task.language.path")
        return str(named)

    @property
    def optimizer(self) -> str | None:
        """Adam where its moments are beside every checkpoint."""
        known = all((folder / FILE).is_file() or (folder / "optimizer.pt").is_file() for folder in self.folders)
        return "adamw" if known else None

    def recipe(self, cache: Path | None) -> dict[str, Any]:
        """The contents of their files."""
        files = {
            f"{place}/{name}": folder / name
            for place, folder in enumerate(self.folders)
            for name in _READ
            if (folder / name).is_file()
        }
        runs = [str(folder.parent) for folder in self.folders]
        return {"adapters": hash_named(files, cache), "runs": [runs.index(run) for run in runs]}

    def checkpoints(self, language: Language, vocabulary: int) -> list[Checkpoint]:
        """Raises InputError where a folder is damaged, or of another model. vocabulary: where language has no path."""
        model = language.outline(vocabulary, self.adapter)
        runs = list(dict.fromkeys(folder.parent for folder in self.folders))
        before = dict.fromkeys(runs, 0)  # steps that are done
        states, moments, rates = [], [], []
        for folder in self.folders:
            step, run = _step(folder), folder.parent
            states.append(_weights(folder, model))
            moments.append(_moments(folder, model))
            rates.append(_rate(folder, before[run], step))
            before[run] = step or 0
        known = [rate for rate in rates if rate is not None]
        if len(known) < len(rates):
            known = [1.0] * len(rates)
            if len(rates) > 1:
                log.info("no learning rates are beside the adapters: all %d checkpoints weigh alike", len(rates))
        return [
            Checkpoint(folder.name, state, rate, moment, runs.index(folder.parent))
            for folder, state, rate, moment in zip(self.folders, states, known, moments, strict=True)
        ]


def _checkpoints_in(path: Path) -> list[Path]:
    of_adapters = (file.parent for file in path.glob(f"checkpoint-*/{CONFIG}"))
    inside = [folder for folder in of_adapters if _step(folder) is not None]
    if inside:
        return sorted(inside, key=lambda folder: _step(folder) or 0)
    if (path / CONFIG).is_file():
        return [path]
    what = (
        "is not there" if not path.exists() else f"holds neither adapters ({CONFIG}) nor checkpoint-* folders of them"
    )
    raise InputError(f"task.surrogate.adapters: {path} {what}")


def _step(folder: Path) -> int | None:
    number = folder.name.removeprefix("checkpoint-")
    return int(number) if number.isdecimal() and number != folder.name else None


def _weights(folder: Path, model: LanguageModel) -> dict[str, Tensor]:
    """The adapters by our names of them."""
    safe, old = folder / "adapter_model.safetensors", folder / "adapter_model.bin"
    path = safe if safe.is_file() else old
    try:
        given = load_file(path) if path is safe else torch.load(path, weights_only=True, map_location="cpu")
    except BAD_TORCH as error:
        raise InputError(f"{path} does not hold a whole adapter: {' '.join(str(error).split())}") from error
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    state = {}
    for name in model.adapters:
        saved = name.removeprefix("net.").replace(".modules_to_save.default", "").replace(".default", "")
        for key in (saved, saved.removesuffix(".weight")):  # a magnitude of DoRA is saved without its end
            if key in given:
                state[name] = given.pop(key).detach()
                break
        else:
            raise InputError(f"{path} lacks {saved}: it is of another model, or damaged")
        if tuple(state[name].shape) != shapes[name]:
            raise InputError(f"{path}: {saved} is {list(state[name].shape)}, and the model's is {list(shapes[name])}")
    if given:
        raise InputError(f"{path} holds {next(iter(given))}, too, which is no adapter of {CONFIG}")
    return state


# --- Adam's moments and learning rates -------------------------------------------------------------------------------


def _moments(folder: Path, model: LanguageModel) -> Mapping[str, Mapping[str, Tensor]] | None:
    """By our names, where they are there."""
    named = read_moments(folder)
    if named is not None:
        moments = {f"net.{name}": state for name, state in named.of.items()}
        _refuse_others(folder / FILE, moments, model)
        return moments
    path = folder / "optimizer.pt"
    if not path.is_file():
        return None
    found = _of_trainer(path, model)
    _refuse_others(path, found, model)
    return found


def _of_trainer(path: Path, model: LanguageModel) -> dict[str, dict[str, Tensor]]:
    """A Trainer's: by the place of a parameter in its groups, first those that decay and then the others."""
    from transformers import Trainer  # takes seconds to import

    try:
        saved = torch.load(path, weights_only=True, map_location="cpu")
    except BAD_TORCH as error:
        raise InputError(
            f"{path} is no optimizer's state that can be read without running code ({type(error).__name__})"
        ) from error
    decays = set(Trainer.get_decay_parameter_names(None, model.net))  # type: ignore[arg-type]  # it looks at no trainer
    names = [name.removeprefix("net.") for name in model.adapters]
    order = [name for name in names if name in decays] + [name for name in names if name not in decays]
    try:
        places = [place for group in saved["param_groups"] for place in group["params"]]
        states = {place: dict(saved["state"].get(place, {})) for place in places}
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(f"{path} is no state of an optimizer of torch") from error
    if len(places) != len(order):
        raise InputError(f"{path} is of {len(places)} parameters, and the adapters are {len(order)}")
    found = {}
    for name, place in zip(order, places, strict=True):
        state = {key: states[place].get(key) for key in KEYS}
        if not all(isinstance(value, Tensor | int | float) for value in state.values()):
            raise InputError(
                f"{path} has no exp_avg, exp_avg_sq and step of {name}: it must be Adam's or AdamW's of torch (optim="
                "adamw_torch), not of 8 bit"
            )
        found[f"net.{name}"] = {key: torch.as_tensor(value) for key, value in state.items()}
    return found


def _refuse_others(path: Path, moments: Mapping[str, Mapping[str, Tensor]], model: LanguageModel) -> None:
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters() if name in model.adapters}
    if set(moments) != set(shapes):
        wrong = sorted(set(moments) ^ set(shapes))[0]
        raise InputError(f"{path} is of other adapters: {wrong.removeprefix('net.')} is in one of them alone")
    for name, state in moments.items():
        for key in KEYS[:2]:
            if tuple(state[key].shape) != shapes[name]:
                raise InputError(
                    f"{path}: {key} of {name.removeprefix('net.')} is {list(state[key].shape)}, and the parameter "
                    f"{list(shapes[name])}"
                )


def _rate(folder: Path, before: int, step: int | None) -> float | None:
    """The mean learning rate after one step and up to another, as it is beside the moments, or as a Trainer logged it;
    None where nobody says it."""
    named = read_moments(folder)
    if named is not None:
        return named.learning_rate
    try:
        history = read_json(folder / "trainer_state.json")["log_history"]
        logged = [(int(entry["step"]), float(entry["learning_rate"])) for entry in history if "learning_rate" in entry]
    except (ValueError, KeyError, TypeError, OverflowError):  # an InputError is a ValueError
        return None
    rates = [rate for at, rate in logged if before < at <= (at if step is None else step)]
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(np.mean(rates)) if rates else 0.0
    return mean if 0 < mean < np.inf else None
