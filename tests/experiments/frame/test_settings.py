"""Wrong values of every option of the composed configs: each is refused by one line that names option and value, or is
a value that may be, and nothing but composition and construction is done to find out."""

from __future__ import annotations

import copy
import functools
import math
import random
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from experiments.command.errors import message_of
from experiments.frame.options import check_config
from experiments.frame.run import Run
from tarot import InputError
from tests.experiments.command.test_configs import choices, composed

WRONG = ("abc", "", "../../x", "1e3x", "\0", -1, 0, 1.5, 1e11, math.nan, None, True, [], ["abc"], {"a": 1})
# Together they name every embedded task, and classes of every kind.
FEW = (
    ("task=digits", "experiment=corruption"),
    ("task=segmentation", "selector=sava", "logger=wandb"),
    ("task=motion", "selector=el2n"),
    ("task=instruction", "selector=tsds"),
    ("task=digits", "selector=tarot_exact"),
)
EVERY = (
    *((f"task={name}",) for name in ("digits", "segmentation", "motion", "instruction")),
    *((f"selector={name}",) for name in choices("selector")),
    *((f"experiment={name}",) for name in choices("experiment") if name != "submission"),
    ("logger=wandb",),
)


WHOLE: dict[tuple[str, ...], DictConfig] = {}


@functools.cache
def base(*overrides: str) -> DictConfig:
    """Composed, with a place for its results, open to any value; what is Hydra's own is kept beside it."""
    config = composed(*overrides)
    OmegaConf.set_struct(config, False)
    OmegaConf.set_readonly(config, False)
    OmegaConf.set_readonly(config.hydra, False)
    config.output_dir = "out"
    config.hydra.runtime.output_dir = "out"
    WHOLE[overrides] = config
    return OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])


