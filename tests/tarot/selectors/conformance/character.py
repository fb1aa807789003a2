"""What a selector is: its facts, its description, and that it leaves the world as it was."""

from __future__ import annotations

import copy
import dataclasses
import gc
import io
import json
import logging
import os
import pickle
import random
import tempfile
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import ot  # noqa: F401  (when it is first imported Python may warn of how it is written)
import sklearn  # noqa: F401  (when it is first imported it writes for OpenMP into the environment)
import torch

import tarot
from tarot.selection import SelectionProblem
from tarot.selectors import Selector, TarotFixed
from tarot.selectors.contract import check_selector
from tarot.selectors.options import described
from tarot.space import resolved
from tests.tarot.selectors.conformance.subjects import (
    SIZE,
    N,
    NotPromised,
    Subject,
    assert_same,
    pool,
    quiet,
    refused,
    usual,
)


def declares_its_facts(subject: Subject) -> None:
    check_selector(subject.kind)
    assert isinstance(subject.made(), Selector)
    stray = {"features", "whitening", "reference"} & subject.fields
    assert not stray, f"{sorted(stray)} are facts of the class, not options"
    made = subject.made()
    for field in dataclasses.fields(made):
        try:
            setattr(made, field.name, getattr(made, field.name))
        except dataclasses.FrozenInstanceError:
            continue
        raise AssertionError(f"{field.name} can be set when it was checked already: its dataclass is not frozen")


def describes_itself(subject: Subject) -> None:
    """As plain data, in its Selection, from which it can be made again. Of an option that is "auto" it says what that
    came to."""
    selector = subject.made()
    found = subject.select(pool(), selector).selector
    chosen = {key: "auto" for key, value in described(selector).items() if value == "auto" and key in found}
    assert {**found, **chosen} == described(selector), f"its selection is described as {found}"
    assert json.loads(json.dumps(found))["class"] == subject.kind.__name__
    again = subject.kind(**{key: value for key, value in found.items() if key != "class"})
    assert described(again) == found
    assert_same(subject.select(pool(), again), subject.select(pool(), selector), "made again it selects others")


def refuses_what_no_option_may_be(subject: Subject) -> None:
    """Where the object is made, by the option's name: an object of no meaning, whatever the option is."""
    for option in sorted(subject.fields):
        refused(f"{option}=object()", lambda option=option: subject.made(**{option: object()}), option)


def keeps_no_state(subject: Subject) -> None:
    share = {"ratio": 0.29} if subject.sized else {}  # which is another size in another pool
    selector, known, smaller = subject.made(**share), pool(views=2), pool(1, n=N - 7)
    given = copy.deepcopy(known)
    first = subject.select(known, selector)
    second = subject.select(smaller, selector)
    again = subject.select(known, selector)
    assert_same(first, again, "a second call differs from the first")
    fresh = subject.select(smaller, subject.made(**share))
    assert_same(fresh, second, "it answers otherwise where it was asked of another pool before")
    for key, before in given.items():
        np.testing.assert_equal(known[key], before, err_msg=f"it wrote into {key}")


def answers_the_problem_at_hand(subject: Subject) -> None:
    """Another problem of the same shape, or other numbers in the same arrays, gets its own answer: who remembers a
    problem by its size or its arrays answers an earlier question."""
    if not subject.looks_at_features:
        raise NotPromised("it does not look at features, and may choose alike in all problems of a size")
    one, other = pool(2), pool(3)
    first, second = subject.select(one), subject.select(other)
    assert first.indices.tolist() != second.indices.tolist(), "two problems of one shape have the same answer"
    for key in ("candidates", "targets", "candidate_scores", "candidate_residuals"):
        one[key][0][...] = other[key][0]
    labels = {key: other[key] for key in ("candidate_labels", "target_labels", "candidate_tags")}
    assert_same(second, subject.select({**one, **labels}), "other numbers in the same arrays")


