"""Every config composes, and the functions that configs call."""

from __future__ import annotations

import dataclasses
import functools
import pickle
import re

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from experiments.command.resolvers import register_resolvers
from experiments.frame.run import make_selector
from experiments.lds.experiment import ESTIMATORS
from tarot import InputError
from tarot.selectors import SELECTORS
from tests.experiments.running import ROOT, composing_once

CONF = ROOT / "conf"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A config that is resolved claims the folder of its run."""
    monkeypatch.chdir(tmp_path)


def choices(group: str) -> list[str]:
    return sorted(str(path.relative_to(CONF / group).with_suffix("")) for path in (CONF / group).rglob("*.yaml"))


@functools.cache
def composed_once(*overrides: str) -> bytes:
    """Pickled, which is read in a fifth of the time that a copy takes."""
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"), composing_once():
        return pickle.dumps(compose("config", overrides=list(overrides), return_hydra_config=True))


def composed(*overrides: str) -> DictConfig:
    """A config of one's own; the same overrides take their time but once."""
    config = pickle.loads(composed_once(*overrides))
    HydraConfig.instance().set_config(config)
    return config


@pytest.mark.parametrize(
    "choice",
    [
        f"{group}={name}"
        for group in ("task", "features", "selector", "experiment", "logger")
        for name in choices(group)
    ],
)
def test_every_config_composes_and_names_what_there_is(choice):
    config = composed(choice)
    plain = OmegaConf.to_container(
        OmegaConf.masked_copy(config, [key for key in config if key != "hydra"]), resolve=True
    )

    def targets(node):
        if isinstance(node, dict):
            yield from ([node["_target_"]] if "_target_" in node else [])
            node = list(node.values())
        for value in node if isinstance(node, list) else []:
            yield from targets(value)

    found = list(targets(plain))
    assert len(found) >= 5 and all(get_class(target) for target in found)


@pytest.mark.parametrize("name", sorted(SELECTORS))
def test_a_selectors_config_lists_all_its_options(name):
    assert set(composed(f"selector={name}").selector) - {"_target_"} == (
        {field.name for field in dataclasses.fields(SELECTORS[name])} | {"size", "ratio"}
    )


@functools.cache
def own_config(selector: str) -> DictConfig:
    """What stands in its file."""
    node = OmegaConf.load(CONF / "selector" / f"{selector}.yaml")
    node.pop("defaults", None)
    return node


@pytest.mark.parametrize("task", choices("task"))
def test_every_task_goes_with_every_selector(task):
    """Composed once, which takes its time: a task changes nothing of how a selector's config is composed (below)."""
    config = composed(f"task={task}")
    for selector in choices("selector"):
        config.selector = own_config(selector)
        made, not_applied = make_selector(config.selector, selector)
        assert type(made) is SELECTORS[selector]
        assert set(not_applied) <= {"selector.size", "selector.ratio"}


def test_neither_a_task_nor_its_settings_choose_what_else_is_composed():
    paths = [*(CONF / "task").rglob("*.yaml"), *(CONF / "settings").rglob("*.yaml")]
    assert len(paths) > 20
    for path in paths:
        for other in OmegaConf.load(path).get("defaults", []):
            assert other == "_self_" or str(other).endswith("@_here_"), path


def test_there_is_a_config_for_every_selector():
    assert choices("selector") == sorted(SELECTORS)


def test_selectors_name_their_features_and_the_user_has_the_last_word():
    assert composed("selector=dsdm").features.kind == "trak"
    assert composed("selector=tarot_otm").features.kind == "wfd"
    assert composed("selector=dsdm", "features=wfd").features.kind == "wfd"


def test_one_seed_drives_everything():
    config = composed("seed=7", "selector=random")
    assert config.task.seed == config.selector.seed == config.features.projection_seed == 7


def test_a_size_replaces_the_default_ratio():
    assert composed("selector=random").selector.ratio == 0.2
    assert composed("selector=random", "selector.size=5").selector.ratio is None


@pytest.mark.parametrize(("selector", "idle"), [("all", 2), ("target_only", 2), ("tarot_otm", 2), ("random", 0)])
def test_a_size_that_does_not_apply_is_left_out(selector, idle):
    config = composed(f"selector={selector}", "selector.ratio=0.3")
    assert len(make_selector(config.selector, selector)[1]) == idle