def leaves(node: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in node:
        value = node._get_node(key)
        if isinstance(value, DictConfig) and len(value):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def cases(bases: tuple[tuple[str, ...], ...]) -> list[tuple[tuple[str, ...], str, Any]]:
    found = []
    for overrides in bases:
        found += [(overrides, leaf, value) for leaf in leaves(base(*overrides)) for value in WRONG]
    return found


def construct(overrides: tuple[str, ...], leaf: str, value: Any) -> tuple[Any, BaseException | None]:
    """What stood in the option's place, and what the run of this config is refused with, if it is."""
    config = base(*overrides)
    parent, _, key = leaf.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    before = copy.deepcopy(node._get_node(key))
    stood = OmegaConf.select(config, leaf)
    try:
        node[key] = value
        HydraConfig.instance().cfg = WHOLE[overrides]
        Run.of(config)
    except Exception as error:
        return stood, error
    finally:
        if before is None:
            del node[key]
        else:
            node[key] = before
    return stood, None


def misread(overrides: tuple[str, ...], leaf: str, value: Any) -> str | None:
    """What is wrong with how this value is taken."""
    stood, error = construct(overrides, leaf, value)
    given = f"{' '.join(overrides)} {leaf}={value!r}"
    if error is not None:
        message = message_of(error)
        if message is None:
            return f"{given}: a traceback, {error!r}"
        if "\n" in message or len(message) > 500 or leaf.rpartition(".")[2] not in message:
            return f"{given}: not one line that names the option, {message}"
        shown = re.sub(r"\W", "", str(value))
        if isinstance(value, str | float) and shown and shown not in re.sub(r"\W", "", message):
            return f"{given}: a line that does not name the value, {message}"
        return None
    number = isinstance(stood, int | float) and not isinstance(stood, bool)
    if number and (isinstance(value, str | list | dict) or value != value):
        return f"{given}: taken in the place of {stood!r}"
    return None


def check(bases: tuple[tuple[str, ...], ...], count: int) -> None:
    everything = cases(bases)
    assert len(everything) > count
    found = [misread(*case) for case in random.Random(0).sample(everything, count)]
    assert [line for line in found if line] == []


@pytest.fixture(autouse=True)
def hydra_as_it_was():
    before = HydraConfig.instance().cfg
    yield
    HydraConfig.instance().cfg = before


def test_wrong_values_of_options_are_refused_by_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    check(FEW, 60)
    assert not list(tmp_path.iterdir()), "and nothing was made"


@pytest.mark.slow
def test_wrong_values_of_every_option_are_refused_by_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    check(EVERY, 1000)


@pytest.mark.parametrize(
    ("leaf", "value", "words"),
    [
        ("seed", -1, "seed must be in [0, 2147483647]; it is -1"),
        ("device", "mps", "device 'mps' is not there"),
        ("device", "toaster", "device 'toaster' is none that torch knows"),
        ("deterministic", "abc", "deterministic must be true or false; it is 'abc'"),
        ("cache_dir", None, "cache_dir must be a string; it is None"),
        ("cache_dir", "", "cache_dir must be the path of a folder; it is ''"),
        ("data_dir", "a\0b", "data_dir must be the path of a folder"),
        ("task.name", "../../x", "task.name must be a word of letters, digits, - and _"),
        ("task.name", None, "task.name must be a word"),
        ("task.surrogate._target_", "nonsense", "task.surrogate._target_ must name a class"),
        ("task._target_", "tasks.classification.NoSuchTask", "task._target_ must name a class"),
        ("selector._target_", 3, "selector._target_ must name a class"),
        ("selector._target_", "unittest.__main__.main", "selector._target_ must name a class"),
        ("task._target_", "builtins.print", "task._target_ must name a class of the kind of"),
        ("features._target_", "tarot.selectors.Random", "features._target_ must name a class of the kind of"),
        ("selector._target_", "tasks.classification.Digits", "selector._target_ must name a class of the kind of"),
        ("experiment._target_", "builtins.dict", "experiment._target_ must name a class of the kind of"),
        ("logger._target_", "collections.OrderedDict", "logger._target_ must name a class of the kind of"),
        ("engine._target_", "sys.exit", "engine._target_ must name a class of the kind of"),
        ("selector._partial_", True, "selector._partial_ is no option"),
        ("task._args_", [1], "task._args_ is no option"),
        ("task._recursive_", "abc", "task._recursive_ is no option"),
        ("seed", 2**63, "seed must be in [0, 2147483647]"),
        ("task.cache_dir", " ", "task.cache_dir must be the path of a folder"),
        ("task.name", "a" * 300, "task.name must be a word"),
        ("device", "meta", "device 'meta' is not there"),
        ("experiment._convert_", "some", "experiment._convert_ must be one of none, partial, object, all"),
        ("features.batch_size", "abc", "features.batch_size must be"),
        ("features.dim", 1e11, "features.dim must be"),
        ("features.dim", 10**11, "features.dim must be in [1, 1048576]"),
        ("features.regularization", "abc", "features.regularization must be"),
        ("features.workers", -1, "features.workers must be at least 0; it is -1"),
        ("features.influence", {"rows": "abc"}, "features.influence.rows must be"),
        ("features.influence", {"rosw": 3}, "features.influence.rosw is no option"),
        ("task.surrogate.runs", 0, "task.surrogate.runs must be at least 1; it is 0"),
        ("selector", "tsds", "selector must be a group of options"),
        ("logger", {}, "logger._target_ must name a class"),
    ],
)
def test_it_says_what_an_option_must_be(leaf, value, words):
    _, error = construct(FEW[0], leaf, value)
    assert isinstance(error, InputError) or message_of(error) is not None
    assert words in message_of(error)


def test_what_is_composed_is_allowed():
    for overrides in FEW:
        config = base(*overrides)
        HydraConfig.instance().cfg = WHOLE[overrides]
        check_config(OmegaConf.to_container(config, resolve=True))


def test_a_cpu_without_memory_gets_one_line():
    error = RuntimeError("[enforce fail at alloc_cpu.cpp:115] data. DefaultCPUAllocator: can't allocate memory")
    assert message_of(error).startswith("out of memory")