def leaves_a_shared_problem_as_it_was(subject: Subject) -> None:
    """Several methods may be asked of one problem, which keeps what it found for one of them: who writes into that
    spoils the answers of the others, and who is misled by it is spoilt by them."""
    known = pool()
    views = {"candidate_views": known.pop("candidates"), "target_views": known.pop("targets")}

    def posed() -> SelectionProblem:
        return SelectionProblem(**views, **known, whitening=resolved("auto", None, subject.kind.whitening))

    shared, other = posed(), TarotFixed(size=SIZE)
    with quiet():
        TarotFixed(size=2).select(shared)
        assert_same(usual(subject), subject.made().select(shared), "another method has asked the problem before")
        assert_same(other.select(posed()), other.select(shared), "what another method finds in the problem after it")


def reaches_a_worker(subject: Subject) -> None:
    """As bytes, which is how it goes to another process, and what it has chosen comes back."""
    sent = pickle.loads(pickle.dumps(subject.made()))
    came_back = pickle.loads(pickle.dumps(subject.select(pool(), sent)))
    assert_same(usual(subject), came_back, "in another process")


def leaves_global_state_alone(subject: Subject, folder: Path) -> None:
    """A choice that depends on the global generators is nobody's to repeat, and one that moves them, or a setting,
    changes the training after it. A warning where nothing is wrong is not read where something is. What is printed
    spoils the output of whoever calls, and what is kept in the folder that one happens to be in, or among temporary
    files, is found there by the next run."""

    def generators() -> list[Any]:
        _, words, *position = np.random.get_state()  # noqa: NPY002  (the old generator is what is watched)
        return [random.getstate(), words.tolist(), position, torch.get_rng_state().tolist()]

    ours = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    root = logging.getLogger()
    found, handlers, printed, selections = settings(), root.handlers[:], io.StringIO(), []
    here, temporary = os.getcwd(), tempfile.tempdir
    os.chdir(folder)
    tempfile.tempdir = str(folder)
    try:
        for seed in range(2):
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            torch.manual_seed(seed)
            before = generators()
            with redirect_stdout(printed), redirect_stderr(printed), warnings.catch_warnings(record=True) as heard:
                warnings.simplefilter("always")
                selections.append(tarot.select(**pool(), selector=subject.made()))
                warnings.warn("is it heard?", stacklevel=1)
            moved = generators() != before  # not within the assert, which would compare thousands of words one by one
            assert not moved, "it moved a global generator"
            said = [str(one.message) for one in heard]
            assert "is it heard?" in said, "it silences warnings"
            assert len(said) == 1, f"it warns of an ordinary problem: {said[0]}"
        assert os.path.samefile(os.getcwd(), folder), "it changed the working directory"
        assert not os.listdir(folder), f"it left {os.listdir(folder)} where it was called"
    finally:
        os.chdir(here)
        tempfile.tempdir = temporary
        left = settings()
        root.handlers[:], root.level = handlers, found["what is logged"][0]
        torch.use_deterministic_algorithms(found["determinism"])
        random.setstate(ours[0])
        np.random.set_state(ours[1])  # noqa: NPY002
        torch.set_rng_state(ours[2])
        torch.set_grad_enabled(found["gradients"])
        torch.set_default_dtype(found["default dtype"])
        torch.set_num_threads(found["threads"])
        np.seterr(**found["NumPy's errors"])
        np.set_printoptions(**found["how NumPy prints"])
        gc.enable() if found["garbage is collected"] else gc.disable()
    changed = [name for name in found if found[name] != left[name]]
    assert not changed, f"it changed {changed} for everybody"
    assert not printed.getvalue(), f"it prints {printed.getvalue()!r}"
    assert_same(selections[0], selections[1], "other seeds of the global generators")


def settings() -> dict[str, Any]:
    """Of the process."""
    return {
        "gradients": torch.is_grad_enabled(),
        "default dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "NumPy's errors": np.geterr(),
        "how NumPy prints": np.get_printoptions(),
        "garbage is collected": gc.isenabled(),
        "determinism": torch.are_deterministic_algorithms_enabled(),
        "what is logged": (logging.getLogger().level, len(logging.getLogger().handlers)),
        "the environment": dict(os.environ),
    }