@pytest.mark.parametrize("wrong", ["size=-1", "size=abc", "ratio=2"])
def test_a_size_that_does_not_apply_is_one_all_the_same(wrong):
    config = composed("selector=tarot_otm", f"selector.{wrong}")
    with pytest.raises(InputError, match=f"selector.{wrong.partition('=')[0]} must be"):
        make_selector(config.selector, "tarot_otm")


def test_an_automatic_size_takes_no_ratio():
    made, idle = make_selector(
        composed("selector=tarot_exact", "selector.size=auto", "selector.ratio=.1").selector, "tarot_exact"
    )
    assert made.size == "auto" and made.ratio is None and idle == ["selector.ratio"]


def test_lds_asks_for_as_many_surrogates_as_it_needs():
    assert composed("experiment=lds", "experiment.ensembles=[1,3]").task.surrogate.runs == 3


def test_lds_asks_for_candidates_like_the_targets_of_those_tasks_alone_that_have_them():
    for task in ("digits", "cifar10", "cifar10/paper"):
        assert composed("experiment=lds", f"task={task}").task.domain == "plain"
    motion = composed("experiment=lds", "task=motion").task
    assert "domain" not in motion and motion.data.candidates.cand_target == 600 and not motion.surrogate_targets
    assert {count for name, count in motion.data.candidates.items() if name != "cand_target"} == {None}
    assert "domain" not in composed("experiment=lds", "task=segmentation").task


def test_the_papers_lds_are_configs_of_their_own():
    """Figure 4 and Table 2: nothing of them is simulated."""
    for task in ("cifar10/paper", "motion/paper"):
        config = composed("experiment=lds", f"task={task}")
        assert config.experiment.ensembles == [1, 10, 50] and config.task.surrogate.runs == 50
        assert config.experiment.subsets == 100 and config.experiment.share == 0.5
        assert {"wfd_zca", "trak"} <= set(config.experiment.estimators) <= set(ESTIMATORS)
    for task, named in (("motion/paper", {"nuscenes_train"}), ("motion/nuscenes_mini", set())):
        config = composed("experiment=lds", f"task={task}", "data_dir=mine")
        assert {"wfd_zca", "wfd_unwhitened", "wfd_unnormalised", "wfd_neither"} <= set(config.experiment.estimators)
        data = instantiate(config.task.data, _convert_="all")
        asked = data.candidates if task == "motion/paper" else data.simulated
        assert {name for name, one in asked.items() if one is not None} == named
        assert not config.task.surrogate_targets


@pytest.mark.parametrize(("task", "toy"), [("instruction", 3e-3), ("instruction/less", 1e-3)])
def test_a_language_with_a_path_learns_at_the_rate_of_less(task, toy):
    """That of a language of these sizes is for it alone, and what is said stands."""
    register_resolvers()

    def rates(*given: str) -> list[float]:
        """Of the warm-up, and of what is trained on a selection."""
        config = OmegaConf.merge(OmegaConf.load(CONF / "task" / f"{task}.yaml"), OmegaConf.from_dotlist(list(given)))
        return [config.surrogate.train.learning_rate, config.train.learning_rate]

    assert rates() == [toy, toy]
    assert rates("language.path=x") == [2e-5, 2e-5]
    assert rates("surrogate.adapters=[x]")[1] == 2e-5
    assert rates("transfer.path=x") == [toy, 2e-5] and rates("transfer.hidden=32") == [toy, toy]
    assert rates("language.path=x", "transfer.hidden=32") == [2e-5, toy]
    assert rates("language.path=x", "surrogate.train.learning_rate=1", "train.learning_rate=2") == [1, 2]


def test_there_is_something_to_judge_by_where_something_is_judged():
    """And no folder of it is looked for where nothing is."""
    alone, judged = (composed("task=segmentation/folders", "data_dir=mine", *more).task.data
                     for more in ((), ("experiment.trainings=1",)))  # fmt: skip
    assert alone.validation is None and alone.test is None and alone.targets == "mine/targets"
    assert judged.validation == "mine/validation" and judged.test == "mine/test"


def test_no_code_is_asked_for_a_resolver_that_is_not_there():
    used = {name for path in CONF.rglob("*.yaml") for name in re.findall(r"\$\{([\w.]+):", path.read_text())}
    register_resolvers()
    assert used - {"hydra", "now"} and all(OmegaConf.has_resolver(name) for name in used - {"hydra", "now"})


def test_configs_name_no_place_of_a_machine():
    assert not [
        path for path in CONF.rglob("*.yaml") if re.search(r"(?<![\w.$}])/(home|work|data|mnt|tmp)\b", path.read_text())
    ]
