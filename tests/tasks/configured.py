"""Tasks as their configs have them, with options of a test's own: a config is composed once, which takes its time."""

from __future__ import annotations

import pickle
from functools import cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from experiments.command.resolvers import register_resolvers
from tarot import InputError
from tasks.task import Task

CONF = Path(__file__).parents[2] / "conf"


@cache
def _composed(name: str) -> bytes:
    common = ("+data_dir=data", "+cache_dir=cache", "+seed=0", "+device=cpu")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return pickle.dumps(compose(overrides=[f"+task={name}", *common]))


def config_of(name: str, data_dir: Path | str, cache_dir: Path, *overrides: str) -> DictConfig:
    """The config of a task; overrides are as on the command line, such as "train.steps=4"."""
    register_resolvers()  # which interpolations name
    config = pickle.loads(_composed(name))
    config.data_dir, config.cache_dir = str(data_dir), str(cache_dir)
    for one in OverridesParser.create().parse_overrides([f"++task.{override}" for override in overrides]):
        OmegaConf.update(config, one.key_or_group, one.value(), merge=True, force_add=True)  # as Hydra does
    return config.task


def task_of(name: str, data_dir: Path | str, cache_dir: Path, *overrides: str) -> Task:
    """Raises InputError where an option is refused."""
    try:
        return instantiate(config_of(name, data_dir, cache_dir, *overrides))
    except InstantiationException as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        raise
